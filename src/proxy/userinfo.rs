//! Asks the app who a cookie is (`from = "userinfo"`).
//!
//! Asked after a response to a sign-in, or, where nobody said where signing in happens, when a new value first
//! returns; before that answer goes out, 2 s at most (R8). Where the app could not say, it is asked again. Once for each
//! value and minute over all workers; only a sign-in is always asked about, since an app may sign in by the value that
//! an attempt before could not (law 5). It is no activity, and what it sets joins the answer.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{ACCEPT, COOKIE, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use parking_lot::Mutex;

use super::host::speak_for;
use super::set_cookies::ResponseCookies;
use super::sources::Said;
use super::visit::Visit;
use crate::session::identity::{Names, SourceKind};
use crate::session::{Moment, Span, TokenKey};

/// How long the app may take to say who somebody is.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The largest answer that is read.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A value is asked about once in this time.
const AGAIN_AFTER: Span = Span::from_secs(60);

/// Most values that are remembered as asked about; the oldest go first.
const MAX_ASKED: usize = 100_000;

/// Which values were asked about; shared by all workers.
#[derive(Default)]
pub struct Asked(Mutex<HashMap<TokenKey, Question>>);

struct Question {
    at: Moment,
    /// The app could not say.
    failed: bool,
}

impl Question {
    fn is_recent(&self, now: Moment) -> bool {
        now < self.at.plus(AGAIN_AFTER)
    }
}

impl Asked {
    /// Whether `key` may be asked about now; notes it when so. One caller in a minute gets a yes (single flight).
    pub fn may_ask(&self, key: TokenKey, now: Moment) -> bool {
        let mut asked = self.0.lock();
        if asked.get(&key).is_some_and(|question| question.is_recent(now)) {
            return false;
        }
        if asked.len() >= MAX_ASKED {
            asked.retain(|_, question| question.is_recent(now));
        }
        if asked.len() >= MAX_ASKED {
            return false;
        }
        asked.insert(key, Question { at: now, failed: false });
        true
    }

    /// Notes that the app could not say who `key` is.
    pub(super) fn failed(&self, key: TokenKey) {
        if let Some(question) = self.0.lock().get_mut(&key) {
            question.failed = true;
        }
    }

    /// Whether the app could not say who `key` is when it was asked last.
    fn is_owed(&self, key: TokenKey) -> bool {
        self.0.lock().get(&key).is_some_and(|question| question.failed)
    }
}

/// The request that asks, as the browser of `cookie`.
#[must_use]
pub(super) fn question(visit: &Visit, path: &str, cookie: &[u8]) -> Option<Request<()>> {
    let header = HeaderValue::from_bytes(cookie).ok()?;
    let request = Request::get(path).header(ACCEPT, "application/json").header(COOKIE, header);
    let mut request = request.body(()).ok()?;
    let headers = request.headers_mut();
    speak_for(headers, visit.client_ip, visit.https, &visit.host);
    headers.extend(visit.head.headers.get(USER_AGENT).map(|agent| (USER_AGENT, agent.clone())));
    Some(request)
}

/// The cookies that a browser would send after this response. SECURITY: secret.
#[must_use]
pub(super) fn cookie_after(visit: &Visit, cookies: &ResponseCookies) -> Vec<u8> {
    let mut jar: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let sent = visit.cookie().unwrap_or_default();
    for pair in sent.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        jar.push((pair[..at].to_vec(), pair.get(at + 1..).unwrap_or_default().to_vec()));
    }
    for (name, value) in cookies.pairs() {
        jar.retain(|(known, _)| known != name.as_bytes());
        if let Some(value) = value {
            jar.push((name.as_bytes().to_vec(), value.to_vec()));
        }
    }
    let pairs: Vec<Vec<u8>> =
        jar.iter().map(|(name, value)| [name, b"=".as_slice(), value].concat()).collect();
    pairs.join(b"; ".as_slice())
}

/// Reads the app's answer. An app that does not know the cookie answers 401 or 403, or names nobody.
#[must_use]
pub(super) fn read(status: StatusCode, body: &[u8], names: &Names<jsonptr::PointerBuf>) -> Said {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
        || status.is_redirection()
    {
        return Said::Nobody;
    }
    let Some(document) =
        status.is_success().then(|| serde_json::from_slice::<serde_json::Value>(body).ok()).flatten()
    else {
        return Said::Failed;
    };
    names.read(&document).map_or(Said::Nobody, Said::User)
}

/// A question that is due.
pub(super) struct Due {
    /// The source's index.
    pub index: usize,
    /// Where to ask.
    pub path: String,
    /// The value that is asked about.
    pub value: TokenKey,
}

/// Which userinfo source is to be asked about this response.
#[must_use]
pub(super) fn is_due(visit: &Visit, cookies: &ResponseCookies, asked: &Asked, now: Moment) -> Option<Due> {
    let (index, path) =
        visit.app.config.identity.iter().enumerate().find_map(|(index, source)| match &source.kind {
            SourceKind::UserInfo { path, .. } => Some((index, path.clone())),
            SourceKind::ResponseHeader(_)
            | SourceKind::LoginForm(_)
            | SourceKind::JwtCookie { .. }
            | SourceKind::JwtHeader { .. }
            | SourceKind::Cookie(_)
            | SourceKind::RequestHeader(_) => None,
        })?;
    let fresh = cookies.session_key();
    let carried = visit.session.as_ref().map(|(_, key)| *key);
    let at_sign_in = visit.place == crate::session::gate::Place::SignIn;
    let sign_in_known = !visit.app.config.sign_in.is_empty();
    // The cookies of apps whose cookies are kept here may change with every answer; ours stays until a sign-in.
    let subject = if visit.app.vault.is_some() { carried } else { fresh };
    let value = match (at_sign_in, sign_in_known) {
        (true, _) => fresh.or(carried)?,
        // Nobody said where signing in happens: a value is asked about when it first returns.
        (false, false) => carried.filter(|_| visit.known_source.is_none())?,
        // A new value of a session whose user this source named must name somebody again (R10).
        (false, true) if fresh.is_some() && visit.known_source == Some(index) => subject?,
        // It could not be said at the sign-in.
        (false, true) => carried.filter(|key| visit.known_source.is_none() && asked.is_owed(*key))?,
    };
    let may_ask = asked.may_ask(value, now);
    (at_sign_in || may_ask).then_some(Due { index, path, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names<jsonptr::PointerBuf> {
        let pointer = |text: &str| jsonptr::PointerBuf::parse(text).unwrap();
        Names {
            user: pointer("/user/email"),
            tenant: Some(pointer("/tenant")),
            roles: Some(pointer("/roles")),
        }
    }

    #[test]
    fn answers_are_read() {
        let body = br#"{"user":{"email":"ann@a.example"},"tenant":"acme","roles":["admin","x"]}"#;
        let Said::User(raw) = read(StatusCode::OK, body, &names()) else { panic!("nobody") };
        assert_eq!(
            (raw.user.as_str(), raw.tenant.as_deref(), raw.roles.len()),
            ("ann@a.example", Some("acme"), 2)
        );
        assert_eq!(read(StatusCode::OK, br#"{"user":null}"#, &names()), Said::Nobody);
        assert_eq!(read(StatusCode::UNAUTHORIZED, b"", &names()), Said::Nobody);
        assert_eq!(read(StatusCode::OK, b"<html>", &names()), Said::Failed);
        assert_eq!(read(StatusCode::BAD_GATEWAY, b"", &names()), Said::Failed);
    }

    #[test]
    fn a_value_is_asked_about_once_a_minute() {
        let asked = Asked::default();
        let at = Moment::from_unix_ms(1000);
        assert!(asked.may_ask(TokenKey([1; 16]), at));
        assert!(!asked.may_ask(TokenKey([1; 16]), at.plus(Span::from_secs(59))));
        assert!(!asked.is_owed(TokenKey([1; 16])));
        asked.failed(TokenKey([1; 16]));
        assert!(asked.is_owed(TokenKey([1; 16])));
        assert!(asked.may_ask(TokenKey([1; 16]), at.plus(Span::from_secs(60))));
        assert!(!asked.is_owed(TokenKey([1; 16])), "asked again");
    }
}
