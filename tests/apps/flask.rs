//! Flask 3 with flask-login, served by gunicorn: the session is the cookie, signed by the app and kept nowhere else.
//!
//! What it does, as [`what_it_does_with_its_cookies`] sees it:
//!
//! * A stranger gets no cookie before a page has something to say to them (`session` with a message, at the first redirect
//!   to the form). Success is `302` with `session` and, where asked for, `remember_token`, which signs in alone.
//! * Signing out deletes both in the browser. A copy of either taken before opens the app for as long as its own date says.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit, text_after};
use crate::process::Process;
use crate::scenario::RealApp;
use crate::support::browser::{Browser, Page};
use crate::{installed, source};

/// The app with keys of its own.
pub(crate) struct Flask {
    addr: SocketAddr,
    _process: Process,
    _place: TempDir,
}

impl RealApp for Flask {
    const NAME: &str = "flask";
    const COOKIE: &str = "session";
    const IN_VAULT: bool = true;
    const LOGIN: &str = "/login";
    const WORK: &str = "/work";
    const POLLED: &str = "/news";
    const SETTINGS: &str = r#"
preset = "flask"
login = "/login"
logout = "POST /logout"
inactive = ["GET /news"]
[[app.identity]]
from = "login-form"
path = "/login"
user = "username"
"#;

    async fn start() -> Self {
        let place = tempfile::tempdir().expect("there is room for a log");
        let (process, [addr]) = Process::start(Self::NAME, place.path(), Self::LOGIN, |[port]| {
            let mut command = Command::new(installed("flask").join("bin/gunicorn"));
            command.env("PYTHONPATH", source("flask")).env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("SECRET_KEY", "of this test alone");
            command.args(["--workers", "1", "--threads", "4", "--no-control-socket", "--bind"]);
            command.arg(format!("127.0.0.1:{port}")).arg("app:app");
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
    let app = Flask::start().await;
    let browser = Browser::at(app.addr());
    let form = browser.navigate(Flask::LOGIN).await;
    let wrong = Flask::fill_in(&browser, &form, "ann", "wrong").await;
    assert_eq!((wrong.status, browser.cookie("session")), (401, None));
    Flask::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!(Flask::who(&browser).await.as_deref(), Some("ann"));
    let copies = ["session", "remember_token"].map(|name| {
        let value = browser.cookie(name).unwrap_or_else(|| panic!("{name} is set"));
        format!("{name}={value}")
    });
    Flask::sign_out(&browser).await;
    assert_eq!(Flask::who(&browser).await, None);
    let thief = Browser::at(app.addr());
    for copy in copies {
        let page = thief.fetch_with_cookie(Flask::WORK, &copy).await;
        assert!(page.text().contains("ann"), "the app cannot know that its user signed out");
    }
}
