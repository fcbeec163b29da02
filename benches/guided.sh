#!/usr/bin/env bash
# Builds Tenure guided by a profile: what an instrumented build counts under load tells the compiler which ways are walked.
# The program does the same as the ordinary one, for less. The container image is built so.
#
#   benches/guided.sh        writes target/guided/tenure; takes some ten minutes on two cores, twice that on slow ones
#
# The load is people before the app of `tenure demo`: they sign in, look at pages with the heads that browsers send, fetch what
# a page needs, poll, upload, follow an event stream and a WebSocket, over HTTP/1.1 and HTTP/2, with TLS and without, behind a
# balancer that speaks the PROXY protocol and without one, with the app's cookie on its way and kept in the vault. What it does not
# touch (start-up, commands, the admin API, what is done with Redis) is built for size.
#
# For Linux. Needs cargo, curl, openssl, and an llvm-profdata that reads what this rustc writes: the toolchain's own or Debian's
# llvm-19. Without one it is installed, by rustup where that is there and as Debian's package otherwise.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# By its full path: the compiler looks for the profile from other folders.
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-$ROOT/target}")/guided
TRIPLE=$(rustc -vV | sed -n 's/^host: //p')
# Requests of the most frequent kind.
MANY=${MANY:-4000}
COOKIE=LEGACYSID

DIR=$(mktemp -d)
STARTED=()

fail() { echo "guided: $*" >&2; exit 1; }
say() { echo "guided: $*" >&2; }

cleanup() {
  for pid in "${STARTED[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${STARTED[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A tool of LLVM's that can read the profile, by path.
profdata() {
  local tool own
  own=$(rustc --print sysroot)/lib/rustlib/$TRIPLE/bin/llvm-profdata
  for tool in "$own" llvm-profdata-{22,21,20,19}; do
    command -v "$tool" && return
  done
  if command -v rustup >/dev/null; then
    rustup --quiet component add llvm-tools >&2 && command -v "$own" && return
  fi
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  "${root[@]}" apt-get update -qq >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends llvm-19 >&2
  command -v llvm-profdata-19
}

# build KIND FLAGS: into a folder of its own, or the other kind would be thrown away.
build() {
  RUSTFLAGS=$2 CARGO_TARGET_DIR=$TARGET/$1 cargo build --quiet --release --locked --bin tenure --target "$TRIPLE" \
    --manifest-path "$ROOT/Cargo.toml"
  BUILT=$TARGET/$1/$TRIPLE/release/tenure
}

# A port on which nobody listens, and that was not handed out before.
TAKEN=" "
free_port() {
  while :; do
    PORT_FOUND=$((20000 + RANDOM % 12000))
    case $TAKEN in *" $PORT_FOUND "*) continue ;; esac
    TAKEN="$TAKEN$PORT_FOUND "
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT_FOUND") 2>/dev/null || return 0
  done
}

# await FILE TEXT: that the process that writes the file says it.
await() {
  for _ in $(seq 200); do
    grep -q "$2" "$1" && return
    kill -0 "$STARTED_PID" 2>/dev/null || break
    sleep 0.05
  done
  cat "$1" >&2
  fail "\"$2\" was never said"
}

start() {
  "$@" >"$DIR/said" 2>&1 &
  STARTED_PID=$!
  STARTED+=("$STARTED_PID")
}

# The app of the demonstration, without the gateway that stands before it; what it counts is thrown away.
start_app() {
  LLVM_PROFILE_FILE=/dev/null start "$BUILT" demo
  await "$DIR/said" "Ctrl-C ends"
  APP=$(sed -n 's|.*The app behind it, at http://\([0-9.:]*\)/.*|\1|p' "$DIR/said")
  [ -n "$APP" ] || fail "the demonstration does not say where its app is"
}

# start_gateway LEVEL PROXIED: logs from that level on, so with "info" a line for each request, as it is by default; `true` has it
# demand the PROXY protocol.
start_gateway() {
  free_port; HTTP=$PORT_FOUND
  free_port; HTTPS=$PORT_FOUND
  free_port; ADMIN=$PORT_FOUND
  cat >"$DIR/config.toml" <<END
[listen]
http = "127.0.0.1:$HTTP"
https = "127.0.0.1:$HTTPS"
certificates = [{ cert = "cert.pem", key = "key.pem" }]
proxy_protocol = $2
workers = 1
$(app crm 127.0.0.1 track)
$(app vault localhost vault)
[policy]
idle_timeout = "15m"
force_relogin = "12h"
max_concurrent = 3
[admin]
listen = "127.0.0.1:$ADMIN"
[drain]
delay = "0s"
[log]
level = "$1"
END
  CURL=(curl -s -k)
  [ "$2" = false ] || CURL+=(--haproxy-protocol)
  rm -rf "$DIR/data"
  start "$BUILT" serve --config "$DIR/config.toml"
  for _ in $(seq 200); do
    curl -sf -o /dev/null "http://127.0.0.1:$ADMIN/readyz" && return
    kill -0 "$STARTED_PID" 2>/dev/null || break
    sleep 0.05
  done
  cat "$DIR/said" >&2
  fail "the gateway is not ready"
}

# app NAME HOST CUSTODY: its part of the configuration.
app() {
  cat <<END
[[app]]
name = "$1"
hosts = ["$2"]
upstream = "http://$APP"
cookie = "$COOKIE"
custody = "$3"
login = "/login"
logout = "/logout"
public = ["/static/**", "/favicon.ico"]
inactive = ["GET /notifications"]
[[app.identity]]
from = "login-form"
path = "/login"
user = "username"
END
}

# Ends the gateway; what it counted is written at its end.
stop_gateway() {
  kill "$STARTED_PID"
  wait "$STARTED_PID" || fail "the gateway ended with $?"
  unset 'STARTED[-1]'
}

# get STATUS ARGUMENTS...: every answer must have that status; curl says 000 where there was none. (With -Z it reports its progress
# in spite of -s: hence 2>/dev/null.)
get() {
  local status=$1 got
  shift
  got=$("${CURL[@]}" -o /dev/null -w '%{http_code}\n' "$@" 2>/dev/null | sort | uniq -c | tr -s ' ') || true
  [[ $got =~ ^\ [0-9]+\ $status$ ]] || fail "answers that are not $status alone:$got ($*)"
}

# sign_in ORIGIN USER: leaves the cookies that the browser has then in SESSION.
sign_in() {
  rm -f "$DIR/jar"
  get 200 -b "$DIR/jar" -c "$DIR/jar" "$1/login"
  get 302 -b "$DIR/jar" -c "$DIR/jar" -d "username=$2&password=$2" "$1/login"
  # A jar's line has seven fields; that of a cookie which scripts may not read begins like a comment.
  SESSION=$(awk 'NF == 7 { printf "%s%s=%s", between, $6, $7; between = "; " }' "$DIR/jar")
  [ -n "$SESSION" ] || fail "no session for $2"
}

# follow STATUS ARGUMENTS...: what goes on until one leaves it, as we do after two seconds.
follow() {
  local status=$1 got
  shift
  got=$("${CURL[@]}" -m 2 -o /dev/null -w '%{http_code}' "$@") && fail "it ended by itself: $*"
  [ "$got" = "$status" ] || fail "$got, not $status ($*)"
}

# What browsers send with a navigation, and with a fetch.
NAVIGATION=(-H 'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36'
  -H 'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8'
  -H 'Accept-Encoding: gzip, deflate, br' -H 'Accept-Language: de-DE,de;q=0.9,en;q=0.8'
  -H 'Cache-Control: max-age=0' -H 'Connection: keep-alive'
  -H 'Sec-Ch-Ua: "Chromium";v="140", "Not A Brand";v="24"' -H 'Sec-Ch-Ua-Mobile: ?0' -H 'Sec-Ch-Ua-Platform: "Linux"'
  -H 'Sec-Fetch-Dest: document' -H 'Sec-Fetch-Mode: navigate' -H 'Sec-Fetch-Site: same-origin' -H 'Sec-Fetch-User: ?1'
  -H 'Upgrade-Insecure-Requests: 1')
FETCH=(-H 'Accept: application/json' -H 'Sec-Fetch-Dest: empty' -H 'Sec-Fetch-Mode: cors' -H 'Sec-Fetch-Site: same-origin')

# pages ORIGIN CURL'S OPTIONS...: what people do once they have signed in, several at once.
pages() {
  local origin=$1 others="theme=dark; _ga=GA1.2.1181231.1700000000" jobs=() job
  shift
  get 200 "$@" -H "Cookie: $SESSION" "$origin/?n=[1-$MANY]" & jobs+=($!)
  get 200 "$@" "${NAVIGATION[@]}" -H "Cookie: $others; $SESSION" "$origin/?n=[1-$MANY]" & jobs+=($!)
  get 200 "$@" "${FETCH[@]}" -H "Cookie: $SESSION; $others" "$origin/notifications?n=[1-$((MANY / 2))]" & jobs+=($!)
  get 200 "$@" -H "Cookie: $SESSION" "$origin/static/{style.css,app.js}?n=[1-$((MANY / 4))]" & jobs+=($!)
  get 200 "$@" "$origin/login?n=[1-$((MANY / 8))]" & jobs+=($!)
  get 302 "$@" "$origin/?n=[1-$((MANY / 8))]" & jobs+=($!)
  for job in "${jobs[@]}"; do wait "$job" || exit 1; done
}

# What is seldom done, and yet by everybody.
rest() {
  local origin=$1 seldom=$((MANY / 40)) user
  for user in ann bob admin; do sign_in "$origin" "$user"; done
  get 200 -H "Cookie: $SESSION" "$origin/.tenure/status?n=[1-$seldom]"
  get 200 -I -H "Cookie: $SESSION" "$origin/?n=[1-$seldom]"
  # A connection for each, a refused cookie, forms with a length and in chunks.
  get 200 --http1.1 -H 'Connection: close' -H "Cookie: $SESSION" "$origin/?n=[1-$seldom]"
  get 302 -H "Cookie: $COOKIE=never-issued" "$origin/?n=[1-$seldom]"
  head -c 5000 /dev/zero | tr '\0' x >"$DIR/form"
  get 200 --data-binary "@$DIR/form" -H "Cookie: $SESSION" "$origin/login?n=[1-$seldom]"
  get 200 --data-binary "@$DIR/form" -H 'Transfer-Encoding: chunked' -H "Cookie: $SESSION" "$origin/login?n=[1-$seldom]"
  follow 200 -H "Cookie: $SESSION" "$origin/events"
  follow 101 --http1.1 -H "Cookie: $SESSION" -H "Origin: $origin" -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
    -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$origin/ws"
}

train() {
  # Nothing here is for a proxy that curl may have been told of.
  export no_proxy='*' NO_PROXY='*'
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
    -keyout "$DIR/key.pem" -out "$DIR/cert.pem" 2>/dev/null
  start_app
  local log level proxied host
  for log in "warn false" "info false" "info true"; do
    read -r level proxied <<<"$log"
    for host in 127.0.0.1 localhost; do
      say "load: $host, logs from \"$level\" on, PROXY protocol: $proxied"
      start_gateway "$level" "$proxied"
      sign_in "http://$host:$HTTP" ann
      pages "http://$host:$HTTP"
      rest "http://$host:$HTTP"
      sign_in "https://$host:$HTTPS" bob
      pages "https://$host:$HTTPS" --http1.1
      pages "https://$host:$HTTPS" --http2 -Z --parallel-max 8
      rest "https://$host:$HTTPS"
      stop_gateway
    done
  done
}

main() {
  local merger tool
  for tool in cargo curl openssl; do command -v "$tool" >/dev/null || fail "please install $tool"; done
  merger=$(profdata) || fail "no llvm-profdata: rustup component add llvm-tools"
  say "building what counts"
  rm -rf "$TARGET/profile" "$TARGET/tenure"
  build counting "-Cprofile-generate=$TARGET/profile"
  train
  # What the gateways counted adds up in one file.
  [ -n "$(find "$TARGET/profile" -name '*.profraw' -size +0)" ] || fail "nothing was counted"
  "$merger" merge -o "$TARGET/tenure.profdata" "$TARGET"/profile/*.profraw
  say "building by the profile"
  # What is walked stands together, which the linker would mix with the rest.
  build by-profile "-Cprofile-use=$TARGET/tenure.profdata -Clink-arg=-Wl,-z,keep-text-section-prefix"
  cp "$BUILT" "$TARGET/tenure"
  echo "$TARGET/tenure"
}

main
