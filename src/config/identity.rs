//! `[[app.identity]]`: the sources that may name a user.

use http::HeaderName;

use super::raw::{Section, Value};
use super::{app, cookies, jwt};
use crate::session::identity::{LoginForm, Names, SetsCookie, SourceKind, SourceRule, Success};
use crate::session::profile::CookieRule;

/// A session remembers its source in eight bits; nobody needs as many.
const MAX_SOURCES: usize = 32;

const KINDS: &[&str] =
    &["response-header", "login-form", "userinfo", "jwt-cookie", "jwt-header", "cookie", "request-header"];

/// Headers whose values are credentials: a name read from them would show a token.
const CREDENTIALS: &[&str] = &["cookie", "set-cookie", "authorization", "proxy-authorization"];

/// Reads all sources of one app. `session_cookies` are those that must never be shown.
pub(super) fn read_all(app: &mut Section<'_>, session_cookies: &[CookieRule]) -> Vec<SourceRule> {
    let sections = app.tables("identity");
    if let Some(beyond) = sections.get(MAX_SOURCES) {
        beyond.fault(format!("more than {MAX_SOURCES} identity sources"), "remove those that name nobody");
    }
    sections.into_iter().filter_map(|section| read(section, session_cookies)).collect()
}

fn read(mut section: Section<'_>, session_cookies: &[CookieRule]) -> Option<SourceRule> {
    let from = section.required("from", "write from = \"response-header\", the way the app names its user");
    let word = from.as_ref().and_then(Value::text);
    let kind = match word {
        Some("response-header") => names(&mut section, header).map(SourceKind::ResponseHeader),
        Some("request-header") => names(&mut section, header).map(SourceKind::RequestHeader),
        Some("login-form") => login_form(&mut section).map(SourceKind::LoginForm),
        Some("userinfo") => userinfo(&mut section),
        Some("cookie") => {
            names(&mut section, |value| plain_cookie(value, session_cookies)).map(SourceKind::Cookie)
        }
        Some("jwt-cookie") => jwt::in_cookie(&mut section),
        Some("jwt-header") => jwt::in_header(&mut section),
        Some(_) | None => {
            if let Some(value) = &from {
                value.choice(&KINDS.iter().map(|kind| (*kind, ())).collect::<Vec<_>>());
            }
            refuse_misplaced(&section);
            return None;
        }
    };
    // R9: what a browser typed, or could have set itself, gives no role unless the operator says so.
    let trusted = !matches!(word, Some("login-form" | "cookie"));
    let grants_roles = section.flag("grants_roles", trusted);
    section.finish_with(|key| app::belongs_to_app(key, "[[app.identity]]"));
    kind.map(|kind| SourceRule { kind, grants_roles })
}

/// Without its kind nothing can be said of a source's keys, unless they belong to the app.
fn refuse_misplaced(section: &Section<'_>) {
    const SHARED: &[&str] = &["user", "tenant", "roles", "name", "path"];
    for (key, value) in section.entries() {
        let hint = app::belongs_to_app(key, "[[app.identity]]").filter(|_| !SHARED.contains(&key));
        if let Some(hint) = hint {
            value.fault("unknown key", hint);
        }
    }
}

/// `user`, and perhaps `tenant` and `roles`, each read in the same way.
pub(super) fn names<'t, T>(
    section: &mut Section<'t>,
    read: impl Fn(&Value<'t>) -> Option<T>,
) -> Option<Names<T>> {
    let user = section.required("user", "name where the user stands: user = \"...\"");
    let tenant = section.value("tenant").and_then(|value| read(&value));
    let roles = section.value("roles").and_then(|value| read(&value));
    Some(Names { user: read(&user?)?, tenant, roles })
}

/// A header that names something, and is no credential.
pub(super) fn header(value: &Value<'_>) -> Option<HeaderName> {
    let name = value.header()?;
    if CREDENTIALS.contains(&name.as_str()) {
        value.fault(
            format!("{name} carries credentials, no names"),
            "name the header that carries the name alone",
        );
        return None;
    }
    Some(name)
}

fn plain_cookie(value: &Value<'_>, session_cookies: &[CookieRule]) -> Option<String> {
    let name = value.read(cookies::cookie_name)?;
    if session_cookies.iter().any(|rule| rule.covers(name.as_bytes())) {
        let hint = "name the second cookie that holds the user's name in clear text";
        value.fault(format!("{name:?} is a cookie that must never be shown"), hint);
        return None;
    }
    Some(name)
}

fn userinfo(section: &mut Section<'_>) -> Option<SourceKind> {
    let path = section.required("path", "name the app's path that says who is signed in: path = \"/api/me\"");
    let names = names(section, pointer);
    let path = path.and_then(|path| path.app_path());
    Some(SourceKind::UserInfo { path: path?, names: names? })
}

/// A JSON pointer, RFC 6901.
fn pointer(value: &Value<'_>) -> Option<jsonptr::PointerBuf> {
    value.read(|text| {
        let hint =
            || format!("write where it stands in the JSON answer: \"/{}\"", text.trim_start_matches('/'));
        let parsed = jsonptr::PointerBuf::parse(text).ok().filter(|pointer| !pointer.is_root());
        parsed.ok_or_else(|| (format!("{text:?} is not a JSON pointer"), hint()))
    })
}

fn login_form(section: &mut Section<'_>) -> Option<LoginForm> {
    let path = section.required("path", "name where the form is posted to: path = \"/login\"");
    let user = section.required("user", "name the form's field: user = \"username\"");
    let success = read_success(section.sub("success"));
    let (path, user) = (path.and_then(|path| path.pattern()), user.and_then(|user| read_field(&user)));
    Some(LoginForm { path: path?, user: user?, success })
}

fn read_field(value: &Value<'_>) -> Option<String> {
    value.read(|text| {
        if text.is_empty() || text.len() > 256 {
            return Err((
                format!("{text:?} is not a field's name"),
                "write the name of the input: \"username\"".into(),
            ));
        }
        Ok(text.to_owned())
    })
}

fn read_success(mut section: Section<'_>) -> Success {
    let status = section.value("status");
    let status = status.iter().flat_map(Value::one_or_more).filter_map(|value| value.whole(100..600));
    let success = Success {
        status: status.filter_map(|status| u16::try_from(status).ok()).collect(),
        location_not: section.value("location_not").and_then(|value| location(&value)),
        location: section.value("location").and_then(|value| location(&value)),
        sets_cookie: section.value("sets_cookie").map(|value| sets_cookie(&value)).unwrap_or_default(),
    };
    section.finish();
    success
}

fn location(value: &Value<'_>) -> Option<String> {
    value.read(|text| {
        let inner = text.strip_suffix('*').unwrap_or(text);
        if text.starts_with('/') && !inner.contains('*') {
            return Ok(text.to_owned());
        }
        let hint = "write a path, with \"*\" at its end for all that start so: \"/login*\"";
        Err((format!("{text:?} is not a path"), hint.to_owned()))
    })
}

fn sets_cookie(value: &Value<'_>) -> SetsCookie {
    match value.as_flag() {
        Some(true) => SetsCookie::Session,
        Some(false) => SetsCookie::NotNeeded,
        None => {
            let names = value.one_or_more();
            SetsCookie::Named(names.iter().filter_map(|name| name.read(cookies::cookie_name)).collect())
        }
    }
}
