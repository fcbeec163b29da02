//! From a forwarded request to the browser's answer: sending, learning, streaming.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, SET_COOKIE, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{Body, Bound, Flow, Upload, UploadState, is_event_stream};
use super::forward::{Answered, UpstreamError, send};
use super::handle::{Connection, Judged, Proxy, rewrite, visit_identity};
use super::headers;
use super::learn::{self, Learned};
use super::login_form::{self, MAX_SIGN_IN_BODY};
use super::pool::Lease;
use super::set_cookies::{ResponseCookies, sets_name};
use super::sources::{self, Heard, Said};
use super::upgrade::{Close, tunnel};
use super::visit::Visit;
use super::{answer, userinfo};
use crate::session::EndReason;
use crate::session::activity::{Kind, UploadHold};
use crate::session::cookie::deletion;
use crate::session::gate::{Action, Telling};
use crate::session::identity::SourceKind;
use crate::session::record::{Session, State};
use crate::telemetry::AccessGuard;

impl Proxy {
    /// Forwards the request for its session, if it has one.
    pub(super) async fn forward(
        self: Rc<Self>,
        mut judged: Box<Judged>,
        body: Incoming,
        mut access: AccessGuard,
    ) -> Response<Body> {
        let state = UploadState::default();
        let upload = match self.upload(&mut judged, body, &state).await {
            Ok(upload) => upload,
            Err((status, detail)) => {
                access.finish(status, "bad_sign_in");
                return answer::problem(status, "Sign-in refused", &[("detail", Some(&detail))]);
            }
        };
        if let Err(fault) = rewrite(&mut judged) {
            access.finish(StatusCode::BAD_REQUEST, fault.label());
            return answer::problem(
                StatusCode::BAD_REQUEST,
                "Bad request",
                &[("detail", Some(&fault.to_string()))],
            );
        }
        let Judged { mut parts, visit, intake, websocket, site, connection, .. } = *judged;
        access.session(|| visit_identity(&self.shared.table, &visit, visit.began));
        let browser = websocket.then(|| parts.extensions.remove::<OnUpgrade>()).flatten();
        let browser = browser.map(|upgrade| (upgrade, connection));
        let bound = self.bind(&visit);
        let request = Request::from_parts(parts, upload);
        let sent = self.send_bound(&visit, bound.as_ref(), request, &state, site.first_byte_timeout).await;
        access.received(state.bytes());
        match sent {
            Ok(answered) => self.respond(visit, intake.action, answered, bound, browser, access).await,
            Err(UpstreamError::Withdrawn) => {
                let response = self.answer_end(&visit);
                access.finish(response.status(), "ended");
                response
            }
            Err(error) => {
                visit.app.metrics.upstream_error(error.label());
                let app = &visit.app.config.name;
                tracing::warn!(%app, reason = error.label(), error = %chain(&error), "no answer from the upstream");
                access.finish(error.status(), error.label());
                answer::problem(error.status(), title(&error), &[])
            }
        }
    }

    /// Registers the exchange with its session. ORDER: before the session is judged again (R2).
    fn bind(&self, visit: &Visit) -> Option<Bound> {
        let (session, _) = visit.session.as_ref()?;
        let busy = session.busy();
        Some(Bound { exchange: self.exchanges.register(session.id()), busy, live: None })
    }

    /// Sends the request unless its session ends before; an end that is told stops the waiting for the app.
    async fn send_bound(
        &self,
        visit: &Visit,
        bound: Option<&Bound>,
        request: Request<Upload>,
        state: &UploadState,
        first_byte: std::time::Duration,
    ) -> Result<Answered, UpstreamError> {
        let pool = self.pool(&visit.app);
        let check = || self.may_go_on(visit);
        let sending = send(&pool, request, state, first_byte, check);
        let (Some(bound), false) = (bound, visit.place.is_open()) else { return sending.await };
        let cut = async {
            if bound.exchange.ended().await.is_told() && self.was_signed_in(visit) {
                return;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = cut => Err(UpstreamError::Withdrawn),
            answered = sending => answered,
        }
    }

    fn may_go_on(&self, visit: &Visit) -> bool {
        let now = self.shared.clock.now();
        visit.session.as_ref().is_none_or(|(session, key)| self.shared.table.is_live(session, *key, now))
    }

    fn was_signed_in(&self, visit: &Visit) -> bool {
        let now = self.shared.clock.now();
        visit.session.as_ref().is_some_and(|(session, _)| {
            self.shared.table.inspect(session, now, |s| s.times.signed_in_at.is_some())
        })
    }

    /// The answer to a request whose session ended before its head was written, or before the app answered.
    fn answer_end(&self, visit: &Visit) -> Response<Body> {
        let now = self.shared.clock.now();
        let record = visit.session.as_ref().map(|(session, _)| self.shared.table.read(session, now));
        let navigates = visit.kind == Kind::Navigation;
        let told = record.as_ref().and_then(|record| told_end(record).map(|reason| (record, reason)));
        match (told, &visit.session) {
            (Some((record, reason)), Some((session, _))) => {
                let how = match (navigates, reason.has_page(), visit.app.config.login.is_some()) {
                    (false, ..) => Telling::Problem,
                    (true, true, _) | (true, false, false) => Telling::Page,
                    (true, false, true) => Telling::Redirect,
                };
                if how != Telling::Problem {
                    self.shared.table.mark_told(session, now);
                }
                answer::ended(visit, record, reason, how)
            }
            // A silent end (the app signed the user out meanwhile): the browser asks again, now without a session.
            _ if navigates && matches!(visit.method, Method::GET | Method::HEAD) => {
                answer::redirect(&visit.target())
            }
            _ => answer::problem(StatusCode::UNAUTHORIZED, "Session ended", &[]),
        }
    }

    /// The body to forward; of a sign-in form it is read first, for the user's name alone (R7).
    async fn upload(
        &self,
        judged: &mut Judged,
        body: Incoming,
        state: &UploadState,
    ) -> Result<Upload, (StatusCode, String)> {
        use http_body::Body as _;
        let form = form_of(&judged.visit);
        let Some((index, field)) = form else {
            if body.is_end_stream() {
                return Ok(Upload::Empty);
            }
            return Ok(Upload::Streamed {
                incoming: body,
                limit: judged.site.body_bytes,
                state: state.clone(),
                progress: self.hold_idle(judged),
            });
        };
        let collected = Box::pin(Limited::new(body, MAX_SIGN_IN_BODY).collect()).await;
        let bytes = collected
            .map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the sign-in form is too large".to_owned()))?
            .to_bytes();
        let (head, query) = (&judged.parts.headers, judged.visit.query.as_deref());
        let user = login_form::user_of(head, query, &bytes, &field);
        let user = user.map_err(|fault| (fault.status(), fault.to_string()))?;
        if let Some(user) = user {
            crate::session::identity::normal_name(&user, judged.visit.app.config.user_case)
                .map_err(|_| (StatusCode::BAD_REQUEST, "the user's name is too long".to_owned()))?;
            judged.visit.form_user = Some((index, user));
        }
        // The body goes on with a length of its own, whatever framing it came in.
        judged.parts.headers.remove(http::header::TRANSFER_ENCODING);
        judged.parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        Ok(Upload::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// An upload that began as its user's activity goes on being it, within bounds (R20).
    fn hold_idle(&self, judged: &Judged) -> Option<Box<dyn FnMut(u64)>> {
        let Action::Forward { touch: true, .. } = judged.intake.action else { return None };
        let (session, _) = judged.visit.carried()?;
        let idle = self.shared.table.inspect(&session, judged.now, |s| s.policy.idle_timeout)?;
        let mut hold = UploadHold::new(judged.now, idle);
        let shared = Arc::clone(&self.shared);
        Some(Box::new(move |bytes| {
            let now = shared.clock.now();
            if hold.progressed(bytes, now) {
                shared.table.touch(&session, now);
            }
        }))
    }

    async fn respond(
        self: Rc<Self>,
        mut visit: Box<Visit>,
        action: Action,
        (response, lease): Answered,
        bound: Option<Bound>,
        browser: Option<(OnUpgrade, Rc<Connection>)>,
        mut access: AccessGuard,
    ) -> Response<Body> {
        let upgrade = (response.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| is_websocket(&response));
        let (mut head, incoming, app_side) = take_apart(response);
        if let Some(response) = self.ended_meanwhile(&visit) {
            access.finish(response.status(), "ended");
            return response;
        }
        if let Some(false) = self.learn(&mut visit, &mut head).await {
            access.finish(StatusCode::SERVICE_UNAVAILABLE, "user_unknown");
            return answer::problem(StatusCode::SERVICE_UNAVAILABLE, "Cannot tell who signed in", &[]);
        }
        if let (Action::TellByPassing { .. }, Some(ended)) = (action, &visit.passed_end) {
            self.delete_quietly(ended, &mut head);
        }
        match (upgrade, browser) {
            (None, _) => self.stream(&visit, head, incoming, lease, bound, access),
            (Some(true), Some(browser)) => {
                self.open_tunnel(&visit, (browser, app_side), lease, bound, access);
                switching(head)
            }
            // Nobody asked to switch, or the app switched to something else: nothing it sends is forwarded (F21).
            (Some(_), _) => {
                visit.app.metrics.upstream_error("bad_upgrade");
                access.finish(StatusCode::BAD_GATEWAY, "bad_upgrade");
                answer::problem(StatusCode::BAD_GATEWAY, "Bad gateway", &[])
            }
        }
    }

    /// An answer whose head is not yet sent is replaced by the answer of an end (R2).
    fn ended_meanwhile(&self, visit: &Visit) -> Option<Response<Body>> {
        let (session, _) = visit.session.as_ref()?;
        let now = self.shared.clock.now();
        let told = self.shared.table.inspect(session, now, |s| told_end(s).is_some());
        (told && !visit.place.is_open()).then(|| self.answer_end(visit))
    }

    /// Learns from the response; `Some(false)` when the sign-in must be withheld altogether (`require_user`).
    async fn learn(&self, visit: &mut Visit, head: &mut Parts) -> Option<bool> {
        let table = &self.shared.table;
        let now = self.shared.clock.now();
        let cookies = ResponseCookies::read(&visit.app, &head.headers, &visit.path, now);
        visit.known_source = visit.session.as_ref().and_then(|(session, _)| {
            let signed_in =
                |s: &Session| s.times.signed_in_at.and(s.identity.as_ref()).map(|i| usize::from(i.source));
            table.inspect(session, now, signed_in)
        });
        let userinfo = match userinfo::is_due(visit, &cookies, &self.shared.asked, now) {
            // Boxed, as everything that few requests wait for: a future is as large as the largest of its parts.
            Some(due) => Box::pin(self.ask_userinfo(visit, &cookies, head, due)).await,
            None => None,
        };
        let heard = Heard { status: head.status, headers: &head.headers, cookies: &cookies, userinfo };
        let named = sources::name(visit, &heard, now);
        let learned =
            learn::apply(table, visit, &cookies, &named, &mut head.headers, self.shared.clock.now());
        sources::strip_identity(&visit.app, &mut head.headers);
        headers::prepare_response(&mut head.headers);
        Some(!matches!(learned, Learned::UserUnknown))
    }

    /// Asks the app who the cookie is, where a source says so and it is time; what it sets joins the answer (R8).
    async fn ask_userinfo(
        &self,
        visit: &Visit,
        cookies: &ResponseCookies,
        head: &mut Parts,
        (index, path): (usize, String),
    ) -> Option<(usize, Said)> {
        let SourceKind::UserInfo { names, .. } = &visit.app.config.identity.get(index)?.kind else {
            return None;
        };
        let asking = async {
            let question = userinfo::question(visit, &path, cookies)?.map(|_| Upload::Empty);
            let pool = self.pool(&visit.app);
            let (response, mut lease) =
                send(&pool, question, &UploadState::default(), userinfo::PATIENCE, || true).await.ok()?;
            let (parts, body) = response.into_parts();
            let bytes = Limited::new(body, userinfo::MAX_ANSWER_BYTES).collect().await.ok()?.to_bytes();
            lease.give_back();
            for field in parts.headers.get_all(SET_COOKIE) {
                head.headers.append(SET_COOKIE, field.clone());
            }
            Some(userinfo::read(parts.status, &bytes, names))
        };
        let said =
            tokio::time::timeout(userinfo::PATIENCE, asking).await.ok().flatten().unwrap_or(Said::Failed);
        Some((index, said))
    }

    /// The end was told by letting the request pass; the dead cookies are deleted unless the app set them anew.
    fn delete_quietly(&self, ended: &Session, head: &mut Parts) {
        for shape in ended.shapes() {
            if !sets_name(&head.headers, &shape.name)
                && let Ok(value) = HeaderValue::from_str(&deletion(&shape.name, &shape.attributes))
            {
                head.headers.append(SET_COOKIE, value);
            }
        }
    }

    fn stream(
        &self,
        visit: &Visit,
        head: Parts,
        incoming: Incoming,
        lease: Lease,
        bound: Option<Bound>,
        mut access: AccessGuard,
    ) -> Response<Body> {
        use http_body::Body as _;
        let event_stream = is_event_stream(&head.headers);
        let bound = bound.map(|bound| match &visit.session {
            Some((session, _)) if event_stream => Bound { live: Some(session.live_connection()), ..bound },
            Some(_) | None => bound,
        });
        access.status(head.status, "forwarded");
        let mut flow = Flow { incoming, lease, bound, event_stream, access, last_seconds: None };
        if flow.incoming.is_end_stream() {
            flow.lease.give_back();
        }
        Response::from_parts(head, Body::Upstream(Box::new(flow)))
    }

    fn open_tunnel(
        self: &Rc<Self>,
        visit: &Visit,
        ((browser, connection), app_side): ((OnUpgrade, Rc<Connection>), Option<OnUpgrade>),
        lease: Lease,
        bound: Option<Bound>,
        mut access: AccessGuard,
    ) {
        access.status(StatusCode::SWITCHING_PROTOCOLS, "upgraded");
        let live = visit.session.as_ref().map(|(session, _)| session.live_connection());
        let touches = visit.session.clone().filter(|_| visit.app.config.websocket_activity);
        let proxy = Rc::clone(self);
        // The task ends with either connection, with the session, or with the gateway.
        tokio::task::spawn_local(async move {
            let (_live, _lease, _connection) = (live, lease, connection);
            let Some(app_side) = app_side else { return };
            let Ok((browser, app)) = tokio::try_join!(browser, app_side) else { return };
            let mut leaving = proxy.leaving.clone();
            let close = async {
                let cut = async {
                    match &bound {
                        Some(bound) => bound.exchange.ended().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    reason = cut => Close::SessionEnded(reason),
                    _ = leaving.wait_for(|leaving| *leaving) => Close::Restart,
                }
            };
            let on_data = || {
                if let Some((session, _)) = &touches {
                    proxy.shared.table.touch(session, proxy.shared.clock.now());
                }
            };
            let passed = tunnel(browser, app, close, on_data).await;
            access.received(passed.up);
            access.sent(passed.down);
        });
    }
}

/// Why a signed-in session ended, where that is told.
fn told_end(session: &Session) -> Option<EndReason> {
    match &session.state {
        State::Ended(end) if session.times.signed_in_at.is_some() && end.reason.is_told() => Some(end.reason),
        State::Ended(_) | State::Active | State::Pending(_) => None,
    }
}

/// The login-form source that reads this request's body.
fn form_of(visit: &Visit) -> Option<(usize, String)> {
    if visit.method != Method::POST {
        return None;
    }
    visit.app.config.identity.iter().enumerate().find_map(|(index, source)| match &source.kind {
        SourceKind::LoginForm(form) if form.path.matches(&visit.path) => Some((index, form.user.clone())),
        SourceKind::LoginForm(_)
        | SourceKind::ResponseHeader(_)
        | SourceKind::UserInfo { .. }
        | SourceKind::JwtCookie { .. }
        | SourceKind::JwtHeader { .. }
        | SourceKind::Cookie(_)
        | SourceKind::RequestHeader(_) => None,
    })
}

fn is_websocket(response: &Response<Incoming>) -> bool {
    let upgrade = response.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|text| text.trim().eq_ignore_ascii_case("websocket"))
}

fn take_apart(mut response: Response<Incoming>) -> (Parts, Incoming, Option<OnUpgrade>) {
    let app_side = response.extensions_mut().remove::<OnUpgrade>();
    let (head, incoming) = response.into_parts();
    (head, incoming, app_side)
}

fn switching(mut head: Parts) -> Response<Body> {
    head.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::empty())
}

const fn title(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Connect(_) | UpstreamError::Protocol(_) => "Bad gateway",
        UpstreamError::Busy | UpstreamError::Withdrawn => "Service unavailable",
        UpstreamError::Timeout => "Gateway time-out",
        UpstreamError::BodyTooLarge => "Body too large",
        UpstreamError::ClientGone => "Bad request",
    }
}

/// The error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
