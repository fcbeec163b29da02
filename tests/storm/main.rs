//! The storm: every habit of apps, in either custody, under browsers with several tabs whose answers arrive in any order,
//! who sign in and out, change users, are revoked, go idle and come back, beside a small model.
//!
//! Nobody may lose a session for a reason that the model did not cause (a false end), no browser may have two, and no
//! value of a session that is over may reach the app. `STORM_REQUESTS=100000` says how many requests are made in all,
//! `STORM_SEED=42` replays one schedule, and `STORM_HABIT=route` runs one habit alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod drive;
mod habits;
mod model;
#[path = "../gateway/setup.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
mod setup;
#[path = "../support/mod.rs"]
mod support;

use drive::Storm;
use habits::HABITS;

/// So many requests are made in all when nothing else is asked for: few, for everybody waits for them.
const REQUESTS: usize = 3000;
const CUSTODIES: [&str; 2] = ["track", "vault"];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Says on the way out of a failing test how to come back to it.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("storm: {}", self.0);
        }
    }
}

#[tokio::test]
async fn no_session_ends_but_for_its_reason_and_no_dead_value_reaches_the_app() {
    let seed = number("STORM_SEED").unwrap_or(1);
    let in_all = number("STORM_REQUESTS").map_or(REQUESTS, |n| usize::try_from(n).unwrap());
    let only = std::env::var("STORM_HABIT").ok();
    let chosen = HABITS.iter().filter(|habit| only.as_deref().is_none_or(|name| name == habit.name));
    let chosen: Vec<_> = chosen.flat_map(|habit| CUSTODIES.map(|custody| (habit, custody))).collect();
    assert!(!chosen.is_empty(), "STORM_HABIT names none");
    let each = in_all.div_ceil(chosen.len());
    let mut made = 0;
    for (habit, custody) in chosen {
        let _told = Told(format!("STORM_HABIT={} STORM_SEED={seed}, custody {custody}", habit.name));
        made += Storm::new(*habit, custody, seed).await.rage(each).await;
        support::logs::LogBuffer::global().clear();
    }
    assert!(made >= in_all, "{made} of {in_all} requests");
}
