//! Header operations: framing checks, hop-by-hop fields, forwarding fields, identity fields. Pure.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, FORWARDED, HOST, LOCATION, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::session::fields::{Field, Fields};
use crate::session::path::{self, IdParameters};

/// Most addresses of `X-Forwarded-For` that are walked.
const MAX_HOPS: usize = 32;

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

/// Refuses what two parsers could frame differently. Of HTTP/1.1 little of it comes here: hyper refuses lengths that differ, and
/// of a request with both `Transfer-Encoding` and `Content-Length` it takes the length away. That is read by its chunks, as
/// every server reads it (RFC 9112 section 6.3), goes to the app in chunks of our own, and its connection is closed after the
/// answer: what two readers could take for another request is read by nobody. HTTP/2 is what this is for.
///
/// # Errors
/// [`BadRequest::Framing`].
pub(super) fn check_framing(fields: &Fields<'_>) -> Result<(), BadRequest> {
    let Some(first) = fields.first(Field::ContentLength) else { return Ok(()) };
    let differ = fields.all(Field::ContentLength).any(|other| other != first);
    let listed = first.is_empty() || !first.as_bytes().iter().all(u8::is_ascii_digit);
    let both = fields.has(Field::TransferEncoding);
    if differ || listed || both { Err(BadRequest::Framing) } else { Ok(()) }
}

/// Whether another site's page had the browser send this, by a method that changes something (Fetch Metadata).
#[must_use]
pub(super) fn is_foreign_write(method: &http::Method, fields: &Fields<'_>) -> bool {
    let foreign = fields.first(Field::SecFetchSite).is_some_and(|site| site == "cross-site");
    foreign && !matches!(*method, http::Method::GET | http::Method::HEAD)
}

/// Whether this is a WebSocket handshake; any other upgrade is ignored (h2c is never spoken upstream).
#[must_use]
pub(super) fn asks_for_websocket(fields: &Fields<'_>) -> bool {
    let names = |field: Field, word: &str| {
        fields.all(field).any(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
        })
    };
    names(Field::Connection, "upgrade") && names(Field::Upgrade, "websocket")
}

/// Removes every field that `doomed` names, in one pass over the few that there are.
fn remove_all(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| doomed(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether `headers` have the field `name`. To read the few names that there are costs less than to hash this one.
#[must_use]
pub(super) fn holds(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|known| known == name)
}

/// Fields that concern one connection only (RFC 9110 section 7.6.1), whether `Connection` names them or not.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Fields in which nobody but the gateway speaks.
pub(super) fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with("tenure-")
}

/// The fields that `Connection` names, besides those that are hop by hop whoever names them (RFC 9110 section 7.6.1).
#[must_use]
fn nominated<'a>(connection: impl Iterator<Item = &'a HeaderValue>) -> Nominated {
    let words = connection.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    words
        .map(str::trim)
        // What most say, and is hop by hop.
        .filter(|word| !["keep-alive", "upgrade"].iter().any(|usual| word.eq_ignore_ascii_case(usual)))
        .filter_map(|word| word.parse().ok())
        // A length tells where the message ends, whatever somebody says of it.
        .filter(|name| !is_hop_by_hop(name) && *name != HOST && *name != CONTENT_LENGTH)
        .collect()
}

/// Names of fields that go no further.
pub(super) type Nominated = SmallVec<[HeaderName; 4]>;

/// What [`tidy`] is to remove from a request's head, where there is anything to tidy.
#[must_use]
pub(super) fn untidy(fields: &Fields<'_>) -> Option<Nominated> {
    let nominates = fields.has(Field::Connection);
    let nominated = if nominates { nominated(fields.all(Field::Connection)) } else { Nominated::new() };
    (!nominated.is_empty() || fields.is_repeated(Field::Cookie)).then_some(nominated)
}

/// Makes a request's head what it is to be read as: without the fields that its `Connection` names, and with one `Cookie` in
/// the place of several, which HTTP/2 sends as crumbs and HTTP/1.1 does not allow.
/// SECURITY: before anything is read, or the gateway would read another request than the app.
pub(super) fn tidy(headers: &mut HeaderMap, nominated: &Nominated) {
    for name in nominated {
        headers.remove(name);
    }
    join_cookies(headers);
}

/// Prepares the head of an answer for the browser: fields of the upstream's connection go, those in which nobody but the
/// gateway speaks, and those that `also` dooms. The trailers that it announces pass.
pub(super) fn prepare_response(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let mut doomed = Nominated::new();
    for name in headers.keys().filter(|name| is_hop_by_hop(name) || is_own(name) || also(name)) {
        if *name == CONNECTION {
            doomed
                .extend(nominated(headers.get_all(CONNECTION).iter()).into_iter().filter(|n| *n != TRAILER));
        }
        // Of an answer in chunks a length says nothing true (RFC 9112 section 6.3).
        if *name == TRANSFER_ENCODING {
            doomed.push(CONTENT_LENGTH);
        }
        doomed.push(name.clone());
    }
    for name in doomed {
        headers.remove(name);
    }
}

/// Takes session ids out of the `Location` of an answer: the browser would send them back, and so would whoever gets
/// the address from it.
pub(super) fn strip_location(headers: &mut HeaderMap, host: &str, id_parameters: &IdParameters) {
    if !holds(headers, &LOCATION) {
        return;
    }
    let Some(text) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    if let Some(bare) = path::strip_location(text, host, id_parameters)
        && let Ok(value) = HeaderValue::from_str(&bare)
    {
        headers.insert(LOCATION, value);
    }
}

/// Removes from a request's trailers what only its head may say, and what only the gateway may, in any spelling.
pub(super) fn strip_trailers(trailers: &mut HeaderMap, identity: &[HeaderName]) {
    let forbidden = |name: &HeaderName| {
        is_hop_by_hop(name)
            || is_own(name)
            || is_identity(name, identity)
            || [AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE]
                .contains(name)
            || [COOKIE, EXPECT, FORWARDED, HOST, MAX_FORWARDS, SET_COOKIE, TRAILER].contains(name)
            || name.as_str().starts_with("x-forwarded-")
            || is_of_other_proxies(name)
    };
    remove_all(trailers, |name| forbidden(name) || dashed(name).is_some_and(|dashed| forbidden(&dashed)));
}

/// Removes from an answer's trailers what only its head may say: cookies most of all, which are learned from there. And what
/// `also` dooms.
pub(super) fn strip_answer_trailers(trailers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    remove_all(trailers, |name| {
        is_hop_by_hop(name) || is_own(name) || [SET_COOKIE, CONTENT_LENGTH].contains(name) || also(name)
    });
}

/// Joins several `Cookie` fields, which HTTP/2 sends as crumbs, into the one that HTTP/1.1 allows.
fn join_cookies(headers: &mut HeaderMap) {
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

/// The name with dashes, where it has an underscore: servers that turn fields into variables read both alike.
pub(super) fn dashed(name: &HeaderName) -> Option<HeaderName> {
    let name = name.as_str();
    if name.contains('_') { name.replace('_', "-").parse().ok() } else { None }
}

/// Whether a field is an identity header in any spelling: servers read `X_User` and `X-User` alike, and headers that a CGI
/// server turns into variables lose the difference altogether (FIELD F17).
#[must_use]
pub(super) fn is_identity(name: &HeaderName, names: &[HeaderName]) -> bool {
    let same = |a: &str, b: &str| {
        a.len() == b.len()
            && a.bytes()
                .zip(b.bytes())
                .all(|(x, y)| x == y || (matches!(x, b'-' | b'_') && matches!(y, b'-' | b'_')))
    };
    names.iter().any(|n| same(n.as_str(), name.as_str()))
}

/// Whether the peer itself is a trusted proxy.
#[must_use]
pub(super) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// Whether the browser came over https: to us, or to the trusted proxy before us, which says so.
#[must_use]
pub(super) fn is_https(fields: &Fields<'_>, tls: bool, trusted: bool) -> bool {
    let said = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"https");
    tls || (trusted && (fields.first(Field::XForwardedProto).is_some_and(said) || forwarded_https(fields)))
}

fn forwarded_https(fields: &Fields<'_>) -> bool {
    let Some(text) = fields.text(Field::Forwarded) else { return false };
    let element = text.split(',').next().unwrap_or_default();
    element.split(';').any(|pair| pair.trim().eq_ignore_ascii_case("proto=https"))
}

/// The client's address: the last one, from the right, that no trusted proxy has (FIELD F24).
#[must_use]
pub(super) fn client_address(peer: IpAddr, fields: &Fields<'_>, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    // A proxy that speaks RFC 7239 alone is heard too; one that speaks both is believed in the older field.
    let is_forwarded = !fields.has(Field::XForwardedFor);
    let field = if is_forwarded { Field::Forwarded } else { Field::XForwardedFor };
    let values: SmallVec<[&[u8]; 2]> = fields.all(field).map(HeaderValue::as_bytes).collect();
    let listed = values.iter().rev().flat_map(|field| field.rsplit(|b| *b == b','));
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

/// Fields in which proxies say what only a trusted one may.
#[must_use]
pub(super) fn is_of_other_proxies(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-real-ip" | "x-forwarded-port" | "x-forwarded-server" | "x-forwarded-prefix" | "x-client-ip"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("accept", "*/*"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ]);
        let nominated = nominated(map.get_all(CONNECTION).iter());
        assert_eq!(nominated.as_slice(), ["x-secret"]);
        tidy(&mut map, &nominated);
        assert!(!map.contains_key("x-secret"));
        assert_eq!(map.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"], "crumbs are joined");
    }

    #[test]
    fn an_answer_keeps_nothing_of_the_upstream_s_connection() {
        let mut map = headers(&[
            ("connection", "x-secret, trailer, keep-alive"),
            ("x-secret", "1"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("keep-alive", "timeout=5"),
            ("tenure-session", "logout"),
            ("x-user", "ann"),
            ("etag", "1"),
        ]);
        prepare_response(&mut map, |name| name == "x-user");
        assert_eq!(map, headers(&[("trailer", "x-sum"), ("etag", "1")]));
    }

    #[test]
    fn only_a_websocket_upgrades() {
        let asks = |pairs: &[(&str, &str)]| asks_for_websocket(&Fields::of(&headers(pairs)));
        assert!(asks(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]));
        assert!(!asks(&[("connection", "Upgrade"), ("upgrade", "h2c")]));
        assert!(!asks(&[("upgrade", "websocket")]));
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
            assert_eq!(check_framing(&Fields::of(&headers(bad))), Err(BadRequest::Framing), "{bad:?}");
        }
        assert_eq!(check_framing(&Fields::of(&headers(&[("content-length", "1")]))), Ok(()));
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_not_trusted() {
        let trusted = nets(&["10.0.0.0/8", "::1/128"]);
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let client_of = |peer: IpAddr, pairs: &[(&str, &str)]| {
            client_address(peer, &Fields::of(&headers(pairs)), &trusted)
        };
        for (field, client) in [
            ("1.1.1.1, 2.2.2.2, 10.0.0.1", "2.2.2.2"),
            ("6.6.6.6", "6.6.6.6"),
            ("nonsense, 10.0.0.1", "10.0.0.1"),
            ("::ffff:3.3.3.3", "3.3.3.3"),
            ("4.4.4.4:1234", "4.4.4.4"),
            ("[2001:db8::1]:9", "2001:db8::1"),
        ] {
            let found = client_of(peer, &[("x-forwarded-for", field)]);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{field}");
        }
        let stranger: IpAddr = "9.9.9.9".parse().unwrap();
        assert_eq!(client_of(stranger, &[("x-forwarded-for", "1.1.1.1")]), stranger);
        let two = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "10.0.0.1")];
        assert_eq!(client_of(peer, &two), "1.1.1.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_trailer_says_in_no_spelling_what_only_a_head_may_say() {
        let identity: [HeaderName; 1] = ["x-user".parse().unwrap()];
        let mut trailers = headers(&[
            ("x_user", "1"),
            ("x_real_ip", "1"),
            ("x-client_ip", "1"),
            ("x_forwarded_for", "1"),
            ("tenure_session", "logout"),
            ("content_length", "1"),
            ("x_sum", "1"),
        ]);
        strip_trailers(&mut trailers, &identity);
        assert_eq!(trailers, headers(&[("x_sum", "1")]));
    }

    #[test]
    fn identity_headers_are_known_in_every_spelling() {
        let names = ["x-session-user".parse().unwrap()];
        for name in ["x-session-user", "x_session_user", "x-session_user"] {
            assert!(is_identity(&name.parse().unwrap(), &names), "{name}");
        }
        assert!(!is_identity(&HeaderName::from_static("x-session-users"), &names));
    }
}
