//! `upstream` of an app: one address or several.

use super::Upstream;
use super::raw::{Section, Value};

const HINT: &str = "write \"http://127.0.0.1:3000\" or \"https://app.internal\"";

pub(super) fn read(section: &mut Section<'_>) -> Vec<Upstream> {
    let value = section.required("upstream", HINT);
    if let Some(empty) = value.as_ref().filter(|value| value.is_empty_list()) {
        empty.fault("names no upstream", HINT);
    }
    let upstreams = value.iter().flat_map(Value::one_or_more);
    upstreams.filter_map(|value| value.read(upstream)).collect()
}

/// The faults never repeat the URL as a whole: it may hold a password.
fn upstream(text: &str) -> Result<Upstream, (String, String)> {
    let wrong = |message: &str, hint: &str| Err((message.to_owned(), hint.to_owned()));
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("the upstream has no scheme", HINT);
    };
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return wrong(&format!("the scheme {scheme:?} is not supported"), HINT),
    };
    if rest.contains('@') {
        return wrong(
            "the upstream holds a user or password",
            "remove them: the app's own sign-in stays as it is",
        );
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return wrong(
            "the upstream has a path or query",
            "give scheme, host and port alone: paths are passed as they come",
        );
    }
    let Ok(authority) = rest.parse::<http::uri::Authority>() else {
        return wrong("the upstream's host cannot be read", HINT);
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return wrong("the upstream has no host", HINT);
    }
    let port = match rest.strip_prefix(authority.host()).unwrap_or_default() {
        "" => Some(if tls { 443 } else { 80 }),
        _ => authority.port_u16().filter(|port| *port != 0),
    };
    match port {
        Some(port) => Ok(Upstream { tls, host, port }),
        None => wrong("the upstream's port is not a number from 1 to 65535", HINT),
    }
}
