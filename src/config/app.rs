//! `[[app]]`: where an app is, its cookies, its paths, and what holds for it.

use std::num::NonZeroUsize;

use super::raw::{Mark, Section, Sink, Value};
use super::{App, MethodPath, StoreKind, cookies, custody, hosts, identity, policy, preset, upstream, value};
use crate::session::Moment;
use crate::session::activity::InactiveRule;
use crate::session::gate::Unseen;
use crate::session::identity::{SourceKind, SourceRule, UserCase, normal_name};
use crate::session::layers::Layer;
use crate::session::path::Pattern;
use crate::session::preset::Preset;

/// Keys of `[[app]]`; a line below `[[app.identity]]` or `[app.policy]` lands in the wrong table.
const KEYS: &[&str] = &[
    "name",
    "hosts",
    "upstream",
    "preset",
    "cookie",
    "companions",
    "custody",
    "i_accept_replay",
    "pass_cookies",
    "login",
    "logout",
    "public",
    "inactive",
    "sign_in",
    "return_to",
    "unseen",
    "adopt_until",
    "enforce",
    "tenant",
    "user_case",
    "require_user",
    "unidentified",
    "websocket_activity",
    "app_logout",
    "app_commands",
    "harden",
    "clear_on_end",
    "max_upstream_connections",
];

/// Far more apps than one gateway serves; numbers of apps are kept in 16 bits.
const MAX_APPS: usize = 1000;

/// An app with its own layer of policy and the places that later checks speak of.
pub(super) struct ReadApp {
    pub(super) app: App,
    pub(super) layer: Layer,
    pub(super) name_at: Mark,
    pub(super) hosts_at: Mark,
    /// Where it says that it adopts cookies.
    pub(super) adopts_at: Option<Mark>,
}

/// An end that is forgotten would let its cookie be adopted again (R14).
pub(super) fn refuse_adoption_in_memory(sink: &Sink<'_>, apps: &[ReadApp], store: &StoreKind) {
    for at in apps.iter().filter_map(|read| read.adopts_at.as_ref()).filter(|_| *store == StoreKind::Memory) {
        let message = "\"adopt\" needs a store that outlives a restart";
        sink.fault(at, message, "name a directory: [store] path = \"data\"");
    }
}

/// Where a key belongs that stands below one of an app's own tables.
pub(super) fn belongs_to_app(key: &str, table: &str) -> Option<String> {
    KEYS.contains(&key)
        .then(|| format!("{key:?} belongs to [[app]]: move the line above the app's first {table}"))
}

pub(super) fn read_all(root: &mut Section<'_>) -> Vec<ReadApp> {
    let hint = "write [[app]] with upstream = \"http://127.0.0.1:3000\" and cookie = \"JSESSIONID\"";
    let sections = match root.required("app", hint) {
        Some(empty) if empty.is_empty_list() => {
            empty.fault("names no app", hint);
            Vec::new()
        }
        Some(_) => root.tables("app"),
        None => Vec::new(),
    };
    if let Some(beyond) = sections.get(MAX_APPS) {
        beyond.fault(format!("more than {MAX_APPS} apps"), "start a second gateway for the rest");
    }
    let apps: Vec<_> = sections.into_iter().enumerate().map(|(i, section)| read(section, i)).collect();
    for (i, later) in apps.iter().enumerate() {
        if apps[..i].iter().any(|earlier| earlier.app.name == later.app.name) {
            let message = format!("the name {:?} is taken by another app", later.app.name);
            root.sink.fault(&later.name_at, message, "give each app a name of its own: name = \"crm\"");
        }
    }
    hosts::refuse_overlaps(root.sink, &apps);
    apps
}

fn read(mut section: Section<'_>, index: usize) -> ReadApp {
    let name = section.value("name");
    let hosts = section.value("hosts");
    let user_case = read_case(&mut section);
    let choice = preset::read(&mut section);
    let preset = choice.known();
    let mut cookies = cookies::read(&mut section, choice);
    let identity = identity::read_all(&mut section, &cookies);
    let declared = declared_sign_in(section.value("sign_in").as_ref(), &identity);
    let login = read_login(&mut section, preset, declared.as_deref());
    let sign_in = declared.unwrap_or_else(|| usual_sign_in(login.as_deref(), preset));
    cookies::settle_companions(&mut section, &mut cookies, login.is_some() || !sign_in.is_empty());
    let (unseen, adopt_until, adopts_at) = read_unseen(&mut section);
    let at = |value: &Option<Value<'_>>| value.as_ref().map_or_else(|| section.at.clone(), |v| v.at.clone());
    let (name_at, hosts_at) = (at(&name), at(&hosts));
    let name = name.and_then(|value| read_name(&value)).unwrap_or_else(|| default_name(index));
    let held = custody::read(&mut section, preset, &cookies, &name);
    let mut app = App {
        name,
        hosts: hosts.iter().flat_map(Value::one_or_more).filter_map(|value| hosts::read(&value)).collect(),
        upstream: upstream::read(&mut section),
        preset,
        filled: Vec::new(),
        cookies,
        custody: held.custody,
        pass_cookies: held.pass_cookies,
        i_accept_replay: held.i_accept_replay,
        app_logout: held.app_logout,
        app_commands: section.flag("app_commands", false),
        harden: held.harden,
        clear_on_end: section.flag("clear_on_end", false),
        logout: read_logout(&mut section, preset),
        public: section.list("public").iter().filter_map(Value::pattern).collect(),
        inactive: section.list("inactive").iter().filter_map(|value| value.read(inactive)).collect(),
        sign_in,
        return_to: read_return_to(&mut section, login.is_some()),
        login,
        unseen,
        adopt_until,
        enforce: section.flag("enforce", true),
        tenant: read_tenant(&mut section, user_case),
        user_case,
        require_user: read_require_user(&mut section, &identity),
        pass_unidentified: section
            .value("unidentified")
            .and_then(|value| value.choice(&[("pass", true), ("refuse", false)]))
            .unwrap_or(true),
        websocket_activity: section.flag("websocket_activity", false),
        max_upstream_connections: section
            .value("max_upstream_connections")
            .and_then(|value| value.whole(1..65_536))
            .and_then(|most| NonZeroUsize::new(usize::try_from(most).ok()?))
            .unwrap_or(DEFAULT_CONNECTIONS),
        identity,
    };
    app.filled = preset::filled(&mut section, &app);
    let layer = policy::read_app_layer(section.sub("policy"));
    section.finish_with(|key| policy::is_setting(key).then(|| format!("write [app.policy] above {key:?}")));
    ReadApp { app, layer, name_at, hosts_at, adopts_at }
}

const DEFAULT_CONNECTIONS: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(connections) => connections,
    None => NonZeroUsize::MIN,
};

fn default_name(index: usize) -> String {
    if index == 0 { "app".to_owned() } else { format!("app{}", index + 1) }
}

/// The name stands in metrics, URLs and log lines.
fn read_name(value: &Value<'_>) -> Option<String> {
    value.read(|text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            return Ok(text.to_owned());
        }
        Err((
            format!("{text:?} is not an app's name"),
            "use 1 to 64 letters, digits, \".\", \"-\" and \"_\"".to_owned(),
        ))
    })
}

fn read_case(section: &mut Section<'_>) -> UserCase {
    let choices = [("fold", UserCase::Fold), ("exact", UserCase::Exact)];
    section.value("user_case").and_then(|value| value.choice(&choices)).unwrap_or(UserCase::Fold)
}

fn read_tenant(section: &mut Section<'_>, case: UserCase) -> String {
    let tenant = section.value("tenant").and_then(|value| name(&value, case));
    tenant.unwrap_or_else(|| "default".to_owned())
}

/// A user's or tenant's name in the form that sessions carry.
pub(super) fn name(value: &Value<'_>, case: UserCase) -> Option<String> {
    value.read(|text| match normal_name(text, case) {
        Ok(Some(name)) => Ok(name),
        Ok(None) => Err((
            format!("{text:?} is no name"),
            "a name has a visible character and no control character".to_owned(),
        )),
        Err(error) => Err((error.to_string(), "shorten it".to_owned())),
    })
}

/// The login page: the file's, else the preset's. Where the file says that people sign in elsewhere than at the preset's
/// page, the app is not as its framework's default, and the preset's page would send them astray.
fn read_login(
    section: &mut Section<'_>,
    preset: Option<&'static Preset>,
    declared: Option<&[MethodPath]>,
) -> Option<String> {
    if let Some(value) = section.value("login") {
        return plain_path(&value, "name the one page where people sign in");
    }
    let login = preset?.login?;
    declared
        .is_none_or(|paths| paths.iter().any(|declared| declared.path.matches(login)))
        .then(|| login.to_owned())
}

/// A path of the app that stands for the one path that it says: no pattern.
pub(super) fn plain_path(value: &Value<'_>, hint: &str) -> Option<String> {
    let path = value.app_path()?;
    if value::is_pattern(&path) {
        value.fault(format!("{path:?} is a pattern"), hint);
        return None;
    }
    Some(path)
}

fn read_logout(section: &mut Section<'_>, preset: Option<&'static Preset>) -> Option<MethodPath> {
    match section.value("logout") {
        Some(value) => value.read(method_path),
        None => method_path(preset?.logout?).ok(),
    }
}

/// Whether unseen cookies are adopted, until when, and where the file says so.
fn read_unseen(section: &mut Section<'_>) -> (Unseen, Option<Moment>, Option<Mark>) {
    let unseen = section.value("unseen");
    let until = section.value("adopt_until");
    let moment = until.as_ref().and_then(Value::moment);
    let choices = [("refuse", Unseen::Refuse), ("adopt", Unseen::Adopt)];
    let choice = unseen.as_ref().and_then(|value| value.choice(&choices));
    match (&unseen, choice, &until) {
        (Some(unseen), Some(Unseen::Adopt), None) => {
            let hint = "add adopt_until = \"2027-01-31T00:00:00Z\", the end of the roll-out";
            section.sink.missing(&unseen.at, "\"adopt\" needs adopt_until", hint);
        }
        (Some(unseen), Some(Unseen::Adopt), Some(_)) => {
            return (Unseen::Adopt, moment, Some(unseen.at.clone()));
        }
        (_, _, Some(until)) => until.fault("has no meaning without unseen = \"adopt\"", "remove it"),
        _ => {}
    }
    (Unseen::Refuse, None, None)
}

fn read_return_to(section: &mut Section<'_>, has_login: bool) -> Option<String> {
    let value = section.value("return_to")?;
    if !has_login && section.value("login").is_none() {
        let hint = "add login = \"/login\", or remove return_to";
        section.sink.missing(&value.at, "return_to without login has nowhere to go", hint);
    }
    value.read(|text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        if !text.is_empty() && text.chars().all(plain) {
            return Ok(text.to_owned());
        }
        Err((format!("{text:?} is not the name of a query parameter"), "write it as \"next\"".to_owned()))
    })
}

fn read_require_user(section: &mut Section<'_>, identity: &[SourceRule]) -> bool {
    let Some(value) = section.value("require_user") else { return false };
    let required = value.flag().unwrap_or(false);
    if required && identity.is_empty() {
        let hint = "add an [[app.identity]], or remove require_user";
        section.sink.missing(&value.at, "no identity source could ever name the user", hint);
    }
    required
}

/// Where the file says that people sign in: `sign_in`, else where a login form is posted to (R6).
fn declared_sign_in(value: Option<&Value<'_>>, identity: &[SourceRule]) -> Option<Vec<MethodPath>> {
    if let Some(value) = value {
        return Some(value.one_or_more().iter().filter_map(|value| value.read(method_path)).collect());
    }
    let form = |source: &SourceRule| match &source.kind {
        SourceKind::LoginForm(form) => Some(post(form.path.clone())),
        SourceKind::ResponseHeader(_)
        | SourceKind::UserInfo { .. }
        | SourceKind::JwtCookie { .. }
        | SourceKind::JwtHeader { .. }
        | SourceKind::Cookie(_)
        | SourceKind::RequestHeader(_) => None,
    };
    let forms: Vec<_> = identity.iter().filter_map(form).collect();
    (!forms.is_empty()).then_some(forms)
}

/// Without any other word people sign in by POST to `login` (R6), and where the preset knows that they do.
fn usual_sign_in(login: Option<&str>, preset: Option<&'static Preset>) -> Vec<MethodPath> {
    let path = login.and_then(|login| login.split('?').next());
    let posted = path.and_then(|path| Pattern::parse(path).ok()).map(post);
    let known = preset.into_iter().flat_map(|preset| preset.sign_in);
    posted.into_iter().chain(known.filter_map(|text| method_path(text).ok())).collect()
}

fn post(path: Pattern) -> MethodPath {
    MethodPath { method: Some("POST".to_owned()), path }
}

/// `"POST /login"` or `"/login"`.
fn method_path(text: &str) -> Result<MethodPath, (String, String)> {
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (Some(method), path.trim_start()),
        None => (None, text),
    };
    if method.is_some_and(|m| m.is_empty() || !m.bytes().all(|b| b.is_ascii_uppercase())) {
        let hint = "write the method in capitals, one space, then the path: \"POST /login\"".to_owned();
        return Err((format!("{text:?} does not start with a method or a path"), hint));
    }
    Ok(MethodPath { method: method.map(str::to_owned), path: value::parse_pattern(path)? })
}

fn inactive(text: &str) -> Result<InactiveRule, (String, String)> {
    let Some(header) = text.strip_prefix("header:") else {
        return method_path(text).map(|MethodPath { method, path }| InactiveRule::Path { method, path });
    };
    header
        .trim()
        .parse()
        .map(InactiveRule::Header)
        .map_err(|_| (format!("{header:?} is not a header name"), "write \"header:X-Background\"".to_owned()))
}
