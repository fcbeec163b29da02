//! Errors of the API, all as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of every error (RFC 9457).
pub(super) const PROBLEM: &str = "application/problem+json";

/// What went wrong with a call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind of problem in a few words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// For a revocation, or a change of policy, that could not be made known everywhere: where it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<&'static str>,
}

impl Problem {
    /// A problem with this status.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: Some(detail.into()),
            in_force: None,
        }
    }

    /// 400.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404; also for what belongs to another tenant (R18).
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no such thing here")
    }

    /// 403: the token lacks a scope.
    pub(super) fn forbidden(scope: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, format!("this token has no scope {scope:?}"))
    }

    /// 401.
    pub(super) fn unauthorised() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a bearer token of [admin] tokens is needed")
    }

    /// 503.
    pub(super) fn unavailable(detail: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 503: what was asked for is done here, but somebody did not confirm it in time. It is tried on.
    pub(super) fn unconfirmed(done: &str, by: &str) -> Self {
        let detail = format!("{done}, but {by}");
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        problem.in_force = Some("local");
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tenure\""));
        }
        response
    }
}
