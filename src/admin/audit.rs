//! What happened: the audit, and its counts by day.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::caller::{Caller, Parameters};
use super::model::{limit, session_id, spellings};
use super::problem::{PROBLEM, Problem};
use crate::session::Moment;
use crate::store::{AuditFilter, CannotRead, Day, DayKey, Found};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Most days of one answer, all apps and tenants told apart.
const MAX_DAYS: usize = 10_000;

/// Query parameters of the audit.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// The app's name.
    pub app: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The session's id.
    pub session: Option<String>,
    /// `signed_in`, `held_back`, `ended`, or an operator's act.
    pub act: Option<String>,
    /// Not before (RFC 3339).
    pub since: Option<String>,
    /// Before (RFC 3339).
    pub until: Option<String>,
    /// 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Query parameters of the counts by day.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsQuery {
    /// The app's name.
    pub app: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// Not before (RFC 3339).
    pub since: Option<String>,
    /// Before (RFC 3339).
    pub until: Option<String>,
}

/// One entry.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditEntry {
    /// RFC 3339, UTC.
    at: Option<String>,
    /// What was done.
    act: String,
    /// To which session.
    session: Option<String>,
    /// Of which app.
    app: Option<String>,
    /// Of which tenant.
    tenant: Option<String>,
    /// Whose.
    user: Option<String>,
    /// Why it ended.
    reason: Option<String>,
    /// By whom, where a person or an operator's token did it.
    by: Option<String>,
    /// What an operator's act was about.
    detail: Option<String>,
}

/// A page of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditList {
    /// Newest first.
    items: Vec<AuditEntry>,
    /// Cursor of the next page.
    next: Option<String>,
}

/// What happened on one day in one app to the sessions of one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DayCounts {
    /// The day, UTC.
    #[schema(example = "2026-11-23")]
    day: String,
    /// The app.
    app: String,
    /// The tenant.
    tenant: String,
    /// Sign-ins.
    sign_ins: u64,
    /// Sign-ins that were held back at the limit.
    held_back: u64,
    /// Ends by reason.
    #[schema(value_type = Object)]
    ends: std::collections::BTreeMap<String, u64>,
}

/// Counts by day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DayList {
    /// Oldest first.
    items: Vec<DayCounts>,
    /// Always null: there is one page.
    next: Option<String>,
}

/// Lists what happened, newest first. What is older than `limits.ended_kept` is forgotten; with `[store] path = "off"` the
/// latest entries are kept until the process ends.
#[utoipa::path(
    get, path = "/v1/audit", params(AuditQuery), tag = "audit",
    responses(
        (status = 200, description = "A page of entries", body = AuditList),
        (status = 400, description = "An unknown or malformed parameter", body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `audit.read`", body = Problem, content_type = PROBLEM),
        (status = 503, description = "The store cannot be read", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<AuditList>, Problem> {
    caller.needs("audit.read")?;
    let filter = AuditFilter {
        app: query.app,
        tenants: tenants(query.tenant.as_deref(), &caller)?,
        users: query.user.as_deref().map(spellings).transpose()?,
        session: query.session.as_deref().map(session_id).transpose()?,
        act: query.act,
        since: query.since.as_deref().map(moment).transpose()?,
        until: query.until.as_deref().map(moment).transpose()?,
        before: query.cursor.as_deref().map(cursor).transpose()?,
    };
    let limit = limit(query.limit)?;
    let mut found = read(&admin, move |admin| admin.table.audit(&filter, limit + 1)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.number.to_string());
    Ok(Json(AuditList { items: found.into_iter().map(entry).collect(), next }))
}

/// Counts sign-ins and ends by day, app and tenant, as far back as the audit goes.
#[utoipa::path(
    get, path = "/v1/stats", params(StatsQuery), tag = "audit",
    responses(
        (status = 200, description = "The counts", body = DayList),
        (status = 400, description = "An unknown or malformed parameter, or too many days",
         body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `stats.read`", body = Problem, content_type = PROBLEM),
        (status = 503, description = "The store cannot be read", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn stats(
    State(admin): State<Admin>,
    caller: Caller,
    Parameters(query): Parameters<StatsQuery>,
) -> Result<Json<DayList>, Problem> {
    caller.needs("stats.read")?;
    let filter = AuditFilter {
        app: query.app,
        tenants: tenants(query.tenant.as_deref(), &caller)?,
        since: query.since.as_deref().map(moment).transpose()?,
        until: query.until.as_deref().map(moment).transpose()?,
        ..AuditFilter::default()
    };
    let days = read(&admin, move |admin| admin.table.days(&filter)).await?;
    if days.len() > MAX_DAYS {
        return Err(Problem::bad_request(format!(
            "these are more than {MAX_DAYS} lines; ask for fewer days"
        )));
    }
    Ok(Json(DayList { items: days.into_iter().map(counts).collect(), next: None }))
}

/// Reads the audit beside the threads that serve, with everything in it that has happened until now.
async fn read<T: Send + 'static>(
    admin: &Admin,
    read: impl FnOnce(&Admin) -> Result<T, CannotRead> + Send + 'static,
) -> Result<T, Problem> {
    // What cannot be written now cannot be shown; the rest can.
    let _ = admin.gateway.is_safe().await;
    let admin = admin.clone();
    match tokio::task::spawn_blocking(move || read(&admin)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(fault)) => Err(Problem::unavailable(fault.to_string())),
        Err(_) => Err(Problem::unavailable("the reading broke off; see the log".to_owned())),
    }
}

/// Those that are asked for, as far as the caller may see them.
fn tenants(asked: Option<&str>, caller: &Caller) -> Result<Option<Vec<String>>, Problem> {
    let mut tenants = asked.map(spellings).transpose()?;
    if let Some(own) = &caller.tenant {
        tenants.get_or_insert_with(|| vec![own.clone()]).retain(|tenant| tenant == own);
    }
    Ok(tenants)
}

fn moment(text: &str) -> Result<Moment, Problem> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    let at = at.ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.map(Moment::from_unix_ms).ok_or_else(|| {
        Problem::bad_request(format!("{text:?} is no point in time such as 2027-01-31T00:00:00Z"))
    })
}

fn cursor(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::bad_request("this is no cursor of ours"))
}

fn entry(found: Found) -> AuditEntry {
    let Found { number: _, at, act, session, app, tenant, user, reason, by, detail } = found;
    AuditEntry { at: at.to_rfc3339(), act, session, app, tenant, user, reason, by, detail }
}

fn counts(((day, app, tenant), Day { sign_ins, held_back, ends }): (DayKey, Day)) -> DayCounts {
    let midnight = Moment::from_unix_ms(day.saturating_mul(DAY_MS)).to_rfc3339().unwrap_or_default();
    let day = midnight.split('T').next().unwrap_or_default().to_owned();
    DayCounts { day, app, tenant, sign_ins, held_back, ends }
}
