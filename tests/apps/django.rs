//! Django 5.2 with its own admin, served by gunicorn: a cookie for those who are signed in, a token against forged
//! requests beside it.
//!
//! What it does, as [`what_it_does_with_its_cookies`] sees it:
//!
//! * A stranger has no `sessionid`. Every page of the admin sends one to `/admin/login/?next=` with 302; the form sets
//!   `csrftoken`, which the form's hidden field must match.
//! * Success is `302` to `next`, with `sessionid` (`HttpOnly; Max-Age=1209600; Path=/; SameSite=Lax`) and a new
//!   `csrftoken`, which no longer fits a form shown before. A wrong password is the form again, `200`, no `sessionid`.
//! * The id does not change afterwards, and is not sent again. One who is signed in is sent on from the form.
//! * Signing out is a POST; it deletes the cookie (`Max-Age=0`) and the id is dead.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit, text_after};
use crate::process::{Process, run};
use crate::scenario::RealApp;
use crate::support::browser::{Browser, Page};
use crate::{installed, source};

/// The admin over a database of its own.
pub(crate) struct Django {
    addr: SocketAddr,
    _process: Process,
    _place: TempDir,
}

impl RealApp for Django {
    const NAME: &str = "django";
    const COOKIE: &str = "sessionid";
    const LOGIN: &str = "/admin/login/";
    const WORK: &str = "/admin/auth/user/";
    const POLLED: &str = "/admin/jsi18n/";
    const SETTINGS: &str = r#"
cookie = "sessionid"
login = "/admin/login/"
logout = "/admin/logout/"
return_to = "next"
inactive = ["GET /admin/jsi18n/"]
[[app.identity]]
from = "login-form"
path = "/admin/login/"
user = "username"
"#;

    async fn start() -> Self {
        let place = tempfile::tempdir().expect("there is room for a database");
        let python = |program: &str| {
            let mut command = Command::new(installed("django").join("bin").join(program));
            command.env("PYTHONPATH", source("django")).env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("DJANGO_SETTINGS_MODULE", "settings");
            command.env("TEST_DATABASE", place.path().join("db.sqlite3"));
            command
        };
        run(python("python").arg(source("django").join("prepare.py")));
        let (process, [addr]) = Process::start(Self::NAME, place.path(), Self::LOGIN, |[port]| {
            let mut command = python("gunicorn");
            command.args(["--workers", "1", "--threads", "4", "--no-control-socket", "--bind"]);
            command.arg(format!("127.0.0.1:{port}")).arg("django.core.wsgi:get_wsgi_application()");
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
        text_after(&browser.navigate("/admin/").await, "<strong>")
    }

    async fn sign_out(browser: &Browser) {
        let page = browser.navigate("/admin/").await;
        submit(browser, &page, &[]).await;
    }
}

#[tokio::test]
async fn what_it_does_with_its_cookies() {
    let app = Django::start().await;
    let browser = Browser::at(app.addr());
    let id = || browser.cookie(Django::COOKIE);
    let csrf = || browser.cookie("csrftoken").unwrap();
    let form = browser.navigate(Django::WORK).await;
    assert_eq!((form.statuses(), id()), (vec![302, 200], None), "a stranger has no session");
    assert_eq!(form.url.target, "/admin/login/?next=/admin/auth/user/");
    let before = csrf();
    let wrong = Django::fill_in(&browser, &form, "ann", "wrong").await;
    assert_eq!((wrong.statuses(), id()), (vec![200], None));
    let page = Django::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!((page.statuses(), page.url.target.as_str()), (vec![302, 200], Django::WORK));
    assert_ne!(csrf(), before, "the sign-in changes it");
    let signed_in = id().unwrap();
    let set = page.chain[0].headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    let set = set.filter(|line| line.starts_with("sessionid=")).collect::<Vec<_>>();
    assert_eq!(set.len(), 1);
    for attribute in ["; HttpOnly", "; Max-Age=1209600", "; Path=/", "; SameSite=Lax"] {
        assert!(set[0].contains(attribute), "{attribute}");
    }
    assert_eq!(Django::who(&browser).await.as_deref(), Some("ann"));
    let page = browser.navigate(Django::LOGIN).await;
    assert_eq!((page.statuses(), id().as_ref()), (vec![302, 200], Some(&signed_in)));
    let stale = Django::fill_in(&browser, &form, "bob", "bob-secret").await;
    assert_eq!(stale.status, 403, "the form from before has a token that no longer fits");

    Django::sign_out(&browser).await;
    assert_eq!(id(), None);
    let thief = Browser::at(app.addr());
    let page = thief.fetch_with_cookie(Django::WORK, &format!("sessionid={signed_in}")).await;
    assert!(Django::asks_to_sign_in(&page) || page.status == 302, "an id does not outlive the sign-out");
}
