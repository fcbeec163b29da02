//! Tests of the test harness itself: the jar's rules, the app's habits as a browser meets them, the helpers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail as loudly as the test")]

mod app;
mod browser;
mod helpers;
mod jar;
#[path = "../support/mod.rs"]
mod support;
