#!/usr/bin/env bash
# Installs, by package, the real apps that tests/apps/ drives behind the gateway: Tomcat's examples, Rails and DokuWiki (apt),
# Django, Flask, gunicorn and Jupyter Server (pip, in virtualenvs), Express and express-session (npm). What is there already is left alone, so a second
# run takes a moment. What is no package of Debian's goes below target/test-apps/.
#
#   tests/apps/install.sh     as root, or where sudo may be used without a terminal
set -euo pipefail
cd "$(dirname "$0")/../.."

HERE=tests/apps
APPS=${CARGO_TARGET_DIR:-target}/test-apps
# The tools for an instance of one's own, in place of the package tomcat10: that would start a server of the system.
TOMCAT=(tomcat10-user tomcat10-examples)
# What the package rails is made of, without the tools that make a new app.
RAILS=(ruby ruby-railties ruby-actionpack puma)
WIKI=(dokuwiki php-cli php-xml)

say() { printf 'install.sh: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_installed() { dpkg-query --show --showformat '${db:Status-Status}\n' "$@" 2>/dev/null | grep -qx installed; }

# apt PACKAGE...: those that are missing.
apt() {
  local package missing=()
  for package in "$@"; do
    apt_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "apt: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# up_to_date STAMP FILE: whether the stamp was left by an install of this very list.
up_to_date() { [ -e "$1" ] && cmp -s "$1" "$2"; }

# python_app NAME: a virtualenv with what NAME/requirements.txt lists.
python_app() {
  local list=$HERE/$1/requirements.txt venv=$APPS/$1
  up_to_date "$venv/installed" "$list" && [ -x "$venv/bin/python" ] && return
  say "pip: $(paste -sd ' ' "$list")"
  # The system's Python brings no ensurepip of its own on Debian.
  python3 -c 'import ensurepip' 2>/dev/null || apt python3-venv
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$list"
  cp "$list" "$venv/installed"
}

express() {
  local list=$HERE/express/package.json place=$APPS/express
  up_to_date "$place/installed" "$list" && [ -d "$place/node_modules" ] && return
  command -v npm >/dev/null || apt nodejs npm
  say "npm: express, express-session"
  mkdir -p "$place"
  cp "$list" "$place/package.json"
  npm install --prefix "$place" --no-package-lock --no-audit --no-fund --loglevel=error
  cp "$list" "$place/installed"
}

command -v apt-get >/dev/null || fail "Tomcat is installed by apt-get, which is not here"
command -v python3 >/dev/null || apt python3
apt "${TOMCAT[@]}" "${RAILS[@]}" "${WIKI[@]}"
mkdir -p "$APPS"
python_app django
python_app flask
python_app jupyter
express
say "the apps are in place"
