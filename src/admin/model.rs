//! The API's documents, as they are written and read.

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use super::caller::{Caller, address};
use super::problem::Problem;
use crate::session::device::Device;
use crate::session::identity::{UserCase, normal_name};
use crate::session::{EndReason, Moment, SessionId};
use crate::store::{Filter, SessionView, StateFilter, UserView};

const STATES: [StateFilter; 3] = [StateFilter::Active, StateFilter::Pending, StateFilter::Ended];

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionDocument {
    /// Public and random; no credential.
    id: String,
    app: String,
    tenant: Option<String>,
    user: Option<String>,
    roles: Vec<String>,
    /// `active`, `pending` or `ended`.
    state: &'static str,
    created_at: Option<String>,
    signed_in_at: Option<String>,
    last_active_at: Option<String>,
    /// `null` when there is no idle time-out.
    idle_expires_at: Option<String>,
    /// `null` when there is no forced re-login.
    lifetime_expires_at: Option<String>,
    ended_at: Option<String>,
    end_reason: Option<&'static str>,
    ended_by: Option<String>,
    /// Only with the scope `sessions.pii`.
    ip: Option<String>,
    /// Only with the scope `sessions.pii`; `null` while unknown.
    location: Option<Location>,
    device: DeviceDocument,
    user_agent: Option<String>,
    requests: u64,
    live_connections: u32,
}

/// Where an address is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Location {
    country: Option<String>,
    city: Option<String>,
}

/// What the `User-Agent` tells.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceDocument {
    browser: Option<&'static str>,
    os: Option<&'static str>,
    kind: Option<&'static str>,
}

impl SessionDocument {
    /// The session as `caller` may see it.
    pub(super) fn new(view: SessionView, caller: &Caller) -> Self {
        // A token that may only end sessions is not told whose they were.
        let reads = caller.has("sessions.read");
        let user_agent = if reads { &*view.user_agent } else { "" };
        let device = Device::read(user_agent);
        let identity = view.identity.as_deref();
        let live = view.state != StateFilter::Ended;
        Self {
            id: view.id.to_string(),
            app: view.app.to_string(),
            tenant: identity.map(|i| i.tenant.clone()),
            user: identity.map(|i| i.user.clone()).filter(|_| reads),
            roles: if reads { view.roles } else { Vec::new() },
            state: view.state.as_str(),
            created_at: rfc3339(view.times.created_at),
            signed_in_at: view.times.signed_in_at.and_then(rfc3339),
            last_active_at: rfc3339(view.times.last_active_at),
            idle_expires_at: live.then(|| rfc3339(view.deadline.idle_at)).flatten(),
            lifetime_expires_at: live.then(|| rfc3339(view.deadline.lifetime_at)).flatten(),
            ended_at: view.end.as_ref().and_then(|end| rfc3339(end.at)),
            end_reason: view.end.as_ref().map(|end| end.reason.as_str()),
            ended_by: view.end.as_ref().and_then(|end| end.by.as_ref()).map(ToString::to_string),
            ip: caller.has("sessions.pii").then(|| view.ip.to_string()),
            location: None,
            device: DeviceDocument {
                browser: device.browser,
                os: device.os,
                kind: device.kind.map(crate::session::device::DeviceKind::as_str),
            },
            user_agent: (!user_agent.is_empty()).then(|| user_agent.to_owned()),
            requests: view.requests,
            live_connections: view.live_connections,
        }
    }
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionList {
    pub(super) items: Vec<SessionDocument>,
    /// The `cursor` of the next page; `null` at the end.
    pub(super) next: Option<String>,
}

/// A user with live sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserDocument {
    user: String,
    tenant: String,
    apps: Vec<String>,
    /// Live sessions in all of them.
    sessions: usize,
    last_active_at: Option<String>,
}

impl From<UserView> for UserDocument {
    fn from(view: UserView) -> Self {
        Self {
            user: view.user,
            tenant: view.tenant,
            apps: view.apps,
            sessions: view.sessions,
            last_active_at: rfc3339(view.last_active_at),
        }
    }
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserList {
    pub(super) items: Vec<UserDocument>,
    /// The `cursor` of the next page; `null` at the end.
    pub(super) next: Option<String>,
}

/// What a revocation matched and ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    /// Sessions that fitted and had not ended.
    pub(super) matched: usize,
    /// Those that this call ended; 0 for a dry run.
    pub(super) ended: usize,
}

/// Query parameters of the list of sessions. Every one that is given must fit.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionQuery {
    /// The app's name.
    pub app: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The user; compared as the gateway normalises names.
    pub user: Option<String>,
    /// The address at the session's beginning. Needs `sessions.pii`.
    pub ip: Option<String>,
    /// Where it stands.
    #[param(schema_with = one_of_states)]
    pub state: Option<String>,
    /// Why it ended.
    #[param(schema_with = one_of_reasons)]
    pub reason: Option<String>,
    /// 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// The body of a revocation: the same filter, exceptions, and whether to act at all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeRequest {
    /// The app's name.
    pub app: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The address at the session's beginning. Needs `sessions.pii`.
    pub ip: Option<String>,
    /// `active` or `pending`; what has ended is not ended again.
    pub state: Option<String>,
    /// As in the list of sessions; fits only what has ended.
    pub reason: Option<String>,
    /// One session.
    pub id: Option<String>,
    /// Sessions that are spared.
    #[serde(default)]
    pub except: Vec<String>,
    /// Only count.
    #[serde(default)]
    pub dry_run: bool,
    /// Needed for a filter that is empty otherwise.
    #[serde(default)]
    pub everyone: bool,
}

/// Query parameters of the list of users.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UserQuery {
    /// The tenant.
    pub tenant: Option<String>,
    /// Part of the user's name.
    pub q: Option<String>,
    /// 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Which of a user's sessions are meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UserScope {
    /// The tenant.
    pub tenant: Option<String>,
    /// The app's name.
    pub app: Option<String>,
}

/// Whom the effective policy is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubjectQuery {
    /// The app's name; needed where there are several.
    pub app: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The user; needs the tenant, unless the app's default is meant.
    pub user: Option<String>,
    /// One more role to assume.
    pub role: Option<String>,
}

/// The parts of a filter as text.
pub(super) struct FilterText<'a> {
    pub(super) app: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) ip: Option<&'a str>,
    pub(super) state: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
}

/// The filter, cut to what `caller` may see.
pub(super) fn filter(text: &FilterText<'_>, caller: &Caller) -> Result<Filter, Problem> {
    if text.ip.is_some() {
        caller.needs("sessions.pii")?;
    }
    Ok(Filter {
        app: text.app.map(str::to_owned),
        tenant: text.tenant.map(spellings).transpose()?,
        user: text.user.map(spellings).transpose()?,
        only_tenant: caller.tenant.clone(),
        ip: text.ip.map(address).transpose()?,
        state: text.state.map(state).transpose()?,
        reason: text.reason.map(reason).transpose()?,
        ids: Vec::new(),
    })
}

/// A name as an app of this `case` has it.
pub(super) fn named(name: &str, case: UserCase) -> Result<String, Problem> {
    normal_name(name, case)
        .map_err(|error| Problem::bad_request(error.to_string()))?
        .ok_or_else(|| Problem::bad_request("a name is empty"))
}

/// A name as apps may have it: folded, and exact.
pub(super) fn spellings(name: &str) -> Result<Vec<String>, Problem> {
    let mut found = vec![named(name, UserCase::Fold)?, named(name, UserCase::Exact)?];
    found.dedup();
    Ok(found)
}

fn one_of_states() -> Schema {
    one_of(STATES.map(StateFilter::as_str))
}

fn one_of_reasons() -> Schema {
    one_of(EndReason::ALL.map(EndReason::as_str))
}

fn one_of<const N: usize>(values: [&'static str; N]) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build().into()
}

fn state(text: &str) -> Result<StateFilter, Problem> {
    STATES
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| Problem::bad_request("state is active, pending or ended"))
}

fn reason(text: &str) -> Result<EndReason, Problem> {
    let known = || EndReason::ALL.map(EndReason::as_str).join(", ");
    text.parse().map_err(|()| Problem::bad_request(format!("reason is one of {}", known())))
}

/// A session's id in a body or path.
pub(super) fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map_err(|error: crate::session::NotASessionId| Problem::bad_request(error.to_string()))
}

/// `limit` within its bounds.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(100),
        Some(limit @ 1..=1000) => Ok(limit),
        Some(_) => Err(Problem::bad_request("limit is 1 to 1000")),
    }
}

/// RFC 3339 in UTC with milliseconds; `None` for "never".
fn rfc3339(at: Moment) -> Option<String> {
    at.to_rfc3339()
}
