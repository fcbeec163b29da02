//! The data path. [`Proxy::handle`] fixes the order of steps and reads like a table of contents.
//!
//! One `Proxy` lives on each worker thread; what workers share (the [`Site`], the table) is immutable or does its own
//! locking. Nothing here decides anything about sessions: `session::gate` and `session::lesson` do, the table makes
//! it atomic, and this module carries requests and answers.

pub mod answer;
pub mod body;
pub mod exchange;
pub mod forward;
pub mod headers;
mod intake;
pub mod jwks;
pub mod jwt;
mod learn;
pub mod login_form;
pub mod pool;
mod reserved;
mod set_cookies;
pub mod site;
mod sources;
pub mod upgrade;
mod userinfo;
mod visit;
