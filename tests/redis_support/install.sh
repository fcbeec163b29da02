#!/usr/bin/env bash
# Installs what the tests with Redis need, where it is missing: Debian's redis-tools, in which the server's program is, so that
# no service of the system comes with it.
set -euo pipefail

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if command -v redis-check-rdb >/dev/null && command -v redis-cli >/dev/null; then exit 0; fi
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-tools >/dev/null
