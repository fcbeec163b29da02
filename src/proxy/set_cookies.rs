//! What a response sets: its `Set-Cookie` fields as the gateway reads and, where needed, withholds them.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::SET_COOKIE;

use super::headers::holds;
use super::site::AppSite;
use crate::session::chunks::join_set;
use crate::session::cookie::{Attributes, SetCookie, read_set_cookie};
use crate::session::profile::{CookieKind, CookieRule, rule_for};
use crate::session::record::{CookieShape, NewToken};
use crate::session::{Moment, TokenKey};
use crate::store::Table;

/// A configured cookie that the response sets or deletes; of several fields for one cookie the last (FIELD F4). To a
/// browser a cookie is its name, domain and path together: an app may delete one of an old path and set a new one.
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
    /// All others, for the sources that read them, and the chunks of configured cookies.
    others: Vec<SetCookie>,
}

impl ResponseCookies {
    /// Reads the fields. `path` is the request's, for cookies without a `Path`.
    #[must_use]
    pub(super) fn read(app: &AppSite, table: &Table, headers: &HeaderMap, path: &str, now: Moment) -> Self {
        let mut cookies = Self::default();
        // As it is of most answers.
        if !holds(headers, &SET_COOKIE) {
            return cookies;
        }
        for field in headers.get_all(SET_COOKIE) {
            match read_set_cookie(field.as_bytes(), path, now) {
                Some(set) => cookies.push(app, set),
                // A session may have begun that nobody follows (FIELD F26).
                None => app.metrics.set_cookie_unreadable(&app.config.name),
            }
        }
        // ORDER: after all fields, for a cookie's chunks may come before it or after it.
        cookies.find_keys(app, table, now);
        cookies
    }

    fn push(&mut self, app: &AppSite, set: SetCookie) {
        let rule = rule_for(&app.config.cookies, set.name.as_bytes());
        let Some((_, rule)) = rule.filter(|(_, rule)| rule.chunk_of(set.name.as_bytes()).is_none()) else {
            self.others.retain(|other| !is_same_cookie(other, &set));
            self.others.push(set);
            return;
        };
        self.configured.retain(|other| !is_same_cookie(&other.set, &set));
        self.configured.push(Configured { kind: rule.kind, key: None, set });
    }

    fn find_keys(&mut self, app: &AppSite, table: &Table, now: Moment) {
        for cookie in &mut self.configured {
            let name = cookie.set.name.as_bytes();
            let rule = rule_for(&app.config.cookies, name);
            let id = rule.and_then(|(_, rule)| join_set(rule, &cookie.set, &self.others));
            cookie.key = id.map(|id| app.keys.find(table, name, &id, now).key);
        }
    }

    /// The value to which the response sets the cookie `name`; `None` when it does not, or deletes it.
    /// SECURITY: secret.
    #[must_use]
    pub(super) fn value_of(&self, name: &str) -> Option<Cow<'_, str>> {
        let all = self.configured.iter().map(|c| &c.set).chain(&self.others);
        let value = all.filter(|set| set.name == name && !set.deletes).map(|set| &set.value).next()?;
        let bare = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        Some(String::from_utf8_lossy(bare))
    }

    /// Whether it sets a session cookie to a value.
    #[must_use]
    pub(super) fn sets_session(&self) -> bool {
        self.session_key().is_some()
    }

    /// The key of the session cookie's new value.
    #[must_use]
    pub(super) fn session_key(&self) -> Option<TokenKey> {
        self.session_keys().next()
    }

    /// The keys of all values to which it sets session cookies.
    pub(super) fn session_keys(&self) -> impl Iterator<Item = TokenKey> {
        self.configured.iter().filter(|c| c.kind == CookieKind::Session).filter_map(|c| c.key)
    }

    /// Whether it deletes a session cookie; see [`Self::deleted`].
    #[must_use]
    pub(super) fn deletes_session(&self, held: &[Arc<CookieShape>]) -> bool {
        self.deleted(held).any(|c| c.kind == CookieKind::Session)
    }

    /// The configured cookies that it deletes and sets to nothing else. Of a cookie among those `held`, the field has to
    /// name its domain and path: a browser deletes no other.
    fn deleted(&self, held: &[Arc<CookieShape>]) -> impl Iterator<Item = &Configured> {
        self.configured.iter().filter(move |cookie| {
            let name = &cookie.set.name;
            let lives = self.configured.iter().any(|other| other.set.name == *name && other.key.is_some());
            let mut known = held.iter().filter(|shape| shape.name == *name).peekable();
            !lives && (known.peek().is_none() || known.any(|s| is_same_place(&s.attributes, &cookie.set)))
        })
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

    /// Names of the configured cookies that it deletes; see [`Self::deleted`].
    pub(super) fn deleted_names(&self, held: &[Arc<CookieShape>]) -> impl Iterator<Item = &str> {
        self.deleted(held).map(|c| c.set.name.as_str())
    }

    /// `name=value` pairs as a browser would send them back, deletions first; for asking the app who they are.
    /// SECURITY: secret.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let all = || self.configured.iter().map(|c| &c.set).chain(&self.others);
        let deleted = all().filter(|set| set.deletes).map(|set| (set.name.as_str(), None));
        let set = all().filter(|set| !set.deletes).map(|set| (set.name.as_str(), Some(set.value.as_slice())));
        deleted.chain(set)
    }
}

fn is_same_cookie(a: &SetCookie, b: &SetCookie) -> bool {
    a.name == b.name && is_same_place(&a.attributes, b)
}

fn is_same_place(attributes: &Attributes, set: &SetCookie) -> bool {
    attributes.domain == set.attributes.domain && attributes.path == set.attributes.path
}

/// The rule of the cookie that a `Set-Cookie` field sets.
pub(super) fn rule_of<'a>(app: &'a AppSite, field: &http::HeaderValue) -> Option<&'a CookieRule> {
    let name = field.as_bytes().split(|b| matches!(b, b'=' | b';')).next().unwrap_or_default();
    rule_for(&app.config.cookies, name.trim_ascii()).map(|(_, rule)| rule)
}

/// Removes the fields that set configured cookies: what a response to an ended session brings must not reach the
/// browser (FIELD F7). All other fields stay as they are, byte for byte.
pub(super) fn withhold(app: &AppSite, headers: &mut HeaderMap) {
    let kept: Vec<_> =
        headers.get_all(SET_COOKIE).iter().filter(|field| rule_of(app, field).is_none()).cloned().collect();
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
