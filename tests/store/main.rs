//! The store suite: one contract, run over every store. The clock is a parameter, nothing sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::duplicate_mod,
    reason = "a test's helpers may fail as loudly as the test; the suite is the same for every store"
)]

#[path = "../store_support/mod.rs"]
mod store_support;

#[path = "../redis_support/mod.rs"]
mod redis_support;

/// Sessions in memory alone.
mod memory {
    mod place;
    #[path = "../suite/mod.rs"]
    mod suite;
}

/// Sessions in the embedded store.
mod disk {
    mod files;
    mod place;
    #[path = "../suite/mod.rs"]
    mod suite;
}

/// Sessions in a store that gateways share.
mod redis {
    mod place;
    #[path = "../suite/mod.rs"]
    mod suite;
}
