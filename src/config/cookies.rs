//! `cookie` and `companions` of an app.

use super::preset::Choice;
use super::raw::{Section, Value};
use crate::session::profile::{CookieKind, CookieRule, Extract, NamePattern};

/// Every rule is compared with every cookie of every request.
const MAX_COOKIES: usize = 32;

/// Reads both; what the file does not name is the preset's.
pub(super) fn read(section: &mut Section<'_>, choice: Choice) -> Vec<CookieRule> {
    let mut rules: Vec<CookieRule> = Vec::new();
    let own = choice.known().map_or(Extract::Whole, |preset| preset.extract);
    let cookie = section.value("cookie");
    refuse_no_cookie(section, cookie.as_ref(), choice);
    let companions = section.value("companions");
    for (value, kind) in [(&cookie, CookieKind::Session), (&companions, CookieKind::Companion)] {
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
            rules.push(rule(name, kind, own));
        }
    }
    let Some(preset) = choice.known() else { return rules };
    let session = preset.cookies.iter().filter(|_| cookie.is_none()).map(|name| (name, CookieKind::Session));
    let others = preset.companions.iter().filter(|_| companions.is_none());
    for (name, kind) in session.chain(others.map(|name| (name, CookieKind::Companion))) {
        let name = NamePattern::parse(name);
        // What the file says of a cookie holds above the preset.
        if !rules.iter().any(|rule| overlap(&rule.name, &name)) {
            rules.push(rule(name, kind, own));
        }
    }
    rules.sort_by_key(|rule| rule.kind == CookieKind::Companion);
    rules
}

/// A name that says how its id is taken out says it best; else the preset knows, for the session cookie.
fn rule(name: NamePattern, kind: CookieKind, own: Extract) -> CookieRule {
    let extract = match (Extract::for_name(name.stem()), kind) {
        (Extract::Whole, CookieKind::Session) => own,
        (known, CookieKind::Session | CookieKind::Companion) => known,
    };
    CookieRule { name, kind, extract }
}

fn refuse_no_cookie(section: &mut Section<'_>, cookie: Option<&Value<'_>>, choice: Choice) {
    const HINT: &str = "name the app's session cookie: cookie = \"JSESSIONID\", or a preset that knows it";
    match (cookie, choice) {
        (Some(empty), _) if empty.is_empty_list() => empty.fault("names no cookie", HINT),
        (None, Choice::Nothing) => drop(section.required("cookie", HINT)),
        (None, Choice::Known(preset)) if preset.cookies.is_empty() => {
            let hint =
                "each such app has a name of its own, look it up in a browser: cookie = \"_myapp_session\"";
            section.required("cookie", hint);
        }
        (Some(_), _) | (None, Choice::Known(_) | Choice::Unknown) => {}
    }
}

/// Companions need a place where a sign-in may revive a session (R3): without one the file's are a fault, and a preset's are
/// left out.
pub(super) fn settle_companions(section: &mut Section<'_>, rules: &mut Vec<CookieRule>, signs_in: bool) {
    match section.value("companions") {
        None if !signs_in => rules.retain(|rule| rule.kind == CookieKind::Session),
        None => {}
        Some(companions) => {
            let said = signs_in || section.value("login").is_some() || section.value("sign_in").is_some();
            if !said && !companions.is_empty_list() {
                let hint = "add login = \"/login\" or sign_in = [\"POST /login\"]: only a sign-in there may revive a session";
                section.sink.missing(&companions.at, "companions need login or sign_in", hint);
            }
        }
    }
}

/// A cookie's name, or a prefix of names with `*` at its end.
pub(super) fn cookie_pattern(text: &str) -> Result<NamePattern, (String, String)> {
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

/// Whether a cookie exists that both cover.
pub(super) fn overlap(a: &NamePattern, b: &NamePattern) -> bool {
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
