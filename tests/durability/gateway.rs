//! A place with a configuration, and the gateway that runs there, again and again.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::command;
use crate::running::Running;
use crate::support::app::App;
use crate::support::browser::{Ask, Browser, Mode, NetError, Page};
use crate::support::wait::{PATIENCE, comes_true};

/// More than a page of the API's lists may hold is asked for page by page.
const PAGE: usize = 1000;

/// Where sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Custody {
    Track,
    Vault,
}

impl Custody {
    /// One and the other, in turn.
    pub(crate) fn of(round: u64) -> Self {
        if round.is_multiple_of(2) { Self::Track } else { Self::Vault }
    }

    /// The cookie that browsers hold.
    pub(crate) fn cookie(self) -> &'static str {
        match self {
            Self::Track => "SID",
            Self::Vault => "tenure-crm",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Vault => "vault",
        }
    }
}

/// An app, a directory, and what the gateway is told.
pub(crate) struct Site {
    pub(crate) app: App,
    pub(crate) place: TempDir,
    pub(crate) custody: Custody,
    token: String,
}

impl Site {
    pub(crate) async fn new(custody: Custody) -> Self {
        let app = App::start().await;
        let place = tempfile::tempdir().unwrap();
        let made = command(&["token", "new", "--name", "ops", "--scopes", "*"]).output().unwrap();
        let text = String::from_utf8(made.stdout).unwrap();
        let (token, entry) = text.trim_end().split_once('\n').unwrap();
        let site = Self { app, place, custody, token: token.to_owned() };
        fs::write(site.place.path().join("config.toml"), site.config(entry)).unwrap();
        site
    }

    /// What cannot be made safe is not answered (`refuse`), so that every answer is a promise.
    fn config(&self, entry: &str) -> String {
        format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\nworkers = 2\n[drain]\ndelay = \"0s\"\ntimeout = \"5s\"\n\
             [store]\npath = \"data\"\non_outage = \"refuse\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\ntokens = [{entry}]\n\
             [[app]]\nname = \"crm\"\nupstream = \"{}\"\ncookie = \"SID\"\nlogin = \"/login\"\nlogout = \"/logout\"\n\
             custody = \"{}\"\n\
             [[app.identity]]\nfrom = \"login-form\"\npath = \"/login\"\nuser = \"username\"\n\
             success = {{ location_not = \"/login*\" }}\n\
             [policy]\nidle_timeout = \"1h\"\nforce_relogin = \"8h\"\n\
             [[policy.user]]\nname = \"shared0\"\nmax_concurrent = 1\n\
             [[policy.user]]\nname = \"shared1\"\nmax_concurrent = 1\n",
            self.app.url(),
            self.custody.name(),
        )
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// Starts the gateway on the directory as it is.
    pub(crate) async fn start(&self) -> Live {
        self.live(self.begin("")).await
    }

    /// One that was begun and serves, or is about to.
    pub(crate) async fn live(&self, gateway: Running) -> Live {
        Live::of(gateway, &self.token).await
    }

    /// Runs the program by a shell, which says `before` first; it may not come to serve.
    pub(crate) fn begin(&self, before: &str) -> Running {
        let script = format!("{before}exec {} serve --config config.toml", env!("CARGO_BIN_EXE_tenure"));
        Running::start_shell(&script, self.place.path())
    }

    /// Runs the program in a namespace of its own, where `setup` mounts something before it.
    pub(crate) fn begin_above(&self, setup: &str) -> Running {
        let program = env!("CARGO_BIN_EXE_tenure");
        let inside = format!("{setup} && exec '{program}' serve --config config.toml");
        Running::start_shell(
            &format!("echo $$ >process; exec unshare -m sh -c \"{inside}\""),
            self.place.path(),
        )
    }

    /// The process of [`Site::begin_above`], which stays the same one.
    pub(crate) fn process(&self) -> String {
        fs::read_to_string(self.place.path().join("process")).unwrap().trim().to_owned()
    }

    /// Changes the file, before a start.
    pub(crate) fn change_config(&self, from: &str, to: &str) {
        let file = self.place.path().join("config.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "nothing to change");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    pub(crate) async fn serves(&self, gateway: Running) -> Live {
        Live::of(gateway, &self.token).await
    }
}

/// A gateway that serves.
pub(crate) struct Live {
    pub(crate) gateway: Running,
    pub(crate) http: SocketAddr,
    admin: SocketAddr,
    token: String,
}

impl Live {
    async fn of(gateway: Running, token: &str) -> Self {
        gateway.says(" ready").await;
        let (http, admin) = (gateway.address("http").await, gateway.address("admin").await);
        Self { gateway, http, admin, token: token.to_owned() }
    }

    /// Who speaks with the API of this gateway.
    pub(crate) fn operator(&self) -> Operator {
        Operator { browser: Browser::at(self.admin), token: self.token.clone() }
    }

    pub(crate) async fn kill(mut self) {
        self.gateway.signal(Signal::KILL);
        self.gateway.ends().await;
        self.assert_no_panic();
    }

    /// Leaves in order.
    pub(crate) async fn leave(mut self) {
        self.gateway.signal(Signal::TERM);
        assert_eq!(self.gateway.ends().await.code(), Some(0), "{}", self.gateway.err());
        self.assert_no_panic();
    }

    pub(crate) fn assert_no_panic(&self) {
        assert!(!self.gateway.err().contains("panicked"), "{}", self.gateway.err());
    }
}

/// A client of the API.
pub(crate) struct Operator {
    browser: Browser,
    token: String,
}

impl Operator {
    pub(crate) async fn ask(
        &self,
        method: Method,
        reference: &str,
        body: Option<&Value>,
    ) -> Result<Page, NetError> {
        let ask = body.map_or_else(|| Ask::get(Mode::Fetch, reference), |body| Ask::json(reference, body));
        let ask = ask.method(method).with("authorization", &format!("Bearer {}", self.token));
        self.browser.send(ask).await
    }

    /// Every session that the gateway knows.
    pub(crate) async fn list(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let reference = format!("/v1/sessions?limit={PAGE}{cursor}");
            let page = self.ask(Method::GET, &reference, None).await.expect("the API answers");
            assert_eq!(page.status, 200, "{}", page.text());
            let mut list = page.json();
            all.append(list["items"].as_array_mut().unwrap());
            match list["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// The id of the live session of a user who has one.
    pub(crate) async fn id_of(&self, user: &str) -> Result<Option<String>, NetError> {
        let reference = format!("/v1/sessions?state=active&user={user}");
        let page = self.ask(Method::GET, &reference, None).await?;
        Ok(page.json()["items"][0]["id"].as_str().map(str::to_owned))
    }

    /// Waits until the gauge of the store's outage stands so.
    pub(crate) async fn degraded_becomes(&self, value: u8) {
        let line = format!("tenure_store_degraded {value}\n");
        let stands = async || {
            let page = self.ask(Method::GET, "/metrics", None).await;
            page.is_ok_and(|page| page.text().contains(&line))
        };
        assert!(comes_true(PATIENCE, stands).await, "the gauge does not become {value}");
    }
}

impl Live {
    /// In order or by a signal: the next start finds a write-ahead log, or none.
    pub(crate) async fn leave_or_die(self, random: &mut crate::support::random::Random) {
        if random.one_in(2) { self.leave().await } else { self.kill().await }
    }
}
