//! Jupyter Server with a password: one user, whose name is made up anew at each sign-in, polling, and WebSockets.
//!
//! What it does, as [`what_it_does_with_its_cookies`] sees it:
//!
//! * The form sets `_xsrf`, which scripts read and send back in a header. Success is `302` with `username-` and the host's
//!   name, the value in double quotes, signed by the app and kept nowhere else.
//! * Signing out deletes it. A copy from before opens the app, and new WebSockets, for as long as its own date says.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit};
use crate::gateway::Gateway;
use crate::installed;
use crate::process::Process;
use crate::scenario::RealApp;
use crate::support::browser::{Ask, Browser, Heard, Mode, Page};

const PASSWORD: &str = "of this test alone";

/// Opens to who is signed in, and says nothing by itself.
const SOCKET: &str = "/api/events/subscribe";

/// A server over a directory of its own.
pub(crate) struct Jupyter {
    addr: SocketAddr,
    _process: Process,
    _place: TempDir,
}

impl RealApp for Jupyter {
    const NAME: &str = "jupyter";
    const COOKIE: &str = "username-*";
    const IN_VAULT: bool = true;
    const LOGIN: &str = "/login";
    const WORK: &str = "/api/contents";
    const POLLED: &str = "/api/terminals";
    const SETTINGS: &str = r#"
cookie = "username-*"
custody = "vault"
pass_cookies = ["_xsrf"]
login = "/login"
logout = "/logout"
inactive = ["GET /api/terminals", "GET /api/sessions", "GET /api/kernels"]
[[app.identity]]
from = "userinfo"
path = "/api/me"
user = "/identity/username"
"#;

    async fn start() -> Self {
        let place = tempfile::tempdir().expect("there is room for notebooks");
        let bin = installed("jupyter").join("bin");
        let hashed = Command::new(bin.join("python"))
            .args([
                "-c",
                "import sys; from jupyter_server.auth import passwd; print(passwd(sys.argv[1]))",
                PASSWORD,
            ])
            .output()
            .expect("the password can be hashed");
        let hashed = String::from_utf8_lossy(&hashed.stdout).trim().to_owned();
        let (process, [addr]) = Process::start(Self::NAME, place.path(), Self::LOGIN, |[port]| {
            let mut command = Command::new(bin.join("jupyter-server"));
            for name in ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "HOME"] {
                command.env(name, place.path());
            }
            command.args(["--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0"]);
            command.arg("--ServerApp.allow_remote_access=True").arg(format!("--port={port}"));
            command.arg(format!("--ServerApp.root_dir={}", place.path().display()));
            command.arg(format!("--PasswordIdentityProvider.hashed_password={hashed}"));
            command
        })
        .await;
        Self { addr, _process: process, _place: place }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn asks_to_sign_in(page: &Page) -> bool {
        asks_for(page, "password")
    }

    async fn fill_in(browser: &Browser, form: &Page, _: &str, password: &str) -> Page {
        submit(browser, form, &[("password", password)]).await
    }

    async fn who(browser: &Browser) -> Option<String> {
        let page = browser.fetch("/api/me").await;
        (page.status == 200)
            .then(|| page.json()["identity"]["username"].as_str().map(str::to_owned))
            .flatten()
    }

    async fn sign_out(browser: &Browser) {
        browser.navigate("/logout").await;
    }
}

async fn signed_in(browser: &Browser) -> String {
    let form = browser.navigate(Jupyter::LOGIN).await;
    Jupyter::fill_in(browser, &form, "", PASSWORD).await;
    Jupyter::who(browser).await.expect("somebody is signed in")
}

/// The browser's cookies as a request brings them.
fn copy_of(browser: &Browser) -> String {
    let pair = |jar: &mut crate::support::browser::Jar| {
        jar.all().iter().map(|c| format!("{}={}", c.name, c.value)).collect::<Vec<_>>()
    };
    browser.jar(pair).join("; ")
}

async fn opens(browser: &Browser, cookie: &str) -> bool {
    let ask = Ask::get(Mode::WebSocket, SOCKET).with("cookie", cookie);
    browser.websocket_with(ask).await.is_ok()
}

#[tokio::test]
async fn what_it_does_with_its_cookies() {
    let app = Jupyter::start().await;
    let browser = Browser::at(app.addr());
    signed_in(&browser).await;
    let names: Vec<_> = browser.jar(|jar| jar.all().iter().map(|cookie| cookie.name.clone()).collect());
    assert!(
        names.iter().any(|name| name.starts_with("username-")) && names.iter().any(|name| name == "_xsrf")
    );
    let copy = copy_of(&browser);
    Jupyter::sign_out(&browser).await;
    assert_eq!(Jupyter::who(&browser).await, None);
    let thief = Browser::at(app.addr());
    assert_eq!(thief.fetch_with_cookie(Jupyter::WORK, &copy).await.status, 200, "the app cannot know");
    assert!(opens(&thief, &copy).await, "nor a new WebSocket");
}

#[tokio::test]
async fn an_end_reaches_its_sockets_and_every_copy() {
    let app = Jupyter::start().await;
    let gateway = Gateway::before(&app, "max_concurrent = 1").await;
    let browser = gateway.browser();
    let user = signed_in(&browser).await;
    let id = gateway.only_session_of(&user).await;
    assert_eq!(browser.navigate(Jupyter::WORK).await.status, 200);
    let names: Vec<_> = browser.jar(|jar| jar.all().iter().map(|cookie| cookie.name.clone()).collect());
    assert!(names.iter().all(|name| name == "_xsrf" || name == "tenure-jupyter"), "{names:?}");
    let copy = copy_of(&browser);
    let mut socket = browser.websocket(SOCKET).await.expect("it opens with the jar");
    gateway.revoke(&id).await;
    let Heard::Closed { code, .. } = socket.hear_end().await else { panic!("the socket is closed") };
    assert_eq!(code, 4401);
    let thief = gateway.browser();
    assert_eq!(thief.fetch_with_cookie(Jupyter::WORK, &copy).await.json()["reason"], "revoked");
    assert!(!opens(&thief, &copy).await, "a copy opens no new one");
    let direct = Browser::at(app.addr());
    signed_in(&direct).await;
    assert!(opens(&direct, &copy_of(&direct)).await);
    assert!(!opens(&thief, &copy_of(&direct)).await, "nor does the app's own cookie");
    let page = browser.navigate("/tree").await;
    assert!(page.text().contains("was ended by an administrator"), "{}", page.text());
    assert_ne!(signed_in(&browser).await, user, "and in again");
}
