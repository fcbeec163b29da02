//! A browser's cookie jar, kept for one session in the gateway (`custody = "vault"`): RFC 6265bis, as values.
//!
//! What the rules for a browser are for stays the same: which cookie answers which, for which path and host. Two of them
//! have no place here. There is no list of public suffixes, because a jar holds the cookies of one app, which could only
//! set them for its own hosts; a `Domain` of a single label is refused. And `SameSite` is judged by the browser on our own
//! cookie (`Lax`), without which no jar is opened.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::cookie::{SetCookie, read_set_cookie};
use super::{Moment, Span};

/// Most bytes of a cookie's name and value together (RFC 6265bis section 5.6).
const MAX_PAIR_BYTES: usize = 4096;

/// Most bytes of an attribute's value (RFC 6265bis section 5.6).
const MAX_ATTRIBUTE_BYTES: usize = 1024;

/// Most cookies of one jar: what Chromium keeps for a domain (`kDomainMaxCookies`).
const MAX_COOKIES: usize = 180;

/// The longest that a cookie is kept (RFC 6265bis section 5.5).
const LONGEST_KEPT: Span = Span::from_secs(400 * 24 * 3600);

/// What a cookie costs besides its texts.
const FIXED_BYTES: usize = 64;

/// Where a response came from, or a request goes: as the browser asked.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Lower case, without port.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// Over https, or to the browser's own machine, which browsers trust as much.
    pub secure: bool,
}

impl<'a> Site<'a> {
    /// The site of a request for `path` on `host`, over https or not.
    #[must_use]
    pub fn new(host: &'a str, path: &'a str, https: bool) -> Self {
        Self { host, path, secure: https || is_own_machine(host) }
    }
}

/// Whether the host, lower case and without port, is the browser's own machine.
#[must_use]
pub fn is_own_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What became of a `Set-Cookie` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The cookie is in the jar.
    Set,
    /// It was removed, or was never there.
    Deleted,
    /// A browser would take no notice of the field.
    Ignored,
    /// It does not fit; the jar is as it was.
    Full,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    name: Box<str>,
    /// SECURITY: secret.
    value: Zeroizing<Vec<u8>>,
    domain: Box<str>,
    host_only: bool,
    path: Box<str>,
    secure: bool,
    expires: Option<Moment>,
    /// Grows with each new cookie; a replaced one keeps its place (section 5.7).
    order: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        FIXED_BYTES + self.name.len() + self.value.len() + self.domain.len() + self.path.len()
    }

    fn is_over(&self, now: Moment) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The cookie that a browser would replace.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.domain == other.domain
            && self.host_only == other.host_only
            && self.path == other.path
    }

    /// Nobody saw how it was set: it stands for whatever the app means by this name, and goes wherever its jar goes.
    fn is_adopted(&self) -> bool {
        self.domain.is_empty()
    }

    fn goes_to(&self, site: &Site<'_>, now: Moment) -> bool {
        let host = match self.host_only {
            true => self.is_adopted() || *self.domain == *site.host,
            false => domain_matches(site.host, &self.domain),
        };
        host && path_matches(site.path, &self.path) && (site.secure || !self.secure) && !self.is_over(now)
    }
}

/// The cookies of one session. SECURITY: what it is serialized to is secret, and leaves the process encrypted alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jar {
    cookies: Vec<Kept>,
    next: u64,
}

/// SECURITY: names alone (law 10).
impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.cookies.iter().map(|cookie| &cookie.name)).finish()
    }
}

impl Jar {
    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// What it takes of `limits.jar_bytes`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cookies.iter().map(Kept::bytes).sum()
    }

    /// Stores one `Set-Cookie` field, as a browser would (section 5.7), within `limit` bytes in all.
    pub fn store(&mut self, field: &[u8], site: &Site<'_>, now: Moment, limit: usize) -> Stored {
        let Some(cookie) = read(field, site, now) else { return Stored::Ignored };
        if self.guards_a_secure_one(&cookie, site) {
            return Stored::Ignored;
        }
        if !cookie.is_adopted() {
            self.cookies.retain(|other| !(other.is_adopted() && other.name == cookie.name));
        }
        self.add(cookie, now, limit)
    }

    /// Stores a cookie that a browser brought, of which nobody knows how it was set. The next one of its name that the app
    /// sets, wherever, takes its place, and so does a deletion.
    pub fn adopt(&mut self, pair: &[u8], site: &Site<'_>, now: Moment, limit: usize) -> Stored {
        let attributes = if site.secure { b"; Path=/; Secure".as_slice() } else { b"; Path=/" };
        let Some(cookie) = read(&[pair, attributes].concat(), site, now) else { return Stored::Ignored };
        self.add(Kept { domain: "".into(), ..cookie }, now, limit)
    }

    fn add(&mut self, cookie: Kept, now: Moment, limit: usize) -> Stored {
        let known = self.cookies.iter().position(|other| other.is_same(&cookie));
        if cookie.is_over(now) {
            if let Some(index) = known {
                self.cookies.remove(index);
            }
            return Stored::Deleted;
        }
        let freed = known.map_or(0, |index| self.cookies[index].bytes());
        if self.bytes() - freed + cookie.bytes() > limit {
            self.cookies.retain(|other| !other.is_over(now));
            let freed = self.cookies.iter().find(|other| other.is_same(&cookie)).map_or(0, Kept::bytes);
            if self.bytes() - freed + cookie.bytes() > limit {
                return Stored::Full;
            }
        }
        self.put(cookie, now);
        Stored::Set
    }

    fn put(&mut self, cookie: Kept, now: Moment) {
        if let Some(known) = self.cookies.iter_mut().find(|other| other.is_same(&cookie)) {
            *known = Kept { order: known.order, ..cookie };
            return;
        }
        let order = self.next;
        self.next += 1;
        self.cookies.push(Kept { order, ..cookie });
        if self.cookies.len() > MAX_COOKIES {
            self.cookies.retain(|other| !other.is_over(now));
        }
        // Insecure ones first, then the oldest (section 5.7).
        let evicted = self.cookies.iter().enumerate().min_by_key(|(_, other)| (other.secure, other.order));
        if let (true, Some((index, _))) = (self.cookies.len() > MAX_COOKIES, evicted) {
            self.cookies.remove(index);
        }
    }

    /// "Leave secure cookies alone": what comes without TLS must not overlay what came with it.
    fn guards_a_secure_one(&self, cookie: &Kept, site: &Site<'_>) -> bool {
        let overlays = |other: &Kept| {
            other.secure
                && other.name == cookie.name
                && (domain_matches(&other.domain, &cookie.domain)
                    || domain_matches(&cookie.domain, &other.domain))
                && path_matches(&cookie.path, &other.path)
        };
        !cookie.secure && !site.secure && self.cookies.iter().any(overlays)
    }

    /// The `Cookie` header for `site` (section 5.8.3): longer paths first, then what was set first. SECURITY: secret.
    #[must_use]
    pub fn header(&self, site: &Site<'_>, now: Moment) -> Option<Vec<u8>> {
        let mut chosen: Vec<&Kept> = self.cookies.iter().filter(|cookie| cookie.goes_to(site, now)).collect();
        chosen.sort_by_key(|cookie| (std::cmp::Reverse(cookie.path.len()), cookie.order));
        let mut header = Vec::new();
        for cookie in chosen {
            if !header.is_empty() {
                header.extend_from_slice(b"; ");
            }
            header.extend_from_slice(cookie.name.as_bytes());
            header.push(b'=');
            header.extend_from_slice(&cookie.value);
        }
        (!header.is_empty()).then_some(header)
    }

    /// Names and values of all that has not expired, wherever it goes. SECURITY: secret.
    pub fn iter(&self, now: Moment) -> impl Iterator<Item = (&[u8], &[u8])> {
        let present = self.cookies.iter().filter(move |cookie| !cookie.is_over(now));
        present.map(|cookie| (cookie.name.as_bytes(), cookie.value.as_slice()))
    }

    /// Whether one of the cookies that `wanted` names outlives the browser's session.
    #[must_use]
    pub fn is_persistent(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.cookies.iter().any(|cookie| cookie.expires.is_some() && wanted(cookie.name.as_bytes()))
    }

    /// The host that set its cookies, and whether one of them was set over TLS; `None` where nobody saw any being set for a host
    /// alone.
    #[must_use]
    pub fn origin(&self) -> Option<(&str, bool)> {
        let host = self.cookies.iter().find(|cookie| cookie.host_only && !cookie.is_adopted())?;
        Some((&host.domain, self.cookies.iter().any(|cookie| cookie.secure)))
    }

    /// Removes what `doomed` names.
    pub fn remove(&mut self, doomed: impl Fn(&[u8]) -> bool) {
        self.cookies.retain(|cookie| !doomed(cookie.name.as_bytes()));
    }
}

/// What a field sets; `None` where a browser would ignore it. One that deletes has expired.
fn read(field: &[u8], site: &Site<'_>, now: Moment) -> Option<Kept> {
    let set = read_set_cookie(field, site.path, now)?;
    let path_is_said = field.split(|b| *b == b';').skip(1).any(|part| {
        let name = part.split(|b| *b == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"path")
    });
    if set.name.len() + set.value.len() > MAX_PAIR_BYTES || set.attributes.path.len() > MAX_ATTRIBUTE_BYTES {
        return None;
    }
    let domain = set.attributes.domain.as_deref().map(str::to_ascii_lowercase).filter(|d| d != site.host);
    let named = set.attributes.domain.is_some() && !is_ip(site.host);
    if domain.as_deref().is_some_and(|domain| !domain.contains('.') || !domain_matches(site.host, domain)) {
        return None;
    }
    let secure = set.attributes.secure;
    if (secure && !site.secure) || !prefix_holds(&set, named, path_is_said) {
        return None;
    }
    Some(Kept {
        host_only: !named,
        domain: domain.as_deref().unwrap_or(site.host).into(),
        path: set.attributes.path.into_boxed_str(),
        secure,
        expires: set.expires.map(|at| at.min(now.plus(LONGEST_KEPT))),
        name: set.name.into_boxed_str(),
        value: Zeroizing::new(set.value),
        order: 0,
    })
}

/// What a name promises about how the cookie was set (section 5.7, steps 20 and 21).
fn prefix_holds(set: &SetCookie, domain_is_said: bool, path_is_said: bool) -> bool {
    let begins =
        |prefix: &str| set.name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let secure = set.attributes.secure;
    let own_host = secure && !domain_is_said && path_is_said && set.attributes.path == "/";
    (!begins("__Secure-") || secure) && (!begins("__Host-") || own_host)
}

/// Section 5.1.3.
fn domain_matches(host: &str, domain: &str) -> bool {
    host == domain || (!is_ip(host) && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

fn is_ip(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok()
}

/// Section 5.1.4.
fn path_matches(path: &str, cookie: &str) -> bool {
    path.strip_prefix(cookie)
        .is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Moment::from_unix_ms(1_750_000_000_000);

    fn site(url: &str) -> Site<'_> {
        let (scheme, rest) = url.split_once("://").unwrap();
        let at = rest.find('/').unwrap_or(rest.len());
        let path = if at == rest.len() { "/" } else { &rest[at..] };
        Site::new(&rest[..at], path, scheme == "https")
    }

    fn jar(set: &[(&str, &str)]) -> Jar {
        let mut jar = Jar::default();
        for (url, field) in set {
            jar.store(field.as_bytes(), &site(url), NOW, usize::MAX);
        }
        jar
    }

    fn sent(jar: &Jar, url: &str) -> String {
        String::from_utf8(jar.header(&site(url), NOW).unwrap_or_default()).unwrap()
    }

    const A: &str = "https://www.a.example/dir/page";

    #[test]
    fn what_the_app_sets_takes_the_place_of_what_was_adopted() {
        for field in ["sid=new; Domain=a.example; Path=/", "sid=new; Path=/dir", "sid=new", "sid=; Max-Age=0"]
        {
            let mut jar = Jar::default();
            assert_eq!(jar.adopt(b"sid=old", &site(A), NOW, usize::MAX), Stored::Set);
            assert_eq!(jar.adopt(b"__Host-x=1", &site(A), NOW, usize::MAX), Stored::Set);
            assert!(sent(&jar, A).contains("sid=old"));
            jar.store(field.as_bytes(), &site(A), NOW, usize::MAX);
            assert!(!sent(&jar, A).contains("old"), "{field}");
            assert!(sent(&jar, A).contains("__Host-x=1"));
        }
    }

    #[test]
    fn cookies_go_where_a_browser_sends_them() {
        for (set, url, expected) in [
            (&[(A, "a=1")][..], "https://www.a.example/dir/other", "a=1"),
            (&[(A, "a=1")], "https://www.a.example/other", ""),
            (&[(A, "a=1; Path=/")], "https://www.a.example/", "a=1"),
            (&[(A, "a=1; Path=/")], "https://a.example/", ""),
            (&[(A, "a=1; Path=/")], "https://x.www.a.example/", ""),
            (&[(A, "a=1; Path=/; Domain=a.example")], "https://a.example/", "a=1"),
            (&[(A, "a=1; Path=/; Domain=.A.Example")], "https://x.a.example/", "a=1"),
            (&[(A, "a=1; Path=/; Domain=www.a.example")], "https://x.www.a.example/", "a=1"),
            (&[(A, "a=1; Path=/; Domain=b.example")], "https://www.a.example/", ""),
            (&[(A, "a=1; Path=/; Domain=x.www.a.example")], "https://www.a.example/", ""),
            (&[(A, "a=1; Path=/; Domain=example")], "https://www.a.example/", ""),
            (&[(A, "a=1; Path=/; Domain=w.a.example")], "https://www.a.example/", ""),
            (&[(A, "a=1; Path=/foo")], "https://www.a.example/foo", "a=1"),
            (&[(A, "a=1; Path=/foo")], "https://www.a.example/foo/bar", "a=1"),
            (&[(A, "a=1; Path=/foo")], "https://www.a.example/foobar", ""),
            (&[(A, "a=1; Path=/foo/")], "https://www.a.example/foo", ""),
            (&[(A, "a=1; Path=relative")], "https://www.a.example/dir/x", "a=1"),
            (&[(A, "a=1; Path=/; Secure")], "http://www.a.example/", ""),
            (&[("http://www.a.example/", "a=1; Secure")], A, ""),
            (&[("http://app.localhost/", "a=1; Secure")], "http://app.localhost/", "a=1"),
            (&[("http://127.0.0.1/", "a=1; Secure; Domain=127.0.0.1")], "http://127.0.0.1/", "a=1"),
            (&[("https://10.0.0.1/", "a=1; Domain=0.0.1")], "https://10.0.0.1/", ""),
            (&[(A, "a=; Path=/")], A, "a="),
            (&[(A, "a=\"q; Path=/")], A, "a=\"q"),
        ] {
            assert_eq!(sent(&jar(set), url), expected, "{set:?} {url}");
        }
    }

    #[test]
    fn the_last_one_wins_and_keeps_its_place() {
        let set =
            [(A, "a=1; Path=/"), (A, "b=2; Path=/"), (A, "c=3"), (A, "a=4; Path=/"), (A, "a=5; Path=/dir")];
        assert_eq!(sent(&jar(&set), A), "c=3; a=5; a=4; b=2");
        let set = [(A, "a=1; Path=/"), (A, "a=2; Path=/; Domain=www.a.example")];
        assert_eq!(sent(&jar(&set), A), "a=1; a=2", "host-only and not are two cookies");
    }

    #[test]
    fn what_has_expired_is_gone() {
        for (field, expected) in [
            ("a=2; Path=/; Max-Age=0", ""),
            ("a=2; Path=/; Max-Age=-1", ""),
            ("a=2; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ""),
            ("a=2; Path=/; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a=2"),
            ("a=2; Path=/other; Max-Age=0", "a=1"),
            ("a=; Path=/", "a="),
        ] {
            assert_eq!(sent(&jar(&[(A, "a=1; Path=/"), (A, field)]), A), expected, "{field}");
        }
        let kept = jar(&[(A, "a=1; Path=/; Max-Age=60"), (A, "b=1; Path=/; Max-Age=99999999999")]);
        let after = |seconds| {
            let header = kept.header(&site(A), NOW.plus(Span::from_secs(seconds)));
            String::from_utf8(header.unwrap_or_default()).unwrap()
        };
        assert_eq!([after(59), after(60)], ["a=1; b=1", "b=1"]);
        assert_eq!(after(400 * 24 * 3600), "", "nothing is kept longer");
        assert!(kept.is_persistent(|name| name == b"a") && !kept.is_persistent(|name| name == b"c"));
    }

    #[test]
    fn names_with_a_prefix_keep_what_they_promise() {
        for (url, field, stored) in [
            (A, "__Secure-a=1", Stored::Ignored),
            (A, "__Secure-a=1; Secure", Stored::Set),
            (A, "__Host-a=1; Secure; Path=/", Stored::Set),
            (A, "__host-a=1; Secure; Path=/dir", Stored::Ignored),
            (A, "__Host-a=1; Secure; Path=/; Domain=www.a.example", Stored::Ignored),
            ("https://www.a.example/", "__Host-a=1; Secure", Stored::Ignored),
            (A, "a\u{1}=1", Stored::Ignored),
            (A, "nothing", Stored::Ignored),
        ] {
            assert_eq!(Jar::default().store(field.as_bytes(), &site(url), NOW, 9999), stored, "{field}");
        }
    }

    #[test]
    fn without_tls_nothing_overlays_a_secure_cookie() {
        let plain = "http://www.a.example/dir/page";
        for (field, expected) in [
            ("a=2; Path=/", "a=1"),
            ("a=2; Path=/dir", "a=1"),
            ("a=2; Path=/; Domain=a.example", "a=1"),
            ("b=2; Path=/", "a=1; b=2"),
        ] {
            assert_eq!(sent(&jar(&[(A, "a=1; Path=/; Secure"), (plain, field)]), A), expected, "{field}");
        }
    }

    #[test]
    fn a_jar_has_bounds() {
        let mut jar = Jar::default();
        assert_eq!(
            jar.store(&[b"a=".as_slice(), &[b'x'; 5000]].concat(), &site(A), NOW, 65536),
            Stored::Ignored
        );
        for n in 0..300 {
            assert_eq!(jar.store(format!("c{n}=1").as_bytes(), &site(A), NOW, 65536), Stored::Set);
        }
        assert_eq!((jar.cookies.len(), &*jar.cookies[0].name), (MAX_COOKIES, "c120"));
        let before = jar.clone();
        assert_eq!(jar.store(b"big=x", &site(A), NOW, jar.bytes()), Stored::Full);
        assert_eq!(jar, before);
    }

    #[test]
    fn values_never_show() {
        assert_eq!(format!("{:?}", jar(&[(A, "sid=secret")])), "{\"sid\"}");
    }

    fn fields() -> impl Strategy<Value = (usize, String)> {
        let attributes = prop_oneof![
            Just(""),
            Just("; Path=/"),
            Just("; Path=/a"),
            Just("; Path=/a/b"),
            Just("; Max-Age=0"),
            Just("; Path=/; Max-Age=0"),
            Just("; Path=/; Max-Age=50"),
        ];
        (0..3_usize, 0..3_u8, 0..100_u8, attributes)
            .prop_map(|(url, name, value, attributes)| (url, format!("n{name}={value}{attributes}")))
    }

    proptest! {
        #[test]
        fn a_jar_is_a_list_of_which_the_last_counts(fields in prop::collection::vec(fields(), 0..40)) {
            let urls = ["https://a.example/", "https://a.example/a/x", "https://a.example/a/b/x"];
            let mut jar = Jar::default();
            let mut model: Vec<((String, String), Option<String>)> = Vec::new();
            for (url, field) in &fields {
                jar.store(field.as_bytes(), &site(urls[*url]), NOW, usize::MAX);
                let (pair, attributes) = field.split_once(';').unwrap_or((field, ""));
                let (name, value) = pair.split_once('=').unwrap();
                let path = attributes.split("Path=").nth(1).map_or(["/", "/a", "/a/b"][*url], |p| p.split(';').next().unwrap());
                let key = (name.to_owned(), path.to_owned());
                let value = (!attributes.contains("Max-Age=0")).then(|| value.to_owned());
                match model.iter_mut().find(|(known, _)| *known == key) {
                    // A cookie that was deleted and set again is a new one.
                    Some((_, known)) if known.is_some() => *known = value,
                    Some(_) | None => {
                        model.retain(|(known, _)| *known != key);
                        model.push((key, value));
                    }
                }
            }
            for url in urls {
                let path = site(url).path;
                let mut expected: Vec<_> = model.iter().filter(|((_, p), v)| v.is_some() && path_matches(path, p)).collect();
                expected.sort_by_key(|((_, p), _)| std::cmp::Reverse(p.len()));
                let expected: Vec<_> = expected.iter().map(|((n, _), v)| format!("{n}={}", v.as_ref().unwrap())).collect();
                prop_assert_eq!(sent(&jar, url), expected.join("; "));
            }
        }

        #[test]
        fn no_field_breaks_a_jar_or_its_bound(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let mut jar = Jar::default();
            for field in &fields {
                jar.store(field, &site(A), NOW, 400);
                prop_assert!(jar.bytes() <= 400);
                if let Some(header) = jar.header(&site(A), NOW) {
                    prop_assert!(!header.iter().any(|b| *b == b'\r' || *b == b'\n' || *b == 0));
                }
            }
        }
    }
}
