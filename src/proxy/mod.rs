//! The data path. [`Proxy::handle`] fixes the order of steps and reads like a table of contents.
//!
//! One `Proxy` lives on each worker thread; what workers share (the [`Site`], the table) is immutable or does its own
//! locking. Nothing here decides anything about sessions: `session::gate` and `session::lesson` do, the table makes
//! it atomic, and this module carries requests and answers.

mod answer;
pub mod body;
mod collect;
mod command;
mod deliver;
mod exchange;
mod farewell;
mod forward;
pub mod frames;
mod handle;
mod headers;
mod hear;
mod host;
mod intake;
pub mod jwt;
mod keep;
mod learn;
pub mod login_form;
mod permits;
mod pool;
mod reserved;
mod respond;
mod rewrite;
mod set_cookies;
mod site;
mod sources;
mod standpoint;
mod upgrade;
pub mod upstream;
mod userinfo;
mod visit;

pub use farewell::{Farewell, Farewells};
pub use handle::{Connection, Proxy, Shared};
pub use site::{AppSite, MadeWith, Site};
pub use userinfo::Asked as AskedUserinfo;
