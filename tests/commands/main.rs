//! The commands as a shell sees them: exit code, stdout, stderr. `alone` needs no gateway; `serve` runs one and talks
//! to it; `demo` walks what the demonstration's banner promises.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod alone;
mod demo;
#[path = "../redis_support/mod.rs"]
mod redis_support;
mod running;
mod serve;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Output};

/// Runs the program to its end, without what this shell may know of gateways.
fn tenure(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.args(args).env_remove("TENURE_TOKEN").env_remove("TENURE_ADMIN");
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
