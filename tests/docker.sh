#!/usr/bin/env bash
# Builds the image of the Dockerfile and runs it, without pulling anything: the builder stage stands on a base made
# here (debootstrap, this machine's Rust toolchain, vendored crates) in place of the official Rust image.
#
#   tests/docker.sh          needs root, docker, dockerd, debootstrap; 20 to 40 minutes and 8 GiB below TMPDIR
#
# A docker daemon of its own is started in a temporary folder and ended at the end. Where docker is not installed the
# script says so and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."

export DOCKER_BUILDKIT=0
BUILDER=tenure-test-builder IMAGE=tenure-test NAME=tenure-test-run
DIR=$(mktemp -d)
export DOCKER_HOST=unix://$DIR/docker.sock
DAEMON=

say() { printf '=== %s\n' "$*"; }
fail() { printf 'docker.sh: %s\n' "$*" >&2; exit 1; }

cleanup() {
  if [ -n "$DAEMON" ]; then
    docker rm -f "$NAME" >/dev/null 2>&1 || true
    kill "$DAEMON" 2>/dev/null || true
    wait "$DAEMON" 2>/dev/null || true
    # The daemon leaves the name spaces of its containers mounted.
    umount "$DIR"/exec/netns/* 2>/dev/null || true
  fi
  rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

start_daemon() {
  # No bridge and no packet filter: containers of this test share the host's network or have none.
  dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" --pidfile "$DIR/docker.pid" --host "$DOCKER_HOST" \
    --bridge none --iptables=false --ip6tables=false >"$DIR/dockerd.log" 2>&1 &
  DAEMON=$!
  for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && return
    kill -0 "$DAEMON" 2>/dev/null || break
    sleep 0.1
  done
  tail -5 "$DIR/dockerd.log" >&2
  fail "the docker daemon does not start"
}

# The stand-in for the official Rust image: same release of Debian, same way to call cargo.
make_builder() {
  local root=$DIR/root mirror sysroot
  # shellcheck disable=SC2016 # the place is filled in by apt-get
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -1)
  debootstrap --variant=minbase --include=gcc,libc6-dev,make,ca-certificates,curl,llvm-19 bookworm "$root" "$mirror" \
    >"$DIR/debootstrap.log" ||
    { tail -5 "$DIR/debootstrap.log" >&2; fail "no base could be made"; }
  sysroot=$(rustc --print sysroot)
  mkdir -p "$root/usr/local/rust" "$root/cargo"
  cp -a "$sysroot/bin" "$sysroot/lib" "$root/usr/local/rust/"
  cargo vendor --quiet --locked "$root/vendor" >/dev/null
  printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/vendor"\n' >"$root/cargo/config.toml"
  tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV CARGO_HOME=/cargo' - "$BUILDER" >/dev/null
  rm -rf "$root"
}

# A port on which nobody listens.
free_port() {
  while :; do
    FREE=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$FREE") 2>/dev/null || return 0
  done
}

write_config() {
  free_port; HTTP=$FREE
  free_port; ADMIN=$FREE
  free_port
  cat >"$DIR/config.toml" <<END
[listen]
http = "127.0.0.1:$HTTP"
[[app]]
upstream = "http://127.0.0.1:$FREE"
cookie = "SID"
login = "/login"
[admin]
listen = "127.0.0.1:$ADMIN"
[store]
path = "off"
END
  chmod 755 "$DIR"
  chmod 644 "$DIR/config.toml"
}

inspect_image() {
  local user size
  user=$(docker inspect -f '{{.Config.User}}' "$IMAGE")
  [ "$user" = 65532:65532 ] || fail "the image runs as \"$user\""
  size=$(($(docker inspect -f '{{.Size}}' "$IMAGE") / 1024 / 1024))
  [ "$size" -le 80 ] || fail "the image has $size MiB"
  ! docker run --rm --network none --entrypoint /bin/sh "$IMAGE" -c true >/dev/null 2>&1 || fail "there is a shell in the image"
  say "image: $size MiB, user $user, no shell"
}

in_container() {
  docker run --rm --network none --read-only --cap-drop ALL -v "$DIR/config.toml:/etc/tenure/config.toml:ro" "$IMAGE" "$@"
}

run_image() {
  in_container --version | grep -q '^tenure [0-9]' || fail "the program does not say its version"
  in_container check --config /etc/tenure/config.toml
  docker run -d --name "$NAME" --network host --read-only --cap-drop ALL \
    -v "$DIR/config.toml:/etc/tenure/config.toml:ro" "$IMAGE" >/dev/null
  for _ in $(seq 100); do
    curl -sf "http://127.0.0.1:$ADMIN/livez" >/dev/null && break
    [ "$(docker inspect -f '{{.State.Running}}' "$NAME")" = true ] || break
    sleep 0.1
  done
  curl -sf "http://127.0.0.1:$ADMIN/livez" >/dev/null || { docker logs "$NAME" >&2; fail "the container does not live"; }
  # Nobody listens at the upstream: the gateway itself answers.
  [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$HTTP/")" = 502 ] || fail "no 502 without an upstream"
  docker stop -t 30 "$NAME" >/dev/null
  [ "$(docker inspect -f '{{.State.ExitCode}}' "$NAME")" = 0 ] || { docker logs "$NAME" >&2; fail "it did not end well"; }
  say "it runs read-only and without capabilities, answers, and ends at SIGTERM"
}

main() {
  for tool in docker dockerd; do
    command -v "$tool" >/dev/null || { say "not run: $tool is not installed"; exit 0; }
  done
  [ "$(id -u)" = 0 ] || fail "a docker daemon of its own needs root"
  for tool in debootstrap cargo curl tar; do command -v "$tool" >/dev/null || fail "please install $tool"; done
  say "daemon"; start_daemon
  say "base for the builder stage"; make_builder
  say "build"; docker build --network none --build-arg "BUILDER=$BUILDER" -t "$IMAGE" . >"$DIR/build.log" 2>&1 ||
    { tail -30 "$DIR/build.log" >&2; fail "the image does not build"; }
  inspect_image
  write_config
  run_image
  say "passed"
}

main
