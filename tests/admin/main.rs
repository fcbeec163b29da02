//! The admin API over real sockets, as an operator's client meets it. Every call of this suite is compared with the
//! API's own description (see `api`), so that what it says is what happens.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod access;
mod api;
mod audit;
mod description;
mod listeners;
mod listing;
mod policy;
mod policy_set;
mod process;
mod revoking;
#[path = "../support/mod.rs"]
mod support;
