//! Sessions: listing, looking at one, ending one or many.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Admin;
use super::caller::{Caller, Document, Parameters, Segment};
use super::model::{
    FilterText, RevokeRequest, Revoked, SessionDocument, SessionList, SessionQuery, UserScope, filter, limit,
    session_id, spellings,
};
use super::problem::{PROBLEM, Problem};
use crate::session::{EndReason, Moment, SessionId};
use crate::store::{Cursor, Filter, RevokeOutcome, SessionRef};

/// Lists sessions, oldest first.
#[utoipa::path(
    get, path = "/v1/sessions", params(SessionQuery), tag = "sessions",
    responses(
        (status = 200, description = "A page of sessions", body = SessionList),
        (status = 400, description = "An unknown or malformed parameter", body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.read`", body = Problem, content_type = PROBLEM),
        (status = 503, description = "Others are looking at every session", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Parameters(query): Parameters<SessionQuery>,
) -> Result<Json<SessionList>, Problem> {
    caller.needs("sessions.read")?;
    let filter = filter(
        &FilterText {
            app: query.app.as_deref(),
            tenant: query.tenant.as_deref(),
            user: query.user.as_deref(),
            ip: query.ip.as_deref(),
            state: query.state.as_deref(),
            reason: query.reason.as_deref(),
        },
        &caller,
    )?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let limit = limit(query.limit)?;
    let turn = filter.walks(false).then_some(&admin.turns.look);
    let list = move |admin: &Admin| admin.table.list(&filter, after, limit, admin.clock.now());
    let page = admin.take_turn(turn, list, "the listing broke off; see the log").await?;
    let items = page.items.into_iter().map(|view| SessionDocument::new(view, &caller)).collect();
    Ok(Json(SessionList { items, next: page.next.map(write_cursor) }))
}

/// One session.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", params(("id" = String, Path)), tag = "sessions",
    responses(
        (status = 200, description = "The session", body = SessionDocument),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.read`", body = Problem, content_type = PROBLEM),
        (status = 404, description = "Unknown, or of another tenant", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<SessionDocument>, Problem> {
    caller.needs("sessions.read")?;
    let session = find(&admin, &caller, &id)?;
    Ok(Json(SessionDocument::new(admin.table.view(&session, admin.clock.now()), &caller)))
}

/// Ends one session. In force on every connection when the call returns; ending it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", params(("id" = String, Path)), tag = "sessions",
    responses(
        (status = 200, description = "The session, ended", body = SessionDocument),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.revoke`", body = Problem, content_type = PROBLEM),
        (status = 404, description = "Unknown, or of another tenant", body = Problem, content_type = PROBLEM),
        (status = 503, description = "Ended, but not confirmed by every worker",
         body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn end(
    State(admin): State<Admin>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<SessionDocument>, Problem> {
    caller.needs("sessions.revoke")?;
    let session = find(&admin, &caller, &id)?;
    let by: Arc<str> = caller.name.as_str().into();
    let ended = admin.table.end(&session, EndReason::Revoked, Some(by), admin.clock.now());
    admin.did(&caller, "revoke", &format!("session={} ended={}", session.id(), u8::from(ended)));
    in_force(&admin, ENDED).await?;
    Ok(Json(SessionDocument::new(admin.table.view(&session, admin.clock.now()), &caller)))
}

/// Ends every session that fits. An empty filter needs `everyone`.
#[utoipa::path(
    post, path = "/v1/sessions/revoke", request_body = RevokeRequest, tag = "sessions",
    responses(
        (status = 200, description = "What was matched and ended", body = Revoked),
        (status = 400, description = "An empty filter without `everyone`, or an unknown member",
         body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.revoke`", body = Problem, content_type = PROBLEM),
        (status = 413, description = "The body is too large", body = Problem, content_type = PROBLEM),
        (status = 415, description = "The body is no JSON", body = Problem, content_type = PROBLEM),
        (status = 503, description = "Ended, but not confirmed by every worker; without `in_force` nothing was done, as \
         others are looking at every session", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn revoke(
    State(admin): State<Admin>,
    caller: Caller,
    Document(request): Document<RevokeRequest>,
) -> Result<Json<Revoked>, Problem> {
    caller.needs("sessions.revoke")?;
    let mut filter = filter(
        &FilterText {
            app: request.app.as_deref(),
            tenant: request.tenant.as_deref(),
            user: request.user.as_deref(),
            ip: request.ip.as_deref(),
            state: request.state.as_deref(),
            reason: request.reason.as_deref(),
        },
        &caller,
    )?;
    filter.ids = request.id.as_deref().map(session_id).transpose()?.into_iter().collect();
    if filter.is_empty() && !request.everyone {
        return Err(Problem::bad_request("an empty filter means everyone: say \"everyone\": true"));
    }
    let except = request.except.iter().map(|id| session_id(id)).collect::<Result<Vec<SessionId>, _>>()?;
    revoke_filter(&admin, caller, filter, except, request.dry_run).await.map(Json)
}

/// Ends every session of a user.
#[utoipa::path(
    delete, path = "/v1/users/{user}/sessions", params(("user" = String, Path), UserScope), tag = "users",
    responses(
        (status = 200, description = "What was matched and ended", body = Revoked),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.revoke`", body = Problem, content_type = PROBLEM),
        (status = 503, description = "Ended, but not confirmed by every worker; without `in_force` nothing was done, as \
         others are looking at every session", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn end_of_user(
    State(admin): State<Admin>,
    caller: Caller,
    Segment(user): Segment,
    Parameters(scope): Parameters<UserScope>,
) -> Result<Json<Revoked>, Problem> {
    caller.needs("sessions.revoke")?;
    let filter = Filter {
        app: scope.app,
        tenant: scope.tenant.as_deref().map(spellings).transpose()?,
        user: Some(spellings(&user)?),
        only_tenant: caller.tenant.clone(),
        ..Filter::default()
    };
    revoke_filter(&admin, caller, filter, Vec::new(), false).await.map(Json)
}

async fn revoke_filter(
    admin: &Admin,
    caller: Caller,
    filter: Filter,
    except: Vec<SessionId>,
    dry_run: bool,
) -> Result<Revoked, Problem> {
    // ORDER: before the sessions are looked for, some of which may be read only afterwards.
    let knows_all = admin.gateway.knows_all();
    let turn = if dry_run { &admin.turns.look } else { &admin.turns.end };
    let turn = filter.walks(true).then_some(turn);
    let revoke = move |admin: &Admin| {
        let by: Arc<str> = caller.name.as_str().into();
        let outcome = admin.table.revoke(&filter, &except, dry_run, &by, admin.clock.now());
        let (spared, matched, ended) = (except.len(), outcome.matched, outcome.ended.len());
        let detail = format!("{filter} except={spared} matched={matched} ended={ended} dry_run={dry_run}");
        admin.did(&caller, "revoke", &detail);
        outcome
    };
    let broken = "it broke off, and some sessions may have ended; see the log, and ask again";
    let RevokeOutcome { matched, ended } = admin.take_turn(turn, revoke, broken).await?;
    // Also where nothing was left to end: somebody else's revocation may have ended it a moment ago, and not be safe yet.
    if !dry_run {
        in_force(admin, ENDED).await?;
    }
    if !knows_all {
        return Err(Problem::unconfirmed("the sessions that are known here have ended", STILL_READING));
    }
    Ok(Revoked { matched, ended: ended.len() })
}

const STILL_READING: &str =
    "this gateway has just begun and reads the others from the store; ask again in a moment";

const ENDED: &str = "the sessions have ended";

/// Waits until what was `done` is in force on every connection, and would survive the process.
pub(super) async fn in_force(admin: &Admin, done: &str) -> Result<(), Problem> {
    if !admin.gateway.in_force().await {
        let by = "a worker has not yet confirmed that its connections are cut";
        return Err(Problem::unconfirmed(done, by));
    }
    if !admin.gateway.is_safe().await {
        let by = "the store has not confirmed it yet; a restart now could undo it";
        return Err(Problem::unconfirmed(done, by));
    }
    Ok(())
}

/// The session with this id, if the caller may know of it (R18).
fn find(admin: &Admin, caller: &Caller, id: &str) -> Result<SessionRef, Problem> {
    let id: SessionId = id.parse().map_err(|_| Problem::not_found())?;
    let knows_all = admin.gateway.knows_all();
    let unknown = || match knows_all {
        true => Problem::not_found(),
        false => Problem::unavailable(format!("it is not known here, but {STILL_READING}")),
    };
    let session = admin.table.by_id(id).ok_or_else(unknown)?;
    let now = admin.clock.now();
    let tenant = admin.table.inspect(&session, now, |s| s.identity.as_deref().map(|i| i.tenant.clone()));
    if caller.sees(tenant.as_deref()) { Ok(session) } else { Err(Problem::not_found()) }
}

/// Opaque to callers: the place behind which the next page begins.
fn write_cursor(cursor: Cursor) -> String {
    let mut bytes = cursor.created_at.unix_ms().to_be_bytes().to_vec();
    bytes.extend(cursor.id.as_u128().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Result<Cursor, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 24]>::try_from(bytes).ok());
    let Some(bytes) = bytes else { return Err(Problem::bad_request("this is no cursor of ours")) };
    let (mut at, mut id) = ([0; 8], [0; 16]);
    at.copy_from_slice(&bytes[..8]);
    id.copy_from_slice(&bytes[8..]);
    Ok(Cursor {
        created_at: Moment::from_unix_ms(u64::from_be_bytes(at)),
        id: SessionId::from_u128(u128::from_be_bytes(id)),
    })
}
