//! `[roles.NAME]`: who holds a role, and what it permits.

use std::collections::BTreeMap;

use super::Role;
use super::raw::{Section, Value, suggestion};
use super::tenancy::Tenancy;
use crate::session::identity::MAX_NAME_BYTES;

/// What a role may permit.
const PERMISSIONS: &[&str] = &[
    "sessions.read.own",
    "sessions.revoke.own",
    "sessions.read",
    "sessions.revoke",
    "sessions.pii",
    "policy.read",
    "policy.write",
    "audit.read",
    "stats.read",
];

/// What only an operator's token may.
const GATEWAY: &[&str] = &["gateway.reload", "gateway.drain"];

pub(super) fn read_all(section: &Section<'_>, tenancy: &Tenancy) -> BTreeMap<String, Role> {
    section
        .entries()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), read(&value, name, tenancy)))
        .collect()
}

fn read(value: &Value<'_>, name: &str, tenancy: &Tenancy) -> Role {
    let separators = [',', ' ', '\t'];
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(separators) {
        value.fault(
            format!("{name:?} is no name of a role"),
            "no spaces and no commas: apps list roles with them",
        );
    }
    let Some(mut section) = value.section() else { return Role::default() };
    let role = Role {
        users: section.list("users").iter().filter_map(|user| member(user, tenancy)).collect(),
        learned: section.flag("learned", false),
        permissions: section.list("permissions").iter().filter_map(permission).collect(),
    };
    section.finish();
    role
}

/// A user: `{ tenant, user }`, or a plain name where there is but one tenant.
fn member(value: &Value<'_>, tenancy: &Tenancy) -> Option<(String, String)> {
    if !value.is_table() {
        let user = tenancy.user(value)?;
        return Some((tenancy.only_tenant(value)?, user));
    }
    let mut section = value.section()?;
    let hint = "write { tenant = \"acme\", user = \"ann\" }";
    let user = section.required("user", hint);
    let tenant = section.value("tenant");
    section.finish();
    let user_value = user?;
    let user = tenancy.user(&user_value)?;
    let tenant = match tenant {
        Some(tenant) => tenancy.tenant(&tenant)?,
        None => tenancy.only_tenant(&user_value)?,
    };
    Some((tenant, user))
}

fn permission(value: &Value<'_>) -> Option<String> {
    value.read(|text| {
        if PERMISSIONS.contains(&text) {
            return Ok(text.to_owned());
        }
        if text == "*" || GATEWAY.contains(&text) {
            let hint = format!("{text:?} is for operators' tokens; a role lists what it permits one by one");
            return Err((format!("a role cannot permit {text:?}"), hint));
        }
        Err((format!("{text:?} is no permission"), suggestion(text, PERMISSIONS)))
    })
}

/// Says whether an operator's token may have this scope, and a hint when not.
///
/// # Errors
/// The hint.
pub fn known_scope(scope: &str) -> Result<(), String> {
    let known: Vec<&str> = PERMISSIONS.iter().chain(GATEWAY).copied().chain(["*"]).collect();
    if known.contains(&scope) { Ok(()) } else { Err(suggestion(scope, &known)) }
}
