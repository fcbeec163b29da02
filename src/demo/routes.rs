//! What the demonstration app answers to a request.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, LOCATION, SEC_WEBSOCKET_ACCEPT, SET_COOKIE,
    UPGRADE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use super::sessions::{Sessions, SignedIn, authenticate};
use super::{pages, ticker, websocket};
use crate::clock::Clock;

/// The name of the app's session cookie.
pub(super) const COOKIE_NAME: &str = "LEGACYSID";

/// The longest sign-in form that is read.
const MAX_FORM_BYTES: usize = 8 * 1024;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The app's state.
pub(super) struct App {
    sessions: Mutex<Sessions>,
    pub(super) clock: Clock,
}

impl App {
    pub(super) fn new(clock: Clock) -> Self {
        Self { sessions: Mutex::default(), clock }
    }

    fn open(&self, signed_in: Option<SignedIn>) -> Option<String> {
        self.sessions.lock().open(signed_in)
    }
}

/// Answers one request; a WebSocket handshake leaves its connection in `tunnel`.
pub(super) async fn respond(
    app: &App,
    tunnel: &Mutex<Option<OnUpgrade>>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let id = session_id(&request).filter(|id| app.sessions.lock().knows(id));
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let path = request.uri().path().to_owned();
    let answer = match (method, path.as_str()) {
        (Method::GET, "/static/style.css") => file("text/css", include_str!("assets/style.css")),
        (Method::GET, "/static/app.js") => file("text/javascript", include_str!("assets/app.js")),
        (Method::GET, "/favicon.ico") => status(StatusCode::NO_CONTENT),
        (Method::GET, "/login") => login_page(app, id.as_deref(), pages::Attempt::First),
        (Method::POST, "/login") => sign_in(app, id.as_deref(), request).await,
        (Method::GET | Method::POST, "/logout") => sign_out(app, id.as_deref()),
        (_, "/static/style.css" | "/static/app.js" | "/favicon.ico" | "/login" | "/logout") => not_allowed(),
        (method, path) => match id.and_then(|id| app.sessions.lock().signed_in(&id)) {
            Some(who) => for_user(app, tunnel, who, &method, path, request),
            None => stranger(path),
        },
    };
    Ok(answer)
}

/// What is answered to people who have signed in.
fn for_user(
    app: &App,
    tunnel: &Mutex<Option<OnUpgrade>>,
    who: SignedIn,
    method: &Method,
    path: &str,
    request: Request<Incoming>,
) -> Answer {
    let is_page = pages::Page::at(path);
    if method != Method::GET {
        return if is_page.is_some() { not_allowed() } else { status(StatusCode::NOT_FOUND) };
    }
    match path {
        "/notifications" => json(&pages::notifications(app.clock.now())),
        "/events" => events(),
        "/ws" => handshake(tunnel, request),
        _ => match is_page {
            Some(page) => html(StatusCode::OK, pages::page(page, who, app.clock.now())),
            None => html(StatusCode::NOT_FOUND, pages::not_found()),
        },
    }
}

/// What is answered to those who have not: pages lead to the sign-in form, everything else is refused.
fn stranger(path: &str) -> Answer {
    match path {
        "/notifications" | "/events" | "/ws" => status(StatusCode::UNAUTHORIZED),
        _ => redirect("/login"),
    }
}

/// The value of the session cookie.
fn session_id(request: &Request<Incoming>) -> Option<String> {
    let fields = request.headers().get_all(COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value.to_owned())
}

/// The sign-in form; like many an old app, this one opens a session for whoever looks at it.
fn login_page(app: &App, id: Option<&str>, attempt: pages::Attempt) -> Answer {
    let answer = html(StatusCode::OK, pages::login(attempt));
    match id {
        Some(_) => answer,
        None => with_session(answer, app.open(None)),
    }
}

/// A successful sign-in gets a new session id; the one from before is forgotten.
async fn sign_in(app: &App, id: Option<&str>, request: Request<Incoming>) -> Answer {
    let Ok(form) = Limited::new(request.into_body(), MAX_FORM_BYTES).collect().await else {
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let form = form.to_bytes();
    let field = |wanted: &str| {
        let mut fields = form_urlencoded::parse(&form);
        fields.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let Some(user) = authenticate(&field("username"), &field("password")) else {
        return login_page(app, id, pages::Attempt::Failed);
    };
    if let Some(old) = id {
        app.sessions.lock().close(old);
    }
    with_session(redirect("/"), app.open(Some(SignedIn { user, at: app.clock.now() })))
}

fn sign_out(app: &App, id: Option<&str>) -> Answer {
    if let Some(id) = id {
        app.sessions.lock().close(id);
    }
    let mut answer = redirect("/login");
    set_cookie(&mut answer, &format!("{COOKIE_NAME}=; Path=/; HttpOnly; Max-Age=0"));
    answer
}

/// Adds the session cookie; without random bytes for one there is no answer at all.
fn with_session(mut answer: Answer, id: Option<String>) -> Answer {
    let Some(id) = id else { return status(StatusCode::INTERNAL_SERVER_ERROR) };
    set_cookie(&mut answer, &format!("{COOKIE_NAME}={id}; Path=/; HttpOnly"));
    answer
}

fn set_cookie(answer: &mut Answer, field: &str) {
    if let Ok(field) = HeaderValue::from_str(field) {
        answer.headers_mut().append(SET_COOKIE, field);
    }
}

fn handshake(tunnel: &Mutex<Option<OnUpgrade>>, mut request: Request<Incoming>) -> Answer {
    let Some(accept) = websocket::accept(request.headers()) else { return status(StatusCode::BAD_REQUEST) };
    *tunnel.lock() = Some(hyper::upgrade::on(&mut request));
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

fn events() -> Answer {
    let mut answer = Response::new(BodyExt::boxed(ticker::Ticker::new()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed());
    *answer.status_mut() = status;
    if !content_type.is_empty() {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

fn status(status: StatusCode) -> Answer {
    answer(status, "", Bytes::new())
}

fn not_allowed() -> Answer {
    let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn redirect(to: &'static str) -> Answer {
    let mut answer = status(StatusCode::FOUND);
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
    answer
}

fn html(status: StatusCode, page: String) -> Answer {
    let mut answer = answer(status, "text/html; charset=utf-8", page.into());
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn json(text: &str) -> Answer {
    answer(StatusCode::OK, "application/json", Bytes::copy_from_slice(text.as_bytes()))
}

fn file(content_type: &'static str, text: &'static str) -> Answer {
    answer(StatusCode::OK, content_type, Bytes::from_static(text.as_bytes()))
}
