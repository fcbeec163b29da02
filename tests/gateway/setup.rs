//! A gateway before a fixture app, and short ways to drive both.

use std::path::Path;

use tenure::clock::Clock;
use tenure::config::check_text;
use tenure::server::Gateway;
use tenure::session::{Moment, Span};
use tenure::store::{Filter, SessionView, StateFilter};

use crate::support::app::{App, PASSWORD, Switches};
use crate::support::browser::{Browser, Page};
use crate::support::tls::Certificate;

/// When every test begins.
pub(crate) const START: Moment = Moment::from_unix_ms(1_750_000_000_000);

/// One hour idle, eight hours in all, two sessions at most, users by the app's response header.
pub(crate) const POLICY: &str =
    "[policy]\nidle_timeout = \"1h\"\nforce_relogin = \"8h\"\nmax_concurrent = 2\n";

/// Users as the app names them.
pub(crate) const BY_HEADER: &str = "[[app.identity]]\nfrom = \"response-header\"\nuser = \"X-Session-User\"\ntenant = \"X-Session-Tenant\"\nroles = \"X-Session-Roles\"\n";

/// Users as the form of the sign-in names them.
pub(crate) const BY_FORM: &str = "[[app.identity]]\nfrom = \"login-form\"\npath = \"/login\"\nuser = \"username\"\nsuccess = { status = [302, 303], location_not = \"/login*\" }\n";

/// A gateway with its app.
pub(crate) struct World {
    pub app: App,
    pub gateway: Gateway,
    pub clock: Clock,
}

impl World {
    /// The usual gateway: login known, users by response header, [`POLICY`].
    pub(crate) async fn new() -> Self {
        Self::with(|s| s.identity_headers = true, "", BY_HEADER, POLICY).await
    }

    /// A gateway whose `[[app]]` holds `app_lines`, followed by `identity`, and whose file ends with `rest`.
    pub(crate) async fn with(
        habits: impl FnOnce(&mut Switches),
        app_lines: &str,
        identity: &str,
        rest: &str,
    ) -> Self {
        Self::from_text(habits, |upstream| config_text(upstream, app_lines, identity, rest)).await
    }

    /// A gateway with a configuration of one's own.
    pub(crate) async fn from_text(
        habits: impl FnOnce(&mut Switches),
        text: impl FnOnce(&str) -> String,
    ) -> Self {
        let app = App::with(habits).await;
        let clock = Clock::manual(START);
        let text = text(&app.url());
        let config = check_text("test.toml", &text, Path::new("."))
            .unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        let gateway = Gateway::start(config, clock.clone()).expect("the gateway starts");
        Self { app, gateway, clock }
    }

    /// The process ends, and another one starts with this configuration; `browsers` find it where the old one was.
    pub(crate) async fn restart(&mut self, text: &str, browsers: &[&Browser]) {
        // What keeps the sessions is one gateway's alone: the old one must be gone before the next opens it.
        let nothing =
            check_text("test.toml", &config_text(&self.app.url(), "", "", ""), Path::new(".")).unwrap();
        let stand_in = Gateway::start(nothing, self.clock.clone()).expect("the gateway starts");
        drop(std::mem::replace(&mut self.gateway, stand_in));
        let config = check_text("test.toml", text, Path::new(".")).unwrap_or_else(|f| panic!("{f}\n{text}"));
        self.gateway = Gateway::start(config, self.clock.clone()).expect("the gateway starts again");
        for browser in browsers {
            browser.resolve("app.localhost", self.gateway.http.unwrap());
            browser.hang_up().await;
        }
    }

    /// A browser of its own.
    pub(crate) fn browser(&self) -> Browser {
        Browser::at(self.gateway.http.expect("plain HTTP"))
    }

    /// A browser on which `user` has just signed in.
    pub(crate) async fn signed_in(&self, user: &str) -> Browser {
        let browser = self.browser();
        sign_in(&browser, user).await;
        browser
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Span::from_secs(seconds));
    }

    /// All sessions that fit `state`.
    pub(crate) fn sessions(&self, state: StateFilter) -> Vec<SessionView> {
        let filter = Filter { state: Some(state), ..Filter::default() };
        self.gateway.table().list(&filter, None, 1000, self.clock.now()).items
    }

    /// The live sessions of `user`.
    pub(crate) fn live_of(&self, user: &str) -> Vec<SessionView> {
        let mut live = self.sessions(StateFilter::Active);
        live.retain(|view| view.identity.as_ref().is_some_and(|identity| identity.user == user));
        live
    }

    /// The one live session of `user`.
    pub(crate) fn only_session_of(&self, user: &str) -> SessionView {
        let mut live = self.live_of(user);
        assert_eq!(live.len(), 1, "{live:?}");
        live.remove(0)
    }

    /// Why the sessions of `user` ended, in the order they began.
    pub(crate) fn ends_of(&self, user: &str) -> Vec<&'static str> {
        let mut ended = self.sessions(StateFilter::Ended);
        ended.retain(|view| view.identity.as_ref().is_some_and(|identity| identity.user == user));
        ended.iter().filter_map(|view| view.end.as_ref()).map(|end| end.reason.as_str()).collect()
    }

    /// What a counter that has no label but the app's name stands at.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = self.gateway.handle().metrics_text();
        let line = format!("{name}{{app=\"app\"}} ");
        let value = text.lines().find_map(|l| l.strip_prefix(line.as_str()));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a whole number")
    }

    /// Ends the one live session of `user` as an operator does, and waits until that is in force.
    pub(crate) async fn revoke(&self, user: &str) {
        let id = self.only_session_of(user).id;
        let session = self.gateway.table().by_id(id).expect("known");
        let reason = tenure::session::EndReason::Revoked;
        assert!(self.gateway.table().end(&session, reason, Some("test".into()), self.clock.now()));
        assert!(self.gateway.handle().in_force().await, "the barrier was passed");
    }
}

/// A configuration on port 0.
pub(crate) fn config_text(upstream: &str, app_lines: &str, identity: &str, rest: &str) -> String {
    format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nworkers = 2\n[store]\npath = \"off\"\n[drain]\ndelay = \"0s\"\ntimeout = \"5s\"\n\
         [[app]]\nname = \"app\"\nupstream = \"{upstream}\"\ncookie = \"SID\"\nlogin = \"/login\"\nlogout = \"/logout\"\n\
         {app_lines}\n{identity}\n{rest}\n"
    )
}

/// In place of `workers = 2`: the same with HTTPS on port 0.
pub(crate) fn https_lines(folder: &tempfile::TempDir, certificate: &Certificate) -> String {
    let (cert, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    std::fs::write(&cert, &certificate.cert_pem).unwrap();
    std::fs::write(&key, &certificate.key_pem).unwrap();
    format!(
        "workers = 2\nhttps = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]\n",
        cert.display(),
        key.display()
    )
}

/// Signs `user` in by the app's own form; panics unless the app then knows them.
pub(crate) async fn sign_in(browser: &Browser, user: &str) {
    let page = post_login(browser, user).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(who(browser).await.as_deref(), Some(user), "signed in");
}

/// Submits the sign-in form and follows where it leads.
pub(crate) async fn post_login(browser: &Browser, user: &str) -> Page {
    browser.post_form("/login", &[("username", user), ("password", PASSWORD)]).await
}

/// Whom the app takes the browser for, asked through the gateway by a script; `None` when it is nobody or refused.
pub(crate) async fn who(browser: &Browser) -> Option<String> {
    let page = browser.fetch("/me").await;
    if page.status != 200 {
        return None;
    }
    page.json()["user"].as_str().map(str::to_owned)
}
