#!/usr/bin/env bash
# Everything that tests/run.sh runs in a short form, at full length, and what it leaves out: some hours. Run before a
# release. It needs what tests/run.sh needs, and installs the rest by package.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tests/run.sh
STORM_REQUESTS=100000 cargo test --locked --test storm
TENURE_SEEDS=1000 cargo test --locked --test simulation
TENURE_SEEDS=10000 cargo test --locked --test partitions
TENURE_KILLS=200 TENURE_POWER_CUTS=50 cargo test --locked --test durability
TENURE_REVOCATIONS=1000 TENURE_SIGN_INS=200 TENURE_SHORT_SESSIONS=100000 cargo test --locked --test replicas -- --nocapture
TENURE_OUTAGE=30 cargo test --locked --test outages -- --nocapture
TENURE_FUZZ=1000000 cargo test --locked --test fuzz
TENURE_DIFFERENTIAL=1000000 cargo test --locked --test differential
bash tests/openapi.sh
bash tests/docker.sh
bash benches/guided.sh
ROUNDS=5 CONTENDERS="nginx haproxy haproxy-stick haproxy-tcp tenure tenure-guided tenure-anonymous tenure-vault" \
  bash benches/side-by-side/run.sh
ROUNDS=5 CONTENDERS="nginx tenure tenure-redis tenure-paused" bash benches/side-by-side/run.sh
cargo bench --locked
