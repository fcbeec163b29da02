//! What the gateway judged beside what the app parsed: cookie headers from a table, from the tests of other people's parsers
//! and from a seed pass through the gateway's own reading, and what it would forward is given to the parsers of real
//! frameworks. None of them may find a session cookie in it but the one that was kept (laws 6 and 7).
//!
//! `TENURE_DIFFERENTIAL=1000000` for more than the usual number of headers. `tests/differential/install.sh` installs the parsers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail loudly")]
#![allow(unreachable_pub, dead_code, reason = "what the tests share is larger than what each needs")]

mod drivers;
mod headers;
#[path = "../support/random.rs"]
mod random;
mod set_cookie;

use std::collections::{BTreeMap, BTreeSet};

use tenure::session::cookie::RequestCookies;
use tenure::session::profile::{CookieKind, CookieRule, Extract, NamePattern};

use drivers::{DRIVERS, Pairs};
use headers::{COOKIES, DEAD, Header, LIVE};
use random::Random;

/// As many as the drivers read in some seconds.
const USUAL: usize = 20_000;
/// One run of a driver: a header takes some 100 bytes on each side.
const BATCH: usize = 50_000;
/// So many headers at least must show a parser the dead value when nothing is stripped, or the test tests nothing.
const TELLING: usize = 100;

fn wanted() -> usize {
    std::env::var("TENURE_DIFFERENTIAL").ok().and_then(|text| text.parse().ok()).unwrap_or(USUAL)
}

fn rules() -> Vec<CookieRule> {
    let rule = |name: &&str| CookieRule {
        name: NamePattern::parse(name),
        kind: CookieKind::Session,
        extract: Extract::for_name(name),
    };
    COOKIES.iter().map(rule).collect()
}

/// A header after the gateway.
struct Passed {
    /// As sent.
    sent: Header,
    /// As the app meets it: one field.
    forwarded: Vec<u8>,
    /// The names of the tokens that were kept; all have the value [`LIVE`].
    kept: Vec<Vec<u8>>,
}

/// What the gateway makes of it when `live` says whether the value [`LIVE`] stands for a living session.
fn pass(sent: &Header, rules: &[CookieRule], live: bool) -> Option<Passed> {
    let cookies = RequestCookies::parse(sent.iter().map(Vec::as_slice), rules);
    let keep: Vec<bool> = cookies.tokens.iter().map(|token| live && *token.id == *LIVE).collect();
    let kept = cookies.tokens.iter().zip(&keep).filter(|(_, keep)| **keep);
    let kept = kept.map(|(token, _)| token.name.to_vec()).collect();
    let forwarded = if cookies.needs_rewrite() {
        cookies.forwarded(|index, _| keep[index])?
    } else {
        // Servers join several fields into one, as RFC 9113 wants it or as a list.
        sent.join(if sent[0].len().is_multiple_of(2) { b"; ".as_slice() } else { b", " })
    };
    Some(Passed { sent: sent.clone(), forwarded, kept })
}

/// The token that the app of this parser takes the name for: ASP.NET ignores case, PHP writes some characters as `_`.
fn token_of(parser: &str, name: &[u8]) -> Option<Vec<u8>> {
    let fold = |name: &[u8]| {
        let mangled = |b: &u8| if parser == "php" && matches!(b, b'.' | b' ' | b'[') { b'_' } else { *b };
        name.iter().map(mangled).collect::<Vec<u8>>().to_ascii_lowercase()
    };
    COOKIES.iter().find(|token| fold(token.as_bytes()) == fold(name)).map(|token| token.as_bytes().to_vec())
}

fn is_kept_value(value: &[u8]) -> bool {
    let bare = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    // The id of a servlet container may have the route of its node behind it (F3).
    bare == LIVE || bare.strip_prefix(LIVE).is_some_and(|route| route.starts_with(b"."))
}

/// Says what the law has against this reading, if anything.
fn fault(passed: &Passed, parser: &str, pairs: &Pairs) -> Option<String> {
    let wrong = pairs.iter().find(|(name, value)| {
        // CGI.pm reads `a&b` as two values. No Perl app has the route of a servlet container behind its id.
        let routed = parser == "CGI.pm" && name.eq_ignore_ascii_case(b"JSESSIONID");
        !routed
            && token_of(parser, name)
                .is_some_and(|token| !passed.kept.contains(&token) || !is_kept_value(value))
    });
    wrong.map(|(name, value)| {
        let sent: Vec<_> = passed.sent.iter().map(|field| field.escape_ascii().to_string()).collect();
        let (name, value) = (name.escape_ascii(), value.escape_ascii());
        format!("{parser} reads {name} as `{value}` in `{}`; sent: {sent:?}", passed.forwarded.escape_ascii())
    })
}

/// The faults that each parser finds, with their number; a few of each are enough to read.
fn faults(passed: &[Passed]) -> BTreeMap<String, Vec<String>> {
    let lines: Vec<&[u8]> = passed.iter().map(|p| p.forwarded.as_slice()).collect();
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for (driver, read) in drivers::run_all(DRIVERS, &lines) {
        assert_eq!(read.len(), lines.len(), "{}: an answer for each header", driver.name);
        for (passed, parsers) in passed.iter().zip(&read) {
            assert!(!parsers.is_empty(), "{}: no parser", driver.name);
            for (parser, pairs) in parsers {
                found.entry(parser.clone()).or_default().extend(fault(passed, parser, pairs));
            }
        }
    }
    found
}

fn check(headers: &[Header]) {
    let rules = rules();
    let both = headers.iter().flat_map(|h| [true, false].map(|live| pass(h, &rules, live)));
    // Most headers leave the gateway as one of a few; each needs to be read once.
    let mut seen = BTreeSet::new();
    let passed: Vec<Passed> =
        both.flatten().filter(|p| seen.insert((p.forwarded.clone(), p.kept.clone()))).collect();
    assert!(!passed.is_empty(), "no header was left to read");
    let found = faults(&passed);
    assert!(found.len() >= 12, "all parsers were asked: {:?}", found.keys());
    let count: usize = found.values().map(Vec::len).sum();
    let told: Vec<String> = found.into_values().flat_map(|f| f.into_iter().take(12)).collect();
    assert!(count == 0, "{count} faults, among them:\n{}", told.join("\n"));
}

fn corpus() -> Vec<Header> {
    let lines = drivers::python_corpus();
    assert!(lines.len() >= 20, "the packages' tests hold headers");
    // The headers of others hold none of our cookies: put one beside and into each.
    let with_token = |line: Vec<u8>| {
        let token = [b"sess_id=".as_slice(), DEAD].concat();
        let middle = line.len() / 2;
        let inside = [&line[..middle], &token, &line[middle..]].concat();
        [
            vec![[&line, b"; ".as_slice(), &token].concat()],
            vec![[&token, b"; ".as_slice(), &line].concat()],
            vec![inside],
            vec![line, token],
        ]
    };
    lines.into_iter().flat_map(with_token).collect()
}

#[test]
fn no_parser_reads_a_dead_token_in_the_table_or_in_the_packages_own_tests() {
    let mut headers = headers::table();
    headers.extend(corpus());
    check(&headers);
}

#[test]
fn no_parser_reads_a_dead_token_in_made_up_headers() {
    let mut left = wanted();
    let mut random = Random(1);
    while left > 0 {
        let size = left.min(BATCH);
        let batch: Vec<Header> = (0..size).map(|_| headers::made_up(&mut random)).collect();
        check(&batch);
        left -= size;
    }
}

/// The test of the test: without the gateway each parser meets the dead value.
#[test]
fn every_parser_reads_dead_tokens_that_nobody_stripped() {
    let mut random = Random(2);
    let lines: Vec<Vec<u8>> =
        (0..6000).map(|_| headers::made_up(&mut random).join(b"; ".as_slice())).collect();
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    for (_, read) in drivers::run_all(DRIVERS, &lines) {
        let mut dead = BTreeMap::<&str, usize>::new();
        for (parser, pairs) in read.iter().flatten() {
            let is_dead =
                |(name, value): &(Vec<u8>, Vec<u8>)| token_of(parser, name).is_some() && value == DEAD;
            *dead.entry(parser).or_default() += usize::from(pairs.iter().any(is_dead));
        }
        assert!(!dead.is_empty() && dead.values().all(|count| *count >= TELLING), "{dead:?}");
    }
}

/// Law 11: what names no token, in whatever spelling, and is well-formed (RFC 6265bis section 4.2.1) passes byte for byte.
#[test]
fn headers_without_tokens_pass_byte_for_byte() {
    let mut random = Random(3);
    let rules = rules();
    for _ in 0..USUAL {
        let header = headers::harmless(&mut random);
        let parsed = RequestCookies::parse(std::iter::once(header.as_slice()), &rules);
        assert!(!parsed.needs_rewrite(), "{}", header.escape_ascii());
    }
}

/// Law 7, the other way round: the session that we count as used is the one that the app finds.
#[test]
fn every_parser_finds_the_token_that_was_kept() {
    let mut random = Random(5);
    let rules = rules();
    let mut headers = headers::hiding();
    headers.extend((0..500).map(|_| headers::ordinary(&mut random)));
    let passed: Vec<Passed> =
        headers.iter().map(|h| pass(h, &rules, true).expect("a live token is kept")).collect();
    let lines: Vec<&[u8]> = passed.iter().map(|p| p.forwarded.as_slice()).collect();
    for (_, read) in drivers::run_all(DRIVERS, &lines) {
        for (passed, parsers) in passed.iter().zip(&read) {
            for (parser, pairs) in parsers {
                let finds = |(name, value): &(Vec<u8>, Vec<u8>)| name == b"sess_id" && is_kept_value(value);
                assert!(pairs.iter().any(finds), "{parser}: `{}`", passed.forwarded.escape_ascii());
            }
        }
    }
}
