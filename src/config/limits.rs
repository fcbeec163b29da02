//! `[limits]`, `[drain]` and `[log]`.

use tracing::Level;

use super::raw::{Section, Value};
use super::{Drain, Limits, Log, LogFormat};
use crate::session::Span;

/// Longer than any parallel requests of one page; a value from before a rotation must not live on.
const MAX_GRACE: Span = Span::from_secs(300);

pub(super) fn read_limits(mut section: Section<'_>) -> Limits {
    let mut span = |key: &'static str, default: u64| {
        section.value(key).and_then(|value| value.span()).unwrap_or(Span::from_secs(default))
    };
    let (ended_kept, connect_timeout) = (span("ended_kept", 30 * 24 * 3600), span("connect_timeout", 5));
    let (first_byte_timeout, upstream_idle) = (span("first_byte_timeout", 60), span("upstream_idle", 4));
    let limits = Limits {
        header_bytes: section
            .value("header_bytes")
            .and_then(|value| bounded(&value, "the head of a request"))
            .unwrap_or(DEFAULT_BYTES),
        jar_bytes: section
            .value("jar_bytes")
            .and_then(|value| bounded(&value, "the cookie jar of a session"))
            .unwrap_or(DEFAULT_BYTES),
        body_bytes: section.value("body_bytes").and_then(|value| value.size()).flatten(),
        anonymous_sessions: section
            .value("anonymous_sessions")
            .and_then(|value| value.whole(1..100_000_001))
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(100_000),
        rotation_grace: section
            .value("rotation_grace")
            .and_then(|value| rotation_grace(&value))
            .unwrap_or(Span::from_secs(10)),
        ended_kept,
        connect_timeout,
        first_byte_timeout,
        upstream_idle,
    };
    section.finish();
    limits
}

/// What a request's head and a session's jar may hold when the file says nothing: more than any browser sends to one host.
const DEFAULT_BYTES: usize = 64 << 10;

/// Too small refuses every browser, too large lets anybody fill the memory.
const BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 20;

/// A size that must have a bound, within [`BYTES`].
fn bounded(value: &Value<'_>, what: &str) -> Option<usize> {
    let size = value.size()?;
    let fits = size.filter(|size| BYTES.contains(size));
    if fits.is_none() {
        value.fault(format!("{what} needs a bound from 4KiB to 1MiB"), "write \"64KiB\"");
    }
    usize::try_from(fits?).ok()
}

fn rotation_grace(value: &Value<'_>) -> Option<Span> {
    let grace = value.span_or_zero()?;
    if grace > MAX_GRACE {
        value.fault(
            format!("{grace} is longer than {MAX_GRACE}"),
            "write \"10s\": it covers requests in flight",
        );
    }
    Some(grace)
}

pub(super) fn read_drain(mut section: Section<'_>) -> Drain {
    let mut span = |key: &'static str, default: u64| {
        section.value(key).and_then(|value| value.span_or_zero()).unwrap_or(Span::from_secs(default))
    };
    let drain = Drain { delay: span("delay", 5), timeout: span("timeout", 30) };
    section.finish();
    drain
}

pub(super) fn read_log(mut section: Section<'_>) -> Log {
    const LEVELS: &[(&str, Level)] = &[
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let log = Log {
        format: section.value("format").and_then(|value| value.choice(&formats)).unwrap_or(LogFormat::Text),
        level: section.value("level").and_then(|value| value.choice(LEVELS)).unwrap_or(Level::INFO),
    };
    section.finish();
    log
}
