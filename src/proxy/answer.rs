//! The answers that the gateway gives itself: ends, held-back sessions, refusals.
//!
//! One function for each; what a browser meets is fixed by the contract. Every answer is `no-store`.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERER, SET_COOKIE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::Body;
use super::set_cookies::sets_name;
use super::site::AppSite;
use super::visit::Visit;
use crate::pages;
use crate::session::activity::Kind;
use crate::session::cookie::deletion;
use crate::session::gate::Telling;
use crate::session::profile::CookieRule;
use crate::session::record::Session;
use crate::session::return_to::{from_referer, login_location};
use crate::session::{EndReason, Moment};

const TENURE_SESSION: HeaderName = HeaderName::from_static("tenure-session");

/// W3C Clear Site Data; browsers heed it over https.
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Tells that the session has ended, in the form that the request expects, and deletes its cookies.
#[must_use]
pub(super) fn ended(visit: &Visit, session: &Session, reason: EndReason, how: Telling) -> Response<Body> {
    let login = visit.app.config.login.as_deref();
    let mut response = match how {
        Telling::Redirect => redirect(&way_to_login(visit)),
        Telling::Page => page(
            StatusCode::UNAUTHORIZED,
            pages::ended(reason, login.map(|_| way_to_login(visit)).as_deref()),
        ),
        Telling::Problem => problem(
            StatusCode::UNAUTHORIZED,
            "Session ended",
            &[("reason", Some(reason.as_str())), ("login", login)],
        ),
    };
    mark(&mut response, &format!("ended; reason={reason}"));
    // Where a page is to say why, a script's request leaves the cookies until a person has met it: without them the next
    // page load would be nobody's, and nobody would learn why (R15).
    let untold = !session.ended().is_some_and(|end| end.told);
    if how == Telling::Problem && reason.has_page() && untold {
        return response;
    }
    forget(visit, session, response.headers_mut());
    response
}

/// Has the browser forget what belonged to the session: its cookies, with the very attributes they were set with (FIELD
/// F10), unless the answer sets them anew; the chunks of them that the request brought; and what it keeps of the app's pages
/// ([`clear`]).
pub(super) fn forget(visit: &Visit, session: &Session, headers: &mut HeaderMap) {
    let shapes = session.shapes();
    // A cookie that has moved is deleted where it was and where it is: the answer's own fields alone are asked.
    let doomed: Vec<_> = shapes.iter().filter(|shape| !sets_name(headers, &shape.name)).collect();
    for shape in doomed {
        let chunks = visit.chunks.iter().filter(|chunk| is_chunk_of(&visit.app, chunk, &shape.name));
        for name in std::iter::once(&shape.name).chain(chunks) {
            if let Ok(value) = HeaderValue::from_str(&deletion(name, &shape.attributes)) {
                headers.append(SET_COOKIE, value);
            }
        }
    }
    clear(&visit.app, headers);
}

fn is_chunk_of(app: &AppSite, chunk: &str, base: &str) -> bool {
    let of = |rule: &CookieRule| rule.chunk_of(chunk.as_bytes()).is_some_and(|(of, _)| of == base.as_bytes());
    app.config.cookies.iter().any(of)
}

/// Has the browser forget what it keeps of the app's pages, where that is asked for.
pub(super) fn clear(app: &AppSite, headers: &mut HeaderMap) {
    if app.config.clear_on_end {
        // Not "cookies": that would take those of every other app below the same registered domain.
        headers.insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cache\", \"storage\""));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Tells that the sign-in is held back: a page for a navigation, a problem for everything else.
#[must_use]
pub(super) fn held_back(visit: &Visit, page_html: Option<String>) -> Response<Body> {
    let mut response = match page_html {
        Some(html) => page(StatusCode::FORBIDDEN, html),
        None => {
            let login = visit.app.config.login.as_deref();
            let members = [("reason", Some(EndReason::MaxConcurrent.as_str())), ("login", login)];
            problem(StatusCode::UNAUTHORIZED, "Session held back", &members)
        }
    };
    mark(&mut response, "pending");
    response
}

/// Credentials in a header are no way round the session (`unidentified = "refuse"`).
#[must_use]
pub(super) fn unidentified() -> Response<Body> {
    let mut response = problem(
        StatusCode::UNAUTHORIZED,
        "A session is needed",
        &[("detail", Some("sign in with a browser first"))],
    );
    // No scheme is offered that a browser would open a dialogue for.
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Session"));
    response
}

/// A short problem document. Members that are `None` are left out.
#[must_use]
pub(super) fn problem(status: StatusCode, title: &str, members: &[(&str, Option<&str>)]) -> Response<Body> {
    let mut document = serde_json::Map::new();
    document.insert("type".into(), "about:blank".into());
    document.insert("title".into(), title.into());
    document.insert("status".into(), status.as_u16().into());
    for (name, value) in members {
        if let Some(value) = value {
            document.insert((*name).into(), (*value).into());
        }
    }
    let body = serde_json::Value::Object(document).to_string();
    own(status, "application/problem+json", body)
}

/// A JSON document.
#[must_use]
pub(super) fn json(status: StatusCode, document: &serde_json::Value) -> Response<Body> {
    own(status, "application/json", document.to_string())
}

/// An empty answer.
#[must_use]
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 303 to `location`.
#[must_use]
pub(super) fn redirect(location: &str) -> Response<Body> {
    let mut response = empty(StatusCode::SEE_OTHER);
    let value = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, value);
    response
}

/// One of our pages.
#[must_use]
pub(super) fn page(status: StatusCode, html: String) -> Response<Body> {
    let mut response = own(status, "text/html; charset=utf-8", html);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(pages::CONTENT_SECURITY_POLICY));
    response
}

fn own(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn mark(response: &mut Response<Body>, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(TENURE_SESSION, value);
    }
}

/// Where signing in begins, with the way back: the page itself for a GET, else the page that the form stood on (R15).
fn way_to_login(visit: &Visit) -> String {
    let reads = matches!(visit.head.method, http::Method::GET | http::Method::HEAD);
    let back = if reads {
        Some(visit.target())
    } else {
        let referer = visit.head.headers.get(REFERER).and_then(|r| r.to_str().ok());
        Some(referer.and_then(|r| from_referer(r, &visit.host.name)).unwrap_or_else(|| "/".to_owned()))
    };
    let login = visit.app.config.login.as_deref().unwrap_or("/");
    let back = back.filter(|_| visit.kind == Kind::Navigation);
    login_location(login, visit.app.config.return_to.as_deref(), back.as_deref())
}

/// What `GET /.tenure/status` says of a session; `None` for a browser without one.
#[must_use]
pub(super) fn status(session: Option<&Session>, now: Moment) -> serde_json::Value {
    use crate::session::record::State;
    let state = match session.map(|s| &s.state) {
        None => "none",
        Some(State::Active) => "active",
        Some(State::Pending(_)) => "pending",
        Some(State::Ended(_)) => "ended",
    };
    let live = session.filter(|s| matches!(s.state, State::Active));
    let reason = session.and_then(Session::ended).map(|end| end.reason.as_str());
    let user = live.and_then(|s| s.identity.as_deref()).map(|identity| identity.user.as_str());
    serde_json::json!({
        "state": state,
        "reason": reason,
        "user": user,
        "idle_expires_at": live.and_then(|s| s.deadline.idle_at.to_rfc3339()),
        "lifetime_expires_at": live.and_then(|s| s.deadline.lifetime_at.to_rfc3339()),
        "now": now.to_rfc3339(),
    })
}
