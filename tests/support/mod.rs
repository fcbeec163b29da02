//! What the integration tests share: a fixture app with a legacy app's habits, a client with a browser's rules, and
//! a few small helpers. Nothing here knows the gateway (but for its clock), so a fault of the gateway cannot hide
//! itself in its own tests.
//!
//! * [`app::App`]: the app behind the gateway, over real sockets; habits are [`app::Switches`], set at run time.
//! * [`browser::Browser`]: a cookie jar, tabs, navigations, fetches, WebSockets, event streams, raw sockets.
//! * [`search::TokenSearch`]: proves that no token stands in a text, in any common spelling.
//! * [`wait::eventually`], [`logs::LogBuffer`] and [`tls::Certificate`].
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of the harness")]
#![allow(unreachable_pub, reason = "a test binary exports nothing; `pub` marks what tests are meant to use")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a broken fixture is best told by a panic"
)]

pub mod app;
pub mod browser;
pub mod logs;
pub mod random;
pub mod search;
pub mod tls;
pub mod wait;
