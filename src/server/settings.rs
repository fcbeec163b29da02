//! From the checked configuration to what the table reads.

use std::sync::Arc;

use crate::config::{Config, Secret};
use crate::session::chosen::Chosen;
use crate::session::layers::Layers;
use crate::session::record::Mode;
use crate::store::{AppRules, Book, RoleRules};

/// All layers: those of `config`, and above them what was set while the gateway runs.
pub(super) fn layers(config: &Config, chosen: &Arc<Chosen>) -> Layers {
    Layers { chosen: Arc::clone(chosen), ..config.policy.clone() }
}

/// The table's book of `config` and what was set above it.
pub(super) fn book(config: &Config, chosen: &Arc<Chosen>) -> Book {
    let apps = config.apps.iter().map(|app| AppRules {
        name: app.name.clone(),
        mode: if app.enforce { Mode::Enforce } else { Mode::Observe },
        case: app.user_case,
    });
    let roles = config
        .roles
        .iter()
        .map(|(name, role)| (name.clone(), RoleRules { users: role.users.clone(), learned: role.learned }));
    Book {
        layers: layers(config, chosen),
        apps: apps.collect(),
        roles: roles.collect(),
        rotation_grace: config.limits.rotation_grace,
        anonymous_sessions: config.limits.anonymous_sessions,
        ended_kept: config.limits.ended_kept,
        ended_kept_until: config.apps.iter().filter_map(|app| app.adopt_until).max().unwrap_or_default(),
    }
}

/// What a reload cannot change, by key: it needs a restart, and the log says so.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut differ = |changed: bool, key| {
        if changed {
            keys.push(key);
        }
    };
    differ(old.listen.http != new.listen.http, "listen.http");
    differ(old.listen.https != new.listen.https, "listen.https");
    differ(old.listen.proxy_protocol != new.listen.proxy_protocol, "listen.proxy_protocol");
    differ(old.listen.workers != new.listen.workers, "listen.workers");
    differ(old.limits.header_bytes != new.limits.header_bytes, "limits.header_bytes");
    differ(old.admin.listen != new.admin.listen, "admin.listen");
    differ(old.admin.probes != new.admin.probes, "admin.probes");
    differ(old.store.kind != new.store.kind, "store");
    let hash = |secret: &Secret| blake3::hash(secret.expose());
    let hashes = |secrets: &[Secret]| secrets.iter().map(hash).collect::<Vec<_>>();
    let (old_store, new_store) = (&old.store, &new.store);
    differ(old_store.secret.as_ref().map(hash) != new_store.secret.as_ref().map(hash), "store.secret");
    differ(
        hashes(&old_store.previous_secrets) != hashes(&new_store.previous_secrets),
        "store.previous_secrets",
    );
    differ(
        old_store.next_secret.as_ref().map(hash) != new_store.next_secret.as_ref().map(hash),
        "store.next_secret",
    );
    differ(old.log.format != new.log.format, "log.format");
    differ(old.log.level != new.log.level, "log.level");
    keys
}
