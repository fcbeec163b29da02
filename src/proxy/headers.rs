//! Header operations: framing checks, hop-by-hop fields, forwarding fields, identity fields. Pure, edited in place.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, FORWARDED, HOST, LOCATION, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::session::path::{self, IdParameters};

/// Most addresses of `X-Forwarded-For` that are walked.
const MAX_HOPS: usize = 32;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A request that must not be interpreted: answered 400, and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    /// No `Host`, more than one, or one that is no authority.
    #[error("exactly one Host is needed")]
    Host,
    /// The request target or `:authority` names another host than `Host`.
    #[error("the request target and Host differ")]
    HostMismatch,
    /// `Transfer-Encoding` beside `Content-Length`, or lengths that differ.
    #[error("the length of the body is ambiguous")]
    Framing,
    /// The path cannot be read.
    #[error("the request path is malformed")]
    Path,
    /// A method that a gateway has no business with.
    #[error("the method is not supported")]
    Method,
    /// The head is larger than `limits.header_bytes`.
    #[error("the head of the request is too large")]
    TooLarge,
}

impl BadRequest {
    /// The label in metrics and access lines.
    #[must_use]
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Host => "bad_host",
            Self::HostMismatch => "host_mismatch",
            Self::Framing => "bad_framing",
            Self::Path => "bad_path",
            Self::Method => "bad_method",
            Self::TooLarge => "head_too_large",
        }
    }
}

/// The host that a request asks, from `:authority`, an absolute target or `Host`; they must agree (FIELD F20, F21).
///
/// # Errors
/// [`BadRequest::Host`] or [`BadRequest::HostMismatch`].
fn host_of(request: &Parts) -> Result<String, BadRequest> {
    let mut fields = request.headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (Some(value), None) => Some(value.to_str().map_err(|_| BadRequest::Host)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(BadRequest::Host),
    };
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    let host = match (target, field) {
        (Some(target), Some(field)) if !target.eq_ignore_ascii_case(field) => {
            return Err(BadRequest::HostMismatch);
        }
        (Some(host), _) | (None, Some(host)) => host,
        // HTTP/1.0 may come without one; it is then for the app that serves every host.
        (None, None) if request.version == Version::HTTP_10 => "",
        (None, None) => return Err(BadRequest::Host),
    };
    let plain =
        host.is_empty() || host.parse::<http::uri::Authority>().is_ok_and(|a| !a.as_str().contains('@'));
    if plain { Ok(host.to_ascii_lowercase()) } else { Err(BadRequest::Host) }
}

/// `host` without its port.
#[must_use]
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        Some(_) | None => host,
    }
}

/// Refuses what two parsers could frame differently. hyper refuses most of it before; this holds if it does not.
///
/// # Errors
/// [`BadRequest::Framing`].
pub(super) fn check_framing(headers: &HeaderMap) -> Result<(), BadRequest> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    let differ = lengths.any(|other| Some(other) != first);
    let listed =
        first.is_some_and(|length| length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit));
    let both = first.is_some() && headers.contains_key(TRANSFER_ENCODING);
    if differ || listed || both { Err(BadRequest::Framing) } else { Ok(()) }
}

/// Whether another site's page had the browser send this, by a method that changes something (Fetch Metadata).
#[must_use]
pub(super) fn is_foreign_write(method: &http::Method, headers: &HeaderMap) -> bool {
    let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    foreign && !matches!(*method, http::Method::GET | http::Method::HEAD)
}

/// Whether this is a WebSocket handshake; any other upgrade is ignored (h2c is never spoken upstream).
#[must_use]
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let names = |field: &HeaderName, word: &str| {
        headers.get_all(field).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
        })
    };
    names(&CONNECTION, "upgrade") && names(&UPGRADE, "websocket")
}

/// Removes every field that `doomed` names, in one pass over the few that there are.
fn remove_all(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| doomed(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Fields that concern one connection only (RFC 9110 section 7.6.1), whether `Connection` names them or not.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION].contains(name)
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Fields in which nobody but the gateway speaks.
fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with("tenure-")
}

/// Bytes of a request's head as HTTP/1.1 would write it. The library's own limit counts what it has buffered, which may be
/// more than one head or less.
#[must_use]
pub(super) fn head_bytes(request: &Parts) -> usize {
    let line =
        request.method.as_str().len() + request.uri.path().len() + request.uri.query().map_or(0, str::len);
    let fields = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    line + fields.sum::<usize>()
}

/// Removes the fields that `Connection` names (RFC 9110 section 7.6.1). SECURITY: of a request this comes before
/// anything is read, or the gateway would read another request than the app.
pub(super) fn strip_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let nominated: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A length tells where the message ends, whatever somebody says of it.
        .filter(|name| !is_hop_by_hop(name) && *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

/// Removes hop-by-hop fields and what `also` dooms. `TE: trailers` alone is kept where `keep_te`.
fn strip_hop_by_hop(headers: &mut HeaderMap, keep_te: bool, also: impl Fn(&HeaderName) -> bool) {
    let trailers =
        keep_te && headers.get_all(TE).iter().any(|v| v.to_str().is_ok_and(|t| t.contains("trailers")));
    remove_all(headers, |name| is_hop_by_hop(name) || is_own(name) || also(name));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Prepares the head of a request for HTTP/1.1 upstream: hop-by-hop fields go, `Expect` is answered by the gateway
/// itself, nobody but the gateway speaks in `Tenure-*`.
pub(super) fn prepare_request(headers: &mut HeaderMap, websocket: bool) {
    strip_hop_by_hop(headers, true, |name| *name == EXPECT);
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Prepares the head of an answer for the browser. The trailers that it announces pass.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    // Of an answer in chunks a length says nothing true (RFC 9112 section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let announced: SmallVec<[HeaderValue; 1]> = headers.get_all(TRAILER).iter().cloned().collect();
    strip_nominated(headers);
    strip_hop_by_hop(headers, false, |_| false);
    headers.remove(TRAILER);
    for trailer in announced {
        headers.append(TRAILER, trailer);
    }
}

/// Takes session ids out of the `Location` of an answer: the browser would send them back, and so would whoever gets
/// the address from it.
pub(super) fn strip_location(headers: &mut HeaderMap, host: &str, id_parameters: &IdParameters) {
    let Some(text) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    if let Some(bare) = path::strip_location(text, host, id_parameters)
        && let Ok(value) = HeaderValue::from_str(&bare)
    {
        headers.insert(LOCATION, value);
    }
}

/// Removes from a request's trailers what only its head may say, and what only the gateway may.
pub(super) fn strip_trailers(trailers: &mut HeaderMap, identity: &[HeaderName]) {
    strip_identity(trailers, identity);
    let forbidden = |name: &HeaderName| {
        is_hop_by_hop(name)
            || is_own(name)
            || [AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE]
                .contains(name)
            || [COOKIE, EXPECT, FORWARDED, HOST, MAX_FORWARDS, SET_COOKIE, TRAILER].contains(name)
            || name.as_str().replace('_', "-").starts_with("x-forwarded-")
            || OF_OTHER_PROXIES.contains(&name.as_str())
    };
    remove_all(trailers, forbidden);
}

/// Removes from an answer's trailers what only its head may say: cookies most of all, which are learned from there.
pub(super) fn strip_answer_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| {
        is_hop_by_hop(name) || is_own(name) || [SET_COOKIE, CONTENT_LENGTH].contains(name)
    });
}

/// Joins several `Cookie` fields, which HTTP/2 sends as crumbs, into the one that HTTP/1.1 allows.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = {
        let parts: SmallVec<[&[u8]; 8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&parts.join(b"; ".as_slice()))
    };
    if let Ok(joined) = joined {
        headers.insert(COOKIE, joined);
    }
}

/// Removes identity headers in every spelling: servers read `X_User` and `X-User` alike, and headers that a CGI
/// server turns into variables lose the difference altogether (FIELD F17).
pub(super) fn strip_identity(headers: &mut HeaderMap, names: &[HeaderName]) {
    if names.is_empty() {
        return;
    }
    let same = |a: &str, b: &str| {
        a.len() == b.len()
            && a.bytes()
                .zip(b.bytes())
                .all(|(x, y)| x == y || (matches!(x, b'-' | b'_') && matches!(y, b'-' | b'_')))
    };
    remove_all(headers, |name| names.iter().any(|n| same(n.as_str(), name.as_str())));
}

/// Whether the peer itself is a trusted proxy.
#[must_use]
pub(super) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// Whether the browser came over https: to us, or to the trusted proxy before us, which says so.
#[must_use]
pub(super) fn is_https(headers: &HeaderMap, tls: bool, trusted: bool) -> bool {
    let said = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"https");
    tls || (trusted && (headers.get(X_FORWARDED_PROTO).is_some_and(said) || forwarded_https(headers)))
}

fn forwarded_https(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(FORWARDED).and_then(|value| value.to_str().ok()) else { return false };
    let element = text.split(',').next().unwrap_or_default();
    element.split(';').any(|pair| pair.trim().eq_ignore_ascii_case("proto=https"))
}

/// The client's address: the last one, from the right, that no trusted proxy has (FIELD F24).
#[must_use]
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    // A proxy that speaks RFC 7239 alone is heard too; one that speaks both is believed in the older field.
    let (name, is_forwarded) =
        if headers.contains_key(X_FORWARDED_FOR) { (X_FORWARDED_FOR, false) } else { (FORWARDED, true) };
    let fields: SmallVec<[&[u8]; 2]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let listed = fields.iter().rev().flat_map(|field| field.rsplit(|b| *b == b','));
    for hop in listed.take(MAX_HOPS) {
        if !is_trusted(client, trusted) {
            break;
        }
        let hop = if is_forwarded { forwarded_for(hop) } else { Some(hop) };
        let text = hop.and_then(|hop| std::str::from_utf8(hop).ok());
        let Some(address) = text.and_then(|text| parse_hop(text.trim())) else { break };
        client = address;
    }
    client
}

/// The `for` of one element of `Forwarded` (RFC 7239 section 4).
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    element.split(|b| *b == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.get(..4).filter(|name| name.eq_ignore_ascii_case(b"for="))?;
        Some(&pair[4..])
    })
}

/// An address, with a port or in brackets perhaps.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches('"');
    let ip = bare
        .parse::<IpAddr>()
        .ok()
        .or_else(|| bare.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| bare.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

/// A host as a browser asked it, with what is derived from it. Made once for a connection, which rarely asks another.
pub(super) struct AskedHost {
    /// The field as it came, by which it is known again.
    field: Option<HeaderValue>,
    /// Lower case, with the port.
    pub name: String,
    value: HeaderValue,
    peer: HeaderValue,
    forwarded: HeaderValue,
    proto: &'static str,
}

impl AskedHost {
    /// Reads what `request` asks, unless `known` is the same.
    ///
    /// # Errors
    /// As [`host_of`].
    pub(super) fn of(
        request: &Parts,
        known: Option<&Rc<Self>>,
        peer: IpAddr,
        tls: bool,
    ) -> Result<Rc<Self>, BadRequest> {
        let mut fields = request.headers.get_all(HOST).iter();
        let field = fields.next().filter(|_| fields.next().is_none());
        if let Some(known) = known
            && field.is_some()
            && field == known.field.as_ref()
            && request.uri.authority().is_none()
        {
            return Ok(Rc::clone(known));
        }
        let name = host_of(request)?;
        let peer = peer.to_canonical();
        let proto = if tls { "https" } else { "http" };
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| BadRequest::Host);
        Ok(Rc::new(Self {
            field: field.cloned(),
            value: value(&name)?,
            peer: value(&peer.to_string())?,
            forwarded: value(&forwarded_element(peer, &name, proto))?,
            proto,
            name,
        }))
    }
}

/// Writes `Host`, `X-Forwarded-*` and `Forwarded` (RFC 7239): appended to a trusted peer's, in place of anybody else's.
pub(super) fn set_forwarded(headers: &mut HeaderMap, trusted: bool, host: &AskedHost) {
    let proto = HeaderValue::from_static(host.proto);
    for (name, own, is_list) in [
        (X_FORWARDED_FOR, &host.peer, true),
        (FORWARDED, &host.forwarded, true),
        (X_FORWARDED_PROTO, &proto, false),
        (X_FORWARDED_HOST, &host.value, false),
    ] {
        let before = if trusted { joined(headers, &name) } else { None };
        let value = match before {
            None => Some(own.clone()),
            Some(before) if is_list => {
                HeaderValue::from_bytes(&[before.as_bytes(), b", ", own.as_bytes()].concat()).ok()
            }
            Some(before) => HeaderValue::from_str(&before).ok(),
        };
        match value {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
    headers.insert(HOST, host.value.clone());
    if !trusted {
        remove_all(headers, |name| OF_OTHER_PROXIES.contains(&name.as_str()));
    }
}

/// Writes the same for a request of our own in the name of the browser at `client`: apps redirect what came without TLS, and
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

/// Fields in which proxies say what only a trusted one may.
const OF_OTHER_PROXIES: [&str; 5] =
    ["x-real-ip", "x-forwarded-port", "x-forwarded-server", "x-forwarded-prefix", "x-client-ip"];

/// All values of a field as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The target for the upstream, in origin form; `asked` itself where it is just that.
#[must_use]
pub(super) fn origin_form(asked: &Uri, path: &str, query: Option<&str>) -> Option<Uri> {
    if asked.authority().is_none() && asked.path() == path && asked.query() == query {
        return Some(asked.clone());
    }
    match query {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(request: Request<()>) -> Parts {
        request.into_parts().0
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn what_connection_names_is_dropped() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Secret, Content-Length"),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip_nominated(&mut map);
        prepare_request(&mut map, false);
        let left = [("content-length", "5"), ("accept", "*/*"), ("te", "trailers"), ("connection", "te")];
        assert_eq!(map, headers(&left));
    }

    #[test]
    fn only_a_websocket_upgrades() {
        assert!(asks_for_websocket(&headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket")
        ])));
        assert!(!asks_for_websocket(&headers(&[("connection", "Upgrade"), ("upgrade", "h2c")])));
        assert!(!asks_for_websocket(&headers(&[("upgrade", "websocket")])));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for bad in [
            &[("content-length", "1"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "1"), ("content-length", "2")],
            &[("content-length", "1, 1")],
            &[("content-length", "+1")],
            &[("content-length", "")],
        ] {
            assert_eq!(check_framing(&headers(bad)), Err(BadRequest::Framing), "{bad:?}");
        }
        assert_eq!(check_framing(&headers(&[("content-length", "1")])), Ok(()));
    }

    #[test]
    fn one_host_and_one_only() {
        let ask = |target: &str, hosts: &[&str]| {
            let mut request = Request::get(target).body(()).unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, host.parse().unwrap());
            }
            host_of(&parts(request))
        };
        assert_eq!(ask("/", &["A.example:80"]), Ok("a.example:80".into()));
        assert_eq!(ask("http://a.example/", &["a.example"]), Ok("a.example".into()));
        assert_eq!(ask("http://b.example/", &["a.example"]), Err(BadRequest::HostMismatch));
        assert_eq!(ask("/", &[]), Err(BadRequest::Host));
        assert_eq!(ask("/", &["a", "a"]), Err(BadRequest::Host));
        assert_eq!(ask("/", &["user@a"]), Err(BadRequest::Host));
        assert_eq!(without_port("a.example:80"), "a.example");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_not_trusted() {
        let trusted = nets(&["10.0.0.0/8", "::1/128"]);
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        for (field, client) in [
            ("1.1.1.1, 2.2.2.2, 10.0.0.1", "2.2.2.2"),
            ("6.6.6.6", "6.6.6.6"),
            ("nonsense, 10.0.0.1", "10.0.0.1"),
            ("::ffff:3.3.3.3", "3.3.3.3"),
            ("4.4.4.4:1234", "4.4.4.4"),
            ("[2001:db8::1]:9", "2001:db8::1"),
        ] {
            let found = client_address(peer, &headers(&[("x-forwarded-for", field)]), &trusted);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{field}");
        }
        let stranger: IpAddr = "9.9.9.9".parse().unwrap();
        assert_eq!(client_address(stranger, &headers(&[("x-forwarded-for", "1.1.1.1")]), &trusted), stranger);
        let two = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "10.0.0.1")]);
        assert_eq!(client_address(peer, &two, &trusted), "1.1.1.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn forwarding_headers_of_strangers_are_replaced() {
        let peer: IpAddr = "9.9.9.9".parse().unwrap();
        let request = parts(Request::get("/").header(HOST, "A.example").body(()).unwrap());
        let host = AskedHost::of(&request, None, peer, false).unwrap();
        let mut map = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.1.1.1"),
        ]);
        set_forwarded(&mut map, false, &host);
        assert_eq!(map["x-forwarded-for"], "9.9.9.9");
        assert_eq!(map["forwarded"], "for=9.9.9.9;host=\"a.example\";proto=http");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert!(!map.contains_key("x-real-ip"));
        let mut map = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        set_forwarded(&mut map, true, &host);
        assert_eq!(map["x-forwarded-for"], "1.1.1.1, 9.9.9.9");
        assert_eq!(map["forwarded"], "for=9.9.9.9;host=\"a.example\";proto=http");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!((&map["x-forwarded-host"], &map["host"]), (&host.value, &host.value));
    }

    #[test]
    fn a_host_is_known_again_only_while_it_stays_the_same() {
        let peer: IpAddr = "2001:db8::9".parse().unwrap();
        let ask = |target: &str, host: &str| parts(Request::get(target).header(HOST, host).body(()).unwrap());
        let first = AskedHost::of(&ask("/", "a.example"), None, peer, true).unwrap();
        assert_eq!(first.forwarded, "for=\"[2001:db8::9]\";host=\"a.example\";proto=https");
        let again = AskedHost::of(&ask("/x", "a.example"), Some(&first), peer, true).unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        assert_eq!(
            AskedHost::of(&ask("/", "b.example"), Some(&first), peer, true).unwrap().name,
            "b.example"
        );
        let mut twice = ask("/", "a.example");
        twice.headers.append(HOST, HeaderValue::from_static("a.example"));
        for bad in [ask("http://b.example/", "a.example"), twice] {
            assert!(AskedHost::of(&bad, Some(&first), peer, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn identity_headers_go_in_every_spelling() {
        let names = ["x-session-user".parse().unwrap()];
        let mut map = headers(&[
            ("X-Session-User", "a"),
            ("x_session_user", "b"),
            ("x-session_user", "c"),
            ("x-session-users", "d"),
        ]);
        strip_identity(&mut map, &names);
        assert_eq!(map, headers(&[("x-session-users", "d")]));
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut map);
        assert_eq!(map.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
