//! URLs as a browser reads them (the part of the WHATWG rules that redirects depend on).

use std::fmt;
use std::net::IpAddr;

/// An `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: String,
    /// The host, in lower case.
    pub host: String,
    /// The port, also when it is the scheme's own.
    pub port: u16,
    /// Path and query, without fragment.
    pub target: String,
}

impl Url {
    /// Reads an absolute URL; `None` for one that a browser would not navigate to over HTTP.
    pub fn parse(text: &str) -> Option<Self> {
        let text = cleaned(text);
        let (scheme, rest) = split_scheme(&text)?;
        Self::after_scheme(&scheme, rest)
    }

    /// Reads what a link or a `Location` on this page says.
    pub fn join(&self, reference: &str) -> Option<Self> {
        let reference = cleaned(reference);
        if let Some((scheme, rest)) = split_scheme(&reference) {
            return Self::after_scheme(&scheme, rest);
        }
        // In these schemes a browser takes a backslash for a slash: `/\evil` is another host.
        let (path, query) = reference.find('?').map_or((&*reference, ""), |at| reference.split_at(at));
        let path = path.replace('\\', "/");
        if path.starts_with("//") {
            return Self::after_scheme(&self.scheme, &format!("{path}{query}"));
        }
        let base = self.path();
        let path = match (path.is_empty(), path.starts_with('/')) {
            (true, _) if query.is_empty() => return Some(self.clone()),
            (true, _) => base.to_owned(),
            (false, true) => path,
            (false, false) => format!("{}/{path}", base.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Some(Self { target: format!("{}{query}", without_dots(&path)), ..self.clone() })
    }

    fn after_scheme(scheme: &str, rest: &str) -> Option<Self> {
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let rest = rest.trim_start_matches(['/', '\\']);
        let end = rest.find(['/', '\\', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, own_port),
        };
        if host.is_empty() {
            return None;
        }
        let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
        let target = format!("{}{query}", without_dots(&path.replace('\\', "/")));
        Some(Self { scheme: scheme.to_owned(), host: host.to_ascii_lowercase(), port, target })
    }

    /// The path alone.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// Host, and port when it is not the scheme's own: the `Host` header.
    pub fn authority(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Scheme, host and port: the `Origin` header.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority())
    }

    /// Whether browsers trust the connection with `Secure` cookies: HTTPS, and the machine itself.
    pub fn is_trustworthy(&self) -> bool {
        self.scheme == "https"
            || self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether both belong to one site: scheme and registrable domain (the last two labels, or the address).
    pub fn same_site(&self, other: &Self) -> bool {
        self.scheme == other.scheme && site_of(&self.host) == site_of(&other.host)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.target)
    }
}

fn site_of(host: &str) -> &str {
    if host.parse::<IpAddr>().is_ok() {
        return host;
    }
    host.rmatch_indices('.').nth(1).map_or(host, |(at, _)| &host[at + 1..])
}

/// Without surrounding blanks, without tabs and line ends anywhere, without fragment; what a URL cannot hold is
/// percent-encoded.
fn cleaned(text: &str) -> String {
    let text = text.trim_matches(|c: char| c <= ' ');
    let text = text.split('#').next().unwrap_or_default();
    let mut clean = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')) {
        if c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>') {
            clean.push(c);
        } else {
            let mut utf8 = [0; 4];
            clean.extend(c.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    clean
}

fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let first = scheme.chars().next()?;
    let valid =
        first.is_ascii_alphabetic() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    valid.then(|| (scheme.to_ascii_lowercase(), rest))
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        let last = at + 1 == segments.len();
        match plain.as_str() {
            "." | ".." => {
                if plain == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}
