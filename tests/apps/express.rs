//! A small Express 5 app with express-session: a cookie for every visitor, and a page that polls.
//!
//! What it does, as [`what_it_does_with_its_cookie`] sees it:
//!
//! * The first answer to anybody sets `connect.sid` (`Path=/; HttpOnly`); the value is the id and its signature,
//!   percent-encoded (`s%3A...`). It is sent again only when it changes.
//! * Success is `302` with a new id, because the app calls `regenerate()`; the old one is dead. A wrong password is
//!   `401`, and the id stays.
//! * Signing out deletes the cookie and the id is dead; an unknown id gets a new one.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit};
use crate::process::Process;
use crate::scenario::RealApp;
use crate::support::browser::{Browser, Page};
use crate::{installed, source};

/// The app with its sessions in its memory.
pub(crate) struct Express {
    addr: SocketAddr,
    _process: Process,
    _place: TempDir,
}

impl RealApp for Express {
    const NAME: &str = "express";
    const COOKIE: &str = "connect.sid";
    const LOGIN: &str = "/login";
    const WORK: &str = "/home";
    const POLLED: &str = "/notifications";
    const SETTINGS: &str = r#"
cookie = "connect.sid"
login = "/login"
logout = "/logout"
inactive = ["GET /notifications"]
[[app.identity]]
from = "login-form"
path = "/login"
user = "user"
"#;

    async fn start() -> Self {
        let place = tempfile::tempdir().expect("there is room for a log");
        let (process, [addr]) = Process::start(Self::NAME, place.path(), "/", |[port]| {
            let mut command = Command::new("node");
            // Modules are looked for beside the file, then here.
            command.env("NODE_PATH", installed("express").join("node_modules"));
            command.env("PORT", port.to_string()).arg(source("express").join("server.js"));
            command
        })
        .await;
        Self { addr, _process: process, _place: place }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn asks_to_sign_in(page: &Page) -> bool {
        asks_for(page, "user")
    }

    async fn fill_in(browser: &Browser, form: &Page, user: &str, password: &str) -> Page {
        submit(browser, form, &[("user", user), ("password", password)]).await
    }

    async fn who(browser: &Browser) -> Option<String> {
        let page = browser.fetch("/notifications").await;
        (page.status == 200).then(|| page.json()["user"].as_str().map(str::to_owned))?
    }

    async fn sign_out(browser: &Browser) {
        browser.post_form("/logout", &[]).await;
    }
}

#[tokio::test]
async fn what_it_does_with_its_cookie() {
    let app = Express::start().await;
    let browser = Browser::at(app.addr());
    let id = || browser.cookie(Express::COOKIE).unwrap();
    let form = browser.navigate("/login").await;
    let anonymous = id();
    assert!(anonymous.starts_with("s%3A"));
    assert_eq!(form.all("set-cookie"), [format!("connect.sid={anonymous}; Path=/; HttpOnly")]);
    let wrong = Express::fill_in(&browser, &form, "ann", "wrong").await;
    assert_eq!((wrong.status, wrong.all("set-cookie").len(), id() == anonymous), (401, 0, true));
    let page = Express::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!((page.statuses(), page.url.target.as_str()), (vec![302, 200], Express::WORK));
    let signed_in = id();
    assert_ne!(signed_in, anonymous);
    assert_eq!(Express::who(&browser).await.as_deref(), Some("ann"));
    assert!(browser.navigate(Express::WORK).await.all("set-cookie").is_empty());
    let thief = Browser::at(app.addr());
    let status =
        async |id: &str| thief.fetch_with_cookie(Express::POLLED, &format!("connect.sid={id}")).await.status;
    assert_eq!((status(&signed_in).await, status(&anonymous).await), (200, 401));

    Express::sign_out(&browser).await;
    assert_ne!(id(), signed_in, "deleted, and the form that followed set another");
    assert_eq!(status(&signed_in).await, 401, "an id does not outlive the sign-out");
}
