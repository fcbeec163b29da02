//! What the embedded store promises of a process that dies: the real binary before the fixture app, killed at random moments
//! (`kills`), with faults below its database and with power cuts (`faults`), and started where it cannot work (`places`).
//!
//! A `ledger` notes what was acknowledged to browsers and operators while the `load` ran; after each restart everything that
//! a browser or an operator can see has to agree with it. `TENURE_KILLS`, `TENURE_POWER_CUTS` and `TENURE_SEED` choose how
//! much is run, and which; the moments themselves are the machine's, so a seed repeats the plan and not the race.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod compare;
mod faults;
mod gateway;
mod kills;
mod ledger;
mod load;
mod places;
#[allow(dead_code, reason = "shared with the tests of the commands, which use all of it")]
#[path = "../commands/running.rs"]
mod running;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

/// The program, without what this shell may know of gateways.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.args(args).env_remove("TENURE_TOKEN").env_remove("TENURE_ADMIN");
    command
}

/// How often, or which: a number of the environment.
fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}
