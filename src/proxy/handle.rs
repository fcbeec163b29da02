//! One request, from its head to an action. [`Proxy::handle`] is the table of contents of the data path.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::body::Body;
use super::collect::settle;
use super::exchange::Exchanges;
use super::farewell::Farewells;
use super::headers::{self, BadRequest};
use super::host::AskedHost;
use super::intake::{Cookie, Destination, Inquired, Intake};
use super::pool::Pool;
use super::site::{AppSite, Site};
use super::userinfo;
use super::visit::Visit;
use super::{answer, reserved, sources};
use crate::clock::{Clock, Stopwatch};
use crate::session::activity::{Asked, Kind};
use crate::session::fields::{Field, Fields};
use crate::session::gate::{Action, Telling};
use crate::session::path::{NormalPath, normalise, strip_query};
use crate::session::{Moment, Span};
use crate::store::{Enrolled, SessionRef, Table, Trouble};
use crate::telemetry::{AccessGuard, Metrics};

/// An announcement of another gateway that was lost is made good within this time (R21).
const LOST_ANNOUNCEMENT: Span = Span::from_secs(5);

/// What all workers share.
pub struct Shared {
    /// The configuration in force.
    pub site: Arc<ArcSwap<Site>>,
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
    /// The configuration in force, as this worker saw it last: to look whether it still is costs far less than to load it.
    site: RefCell<Cache<Arc<ArcSwap<Site>>, Arc<Site>>>,
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

    fn asked_host(&self, head: &Parts, fields: &Fields<'_>) -> Result<Rc<AskedHost>, BadRequest> {
        let mut last = self.host.borrow_mut();
        let from = (self.peer, self.tls);
        let host = AskedHost::of(&head.uri, head.version, fields, last.as_ref(), from)?;
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

struct Refused {
    refusal: Refusal,
    /// See [`Judged::expects`].
    expects: bool,
    access: AccessGuard,
}

impl Proxy {
    /// A worker's proxy.
    #[must_use]
    pub fn new(shared: Arc<Shared>, leaving: watch::Receiver<bool>) -> Self {
        let site = RefCell::new(Cache::new(Arc::clone(&shared.site)));
        Self { shared, site, exchanges: Exchanges::default(), leaving, pools: RefCell::default() }
    }

    /// Handles one request. Never fails: whatever goes wrong is an answer. It is judged at once, so that of its head nothing
    /// has to be carried through the future.
    // CANCEL: dropped when the browser goes away; the access guard records it, guards deregister the exchange.
    pub fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Rc<Connection>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> {
        let (head, body) = request.into_parts();
        let judged = self.judge(head, connection);
        async move {
            Ok(match judged {
                Ok(mut judged) => {
                    if !judged.intake.asks.is_empty() {
                        judged = Box::pin(self.ask(judged)).await;
                    }
                    self.act(judged, body).await
                }
                Err(refused) => Box::pin(refused.answer(body)).await,
            })
        }
    }

    /// Head -> app -> path -> tokens -> action. No await.
    fn judge(&self, mut head: Parts, connection: Rc<Connection>) -> Result<Box<Judged>, Box<Refused>> {
        let (began, now) = (Stopwatch::start(), self.shared.clock.now());
        let site = Arc::clone(self.site.borrow_mut().load());
        let fields = Fields::of(&head.headers);
        let expects = fields.has(Field::Expect);
        let (host, app) = match route(&site, &head, &fields, &connection) {
            Ok(found) => found,
            Err(refusal) => return Err(self.refused(refusal, expects, began, (&head, &connection))),
        };
        let fields = match headers::untidy(&fields) {
            None => fields,
            Some(nominated) => {
                headers::tidy(&mut head.headers, &nominated);
                Fields::of(&head.headers)
            }
        };
        let trusted = headers::is_trusted(connection.peer, &site.trusted_proxies);
        let client_ip = headers::client_address(connection.peer, &fields, &site.trusted_proxies);
        let (path, query) = match normal_target(&head, &app) {
            Ok(target) => target,
            Err(bad) => {
                return Err(self.refused(Refusal::Bad(bad), expects, began, (&head, &connection)));
            }
        };
        let access = AccessGuard::new(began, &app.metrics, client_ip, &head.method).to(&path.path);
        let asked = Asked { method: &head.method, path: &path.path, fields: &fields };
        let subpath = reserved::subpath(&path.path);
        let to = match &subpath {
            Some(_) => Destination::Gateway,
            None => Destination::App(app.place(&asked, &path)),
        };
        let https = headers::is_https(&fields, connection.tls, trusted);
        let browser = host.site(&path.path, https);
        let inquired = if self.is_cut_off(&site, now) { Inquired::CutOff } else { Inquired::NotYet };
        let mut intake = Intake::read(&app, &self.shared.table, &asked, (&browser, https), to, inquired, now);
        let websocket = intake.kind == Kind::WebSocket && headers::asks_for_websocket(&fields);
        let mut visit = Visit {
            began: now,
            place: intake.place,
            kind: intake.kind,
            is_foreign_write: headers::is_foreign_write(&head.method, &fields),
            request_said: sources::of_request(&app, &head.headers, trusted, now),
            head,
            path: path.path,
            query,
            https,
            host,
            session: None,
            stopped: None,
            after_end: false,
            overtaken: false,
            client_ip,
            cookie: Cookie::default(),
            form_user: None,
            known_source: None,
            passed_end: None,
            active_before: None,
            adopting: Vec::new(),
            chunks: Vec::new(),
            app,
        };
        visit.carry(&mut intake);
        Ok(Box::new(Judged { site, visit, intake, subpath, connection, trusted, websocket, expects, access }))
    }

    /// A refusal: its record counts for no app, and names whoever connected.
    fn refused(
        &self,
        refusal: Refusal,
        expects: bool,
        began: Stopwatch,
        (head, connection): (&Parts, &Connection),
    ) -> Box<Refused> {
        let access = AccessGuard::new(began, &self.shared.metrics.nowhere, connection.peer, &head.method);
        Box::new(Refused { refusal, expects, access })
    }

    async fn act(self: Rc<Self>, mut judged: Box<Judged>, body: Incoming) -> Response<Body> {
        let now = judged.visit.began;
        if let Some(subpath) = &judged.subpath {
            let (table, visit) = (&self.shared.table, &judged.visit);
            let answer = reserved::answer(table, visit, &judged.intake, subpath, body, now);
            let response = Box::pin(answer).await;
            judged.access.finish(response.status(), "reserved");
            return response;
        }
        if let Some(own) = self.own_answer(&mut judged) {
            return Box::pin(self.answer_itself(judged, body, own)).await;
        }
        // Most requests go on from here. Nothing else lives across this await: a future is moved about at its full size.
        self.forward(judged, body).await
    }

    /// The gateway's answer in place of the app's, with its label; `None` where the request goes on.
    fn own_answer(&self, judged: &mut Judged) -> Option<(Response<Body>, &'static str)> {
        if let (Some(_), true) = (&judged.visit.app.config.app_logout, judged.visit.app.vault.is_none()) {
            self.say_farewell(&judged.visit);
        }
        match judged.intake.action {
            Action::Forward { .. } | Action::ForwardWithout | Action::Adopt => None,
            Action::TellByPassing { .. } => self.tell_by_passing(judged),
            Action::Tell { reason, how, .. } => self.tell(judged, reason, how),
            Action::HoldBack { how, .. } => match self.hold_back(judged, how) {
                Some(response) => Some((response, "held_back")),
                None => {
                    self.judge_anew(judged);
                    self.own_answer(judged)
                }
            },
            Action::RefuseUnidentified => Some((answer::unidentified(), "unidentified")),
            Action::Unavailable => Some((
                answer::problem(StatusCode::SERVICE_UNAVAILABLE, "Cannot judge now", &[]),
                "unavailable",
            )),
        }
    }

    async fn answer_itself(
        self: Rc<Self>,
        mut judged: Box<Judged>,
        body: Incoming,
        (response, label): (Response<Body>, &'static str),
    ) -> Response<Body> {
        let Judged { access, visit, .. } = &mut *judged;
        access.session(|| identity_of(&self.shared.table, visit.presented(), visit.began));
        access.finish(response.status(), label);
        settle(body, judged.expects).await;
        response
    }

    /// The request brings the cookie of a session that is over.
    fn say_farewell(&self, visit: &Visit) {
        if let Some(session) = &visit.stopped {
            self.shared.farewells.of_request(visit, &self.shared.table, session, visit.began);
        }
    }

    /// There is no known login page: the request goes on without its cookie, and that is how the end is told.
    fn tell_by_passing(&self, judged: &mut Judged) -> Option<(Response<Body>, &'static str)> {
        let session = judged.visit.presented()?;
        self.shared.table.mark_told(session, judged.visit.began);
        judged.visit.passed_end = Some(Box::new(self.shared.table.read(session, judged.visit.began)));
        None
    }

    fn tell(
        &self,
        judged: &Judged,
        reason: crate::session::EndReason,
        how: Telling,
    ) -> Option<(Response<Body>, &'static str)> {
        let session = judged.visit.presented()?;
        let record = self.shared.table.read(session, judged.visit.began);
        if how != Telling::Problem {
            self.shared.table.mark_told(session, judged.visit.began);
        }
        Some((answer::ended(&judged.visit, &record, reason, how), "ended"))
    }

    /// There may be room by now: then the session is active, and `None` says to judge the request anew.
    fn hold_back(&self, judged: &Judged, how: Telling) -> Option<Response<Body>> {
        let session = judged.visit.presented()?;
        match self.shared.table.admit_pending(session, judged.visit.began) {
            Enrolled::Active(_) | Enrolled::Over => None,
            Enrolled::Pending(session) => {
                let page = (how == Telling::Page).then(|| {
                    reserved::held_back_page(&self.shared.table, &judged.visit, &session, judged.visit.began)
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
    async fn ask(&self, mut judged: Box<Judged>) -> Box<Judged> {
        let silent =
            self.shared.table.ask(&judged.intake.asks, judged.visit.client_ip, judged.visit.began).await;
        self.read_again(&mut judged, Inquired::Silent(&silent));
        judged
    }

    /// Reads the tokens again; the session's standing has changed within this very request.
    fn judge_anew(&self, judged: &mut Judged) {
        self.read_again(judged, Inquired::Silent(&[]));
        // Held back again (somebody else took the room): it is answered as such the next time it asks.
        if matches!(judged.intake.action, Action::HoldBack { .. }) {
            judged.intake.action = Action::ForwardWithout;
        }
    }

    fn read_again(&self, judged: &mut Judged, inquired: Inquired<'_>) {
        let Judged { visit, intake, subpath, .. } = judged;
        let fields = Fields::of(&visit.head.headers);
        let asked = Asked { method: &visit.head.method, path: &visit.path, fields: &fields };
        let to = if subpath.is_some() { Destination::Gateway } else { Destination::App(visit.place) };
        let (table, browser) = (&self.shared.table, visit.site());
        *intake = Intake::read(&visit.app, table, &asked, (&browser, visit.https), to, inquired, visit.began);
        visit.carry(intake);
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
    pub(super) visit: Visit,
    pub(super) intake: Intake,
    /// What comes behind the reserved prefix, when the request is for the gateway itself.
    subpath: Option<String>,
    pub(super) connection: Rc<Connection>,
    pub(super) trusted: bool,
    pub(super) websocket: bool,
    /// The client waits for `100 Continue` before it sends its body.
    pub(super) expects: bool,
    /// Records it.
    pub(super) access: AccessGuard,
}

impl Refused {
    async fn answer(mut self, body: Incoming) -> Response<Body> {
        settle(body, self.expects).await;
        let response = self.refusal.answer();
        self.access.finish(response.status(), self.refusal.label());
        response
    }
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

/// The host that is asked, and its app. What two readers could read differently is refused first.
fn route(
    site: &Site,
    head: &Parts,
    fields: &Fields<'_>,
    connection: &Connection,
) -> Result<(Rc<AskedHost>, Arc<AppSite>), Refusal> {
    if head_bytes(head, fields) > site.header_bytes {
        return Err(Refusal::Bad(BadRequest::TooLarge));
    }
    headers::check_framing(fields).map_err(Refusal::Bad)?;
    let host = connection.asked_host(head, fields).map_err(Refusal::Bad)?;
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Bad(BadRequest::Method));
    }
    let app = site.app_for(&host.bare).ok_or(Refusal::UnknownHost)?.clone();
    Ok((host, app))
}

/// Bytes of a request's head as HTTP/1.1 would write it. The library's own limit counts what it has buffered, which may be
/// more than one head or less.
fn head_bytes(head: &Parts, fields: &Fields<'_>) -> usize {
    let line = head.method.as_str().len() + head.uri.path().len() + head.uri.query().map_or(0, str::len);
    line + fields.bytes()
}

/// Path in normal form and query, both without session ids.
fn normal_target(head: &Parts, app: &AppSite) -> Result<(NormalPath, Option<String>), BadRequest> {
    let names = &app.id_parameters;
    let raw = head.uri.path();
    let path =
        normalise(if raw.is_empty() { "/" } else { raw }, &names.path).map_err(|_| BadRequest::Path)?;
    let bare = |query: &str| strip_query(query, &names.query).unwrap_or_else(|| query.to_owned());
    let query = head.uri.query().map(bare);
    Ok((path, query))
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
