//! A gateway with an admin API, its tokens, and a client that checks every answer against the API's description.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tenure::clock::Clock;
use tenure::config::check_text;
use tenure::server::Gateway;
use tenure::session::{Moment, Span};

use crate::description::Description;
use crate::support::app::{App, PASSWORD};
use crate::support::browser::{Ask, Browser, Mode, Page};

/// When every test begins.
pub(crate) const START: Moment = Moment::from_unix_ms(1_750_000_000_000);

/// May do everything, for every tenant.
pub(crate) const OPS: &str = "tenure-test-token-of-ops";
/// May do everything, within the tenant acme.
pub(crate) const ACME: &str = "tenure-test-token-of-acme";

/// A gateway with its app and its admin API.
pub(crate) struct World {
    pub app: App,
    pub gateway: Gateway,
    pub clock: Clock,
    description: Description,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_tokens(&[]).await
    }

    /// With further tokens: (the token, its scopes).
    pub(crate) async fn with_tokens(tokens: &[(&str, &[&str])]) -> Self {
        Self::with(tokens, "").await
    }

    /// With further lines at the end of the file.
    pub(crate) async fn with(tokens: &[(&str, &[&str])], rest: &str) -> Self {
        Self::begin(|upstream| config_text(upstream, tokens, rest)).await
    }

    /// With the usual file, changed.
    pub(crate) async fn from_text(change: impl FnOnce(String) -> String) -> Self {
        Self::begin(|upstream| change(config_text(upstream, &[], ""))).await
    }

    async fn begin(text: impl FnOnce(&str) -> String) -> Self {
        let app = App::with(|s| s.identity_headers = true).await;
        let clock = Clock::manual(START);
        let text = text(&app.url());
        let config = check_text("test.toml", &text, Path::new("."))
            .unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        let gateway = Gateway::start(config, clock.clone()).expect("the gateway starts");
        let description = Description::read();
        Self { app, gateway, clock, description }
    }

    /// A browser on which `user` has just signed in.
    pub(crate) async fn signed_in(&self, user: &str) -> Browser {
        let browser = Browser::at(self.gateway.http.unwrap());
        let page = browser.post_form("/login", &[("username", user), ("password", PASSWORD)]).await;
        assert_eq!(page.status, 200, "{}", page.text());
        browser
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Span::from_secs(seconds));
    }

    pub(crate) fn client(&self) -> Browser {
        Browser::at(self.gateway.admin.expect("an admin API"))
    }

    /// Any call at all, checked against the description.
    pub(crate) async fn send(&self, ask: Ask) -> Page {
        let (method, reference) = (ask.method.clone(), ask.reference.clone());
        let page = self.client().send(ask).await.expect("an answer");
        self.description.check(&method, &reference, &page);
        page
    }

    /// A call with `token` and, when there is one, a JSON body.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: Method,
        reference: &str,
        body: Option<&Value>,
    ) -> Page {
        let ask = match body {
            Some(value) => Ask::json(reference, value),
            None => Ask::get(Mode::Fetch, reference),
        };
        self.send(ask.method(method).with("authorization", &format!("Bearer {token}"))).await
    }

    /// The answer to a GET by `token`, which has to be 200.
    pub(crate) async fn get_by(&self, token: &str, reference: &str) -> Value {
        let page = self.call(token, Method::GET, reference, None).await;
        assert_eq!(page.status, 200, "{reference}: {}", page.text());
        page.json()
    }

    /// The same by the operator of everything.
    pub(crate) async fn get(&self, reference: &str) -> Value {
        self.get_by(OPS, reference).await
    }

    /// Status and detail of a GET that has to fail.
    pub(crate) async fn refused(&self, reference: &str) -> (u16, String) {
        let page = self.call(OPS, Method::GET, reference, None).await;
        (page.status, page.json()["detail"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) async fn delete(&self, token: &str, reference: &str) -> Page {
        self.call(token, Method::DELETE, reference, None).await
    }

    pub(crate) async fn revoke(&self, token: &str, body: Value) -> Page {
        self.call(token, Method::POST, "/v1/sessions/revoke", Some(&body)).await
    }

    /// The users of a list of sessions, sorted.
    pub(crate) async fn users_of(&self, token: &str, reference: &str) -> Vec<String> {
        let mut users = names(&self.get_by(token, reference).await);
        users.sort();
        users
    }

    /// The id of the one live session of `user`.
    pub(crate) async fn id_of(&self, user: &str) -> String {
        let list = self.get(&format!("/v1/sessions?state=active&user={user}")).await;
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{list}");
        items[0]["id"].as_str().unwrap().to_owned()
    }
}

/// The users of a list, in its order; sessions of nobody are "".
pub(crate) fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["user"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What a revocation answers.
pub(crate) fn revoked(matched: usize, ended: usize) -> Value {
    json!({ "matched": matched, "ended": ended })
}

/// A configuration on port 0 with the two tokens above and `tokens`.
pub(crate) fn config_text(upstream: &str, tokens: &[(&str, &[&str])], rest: &str) -> String {
    let further = tokens.iter().map(|(token, scopes)| token_line(token, scopes, "*"));
    let all = [token_line(OPS, &["*"], "*"), token_line(ACME, &["*"], "acme")];
    let lines: Vec<String> = all.into_iter().chain(further).collect();
    format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nworkers = 2\n[store]\npath = \"off\"\n[drain]\ndelay = \"0s\"\ntimeout = \"5s\"\n\
         [[app]]\nname = \"app\"\nupstream = \"{upstream}\"\ncookie = \"SID\"\nlogin = \"/login\"\nlogout = \"/logout\"\n\
         [[app.identity]]\nfrom = \"response-header\"\nuser = \"X-Session-User\"\ntenant = \"X-Session-Tenant\"\nroles = \"X-Session-Roles\"\n\
         [policy]\nidle_timeout = \"1h\"\nforce_relogin = \"8h\"\nmax_concurrent = 5\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nprobes = \"127.0.0.1:0\"\ntokens = [{}]\n{rest}\n",
        lines.join(", ")
    )
}

/// A token's entry; its name is what stands behind its last `-`.
fn token_line(token: &str, scopes: &[&str], tenant: &str) -> String {
    let name = token.rsplit('-').next().unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let digits: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{ name = \"{name}\", hash = \"sha256:{digits}\", scopes = {scopes:?}, tenant = \"{tenant}\" }}")
}
