//! Users with live sessions.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Admin;
use super::caller::{Caller, Parameters};
use super::model::{UserList, UserQuery, limit, spellings};
use super::problem::{PROBLEM, Problem};

/// Lists users with live sessions, by name.
#[utoipa::path(
    get, path = "/v1/users", params(UserQuery), tag = "users",
    responses(
        (status = 200, description = "A page of users", body = UserList),
        (status = 400, description = "An unknown or malformed parameter", body = Problem, content_type = PROBLEM),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.read`", body = Problem, content_type = PROBLEM),
        (status = 503, description = "Others are looking at every session", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Parameters(query): Parameters<UserQuery>,
) -> Result<Json<UserList>, Problem> {
    caller.needs("sessions.read")?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let limit = limit(query.limit)?;
    let mut tenants = query.tenant.as_deref().map(spellings).transpose()?;
    if let Some(own) = &caller.tenant {
        // A token that is bound to one tenant sees nobody else, whatever it asks for.
        tenants.get_or_insert_with(|| vec![own.clone()]).retain(|tenant| tenant == own);
    }
    let part = query.q.as_deref().map(str::to_lowercase);
    let list = move |admin: &Admin| {
        admin.table.users(tenants.as_deref(), part.as_deref(), after.as_ref(), limit, admin.clock.now())
    };
    let (users, next) =
        admin.take_turn(Some(&admin.turns.look), list, "the listing broke off; see the log").await?;
    let next = next.map(|(user, tenant)| URL_SAFE_NO_PAD.encode(format!("{user}\0{tenant}")));
    Ok(Json(UserList { items: users.into_iter().map(Into::into).collect(), next }))
}

fn read_cursor(text: &str) -> Result<(String, String), Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes
        .as_deref()
        .and_then(|text| text.split_once('\0'))
        .map(|(user, tenant)| (user.to_owned(), tenant.to_owned()))
        .ok_or_else(|| Problem::bad_request("this is no cursor of ours"))
}
