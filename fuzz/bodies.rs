//! What each fuzz target does with its bytes, and what must hold afterwards. Plain functions: cargo-fuzz calls them with
//! what it finds, `tests/fuzz.rs` with the committed corpus and simple mutations of it.

use std::path::Path;

use http::{HeaderMap, HeaderValue};
use tenure::config::check_text;
use tenure::proxy::frames::FrameTracker;
use tenure::proxy::login_form;
use tenure::proxy::upstream::read_in_pieces;
use tenure::session::Moment;
use tenure::session::cookie::{RequestCookies, deletion, read_set_cookie};
use tenure::session::device::Device;
use tenure::session::path::{normalise, strip_query};
use tenure::session::profile::{CookieKind, CookieRule, Extract, NamePattern};
use tenure::session::return_to::{from_referer, is_safe, login_location};

/// A fuzz target: its name, which is that of its corpus too, and its body.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    ("answer", answer),
    ("config", config),
    ("cookie_header", cookie_header),
    ("device", device),
    ("frames", frames),
    ("login_form", sign_in_form),
    ("path", path),
    ("return_to", return_to),
    ("set_cookie", set_cookie),
];

/// An answer of an app is the same however its bytes come, and no longer than they are.
pub(crate) fn answer(bytes: &[u8]) {
    let [step, rest @ ..] = bytes else { return };
    for asked in [http::Method::GET, http::Method::HEAD] {
        let whole = read_in_pieces(rest, rest.len(), &asked);
        let pieces = read_in_pieces(rest, usize::from(*step), &asked);
        assert!(whole.as_ref().is_none_or(|body| body.len() <= rest.len()));
        // What comes behind a head is refused in time or never; only then it may matter what had come before.
        if let (Some(whole), Some(pieces)) = (&whole, &pieces) {
            assert_eq!(whole, pieces, "in pieces of {step}");
        }
        assert_eq!(whole.is_some(), pieces.is_some(), "in pieces of {step}");
    }
}

/// A text is a configuration, or every fault names a place and a remedy.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match check_text("fuzz.toml", text, Path::new("/nonexistent")) {
        Ok(config) => assert!(!config.summary().is_empty()),
        Err(faults) => {
            let lines = text.lines().count().max(1);
            for fault in faults.as_slice() {
                assert!(
                    fault.line <= lines + 1 && !fault.message.is_empty() && !fault.hint.is_empty(),
                    "{fault:?}"
                );
            }
        }
    }
}

fn rules() -> Vec<CookieRule> {
    let names = ["JSESSIONID", "PHP.SESS", "remember-*", ".AspNetCore.Cookies"];
    let rule = |name: &str| CookieRule {
        name: NamePattern::parse(name),
        kind: CookieKind::Session,
        extract: Extract::for_name(name),
    };
    names.map(rule).into()
}

/// Law 6: what was stripped is found by nobody, and what is forwarded is read again as the same.
pub(crate) fn cookie_header(bytes: &[u8]) {
    let rules = rules();
    let fields = || bytes.split(|byte| *byte == b'\n');
    let parsed = RequestCookies::parse(fields(), &rules);
    if !parsed.needs_rewrite() {
        return;
    }
    for keep in [true, false] {
        let Some(forwarded) = parsed.forwarded(|_, _| keep) else { continue };
        let again = RequestCookies::parse(std::iter::once(&forwarded[..]), &rules);
        assert!(keep || again.tokens.is_empty(), "{bytes:?} leaves a token in {forwarded:?}");
        if again.needs_rewrite() {
            let twice = again.forwarded(|_, _| keep).unwrap_or_default();
            assert_eq!(twice, forwarded, "forwarding twice is forwarding once");
        }
    }
}

/// A cookie's deletion is a `Set-Cookie` that deletes the same cookie.
pub(crate) fn set_cookie(bytes: &[u8]) {
    let now = Moment::from_unix_ms(1_750_000_000_000);
    let Some(set) = read_set_cookie(bytes, "/app/login", now) else { return };
    let field = deletion(&set.name, &set.attributes);
    assert!(!field.chars().any(|c| c.is_ascii_control() && c != '\t'), "{field:?}");
    let again = read_set_cookie(field.as_bytes(), "/other", now).expect("a deletion is a Set-Cookie");
    assert!(again.deletes);
    assert_eq!((again.name, again.attributes.path), (set.name, set.attributes.path));
    assert_eq!(again.attributes.domain, set.attributes.domain);
}

/// What was normalised is in normal form, and no session id is left in it.
pub(crate) fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (raw, query) = text.split_once('?').unwrap_or((text, ""));
    let names = ["jsessionid"];
    let stripped = strip_query(query, &names).unwrap_or_else(|| query.to_owned());
    assert!(strip_query(&stripped, &names).is_none_or(|twice| twice == stripped), "{query:?}");
    if let Ok(normal) = normalise(raw, &names) {
        assert!(normal.path.starts_with('/'), "{raw:?}");
        let again = normalise(&normal.path, &names).expect("a normal path is a path");
        assert_eq!(again.path, normal.path, "{raw:?}");
        assert!(!normal.path.to_ascii_lowercase().contains(";jsessionid="), "{raw:?} -> {}", normal.path);
    }
}

/// A way back never leaves the origin, as a browser reads it (WHATWG URL: tab and newline fall away, `\` is `/`).
pub(crate) fn return_to(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let back = from_referer(text, "app.example").unwrap_or_else(|| text.to_owned());
    if is_safe(&back) {
        let read: String = back.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
        let read = read.replace('\\', "/");
        assert!(read.starts_with('/') && !read.starts_with("//"), "{back:?}");
    }
    let location = login_location("/login", Some("next"), Some(&back));
    assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location:?}");
    assert!(
        location == "/login"
            || location.starts_with("/login?next=%2F")
            || location.starts_with("/login?next=/")
    );
}

/// The first line is the content type, the second the query, the rest the body: no panic, and no control characters in a
/// name.
pub(crate) fn sign_in_form(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (kind, query, body) =
        (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(kind) {
        headers.insert(http::header::CONTENT_TYPE, value);
    }
    let query = query.and_then(|query| std::str::from_utf8(query).ok());
    for field in ["user", "/a/0/user"] {
        if let Ok(Some(user)) = login_form::user_of(&headers, query, body, field) {
            assert!(!user.trim().chars().any(char::is_control), "{user:?}");
        }
    }
}

/// However frames are cut into pieces, the tracker ends at the same place.
pub(crate) fn frames(bytes: &[u8]) {
    let (mut whole, mut pieces) = (FrameTracker::default(), FrameTracker::default());
    let frames = whole.follow(bytes);
    let by_bytes: usize = bytes.iter().map(|byte| pieces.follow(std::slice::from_ref(byte))).sum();
    assert_eq!((frames, whole.at_boundary()), (by_bytes, pieces.at_boundary()));
    let to = FrameTracker::default().up_to_boundary(bytes);
    assert!(to <= bytes.len());
}

/// Any `User-Agent` is read.
pub(crate) fn device(bytes: &[u8]) {
    let _ = Device::read(&String::from_utf8_lossy(bytes));
}
