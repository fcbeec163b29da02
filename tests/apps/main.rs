//! Real apps, installed by package and unchanged, driven as a person would: first by themselves, so that what
//! is known of them is known, then behind the gateway's own binary. `tests/apps/install.sh` installs them.
//!
//! | module | what it is |
//! |---|---|
//! | `tomcat`, `django`, `express`, `flask`, `rails`, `dokuwiki`, `jupyter` | how to start each app and sign in to it; what it does with its cookies |
//! | `scenario` | what a person meets at each limit, the same for all of them |
//! | `gateway` | `tenure serve` before an app, and its admin API |
//! | `tap` | stands between gateway and app and hears what the app is sent |
//! | `process` | starts a program on free ports and never leaves it behind |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod django;
mod dokuwiki;
mod express;
mod flask;
mod form;
mod gateway;
mod jupyter;
mod process;
mod rails;
mod scenario;
#[path = "../support/mod.rs"]
mod support;
mod tap;
mod tomcat;

use std::path::PathBuf;

use scenario::every_limit;

/// A file below `tests/apps/`.
fn source(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// Where `install.sh` put an app.
fn installed(name: &str) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let place = target.with_file_name("test-apps").join(name);
    assert!(place.exists(), "{name} is not installed: run tests/apps/install.sh");
    place
}

#[tokio::test]
async fn tomcat_behind_the_gateway() {
    every_limit::<tomcat::Tomcat>().await;
}

#[tokio::test]
async fn django_behind_the_gateway() {
    every_limit::<django::Django>().await;
}

#[tokio::test]
async fn express_behind_the_gateway() {
    every_limit::<express::Express>().await;
}

#[tokio::test]
async fn flask_behind_the_gateway() {
    every_limit::<flask::Flask>().await;
}

#[tokio::test]
async fn rails_behind_the_gateway() {
    every_limit::<rails::Rails>().await;
}

#[tokio::test]
async fn dokuwiki_behind_the_gateway() {
    every_limit::<dokuwiki::DokuWiki<false>>().await;
}

#[tokio::test]
async fn dokuwiki_in_the_vault() {
    every_limit::<dokuwiki::DokuWiki<true>>().await;
}
