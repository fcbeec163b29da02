//! Custody of an app's cookies (`custody = "vault"`): they stay in the gateway, in a [`Jar`] for each session, and the
//! browser holds one cookie of ours, which is worth nothing once its session has ended.
//!
//! For apps whose cookie is the session itself, or changes with every answer (Rails, Laravel, Flask, ASP.NET Core): a
//! copy of such a cookie would outlive every end. What a browser may hold all the same is named by `pass_cookies`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::config::{App, Custody};
use crate::session::cookie::{Attributes, RequestCookies, read_set_cookie, setting};
use crate::session::jar::{Jar, Site, Stored};
use crate::session::lesson::Cookies;
use crate::session::profile::{self, CookieKind, CookieRule, Extract, NamePattern};
use crate::session::record::CookieShape;
use crate::session::{Moment, Span};
use crate::store::random_bytes;

/// Entropy of our cookie's value, in bytes.
const VALUE_BYTES: usize = 32;

/// The longest that browsers keep a cookie (RFC 6265bis section 5.5).
const LONGEST_KEPT: Span = Span::from_secs(400 * 24 * 3600);

/// What one app's vault needs to know.
pub struct Vault {
    /// Our cookie's rule, followed by the app's own: over http and over https.
    presented: [Vec<CookieRule>; 2],
    /// The app's cookies that carry its session, and its companions.
    own: Vec<CookieRule>,
    pass: Vec<NamePattern>,
    /// Most bytes of one jar.
    limit: usize,
}

/// What a response leaves in a jar.
pub struct Kept {
    /// The jar after it.
    pub jar: Jar,
    /// What it does to the cookies that carry the app's session.
    pub cookies: Cookies,
    /// Its cookies do not fit into the jar.
    pub full: bool,
    /// It sets a cookie of the configuration that a browser would refuse (`Secure` without https, another's `Domain`).
    pub refused: bool,
}

impl Kept {
    /// What it does to the session of the request, or to a browser without one: there every cookie that is to be kept needs
    /// a session to be kept in.
    #[must_use]
    pub fn change_for(&self, has_session: bool) -> Cookies {
        match self.cookies {
            Cookies::Untouched if !has_session && !self.jar.is_empty() => Cookies::Fresh,
            cookies => cookies,
        }
    }

    /// Whether whom the app names may have signed in by it: on a browser without a session only where the app begins one.
    #[must_use]
    pub fn is_of_session(&self, has_session: bool) -> bool {
        has_session || self.cookies == Cookies::Fresh
    }
}

/// A value of our cookie that nobody has seen yet. SECURITY: secret.
pub struct Minted {
    /// The cookie's name and attributes.
    pub shape: CookieShape,
    /// Its value.
    pub value: Zeroizing<String>,
}

impl Vault {
    /// The vault of `app`; `None` when its cookies are tracked.
    #[must_use]
    pub fn of(app: &App, limit: usize) -> Option<Self> {
        if app.custody == Custody::Track {
            return None;
        }
        let rules = |name: String| {
            let own = CookieRule {
                name: NamePattern::Exact(name),
                kind: CookieKind::Session,
                extract: Extract::Whole,
            };
            std::iter::once(own).chain(app.cookies.iter().cloned()).collect()
        };
        Some(Self {
            presented: [
                rules(profile::vault_cookie_http(&app.name)),
                rules(profile::vault_cookie_https(&app.name)),
            ],
            own: app.cookies.clone(),
            pass: app.pass_cookies.clone(),
            limit,
        })
    }

    /// What to look for in a request: ours first ([`Self::is_ours`]), then what only the app may set.
    #[must_use]
    pub fn presented(&self, https: bool) -> &[CookieRule] {
        &self.presented[usize::from(https)]
    }

    /// Whether the rule with this index of [`Self::presented`] is that of our cookie.
    #[must_use]
    pub const fn is_ours(rule: usize) -> bool {
        rule == 0
    }

    /// Whether the cookie `name` is the browser's to hold.
    #[must_use]
    pub fn passes(&self, name: &[u8]) -> bool {
        self.pass.iter().any(|pattern| pattern.matches(name))
    }

    /// The `Cookie` header for the app: what the jar sends, then what passes of the browser's own.
    #[must_use]
    pub fn header(
        &self,
        cookies: &RequestCookies<'_>,
        jar: Option<&Jar>,
        site: &Site<'_>,
        now: Moment,
    ) -> Option<Vec<u8>> {
        let kept = jar.and_then(|jar| jar.header(site, now));
        let passing = cookies.named(|name| self.passes(name));
        match (kept, passing) {
            (Some(kept), Some(passing)) => Some([&kept, b"; ".as_slice(), &passing].concat()),
            (kept, passing) => kept.or(passing),
        }
    }

    /// What the browser holds itself of a `Cookie` header that was meant for the app.
    #[must_use]
    pub fn stripped(&self, cookie: Option<&[u8]>) -> Option<Vec<u8>> {
        RequestCookies::parse(cookie.into_iter(), &self.own).named(|name| self.passes(name))
    }

    /// What the response's cookies leave of `before`, as a browser would keep them.
    ///
    /// On the app's log-out (`logs_out`) a deletion means the cookie of that name however it was set.
    #[must_use]
    pub fn keep(
        &self,
        before: Option<&Jar>,
        headers: &HeaderMap,
        logs_out: bool,
        site: &Site<'_>,
        now: Moment,
    ) -> Kept {
        let mut jar = before.cloned().unwrap_or_default();
        let stored = self.store(&mut jar, headers, site, now);
        if logs_out {
            self.forget_deleted(&mut jar, headers, site, now);
        }
        let is_new = |name: &[u8], value: &[u8]| {
            before.is_none_or(|b| b.iter(now).all(|known| known != (name, value)))
        };
        let is_fresh = |name: &[u8], value: &[u8]| self.is_token(name, value) && is_new(name, value);
        let fresh = jar.iter(now).any(|(name, value)| is_fresh(name, value));
        let deleted = before.is_some_and(|before| self.loses(before, &jar, now));
        let cookies = match (fresh, deleted) {
            (true, _) => Cookies::Fresh,
            (false, true) => Cookies::Deleted,
            (false, false) => Cookies::Untouched,
        };
        Kept { jar, cookies, full: stored == Stored::Full, refused: stored == Stored::Ignored }
    }

    /// Whether the jar holds a value of a cookie that carries the app's session.
    #[must_use]
    pub fn carries(&self, jar: &Jar, now: Moment) -> bool {
        jar.iter(now).any(|(name, value)| self.is_token(name, value))
    }

    /// Whether some configured cookie carries the app's session in `before`, and none of its rule does so in `after`: of several
    /// that an app has, each signs in (a ticket beside the id of a session), and without one of them nobody is signed in.
    fn loses(&self, before: &Jar, after: &Jar, now: Moment) -> bool {
        let carrying = |jar: &Jar, rule: &CookieRule| {
            jar.iter(now).any(|(name, value)| rule.covers(name) && self.is_token(name, value))
        };
        self.own.iter().any(|rule| carrying(before, rule) && !carrying(after, rule))
    }

    fn forget_deleted(&self, jar: &mut Jar, headers: &HeaderMap, site: &Site<'_>, now: Moment) {
        for field in headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes) {
            let deleted =
                read_set_cookie(field, site.path, now).filter(|set| set.deletes).map(|set| set.name);
            let deleted = deleted.filter(|name| profile::rule_for(&self.own, name.as_bytes()).is_some());
            if let Some(deleted) = deleted {
                jar.remove(|name| name == deleted.as_bytes());
            }
        }
    }

    /// Stores what the response sets. Returns what became of all of it: that it does not fit, else that one of the app's own
    /// cookies is one that a browser would refuse.
    pub fn store(&self, jar: &mut Jar, headers: &HeaderMap, site: &Site<'_>, now: Moment) -> Stored {
        let mut outcome = Stored::Set;
        for field in headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes) {
            let name = name_of(field);
            if self.passes(name) {
                continue;
            }
            outcome = match (jar.store(field, site, now, self.limit), outcome) {
                (Stored::Full, _) | (_, Stored::Full) => Stored::Full,
                (Stored::Ignored, _) if profile::rule_for(&self.own, name).is_some() => Stored::Ignored,
                (Stored::Set | Stored::Deleted | Stored::Ignored, so_far) => so_far,
            };
        }
        outcome
    }

    /// A jar with the cookies that a browser brought from before the roll-out. Nobody saw how they were set. `None` where
    /// they do not fit, or do not carry the app's session.
    #[must_use]
    pub fn adopt(&self, cookie: &[u8], site: &Site<'_>, now: Moment) -> Option<Jar> {
        let mut jar = Jar::default();
        for pair in cookie.split(|b| *b == b';').map(<[u8]>::trim_ascii) {
            if !self.passes(name_of(pair)) && jar.adopt(pair, site, now, self.limit) == Stored::Full {
                return None;
            }
        }
        self.carries(&jar, now).then_some(jar)
    }

    /// Takes the app's cookies out of an answer for the browser; what passes stays, byte for byte.
    pub fn take_out(&self, headers: &mut HeaderMap) {
        let fields = headers.get_all(SET_COOKIE).iter();
        let passing: Vec<_> = fields.filter(|f| self.passes(name_of(f.as_bytes()))).cloned().collect();
        headers.remove(SET_COOKIE);
        for field in passing {
            headers.append(SET_COOKIE, field);
        }
    }

    /// What is left of a jar after a log-out: nothing that could sign the browser in again.
    pub fn forget_sign_in(&self, jar: &mut Jar) {
        jar.remove(|name| profile::rule_for(&self.own, name).is_some());
    }

    /// Whether this is a value that can carry the app's session; an empty one is how some apps delete it.
    fn is_token(&self, name: &[u8], value: &[u8]) -> bool {
        let is_session =
            || profile::rule_for(&self.own, name).is_some_and(|(_, rule)| rule.kind == CookieKind::Session);
        value.iter().any(|byte| *byte != b'"') && is_session()
    }

    /// A new value of our cookie.
    #[must_use]
    pub fn mint(&self, https: bool) -> Minted {
        let name = self.presented[usize::from(https)].first().map(|rule| rule.name.stem().to_owned());
        let attributes = Attributes {
            path: "/".to_owned(),
            secure: https,
            http_only: true,
            same_site: Some("Lax".to_owned()),
            ..Attributes::default()
        };
        let value = Zeroizing::new(URL_SAFE_NO_PAD.encode(random_bytes::<VALUE_BYTES>()));
        Minted { shape: CookieShape { name: name.unwrap_or_default(), attributes }, value }
    }

    /// How long the browser is to keep our cookie: for its own session where the app's cookies are for that. Otherwise
    /// as long as it can: beyond the session's deadline, or nobody could be told of the end, which deletes it.
    #[must_use]
    pub fn max_age(&self, jar: &Jar) -> Option<Span> {
        let persists = jar.is_persistent(|name| profile::rule_for(&self.own, name).is_some());
        persists.then_some(LONGEST_KEPT)
    }
}

impl Minted {
    /// The `Set-Cookie` field. SECURITY: secret.
    #[must_use]
    pub fn field(&self, max_age: Option<Span>) -> Option<HeaderValue> {
        let mut text = Zeroizing::new(setting(&self.shape.name, &self.value, &self.shape.attributes));
        if let Some(age) = max_age {
            text.push_str(&format!("; Max-Age={}", age.as_ms() / 1000));
        }
        HeaderValue::from_str(&text).ok()
    }
}

/// The name of the first pair of a `Cookie` or `Set-Cookie` field.
fn name_of(field: &[u8]) -> &[u8] {
    let pair = field.split(|b| *b == b';').next().unwrap_or_default();
    pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii()
}
