//! DokuWiki as Debian packs it, on PHP's own server with flat files below a directory of its own.
//!
//! What it does, as [`what_it_does_with_its_cookies`] sees it:
//!
//! * Every visitor gets `DokuWiki`, PHP's session id, which stays the same over sign-in and sign-out and signs nobody in.
//! * Success is `302` with `DW` and a hash of the site, which holds name and password, encrypted; it signs in alone where its
//!   user asked to be remembered, as people do here. Every
//!   answer to one who is not signed in deletes it. A copy from before the sign-out opens the wiki again.
//! * One address serves everything, `/doku.php`; the form posts to the page that it stands on.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit, text_after};
use crate::process::{Process, run};
use crate::scenario::RealApp;
use crate::source;
use crate::support::browser::{Browser, Page};

const TRACKED: &str = r#"
preset = "php"
cookie = "DW*"
login = "/doku.php?do=login"
inactive = ["GET /lib/exe/**"]
[[app.identity]]
from = "login-form"
path = "/doku.php/*"
user = "u"
"#;

const KEPT: &str = r#"
preset = "php"
cookie = "DW*"
custody = "vault"
login = "/doku.php?do=login"
inactive = ["GET /lib/exe/**"]
[[app.identity]]
from = "login-form"
path = "/doku.php/*"
user = "u"
"#;

/// A wiki that nobody reads who is not signed in.
pub(crate) struct DokuWiki<const IN_VAULT: bool> {
    addr: SocketAddr,
    _process: Process,
    _place: TempDir,
}

impl<const IN_VAULT: bool> RealApp for DokuWiki<IN_VAULT> {
    const NAME: &str = "dokuwiki";
    const COOKIE: &str = "DW6666cd76f96956469e7be39d750cc7d9";
    const IN_VAULT: bool = IN_VAULT;
    const LOGIN: &str = "/doku.php";
    const WORK: &str = "/doku.php/start";
    const POLLED: &str = "/lib/exe/taskrunner.php?id=start";
    const SETTINGS: &str = if IN_VAULT { KEPT } else { TRACKED };

    async fn start() -> Self {
        let place = tempfile::tempdir().expect("there is room for a wiki");
        let php = || {
            let mut command = Command::new("php");
            command.env("DOKU_PLACE", place.path()).env("PHP_CLI_SERVER_WORKERS", "4");
            command
        };
        run(php().arg(source("dokuwiki").join("prepare.php")));
        let (process, [addr]) = Process::start(Self::NAME, place.path(), Self::LOGIN, |[port]| {
            let mut command = php();
            command
                .arg("-d")
                .arg(format!("auto_prepend_file={}", source("dokuwiki").join("prepend.php").display()));
            command.args(["-S", &format!("127.0.0.1:{port}"), "-t", "/usr/share/dokuwiki"]);
            command
        })
        .await;
        Self { addr, _process: process, _place: place }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn asks_to_sign_in(page: &Page) -> bool {
        asks_for(page, "u")
    }

    async fn fill_in(browser: &Browser, form: &Page, user: &str, password: &str) -> Page {
        submit(browser, form, &[("u", user), ("p", password), ("r", "1")]).await
    }

    async fn who(browser: &Browser) -> Option<String> {
        text_after(&browser.navigate(Self::WORK).await, "Logged in as: <bdi>")
    }

    async fn sign_out(browser: &Browser) {
        let page = browser.navigate(Self::WORK).await.text();
        let (before, after) = page.split_once("do=logout").expect("a link to leave by");
        let start = before.rsplit('"').next().unwrap_or_default();
        let end = after.split('"').next().unwrap_or_default();
        browser.navigate(&format!("{start}do=logout{end}").replace("&amp;", "&")).await;
    }
}

#[tokio::test]
async fn what_it_does_with_its_cookies() {
    type Wiki = DokuWiki<false>;
    let app = Wiki::start().await;
    let browser = Browser::at(app.addr());
    let form = browser.navigate(Wiki::WORK).await;
    let php = browser.cookie("DokuWiki").expect("one for every visitor");
    let wrong = Wiki::fill_in(&browser, &form, "ann", "wrong").await;
    assert_eq!((wrong.status, browser.cookie(Wiki::COOKIE)), (403, None));
    let page = Wiki::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!(page.statuses(), [302, 200]);
    let signs_in = browser.cookie(Wiki::COOKIE).expect("what signs in");
    assert_eq!(Wiki::who(&browser).await.as_deref(), Some("ann"));
    Wiki::sign_out(&browser).await;
    assert_eq!(Wiki::who(&browser).await, None);
    assert_eq!((browser.cookie(Wiki::COOKIE), browser.cookie("DokuWiki")), (None, Some(php)));
    let thief = Browser::at(app.addr());
    let page = thief.fetch_with_cookie(Wiki::WORK, &format!("{}={signs_in}", Wiki::COOKIE)).await;
    assert!(page.text().contains("<bdi>ann</bdi>"), "the app cannot know that its user signed out");
}
