//! What is known of an app's cookies: which names are tokens, and what part of a value is the id.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A cookie of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieRule {
    /// Which names it covers.
    pub name: NamePattern,
    /// What the cookie is to the app.
    pub kind: CookieKind,
    /// How the id is taken out of the value.
    pub extract: Extract,
}

/// What a configured cookie is to the app. Stores keep the variants by their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CookieKind {
    /// It carries the session.
    Session,
    /// Another cookie that signs a browser in again (remember-me). A token of its own, dying with its session (R3).
    Companion,
}

/// A cookie name, or a prefix of names (`"remember_web_*"`). Names are compared byte for byte, as browsers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// Every name that starts so.
    Prefix(String),
}

impl NamePattern {
    /// Reads the configuration's form: `*` at the end makes a prefix.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Whether `name` is covered.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }

    /// Whether `name` is covered when case is ignored.
    #[must_use]
    pub fn matches_any_case(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes().eq_ignore_ascii_case(name),
            Self::Prefix(prefix) => {
                name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
            }
        }
    }

    /// The fixed part of the name.
    #[must_use]
    pub fn stem(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }
}

impl CookieRule {
    /// Whether the cookie `name` belongs to this rule: a cookie that it names, or a chunk of one.
    #[must_use]
    pub fn covers(&self, name: &[u8]) -> bool {
        self.name.matches(name) || self.chunk_of(name).is_some()
    }

    /// As [`Self::covers`], when case is ignored.
    #[must_use]
    pub fn covers_any_case(&self, name: &[u8]) -> bool {
        let chunk = || split_chunk(name).filter(|_| self.extract == Extract::Chunked);
        self.name.matches_any_case(name) || chunk().is_some_and(|(base, _)| self.name.matches_any_case(base))
    }

    /// The base name and the number, from 1, when `name` is a chunk of a cookie of this rule: `NameC1`, `NameC2`.
    #[must_use]
    pub fn chunk_of<'n>(&self, name: &'n [u8]) -> Option<(&'n [u8], usize)> {
        let (base, number) = split_chunk(name).filter(|_| self.extract == Extract::Chunked)?;
        self.name.matches(base).then_some((base, number))
    }
}

/// Splits `NameC12` into `Name` and 12. Case is ignored, as ASP.NET ignores it; a number with a leading zero is none, as
/// the app asks for `C1` by that very name.
fn split_chunk(name: &[u8]) -> Option<(&[u8], usize)> {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (head, number) = name.split_at(name.len() - digits);
    let base = head.strip_suffix(b"C").or_else(|| head.strip_suffix(b"c"))?;
    if base.is_empty() || number.first().is_none_or(|first| *first == b'0') {
        return None;
    }
    Some((base, std::str::from_utf8(number).ok()?.parse().ok()?))
}

/// How the id is taken out of a cookie's value. In every form quotes and escapes are no part of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extract {
    /// The value is the id.
    Whole,
    /// Servlet containers append the route of the node, `id.node1`; a failover changes it and not the session (F3).
    WithoutRoute,
    /// The value is the id, unless it says `chunks-N`: then the id stands in the cookies `NameC1` to `NameCN` (F2).
    /// [`chunks`](super::chunks) joins them.
    Chunked,
}

/// Names that begin so are written by a `ChunkingCookieManager`: ASP.NET Core (`CookieAuthenticationDefaults.CookiePrefix`)
/// and OWIN on ASP.NET (`CookieAuthenticationDefaults.CookiePrefix` of Katana).
const CHUNKED_FAMILIES: [&str; 2] = [".AspNetCore.", ".AspNet."];

impl Extract {
    /// The usual form for a cookie of this name.
    #[must_use]
    pub fn for_name(name: &str) -> Self {
        if name.eq_ignore_ascii_case("JSESSIONID") {
            Self::WithoutRoute
        } else if CHUNKED_FAMILIES.iter().any(|family| name.starts_with(family)) {
            Self::Chunked
        } else {
            Self::Whole
        }
    }

    /// The id within `value`, in the form in which tokens are compared; empty when there is none.
    #[must_use]
    pub fn id(self, value: &[u8]) -> Cow<'_, [u8]> {
        let mut text = text_of(value);
        let route = match self {
            Self::Whole | Self::Chunked => None,
            Self::WithoutRoute => memchr::memchr(b'.', &text),
        };
        if let Some(at) = route {
            match &mut text {
                Cow::Borrowed(text) => *text = &text[..at],
                Cow::Owned(text) => text.truncate(at),
            }
        }
        text
    }
}

/// What a cookie's value says to those who decode it: without surrounding quotes and what these escape (Python), and without
/// percent escapes (Express, PHP, Rack, ASP.NET Core). Who sends another spelling of a value means the same token, be it
/// alive or dead; it is forwarded as sent, and an app that decodes nothing finds nothing by it.
pub(super) fn text_of(value: &[u8]) -> Cow<'_, [u8]> {
    let text = match value {
        [b'"', inner @ .., b'"'] if inner.contains(&b'\\') => Cow::Owned(unescaped(inner)),
        [b'"', inner @ .., b'"'] => Cow::Borrowed(inner),
        other => Cow::Borrowed(other),
    };
    match memchr::memchr(b'%', &text) {
        Some(_) => Cow::Owned(percent_encoding::percent_decode(&text).collect()),
        None => text,
    }
}

/// `\072` is a byte in octal digits, `\x` is `x`.
fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    loop {
        let octal = match rest {
            [b'\\', digits @ ..] => digits.get(..3).and_then(octal),
            _ => None,
        };
        match (octal, rest) {
            (Some(byte), _) => {
                text.push(byte);
                rest = &rest[4..];
            }
            (None, [b'\\', byte, after @ ..] | [byte, after @ ..]) => {
                text.push(*byte);
                rest = after;
            }
            (None, []) => return text,
        }
    }
}

fn octal(digits: &[u8]) -> Option<u8> {
    let plain = digits.iter().all(|byte| (b'0'..=b'7').contains(byte));
    std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| u8::from_str_radix(text, 8).ok())
}

/// The rule that covers `name`, be it a cookie or a chunk of one, with its index.
#[must_use]
pub fn rule_for<'a>(rules: &'a [CookieRule], name: &[u8]) -> Option<(usize, &'a CookieRule)> {
    rules.iter().enumerate().find(|(_, rule)| rule.covers(name))
}

/// The name of the gateway's own cookie for the app `app` with custody `vault`, over https. The prefix makes a browser
/// refuse it from anybody but this host over TLS (RFC 6265bis section 4.1.3.2).
#[must_use]
pub fn vault_cookie_https(app: &str) -> String {
    format!("__Host-{}", vault_cookie_http(app))
}

/// The same over plain http, where a browser takes no cookie with a `__Host-` prefix.
#[must_use]
pub fn vault_cookie_http(app: &str) -> String {
    format!("tenure-{app}")
}

/// Attributes that are added to the app's session cookies on their way to the browser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harden {
    /// Adds `Secure`.
    pub secure: bool,
    /// Adds `HttpOnly`.
    pub http_only: bool,
    /// Sets `SameSite`.
    pub same_site: Option<SameSite>,
}

impl Harden {
    /// Whether nothing is added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A value of the `SameSite` attribute (RFC 6265bis section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with navigations from other sites.
    Lax,
    /// Sent within the site alone.
    Strict,
    /// Sent everywhere; browsers take it with `Secure` only.
    None,
}

impl SameSite {
    /// As `Set-Cookie` writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_out_of_values() {
        for (extract, value, id) in [
            (Extract::Whole, "abc.node1", "abc.node1"),
            (Extract::Whole, "\"abc\"", "abc"),
            (Extract::WithoutRoute, "abc.node1", "abc"),
            (Extract::WithoutRoute, "\"abc.node2\"", "abc"),
            (Extract::WithoutRoute, "", ""),
            (Extract::WithoutRoute, "a%62c%2Enode1", "abc"),
            (Extract::Whole, "s%3Aabc.%73ig", "s:abc.sig"),
            (Extract::Whole, "100%", "100%"),
            (Extract::Whole, "\"a\\054b\\\"c\\400\\\"", "a,b\"c400\\"),
            (Extract::Whole, "a\\054b", "a\\054b"),
        ] {
            assert_eq!(extract.id(value.as_bytes()), id.as_bytes(), "{value}");
        }
    }

    #[test]
    fn chunks_are_told_by_their_names() {
        let rule = |name: &str| CookieRule {
            name: NamePattern::parse(name),
            kind: CookieKind::Session,
            extract: Extract::for_name(name),
        };
        let cookies = rule(".AspNetCore.Cookies");
        assert_eq!(
            cookies.chunk_of(b".AspNetCore.CookiesC12"),
            Some((b".AspNetCore.Cookies".as_slice(), 12))
        );
        for other in
            [".AspNetCore.Cookies", ".AspNetCore.CookiesC", ".AspNetCore.CookiesC01", ".AspNetCore.C1"]
        {
            assert_eq!(cookies.chunk_of(other.as_bytes()), None, "{other}");
        }
        assert!(
            cookies.covers_any_case(b".aspnetcore.cookiesc1") && !cookies.covers(b".aspnetcore.cookiesc1")
        );
        assert_eq!(rule("sid").chunk_of(b"sidC1"), None, "only such cookies are chunked");
        assert!(rule_for(&[cookies], b".AspNetCore.CookiesC1").is_some());
    }

    #[test]
    fn the_vault_s_cookie_bears_the_name_of_the_app() {
        assert_eq!(vault_cookie_https("crm"), "__Host-tenure-crm");
        assert_eq!(vault_cookie_http("crm"), "tenure-crm");
    }

    #[test]
    fn a_star_at_the_end_makes_a_prefix() {
        assert!(NamePattern::parse("remember_web_*").matches(b"remember_web_59ba"));
        assert!(!NamePattern::parse("sid").matches(b"sid2"));
        assert!(!NamePattern::parse("sid").matches(b"SID"));
        assert!(NamePattern::parse("sid").matches_any_case(b"SID"));
    }
}
