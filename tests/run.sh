#!/usr/bin/env bash
# The one command that runs every test: what they need is installed by package where it is missing, then format,
# lints, tests (documentation's own among them), documentation and the release build. Ends at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

# step NAME COMMAND...
step() {
  local name=$1 began=$SECONDS
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  if ! "$@"; then
    printf '\n=== FAILED: %s\n' "$name" >&2
    exit 1
  fi
  printf '=== passed: %s (%d s)\n' "$name" $((SECONDS - began))
}

if [ -e tests/apps/install.sh ]; then
  step "what the tests need" bash tests/apps/install.sh
fi
if [ -e tests/differential/install.sh ]; then
  step "the parsers that the tests ask" bash tests/differential/install.sh
fi
step "Redis" bash tests/redis_support/install.sh
step "format" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "tests" cargo test --locked
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
step "release build" cargo build --locked --release
step "side by side, in short" env DURATION=1 ROUNDS=1 CONTENDERS="nginx tenure" bash benches/side-by-side/run.sh
printf '\n=== all passed (%d s)\n' "$SECONDS"
