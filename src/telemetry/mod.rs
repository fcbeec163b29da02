//! What operators see: logs, one access line a request, audit lines, metrics. Only emits; keeps nothing but counters.
//!
//! No token reaches this module: it is given ids, names, paths without their query, and numbers.

mod access;
pub mod audit;
mod exposition;
mod habits;
mod log;
mod metrics;

pub use access::AccessGuard;
pub use habits::{Habit, Habits};
pub use log::{LogFormat, init};
pub use metrics::{AppMetrics, ConnectionGuard, Farewelled, Metrics, SessionCounts};
