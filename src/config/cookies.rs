//! `cookie` and `companions` of an app.

use super::raw::{Section, Value};
use crate::session::profile::{CookieKind, CookieRule, Extract, NamePattern};

/// Every rule is compared with every cookie of every request.
const MAX_COOKIES: usize = 32;

/// Reads both; `signs_in` says whether the app names `login` or `sign_in`.
pub(super) fn read(section: &mut Section<'_>, signs_in: bool) -> Vec<CookieRule> {
    let hint = "name the app's session cookie: cookie = \"JSESSIONID\"";
    let cookie = section.required("cookie", hint);
    let companions = section.value("companions");
    if let Some(empty) = cookie.as_ref().filter(|value| value.is_empty_list()) {
        empty.fault("names no cookie", hint);
    }
    if let Some(companions) = companions.as_ref().filter(|value| !signs_in && !value.is_empty_list()) {
        let hint = "add login = \"/login\" or sign_in = [\"POST /login\"]: only a sign-in there may revive a session";
        section.sink.missing(&companions.at, "companions need login or sign_in", hint);
    }
    let mut rules: Vec<CookieRule> = Vec::new();
    for (value, kind) in [(cookie, CookieKind::Session), (companions, CookieKind::Companion)] {
        for value in value.iter().flat_map(Value::one_or_more) {
            let Some(name) = value.read(cookie_pattern) else { continue };
            if let Some(other) = rules.iter().find(|rule| overlap(&rule.name, &name)) {
                let message = format!("{:?} covers the same cookie as {:?}", show(&name), show(&other.name));
                value.fault(message, "list a cookie once, as cookie or as companion");
            }
            if rules.len() == MAX_COOKIES {
                value.fault(format!("more than {MAX_COOKIES} cookies"), "use a prefix: \"remember_*\"");
                break;
            }
            rules.push(CookieRule { extract: Extract::for_name(name.stem()), name, kind });
        }
    }
    rules
}

/// A cookie's name, or a prefix of names with `*` at its end.
fn cookie_pattern(text: &str) -> Result<NamePattern, (String, String)> {
    let pattern = NamePattern::parse(text);
    match is_cookie_name(pattern.stem()) {
        true => Ok(pattern),
        false => Err(no_cookie_name(text)),
    }
}

/// A cookie's name by RFC 6265.
pub(super) fn cookie_name(text: &str) -> Result<String, (String, String)> {
    if is_cookie_name(text) { Ok(text.to_owned()) } else { Err(no_cookie_name(text)) }
}

fn is_cookie_name(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(token)
}

fn no_cookie_name(text: &str) -> (String, String) {
    let hint = "letters, digits, \"-\", \"_\" and \".\"; a \"*\" only at the end of a prefix";
    (format!("{text:?} is not a cookie name"), hint.to_owned())
}

fn overlap(a: &NamePattern, b: &NamePattern) -> bool {
    match (a, b) {
        (NamePattern::Prefix(a), NamePattern::Prefix(b)) => a.starts_with(b) || b.starts_with(a),
        (pattern, NamePattern::Exact(name)) | (NamePattern::Exact(name), pattern) => {
            pattern.matches(name.as_bytes())
        }
    }
}

/// The name as the file writes it.
pub(super) fn show(name: &NamePattern) -> String {
    match name {
        NamePattern::Exact(text) => text.clone(),
        NamePattern::Prefix(text) => format!("{text}*"),
    }
}
