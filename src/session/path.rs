//! One normalised path: what the rules saw is what is forwarded (R5).
//!
//! Normal form: RFC 3986 dot segments removed, escapes of unreserved characters decoded and the others written in
//! upper case, session ids in the path removed. Empty segments (`//`) and `%2f` stay as they are.

use std::borrow::Cow;
use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// A path in normal form and what was noticed on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath {
    /// The path to match and to forward; starts with `/`.
    pub path: String,
    /// The path as sent holds something that servers read differently (an encoded slash, backslash or dot segment,
    /// NUL, a backslash or `;`): it never counts as `public`.
    pub ambiguous: bool,
    /// A session id stood in the path (`;jsessionid=`, `/(S(...))/`) and was removed.
    pub had_session_id: bool,
}

/// Names of parameters that carry a session id (FIELD F11). Compared without case and after decoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdParameters {
    /// Of the path: `;jsessionid=`.
    pub path: Vec<String>,
    /// Of the query: `?PHPSESSID=`.
    pub query: Vec<String>,
}

/// A pattern of the configuration over the normalised path: `*` stays within a segment, `**` crosses them.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    glob: GlobMatcher,
    /// Over paths as [`loosened`] has them, whatever their case.
    loose: Box<GlobMatcher>,
}

impl Pattern {
    /// Reads a pattern; it must start with `/`.
    ///
    /// # Errors
    /// What is wrong with it, in words for the configuration's author.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("the path pattern {text:?} must start with \"/\""));
        }
        let compile = |text: &str, any_case| {
            let glob = GlobBuilder::new(text)
                .literal_separator(true)
                .backslash_escape(false)
                .case_insensitive(any_case)
                .build()
                .map_err(|error| format!("the path pattern {text:?} cannot be read: {}", error.kind()))?;
            Ok::<_, String>(glob.compile_matcher())
        };
        let loose = Box::new(compile(&loosened(text), true)?);
        Ok(Self { text: text.to_owned(), glob: compile(text, false)?, loose })
    }

    /// Whether the normalised `path` is matched.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.glob.is_match(path)
    }

    /// Whether some app takes the normalised `path` for one that is matched: `loose` is what [`loosened`] makes of it, and
    /// case is ignored, as by ASP.NET and Express. For what must not happen unseen, in whatever spelling.
    #[must_use]
    pub fn matches_loosely(&self, path: &str, loose: &str) -> bool {
        self.matches(path) || self.loose.is_match(loose)
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

/// The path cannot be forwarded at all: it does not start with `/` or holds a broken escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request path is malformed")]
pub struct BadPath;

/// Brings the path of a request target into normal form. `matrix` are the names of path parameters that carry a
/// session id (`jsessionid`), compared without case and after decoding.
///
/// # Errors
/// [`BadPath`] when `raw` does not start with `/` or holds a `%` that two hexadecimal digits do not follow.
pub fn normalise(raw: &str, matrix: &[impl AsRef<str>]) -> Result<NormalPath, BadPath> {
    if is_plain(raw) {
        return Ok(NormalPath { path: raw.to_owned(), ambiguous: false, had_session_id: false });
    }
    rewritten(raw, matrix)
}

/// Whether a path is in normal form at first sight, as most are: no escape, parameter or dot segment in it.
fn is_plain(raw: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~,:@!$&'*+=".contains(&byte);
    raw.starts_with('/') && raw.bytes().all(plain) && !has_pair(raw, b"/.")
}

/// Whether the two bytes stand together in `path`. For so little, a searcher takes longer to set up than to search.
fn has_pair(path: &str, pair: &[u8; 2]) -> bool {
    path.as_bytes().windows(2).any(|two| two == pair)
}

fn rewritten(raw: &str, matrix: &[impl AsRef<str>]) -> Result<NormalPath, BadPath> {
    if !raw.starts_with('/') {
        return Err(BadPath);
    }
    let (decoded, mut ambiguous) = decode_unreserved(raw)?;
    let mut had_session_id = false;
    let mut segments: Vec<String> = Vec::new();
    let mut parts = decoded[1..].split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        if is_cookieless_id(part) {
            had_session_id = true;
            if last {
                segments.push(String::new());
            }
            continue;
        }
        let (segment, removed) = strip_matrix(part, matrix);
        had_session_id |= removed;
        ambiguous |= segment.contains(';');
        push_segment(&mut segments, segment, last);
    }
    Ok(NormalPath { path: format!("/{}", segments.join("/")), ambiguous, had_session_id })
}

/// RFC 3986 section 5.2.4, segment by segment.
fn push_segment(segments: &mut Vec<String>, segment: String, last: bool) {
    match segment.as_str() {
        "." | ".." => {
            if segment == ".." {
                segments.pop();
            }
            if last {
                segments.push(String::new());
            }
        }
        _ => segments.push(segment),
    }
}

/// Decodes `%41` to `A`, keeps other escapes in upper case; the flag reports what servers read differently.
fn decode_unreserved(raw: &str) -> Result<(String, bool), BadPath> {
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut ambiguous = false;
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] != b'%' {
            ambiguous |= matches!(bytes[i], b'\\' | 0);
            let rest = &raw[i..];
            let Some(c) = rest.chars().next() else { break };
            out.push(c);
            i += c.len_utf8();
            continue;
        }
        let byte = bytes.get(i + 1..i + 3).and_then(hex_pair).ok_or(BadPath)?;
        if is_unreserved(byte) {
            ambiguous |= byte == b'.';
            out.push(char::from(byte));
        } else {
            ambiguous |= matches!(byte, b'/' | b'\\' | 0 | b';' | b'%');
            out.push_str(&format!("%{byte:02X}"));
        }
        i += 3;
    }
    Ok((out, ambiguous))
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// ASP.NET's cookieless form: a whole segment `(S(id))`, possibly with more such groups, `(A(..)S(..))`.
fn is_cookieless_id(segment: &str) -> bool {
    let plain = segment.replace("%28", "(").replace("%29", ")");
    let Some(inner) = plain.strip_prefix('(').and_then(|s| s.strip_suffix(')')) else { return false };
    inner.len() > 3
        && inner.ends_with(')')
        && inner.as_bytes()[0].is_ascii_alphabetic()
        && inner.as_bytes()[1] == b'('
}

/// Removes `;name=value` parameters whose name is one of `names`, however `;` and the name are escaped.
fn strip_matrix(segment: &str, names: &[impl AsRef<str>]) -> (String, bool) {
    if names.is_empty() {
        return (segment.to_owned(), false);
    }
    let marked = segment.replace("%3B", ";").replace("%3b", ";");
    let mut parts = marked.split(';');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    let mut removed = false;
    for part in parts {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        let name = name.split("%3D").next().unwrap_or(name);
        if names.iter().any(|n| n.as_ref().eq_ignore_ascii_case(name)) {
            removed = true;
        } else {
            kept.push(';');
            kept.push_str(part);
        }
    }
    if removed { (kept, true) } else { (segment.to_owned(), false) }
}

/// The path as the most careless of servers reads it: without path parameters (`/login;x=1/a` is `/login/a` to Tomcat, and
/// `/x/..;/login` is `/login`), empty segments (Apache merges slashes) and a slash at the end (Express).
#[must_use]
pub fn loosened(path: &str) -> Cow<'_, str> {
    let ends_with_slash = path.len() > 1 && path.ends_with('/');
    if !(ends_with_slash || path.contains(';') || has_pair(path, b"//")) {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// The script that serves `path` where more follows behind it (`/login.php/x`), which servers hand to it as path info.
#[must_use]
pub fn script_of(path: &str) -> Option<&str> {
    const SCRIPTS: [&str; 6] = [".php", ".aspx", ".asp", ".cfm", ".cgi", ".pl"];
    let ends_with = |head: &str, ending: &str| {
        let tail = head.len().checked_sub(ending.len()).and_then(|at| head.get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(ending))
    };
    let is_script = |head: &str| SCRIPTS.iter().any(|ending| ends_with(head, ending));
    path.match_indices('/').map(|(at, _)| &path[..at]).find(|head| is_script(head))
}

/// Removes query parameters named in `names` (`PHPSESSID`, `jsessionid`), decoded and compared without case.
/// Returns `None` when nothing had to be removed: the query then passes byte for byte.
#[must_use]
pub fn strip_query(query: &str, names: &[impl AsRef<str>]) -> Option<String> {
    let is_id = |pair: &str| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        // PHP reads `PHPSESSID[...]` and names with leading spaces or dots mangled to the same variable.
        // What C takes for the end of a name ends it for PHP.
        let decoded = decoded.split(|c: char| c.is_ascii_control()).next().unwrap_or_default();
        let decoded = decoded.replace('+', " ");
        let bare = decoded.trim_start().split('[').next().unwrap_or_default().replace(['.', ' '], "_");
        names.iter().any(|n| n.as_ref().replace('.', "_").eq_ignore_ascii_case(&bare))
    };
    if !query.split(['&', ';']).any(is_id) {
        return None;
    }
    Some(query.split('&').filter(|pair| !pair.split(';').any(is_id)).collect::<Vec<_>>().join("&"))
}

/// A `Location` without the session ids that servers write into addresses while they do not know whether the browser
/// takes cookies (FIELD F11). Only of `host` itself, lower case and with its port: another server's ids are its own.
/// Returns `None` when nothing had to be removed.
#[must_use]
pub fn strip_location(location: &str, host: &str, names: &IdParameters) -> Option<String> {
    let (origin, rest) = split_origin(location);
    if !origin.is_empty() && !origin.rsplit('/').next().is_some_and(|o| o.eq_ignore_ascii_case(host)) {
        return None;
    }
    let (target, fragment) = split_before(rest, '#');
    let (path, query) = split_before(target, '?');
    let stripped = query.strip_prefix('?').and_then(|query| strip_query(query, &names.query));
    let mut had_session_id = stripped.is_some();
    let segments = path.split('/').filter_map(|segment| {
        let (segment, removed) = strip_matrix(segment, &names.path);
        let is_id = is_cookieless_id(&segment);
        had_session_id |= removed || is_id;
        (!is_id).then_some(segment)
    });
    let path = segments.collect::<Vec<_>>().join("/");
    let query = match stripped.as_deref() {
        Some("") => String::new(),
        Some(query) => format!("?{query}"),
        None => query.to_owned(),
    };
    had_session_id.then(|| format!("{origin}{path}{query}{fragment}"))
}

/// Scheme and authority of an absolute or scheme-relative reference, and what follows.
fn split_origin(location: &str) -> (&str, &str) {
    let after = match location.split_once("//") {
        Some((scheme, after)) if scheme.is_empty() || is_scheme(scheme) => after,
        Some(_) | None => return ("", location),
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    location.split_at(location.len() - after.len() + end)
}

fn is_scheme(text: &str) -> bool {
    let name = text.strip_suffix(':').unwrap_or_default();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn split_before(text: &str, at: char) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_out_of_a_location_of_our_own_host_alone() {
        for (location, stripped) in [
            ("/app/home;jsessionid=ABC.node1?x=1#top", Some("/app/home?x=1#top")),
            ("https://a.example/home;JSESSIONID=ABC", Some("https://a.example/home")),
            ("//a.example/home%3bjsessionid=ABC", Some("//a.example/home")),
            ("home;jsessionid=ABC;v=2", Some("home;v=2")),
            ("/page?PHPSESSID=abc&x=1", Some("/page?x=1")),
            ("/page?PHPSESSID=abc", Some("/page")),
            ("https://a.example?PHPSESSID=abc", Some("https://a.example")),
            ("/(S(abc123))/default.aspx", Some("/default.aspx")),
            ("https://idp.example/login;jsessionid=ABC", None),
            ("/plain/../path;v=1?x=1", None),
            ("/go?to=http%3A%2F%2Fb.example%2F%3Bjsessionid=x", None),
            ("", None),
        ] {
            let names =
                IdParameters { path: vec!["jsessionid".to_owned()], query: vec!["PHPSESSID".to_owned()] };
            let found = strip_location(location, "a.example", &names);
            assert_eq!(found.as_deref(), stripped, "{location}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_plain_at_first_sight_is_in_normal_form(raw in "/[a-zA-Z0-9/._~:@!$&'*+=,();%-]{0,40}") {
            if is_plain(&raw) {
                let slow = rewritten(&raw, &["jsessionid"]).unwrap();
                proptest::prop_assert_eq!(normal(&raw), slow);
            }
        }
    }

    fn normal(raw: &str) -> NormalPath {
        normalise(raw, &["jsessionid"]).unwrap()
    }

    #[test]
    fn paths_come_into_normal_form() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("//a//b", "//a//b"),
            ("/%41%2d%7e", "/A-~"),
            ("/%2f%2F", "/%2F%2F"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a/%2e%2e/b", "/b"),
            ("/app;jsessionid=ABC/x", "/app/x"),
            ("/app%3bJSessionId=ABC", "/app"),
            ("/app;v=1;jsessionid=ABC", "/app;v=1"),
            ("/(S(abc123))/page.aspx", "/page.aspx"),
        ];
        for (raw, path) in cases {
            assert_eq!(normal(raw).path, path, "{raw}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_marked() {
        for raw in ["/a%2fb", "/a\\b", "/a%5cb", "/static/%2e%2e/x", "/a;v=1", "/a%00", "/a%3bx", "/a%252e"] {
            assert!(normal(raw).ambiguous, "{raw}");
        }
        for raw in ["/", "/a/b.css", "/a/./b", "/caf%C3%A9"] {
            assert!(!normal(raw).ambiguous, "{raw}");
        }
        assert!(normal("/a;jsessionid=1").had_session_id);
    }

    #[test]
    fn broken_paths_are_refused() {
        for raw in ["", "a", "*", "/%", "/%4", "/%zz"] {
            assert_eq!(normalise(raw, &[""; 0]), Err(BadPath), "{raw}");
        }
    }

    #[test]
    fn session_ids_leave_the_query() {
        assert_eq!(strip_query("a=1&b=2", &["PHPSESSID"]), None);
        assert_eq!(strip_query("a=1&PHPSESSID=x&b=2", &["PHPSESSID"]).as_deref(), Some("a=1&b=2"));
        assert_eq!(strip_query("%50HPSESSID=x", &["PHPSESSID"]).as_deref(), Some(""));
        assert_eq!(strip_query("PHPSESSID%00a=x&c", &["PHPSESSID"]).as_deref(), Some("c"));
        assert_eq!(strip_query("PHPSESSID[]=x&c", &["PHPSESSID"]).as_deref(), Some("c"));
    }

    #[test]
    fn patterns_are_matched_in_every_spelling_where_that_is_asked_for() {
        for (pattern, path, expected) in [
            ("/login", "/LogIn", true),
            ("/login", "//login/", true),
            ("/login", "/login;x=1//", true),
            ("/accounts/login/", "/accounts/login", true),
            ("/auth/*", "/Auth/callback/", true),
            ("/", "//", true),
            ("/a;v=1", "/a;v=1", true),
            ("/login", "/x/..;a/.;/login", true),
            ("/login", "/loginx", false),
            ("/login", "/login/x", false),
            ("/login", "/", false),
        ] {
            let found = Pattern::parse(pattern).unwrap().matches_loosely(path, &loosened(path));
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_script_is_found_before_its_path_info() {
        for (path, script) in [
            ("/a/login.php/x/y", Some("/a/login.php")),
            ("/Login.ASPX/", Some("/Login.ASPX")),
            ("/login.php", None),
            ("/php/login", None),
            ("/é.php/x", Some("/é.php")),
            ("/", None),
        ] {
            assert_eq!(script_of(path), script, "{path}");
        }
    }

    #[test]
    fn patterns_match_whole_paths() {
        let cases = [
            ("/static/**", "/static/a/b.css", true),
            ("/static/**", "/staticx", false),
            ("/login", "/login", true),
            ("/login", "/login/x", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
    }
}
