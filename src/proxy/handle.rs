//! One request, from its head to an action. [`Proxy::handle`] is the table of contents of the data path.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{COOKIE, EXPECT, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::body::Body;
use super::exchange::Exchanges;
use super::farewell::Farewells;
use super::headers::{self, AskedHost, BadRequest};
use super::intake::{Destination, Inquired, Intake};
use super::pool::Pool;
use super::site::{AppSite, Site};
use super::userinfo;
use super::visit::Visit;
use super::{answer, reserved, sources};
use crate::clock::Clock;
use crate::session::activity::{Asked, Kind};
use crate::session::gate::{Action, Telling};
use crate::session::jar;
use crate::session::path::{NormalPath, normalise, strip_query};
use crate::session::{Moment, Span};
use crate::store::{Enrolled, SessionRef, Table, Trouble};
use crate::telemetry::{AccessGuard, Metrics};

/// How much of a body nobody wants is read before our own answer, so that it does not arrive as a reset (FIELD F13).
const UNWANTED_BYTES: usize = 256 * 1024;

/// How long that may take.
const UNWANTED_PATIENCE: Duration = Duration::from_millis(500);

/// An announcement of another gateway that was lost is made good within this time (R21).
const LOST_ANNOUNCEMENT: Span = Span::from_secs(5);

/// What all workers share.
pub struct Shared {
    /// The configuration in force.
    pub site: ArcSwap<Site>,
    /// The sessions.
    pub table: Arc<Table>,
    /// The time.
    pub clock: Clock,
    /// How the store fares.
    pub trouble: Arc<Trouble>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// What the apps are to be told of ends.
    pub farewells: Farewells,
    /// Which values the apps were asked about.
    pub asked: userinfo::Asked,
}

/// One worker's share of the data path.
pub struct Proxy {
    pub(super) shared: Arc<Shared>,
    /// The exchanges in progress on this worker.
    pub exchanges: Exchanges,
    /// True once the gateway leaves: tunnels are closed.
    pub(super) leaving: watch::Receiver<bool>,
    /// By app number; replaced when the app's settings change.
    pools: RefCell<Vec<PoolSlot>>,
}

type PoolSlot = Option<(Arc<AppSite>, Pool)>;

/// The connection that a request came on.
pub struct Connection {
    /// The peer, after the PROXY protocol.
    pub peer: IpAddr,
    /// It is encrypted.
    pub tls: bool,
    /// The host that it asked last.
    host: RefCell<Option<Rc<AskedHost>>>,
    /// What it holds while it is open.
    _open: Box<dyn std::any::Any>,
}

impl Connection {
    /// A connection of `peer`; `open` is kept until all that lives on it has ended, a tunnel included.
    #[must_use]
    pub fn new(peer: IpAddr, tls: bool, open: impl std::any::Any) -> Rc<Self> {
        Rc::new(Self { peer, tls, host: RefCell::default(), _open: Box::new(open) })
    }

    fn asked_host(&self, request: &Parts) -> Result<Rc<AskedHost>, BadRequest> {
        let mut last = self.host.borrow_mut();
        let host = AskedHost::of(request, last.as_ref(), self.peer, self.tls)?;
        if !last.as_ref().is_some_and(|last| Rc::ptr_eq(last, &host)) {
            *last = Some(Rc::clone(&host));
        }
        Ok(host)
    }
}

/// A request that is answered before any app is asked.
enum Refusal {
    Bad(BadRequest),
    UnknownHost,
}

impl Proxy {
    /// A worker's proxy.
    #[must_use]
    pub fn new(shared: Arc<Shared>, leaving: watch::Receiver<bool>) -> Self {
        Self { shared, exchanges: Exchanges::default(), leaving, pools: RefCell::default() }
    }

    /// Handles one request. Never fails: whatever goes wrong is an answer.
    // CANCEL: dropped when the browser goes away; the access guard records it, guards deregister the exchange.
    pub async fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Rc<Connection>,
    ) -> Response<Body> {
        let mut access = AccessGuard::new(&self.shared.metrics, request.method(), connection.peer);
        let (parts, body) = request.into_parts();
        let expects = parts.headers.contains_key(EXPECT);
        match self.judge(parts, connection, &mut access) {
            Ok(mut judged) => {
                judged.expects = expects;
                if !judged.intake.asks.is_empty() {
                    judged = Box::pin(self.ask(judged)).await;
                }
                self.act(judged, body, access).await
            }
            Err(refusal) => {
                Box::pin(settle(body, expects)).await;
                let response = refusal.answer();
                access.finish(response.status(), refusal.label());
                response
            }
        }
    }

    /// Head -> app -> path -> tokens -> action. No await.
    fn judge(
        &self,
        mut parts: Parts,
        connection: Rc<Connection>,
        access: &mut AccessGuard,
    ) -> Result<Box<Judged>, Refusal> {
        let now = self.shared.clock.now();
        let site = self.shared.site.load_full();
        if headers::head_bytes(&parts) > site.header_bytes {
            return Err(Refusal::Bad(BadRequest::TooLarge));
        }
        headers::check_framing(&parts.headers).map_err(Refusal::Bad)?;
        let host = connection.asked_host(&parts).map_err(Refusal::Bad)?;
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Bad(BadRequest::Method));
        }
        let app = site.app_for(headers::without_port(&host.name)).ok_or(Refusal::UnknownHost)?.clone();
        headers::strip_nominated(&mut parts.headers);
        let trusted = headers::is_trusted(connection.peer, &site.trusted_proxies);
        let client_ip = headers::client_address(connection.peer, &parts.headers, &site.trusted_proxies);
        let (path, query) = normal_target(&parts, &app).map_err(Refusal::Bad)?;
        access.app(&app.metrics, client_ip, &path.path);
        headers::join_cookies(&mut parts.headers);
        let asked = Asked { method: &parts.method, path: &path.path, headers: &parts.headers };
        let subpath = reserved::subpath(&path.path);
        let to = match &subpath {
            Some(_) => Destination::Gateway,
            None => Destination::App(app.place(&asked, &path)),
        };
        let https = headers::is_https(&parts.headers, connection.tls, trusted);
        let browser = jar::Site::new(headers::without_port(&host.name), &path.path, https);
        let inquired = if self.is_cut_off(&site, now) { Inquired::CutOff } else { Inquired::NotYet };
        let intake = Intake::read(&app, &self.shared.table, &asked, (&browser, https), to, inquired, now);
        let visit = visit(app, &parts, (host, https), path, query, &intake, (client_ip, trusted), now);
        let websocket = headers::asks_for_websocket(&parts.headers) && intake.kind == Kind::WebSocket;
        Ok(Box::new(Judged {
            site,
            parts,
            visit,
            intake,
            subpath,
            connection,
            trusted,
            websocket,
            now,
            expects: false,
        }))
    }

    async fn act(
        self: Rc<Self>,
        mut judged: Box<Judged>,
        body: Incoming,
        mut access: AccessGuard,
    ) -> Response<Body> {
        let now = judged.now;
        if let Some(subpath) = &judged.subpath {
            let (table, visit, headers) = (&self.shared.table, &judged.visit, &judged.parts.headers);
            let answer = reserved::answer(table, visit, &judged.intake, subpath, headers, body, now);
            let response = Box::pin(answer).await;
            access.finish(response.status(), "reserved");
            return response;
        }
        if let (Some(_), true) = (&judged.visit.app.config.app_logout, judged.visit.app.vault.is_none()) {
            self.say_farewell(&judged);
        }
        let own = match judged.intake.action {
            Action::Forward { .. } | Action::ForwardWithout | Action::Adopt => None,
            Action::TellByPassing { .. } => self.tell_by_passing(&mut judged),
            Action::Tell { reason, how, .. } => self.tell(&judged, reason, how),
            Action::HoldBack { how, .. } => match self.hold_back(&judged, how) {
                Some(response) => Some((response, "held_back")),
                None => {
                    let judged = self.judged_anew(judged);
                    return Box::pin(self.act(judged, body, access)).await;
                }
            },
            Action::RefuseUnidentified => Some((answer::unidentified(), "unidentified")),
            Action::Unavailable => Some((
                answer::problem(StatusCode::SERVICE_UNAVAILABLE, "Cannot judge now", &[]),
                "unavailable",
            )),
        };
        let Some((response, label)) = own else { return self.forward(judged, body, access).await };
        access.session(|| identity_of(&self.shared.table, judged.intake.session.as_ref(), now));
        access.finish(response.status(), label);
        Box::pin(settle(body, judged.expects)).await;
        response
    }

    /// The request brings the cookie of a session that is over.
    fn say_farewell(&self, judged: &Judged) {
        if let Some(session) = &judged.visit.stopped {
            let (visit, headers) = (&judged.visit, &judged.parts.headers);
            self.shared.farewells.of_request(visit, &self.shared.table, session, headers, judged.now);
        }
    }

    /// There is no known login page: the request goes on without its cookie, and that is how the end is told.
    fn tell_by_passing(&self, judged: &mut Judged) -> Option<(Response<Body>, &'static str)> {
        let session = judged.intake.session.as_ref()?;
        self.shared.table.mark_told(session, judged.now);
        judged.visit.passed_end = Some(Box::new(self.shared.table.read(session, judged.now)));
        None
    }

    fn tell(
        &self,
        judged: &Judged,
        reason: crate::session::EndReason,
        how: Telling,
    ) -> Option<(Response<Body>, &'static str)> {
        let session = judged.intake.session.as_ref()?;
        let record = self.shared.table.read(session, judged.now);
        if how != Telling::Problem {
            self.shared.table.mark_told(session, judged.now);
        }
        Some((answer::ended(&judged.visit, &record, reason, how), "ended"))
    }

    /// There may be room by now: then the session is active, and `None` says to judge the request anew.
    fn hold_back(&self, judged: &Judged, how: Telling) -> Option<Response<Body>> {
        let session = judged.intake.session.as_ref()?;
        match self.shared.table.admit_pending(session, judged.now) {
            Enrolled::Active(_) | Enrolled::Over => None,
            Enrolled::Pending(session) => {
                let page = (how == Telling::Page).then(|| {
                    reserved::held_back_page(&self.shared.table, &judged.visit, &session, judged.now)
                });
                Some(answer::held_back(&judged.visit, page))
            }
        }
    }

    /// Whether the shared store has been away for so long that nothing can be said of any session. A while in which a lost
    /// announcement would have been made good is no reason yet (R21).
    fn is_cut_off(&self, site: &Site, now: Moment) -> bool {
        let Shared { table, trouble, .. } = &*self.shared;
        let too_long = |lasts| lasts >= site.outage_max.max(LOST_ANNOUNCEMENT);
        table.is_shared() && trouble.lasts(now).is_some_and(too_long)
    }

    /// Asks the shared store for what the table does not know, and reads the tokens by what came out.
    async fn ask(&self, judged: Box<Judged>) -> Box<Judged> {
        let silent = self.shared.table.ask(&judged.intake.asks, judged.visit.client_ip, judged.now).await;
        self.read_again(judged, Inquired::Silent(&silent))
    }

    /// Reads the tokens again; the session's standing has changed within this very request.
    fn judged_anew(&self, judged: Box<Judged>) -> Box<Judged> {
        let mut judged = self.read_again(judged, Inquired::Silent(&[]));
        // Held back again (somebody else took the room): it is answered as such the next time it asks.
        if matches!(judged.intake.action, Action::HoldBack { .. }) {
            judged.intake.action = Action::ForwardWithout;
        }
        judged
    }

    fn read_again(&self, mut judged: Box<Judged>, inquired: Inquired<'_>) -> Box<Judged> {
        let asked =
            Asked { method: &judged.parts.method, path: &judged.visit.path, headers: &judged.parts.headers };
        let to = match &judged.subpath {
            Some(_) => Destination::Gateway,
            None => Destination::App(judged.visit.place),
        };
        let (app, browser) = (&judged.visit.app, judged.visit.site());
        let (table, https) = (&self.shared.table, judged.visit.https);
        judged.intake = Intake::read(app, table, &asked, (&browser, https), to, inquired, judged.now);
        judged.visit.carry(&judged.intake);
        judged
    }

    /// The pool of this worker for `app`; a new one after its settings have changed.
    pub(super) fn pool(&self, app: &Arc<AppSite>) -> Pool {
        let index = usize::from(app.id.0);
        let mut pools = self.pools.borrow_mut();
        if pools.len() <= index {
            pools.resize_with(index + 1, || None);
        }
        match &mut pools[index] {
            Some((known, pool)) if Arc::ptr_eq(known, app) => pool.clone(),
            Some((known, pool)) if known.pool == app.pool => {
                *known = Arc::clone(app);
                pool.clone()
            }
            slot => {
                let pool = Pool::new(app.pool.clone());
                *slot = Some((Arc::clone(app), pool.clone()));
                pool
            }
        }
    }
}

/// A request with its verdict.
pub(super) struct Judged {
    pub(super) site: Arc<Site>,
    pub(super) parts: Parts,
    pub(super) visit: Box<Visit>,
    pub(super) intake: Intake,
    /// What comes behind the reserved prefix, when the request is for the gateway itself.
    subpath: Option<String>,
    pub(super) connection: Rc<Connection>,
    pub(super) trusted: bool,
    pub(super) websocket: bool,
    pub(super) now: Moment,
    /// The client waits for `100 Continue` before it sends its body.
    pub(super) expects: bool,
}

impl Refusal {
    fn answer(&self) -> Response<Body> {
        let mut response = match self {
            Self::Bad(BadRequest::Method) => {
                answer::problem(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", &[])
            }
            Self::Bad(BadRequest::TooLarge) => {
                answer::problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request head too large", &[])
            }
            Self::Bad(fault) => answer::problem(
                StatusCode::BAD_REQUEST,
                "Bad request",
                &[("detail", Some(&fault.to_string()))],
            ),
            Self::UnknownHost => {
                answer::problem(StatusCode::MISDIRECTED_REQUEST, "No app serves this host", &[])
            }
        };
        // What was misread once is not read on.
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Bad(fault) => fault.label(),
            Self::UnknownHost => "unknown_host",
        }
    }
}

/// Path in normal form and query, both without session ids.
fn normal_target(parts: &Parts, app: &AppSite) -> Result<(NormalPath, Option<String>), BadRequest> {
    let names = &app.id_parameters;
    let raw = parts.uri.path();
    let path =
        normalise(if raw.is_empty() { "/" } else { raw }, &names.path).map_err(|_| BadRequest::Path)?;
    let bare = |query: &str| strip_query(query, &names.query).unwrap_or_else(|| query.to_owned());
    let query = parts.uri.query().map(bare);
    Ok((path, query))
}

#[expect(clippy::too_many_arguments, reason = "the one place where a visit is put together")]
fn visit(
    app: Arc<AppSite>,
    parts: &Parts,
    (host, https): (Rc<AskedHost>, bool),
    path: NormalPath,
    query: Option<String>,
    intake: &Intake,
    (client_ip, trusted): (IpAddr, bool),
    now: Moment,
) -> Box<Visit> {
    let request_said = sources::of_request(&app, &parts.headers, trusted, now);
    let mut visit = Box::new(Visit {
        began: now,
        place: intake.place,
        kind: intake.kind,
        method: parts.method.clone(),
        path: path.path,
        query,
        https,
        host,
        referer: parts.headers.get(REFERER).cloned(),
        session: None,
        stopped: None,
        after_end: intake.after_end,
        overtaken: intake.overtaken,
        client_ip,
        user_agent: parts.headers.get(USER_AGENT).cloned(),
        cookie: None,
        form_user: None,
        is_foreign_write: headers::is_foreign_write(&parts.method, &parts.headers),
        request_said,
        known_source: None,
        passed_end: None,
        active_before: None,
        adopting: Vec::new(),
        chunks: Vec::new(),
        app,
    });
    visit.carry(intake);
    visit
}

/// Session, user and tenant for the access line.
pub(super) fn identity_of(
    table: &Table,
    session: Option<&SessionRef>,
    now: Moment,
) -> Option<(crate::session::SessionId, Option<Arc<crate::session::identity::Identity>>)> {
    let session = session?;
    Some((session.id(), table.inspect(session, now, |s| s.identity.clone())))
}

/// Reads a little of a body that nobody wants. A client that waits for `100 Continue` is not made to send it.
pub(super) async fn settle(mut body: Incoming, expects_continue: bool) {
    if expects_continue {
        return;
    }
    let read = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, bytes::Bytes::len);
            if seen > UNWANTED_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(UNWANTED_PATIENCE, read).await;
}

/// Rewrites the head for the upstream. SECURITY: cookies by the intake's word alone; identity headers only from a
/// trusted proxy.
pub(super) fn rewrite(judged: &mut Judged) -> Result<(), BadRequest> {
    let Judged { site, parts, visit, intake, trusted, websocket, .. } = judged;
    let map = &mut parts.headers;
    headers::prepare_request(map, *websocket);
    if !*trusted {
        headers::strip_identity(map, &site.identity_headers);
    }
    headers::set_forwarded(map, *trusted, &visit.host);
    match intake.cookie.take() {
        Some(Some(cookie)) => {
            let value = HeaderValue::from_bytes(&cookie).map_err(|_| BadRequest::Framing)?;
            map.insert(COOKIE, value);
        }
        Some(None) => drop(map.remove(COOKIE)),
        None => {}
    }
    visit.cookie = map.get(COOKIE).cloned();
    let (path, query) = (&visit.path, visit.query.as_deref());
    parts.uri = headers::origin_form(&parts.uri, path, query).ok_or(BadRequest::Path)?;
    parts.version = http::Version::HTTP_11;
    Ok(())
}
