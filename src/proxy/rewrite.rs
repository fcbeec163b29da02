//! The head of a request as the app gets it. Pure: what came stays as it came, and is read again if the head has to be
//! written anew.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, TE, TRAILER, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use super::body::Upload;
use super::handle::Judged;
use super::headers::{self, BadRequest};
use super::host::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::upstream::{Outgoing, Sending, Writer};
use super::visit::Visit;

/// The request as it goes upstream.
///
/// # Errors
/// The path cannot be written, or the body's length is unknown.
pub(super) fn rewrite(judged: &Judged, upload: Upload) -> Result<Outgoing, BadRequest> {
    let Head { bytes, sending, announced } = head(judged, &upload)?;
    Ok(Outgoing::new(judged.visit.head.method.clone(), bytes, (sending, upload), announced))
}

/// A head as it goes out.
pub(super) struct Head {
    /// The head itself. SECURITY: secret.
    pub bytes: Vec<u8>,
    sending: Sending,
    announced: Vec<HeaderName>,
}

/// Writes the head. SECURITY: cookies by the intake's word alone; identity headers only from a trusted proxy.
///
/// # Errors
/// As [`rewrite`].
pub(super) fn head(judged: &Judged, upload: &Upload) -> Result<Head, BadRequest> {
    let Judged { visit, site, trusted, websocket, .. } = judged;
    let fields = &visit.head.headers;
    let mut out = Writer::new(&visit.head.method, &target(visit)?);
    visit.host.tell(trusted.then_some(fields), visit.https, &mut out);
    let (mut takes_trailers, mut length, mut announced) = (false, None, Vec::new());
    for (name, value) in fields {
        match *name {
            // Written anew, here or there.
            HOST | COOKIE | FORWARDED => {}
            CONTENT_LENGTH => length = Some(value),
            TE => takes_trailers |= says_trailers(value),
            TRAILER => {
                announced.extend(names_in(value));
                out.line(name, value.as_bytes());
            }
            _ if is_dropped(name, &site.identity_headers, *trusted) => {}
            _ => out.line(name, value.as_bytes()),
        }
    }
    if let Some(cookie) = visit.cookie() {
        // SECURITY: the app would read what follows as a field, or as another request.
        if memchr::memchr3(b'\r', b'\n', 0, cookie).is_some() {
            return Err(BadRequest::Framing);
        }
        out.line(&COOKIE, cookie);
    }
    if takes_trailers {
        out.line(&TE, b"trailers");
    }
    match (*websocket, takes_trailers) {
        (true, _) => {
            out.line(&CONNECTION, b"upgrade");
            out.line(&UPGRADE, b"websocket");
        }
        (false, true) => out.line(&CONNECTION, b"te"),
        (false, false) => {}
    }
    let sending = sending(upload, length)?;
    Ok(Head { bytes: out.end(sending), sending, announced })
}

/// Whether a field goes no further: of the browser's connection, told by the gateway itself, or what only a trusted proxy may
/// say.
fn is_dropped(name: &HeaderName, identity: &[HeaderName], trusted: bool) -> bool {
    headers::is_hop_by_hop(name)
        || headers::is_own(name)
        || *name == EXPECT
        || is_of_proxies(name, trusted)
        || is_of_proxies_underscored(name)
        // A trusted proxy names a user in the one spelling that it was given.
        || (headers::is_identity(name, identity) && !(trusted && identity.contains(name)))
}

fn is_of_proxies(name: &HeaderName, trusted: bool) -> bool {
    [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST].contains(name)
        || (!trusted && headers::is_of_other_proxies(name))
}

/// SECURITY: to an app behind CGI or WSGI `X_Forwarded_For` is the same as `X-Forwarded-For`. No proxy writes it so, but one that
/// is trusted may let pass what a browser wrote.
fn is_of_proxies_underscored(name: &HeaderName) -> bool {
    headers::dashed(name).is_some_and(|dashed| is_of_proxies(&dashed, false) || headers::is_own(&dashed))
}

/// The target in origin form.
fn target(visit: &Visit) -> Result<Cow<'_, str>, BadRequest> {
    let (uri, path, query) = (&visit.head.uri, visit.path.as_str(), visit.query.as_deref());
    // One without a path, as in `http://app?x`, is no target in origin form.
    let is_as_it_stands = |asked: &&PathAndQuery| {
        asked.path() == path && asked.query() == query && asked.as_str().starts_with('/')
    };
    match uri.path_and_query().filter(is_as_it_stands) {
        Some(asked) => Ok(Cow::Borrowed(asked.as_str())),
        None => {
            let written = visit.target();
            written.parse::<PathAndQuery>().map_err(|_| BadRequest::Path)?;
            Ok(Cow::Owned(written))
        }
    }
}

/// Of a body whose length nobody knows chunks are announced, also where a GET has one (law 11).
fn sending(upload: &Upload, length: Option<&HeaderValue>) -> Result<Sending, BadRequest> {
    let told = || length.map(|length| length.to_str().ok()?.parse().ok());
    match upload {
        Upload::Streamed(_) if upload.has_unknown_length() => Ok(Sending::Chunked),
        // A form goes on with a length of its own, whatever framing it came in.
        Upload::Full(bytes) => Ok(Sending::Length(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))),
        Upload::Streamed(_) => told().flatten().map(Sending::Length).ok_or(BadRequest::Framing),
        Upload::Empty => match told() {
            None => Ok(Sending::Nothing),
            Some(length) => length.map(Sending::Length).ok_or(BadRequest::Framing),
        },
    }
}

fn says_trailers(te: &HeaderValue) -> bool {
    te.to_str().is_ok_and(|text| text.contains("trailers"))
}

fn names_in(trailer: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let text = trailer.to_str().unwrap_or_default();
    text.split(',').filter_map(|name| name.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_say_what_is_told_by_the_fields_name() {
        let identity = [HeaderName::from_static("x-session-user")];
        let goes_on = |name: &str, trusted| !is_dropped(&name.parse().unwrap(), &identity, trusted);
        let from_nobody = [
            "keep-alive",
            "proxy-authorization",
            "transfer-encoding",
            "tenure-user",
            "tenure_user",
            "expect",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_host",
            "x-forwarded-proto",
            "x_real_ip",
            "x_session_user",
            "x-session_user",
        ];
        let from_proxies = ["x-session-user", "x-real-ip", "x-forwarded-port", "x-client-ip"];
        let from_all = ["accept", "authorization", "user-agent", "x-session-users", "x_custom", "tenures"];
        for (names, of_browser, of_proxy) in
            [(&from_nobody[..], false, false), (&from_proxies, false, true), (&from_all, true, true)]
        {
            for name in names {
                assert_eq!((goes_on(name, false), goes_on(name, true)), (of_browser, of_proxy), "{name}");
            }
        }
    }

    #[test]
    fn a_body_at_hand_is_told_by_its_length() {
        let length = |text: &'static str| Some(HeaderValue::from_static(text));
        let form = |bytes: &'static str| Upload::Full(Some(bytes.into()));
        let cases = [
            (Upload::Empty, None, Ok(Sending::Nothing)),
            (Upload::Empty, length("0"), Ok(Sending::Length(0))),
            (Upload::Empty, length("many"), Err(BadRequest::Framing)),
            (Upload::Empty, length("18446744073709551616"), Err(BadRequest::Framing)),
            (form("user=ann"), length("3"), Ok(Sending::Length(8))),
            (form("user=ann"), None, Ok(Sending::Length(8))),
            (Upload::Full(None), None, Ok(Sending::Length(0))),
        ];
        for (at, (upload, length, expected)) in cases.into_iter().enumerate() {
            assert_eq!(sending(&upload, length.as_ref()), expected, "{at}");
        }
    }
}
