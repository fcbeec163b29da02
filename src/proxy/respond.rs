//! From a forwarded request to the app's answer: sending, and taking in what came.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::response::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::{Body as _, Incoming};

use super::answer;
use super::body::{Body, Bound, Streamed, Upload, UploadState};
use super::collect::{collect, settle};
use super::deliver::is_websocket;
use super::forward::{Answered, UpstreamError, send};
use super::handle::{Judged, Proxy, identity_of};
use super::headers::BadRequest;
use super::intake::Cookie;
use super::login_form::{self, MAX_SIGN_IN_BODY};
use super::rewrite;
use super::upstream::Outgoing;
use super::visit::Visit;
use crate::session::activity::{Kind, UploadHold};
use crate::session::cookie::RequestCookies;
use crate::session::gate::{Action, Standing, Telling};
use crate::session::identity::{LoginForm, SourceKind};
use crate::session::path::{loosened, script_of};
use crate::session::record::{Session, State};
use crate::session::{EndReason, Moment, TokenKey};
use crate::store::SessionRef;

/// A body that is not forwarded.
struct Refused {
    status: StatusCode,
    label: &'static str,
    title: &'static str,
    detail: String,
}

impl Refused {
    fn sign_in(status: StatusCode, fault: &impl ToString) -> Self {
        Self { status, label: "bad_sign_in", title: "Request refused", detail: fault.to_string() }
    }

    fn too_large() -> Self {
        let detail = "the body is larger than limits.body_bytes".to_owned();
        let (status, label) = (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
        Self { status, label, title: "Request refused", detail }
    }

    fn bad(fault: BadRequest) -> Self {
        let (status, label) = (StatusCode::BAD_REQUEST, fault.label());
        Self { status, label, title: "Bad request", detail: fault.to_string() }
    }
}

impl Proxy {
    /// Forwards the request for its session, if it has one, and passes on what the app answers.
    pub(super) async fn forward(self: Rc<Self>, mut judged: Box<Judged>, body: Incoming) -> Response<Body> {
        let mut request = match self.outgoing(&mut judged, body).await {
            Ok(request) => request,
            Err(Refused { status, label, title, detail }) => {
                judged.access.finish(status, label);
                return answer::problem(status, title, &[("detail", Some(&detail))]);
            }
        };
        let Judged { visit, access, .. } = &mut *judged;
        let session = visit.session.as_ref().map(|(session, _)| session);
        access.session(|| identity_of(&self.shared.table, session, visit.began));
        let mut bound = self.bind(&judged.visit);
        let upload = request.upload().state().cloned();
        let mut sent = self.ask_app(&mut judged, &mut bound, &mut request).await;
        let received = upload.map_or(0, |upload| upload.bytes());
        judged.access.received(received);
        let mut upgrade = None;
        // Borrowed, and taken apart only below: it keeps one place in the future.
        if let Ok((head, _)) = &mut sent {
            // ORDER: before the answer is learned from, which takes its `Upgrade` field away.
            upgrade = (head.status == StatusCode::SWITCHING_PROTOCOLS).then(|| is_websocket(&head.headers));
            if let Some(own) = self.take_in(&mut judged, head, &mut bound).await {
                return own;
            }
        }
        match sent {
            Ok(answered) => self.pass_on(judged, answered, upgrade, bound),
            Err(error) => {
                drop(bound);
                Box::pin(self.unanswered(judged, request, received, error)).await
            }
        }
    }

    /// The request as it goes upstream.
    async fn outgoing(&self, judged: &mut Judged, body: Incoming) -> Result<Outgoing, Refused> {
        let form = form_of(&judged.visit);
        let upload = if form.is_none() && !is_too_large(&body, judged.site.body_bytes) {
            self.streamed(judged, body)
        } else {
            Box::pin(self.read_form(judged, body, form)).await?
        };
        rewrite::rewrite(judged, upload).map_err(Refused::bad)
    }

    /// Sends the request; a second time without its session, where that ended first and its end is silent: `bound` is empty then.
    async fn ask_app(
        &self,
        judged: &mut Judged,
        bound: &mut Option<Bound>,
        request: &mut Outgoing,
    ) -> Result<Answered, UpstreamError> {
        // In a block, so that `sent` is gone before the next await: what lives across one takes room in the future.
        {
            let sent = self.send_bound(judged, bound.as_ref(), request).await;
            let is_withdrawn = matches!(sent, Err(UpstreamError::Withdrawn));
            if !(is_withdrawn && self.goes_on_without_session(&mut judged.visit)) {
                return sent;
            }
        }
        *bound = None;
        let head = rewrite::head(judged, request.upload()).map_err(|_| UpstreamError::Withdrawn)?;
        request.replace_head(head.bytes);
        Box::pin(self.send_bound(judged, None, request)).await
    }

    /// What is answered in the app's place.
    async fn unanswered(
        &self,
        mut judged: Box<Judged>,
        request: Outgoing,
        received: u64,
        error: UpstreamError,
    ) -> Response<Body> {
        // A browser that is busy sending would lose the answer by a reset (FIELD F13).
        if let Some(body) = request.into_unread() {
            settle(body, judged.expects && received == 0).await;
        }
        match error {
            UpstreamError::Withdrawn | UpstreamError::CutOff => {
                let response = self.answer_end(&judged.visit);
                judged.access.finish(response.status(), "ended");
                response
            }
            error => {
                let app = &judged.visit.app;
                app.metrics.upstream_error(error.label());
                let name = &app.config.name;
                tracing::warn!(app = %name, reason = error.label(), error = %chain(&error), "no answer from the upstream");
                judged.access.finish(error.status(), error.label());
                answer::problem(error.status(), title(&error), &[])
            }
        }
    }

    /// Registers the exchange with its session. ORDER: before the session is judged again (R2).
    pub(super) fn bind(&self, visit: &Visit) -> Option<Bound> {
        let (session, _) = visit.session.as_ref()?;
        let busy = session.busy();
        Some(Bound { exchange: self.exchanges.register(session.id()), busy, live: None })
    }

    /// Sends the request unless its session ends before; an end that is told stops the waiting for the app.
    async fn send_bound(
        &self,
        Judged { visit, site, .. }: &Judged,
        bound: Option<&Bound>,
        request: &mut Outgoing,
    ) -> Result<Answered, UpstreamError> {
        let pool = self.pool(&visit.app);
        let check = || self.may_go_on(visit);
        let mut sending = pin!(send(&pool, request, site.first_byte_timeout, check));
        let bound = bound.filter(|_| !visit.place.is_open());
        poll_fn(|cx| {
            if let Some(Poll::Ready(reason)) = bound.map(|bound| bound.exchange.poll_cut(cx))
                && reason.is_told()
                && self.was_signed_in(visit)
            {
                return Poll::Ready(Err(UpstreamError::CutOff));
            }
            sending.as_mut().poll(cx)
        })
        .await
    }

    pub(super) fn may_go_on(&self, visit: &Visit) -> bool {
        let now = self.shared.clock.now();
        let is_live = |(session, key): &(SessionRef, _)| self.shared.table.is_live(session, *key, now);
        visit.session.as_ref().is_none_or(is_live) && self.adopted_and_ended(visit, now).is_none()
    }

    /// The session that another request began by a token that this one brings, if it has ended since.
    fn adopted_and_ended(&self, visit: &Visit, now: Moment) -> Option<(SessionRef, TokenKey)> {
        visit.adopting.iter().find_map(|(_, _, key)| {
            let (standing, session) = self.shared.table.look_up(*key, now);
            session.filter(|_| matches!(standing, Standing::Ended { .. })).map(|session| (session, *key))
        })
    }

    /// Whether the request goes on although its session ended before the head was written: where an end is never told, and
    /// where it is silent (R15). The tokens stay behind. Otherwise the end is told instead.
    fn goes_on_without_session(&self, visit: &mut Visit) -> bool {
        let now = self.shared.clock.now();
        if let Some(ended) = self.adopted_and_ended(visit, now) {
            visit.session = Some(ended);
            visit.adopting.clear();
        }
        let Some((session, key)) = &visit.session else { return false };
        let (told, after_end, overtaken) = self.shared.table.inspect(session, now, |s| {
            let by_sign_in = s.ended().is_some_and(|end| end.reason.is_by_sign_in());
            let after_end = s.ended().is_some() && s.times.signed_in_at.is_some();
            (told_end(s).is_some(), after_end, by_sign_in || (s.ended().is_none() && !s.holds(*key)))
        });
        if told && !visit.place.is_open() {
            return false;
        }
        // As if it had been judged only now.
        visit.after_end |= after_end;
        visit.overtaken |= overtaken;
        visit.session = None;
        visit.cookie = Cookie::Written(without_tokens(visit));
        true
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
            _ => answer::problem(StatusCode::UNAUTHORIZED, "Session ended", &[]),
        }
    }

    /// The body to forward, as it comes.
    fn streamed(&self, judged: &Judged, body: Incoming) -> Upload {
        if body.is_end_stream() {
            return Upload::Empty;
        }
        Upload::Streamed(Box::new(Streamed {
            incoming: body,
            limit: judged.site.body_bytes,
            state: UploadState::default(),
            bound: self
                .bind(&judged.visit)
                .filter(|_| !judged.visit.place.is_open() && self.was_signed_in(&judged.visit)),
            progress: self.hold_idle(judged),
            site: Arc::clone(&judged.site),
        }))
    }

    /// The body of a sign-in form is read before it is forwarded, for the user's name alone (R7); one that is too large is not.
    async fn read_form(
        &self,
        judged: &mut Judged,
        body: Incoming,
        form: Option<(usize, String)>,
    ) -> Result<Upload, Refused> {
        let limit = judged.site.body_bytes;
        let Some((index, field)) = form.filter(|_| !is_too_large(&body, limit)) else {
            settle(body, judged.expects).await;
            return Err(Refused::too_large());
        };
        let limit = limit.map_or(MAX_SIGN_IN_BODY, |limit| {
            MAX_SIGN_IN_BODY.min(usize::try_from(limit).unwrap_or(usize::MAX))
        });
        let bytes = collect(body, limit).await.map_err(|fault| Refused::sign_in(fault.status(), &fault))?;
        let (head, query) = (&judged.visit.head.headers, judged.visit.query.as_deref());
        let user = login_form::user_of(head, query, &bytes, &field);
        let user = user.map_err(|fault| Refused::sign_in(fault.status(), &fault))?;
        let user = user.unwrap_or_default();
        crate::session::identity::normal_name(&user, judged.visit.app.config.user_case)
            .map_err(|_| Refused::sign_in(StatusCode::BAD_REQUEST, &"the user's name is too long"))?;
        judged.visit.form_user = Some((index, user));
        Ok(Upload::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// An upload that began as its user's activity goes on being it, within bounds (R20).
    fn hold_idle(&self, judged: &Judged) -> Option<Box<dyn FnMut(u64)>> {
        let Action::Forward { touch: true, .. } = judged.intake.action else { return None };
        let (session, _) = judged.visit.carried()?;
        let idle = self.shared.table.inspect(&session, judged.visit.began, |s| s.policy.idle_timeout)?;
        let mut hold = UploadHold::new(judged.visit.began, idle);
        let shared = Arc::clone(&self.shared);
        Some(Box::new(move |bytes| {
            let now = shared.clock.now();
            if hold.progressed(bytes, now) {
                shared.table.touch(&session, now);
            }
        }))
    }

    /// Learns from the answer. One of our own may have to go in its place.
    async fn take_in(
        &self,
        Judged { visit, intake, access, .. }: &mut Judged,
        head: &mut Parts,
        bound: &mut Option<Bound>,
    ) -> Option<Response<Body>> {
        let now = self.shared.clock.now();
        if let Some(response) = self.meet(visit, now) {
            access.finish(response.status(), "ended");
            return Some(response);
        }
        if let Err((response, label)) = self.learn(visit, head, now).await {
            access.finish(response.status(), label);
            return Some(response);
        }
        if let Some(adopted) = self.bind_adopted(visit) {
            if !self.may_go_on(visit) {
                let response = self.answer_end(visit);
                access.finish(response.status(), "ended");
                return Some(response);
            }
            *bound = Some(adopted);
        }
        if let (Action::TellByPassing { .. }, Some(ended)) = (intake.action, &visit.passed_end) {
            // The end was told by letting the request pass.
            answer::forget(visit, ended, &mut head.headers);
        }
        None
    }

    /// The app has answered: notes which source named the user of the session by now, unless it ended meanwhile, see
    /// [`Self::ended_meanwhile`].
    fn meet(&self, visit: &mut Visit, now: Moment) -> Option<Response<Body>> {
        let (session, _) = visit.session.as_ref()?;
        let (told, source) = self.shared.table.inspect(session, now, |s| {
            let user = s.times.signed_in_at.and(s.identity.as_ref());
            (told_end(s).is_some(), user.map(|user| usize::from(user.source)))
        });
        visit.known_source = source;
        (told && !visit.place.is_open()).then(|| self.answer_end(visit))
    }

    /// An answer whose head is not yet sent is replaced by the answer of an end (R2).
    pub(super) fn ended_meanwhile(&self, visit: &Visit, now: Moment) -> Option<Response<Body>> {
        let (session, _) = visit.session.as_ref()?;
        let told = self.shared.table.inspect(session, now, |s| told_end(s).is_some());
        (told && !visit.place.is_open()).then(|| self.answer_end(visit))
    }
}

/// Why a signed-in session ended, where that is told.
fn told_end(session: &Session) -> Option<EndReason> {
    match &session.state {
        State::Ended(end) if session.times.signed_in_at.is_some() && end.reason.is_told() => Some(end.reason),
        State::Ended(_) | State::Active | State::Pending(_) => None,
    }
}

/// Whether a body says of itself that it is larger than it may be.
fn is_too_large(body: &Incoming, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| body.size_hint().lower() > limit)
}

/// The login-form source that reads this request's body.
fn form_of(visit: &Visit) -> Option<(usize, String)> {
    // Some apps take `post` for `POST`.
    if !visit.head.method.as_str().eq_ignore_ascii_case(Method::POST.as_str()) {
        return None;
    }
    let loose = loosened(&visit.path);
    // The form of a page is read by its script, whatever follows in the address; that makes no other page a place to sign in.
    let script = script_of(&loose);
    let here = |form: &LoginForm| {
        form.path.matches_loosely(&visit.path, &loose)
            || script.is_some_and(|script| form.path.matches_loosely(script, script))
    };
    visit.app.config.identity.iter().enumerate().find_map(|(index, source)| match &source.kind {
        SourceKind::LoginForm(form) if here(form) => Some((index, form.user.clone())),
        SourceKind::LoginForm(_)
        | SourceKind::ResponseHeader(_)
        | SourceKind::UserInfo { .. }
        | SourceKind::JwtCookie { .. }
        | SourceKind::JwtHeader { .. }
        | SourceKind::Cookie(_)
        | SourceKind::RequestHeader(_) => None,
    })
}

/// The `Cookie` header without anything that an app could read as a session cookie.
fn without_tokens(visit: &Visit) -> Option<Vec<u8>> {
    match &visit.app.vault {
        Some(vault) => vault.stripped(visit.cookie()),
        None => RequestCookies::parse(visit.cookie().into_iter(), &visit.app.config.cookies)
            .forwarded(|_, _| false),
    }
}

const fn title(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Connect(_) | UpstreamError::Protocol(_) => "Bad gateway",
        UpstreamError::Busy | UpstreamError::Withdrawn | UpstreamError::CutOff => "Service unavailable",
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
