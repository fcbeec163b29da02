//! The gateway over real sockets: a fixture app with every bad habit behind it, browsers with true jars before it.
//! Gateways run in-process on port 0 with a clock that the test moves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod after_end;
mod answers;
mod chunked;
mod custody;
mod deletion;
mod durable;
mod edge;
mod ends;
mod habits;
mod identity;
mod interleavings;
mod jwt;
mod learning;
mod limits;
mod live;
mod logs;
mod names;
mod operations;
mod protocol;
#[path = "../redis_support/mod.rs"]
mod redis_support;
mod roll_out;
mod rotation;
mod secrets;
mod setup;
mod shared;
mod sign_in;
#[path = "../support/mod.rs"]
mod support;
mod upstream;
mod userinfo;
mod vault;
mod wire;
