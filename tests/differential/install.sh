#!/usr/bin/env bash
# Installs, by package, the cookie parsers that tests/differential/ asks: Tomcat's (apt, with a JDK for the driver), Rack's, PHP's
# and Perl's (apt), those of Python's frameworks (pip, in a virtualenv) and of Node's (npm). With them come the sources of
# two Python packages, whose own tests are a corpus of headers. What is there already is left alone, so a second run takes a
# moment. Everything but Debian's packages goes below target/test-differential/.
#
#   tests/differential/install.sh     as root, or where sudo may be used without a terminal
set -euo pipefail
cd "$(dirname "$0")/../.."

HERE=tests/differential
PLACE=${CARGO_TARGET_DIR:-target}/test-differential

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

python() {
  local list=$HERE/requirements.txt venv=$PLACE/python
  up_to_date "$venv/installed" "$list" && [ -x "$venv/bin/python" ] && return
  say "pip: $(paste -sd ' ' "$list")"
  # The system's Python brings no ensurepip of its own on Debian.
  python3 -c 'import ensurepip' 2>/dev/null || apt python3-venv
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$list"
  # Only the packages as their authors pack them hold their tests.
  "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$venv/sources" \
    'starlette>=1.0,<2' 'werkzeug>=3.1,<4'
  for package in "$venv"/sources/*.tar.gz; do tar -xzf "$package" -C "$venv/sources"; done
  cp "$list" "$venv/installed"
}

node() {
  local list=$HERE/package.json place=$PLACE/node
  up_to_date "$place/installed" "$list" && [ -d "$place/node_modules" ] && return
  command -v npm >/dev/null || apt nodejs npm
  say "npm: cookie, cookies, tough-cookie"
  mkdir -p "$place"
  cp "$list" "$place/package.json"
  npm install --prefix "$place" --no-package-lock --no-audit --no-fund --loglevel=error
  cp "$list" "$place/installed"
}

java() {
  local source=$HERE/Read.java place=$PLACE/java
  up_to_date "$place/installed" "$source" && return
  command -v javac >/dev/null || apt default-jdk-headless
  say "javac: $source"
  mkdir -p "$place"
  # Against Tomcat 9, which has both processors; the one that Tomcat 10 kept has the same shape in both.
  javac -nowarn -cp "$(printf '%s:' /usr/share/java/tomcat9-*.jar)" -d "$place" "$source"
  cp "$source" "$place/installed"
}

command -v apt-get >/dev/null || fail "the parsers of Tomcat, Rack, PHP and Perl are installed by apt-get, which is not here"
command -v python3 >/dev/null || apt python3
apt libtomcat9-java libtomcat10-java php-cli php-cgi ruby-rack libcgi-pm-perl
mkdir -p "$PLACE"
python
node
java
say "the parsers are in place"
