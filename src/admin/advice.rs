//! What was noticed of the apps that undoes their configuration.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::caller::Caller;
use super::problem::{PROBLEM, Problem};

/// A habit of an app that needs an operator's attention.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Advice {
    /// The app's name.
    app: String,
    /// What it does.
    #[schema(value_type = String, example = "rotates_always")]
    habit: &'static str,
    /// How often that was counted since the start.
    count: u64,
    /// What to do about it.
    #[schema(value_type = String)]
    advice: &'static str,
}

/// All of them; there are few.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdviceList {
    /// By app.
    items: Vec<Advice>,
    /// Always null: there is one page.
    next: Option<String>,
}

/// Tells what the apps do that undoes their configuration. A token that is bound to a tenant is told nothing: apps belong
/// to no tenant.
#[utoipa::path(
    get, path = "/v1/advice", tag = "gateway",
    responses(
        (status = 200, description = "What was noticed since the start", body = AdviceList),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = PROBLEM),
        (status = 403, description = "The token lacks `sessions.read`", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn list(State(admin): State<Admin>, caller: Caller) -> Result<Json<AdviceList>, Problem> {
    caller.needs("sessions.read")?;
    let mut items = Vec::new();
    for app in admin.metrics.apps().iter().filter(|_| caller.tenant.is_none()) {
        items.extend(app.habits.noticed().map(|habit| Advice {
            app: app.name().to_owned(),
            habit: habit.as_str(),
            count: app.habits.count(habit),
            advice: habit.advice(),
        }));
    }
    Ok(Json(AdviceList { items, next: None }))
}
