//! `Cookie` and `Set-Cookie` as bytes: find, narrow, strip, read, write.
//!
//! The request side is strict about one thing only: no pair may reach the app that the app could read as a token
//! while we did not (R4, law 7). A header without configured tokens passes byte for byte (law 11).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::chunks::{Joined, MAX_CHUNKS, Piece, join};
use super::cookie_date::read_cookie_date;
use super::profile::{CookieKind, CookieRule, Extract, rule_for};
use super::{Moment, Span};

/// The most configured cookies that are read of one request: more than any browser keeps for a site (Chromium: 180). Each is
/// looked up, and weighed beside all others.
pub const MAX_PRESENTED: usize = 256;

/// A configured cookie as a request presents it; with its chunks, where it has any.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented<'a> {
    /// Index of its rule.
    pub rule: usize,
    /// What the cookie is to the app.
    pub kind: CookieKind,
    /// Its name as sent.
    pub name: &'a [u8],
    /// The id within its value. SECURITY: secret.
    pub id: Cow<'a, [u8]>,
    /// Which pair of the header it is.
    pair: usize,
    /// The pairs of its chunks.
    chunks: Vec<usize>,
}

/// SECURITY: the id never appears in `Debug` output (law 10).
impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("rule", &self.rule)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The `Cookie` fields of a request, taken apart.
pub struct RequestCookies<'a> {
    pairs: SmallVec<[Option<&'a [u8]>; 8]>,
    /// Chunked cookies until all pairs are read.
    pieces: Vec<Piece<'a>>,
    /// Names of the chunks, in the order sent, whether they belong to a cookie or not; the first [`MAX_CHUNKS`].
    pub chunks: Vec<&'a [u8]>,
    /// Chunks were stripped that belong to no cookie.
    had_leftovers: bool,
    /// The configured cookies, in the order sent, over all header fields; a chunked one stands where its base stood. Those
    /// beyond [`MAX_PRESENTED`] are dropped.
    pub tokens: SmallVec<[Presented<'a>; 2]>,
    /// How many pairs were dropped because the app could have read them as a token though we do not.
    pub dropped: usize,
}

impl<'a> RequestCookies<'a> {
    /// Takes the fields apart.
    #[must_use]
    pub fn parse(fields: impl Iterator<Item = &'a [u8]>, rules: &[CookieRule]) -> Self {
        let mut parsed = Self {
            pairs: SmallVec::new(),
            pieces: Vec::new(),
            chunks: Vec::new(),
            had_leftovers: false,
            tokens: SmallVec::new(),
            dropped: 0,
        };
        for field in fields {
            for pair in field.split(|b| *b == b';') {
                parsed.push(pair.trim_ascii(), rules);
            }
        }
        if !parsed.pieces.is_empty() {
            parsed.join_chunks(rules);
        }
        parsed
    }

    fn push(&mut self, pair: &'a [u8], rules: &[CookieRule]) {
        if pair.is_empty() {
            return;
        }
        let (name, value) = split_pair(pair);
        let rule = rule_for(rules, name);
        if is_suspicious(pair, (name, value), rule.is_some(), rules) {
            self.dropped += 1;
            return;
        }
        if let Some((rule, found)) = rule {
            if found.extract == Extract::Chunked {
                let (base, number) = match found.chunk_of(name) {
                    Some((base, number)) => {
                        if self.chunks.len() < MAX_CHUNKS {
                            self.chunks.push(name);
                        }
                        (base, Some(number))
                    }
                    None => (name, None),
                };
                self.pieces.push(Piece { base, number, value, pair: self.pairs.len(), rule });
                self.pairs.push(Some(pair));
                return;
            }
            let id = found.extract.id(value);
            // A cookie without a value signs nobody in; it is dropped rather than left for the app to interpret.
            if id.is_empty() || self.tokens.len() >= MAX_PRESENTED {
                self.dropped += 1;
                return;
            }
            let (pair, chunks) = (self.pairs.len(), Vec::new());
            self.tokens.push(Presented { rule, kind: found.kind, name, id, pair, chunks });
        }
        self.pairs.push(Some(pair));
    }

    /// Makes one token of each base cookie with its chunks. What is not whole, and chunks that belong to nothing, are
    /// stripped: the app makes nothing of them, and a later version of it might.
    fn join_chunks(&mut self, rules: &[CookieRule]) {
        let pieces = std::mem::take(&mut self.pieces);
        let mut unused: SmallVec<[bool; 8]> = smallvec::smallvec![false; self.pairs.len()];
        pieces.iter().for_each(|piece| unused[piece.pair] = true);
        for Joined { base, id, chunks } in join(&pieces) {
            let room = self.tokens.len() < MAX_PRESENTED;
            let (Some(id), Some(rule), true) = (id, rules.get(base.rule), room) else {
                self.dropped += 1;
                continue;
            };
            std::iter::once(&base.pair).chain(&chunks).for_each(|pair| unused[*pair] = false);
            let (rule, kind) = (base.rule, rule.kind);
            self.tokens.push(Presented { rule, kind, name: base.base, id, pair: base.pair, chunks });
        }
        for (pair, _) in unused.iter().enumerate().filter(|(_, unused)| **unused) {
            self.pairs[pair] = None;
            self.had_leftovers = true;
        }
        self.tokens.sort_by_key(|token| token.pair);
    }

    /// Whether the header must be written anew; otherwise it passes byte for byte.
    #[must_use]
    pub fn needs_rewrite(&self) -> bool {
        self.dropped > 0 || self.had_leftovers || !self.tokens.is_empty()
    }

    /// The header to forward, with the tokens for which `keep` says no removed; `None` when nothing is left.
    #[must_use]
    pub fn forwarded(&self, keep: impl Fn(usize, &Presented<'a>) -> bool) -> Option<Vec<u8>> {
        let mut stays: SmallVec<[bool; 16]> = smallvec::smallvec![true; self.pairs.len()];
        for (index, token) in self.tokens.iter().enumerate() {
            if !keep(index, token) {
                std::iter::once(&token.pair).chain(&token.chunks).for_each(|pair| stays[*pair] = false);
            }
        }
        let pairs = self.pairs.iter().zip(&stays);
        header_of(pairs.filter_map(|(pair, stays)| pair.filter(|_| *stays)))
    }
}

impl RequestCookies<'_> {
    /// The header with those tokens alone that `wanted` says yes to; `None` when there are none. SECURITY: secret.
    #[must_use]
    pub fn tokens_alone(&self, wanted: impl Fn(usize, &Presented<'_>) -> bool) -> Option<Vec<u8>> {
        let chosen = self.tokens.iter().enumerate().filter(|(index, token)| wanted(*index, token));
        let pairs =
            chosen.flat_map(|(_, token)| std::iter::once(token.pair).chain(token.chunks.iter().copied()));
        header_of(pairs.filter_map(|pair| self.pairs.get(pair).copied().flatten()))
    }

    /// The header with those pairs alone whose name `wanted` says yes to, tokens or not; `None` when there are none.
    #[must_use]
    pub fn named(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let pairs = self.pairs.iter().flatten().copied();
        header_of(pairs.filter(|pair| wanted(split_pair(pair).0)))
    }
}

/// A header of these pairs, in memory of its exact size: one that grew would leave copies of tokens behind. `None` where there
/// are none.
fn header_of<'a>(pairs: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let pairs: SmallVec<[&[u8]; 8]> = pairs.collect();
    (!pairs.is_empty()).then(|| pairs.join(b"; ".as_slice()))
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair) {
        Some(at) => (pair[..at].trim_ascii_end(), pair[at + 1..].trim_ascii_start()),
        // RFC 6265bis reads a pair without `=` as a value without a name; some servers read it as a name.
        None => (pair, b""),
    }
}

/// Whether the app could read this pair as a token though we do not (R4). `is_token` says whether we do.
fn is_suspicious(pair: &[u8], (name, value): (&[u8], &[u8]), is_token: bool, rules: &[CookieRule]) -> bool {
    // Of most pairs there is one way to read them, and nothing can hide in them.
    if pair.iter().all(is_unambiguous) {
        return !is_token && names_token(pair, rules);
    }
    let control = |b: &u8| b.is_ascii_control();
    if name.first() == Some(&b'$') || name.iter().any(control) || value.iter().any(control) {
        return true;
    }
    if is_token {
        if is_spaced(pair, name, value) {
            return true;
        }
    } else if names_token(pair, rules) {
        return true;
    }
    let unbalanced = is_unbalanced(value) || name.contains(&b'"');
    // Parsers of quoted strings take `;` within quotes for text.
    unbalanced || hides_token(pair, rules)
}

/// Whether a byte means the same to every parser, wherever it stands in a pair: it begins no name that is special, quotes,
/// escapes and separates nothing.
fn is_unambiguous(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'=' | b'-' | b'_' | b'.' | b'~' | b'+' | b'/' | b':' | b'%')
}

/// Whether a quoted string goes on behind the value: for parsers that read `\"` as text, and for those that do not.
fn is_unbalanced(value: &[u8]) -> bool {
    let (mut all, mut unescaped, mut escaped) = (0_usize, 0_usize, false);
    for byte in value {
        let is_quote = *byte == b'"';
        all += usize::from(is_quote);
        unescaped += usize::from(is_quote && !escaped);
        escaped = *byte == b'\\' && !escaped;
    }
    !all.is_multiple_of(2) || !unescaped.is_multiple_of(2)
}

/// Whether a token stands behind what some parser takes for a separator: a comma (RFC 2965), or white space (Python's
/// `http.cookies`).
fn hides_token(pair: &[u8], rules: &[CookieRule]) -> bool {
    const SEPARATORS: [fn(&u8) -> bool; 3] =
        [|b| *b == b',', u8::is_ascii_whitespace, |b| *b == b',' || b.is_ascii_whitespace()];
    let separates = SEPARATORS[2];
    pair.iter().any(separates)
        && SEPARATORS.iter().any(|s| pair.split(*s).skip(1).any(|part| names_token(part, rules)))
}

/// Whether there is white space around the `=`: Rack and CGI.pm take it for a part of name and value, so that they would
/// miss a cookie that we count. No browser sends it.
fn is_spaced(pair: &[u8], name: &[u8], value: &[u8]) -> bool {
    let bare = name.len() + value.len();
    pair.len() > bare + usize::from(pair.contains(&b'='))
}

/// Whether some parser reads this as a pair whose name is a token's.
fn names_token(part: &[u8], rules: &[CookieRule]) -> bool {
    // Tomcat's legacy processor skips separators before a name, `=` among them, and Python, JavaScript and Django trim the
    // white space of all Unicode, as Latin-1 or as UTF-8.
    let start = part.iter().position(is_name_byte).unwrap_or(part.len());
    [part, &part[start..]].iter().any(|part| {
        let (name, _) = split_pair(part.trim_ascii());
        // Another parser ends the name at the first byte that no name may have.
        let run = name.iter().position(|b| !is_name_byte(b)).unwrap_or(name.len());
        rules.iter().any(|rule| rule.covers_any_case(name) || rule.covers_any_case(&name[..run]))
            || is_mangled_token(name, rules)
    })
}

/// Whether a cookie's name may hold this byte: a `tchar` of RFC 9110 section 5.6.2.
fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Names that some app reads as the configured one: other case (ASP.NET), escapes, and PHP's mangling, which
/// writes `.`, ` ` and `[` as `_`.
fn is_mangled_token(name: &[u8], rules: &[CookieRule]) -> bool {
    // Most names are spelled in one way only, and nothing is copied for them.
    if is_plain(name) && rules.iter().all(|rule| is_plain(rule.name.stem().as_bytes())) {
        return rules.iter().any(|rule| rule.covers_any_case(name));
    }
    let mut decoded: Vec<u8> = percent_encoding::percent_decode(name).collect();
    // PHP before 7.2.34 decodes names, and ends them where C does (CVE-2020-7070); so might others.
    let end = decoded.iter().position(u8::is_ascii_control).unwrap_or(decoded.len());
    decoded.truncate(end);
    let mangle = |bytes: &[u8]| -> Vec<u8> {
        let swap = |b: &u8| if matches!(b, b'.' | b' ' | b'[' | b'+') { b'_' } else { *b };
        bytes.trim_ascii().iter().map(swap).collect()
    };
    let array_base = decoded.split(|b| *b == b'[').next().unwrap_or_default();
    let candidates = [decoded.trim_ascii().to_vec(), mangle(&decoded), mangle(array_base)];
    rules.iter().any(|rule| {
        let stem_mangled = mangle(rule.name.stem().as_bytes());
        candidates.iter().any(|candidate| {
            rule.covers_any_case(candidate)
                || (stem_mangled.eq_ignore_ascii_case(candidate)
                    && stem_mangled != rule.name.stem().as_bytes())
        })
    })
}

/// Whether a name holds nothing that is decoded or mangled anywhere.
fn is_plain(name: &[u8]) -> bool {
    !name.iter().any(|b| b.is_ascii_control() || b"%.[+ ".contains(b))
}

/// The attributes with which the app set a cookie: what a browser needs to see again to delete it (F10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// `Domain`, without a leading dot; `None` for a host-only cookie.
    pub domain: Option<String>,
    /// `Path`, or the default path that the browser computes from the request when the app named none.
    pub path: String,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite` as written.
    pub same_site: Option<String>,
    /// `Partitioned`.
    pub partitioned: bool,
}

/// A `Set-Cookie` field that concerns a configured cookie or one that an identity source reads.
#[derive(Clone, PartialEq, Eq)]
pub struct SetCookie {
    /// The cookie's name.
    pub name: String,
    /// Its value, byte for byte: some apps set Latin-1. SECURITY: secret.
    pub value: Vec<u8>,
    /// How it was set.
    pub attributes: Attributes,
    /// The field deletes the cookie: it has expired, or its value is empty.
    pub deletes: bool,
    /// When the browser forgets it; `None` with the browser's session.
    pub expires: Option<Moment>,
}

/// SECURITY: the value never appears in `Debug` output (law 10).
impl fmt::Debug for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetCookie")
            .field("name", &self.name)
            .field("attributes", &self.attributes)
            .field("deletes", &self.deletes)
            .finish_non_exhaustive()
    }
}

/// Reads one `Set-Cookie` field; `request_path` yields the default path (RFC 6265bis section 5.1.4).
/// `None` when a browser would ignore the field; for any control character but a tab it must (section 5.6).
#[must_use]
pub fn read_set_cookie(field: &[u8], request_path: &str, now: Moment) -> Option<SetCookie> {
    if field.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return None;
    }
    let text = String::from_utf8_lossy(field);
    let parsed = cookie::Cookie::parse(text.as_ref()).ok()?;
    if parsed.name().is_empty() {
        return None;
    }
    // The last one that makes sense; `Max-Age` wins (RFC 6265bis sections 5.6.1, 5.6.2 and 5.7).
    let age = attribute(&text, "max-age").filter_map(max_age).last();
    let expires = age
        .map(|age| now.plus(age))
        .or_else(|| attribute(&text, "expires").filter_map(read_cookie_date).last());
    let expired = expires.is_some_and(|at| at <= now);
    let path = attribute(&text, "path")
        .last()
        .filter(|p| p.starts_with('/'))
        .map_or_else(|| default_path(request_path), str::to_owned);
    // As a request will bring it back, not as the text that the attributes are read from.
    let pair = field.split(|b| *b == b';').next().unwrap_or_default();
    let value = split_pair(pair).1.trim_ascii_end().to_vec();
    Some(SetCookie {
        name: parsed.name().to_owned(),
        deletes: expired || value.iter().all(|byte| *byte == b'"'),
        value,
        expires,
        attributes: Attributes {
            domain: parsed
                .domain()
                .map(|d| d.trim_start_matches('.').trim().to_owned())
                .filter(|d| !d.is_empty()),
            path,
            secure: parsed.secure().unwrap_or(false),
            http_only: parsed.http_only().unwrap_or(false),
            same_site: parsed.same_site().map(|s| s.to_string()),
            partitioned: parsed.partitioned().unwrap_or(false),
        },
    })
}

/// The values of an attribute in the order written; empty where there is none.
fn attribute<'t>(field: &'t str, wanted: &str) -> impl Iterator<Item = &'t str> {
    let split = |part: &'t str| part.split_once('=').unwrap_or((part, ""));
    let attributes = field.split(';').skip(1).map(split);
    attributes
        .filter(move |(name, _)| name.trim().eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim())
}

/// `Max-Age`: digits, perhaps behind a minus; a browser ignores any other.
fn max_age(value: &str) -> Option<Span> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = if value.starts_with('-') { 0 } else { digits.parse().unwrap_or(u64::MAX) };
    Some(Span::from_secs(seconds))
}

/// The directory of the request's path (RFC 6265bis section 5.1.4).
fn default_path(request_path: &str) -> String {
    match request_path.rfind('/') {
        Some(at) if at > 0 && request_path.starts_with('/') => request_path[..at].to_owned(),
        _ => "/".to_owned(),
    }
}

/// The `Set-Cookie` value that deletes the cookie `name` that was set with `attributes`.
#[must_use]
pub fn deletion(name: &str, attributes: &Attributes) -> String {
    setting(name, "", attributes) + "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
}

/// The `Set-Cookie` value that sets the cookie `name` to `value` for the browser's session. SECURITY: secret.
#[must_use]
pub fn setting(name: &str, value: &str, attributes: &Attributes) -> String {
    let mut out = format!("{name}={value}; Path={}", attributes.path);
    if let Some(domain) = &attributes.domain {
        out.push_str("; Domain=");
        out.push_str(domain);
    }
    // A browser accepts a `__Secure-`, `__Host-` or Partitioned cookie, deletion included, only with `Secure`.
    if attributes.secure {
        out.push_str("; Secure");
    }
    if attributes.http_only {
        out.push_str("; HttpOnly");
    }
    if let Some(same_site) = &attributes.same_site {
        out.push_str("; SameSite=");
        out.push_str(same_site);
    }
    if attributes.partitioned {
        out.push_str("; Partitioned");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::profile::{Extract, NamePattern};
    use super::*;

    fn rules() -> Vec<CookieRule> {
        let rule =
            |name: &str, kind| CookieRule { name: NamePattern::parse(name), kind, extract: Extract::Whole };
        vec![rule("sess_id", CookieKind::Session), rule("remember*", CookieKind::Companion)]
    }

    fn forwarded(fields: &[&str]) -> (Option<String>, usize, usize) {
        let rules = rules();
        let parsed = RequestCookies::parse(fields.iter().map(|f| f.as_bytes()), &rules);
        let out = parsed.forwarded(|_, _| false).map(|bytes| String::from_utf8(bytes).unwrap());
        (out, parsed.tokens.len(), parsed.dropped)
    }

    #[test]
    fn tokens_are_found_over_all_fields_and_stripped() {
        let cases: [(&[&str], Option<&str>, usize, usize); 16] = [
            (&["a=1; sess_id=x; b=2"], Some("a=1; b=2"), 1, 0),
            (&["sess_id=x"], None, 1, 0),
            (&["sess_id=x; sess_id=y", "sess_id=z"], None, 3, 0),
            (&["remember_me=1;a=b"], Some("a=b"), 1, 0),
            (&["a=1"], Some("a=1"), 0, 0),
            (&["SESS_ID=x; a=1"], Some("a=1"), 0, 1),
            (&["sess.id=x; sess id=y; sess[id=z"], None, 0, 3),
            (&["%73ess_id=x"], None, 0, 1),
            (&["$Version=1; sess_id=x"], None, 1, 1),
            (&["a=\"1; sess_id=x; b=2\""], None, 1, 2),
            (&["a=1, sess_id=x"], None, 0, 1),
            (&["sess_id="], None, 0, 1),
            (&["=sess_id=x; [sess_id=x; >sess_id"], None, 0, 3),
            (&["\u{a0}sess_id=x; sess_id\u{3000}=x; \u{feff}sess_id=x"], None, 0, 3),
            (&["sess_id =x; sess_id= x; sess_id y=x"], None, 0, 3),
            (&["next=/?sess_id=x; a==b; xsess_id=1"], Some("next=/?sess_id=x; a==b; xsess_id=1"), 0, 0),
        ];
        for (fields, out, tokens, dropped) in cases {
            assert_eq!(forwarded(fields), (out.map(str::to_owned), tokens, dropped), "{fields:?}");
        }
    }

    #[test]
    fn more_tokens_than_a_browser_has_are_dropped() {
        for pair in ["sess_id=x; ", ".AspNetCore.Cookies=x; "] {
            let mut rules = rules();
            let name = NamePattern::parse(".AspNetCore.Cookies");
            rules.push(CookieRule { name, kind: CookieKind::Session, extract: Extract::Chunked });
            let header = pair.repeat(5000) + "a=1";
            let parsed = RequestCookies::parse(std::iter::once(header.as_bytes()), &rules);
            assert_eq!((parsed.tokens.len(), parsed.dropped), (MAX_PRESENTED, 5000 - MAX_PRESENTED));
            assert_eq!(parsed.forwarded(|_, _| false).as_deref(), Some(b"a=1".as_slice()));
            let kept = parsed.forwarded(|index, _| index == 0);
            assert_eq!(kept, Some(format!("{pair}a=1").into_bytes()), "none beyond reaches the app");
        }
    }

    #[test]
    fn harmless_headers_need_no_rewrite() {
        let rules = rules();
        for field in ["a=1; b=\"x y\"; c=1,2", "", "theme=dark;;lang=de"] {
            assert!(
                !RequestCookies::parse(std::iter::once(field.as_bytes()), &rules).needs_rewrite(),
                "{field}"
            );
        }
    }

    #[test]
    fn a_value_is_kept_byte_for_byte() {
        let now = Moment::from_unix_ms(0);
        for value in [b"caf\xe9".as_slice(), b"a=b", b"\"quoted\"", b"\xc3\xa9"] {
            let field = [b"sid= ", value, b" ; Path=/"].concat();
            assert_eq!(read_set_cookie(&field, "/", now).map(|set| set.value), Some(value.to_vec()));
        }
        assert!(read_set_cookie(b"sid=\"\"; Path=/", "/", now).is_some_and(|set| set.deletes));
    }

    #[test]
    fn set_cookie_is_read_and_deleted_with_its_attributes() {
        let now = Moment::from_unix_ms(1_700_000_000_000);
        let field = b"sid=v; Domain=.example.com; Secure; HttpOnly; SameSite=Strict; Priority=High";
        let set = read_set_cookie(field, "/app/login", now).unwrap();
        assert!(!set.deletes);
        assert_eq!(
            deletion(&set.name, &set.attributes),
            "sid=; Path=/app; Domain=example.com; Secure; HttpOnly; SameSite=Strict; Max-Age=0; \
             Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }

    #[test]
    fn deletions_are_recognised() {
        let now = Moment::from_unix_ms(1_700_000_000_000);
        for (field, deletes) in [
            ("sid=x; Max-Age=0", true),
            ("sid=x; Max-Age=-1", true),
            ("sid=deleted; Expires=Thu, 01 Jan 1970 00:00:01 GMT", true),
            ("sid=\"\"; Path=/", true),
            ("sid=x; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:01 GMT", false),
            ("sid=x", false),
            ("sid=x; Expires=Thu, 1 Jan 1970 0:00:00 UTC", true),
            ("sid=x; Max-Age=; Expires=Thu, 01 Jan 1970 00:00:01 GMT", true),
            ("sid=x; Max-Age=-", false),
        ] {
            assert_eq!(read_set_cookie(field.as_bytes(), "/", now).unwrap().deletes, deletes, "{field}");
        }
    }
}
