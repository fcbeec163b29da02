//! Tests of the test harness itself: the jar's rules, the app's habits as a browser meets them, the helpers.

mod app;
mod browser;
mod helpers;
mod jar;
#[path = "../support/mod.rs"]
mod support;
