//! Ties everything together: listeners, workers, the control thread, reload and drain.
//!
//! [`Gateway::start`] binds first and builds then, so that a test that asks for port 0 learns the port, and a fault
//! of the configuration or an address in use is told before anything runs.

mod accept;
mod admin_port;
mod browser;
mod choose;
mod control;
mod cuts;
mod farewells;
mod gateway;
mod hub;
mod jwks;
mod keeping;
mod listener;
mod outbound;
mod settings;
mod tls;
mod verifiers;
mod worker;

pub use gateway::{Gateway, Inner, Reloaded, StartError};
