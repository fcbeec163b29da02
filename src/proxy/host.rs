//! The host that a browser asks, and what the gateway tells the app of browser and host.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::headers::BadRequest;
use super::upstream::{Writer, write_line};
use crate::session::fields::{Field, Fields};
use crate::session::jar;

/// Addresses of the browser and of the proxies behind it.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// How the browser came.
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the browser asked.
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The host that a request asks, from `:authority`, an absolute target or `Host`; they must agree (FIELD F20, F21).
///
/// # Errors
/// [`BadRequest::Host`] or [`BadRequest::HostMismatch`].
fn host_of(uri: &Uri, version: Version, fields: &Fields<'_>) -> Result<String, BadRequest> {
    if fields.is_repeated(Field::Host) {
        return Err(BadRequest::Host);
    }
    let field = match fields.first(Field::Host) {
        Some(value) => Some(value.to_str().map_err(|_| BadRequest::Host)?),
        None => None,
    };
    let target = uri.authority().map(http::uri::Authority::as_str);
    let host = match (target, field) {
        (Some(target), Some(field)) if !target.eq_ignore_ascii_case(field) => {
            return Err(BadRequest::HostMismatch);
        }
        (Some(host), _) | (None, Some(host)) => host,
        // HTTP/1.0 may come without one; it is then for the app that serves every host.
        (None, None) if version == Version::HTTP_10 => "",
        (None, None) => return Err(BadRequest::Host),
    };
    let plain =
        host.is_empty() || host.parse::<http::uri::Authority>().is_ok_and(|a| !a.as_str().contains('@'));
    if plain { Ok(host.to_ascii_lowercase()) } else { Err(BadRequest::Host) }
}

/// `host` without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        Some(_) | None => host,
    }
}

/// A host as a browser asked it, with what is derived from it. Made once for a connection, which rarely asks another.
pub(super) struct AskedHost {
    /// As it came in the target and in the field, by which it is known again.
    came: (Option<Box<str>>, Option<Box<[u8]>>),
    /// Lower case, with the port.
    pub name: String,
    /// Without it.
    pub bare: String,
    /// It names the browser's own machine.
    is_own_machine: bool,
    value: HeaderValue,
    peer: HeaderValue,
    forwarded: HeaderValue,
    proto: HeaderValue,
    /// What [`Self::tell`] writes for a stranger.
    lines: Vec<u8>,
}

impl AskedHost {
    /// Reads what a request asks, unless `known` is the same.
    ///
    /// # Errors
    /// As [`host_of`].
    pub(super) fn of(
        uri: &Uri,
        version: Version,
        fields: &Fields<'_>,
        known: Option<&Rc<Self>>,
        (peer, tls): (IpAddr, bool),
    ) -> Result<Rc<Self>, BadRequest> {
        let target = uri.authority().map(http::uri::Authority::as_str);
        let field = fields.first(Field::Host).map(HeaderValue::as_bytes);
        let is_same =
            |known: &&Rc<Self>| (known.came.0.as_deref(), known.came.1.as_deref()) == (target, field);
        let is_told = (target.is_some() || field.is_some()) && !fields.is_repeated(Field::Host);
        if let Some(known) = known.filter(is_same).filter(|_| is_told) {
            return Ok(Rc::clone(known));
        }
        let name = host_of(uri, version, fields)?;
        let peer = peer.to_canonical();
        let proto = if tls { "https" } else { "http" };
        let text = |text: &str| HeaderValue::from_str(text).map_err(|_| BadRequest::Host);
        let (value, forwarded) = (text(&name)?, text(&forwarded_element(peer, &name, proto))?);
        let (peer, proto) = (text(&peer.to_string())?, HeaderValue::from_static(proto));
        let mut lines = Vec::new();
        for (name, own) in [
            (HOST, &value),
            (X_FORWARDED_FOR, &peer),
            (FORWARDED, &forwarded),
            (X_FORWARDED_PROTO, &proto),
            (X_FORWARDED_HOST, &value),
        ] {
            write_line(&name, own.as_bytes(), &mut lines);
        }
        let bare = without_port(&name).to_owned();
        // Copies: what they are taken from is the head that came, with its cookies.
        let came = (target.map(Box::from), field.map(Box::from));
        let is_own_machine = jar::is_own_machine(&bare);
        Ok(Rc::new(Self { came, name, bare, is_own_machine, value, peer, forwarded, proto, lines }))
    }

    /// What a browser's cookie jar goes by, for a request for `path` that came over https or not.
    #[must_use]
    pub(super) fn site<'a>(&'a self, path: &'a str, https: bool) -> jar::Site<'a> {
        jar::Site { host: &self.bare, path, secure: https || self.is_own_machine }
    }

    /// Writes the fields in which the app hears of browser and host: `Host`, `X-Forwarded-*` and `Forwarded` (RFC 7239).
    /// They are appended to what a trusted proxy said, and stand in place of anybody else's. Such a proxy may have said in
    /// `Forwarded` alone that the browser came over `https`.
    pub(super) fn tell(&self, trusted: Option<&HeaderMap>, https: bool, out: &mut Writer) {
        let Some(said) = trusted else { return out.lines(&self.lines) };
        let proto = if https { HeaderValue::from_static("https") } else { self.proto.clone() };
        out.line(&HOST, self.value.as_bytes());
        for (name, own) in [(X_FORWARDED_FOR, &self.peer), (FORWARDED, &self.forwarded)] {
            match joined(said, &name) {
                None => out.line(&name, own.as_bytes()),
                Some(before) => out.line(&name, &[before.as_bytes(), b", ", own.as_bytes()].concat()),
            }
        }
        for (name, own) in [(X_FORWARDED_PROTO, &proto), (X_FORWARDED_HOST, &self.value)] {
            match joined(said, &name) {
                None => out.line(&name, own.as_bytes()),
                Some(before) => out.line(&name, before.as_bytes()),
            }
        }
    }
}

/// All values of a field as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Tells the same in a request of our own in the name of the browser at `client`: apps redirect what came without TLS, and
/// tie sessions to addresses.
pub(super) fn speak_for(headers: &mut HeaderMap, client: IpAddr, https: bool, host: &AskedHost) {
    let proto = if https { "https" } else { "http" };
    let written =
        [(X_FORWARDED_FOR, client.to_string()), (FORWARDED, forwarded_element(client, &host.name, proto))];
    for (name, text) in written {
        headers.extend(HeaderValue::from_str(&text).ok().map(|value| (name, value)));
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_FORWARDED_HOST, host.value.clone());
    headers.insert(HOST, host.value.clone());
}

/// RFC 7239 section 4.
fn forwarded_element(node: IpAddr, host: &str, proto: &str) -> String {
    let node = if node.is_ipv6() { format!("\"[{node}]\"") } else { node.to_string() };
    format!("for={node};host=\"{host}\";proto={proto}")
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;
    use crate::proxy::upstream::Sending;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9));

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    fn ask(
        target: &str,
        hosts: &[&str],
        known: Option<&Rc<AskedHost>>,
        from: (IpAddr, bool),
    ) -> Result<Rc<AskedHost>, BadRequest> {
        let pairs: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let map = headers(&pairs);
        let uri = Request::get(target).body(()).unwrap().uri().clone();
        AskedHost::of(&uri, Version::HTTP_11, &Fields::of(&map), known, from)
    }

    #[test]
    fn one_host_and_one_only() {
        let name = |target: &str, hosts: &[&str]| {
            ask(target, hosts, None, (STRANGER, false)).map(|host| (host.name.clone(), host.bare.clone()))
        };
        assert_eq!(name("/", &["A.example:80"]), Ok(("a.example:80".into(), "a.example".into())));
        assert_eq!(name("http://a.example/", &["a.example"]), Ok(("a.example".into(), "a.example".into())));
        assert_eq!(name("http://b.example/", &["a.example"]), Err(BadRequest::HostMismatch));
        assert_eq!(name("/", &[]), Err(BadRequest::Host));
        assert_eq!(name("/", &["a", "a"]), Err(BadRequest::Host));
        assert_eq!(name("/", &["user@a"]), Err(BadRequest::Host));
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }

    #[test]
    fn what_strangers_say_is_replaced_and_a_proxy_s_word_stands() {
        let host = ask("/", &["A.example"], None, (STRANGER, false)).unwrap();
        let told = |trusted: Option<&HeaderMap>, https| {
            let mut out = Writer::new(&Method::GET, "/");
            host.tell(trusted, https, &mut out);
            String::from_utf8(out.end(Sending::Nothing)).unwrap()
        };
        let own = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 9.9.9.9\r\n\
            Forwarded: for=9.9.9.9;host=\"a.example\";proto=http\r\nX-Forwarded-Proto: http\r\n\
            X-Forwarded-Host: a.example\r\n\r\n";
        assert_eq!(told(None, false), own);
        assert_eq!(told(Some(&HeaderMap::new()), false), own);
        let said = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        let other = headers(&[("forwarded", "for=1.1.1.1;proto=https")]);
        let alone = told(Some(&other), true);
        assert!(alone.contains("\r\nX-Forwarded-Proto: https\r\n"), "{alone}");
        let told = told(Some(&said), true);
        assert!(told.contains("\r\nX-Forwarded-For: 1.1.1.1, 9.9.9.9\r\n"), "{told}");
        assert!(told.contains("\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n"), "{told}");
        assert!(told.contains("\r\nForwarded: for=9.9.9.9;host=\"a.example\";proto=http\r\n"), "{told}");
    }

    #[test]
    fn a_host_is_known_again_only_while_it_stays_the_same() {
        let from = ("2001:db8::9".parse().unwrap(), true);
        let first = ask("/", &["a.example"], None, from).unwrap();
        assert_eq!(first.forwarded, "for=\"[2001:db8::9]\";host=\"a.example\";proto=https");
        assert!(Rc::ptr_eq(&first, &ask("/x", &["a.example"], Some(&first), from).unwrap()));
        assert_eq!(ask("/", &["b.example"], Some(&first), from).unwrap().name, "b.example");
        for (target, hosts) in [("http://b.example/", &["a.example"][..]), ("/", &["a.example", "a.example"])]
        {
            assert!(ask(target, hosts, Some(&first), from).is_err(), "{target} {hosts:?}");
        }
    }
}
