//! How long a gateway takes to have its sessions again: fills an embedded store, lets it go, and opens it anew.
//!
//! `cargo bench --bench restart`, or `TENURE_BENCH_SESSIONS=100000 cargo bench --bench restart` for fewer than a million.
//! The figures depend on the machine; DESIGN's budget for a million is two seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may fail loudly")]

#[path = "../tests/store_support/mod.rs"]
mod store_support;

use std::path::Path;
use std::sync::Arc;

use store_support::{AT, Recorder, book, identity, newcomer, secs};
use tenure::clock::{Clock, Stopwatch};
use tenure::session::Policy;
use tenure::store::{Disk, Opened, Opening, Trouble};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Two sessions a user, as DESIGN's budget of memory has it.
const SESSIONS_A_USER: u64 = 2;

fn open(path: &Path) -> Opened {
    let trouble = Arc::new(Trouble::default());
    let opening = Opening { path, secrets: None, clock: Clock::manual(AT), trouble };
    let policy = Policy { idle_timeout: Some(secs(3600)), ..Policy::default() };
    Disk::open(&opening, book(policy), Arc::new(Recorder::default())).unwrap()
}

fn seconds(watch: Stopwatch) -> f64 {
    std::time::Duration::from_micros(watch.elapsed_us()).as_secs_f64()
}

fn main() {
    let sessions =
        std::env::var("TENURE_BENCH_SESSIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("data");
    let filling = Stopwatch::start();
    {
        let Opened { table, disk, .. } = open(&path);
        for n in 0..sessions {
            table.sign_in(&newcomer(&[n]), identity(&format!("user{:016}", n / SESSIONS_A_USER)), AT);
        }
        println!("{sessions} sessions signed in after {:.2} s", seconds(filling));
        drop(disk);
    }
    let size = std::fs::metadata(path.join("sessions.db")).unwrap().len();
    println!(
        "all written after {:.2} s: {} MB, {} bytes a session",
        seconds(filling),
        size >> 20,
        size / sessions
    );
    for _ in 0..3 {
        let opening = Stopwatch::start();
        let Opened { table, disk, .. } = open(&path);
        println!("opened in {:.2} s", seconds(opening));
        assert_eq!(u64::try_from(table.counts().signed_in).unwrap(), sessions);
        drop((table, disk));
    }
}
