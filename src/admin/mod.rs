//! The admin API on its own listener: sessions, users, policies, reload and drain, probes and metrics.
//!
//! Every call but the probes and the API's own description needs a bearer token; loopback is no authentication, since
//! the app often shares it (FIELD F18). What a token may see and do follows from its scopes and from the tenant it is
//! bound to. The API's description is generated from these handlers, so that it cannot say anything else.

mod advice;
mod audit;
mod caller;
mod layers;
mod model;
mod policy;
mod problem;
mod process;
mod sessions;
mod turns;
mod users;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::problem::Problem;
pub use self::turns::Turns;
use crate::clock::Clock;
use crate::config::Config;
use crate::session::chosen::{Choice, Full, Holder};
use crate::session::layers::Layers;
use crate::store::{Entry, Table};
use crate::telemetry::Metrics;

/// The largest body of a call.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What the API asks of the running gateway; `server` implements it.
pub trait Gateway: Send + Sync {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// Reads the configuration's file again.
    ///
    /// # Errors
    /// The file's faults, as text; nothing has changed then.
    fn reload(&self) -> Result<Vec<&'static str>, String>;

    /// Begins to leave; returns at once.
    fn drain(&self);

    /// Whether traffic should be sent here.
    fn is_ready(&self) -> bool;

    /// Whether all sessions of users are known here: right after the start a shared store may not be read yet.
    fn knows_all(&self) -> bool;

    /// Waits, within a bound, until all ends caused before are in force on every worker.
    fn in_force(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// Waits, within a bound, until all ends caused before would survive the process and the machine.
    fn is_safe(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// All layers of policy in force, what was set while the gateway runs among them.
    fn layers(&self) -> Layers;

    /// Sets a layer of policy, or takes back what was set, and returns how many sessions ended by it. Blocks for a while.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    fn choose(&self, holder: &Holder, choice: Option<Choice>) -> Result<usize, Full>;

    /// How many sessions [`Gateway::choose`] would end now. Blocks for a while.
    ///
    /// # Errors
    /// [`Full`].
    fn foresee(&self, holder: &Holder, choice: Option<Choice>) -> Result<usize, Full>;

    /// Whether what is set outlives the process.
    fn keeps(&self) -> bool;

    /// Everything for Prometheus.
    fn metrics_text(&self) -> String;
}

/// Where a call comes from; nowhere for a Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    /// The sessions.
    pub table: Arc<Table>,
    /// The time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The gateway itself.
    pub gateway: Arc<dyn Gateway>,
    /// Whose turn it is to look at every session.
    pub turns: Turns,
}

impl Admin {
    /// Notes what an operator did: in the log, and in the audit. `detail` is never a secret.
    fn did(&self, caller: &caller::Caller, act: &'static str, detail: &str) {
        crate::telemetry::audit::administered(&caller.name, act, detail);
        let (now, tenant) = (self.clock.now(), caller.tenant.clone());
        self.table.note(Entry::of_operator(now, act, &caller.name, tenant, detail));
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tenure admin API",
        description = "Sessions, users and policies of a running gateway.",
        license(name = "Apache-2.0")
    ),
    security(("token" = []))
)]
struct Description;

/// The description of the API, generated from its handlers.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().1
}

fn documented() -> (Router<Admin>, utoipa::openapi::OpenApi) {
    let (router, mut api) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::show, sessions::end))
        .routes(routes!(sessions::revoke))
        .routes(routes!(sessions::end_of_user))
        .routes(routes!(users::list))
        .routes(routes!(policy::show))
        .routes(routes!(policy::effective))
        .routes(routes!(audit::list))
        .routes(routes!(audit::stats))
        .routes(routes!(layers::show, layers::set, layers::remove))
        .routes(routes!(advice::list))
        .routes(routes!(process::reload))
        .routes(routes!(process::drain))
        .routes(routes!(process::livez))
        .routes(routes!(process::readyz))
        .routes(routes!(process::metrics))
        .split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = api.components.get_or_insert_with(Default::default);
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    (router, api)
}

/// The whole API.
pub fn router(admin: Admin) -> Router {
    let (router, api) = documented();
    let document = serde_json::to_value(&api).unwrap_or_default();
    let router =
        router.route("/v1/openapi.json", get(move || std::future::ready(axum::Json(document.clone()))));
    finish(router, admin)
}

/// Probes and metrics alone.
pub fn probes(admin: Admin) -> Router {
    let router = Router::new()
        .route("/livez", get(process::livez))
        .route("/readyz", get(process::readyz))
        .route("/metrics", get(process::metrics));
    finish(router, admin)
}

fn finish(router: Router<Admin>, admin: Admin) -> Router {
    router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not by this method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(uncached))
        .with_state(admin)
}

/// Nothing of this is for caches or for other origins.
async fn uncached(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
