//! The gateway as an operator runs it: its own program, with a file, a token from `tenure token new`, and the admin API.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::scenario::RealApp;
use crate::support::browser::{Ask, Browser, Mode, Page};
use crate::support::search::TokenSearch;
use crate::tap::Tap;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tenure");

/// `tenure serve` before an app, with a tap between the two.
pub(crate) struct Gateway {
    /// What the app is sent.
    pub(crate) tap: Tap,
    http: SocketAddr,
    admin: Browser,
    token: String,
    process: Process,
    _place: TempDir,
}

impl Gateway {
    /// Runs before `app`, under the settings of `policy`.
    pub(crate) async fn before<A: RealApp>(app: &A, policy: &str) -> Self {
        let tap = Tap::before(app.addr()).await;
        let place = tempfile::tempdir().expect("there is room for a file");
        let (token, entry) = new_token();
        let file = place.path().join("config.toml");
        let (process, [http, admin]) = Process::start("tenure", place.path(), "/readyz", |[http, admin]| {
            let text = format!(
                "[listen]\nhttp = \"127.0.0.1:{http}\"\n[store]\npath = \"off\"\n\
                     [admin]\nlisten = \"127.0.0.1:{admin}\"\ntokens = [{entry}]\n\
                     [policy]\n{policy}\n\
                     [[app]]\nname = \"{}\"\nupstream = \"http://{}\"\n{}",
                A::NAME,
                tap.addr(),
                A::SETTINGS,
            );
            fs::write(&file, text).expect("the file can be written");
            let mut command = Command::new(PROGRAM);
            command.args(["serve", "--config"]).arg(&file);
            command
        })
        .await;
        Self { tap, http, admin: Browser::at(admin), token, process, _place: place }
    }

    /// A browser whose pages come through the gateway.
    pub(crate) fn browser(&self) -> Browser {
        Browser::at(self.http)
    }

    /// The live sessions of `user`, as the admin API lists them.
    pub(crate) async fn live_of(&self, user: &str) -> Vec<Value> {
        let page = self.ask(Ask::get(Mode::Fetch, &format!("/v1/sessions?state=active&user={user}"))).await;
        assert_eq!(page.status, 200, "{}", page.text());
        page.json()["items"].as_array().expect("a list").clone()
    }

    /// The public id of the one live session of `user`.
    pub(crate) async fn only_session_of(&self, user: &str) -> String {
        let live = self.live_of(user).await;
        assert_eq!(live.len(), 1, "{live:?}");
        assert_eq!((live[0]["user"].as_str(), live[0]["end_reason"].as_str()), (Some(user), None));
        live[0]["id"].as_str().expect("an id").to_owned()
    }

    /// Why a session ended; `None` while it lives.
    pub(crate) async fn end_of(&self, id: &str) -> Option<String> {
        let page = self.ask(Ask::get(Mode::Fetch, &format!("/v1/sessions/{id}"))).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let session = page.json();
        assert_eq!(session["state"] == "ended", session["end_reason"].is_string(), "{session}");
        session["end_reason"].as_str().map(str::to_owned)
    }

    /// Ends a session as an operator does.
    pub(crate) async fn revoke(&self, id: &str) {
        let ask = Ask::get(Mode::Fetch, &format!("/v1/sessions/{id}")).method(http::Method::DELETE);
        let page = self.ask(ask).await;
        assert_eq!(page.status, 200, "{}", page.text());
    }

    /// Panics when one of these tokens stands in what the gateway tells: its log, its metrics, its lists.
    pub(crate) async fn told_none_of(&self, tokens: &[String]) {
        let mut told = vec![("the log", self.process.output())];
        for (name, reference) in [("the metrics", "/metrics"), ("the list", "/v1/sessions?limit=100")] {
            let page = self.ask(Ask::get(Mode::Fetch, reference)).await;
            assert_eq!(page.status, 200, "{}", page.text());
            told.push((name, page.text()));
        }
        assert!(told.iter().all(|(_, text)| !text.is_empty()));
        TokenSearch::new(tokens.iter().chain([&self.token])).assert_none(told);
    }

    async fn ask(&self, ask: Ask) -> Page {
        let asked = self.admin.send(ask.with("authorization", &format!("Bearer {}", self.token)));
        asked.await.expect("the admin API answers")
    }
}

/// An operator's token, and its entry for the file.
fn new_token() -> (String, String) {
    let made = Command::new(PROGRAM).args(["token", "new", "--name", "ops", "--scopes", "*"]).output();
    let made = String::from_utf8(made.expect("the program runs").stdout).expect("text");
    let (token, entry) = made.trim_end().split_once('\n').expect("two lines");
    (token.to_owned(), entry.to_owned())
}
