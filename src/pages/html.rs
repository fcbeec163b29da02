//! What all pages share: the layout, escaping, and times as people say them.

use std::fmt::{self, Write};

use crate::session::{Moment, Span};

/// The style of every page; the policy of [`CONTENT_SECURITY_POLICY`] names its hash.
const STYLE: &str = include_str!("style.css");

/// The `Content-Security-Policy` that these pages are sent with: no script, no other origin, no frame around them,
/// and of styles only their own.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-z+UBaQ4M9TVulQsSBsKgZIfxFefA9ivnw9Kx6EneDpo='; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Text as it may stand in an element or in a quoted attribute.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A complete document; `title` is plain text, `main` is finished HTML.
pub(super) fn document(title: &str, main: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{main}</main>\n</body>\n</html>\n"
    )
}

/// How long ago `then` was, with the exact time for those who hover or listen.
pub(super) fn ago(then: Moment, now: Moment) -> String {
    let exact = utc(then);
    let said = match length(now.since(then)) {
        Some(length) => format!("{length} ago"),
        None => "just now".to_owned(),
    };
    format!("<time datetime=\"{exact}\" title=\"{exact}\">{said}</time>")
}

/// A length of time in its largest unit; `None` below a minute.
pub(super) fn length(span: Span) -> Option<String> {
    let minutes = span.as_ms() / 60_000;
    let (count, unit) = match minutes {
        0 => return None,
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    Some(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
}

/// RFC 3339 in UTC, to the second; empty for a moment beyond the calendar.
fn utc(moment: Moment) -> String {
    let seconds = i64::try_from(moment.unix_ms() / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    #[test]
    fn the_policy_names_the_hash_of_the_style() {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(digest);
        assert!(
            CONTENT_SECURITY_POLICY.contains(&format!("style-src 'sha256-{hash}';")),
            "the style has changed: write sha256-{hash} into CONTENT_SECURITY_POLICY"
        );
        assert!(document("x", "").contains(&format!("<style>{STYLE}</style>")));
        assert!(!STYLE.contains('\r') && !STYLE.contains("</"));
    }

    #[test]
    fn nothing_escapes_from_an_attribute_or_an_element() {
        assert_eq!(Escaped("<a href=\"x\">'&").to_string(), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }

    #[test]
    fn times_are_said_in_their_largest_unit() {
        let minute = 60_000;
        for (ms, said) in [
            (0, None),
            (minute - 1, None),
            (minute, Some("1 minute")),
            (59 * minute, Some("59 minutes")),
            (60 * minute, Some("1 hour")),
            (47 * 60 * minute, Some("1 day")),
            (48 * 60 * minute, Some("2 days")),
        ] {
            assert_eq!(length(Span::from_ms(ms)).as_deref(), said, "{ms}");
        }
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_left_out() {
        assert_eq!(utc(Moment::MAX), "");
        assert_eq!(utc(Moment::from_unix_ms(1_999)), "1970-01-01T00:00:01Z");
    }
}
