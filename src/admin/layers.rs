//! One layer of policy: what the file says, what was set above it, and what both come to. Setting it, and taking it back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::caller::{Caller, Document, Parameters, Segments};
use super::problem::{PROBLEM, Problem};
use super::sessions::in_force;
use crate::config::{Settings, within};
use crate::session::chosen::{Choice, Full, Holder};
use crate::session::layers::{Layer, Layers};

/// Whose layer is meant besides its name, and whether to act at all.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LayerQuery {
    /// The tenant of a user; needed where there are several, unless the token is bound to one.
    pub tenant: Option<String>,
    /// Only count what would end; nothing changes. Of no meaning to GET.
    #[serde(default)]
    pub preview: bool,
}

/// One layer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LayerDocument {
    /// `app`, `tenant`, `role` or `user`.
    layer: &'static str,
    /// Whose it is.
    name: String,
    /// The tenant of a user.
    tenant: Option<String>,
    /// What the configuration's file says; `null` when it has no such layer.
    file: Option<Settings>,
    /// What was set above it; `null` when nothing was.
    set: Option<Settings>,
    /// What both come to; a setting that is absent is left to the layer below.
    comes_to: Settings,
}

/// What a change came to, or would come to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LayerChange {
    /// Nothing has changed: this tells what would happen.
    preview: bool,
    /// How many sessions ended by it, or would end.
    ended: usize,
    /// False: it is forgotten when the process ends, since `[store] path = "off"` keeps nothing.
    kept: bool,
    /// The layer after the change.
    policy: LayerDocument,
}

impl LayerDocument {
    fn new(holder: &Holder, layers: &Layers) -> Self {
        let (layer, name, tenant) = match holder.clone() {
            Holder::App(name) => ("app", name, None),
            Holder::Tenant(name) => ("tenant", name, None),
            Holder::Role(name) => ("role", name, None),
            Holder::User { tenant, user } => ("user", user, Some(tenant)),
        };
        // Every app of the file has a layer, which mostly says nothing.
        let said = |layer: &&Layer| **layer != Layer::default();
        Self {
            layer,
            name,
            tenant,
            file: layers.of_file(holder).filter(said).map(Settings::from),
            set: layers.chosen.get(holder).map(|choice| Settings::from(&choice.layer)),
            comes_to: Settings::from(&layers.comes_to(holder)),
        }
    }
}

/// One layer of policy: the file's, what was set above it, and what both come to.
#[utoipa::path(
    get, path = "/v1/policy/{layer}/{name}", tag = "policy",
    params(("layer" = String, Path, description = "`app`, `tenant`, `role` or `user`"), ("name" = String, Path), LayerQuery),
    responses(
        (status = 200, description = "The layer", body = LayerDocument),
        (status = 400, description = "An unknown parameter, or a user without a tenant",
         body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `policy.read`", body = Problem, content_type = PROBLEM),
        (status = 404, description = "No such app or role, or another tenant", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    caller: Caller,
    Segments(kind, name): Segments,
    Parameters(query): Parameters<LayerQuery>,
) -> Result<Json<LayerDocument>, Problem> {
    caller.needs("policy.read")?;
    let holder = holder(&admin, &caller, &kind, &name, query.tenant.as_deref())?;
    let layers = admin.gateway.layers();
    let known = admin.gateway.config().names(&holder) || layers.chosen.get(&holder).is_some();
    if known { Ok(Json(LayerDocument::new(&holder, &layers))) } else { Err(Problem::not_found()) }
}

/// Sets a layer, in the place of what was set there before. It holds for living sessions when the call returns.
#[utoipa::path(
    put, path = "/v1/policy/{layer}/{name}", tag = "policy", request_body = Settings,
    params(("layer" = String, Path, description = "`app`, `tenant`, `role` or `user`"), ("name" = String, Path), LayerQuery),
    responses(
        (status = 200, description = "In force, or what would be", body = LayerChange),
        (status = 400, description = "An unknown member, a value that is none, or a user without a tenant",
         body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `policy.write`, or is bound to a tenant and the layer is not that tenant's",
         body = Problem, content_type = PROBLEM),
        (status = 404, description = "No such app or role, or another tenant", body = Problem, content_type = PROBLEM),
        (status = 413, description = "The body is too large", body = Problem, content_type = PROBLEM),
        (status = 415, description = "The body is no JSON", body = Problem, content_type = PROBLEM),
        (status = 422, description = "A value is outside of the bounds for tenants, or there is no room for one more layer",
         body = Problem, content_type = PROBLEM),
        (status = 503, description = "In force here, but not confirmed by every worker or by the store",
         body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn set(
    State(admin): State<Admin>,
    caller: Caller,
    Segments(kind, name): Segments,
    Parameters(query): Parameters<LayerQuery>,
    Document(settings): Document<Settings>,
) -> Result<Json<LayerChange>, Problem> {
    let holder = holder_to_write(&admin, &caller, &kind, &name, &query)?;
    if !admin.gateway.config().names(&holder) {
        return Err(Problem::not_found());
    }
    let layer = settings.read().map_err(Problem::bad_request)?;
    let bounded = caller.tenant.is_some();
    if bounded || matches!(holder, Holder::Tenant(_)) {
        within(&layer, &admin.gateway.config().policy.bounds).map_err(|why| unprocessable(&why))?;
    }
    change(admin, caller, holder, Some(Choice { layer, bounded }), query.preview).await.map(Json)
}

/// Takes back what was set in a layer: the file's holds again. To take back what is not there changes nothing.
#[utoipa::path(
    delete, path = "/v1/policy/{layer}/{name}", tag = "policy",
    params(("layer" = String, Path, description = "`app`, `tenant`, `role` or `user`"), ("name" = String, Path), LayerQuery),
    responses(
        (status = 200, description = "In force, or what would be", body = LayerChange),
        (status = 400, description = "An unknown parameter, or a user without a tenant",
         body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `policy.write`, or is bound to a tenant and the layer is not that tenant's",
         body = Problem, content_type = PROBLEM),
        (status = 404, description = "No such app or role, or another tenant", body = Problem, content_type = PROBLEM),
        (status = 503, description = "In force here, but not confirmed by every worker or by the store",
         body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn remove(
    State(admin): State<Admin>,
    caller: Caller,
    Segments(kind, name): Segments,
    Parameters(query): Parameters<LayerQuery>,
) -> Result<Json<LayerChange>, Problem> {
    let holder = holder_to_write(&admin, &caller, &kind, &name, &query)?;
    let gateway = &admin.gateway;
    if !gateway.config().names(&holder) && gateway.layers().chosen.get(&holder).is_none() {
        return Err(Problem::not_found());
    }
    change(admin, caller, holder, None, query.preview).await.map(Json)
}

/// The place that a path names, in the form that sessions carry, if the caller may know of it (R18).
fn holder(
    admin: &Admin,
    caller: &Caller,
    kind: &str,
    name: &str,
    tenant: Option<&str>,
) -> Result<Holder, Problem> {
    let tenancy = admin.gateway.config().tenancy();
    let normal = |text: &str| tenancy.normal(text).map_err(Problem::bad_request);
    if tenant.is_some() && kind != "user" {
        return Err(Problem::bad_request("tenant= belongs to the layer of a user"));
    }
    let holder = match kind {
        "app" => Holder::App(name.to_owned()),
        "role" => Holder::Role(name.to_owned()),
        "tenant" => Holder::Tenant(normal(name)?),
        "user" => {
            let own = caller.tenant.as_deref().or(tenancy.only());
            let tenant = tenant.map(normal).transpose()?.or_else(|| own.map(str::to_owned));
            let missing = || Problem::bad_request("users belong to a tenant: name it with tenant=");
            Holder::User { tenant: tenant.ok_or_else(missing)?, user: normal(name)? }
        }
        _ => return Err(Problem::not_found()),
    };
    match &holder {
        Holder::Tenant(tenant) | Holder::User { tenant, .. } if !caller.sees(Some(tenant)) => {
            Err(Problem::not_found())
        }
        Holder::App(_) | Holder::Role(_) | Holder::Tenant(_) | Holder::User { .. } => Ok(holder),
    }
}

/// The same, if the caller may change what is there: a tenant changes its own layer and those of its users.
fn holder_to_write(
    admin: &Admin,
    caller: &Caller,
    kind: &str,
    name: &str,
    query: &LayerQuery,
) -> Result<Holder, Problem> {
    caller.needs("policy.write")?;
    let holder = holder(admin, caller, kind, name, query.tenant.as_deref())?;
    match holder {
        Holder::App(_) | Holder::Role(_) => caller.needs_everywhere("policy.write")?,
        Holder::Tenant(_) | Holder::User { .. } => {}
    }
    Ok(holder)
}

async fn change(
    admin: Admin,
    caller: Caller,
    holder: Holder,
    choice: Option<Choice>,
    preview: bool,
) -> Result<LayerChange, Problem> {
    let mut layers = admin.gateway.layers();
    let old = layers.chosen.get(&holder).copied();
    let ended = carry_out(&admin, &holder, choice, preview).await?;
    if !preview {
        let detail = format!("{holder} old={} new={} ended={ended}", text(old), text(choice));
        admin.did(&caller, "policy", &detail);
        in_force(&admin, "the policy holds here").await?;
    }
    layers.chosen = Arc::new(layers.chosen.changed(&holder, choice).map_err(|why| unprocessable(&why))?);
    let policy = LayerDocument::new(&holder, &layers);
    Ok(LayerChange { preview, ended, kept: admin.gateway.keeps(), policy })
}

/// Looks at every session, which takes a while where there are many: aside from the thread that serves the API.
async fn carry_out(
    admin: &Admin,
    holder: &Holder,
    choice: Option<Choice>,
    preview: bool,
) -> Result<usize, Problem> {
    let (gateway, holder) = (Arc::clone(&admin.gateway), holder.clone());
    let act =
        move || if preview { gateway.foresee(&holder, choice) } else { gateway.choose(&holder, choice) };
    let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the change broke off; see the log");
    tokio::task::spawn_blocking(act).await.map_err(broken)?.map_err(|full: Full| unprocessable(&full))
}

fn unprocessable(why: &impl ToString) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why.to_string())
}

/// For the audit.
fn text(choice: Option<Choice>) -> String {
    let settings = choice.and_then(|choice| serde_json::to_string(&Settings::from(&choice.layer)).ok());
    settings.unwrap_or_else(|| "nothing".to_owned())
}
