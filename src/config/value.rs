//! Readers of single values: durations, sizes, addresses, names, paths. Each reports what is wrong and yields `None`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use http::HeaderName;

use super::raw::Value;
use crate::session::layers::Limit;
use crate::session::path::{Pattern, normalise};
use crate::session::{Moment, Span};

/// Longer durations mean "off", and are better said so.
const MAX_SPAN: Span = Span::from_secs(3650 * 24 * 3600);

/// Larger numbers of sessions mean "off", and are better said so.
pub(super) const MAX_COUNT: u64 = 1_000_000;

/// What is wrong with a text, and what to do about it.
type Wrong = (String, String);

impl<'t> Value<'t> {
    /// Reads the string with `read` and reports what it refuses.
    pub(super) fn read<T>(&self, read: impl Fn(&'t str) -> Result<T, Wrong>) -> Option<T> {
        read(self.text()?).map_err(|(message, hint)| self.fault(message, hint)).ok()
    }

    /// Reads the string with `FromStr`.
    pub(super) fn parse<T: FromStr>(&self, what: &str, hint: &str) -> Option<T> {
        self.read(|text| text.parse().map_err(|_| (format!("{text:?} is not {what}"), hint.to_owned())))
    }

    /// A duration above zero.
    pub(super) fn span(&self) -> Option<Span> {
        match self.limit()? {
            Limit::At(span) => Some(span),
            Limit::Off => {
                self.fault("\"off\" has no meaning here", "write a duration such as \"5s\"");
                None
            }
        }
    }

    /// A duration; zero, and "off" with the same meaning, are allowed.
    pub(super) fn span_or_zero(&self) -> Option<Span> {
        match self.as_text() {
            Some("0" | "0s" | "off") => Some(Span::ZERO),
            _ => self.span(),
        }
    }

    /// A duration above zero, or "off".
    pub(super) fn limit(&self) -> Option<Limit<Span>> {
        if self.is_whole() {
            self.wrong_type(
                "a duration",
                "write a duration with its unit in quotes: \"90s\", \"30m\", \"24h\", \"90d\"",
            );
            return None;
        }
        self.read(|text| if text == "off" { Ok(Limit::Off) } else { parse_span(text).map(Limit::At) })
    }

    /// A number above zero, or "off".
    pub(super) fn count(&self) -> Option<Limit<NonZeroU32>> {
        match self.as_text() {
            Some("off") => Some(Limit::Off),
            Some(text) => {
                let hint = "write a number without quotes, or \"off\"";
                self.fault(format!("{text:?} is not a number"), hint);
                None
            }
            None if self.is_zero() => {
                self.fault("0 would let nobody in", "write \"off\" for no limit");
                None
            }
            None => self.number().map(Limit::At),
        }
    }

    /// A number above zero.
    pub(super) fn number(&self) -> Option<NonZeroU32> {
        let number = self.whole(1..MAX_COUNT + 1)?;
        u32::try_from(number).ok().and_then(NonZeroU32::new)
    }

    /// A size in bytes above zero; `None` within for "off".
    pub(super) fn size(&self) -> Option<Option<u64>> {
        if self.is_whole() {
            self.wrong_type("a size", "write it in quotes: \"64KiB\", \"10MiB\" or \"1048576\"");
            return None;
        }
        self.read(|text| if text == "off" { Ok(None) } else { parse_size(text).map(Some) })
    }

    /// An address to listen at.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.read(|text| {
            let hint = match text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")) {
                Some(port) if text.starts_with(':') => format!("write \"0.0.0.0:{port}\" for all addresses"),
                Some(port) => format!("write \"127.0.0.1:{port}\""),
                None => "write an IP address and a port: \"127.0.0.1:8080\" or \"[::]:8080\"".to_owned(),
            };
            text.parse().map_err(|_| (format!("{text:?} is not an address to listen at"), hint))
        })
    }

    /// A header's name.
    pub(super) fn header(&self) -> Option<HeaderName> {
        self.parse("a header name", "letters, digits and hyphens: \"X-Session-User\"")
    }

    /// A pattern over the normalised path.
    pub(super) fn pattern(&self) -> Option<Pattern> {
        self.read(parse_pattern)
    }

    /// A path of the app with perhaps a query: it starts with one slash and is in normal form, so that it is
    /// comparable with the paths of requests.
    pub(super) fn app_path(&self) -> Option<String> {
        self.read(parse_app_path)
    }

    /// A point in time, RFC 3339.
    pub(super) fn moment(&self) -> Option<Moment> {
        let timestamp: jiff::Timestamp =
            self.parse("a point in time", "write it as \"2027-01-31T00:00:00Z\"")?;
        u64::try_from(timestamp.as_millisecond()).ok().map(Moment::from_unix_ms)
    }
}

/// See [`Value::app_path`].
pub(super) fn parse_app_path(text: &str) -> Result<String, Wrong> {
    let wrong = |message: &str| (format!("{text:?} {message}"), "write a path such as \"/login\"".to_owned());
    if !text.starts_with('/') || text.starts_with("//") || text.starts_with("/\\") {
        return Err(wrong("is not a path that starts with one slash"));
    }
    if text.bytes().any(|b| !b.is_ascii_graphic() || b"#\\\"<>".contains(&b)) {
        return Err(wrong("holds a character that no path has"));
    }
    let path = text.split('?').next().unwrap_or(text);
    let normal = normalise(path, &[""; 0]).map_err(|_| wrong("holds a broken escape"))?.path;
    if normal != path {
        return Err((format!("{path:?} is not in normal form"), format!("write {normal:?}")));
    }
    if path == "/.tenure" || path.starts_with("/.tenure/") {
        return Err(wrong("is the gateway's own"));
    }
    Ok(text.to_owned())
}

/// Whether a path, perhaps with a query, means more than the one path that it says.
pub(super) fn is_pattern(path: &str) -> bool {
    path.split('?').next().is_some_and(|path| path.contains(['*', '[', '{']))
}

/// A path pattern.
pub(super) fn parse_pattern(text: &str) -> Result<Pattern, Wrong> {
    let hint = "write \"/static/**\" for all below it, \"/item/*\" for one segment";
    Pattern::parse(text).map_err(|message| (message, hint.to_owned()))
}

const ABOVE_ZERO: &str = "write a duration above zero, or \"off\" where that is allowed";

/// A duration above zero.
pub(super) fn parse_span(text: &str) -> Result<Span, Wrong> {
    let wrong = |message: &str, hint: &str| Err((format!("{text:?} {message}"), hint.to_owned()));
    if text == "0" {
        return wrong("is no time at all", ABOVE_ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let hint = format!("write \"{text}s\" for seconds or \"{text}m\" for minutes");
        return Err((format!("{text:?} has no unit"), hint));
    }
    let Ok(span) = text.parse::<jiff::Span>() else {
        let months = text.ends_with('M') || text.ends_with("mo") || text.ends_with('y');
        let hint = if months {
            "months and years differ in length: write days, \"30d\"; minutes are a small \"m\""
        } else {
            "write \"90s\", \"30m\", \"24h\", \"90d\", \"1h30m\", or \"off\" where that is allowed"
        };
        return wrong("is not a duration", hint);
    };
    if span.is_negative() {
        return wrong("is negative", "write a duration above zero");
    }
    if span.get_years() != 0 || span.get_months() != 0 {
        return wrong("counts months or years", "they differ in length: write days, such as \"30d\"");
    }
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let Some(ms) = length.ok().and_then(|length| u64::try_from(length.as_millis()).ok()) else {
        return wrong("is too long", "write \"off\" for no limit, where that is allowed");
    };
    match Span::from_ms(ms) {
        Span::ZERO => wrong("is no time at all", ABOVE_ZERO),
        long if long > MAX_SPAN => wrong("is longer than ten years", "write \"off\" where no limit is meant"),
        fine => Ok(fine),
    }
}

fn parse_size(text: &str) -> Result<u64, Wrong> {
    let hint = || "write \"64KiB\", \"10MiB\", \"1GiB\" or a number of bytes, \"1048576\"".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err((format!("{text:?} is not a size"), hint())),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(0) => Err((format!("{text:?} is nothing at all"), hint())),
        Some(size) => Ok(size),
        None => Err((format!("{text:?} is not a size"), hint())),
    }
}

/// A limit as the file writes it.
pub(super) fn show<T: Display>(limit: Limit<T>) -> String {
    match limit {
        Limit::At(value) => value.to_string(),
        Limit::Off => "off".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, secs) in [
            ("90s", 90),
            ("30m", 1800),
            ("24h", 86_400),
            ("90d", 7_776_000),
            ("1h30m", 5400),
            ("1w", 604_800),
            ("0.5h", 1800),
        ] {
            assert_eq!(parse_span(text), Ok(Span::from_secs(secs)), "{text}");
        }
        assert_eq!(parse_span("250ms"), Ok(Span::from_ms(250)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "30", "-5m", "5m ago", "0s", "1us", "1mo", "30M", "2y", "P1Y", "P2M", "9999999h", "soon"]
        {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_binary_units() {
        for (text, size) in
            [("1048576", 1 << 20), ("64KiB", 65_536), ("10MiB", 10 << 20), ("2 GiB", 2 << 30), ("5B", 5)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "64KB", "1.5MiB", "-1", "0", "KiB", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
