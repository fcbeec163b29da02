//! The jar's rules, one case a line: what was set where, what is asked, which `Cookie` header goes out.

use crate::support::browser::{From, Jar, Url, date};

const NOW: i64 = 1_800_000_000;

type Set = (&'static str, &'static str);

fn url(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|| panic!("{text} is a URL"))
}

fn sent(jar: &Jar, ask: &str, from: From, now: i64) -> String {
    let pairs = jar.pairs(&url(ask), from, now).join(&b"; "[..]);
    pairs.into_iter().map(char::from).collect()
}

fn check(rule: &str, set: &[Set], ask: &str, expected: &str) {
    let mut jar = Jar::default();
    for (from, line) in set {
        jar.learn(&url(from), line.as_bytes(), NOW);
    }
    assert_eq!(sent(&jar, ask, From::SameSite, NOW), expected, "{rule}");
}

const A: &str = "http://a.example.com/";
const S: &str = "https://a.org/";

/// The rule, what was set, what is asked, which header goes out.
type Case = (&'static str, &'static [Set], &'static str, &'static str);

fn check_all(cases: &[Case]) {
    assert!(cases.len() >= 10);
    for (rule, set, ask, expected) in cases {
        check(rule, set, ask, expected);
    }
}

#[test]
fn names_and_values_are_read_as_the_rfc_says() {
    check_all(&[
        ("a plain cookie comes back", &[(A, "s=1")], A, "s=1"),
        ("blanks around name and value go", &[(A, " s = 1 ; Path=/")], A, "s=1"),
        ("quotes belong to the value", &[(A, "s=\"1\"")], A, "s=\"1\""),
        ("a value may hold equal signs", &[(A, "s=a=b==")], A, "s=a=b=="),
        ("a nameless cookie is its value", &[(A, "alone")], A, "alone"),
        ("an empty name is a nameless cookie", &[(A, "=alone")], A, "alone"),
        ("an empty value is a value", &[(A, "s=")], A, "s="),
        ("nothing at all is ignored", &[(A, "=; Path=/")], A, ""),
        ("a control byte spoils the line", &[(A, "s=1\u{1}2")], A, ""),
        ("names are told apart by case", &[(A, "s=1"), (A, "S=2")], A, "s=1; S=2"),
        ("the last value wins and keeps its place", &[(A, "s=1"), (A, "t=1"), (A, "s=2")], A, "s=2; t=1"),
    ]);
}

#[test]
fn domains_match_as_the_rfc_says() {
    check_all(&[
        ("without Domain it is for the host alone", &[(A, "s=1")], "http://x.a.example.com/", ""),
        ("with Domain it goes below", &[(A, "s=1; Domain=example.com")], "http://b.example.com/", "s=1"),
        ("a leading dot is ignored", &[(A, "s=1; Domain=.Example.COM")], "http://b.example.com/", "s=1"),
        ("a foreign Domain is refused", &[(A, "s=1; Domain=b.example.com")], "http://b.example.com/", ""),
        (
            "a Domain below the host is refused",
            &[(A, "s=1; Domain=x.a.example.com")],
            "http://x.a.example.com/",
            "",
        ),
        ("half a label is no match", &[("http://badexample.com/", "s=1; Domain=example.com")], A, ""),
        ("a public suffix is refused", &[("http://a.co.uk/", "s=1; Domain=co.uk")], "http://a.co.uk/", ""),
        ("a top level is refused", &[(A, "s=1; Domain=com")], A, ""),
        ("an empty Domain is none", &[(A, "s=1; Domain=")], A, "s=1"),
        ("the last Domain counts", &[(A, "s=1; Domain=other.org; Domain=example.com")], A, "s=1"),
        ("an address takes no Domain", &[("http://10.0.0.1/", "s=1; Domain=0.0.1")], "http://10.0.0.1/", ""),
        (
            "host-only and Domain are two cookies",
            &[(A, "s=1"), (A, "s=2; Domain=a.example.com")],
            A,
            "s=1; s=2",
        ),
        ("ports share cookies", &[("http://a.example.com:81/", "s=1")], "http://a.example.com:82/", "s=1"),
    ]);
}

#[test]
fn paths_match_and_order_as_the_rfc_says() {
    check_all(&[
        ("the default path is the folder", &[("http://a.org/x/y", "s=1")], "http://a.org/x/z", "s=1"),
        ("the default path keeps others out", &[("http://a.org/x/y", "s=1")], "http://a.org/z", ""),
        ("the default path of the top is the top", &[("http://a.org/x", "s=1")], "http://a.org/z", "s=1"),
        ("Path covers itself", &[(A, "s=1; Path=/x")], "http://a.example.com/x", "s=1"),
        ("Path covers what is below", &[(A, "s=1; Path=/x")], "http://a.example.com/x/y?q", "s=1"),
        ("Path does not cover a longer name", &[(A, "s=1; Path=/x")], "http://a.example.com/xy", ""),
        ("Path with a slash does not cover without", &[(A, "s=1; Path=/x/")], "http://a.example.com/x", ""),
        ("Path is told apart by case", &[(A, "s=1; Path=/X")], "http://a.example.com/x", ""),
        ("a Path without slash is the default path", &[(A, "s=1; Path=x")], A, "s=1"),
        (
            "longer paths first",
            &[(A, "s=1; Path=/"), (A, "s=2; Path=/x")],
            "http://a.example.com/x",
            "s=2; s=1",
        ),
        ("equal paths by age", &[(A, "b=1"), (A, "a=2"), (A, "c=3")], A, "b=1; a=2; c=3"),
    ]);
}

#[test]
fn secure_connections_and_prefixes_are_held() {
    check_all(&[
        ("Secure is not set over HTTP", &[(A, "s=1; Secure")], "https://a.example.com/", ""),
        ("Secure does not go over HTTP", &[("https://a.example.com/", "s=1; Secure")], A, ""),
        ("Secure goes over HTTPS", &[(S, "s=1; secure")], S, "s=1"),
        (
            "the machine itself is trusted",
            &[("http://a.localhost/", "s=1; Secure")],
            "http://a.localhost/",
            "s=1",
        ),
        ("HTTP lays nothing over a secure cookie", &[(S, "s=1; Secure"), ("http://a.org/", "s=2")], S, "s=1"),
        ("__Secure- wants Secure", &[(S, "__Secure-s=1")], S, ""),
        ("__Secure- with Secure", &[(S, "__Secure-s=1; Secure")], S, "__Secure-s=1"),
        ("__Host- wants Path=/", &[(S, "__Host-s=1; Secure")], S, ""),
        ("__Host- takes no Domain", &[(S, "__Host-s=1; Secure; Path=/; Domain=a.org")], S, ""),
        ("__Host- in order", &[(S, "__Host-s=1; Secure; Path=/")], S, "__Host-s=1"),
        ("prefixes in any case", &[(S, "__hOST-s=1; Secure")], S, ""),
        ("no prefix by a nameless cookie", &[(S, "=__Host-s=1; Secure; Path=/")], S, ""),
        ("SameSite=None wants Secure", &[(A, "s=1; SameSite=None")], A, ""),
        ("Partitioned wants Secure", &[(A, "s=1; Partitioned")], A, ""),
        (
            "partitioned cookies stand beside others",
            &[(S, "s=1; Secure"), (S, "s=2; Secure; Partitioned")],
            S,
            "s=1; s=2",
        ),
    ]);
}

#[test]
fn a_cookie_is_deleted_only_by_its_own_attributes() {
    const A: &str = "https://a.example.com/";
    const FIRST: &str = "s=1; Path=/; Domain=example.com; Secure; Partitioned";
    let cases: &[(&str, &str, &str)] = &[
        ("the same attributes", "s=; Path=/; Domain=example.com; Secure; Partitioned; Max-Age=0", ""),
        ("no Domain", "s=; Path=/; Secure; Partitioned; Max-Age=0", "s=1"),
        ("another Path", "s=; Path=/x; Domain=example.com; Secure; Partitioned; Max-Age=0", "s=1"),
        ("not Partitioned", "s=; Path=/; Domain=example.com; Secure; Max-Age=0", "s=1"),
        ("another name", "S=; Path=/; Domain=example.com; Secure; Partitioned; Max-Age=0", "s=1"),
        ("another Domain", "s=; Path=/; Domain=a.example.com; Secure; Partitioned; Max-Age=0", "s=1"),
        (
            "HttpOnly and SameSite do not matter",
            "s=; Path=/; Domain=example.com; Secure; Partitioned; HttpOnly; SameSite=Strict; Max-Age=0",
            "",
        ),
    ];
    assert!(!cases.is_empty());
    for (rule, deletion, expected) in cases {
        check(rule, &[(A, FIRST), (A, deletion)], A, expected);
    }
    const B: &str = "http://b.org/";
    check("by a date in the past", &[(B, "s=1"), (B, "s=; Expires=Thu, 01 Jan 1970 00:00:00 GMT")], B, "");
}

#[test]
fn cookies_expire_in_time() {
    // 1_800_000_000 is 2027-01-15 08:00:00 UTC.
    let cases: &[(&str, &str, i64, bool)] = &[
        ("a session cookie stays", "s=1", 10_000_000_000, true),
        ("Max-Age before", "s=1; Max-Age=10", 9, true),
        ("Max-Age after", "s=1; Max-Age=10", 10, false),
        ("Max-Age=0", "s=1; Max-Age=0", 0, false),
        ("negative Max-Age", "s=1; Max-Age=-5", 0, false),
        ("Max-Age of letters is ignored", "s=1; Max-Age=1x", 100, true),
        ("Max-Age with a plus is ignored", "s=1; Max-Age=+0", 100, true),
        ("Max-Age beats Expires", "s=1; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT", 5, true),
        ("Max-Age beats a later Expires", "s=1; Max-Age=1; Expires=Fri, 01 Jan 2027 00:00:00 GMT", 5, false),
        ("Expires before", "s=1; Expires=Fri, 15 Jan 2027 08:00:10 GMT", 9, true),
        ("Expires after", "s=1; Expires=Fri, 15 Jan 2027 08:00:10 GMT", 10, false),
        ("the old form of a date", "s=1; Expires=Friday, 15-Jan-27 08:00:10 GMT", 10, false),
        ("asctime's form of a date", "s=1; Expires=Fri Jan 15 08:00:10 2027", 10, false),
        ("an unreadable date is ignored", "s=1; Expires=tomorrow", 100, true),
        ("no cookie outlives 400 days", "s=1; Max-Age=99999999999999999999", 400 * 86_400, false),
        ("attributes in any case", "s=1; MAX-AGE=10", 10, false),
    ];
    assert!(!cases.is_empty());
    for (rule, line, later, kept) in cases {
        let mut jar = Jar::default();
        jar.learn(&url("http://a.org/"), line.as_bytes(), NOW);
        let expected = if *kept { "s=1" } else { "" };
        assert_eq!(sent(&jar, "http://a.org/", From::SameSite, NOW + later), expected, "{rule}");
    }
}

#[test]
fn dates_are_read_in_every_order() {
    let expected = Some(784_111_777);
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "8:49:37 6 november 1994",
        "1994 6 Nov 08:49:37",
    ] {
        assert_eq!(date(text), expected, "{text}");
    }
    for text in ["", "Nov 1994", "32 Nov 1994 08:49:37", "06 Nov 1994 24:00:00", "06 Nov 1600 00:00:00"] {
        assert_eq!(date(text), None, "{text}");
    }
}

#[test]
fn same_site_keeps_cookies_from_strangers() {
    let cases: &[(&str, bool, bool)] = &[
        ("s=1; Secure; SameSite=Strict", false, false),
        ("s=1; Secure; SameSite=Lax", true, false),
        ("s=1; Secure", true, false),
        ("s=1; Secure; SameSite=odd", true, false),
        ("s=1; Secure; SameSite=None", true, true),
    ];
    assert!(!cases.is_empty());
    for (line, by_link, by_script) in cases {
        let mut jar = Jar::default();
        jar.learn(&url("https://a.org/"), line.as_bytes(), NOW);
        let goes = |from| !sent(&jar, "https://a.org/", from, NOW).is_empty();
        assert!(goes(From::SameSite), "{line}");
        assert_eq!(goes(From::CrossSiteNavigation), *by_link, "{line}");
        assert_eq!(goes(From::CrossSite), *by_script, "{line}");
    }
}

#[test]
fn bytes_pass_through_unchanged() {
    let mut jar = Jar::default();
    jar.learn(&url("http://a.org/"), b"s=caf\xe9\xff", NOW);
    assert_eq!(jar.pairs(&url("http://a.org/"), From::SameSite, NOW), vec![b"s=caf\xe9\xff".to_vec()]);
}

#[test]
fn too_much_is_refused() {
    let mut jar = Jar::default();
    let (home, long) = (url("http://a.org/"), "x".repeat(4097));
    assert!(!jar.learn(&home, format!("s={long}").as_bytes(), NOW));
    assert!(
        jar.learn(&home, format!("s=1; Path=/{long}").as_bytes(), NOW),
        "an overlong attribute alone is ignored"
    );
    for number in 0..200 {
        jar.learn(&home, format!("c{number}=1").as_bytes(), NOW);
    }
    assert_eq!(jar.all().len(), 180);
    assert!(
        jar.all().iter().all(|cookie| cookie.name != "s" && cookie.name != "c0"),
        "the oldest went first"
    );
}

#[test]
fn scripts_do_not_see_http_only_cookies() {
    let (mut jar, home) = (Jar::default(), url("http://a.org/"));
    jar.learn(&home, b"seen=1", NOW);
    jar.learn(&home, b"hidden=1; HttpOnly", NOW);
    assert_eq!(jar.document_cookie(&home, NOW), "seen=1");
    assert_eq!(sent(&jar, "http://a.org/", From::SameSite, NOW), "seen=1; hidden=1");
}

#[test]
fn closing_the_browser_ends_session_cookies() {
    let (mut jar, home) = (Jar::default(), url("http://a.org/"));
    jar.learn(&home, b"session=1", NOW);
    jar.learn(&home, b"lasting=1; Max-Age=100", NOW);
    jar.end_browser_session();
    assert_eq!(sent(&jar, "http://a.org/", From::SameSite, NOW), "lasting=1");
}

#[test]
fn references_lead_where_browsers_go() {
    let cases: &[(&str, &str)] = &[
        ("/x", "http://a.org/x"),
        ("x?y=1", "http://a.org/one/x?y=1"),
        ("../x", "http://a.org/x"),
        ("/%2e%2E/./x/", "http://a.org/x/"),
        ("?q=2", "http://a.org/one/two?q=2"),
        ("", "http://a.org/one/two?q=1"),
        ("#part", "http://a.org/one/two?q=1"),
        ("//evil.org/x", "http://evil.org/x"),
        ("/\\evil.org/x", "http://evil.org/x"),
        ("\\\\evil.org", "http://evil.org/"),
        ("/\t/evil.org/", "http://evil.org/"),
        ("https:evil.org", "https://evil.org/"),
        ("HTTP:///evil.org/x", "http://evil.org/x"),
        ("http://user:word@evil.org:81/", "http://evil.org:81/"),
        ("/%09/evil.org", "http://a.org/%09/evil.org"),
        ("/a b", "http://a.org/a%20b"),
    ];
    assert!(!cases.is_empty());
    let base = url("http://a.org/one/two?q=1");
    for (reference, expected) in cases {
        assert_eq!(
            base.join(reference).map(|url| url.to_string()).as_deref(),
            Some(*expected),
            "{reference}"
        );
    }
    assert_eq!(base.join("javascript:alert(1)"), None);
}
