//! Rails 6.1 as Debian packs it, with the session in the cookie store, served by puma.
//!
//! What it does, as [`what_it_does_with_its_cookies`] sees it:
//!
//! * Every visitor of the form gets `_people_session` (`path=/; HttpOnly; SameSite=Lax`), encrypted by the app.
//! * Its value changes with every answer that touches the session. All earlier ones stay valid, after a sign-out too.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit, text_after};
use crate::process::Process;
use crate::scenario::RealApp;
use crate::source;
use crate::support::browser::{Browser, Page};

/// The app with keys of its own.
pub(crate) struct Rails {
    addr: SocketAddr,
    _process: Process,
    _place: TempDir,
}

impl RealApp for Rails {
    const NAME: &str = "rails";
    const COOKIE: &str = "_people_session";
    const IN_VAULT: bool = true;
    const LOGIN: &str = "/login";
    const WORK: &str = "/work";
    const POLLED: &str = "/news";
    const SETTINGS: &str = r#"
preset = "rails"
cookie = "_people_session"
login = "/login"
logout = "POST /logout"
inactive = ["GET /news"]
[[app.identity]]
from = "login-form"
path = "/login"
user = "username"
success = { status = [302], location_not = "/login*" }
"#;

    async fn start() -> Self {
        let place = tempfile::tempdir().expect("there is room for a log");
        let (process, [addr]) = Process::start(Self::NAME, place.path(), Self::LOGIN, |[port]| {
            let mut command = Command::new("puma");
            command.env("RAILS_ENV", "production").env("SECRET_KEY_BASE", "0123456789abcdef".repeat(4));
            command.args(["--threads", "4:4", "--dir"]).arg(source("rails"));
            command.args(["--bind", &format!("tcp://127.0.0.1:{port}"), "config.ru"]);
            command
        })
        .await;
        Self { addr, _process: process, _place: place }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn asks_to_sign_in(page: &Page) -> bool {
        asks_for(page, "username")
    }

    async fn fill_in(browser: &Browser, form: &Page, user: &str, password: &str) -> Page {
        submit(browser, form, &[("username", user), ("password", password)]).await
    }

    async fn who(browser: &Browser) -> Option<String> {
        text_after(&browser.navigate("/work").await, "<strong>")
    }

    async fn sign_out(browser: &Browser) {
        let page = browser.navigate("/work").await;
        submit(browser, &page, &[]).await;
    }
}

#[tokio::test]
async fn what_it_does_with_its_cookies() {
    let app = Rails::start().await;
    let browser = Browser::at(app.addr());
    let copy = || format!("{}={}", Rails::COOKIE, browser.cookie(Rails::COOKIE).unwrap());
    let form = browser.navigate(Rails::LOGIN).await;
    let wrong = Rails::fill_in(&browser, &form, "ann", "wrong").await;
    assert_eq!(wrong.status, 401);
    let form = browser.navigate(Rails::LOGIN).await;
    Rails::fill_in(&browser, &form, "ann", "ann-secret").await;
    let first = copy();
    assert_eq!(Rails::who(&browser).await.as_deref(), Some("ann"));
    let second = copy();
    assert_ne!(first, second, "new with every answer");
    Rails::sign_out(&browser).await;
    assert_eq!(Rails::who(&browser).await, None);
    let thief = Browser::at(app.addr());
    for copy in [first, second] {
        let page = thief.fetch_with_cookie(Rails::WORK, &copy).await;
        assert!(page.text().contains("ann"), "the app cannot know that its user signed out");
    }
}
