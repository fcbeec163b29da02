//! What a configuration means, in a few lines for people, and what in it deserves a second look.

use std::fmt::{self, Display};

use super::{AdminListen, App, Config, Custody, Origin, StoreKind, cookies};
use crate::session::identity::SourceKind;
use crate::session::profile::{CookieKind, vault_cookie_http};

impl Config {
    /// What the configuration means, a line for each part.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let listen = &self.listen;
        let mut lines =
            vec![format!("listen  {}", join([named("http", listen.http), named("https", listen.https)]))];
        for app in &self.apps {
            lines.push(format!("app     {app}"));
            lines.extend(app.expansion().map(|expansion| format!("preset  {expansion}")));
        }
        let base = &self.policy.base;
        let off = |limit: Option<String>| limit.unwrap_or_else(|| "off".to_owned());
        lines.push(format!(
            "policy  idle_timeout {}, force_relogin {}, max_concurrent {} ({}){}",
            off(base.idle_timeout.map(|span| span.to_string())),
            off(base.force_relogin.map(|span| span.to_string())),
            off(base.max_concurrent.map(|most| most.to_string())),
            base.on_limit.as_str(),
            self.layers(),
        ));
        let admin = match &self.admin.listen {
            Some(AdminListen::Tcp(address)) => address.to_string(),
            Some(AdminListen::Unix(path)) => format!("unix:{}", path.display()),
            None => return lines,
        };
        lines.push(format!("admin   {admin}, {}", count(self.admin.tokens.len(), "token")));
        lines
    }

    /// The layers above `[policy]`, as far as there are any.
    fn layers(&self) -> String {
        let set = self
            .policy
            .apps
            .values()
            .filter(|layer| **layer != crate::session::layers::Layer::default())
            .count();
        let counts = [
            (set, "app"),
            (self.policy.tenants.len(), "tenant"),
            (self.policy.roles.len(), "role"),
            (self.policy.users.len(), "user"),
        ];
        let named = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("; {}", count(*n, what)));
        named.collect()
    }

    /// What is allowed, and yet perhaps not what its author meant.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.store.kind == StoreKind::Memory {
            notes.push(
                "sessions are kept in memory alone ([store] path = \"off\"): a restart ends them".to_owned(),
            );
        }
        if matches!(self.store.kind, StoreKind::Redis(_)) && self.store.secret.is_none() {
            notes.push(
                "[store] secret is not set: the store keeps one, and whoever reads it can open the vault"
                    .to_owned(),
            );
        }
        for app in &self.apps {
            notes.extend(self.notes_on(app));
        }
        for role in self.policy.roles.keys().filter(|role| !self.roles.contains_key(*role)) {
            notes.push(format!("the layer of role {role:?} never applies: there is no [roles.{role}]"));
        }
        if self.admin.listen.is_some() && self.admin.tokens.is_empty() {
            notes.push(
                "[admin] has no tokens: nobody can use the API; `tenure token new` makes one".to_owned(),
            );
        }
        notes.sort();
        notes
    }

    fn notes_on(&self, app: &App) -> Vec<String> {
        let mut notes = Vec::new();
        let name = &app.name;
        if app.identity.is_empty() {
            notes.push(format!(
                "app {name:?} has no [[app.identity]]: max_concurrent and users' layers never apply"
            ));
        }
        if app.login.is_none() {
            notes.push(format!("app {name:?} has no login: after an end the app shows its own sign-in page"));
        }
        if !app.enforce {
            notes.push(format!("app {name:?} is observed only (enforce = false)"));
        }
        notes.extend(custody_notes(app));
        if app.custody == Custody::Vault
            && self.listen.https.is_none()
            && self.listen.trusted_proxies.is_empty()
        {
            let cookie = vault_cookie_http(name);
            notes.push(format!(
                "app {name:?}: without [listen] https or trusted_proxies the cookie {cookie} goes without Secure"
            ));
        }
        let from_proxy =
            app.identity.iter().any(|source| matches!(source.kind, SourceKind::RequestHeader(_)));
        if from_proxy && self.listen.trusted_proxies.is_empty() {
            notes.push(format!(
                "app {name:?}: request-header never counts while [listen] trusted_proxies is empty"
            ));
        }
        notes
    }
}

/// What weakens the custody of an app, or was left out of its preset.
fn custody_notes(app: &App) -> Vec<String> {
    let name = &app.name;
    let mut notes = Vec::new();
    if let Some(preset) = app.preset.filter(|preset| preset.recycles && app.custody == Custody::Track) {
        notes.push(format!(
            "app {name:?}: {} hands out the same id again after an end, and copies of the cookie live again with it; \
             custody = \"vault\" keeps them out",
            preset.name
        ));
    }
    if app.i_accept_replay {
        notes.push(format!("app {name:?}: copies of its cookie outlive an end (i_accept_replay = true)"));
    }
    for filled in &app.filled {
        if let Origin::LeftOut(why) = filled.origin {
            notes.push(format!(
                "app {name:?}: {} of the preset left out, {}: {why}",
                filled.key, filled.value
            ));
        }
    }
    notes
}

impl App {
    /// What the preset expanded to, each value with its origin; `None` without a preset. What was left out is a note.
    fn expansion(&self) -> Option<String> {
        let preset = self.preset?;
        let value = |filled: &super::Filled| {
            let origin = match filled.origin {
                Origin::File => "file",
                Origin::Preset => "preset",
                Origin::Default => "default",
                Origin::LeftOut(_) => return None,
            };
            let value = if filled.value.is_empty() { "none" } else { &filled.value };
            Some(format!("{} {value} ({origin})", filled.key))
        };
        let values: Vec<_> = self.filled.iter().filter_map(value).collect();
        Some(format!("{} for {}: {}", preset.name, self.name, values.join("; ")))
    }
}

/// One line: name, hosts, upstream, cookies, sources.
impl Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = if self.hosts.is_empty() { "every host".to_owned() } else { join(&self.hosts) };
        let scheme = |tls| if tls { "https" } else { "http" };
        let upstream = self.upstream.iter().map(|up| {
            let host = if up.host.contains(':') { format!("[{}]", up.host) } else { up.host.clone() };
            format!("{}://{host}:{}", scheme(up.tls), up.port)
        });
        let of_kind = |kind| {
            let rules = self.cookies.iter().filter(move |rule| rule.kind == kind);
            join(rules.map(|rule| cookies::show(&rule.name)))
        };
        write!(f, "{}: {hosts} -> {}, cookie {}", self.name, join(upstream), of_kind(CookieKind::Session))?;
        if self.cookies.iter().any(|rule| rule.kind == CookieKind::Companion) {
            write!(f, ", companions {}", of_kind(CookieKind::Companion))?;
        }
        if self.custody == Custody::Vault {
            f.write_str(", custody vault")?;
        }
        match self.identity.is_empty() {
            true => f.write_str(", users unknown"),
            false => {
                write!(f, ", users from {}", join(self.identity.iter().map(|source| source.kind.as_str())))
            }
        }
    }
}

fn named(name: &str, value: Option<impl Display>) -> String {
    value.map(|value| format!("{name} {value}")).unwrap_or_default()
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The words that are not empty, with commas.
fn join(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut out = String::new();
    for word in words {
        let word = word.as_ref();
        if !out.is_empty() && !word.is_empty() {
            out.push_str(", ");
        }
        out.push_str(word);
    }
    out
}
