//! Policies: all layers, and what holds for somebody, each field with its source.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Admin;
use super::caller::{Caller, Parameters};
use super::model::{SubjectQuery, named};
use super::problem::{PROBLEM, Problem};
use crate::config::{Config, Settings};
use crate::session::Span;
use crate::session::chosen::{Chosen, Holder};
use crate::session::layers::{Explained, Layer, Limit, Range, Source, Sourced, Subject};

/// All layers of policy.
#[utoipa::path(
    get, path = "/v1/policy", tag = "policy",
    responses(
        (status = 200, description = "Every layer of the file, and what was set above them", body = Value),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `policy.read`", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn show(State(admin): State<Admin>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.needs("policy.read")?;
    let layers = admin.gateway.layers();
    let entry = |(name, layer): (&String, &Layer)| (name.clone(), write_layer(layer));
    let tenants = layers.tenants.iter().filter(|(name, _)| caller.sees(Some(name))).map(entry);
    let users = layers.users.iter().filter(|((tenant, _), _)| caller.sees(Some(tenant))).map(
        |((tenant, user), layer)| {
            let mut entry = write_layer(layer);
            entry["tenant"] = json!(tenant);
            entry["user"] = json!(user);
            entry
        },
    );
    let base = layers.base;
    Ok(Json(json!({
        "base": {
            "idle_timeout": span(base.idle_timeout.map_or(Limit::Off, Limit::At)),
            "force_relogin": span(base.force_relogin.map_or(Limit::Off, Limit::At)),
            "max_concurrent": base.max_concurrent,
            "on_limit": base.on_limit.as_str(),
        },
        "bounds": {
            "idle_timeout": range(&layers.bounds.idle_timeout, |s| json!(s.to_string())),
            "force_relogin": range(&layers.bounds.force_relogin, |s| json!(s.to_string())),
            "max_concurrent": range(&layers.bounds.max_concurrent, |n| json!(n)),
        },
        "apps": layers.apps.iter().map(entry).collect::<Map<_, _>>(),
        "tenants": tenants.collect::<Map<_, _>>(),
        "roles": layers.roles.iter().map(entry).collect::<Map<_, _>>(),
        "users": users.collect::<Vec<_>>(),
        "set": set(&layers.chosen, &caller),
    })))
}

/// What was set above the file, in the shape of the file's layers.
fn set(chosen: &Chosen, caller: &Caller) -> Value {
    let (mut document, mut users) = (json!({ "apps": {}, "tenants": {}, "roles": {} }), Vec::new());
    for (holder, choice) in chosen.iter() {
        let mut layer = write_layer(&choice.layer);
        match holder {
            Holder::App(name) => document["apps"][name] = layer,
            Holder::Role(name) => document["roles"][name] = layer,
            Holder::Tenant(name) if caller.sees(Some(name)) => document["tenants"][name] = layer,
            Holder::User { tenant, user } if caller.sees(Some(tenant)) => {
                layer["tenant"] = json!(tenant);
                layer["user"] = json!(user);
                users.push(layer);
            }
            Holder::Tenant(_) | Holder::User { .. } => {}
        }
    }
    document["users"] = Value::Array(users);
    document
}

/// What holds for an app, a tenant, a user, a role; each field with the layer it comes from.
#[utoipa::path(
    get, path = "/v1/policy/effective", params(SubjectQuery), tag = "policy",
    responses(
        (status = 200, description = "Each field with its value and source", body = Value),
        (status = 400, description = "An unknown parameter, or no app where there are several",
         body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `policy.read`", body = Problem, content_type = PROBLEM),
        (status = 404, description = "No such app, or another tenant", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn effective(
    State(admin): State<Admin>,
    caller: Caller,
    Parameters(query): Parameters<SubjectQuery>,
) -> Result<Json<Value>, Problem> {
    caller.needs("policy.read")?;
    let config = admin.gateway.config();
    let app = match &query.app {
        Some(name) => config.apps.iter().find(|app| app.name == *name).ok_or_else(Problem::not_found)?,
        None => match config.apps.as_slice() {
            [only] => only,
            _ => return Err(Problem::bad_request("there are several apps: name one with app=")),
        },
    };
    let tenant = match &query.tenant {
        Some(tenant) => named(tenant, app.user_case)?,
        None => caller.tenant.clone().unwrap_or_else(|| app.tenant.clone()),
    };
    if !caller.sees(Some(&tenant)) {
        return Err(Problem::not_found());
    }
    let user = query.user.as_deref().map(|user| named(user, app.user_case)).transpose()?;
    let roles = roles(&config, &tenant, user.as_deref(), query.role.as_deref());
    let subject = Subject { app: &app.name, tenant: Some(&tenant), user: user.as_deref(), roles: &roles };
    let mut document = explained(&admin.gateway.layers().explain(&subject));
    document["subject"] = json!({ "app": app.name, "tenant": tenant, "user": user, "roles": roles });
    Ok(Json(document))
}

/// The roles that the operator gave the user, and the one to assume.
fn roles(config: &Config, tenant: &str, user: Option<&str>, assumed: Option<&str>) -> Vec<String> {
    let given = config
        .roles
        .iter()
        .filter(|(_, role)| role.users.iter().any(|(t, u)| t == tenant && Some(u.as_str()) == user));
    let mut roles: Vec<String> = given.map(|(name, _)| name.clone()).collect();
    roles.extend(assumed.map(str::to_owned));
    roles.sort();
    roles.dedup();
    roles
}

fn explained(found: &Explained) -> Value {
    json!({
        "idle_timeout": sourced(&found.idle_timeout, |v| span(*v)),
        "force_relogin": sourced(&found.force_relogin, |v| span(*v)),
        "max_concurrent": sourced(&found.max_concurrent, |v| json!(v.into_option())),
        "on_limit": sourced(&found.on_limit, |v| json!(v.as_str())),
    })
}

fn sourced<T>(found: &Sourced<T>, write: impl Fn(&T) -> Value) -> Value {
    let (source, name) = match &found.source {
        Source::Base => ("policy", None),
        Source::App(name) => ("app", Some(name)),
        Source::Tenant(name) => ("tenant", Some(name)),
        Source::Role(name) => ("role", Some(name)),
        Source::User(name) => ("user", Some(name)),
        Source::Bound => ("bound", None),
    };
    json!({ "value": write(&found.value), "source": source, "name": name, "origin": found.origin.as_str() })
}

/// A span as the configuration writes it; `null` is off.
fn span(limit: Limit<Span>) -> Value {
    json!(limit.into_option().map(|span| span.to_string()))
}

fn write_layer(layer: &Layer) -> Value {
    // `"off"` and not `null`: here a missing field means that the layer says nothing.
    serde_json::to_value(Settings::from(layer)).unwrap_or_default()
}

fn range<T: Copy>(range: &Range<T>, write: impl Fn(T) -> Value) -> Value {
    json!({ "min": range.min.map(&write), "max": range.max.map(&write) })
}
