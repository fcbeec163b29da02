//! The process itself: reload, drain, probes, metrics, and the description of the API.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::caller::Caller;
use super::problem::{PROBLEM, Problem};

/// What a reload came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReloadReport {
    /// Keys whose change needs a restart; everything else is in force.
    needs_restart: Vec<String>,
}

/// Reads the configuration again. A file with faults changes nothing.
#[utoipa::path(
    post, path = "/v1/reload", tag = "gateway",
    responses(
        (status = 200, description = "In force", body = ReloadReport),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `gateway.reload`, or is bound to a tenant",
         body = Problem, content_type = PROBLEM),
        (status = 422, description = "The file has faults; the old configuration stays in force",
         body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn reload(
    State(admin): State<Admin>,
    caller: Caller,
) -> Result<Json<ReloadReport>, Problem> {
    caller.needs_everywhere("gateway.reload")?;
    admin.did(&caller, "reload", "");
    let gateway = admin.gateway.clone();
    let reloaded = tokio::task::spawn_blocking(move || gateway.reload()).await;
    match reloaded {
        Ok(Ok(keys)) => {
            Ok(Json(ReloadReport { needs_restart: keys.iter().map(ToString::to_string).collect() }))
        }
        Ok(Err(faults)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, faults)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the reload broke off; see the log")),
    }
}

/// Readiness off, finish what is in progress, and leave.
#[utoipa::path(
    post, path = "/v1/drain", tag = "gateway",
    responses(
        (status = 202, description = "Draining"),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `gateway.drain`, or is bound to a tenant",
         body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn drain(State(admin): State<Admin>, caller: Caller) -> Result<StatusCode, Problem> {
    caller.needs_everywhere("gateway.drain")?;
    admin.did(&caller, "drain", "");
    admin.gateway.drain();
    Ok(StatusCode::ACCEPTED)
}

/// The process lives.
#[utoipa::path(get, path = "/livez", tag = "probes", security(()), responses((status = 200, description = "Alive")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Traffic may be sent here.
#[utoipa::path(
    get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, description = "Ready"), (status = 503, description = "Draining",
     body = Problem, content_type = PROBLEM))
)]
pub(super) async fn readyz(State(admin): State<Admin>) -> Result<&'static str, Problem> {
    if admin.gateway.is_ready() {
        Ok("ok\n")
    } else {
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining"))
    }
}

/// Counters in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, description = "Text format 0.0.4"))
)]
pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.gateway.metrics_text())
        .into_response()
}
