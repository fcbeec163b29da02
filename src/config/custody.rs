//! `custody` and what goes with it: who keeps the app's cookies, and what an end does to them.

use http::Method;

use super::raw::{Section, Value};
use super::{cookies, value};
use crate::session::preset::{Preset, session_itself};
use crate::session::profile::{
    CookieKind, CookieRule, Extract, Harden, NamePattern, SameSite, vault_cookie_http, vault_cookie_https,
};

/// Who keeps the app's cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The browser; the gateway knows their hashes.
    Track,
    /// The gateway; the browser holds one cookie of the gateway's own.
    Vault,
}

impl Custody {
    /// The contract's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Vault => "vault",
        }
    }
}

/// `app_logout`: the request that ends the app's own session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppLogout {
    /// Its method.
    pub method: Method,
    /// Its path in normal form, perhaps with a query.
    pub path: String,
}

/// What the file says of custody, and what follows from it.
pub(super) struct Held {
    pub(super) custody: Custody,
    pub(super) i_accept_replay: bool,
    pub(super) pass_cookies: Vec<NamePattern>,
    pub(super) app_logout: Option<AppLogout>,
    pub(super) harden: Harden,
}

/// A list longer than this was generated, and by mistake; every pattern is compared with every cookie.
const MAX_PASSED: usize = 32;

pub(super) fn read(
    section: &mut Section<'_>,
    preset: Option<&'static Preset>,
    rules: &[CookieRule],
    app: &str,
) -> Held {
    let named = section.value("custody");
    let choices = [("track", Custody::Track), ("vault", Custody::Vault)];
    let needs_vault = preset.and_then(|preset| preset.needs_vault);
    let fallback = if needs_vault.is_some() { Custody::Vault } else { Custody::Track };
    // A word that is no custody is a fault already, and nothing more is said of what would follow from it.
    let chosen = named.as_ref().map_or(Some(fallback), |value| value.choice(&choices));
    let i_accept_replay = match chosen {
        Some(custody) => read_replay(section, custody, needs_vault, rules),
        None => section.flag("i_accept_replay", false),
    };
    let custody = chosen.unwrap_or(fallback);
    if custody == Custody::Vault {
        refuse_own_names(section, app);
    }
    Held {
        custody,
        i_accept_replay,
        pass_cookies: read_passed(section, preset, chosen, rules),
        app_logout: section.value("app_logout").and_then(|value| app_logout(&value)),
        harden: read_harden(section, chosen),
    }
}

/// Refuses `track` where it cannot hold and nobody accepted that; and the acceptance where there is nothing to accept.
fn read_replay(
    section: &mut Section<'_>,
    custody: Custody,
    needs_vault: Option<&'static str>,
    rules: &[CookieRule],
) -> bool {
    let session = rules.iter().filter(|rule| rule.kind == CookieKind::Session);
    let reason = needs_vault.or_else(|| session.filter_map(|rule| session_itself(&rule.name)).next());
    let reason = reason.filter(|_| custody == Custody::Track);
    let accepted = section.value("i_accept_replay");
    let accepts = accepted.as_ref().and_then(Value::flag).unwrap_or(false);
    match (&accepted, reason) {
        (Some(accepted), None) if accepts => {
            let message = "has no meaning: with this custody and cookie an end holds";
            accepted.fault(message, "remove it");
        }
        (_, Some(reason)) if !accepts => {
            let at = ["custody", "cookie", "preset"].into_iter().find_map(|key| section.value(key));
            let message = format!("with custody \"track\" an end would not hold: {reason}");
            let hint = "write custody = \"vault\", or i_accept_replay = true where copies of the cookie may outlive an end";
            section.sink.fault(&at.map_or_else(|| section.at.clone(), |value| value.at), message, hint);
        }
        (Some(_) | None, _) => {}
    }
    accepts
}

/// The gateway could not tell such a cookie of the app from its own.
fn refuse_own_names(section: &mut Section<'_>, app: &str) {
    let own = [vault_cookie_https(app), vault_cookie_http(app)];
    for key in ["cookie", "companions", "pass_cookies"] {
        for value in section.value(key).iter().flat_map(Value::one_or_more) {
            let name = value.as_text().map(NamePattern::parse).filter(|name| !name.stem().is_empty());
            let Some(taken) =
                name.and_then(|name| own.iter().find(|own| name.matches_any_case(own.as_bytes())))
            else {
                continue;
            };
            let hint = "name the app's cookie more closely, or give the app another name";
            value.fault(format!("covers {taken:?}, the gateway's own cookie"), hint);
        }
    }
}

fn read_passed(
    section: &mut Section<'_>,
    preset: Option<&'static Preset>,
    custody: Option<Custody>,
    rules: &[CookieRule],
) -> Vec<NamePattern> {
    let Some(value) = section.value("pass_cookies") else {
        let offered =
            preset.filter(|_| custody == Some(Custody::Vault)).map_or(&[][..], |preset| preset.pass_cookies);
        let patterns = offered.iter().map(|name| NamePattern::parse(name));
        return patterns.filter(|name| !rules.iter().any(|rule| reaches(name, rule))).collect();
    };
    let values = value.list();
    if custody == Some(Custody::Track) && !values.is_empty() {
        let message = "has no meaning with custody \"track\": every cookie goes to the browser";
        value.fault(message, "remove it, or write custody = \"vault\"");
        return Vec::new();
    }
    if let Some(beyond) = values.get(MAX_PASSED) {
        beyond.fault(format!("more than {MAX_PASSED} cookies"), "use a prefix: \"ui_*\"");
    }
    values.iter().filter_map(|value| passed(value, rules)).collect()
}

fn passed(value: &Value<'_>, rules: &[CookieRule]) -> Option<NamePattern> {
    const HINT: &str = "name the cookies that scripts of the page read, and no other";
    if value.as_text() == Some("*") {
        value.fault("\"*\" would let every cookie out of the vault", HINT);
        return None;
    }
    let name = value.read(cookies::cookie_pattern)?;
    if let Some(rule) = rules.iter().find(|rule| reaches(&name, rule)) {
        let (shown, other) = (cookies::show(&name), cookies::show(&rule.name));
        value.fault(format!("{shown:?} would let {other:?} out of the vault"), HINT);
        return None;
    }
    Some(name)
}

/// Whether a cookie of the rule, or a chunk of one, has a name that `name` covers.
fn reaches(name: &NamePattern, rule: &CookieRule) -> bool {
    let chunk = || match name {
        NamePattern::Exact(exact) => rule.chunk_of(exact.as_bytes()).is_some(),
        NamePattern::Prefix(_) => {
            let chunks = NamePattern::Prefix(format!("{}C", rule.name.stem()));
            rule.extract == Extract::Chunked && cookies::overlap(name, &chunks)
        }
    };
    cookies::overlap(name, &rule.name) || chunk()
}

/// `"off"`, or a method and a plain path. The method is always said: a guess could call a page that ends nothing.
fn app_logout(value: &Value<'_>) -> Option<AppLogout> {
    const METHODS: [Method; 5] = [Method::POST, Method::GET, Method::DELETE, Method::PUT, Method::PATCH];
    const HINT: &str =
        "write the method and the one path that signs people out: \"POST /logout\", or \"off\"";
    if value.as_text() == Some("off") {
        return None;
    }
    value.read(|text| {
        let wrong = |message: &str| (format!("{text:?} {message}"), HINT.to_owned());
        let (method, path) = text.split_once(' ').ok_or_else(|| wrong("is not a method and a path"))?;
        let method = METHODS.into_iter().find(|known| known.as_str() == method);
        let method = method.ok_or_else(|| wrong("does not start with POST, GET, DELETE, PUT or PATCH"))?;
        let path = value::parse_app_path(path)?;
        match value::is_pattern(&path) {
            true => Err(wrong("is a pattern")),
            false => Ok(AppLogout { method, path }),
        }
    })
}

/// One word of `harden`.
#[derive(Clone, Copy)]
enum Word {
    Secure,
    HttpOnly,
    SameSite(SameSite),
}

const WORDS: [(&str, Word); 5] = [
    ("secure", Word::Secure),
    ("httponly", Word::HttpOnly),
    ("samesite=lax", Word::SameSite(SameSite::Lax)),
    ("samesite=strict", Word::SameSite(SameSite::Strict)),
    ("samesite=none", Word::SameSite(SameSite::None)),
];

fn read_harden(section: &mut Section<'_>, custody: Option<Custody>) -> Harden {
    let mut harden = Harden::default();
    let Some(value) = section.value("harden") else { return harden };
    let words = value.list();
    if custody == Some(Custody::Vault) && !words.is_empty() {
        let message =
            "has no meaning with custody \"vault\": the app's session cookie never reaches the browser";
        value.fault(message, "remove it");
        return harden;
    }
    for word in &words {
        let twice = match word.choice(&WORDS) {
            Some(Word::Secure) => std::mem::replace(&mut harden.secure, true),
            Some(Word::HttpOnly) => std::mem::replace(&mut harden.http_only, true),
            Some(Word::SameSite(same_site)) => harden.same_site.replace(same_site).is_some(),
            None => false,
        };
        if twice {
            word.fault("says the same attribute twice", "name each attribute once");
        }
    }
    if harden.same_site == Some(SameSite::None) && !harden.secure {
        let hint = "add \"secure\": browsers refuse SameSite=None without it";
        section.sink.missing(&value.at, "\"samesite=none\" needs \"secure\"", hint);
    }
    harden
}
