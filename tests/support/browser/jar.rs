//! The cookie jar, with a browser's rules: RFC 6265bis, section 5.7 and 5.8, and what Chromium adds.

use std::net::IpAddr;

use super::cookie::{SameSite, SetCookie};
use super::url::Url;

/// Chromium's bound for one domain; the oldest go first.
const MOST_PER_DOMAIN: usize = 180;
/// Suffixes of more than one label under which strangers have their names; single labels count anyway.
const PUBLIC_SUFFIXES: [&str; 5] = ["co.uk", "com.au", "github.io", "co.jp", "org.uk"];

/// Where a request comes from, as far as `SameSite` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The site itself, or the address bar.
    SameSite,
    /// A link or a redirecting form on another site, by a safe method.
    CrossSiteNavigation,
    /// Anything else of another site.
    CrossSite,
}

/// A stored cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// The domain it goes to.
    pub domain: String,
    /// It goes to that host alone, not below it.
    pub host_only: bool,
    /// The path it goes to and below.
    pub path: String,
    /// Only over connections that are trusted.
    pub secure: bool,
    /// Not shown to scripts.
    pub http_only: bool,
    /// Kept apart for the site it was met on.
    pub partitioned: bool,
    same_site: SameSite,
    expires: Option<i64>,
    created: u64,
}

impl Stored {
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.domain == other.domain
            && self.host_only == other.host_only
            && self.path == other.path
            && self.partitioned == other.partitioned
    }

    fn goes_to_host(&self, host: &str) -> bool {
        if self.host_only { self.domain == host } else { domain_matches(host, &self.domain) }
    }

    fn allows(&self, from: From) -> bool {
        match from {
            From::SameSite => true,
            From::CrossSiteNavigation => self.same_site != SameSite::Strict,
            From::CrossSite => self.same_site == SameSite::None,
        }
    }
}

/// All cookies of one browser.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    cookies: Vec<Stored>,
    created: u64,
}

impl Jar {
    /// Learns one `Set-Cookie` line of an answer from `url` at `now` (seconds since the epoch). Tells whether it was
    /// obeyed: stored, or a cookie deleted.
    pub fn learn(&mut self, url: &Url, line: &[u8], now: i64) -> bool {
        let Some(parsed) = SetCookie::parse(line, now) else { return false };
        let Some(mut cookie) = placed(url, parsed) else { return false };
        if !url.is_trustworthy() && self.shadows_a_secure_one(&cookie) {
            return false;
        }
        self.created += 1;
        cookie.created = self.created;
        if let Some(at) = self.cookies.iter().position(|old| old.is_same(&cookie)) {
            cookie.created = self.cookies.remove(at).created;
        }
        if cookie.expires.is_none_or(|at| at > now) {
            self.cookies.push(cookie);
            self.keep_bound();
        }
        true
    }

    /// A plain connection may not lay a cookie over a secure one.
    fn shadows_a_secure_one(&self, cookie: &Stored) -> bool {
        self.cookies.iter().any(|old| {
            old.secure
                && old.name == cookie.name
                && (domain_matches(&cookie.domain, &old.domain)
                    || domain_matches(&old.domain, &cookie.domain))
                && path_matches(&cookie.path, &old.path)
        })
    }

    fn keep_bound(&mut self) {
        let Some(domain) = self.cookies.last().map(|cookie| cookie.domain.clone()) else { return };
        if self.cookies.iter().filter(|cookie| cookie.domain == domain).count() > MOST_PER_DOMAIN {
            let oldest = self.cookies.iter().filter(|c| c.domain == domain).map(|c| c.created).min();
            self.cookies.retain(|cookie| Some(cookie.created) != oldest);
        }
    }

    /// The cookies that a request to `url` carries, in the order of the header.
    pub fn matching(&self, url: &Url, from: From, now: i64) -> Vec<&Stored> {
        let trusted = url.is_trustworthy();
        let mut matching: Vec<_> = self
            .cookies
            .iter()
            .filter(|cookie| cookie.expires.is_none_or(|at| at > now))
            .filter(|cookie| cookie.goes_to_host(&url.host) && path_matches(url.path(), &cookie.path))
            .filter(|cookie| (trusted || !cookie.secure) && cookie.allows(from))
            .collect();
        matching.sort_by_key(|cookie| (usize::MAX - cookie.path.len(), cookie.created));
        matching
    }

    /// The pairs of the `Cookie` header for a request to `url`, as bytes.
    pub fn pairs(&self, url: &Url, from: From, now: i64) -> Vec<Vec<u8>> {
        self.matching(url, from, now).into_iter().map(pair).collect()
    }

    /// What a script on the page reads from `document.cookie`.
    pub fn document_cookie(&self, url: &Url, now: i64) -> String {
        let visible = self.matching(url, From::SameSite, now).into_iter().filter(|cookie| !cookie.http_only);
        visible
            .map(|cookie| String::from_utf8_lossy(&pair(cookie)).into_owned())
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Everything stored, expired or not.
    pub fn all(&self) -> &[Stored] {
        &self.cookies
    }

    /// Closes the browser: what has no expiry goes.
    pub fn end_browser_session(&mut self) {
        self.cookies.retain(|cookie| cookie.expires.is_some());
    }

    /// Deletes everything.
    pub fn clear(&mut self) {
        self.cookies.clear();
    }
}

fn pair(cookie: &Stored) -> Vec<u8> {
    let text = match cookie.name.as_str() {
        "" => cookie.value.clone(),
        name => format!("{name}={}", cookie.value),
    };
    // Every char came from one byte, so it fits.
    text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
}

/// Gives a parsed cookie its place, or refuses it.
fn placed(url: &Url, cookie: SetCookie) -> Option<Stored> {
    let trusted = url.is_trustworthy();
    if (cookie.secure && !trusted) || (cookie.partitioned && !cookie.secure) {
        return None;
    }
    if cookie.same_site == SameSite::None && !cookie.secure {
        return None;
    }
    if !prefix_holds(&cookie) {
        return None;
    }
    let (domain, host_only) = match cookie.domain {
        None => (url.host.clone(), true),
        Some(domain) if domain == url.host && is_public_suffix(&domain) => (domain, true),
        Some(domain) if is_public_suffix(&domain) || !domain_matches(&url.host, &domain) => return None,
        Some(domain) => (domain, false),
    };
    Some(Stored {
        name: cookie.name,
        value: cookie.value,
        domain,
        host_only,
        path: cookie.path.unwrap_or_else(|| default_path(url.path())),
        secure: cookie.secure,
        http_only: cookie.http_only,
        partitioned: cookie.partitioned,
        same_site: cookie.same_site,
        expires: cookie.expires,
        created: 0,
    })
}

fn prefix_holds(cookie: &SetCookie) -> bool {
    let has =
        |text: &str, prefix: &str| text.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix));
    if cookie.name.is_empty() {
        return !has(&cookie.value, "__Secure-") && !has(&cookie.value, "__Host-");
    }
    let secure = !has(&cookie.name, "__Secure-") || cookie.secure;
    let host = !has(&cookie.name, "__Host-")
        || (cookie.secure && cookie.domain.is_none() && cookie.path.as_deref() == Some("/"));
    secure && host
}

fn is_public_suffix(domain: &str) -> bool {
    !domain.contains('.') || PUBLIC_SUFFIXES.contains(&domain)
}

fn domain_matches(host: &str, domain: &str) -> bool {
    host == domain
        || (host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
            && host.parse::<IpAddr>().is_err())
}

fn path_matches(path: &str, cookie_path: &str) -> bool {
    match path.strip_prefix(cookie_path) {
        Some(rest) => rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

fn default_path(path: &str) -> String {
    match path.rfind('/') {
        Some(at) if at > 0 => path[..at].to_owned(),
        _ => "/".to_owned(),
    }
}
