#!/usr/bin/env bash
# Builds Tenure guided by a profile: what an instrumented build counts under load tells the compiler which ways are walked.
#
#   benches/side-by-side/guided.sh        writes target/guided/tenure; takes some ten minutes on two cores
#   CONTENDERS="nginx tenure tenure-guided" benches/side-by-side/run.sh
#
# The load is that of run.sh: requests with a live session, without one, and in vault custody; and the same session over TLS
# and HTTP/2, so that no listener is built for seldom use. What the load does not touch (start-up, commands, the admin API)
# is built for size. The program does the same as the ordinary one.
#
# Needs what run.sh needs, h2load, openssl, and an llvm-profdata that reads what this rustc writes: the toolchain's own
# (rustup component add llvm-tools) or Debian's llvm-19. The Debian packages are installed when missing.
set -euo pipefail

# shellcheck source=benches/side-by-side/run.sh
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

ROOT=$(cd "$HERE/../.." && pwd)
# By its full path: the compiler looks for the profile from other folders.
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-$ROOT/target}")/guided
TRIPLE=$(rustc -vV | sed -n 's/^host: //p')
# The profile is written at the end of the process.
ENDS_WITHIN=60
DURATION=5 CONTENDERS="tenure tenure-anonymous tenure-vault"

# build KIND FLAGS: into a folder of its own, or the other kind would be thrown away.
build() {
  RUSTFLAGS=$2 CARGO_TARGET_DIR=$TARGET/$1 cargo build --quiet --release --locked --bin tenure --target "$TRIPLE" \
    --manifest-path "$ROOT/Cargo.toml"
  BUILT=$TARGET/$1/$TRIPLE/release/tenure
}

# install COMMAND PACKAGE: unless it is there.
install() {
  command -v "$1" >/dev/null && return
  as_root apt-get update -qq || fail "please install: $2"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

# A tool of LLVM's that can read the profile, by path.
profdata() {
  local tool
  for tool in "$(rustc --print sysroot)/lib/rustlib/$TRIPLE/bin/llvm-profdata" llvm-profdata-{22,21,20,19}; do
    command -v "$tool" && return
  done
  install llvm-profdata-19 llvm-19
  command -v llvm-profdata-19
}

# The same session over TLS and HTTP/2.
train_h2() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
    -keyout "$DIR/key.pem" -out "$DIR/cert.pem" 2>/dev/null
  local https
  free_port; https=$PORT_FOUND
  free_port; PORT=$PORT_FOUND
  free_port; ADMIN=$PORT_FOUND
  fill tenure.conf
  sed -i "s|^http = .*|&\nhttps = \"127.0.0.1:$https\"\ncertificates = [{ cert = \"$DIR/cert.pem\", key = \"$DIR/key.pem\" }]|" \
    "$DIR/tenure.conf"
  rm -rf "$DIR/data"
  start $PROXY_CORE "$TENURE" serve --config "$DIR/tenure.conf"
  await_port "$https" "the gateway over TLS"
  sign_in "the gateway"
  taskset -c "$LOAD_CORES" h2load -D "$DURATION" -c 16 -m 4 -H "Cookie: SID=$TOKEN" "https://127.0.0.1:$https/" >"$DIR/h2load.log"
  grep -q ' 0 failed, 0 errored' "$DIR/h2load.log" || fail "over HTTP/2: $(grep requests: "$DIR/h2load.log")"
  ! grep -q '[1-9][0-9]* 3xx' "$DIR/h2load.log" || fail "over HTTP/2 the session was not known"
  stop_contender
}

guided() {
  local merger
  merger=$(profdata) || fail "no llvm-profdata: rustup component add llvm-tools"
  install h2load nghttp2-client
  install openssl openssl
  echo "building what counts" >&2
  rm -rf "$TARGET/profile" "$TARGET/tenure"
  build counting "-Cprofile-generate=$TARGET/profile"
  TENURE=$BUILT
  prepare
  for contender in $CONTENDERS; do
    echo "load: $contender" >&2
    measure "$contender" >/dev/null
  done
  echo "load: HTTP/2 over TLS" >&2
  train_h2
  # What the loads counted adds up in one file.
  [ "$(find "$TARGET/profile" -name '*.profraw' | wc -l)" -ge 1 ] || fail "nothing was counted"
  "$merger" merge -o "$TARGET/tenure.profdata" "$TARGET"/profile/*.profraw
  echo "building by the profile" >&2
  # What is walked stands together, which the linker would mix with the rest.
  build by-profile "-Cprofile-use=$TARGET/tenure.profdata -Clink-arg=-Wl,-z,keep-text-section-prefix"
  cp "$BUILT" "$TARGET/tenure"
  echo "$TARGET/tenure"
}

guided
