#!/usr/bin/env bash
# Side by side: what a proxied request costs in nginx, HAProxy and Tenure, on one core, before the same upstream.
#
#   benches/side-by-side/run.sh                      all contenders; needs target/release/tenure
#   DURATION=10 ROUNDS=5 benches/side-by-side/run.sh
#   CONTENDERS="nginx haproxy-tcp" benches/side-by-side/run.sh
#
# Contenders: nginx (plain reverse proxy), haproxy, haproxy-stick (a stick table keyed by the session cookie),
# haproxy-tcp (mode tcp, the floor), tenure (every request carries a live session), tenure-anonymous (the same binary
# and requests without a cookie: the difference is what enforcement costs), tenure-vault (the app's cookies stay in the
# gateway). Only when named: tenure-redis (sessions shared over a Redis of the run's own), tenure-paused (the same while that
# Redis is stopped), tenure-guided (as tenure, but the program of benches/guided.sh), bare (the library's two halves and
# nothing else; needs cargo build --release --example bare).
#
# Each contender runs pinned to core 0; wrk and the upstream (nginx, 1 KiB answers) share the others. The table shows
# CPU time per request of the contender's processes, all threads and children, from /proc/PID/stat; that, and not the
# rate, is the figure to compare where load generator and upstream share a core. All are started once and loaded in turn,
# round by round, so that a busy minute of the machine hits all alike; medians are shown, with the spread of CPU per
# request over the rounds, and of what each round had beside nginx's in the same round the median and the middle half.
#
# A round counts only if every answer was right: the bytes of a known good answer times the number of requests, no
# error of wrk's, as many requests at the upstream as wrk had answers (no answer came from elsewhere), upstream
# connections reused, and the right answer to a probe before and after. Anything else ends the run with exit code 1.
#
# Settings: DURATION (seconds of load, 5), ROUNDS (3), CONNECTIONS (64), TENURE (path of the binary), CONTENDERS.
# It takes about (DURATION + 1/2) x ROUNDS x contenders seconds. Ports are free ones; what was started is ended.
set -euo pipefail

DURATION=${DURATION:-5} ROUNDS=${ROUNDS:-3} CONNECTIONS=${CONNECTIONS:-64}
CONTENDERS=${CONTENDERS:-nginx haproxy haproxy-stick haproxy-tcp tenure tenure-anonymous tenure-vault}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TENURE=${TENURE:-${CARGO_TARGET_DIR:-$HERE/../../target}/release/tenure}
GUIDED=${CARGO_TARGET_DIR:-$HERE/../../target}/guided/tenure
BODY_BYTES=1024
PROXY_CORE=0

DIR=$(mktemp -d)
STARTED=()
# Of each contender, once it is set up: its port, the header of its load, its process, and the bytes of a right answer.
declare -A PORTS HEADERS PIDS BYTES

fail() { echo "side-by-side: $*" >&2; exit 1; }

cleanup() {
  # A stopped one has to go on in order to end.
  for pid in "${STARTED[@]}"; do kill "$pid" 2>/dev/null && kill -CONT "$pid" 2>/dev/null || true; done
  # Two seconds to end by themselves: a drain would hold the run up.
  for pid in "${STARTED[@]}"; do
    for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# What the contenders of this run need, by command.
tools() {
  echo nginx wrk curl
  case $CONTENDERS in *haproxy*) echo haproxy ;; esac
  case $CONTENDERS in *tenure-redis* | *tenure-paused*) echo redis-check-rdb ;; esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_missing() {
  local missing=() tool
  for tool in $(tools); do
    command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] || missing+=("$tool")
  done
  [ ${#missing[@]} -eq 0 ] && return
  missing=("${missing[@]/redis-check-rdb/redis-tools}")
  as_root apt-get update -qq || fail "please install: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
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

# fill FILE FOLDER: its text with the @PLACES@ filled in, as a file there.
fill() {
  mkdir -p "$2"
  sed -e "s|@DIR@|$DIR|g" -e "s|@UPSTREAM@|$UPSTREAM|g" -e "s|@PORT@|$PORT|g" -e "s|@ADMIN@|$ADMIN|g" \
    -e "s|@TOKEN@|$TOKEN|g" -e "s|@BODY@|$BODY|g" "$HERE/$1" >"$2/$1"
}

# start CORES COMMAND...: in the background, pinned; its pid in STARTED_PID, and the file of what it says in STARTED_LOG.
start() {
  local cores=$1
  shift
  STARTED_LOG=$DIR/started.${#STARTED[@]}.log
  taskset -c "$cores" "$@" >"$STARTED_LOG" 2>&1 &
  STARTED_PID=$!
  STARTED+=("$STARTED_PID")
}

await_port() {
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    kill -0 "$STARTED_PID" 2>/dev/null || break
    sleep 0.05
  done
  cat "$STARTED_LOG" >&2
  fail "$2 does not listen"
}

# program CONTENDER: which Tenure it is.
program() {
  if [ "$1" = tenure-guided ]; then echo "$GUIDED"; else echo "$TENURE"; fi
}

# Each in a folder of its own, so that none takes another's configuration for a change of its own.
start_contender() {
  local home=$DIR/$1
  free_port; PORT=$PORT_FOUND
  free_port; ADMIN=$PORT_FOUND
  case $1 in
    nginx) fill nginx.conf "$home"; start $PROXY_CORE nginx -c "$home/nginx.conf" ;;
    haproxy*) fill "$1.conf" "$home"; start $PROXY_CORE haproxy -db -f "$home/$1.conf" ;;
    bare) start $PROXY_CORE "${TENURE%/*}/examples/bare" "127.0.0.1:$PORT" "127.0.0.1:$UPSTREAM" ;;
    tenure | tenure-*)
      fill tenure.conf "$home"
      case $1 in
        tenure-vault) sed -i 's/^cookie = .*/&\ncustody = "vault"/' "$home/tenure.conf" ;;
        tenure-redis | tenure-paused) over_redis "$home" ;;
      esac
      start $PROXY_CORE "$(program "$1")" serve --config "$home/tenure.conf"
      ;;
    *) fail "there is no contender \"$1\"" ;;
  esac
  await_port "$PORT" "$1"
}

# over_redis FOLDER: the configuration there says to share sessions over a Redis of its own, whose pid is then in REDIS_PID.
over_redis() {
  free_port
  # Debian's redis-tools hold the server under this name; what it does depends on how it is called.
  start "$LOAD_CORES" bash -c "exec -a redis-server redis-check-rdb --port $PORT_FOUND --bind 127.0.0.1 --save '' --dir $1"
  REDIS_PID=$STARTED_PID
  await_port "$PORT_FOUND" redis
  sed -i "/^path = /d; s|^\\[store\\].*||" "$1/tenure.conf"
  printf '[store]\nredis = "redis://127.0.0.1:%s/0"\nsecret = "side-by-side-side-by-side"\n' "$PORT_FOUND" >>"$1/tenure.conf"
}

# CPU time of a process and its children so far, in clock ticks.
cpu_ticks() {
  local total=0 pid line
  for pid in "$1" $(cat "/proc/$1/task/$1/children"); do
    line=$(<"/proc/$pid/stat")
    # The fields after the command's name, which may hold blanks: utime is the 12th, stime the 13th of them.
    read -r -a line <<<"${line##*) }"
    total=$((total + line[11] + line[12]))
  done
  echo $total
}

# "requests connections" that the upstream has had.
upstream_counts() {
  curl -sf "http://127.0.0.1:$UPSTREAM/counts" | awk 'NR == 3 { print $3, $1 }'
}

# probe CONTENDER: the answers that a browser would get are right.
probe() {
  local base=http://127.0.0.1:$PORT got
  got=$(curl -sf -H "$HEADER" "$base/") || fail "$1 does not answer"
  [ "$got" = "$BODY" ] || fail "$1 answers something else than the upstream"
  got=$(curl -sf -H "$HEADER" "$base/cookie" || true)
  case $1 in
    tenure-anonymous) [ -z "$got" ] || fail "$1: a cookie reached the upstream" ;;
    *) [ "$got" = "SID=$TOKEN" ] || fail "$1: the session cookie did not reach the upstream" ;;
  esac
  [[ $1 = tenure* ]] || return 0
  got=$(curl -sf -H "Cookie: SID=never-issued" "$base/cookie" || true)
  [ -z "$got" ] || fail "$1 does not enforce: a made-up cookie reached the upstream"
}

# A live session for Tenure: signed in as a browser would.
sign_in() {
  local got
  got=$(curl -sf -D - -o /dev/null -d user=bench "http://127.0.0.1:$PORT/login" | tr -d '\r') || fail "no sign-in through $1"
  grep -qi "^set-cookie: SID=$TOKEN;" <<<"$got" || fail "$1: the sign-in set no session cookie"
  ! grep -qi '^x-session-user:' <<<"$got" || fail "$1: the identity header reached the browser"
}

load() { taskset -c "$LOAD_CORES" wrk -t1 -c"$CONNECTIONS" -d"$1"s -s "$HERE/report.lua" -H "$HEADER" "http://127.0.0.1:$PORT/"; }

# check CONTENDER SUMS BEFORE AFTER: every answer of the round was right.
check() {
  local requests bytes status broken timeouts served opened before_requests before_opened
  read -r _ requests bytes _ status broken timeouts _ <<<"$2"
  read -r before_requests before_opened <<<"$3"
  read -r served opened <<<"$4"
  # The second look at the counts is a request too.
  served=$((served - before_requests - 1)) opened=$((opened - before_opened))
  [ "$requests" -gt 0 ] || fail "$1: no answers"
  [ $((status + broken + timeouts)) -eq 0 ] || fail "$1: $status bad statuses, $broken broken connections, $timeouts time-outs"
  [ "$bytes" -ge $((requests * BODY_BYTES)) ] || fail "$1: $bytes bytes in $requests answers are too few"
  [ $((bytes / requests)) -eq "${BYTES[$1]}" ] || fail "$1: answers of $((bytes / requests)) bytes, ${BYTES[$1]} expected"
  # Requests that wrk cut off at its end had been served all the same.
  if [ "$served" -lt "$requests" ] || [ "$served" -gt $((requests + CONNECTIONS)) ]; then
    fail "$1: $requests answers, but $served requests at the upstream"
  fi
  [ "$opened" -le $((2 * CONNECTIONS + requests / 1000)) ] || fail "$1: $opened upstream connections for $requests requests"
}

# The cookie that the gateway gives in place of the app's own, which no browser sees.
cookie_of_sign_in() {
  local got
  got=$(curl -sf -D - -o /dev/null -d user=bench "http://127.0.0.1:$PORT/login" | tr -d '\r' | grep -i '^set-cookie:')
  case $got in *"$TOKEN"*) fail "tenure-vault: the app's cookie reached the browser" ;; esac
  got=${got#*: }
  echo "Cookie: ${got%%;*}"
}

# set_up CONTENDER: it runs, is warm, and its session lives.
set_up() {
  start_contender "$1"
  PORTS[$1]=$PORT PIDS[$1]=$STARTED_PID
  HEADER="Cookie: SID=$TOKEN"
  [ "$1" != tenure-anonymous ] || HEADER="X-Padding: SID=$TOKEN"
  case $1 in tenure | tenure-guided | tenure-redis | tenure-paused) sign_in "$1" ;; tenure-vault) HEADER=$(cookie_of_sign_in) ;; esac
  HEADERS[$1]=$HEADER
  [ "$1" != tenure-paused ] || kill -STOP "$REDIS_PID"
  probe "$1"
  BYTES[$1]=$(curl -sf -o /dev/null -w '%{size_header} %{size_download}' -H "$HEADER" "http://127.0.0.1:$PORT/" | awk '{ print $1 + $2 }')
  load 1 >/dev/null
}

# One contender, one round: a line of results.
measure() {
  local before after sums ticks
  PORT=${PORTS[$1]} HEADER=${HEADERS[$1]}
  probe "$1"
  before=$(upstream_counts)
  ticks=$(cpu_ticks "${PIDS[$1]}")
  sums=$(load "$DURATION" | grep '^sums ') || fail "$1: wrk gave no sums"
  ticks=$(($(cpu_ticks "${PIDS[$1]}") - ticks))
  after=$(upstream_counts)
  check "$1" "$sums" "$before" "$after"
  probe "$1"
  awk -v who="$1" -v ticks=$ticks -v hz="$(getconf CLK_TCK)" '{ printf "%s %.3f %.0f %.3f %.3f\n",
    who, ticks / hz * 1e6 / $2, $2 / ($4 / 1e6), $8 / 1e3, $9 / 1e3 }' <<<"$sums"
}

# Medians over the rounds; of CPU per request also what each round had beside nginx's in the same round: the median, and between
# what half of the rounds are.
table() {
  awk -v order="$CONTENDERS" '
    function sorted(list, n, i, j, x) {
      for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j - 1] > list[j]; j--) { x = list[j]; list[j] = list[j - 1]; list[j - 1] = x }
    }
    function column(who, c, i) {
      for (i = 1; i <= count[who]; i++) one[i] = value[who, c, i]
      sorted(one, count[who]); i = count[who]
      return i % 2 ? one[(i + 1) / 2] : (one[i / 2] + one[i / 2 + 1]) / 2
    }
    { n = ++count[$1]; for (c = 2; c <= 5; c++) value[$1, c, n] = $c + 0 }
    END {
      printf "| %-16s | CPU us/request |   (min to max) | requests/s | p50 ms | p99 ms | CPU to nginx | (middle half) |\n", "contender"
      print "|---|--:|--:|--:|--:|--:|--:|--:|"
      for (w = 1; w <= split(order, names, " "); w++) {
        who = names[w]; cpu = column(who, 2); low = one[1]; high = one[count[who]]
        for (i = 1; i <= count["nginx"]; i++) value[who, 6, i] = value[who, 2, i] / value["nginx", 2, i]
        printf "| %-16s | %14.2f | %5.2f to %5.2f | %10.0f | %6.2f | %6.2f |", who, cpu, low, high, column(who, 3), column(who, 4), column(who, 5)
        if (!count["nginx"]) { printf " %12s | %13s |\n", "-", "-"; continue }
        beside = column(who, 6); n = count[who]
        printf " %12.2f | %13s |\n", beside, sprintf("%.2f to %.2f", one[int((n + 3) / 4)], one[int((3 * n + 3) / 4)])
      }
    }' "$DIR/results"
}

# Tools, cores and the upstream that all contenders stand before.
prepare() {
  [ "$(nproc)" -ge 2 ] || fail "two cores are needed: one for the contender, one for the load"
  LOAD_CORES=1-$(($(nproc) - 1))
  if [[ $CONTENDERS = *tenure* ]]; then
    [ -x "$TENURE" ] || fail "$TENURE is missing: run \"cargo build --release\" first"
  fi
  [[ $CONTENDERS != *tenure-guided* ]] || [ -x "$GUIDED" ] || fail "$GUIDED is missing: run benches/guided.sh first"
  install_missing
  PATH=$PATH:/usr/sbin
  BODY=$(head -c $BODY_BYTES /dev/zero | tr '\0' x)
  TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  free_port; UPSTREAM=$PORT_FOUND PORT=0 ADMIN=0
  fill upstream.conf "$DIR"
  start "$LOAD_CORES" nginx -c "$DIR/upstream.conf"
  await_port "$UPSTREAM" "the upstream"
}

main() {
  prepare
  for contender in $CONTENDERS; do set_up "$contender"; done
  for round in $(seq "$ROUNDS"); do
    for contender in $CONTENDERS; do
      measure "$contender" >"$DIR/line"
      cat "$DIR/line" >>"$DIR/results"
      awk -v round="$round" '{ printf "round %d: %-16s %8.2f us/request %8d requests/s\n", round, $1, $2, $3 }' "$DIR/line" >&2
    done
  done
  table
}

main
