//! `hosts` of an app: which requests are its own.
//!
//! An exact name stands before a wildcard, and a wildcard before the app without hosts. What two apps could both
//! claim beyond that order is refused.

use super::app::ReadApp;
use super::raw::{Mark, Sink, Value};

pub(super) fn read(value: &Value<'_>) -> Option<String> {
    value.read(|text| {
        let wrong = |hint: &str| Err((format!("{text:?} is not a host"), hint.to_owned()));
        if text.contains("://") || text.contains('/') {
            return wrong("write the host alone, without scheme and path: \"crm.example.com\"");
        }
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(address) = bracketed {
            let parsed: Result<std::net::Ipv6Addr, _> = address.parse();
            return parsed
                .map_or_else(|_| wrong("write an IPv6 address as \"[::1]\""), |ip| Ok(format!("[{ip}]")));
        }
        if text.contains(':') {
            return wrong("write it without port: every port is meant");
        }
        if text == "*" {
            return wrong("leave hosts out: the app then serves every host");
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty()
            || name.len() > 253
            || !name.bytes().all(plain)
            || name.split('.').any(str::is_empty)
        {
            return wrong("write \"crm.example.com\" or \"*.example.com\"; other scripts in their xn-- form");
        }
        Ok(text.to_ascii_lowercase())
    })
}

/// Refuses hosts that two apps claim, and a second app without hosts.
pub(super) fn refuse_overlaps(sink: &Sink<'_>, apps: &[ReadApp]) {
    for (i, later) in apps.iter().enumerate() {
        for earlier in &apps[..i] {
            refuse_overlap(sink, earlier, later);
        }
    }
}

fn refuse_overlap(sink: &Sink<'_>, earlier: &ReadApp, later: &ReadApp) {
    let at: &Mark = &later.hosts_at;
    if earlier.app.hosts.is_empty() && later.app.hosts.is_empty() {
        let message = format!("a second app without hosts: {:?} serves every host already", earlier.app.name);
        sink.missing(at, message, "add hosts = [\"crm.example.com\"] to one of them");
    }
    for host in &later.app.hosts {
        if let Some(other) = earlier.app.hosts.iter().find(|other| clash(other, host)) {
            let message = format!("{host:?} overlaps with {other:?} of app {:?}", earlier.app.name);
            sink.fault(at, message, "give each host to one app");
        }
    }
}

/// Whether two hosts of different apps claim the same requests with the same right.
fn clash(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        _ => a == b,
    }
}
