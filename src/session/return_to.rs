//! The way back after signing in: safe by construction (FIELD F13, R15).

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The longest way back that is kept, in bytes.
pub const MAX_BYTES: usize = 2048;

/// Everything but unreserved characters and `/` is escaped within the query parameter.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'=')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b':')
    .add(b';')
    .add(b',')
    .add(b'@');

/// Whether `target` leads back to this very origin: one leading `/`, no second slash or backslash in any spelling
/// that a browser would read as another host, no control characters, at most [`MAX_BYTES`].
#[must_use]
pub fn is_safe(target: &str) -> bool {
    if target.len() > MAX_BYTES || !target.starts_with('/') {
        return false;
    }
    let decoded = percent_encoding::percent_decode_str(target).collect::<Vec<u8>>();
    let bad = |b: &u8| b.is_ascii_control() || *b == b'\\';
    if target.bytes().any(|b| bad(&b)) || decoded.iter().any(bad) {
        return false;
    }
    // Browsers drop tabs and newlines before they look for `//`; those are refused above.
    !matches!(decoded.get(1), Some(b'/')) && !target.starts_with("//")
}

/// The `Location` that leads to `login`, with the way back in the query parameter `parameter` when it is safe.
#[must_use]
pub fn login_location(login: &str, parameter: Option<&str>, back: Option<&str>) -> String {
    let (Some(parameter), Some(back)) = (parameter, back.filter(|back| is_safe(back))) else {
        return login.to_owned();
    };
    let joint = if login.contains('?') { '&' } else { '?' };
    format!("{login}{joint}{parameter}={}", utf8_percent_encode(back, ESCAPED))
}

/// The path and query of a same-origin `Referer`; `None` when it belongs to another host.
#[must_use]
pub fn from_referer(referer: &str, host: &str) -> Option<String> {
    let uri: http::Uri = referer.parse().ok()?;
    let same = uri.authority().is_some_and(|a| a.as_str().eq_ignore_ascii_case(host));
    same.then(|| uri.path_and_query().map(|pq| pq.as_str().to_owned())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_other_hosts_are_refused() {
        let evil = [
            "",
            "evil.com",
            "//evil.com",
            "///evil.com",
            "/\\evil.com",
            "\\/evil.com",
            "/%09/evil.com",
            "/%5cevil.com",
            "/%2fevil.com",
            "/%2Fevil.com",
            "/\t/evil.com",
            "/\n/evil.com",
            "/%0d%0aSet-Cookie:x",
            "http://evil.com",
            "https:evil.com",
            "javascript:alert(1)",
            "/%00",
            "%2f%2fevil.com",
            " //evil.com",
            "/\u{1}x",
        ];
        for target in evil {
            assert!(!is_safe(target), "{target:?}");
        }
        for target in ["/", "/a/b?c=d", "/a//b", "/wiki/%C3%A4?x=//y", "/x?u=http://a.b/"] {
            assert!(is_safe(target), "{target:?}");
        }
        assert!(!is_safe(&format!("/{}", "a".repeat(MAX_BYTES))));
    }

    #[test]
    fn the_way_back_is_escaped() {
        assert_eq!(
            login_location("/login", Some("next"), Some("/a?b=c&d=e")),
            "/login?next=/a%3Fb%3Dc%26d%3De"
        );
        assert_eq!(login_location("/login?x=1", Some("next"), Some("/a")), "/login?x=1&next=/a");
        assert_eq!(login_location("/login", Some("next"), Some("//evil")), "/login");
        assert_eq!(login_location("/login", None, Some("/a")), "/login");
    }

    #[test]
    fn only_a_same_origin_referer_leads_back() {
        assert_eq!(from_referer("https://a.example/x?y", "a.example").as_deref(), Some("/x?y"));
        assert_eq!(from_referer("https://b.example/x", "a.example"), None);
        assert_eq!(from_referer("nonsense", "a.example"), None);
    }
}
