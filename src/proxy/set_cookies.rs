//! What a response sets: its `Set-Cookie` fields as the gateway reads and, where needed, withholds them.

use http::HeaderMap;
use http::header::SET_COOKIE;

use super::site::AppSite;
use crate::session::cookie::{SetCookie, read_set_cookie};
use crate::session::profile::{CookieKind, rule_for};
use crate::session::record::{CookieShape, NewToken};
use crate::session::{Moment, TokenKey};
use crate::store::Table;

/// A configured cookie that the response sets or deletes; of several fields with one name the last (FIELD F4).
pub(super) struct Configured {
    /// What the cookie is to the app.
    pub kind: CookieKind,
    /// The key of its value; `None` when the field deletes the cookie.
    pub key: Option<TokenKey>,
    set: SetCookie,
}

/// All that a response sets.
#[derive(Default)]
pub(super) struct ResponseCookies {
    /// Session cookies and companions.
    pub configured: Vec<Configured>,
    /// All others, for the sources that read them.
    others: Vec<SetCookie>,
}

impl ResponseCookies {
    /// Reads the fields. `path` is the request's, for cookies without a `Path`.
    #[must_use]
    pub(super) fn read(app: &AppSite, headers: &HeaderMap, path: &str, now: Moment) -> Self {
        let mut cookies = Self::default();
        for field in headers.get_all(SET_COOKIE) {
            if let Some(set) = read_set_cookie(field.as_bytes(), path, now) {
                cookies.push(app, set);
            }
        }
        cookies
    }

    fn push(&mut self, app: &AppSite, set: SetCookie) {
        let Some((_, rule)) = rule_for(&app.config.cookies, set.name.as_bytes()) else {
            self.others.retain(|other| other.name != set.name);
            self.others.push(set);
            return;
        };
        let id = rule.extract.id(set.value.as_bytes());
        let key = (!set.deletes && !id.is_empty()).then(|| app.hasher.key(set.name.as_bytes(), id));
        self.configured.retain(|other| other.set.name != set.name);
        self.configured.push(Configured { kind: rule.kind, key, set });
    }

    /// The value to which the response sets the cookie `name`; `None` when it does not, or deletes it.
    /// SECURITY: secret.
    #[must_use]
    pub(super) fn value_of(&self, name: &str) -> Option<&str> {
        let all = self.configured.iter().map(|c| &c.set).chain(&self.others);
        all.filter(|set| set.name == name && !set.deletes).map(|set| set.value.trim_matches('"')).next()
    }

    /// Whether it sets a session cookie to a value.
    #[must_use]
    pub(super) fn sets_session(&self) -> bool {
        self.configured.iter().any(|c| c.kind == CookieKind::Session && c.key.is_some())
    }

    /// The key of the session cookie's new value.
    #[must_use]
    pub(super) fn session_key(&self) -> Option<TokenKey> {
        self.configured.iter().filter(|c| c.kind == CookieKind::Session).find_map(|c| c.key)
    }

    /// Whether it deletes a session cookie.
    #[must_use]
    pub(super) fn deletes_session(&self) -> bool {
        self.configured.iter().any(|c| c.kind == CookieKind::Session && c.key.is_none())
    }

    /// The tokens that it sets.
    #[must_use]
    pub(super) fn tokens(&self, table: &Table) -> Vec<NewToken> {
        let token = |c: &Configured| {
            let shape = CookieShape { name: c.set.name.clone(), attributes: c.set.attributes.clone() };
            Some(NewToken { key: c.key?, kind: c.kind, shape: table.intern(shape) })
        };
        self.configured.iter().filter_map(token).collect()
    }

    /// Names of the configured cookies that it deletes.
    pub(super) fn deleted_names(&self) -> impl Iterator<Item = &str> {
        self.configured.iter().filter(|c| c.key.is_none()).map(|c| c.set.name.as_str())
    }

    /// `name=value` pairs as a browser would send them back; for asking the app who they are. SECURITY: secret.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let all = self.configured.iter().map(|c| &c.set).chain(&self.others);
        all.map(|set| (set.name.as_str(), (!set.deletes).then_some(set.value.as_str())))
    }
}

/// Removes the fields that set configured cookies: what a response to an ended session brings must not reach the
/// browser (FIELD F7). All other fields stay as they are, byte for byte.
pub(super) fn withhold(app: &AppSite, headers: &mut HeaderMap) {
    let kept: Vec<_> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter(|field| {
            let name = field.as_bytes().split(|b| matches!(b, b'=' | b';')).next().unwrap_or_default();
            rule_for(&app.config.cookies, name.trim_ascii()).is_none()
        })
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for field in kept {
        headers.append(SET_COOKIE, field);
    }
}

/// Whether the response sets the cookie `name` in any way.
#[must_use]
pub(super) fn sets_name(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(SET_COOKIE).iter().any(|field| {
        let found = field.as_bytes().split(|b| matches!(b, b'=' | b';')).next().unwrap_or_default();
        found.trim_ascii() == name.as_bytes()
    })
}
