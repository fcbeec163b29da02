//! Connections to one app's upstream, per worker: bounded, reused, never trusted to be alive.
//!
//! An idle connection is used only while it is younger than the app's own keep-alive limit (FIELD F19), the newest
//! first; what is stale all the same is caught by the retry rule in `forward`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::UploadState;
use super::permits::{Permit, Permits};
use super::upstream::{Broken, UpstreamIo, Wire};
use crate::clock::{Patience, Stopwatch};
use crate::config::Upstream;

/// A connection is closed after this age, so that a changed address or a new node is found.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Addresses of a name are looked up again after this time; the system's resolver tells no lifetime.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Idle connections are looked at no more often than this.
const LEAST_REST: Duration = Duration::from_secs(1);

/// How long a request may wait for a connection when all are in use.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    /// No address answered.
    #[error("cannot connect to the upstream")]
    Connect(#[source] std::io::Error),
    /// All connections are in use.
    #[error("all connections to the upstream are in use")]
    Busy,
}

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Where the app is; at least one.
    pub upstream: Vec<Upstream>,
    /// Most connections of this worker.
    pub max_connections: usize,
    /// How long an idle one is kept.
    pub idle: Duration,
    /// How long connecting may take, name look-up and TLS included.
    pub connect_timeout: Duration,
    /// How TLS upstreams are verified.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Equal settings keep a pool and its connections over a reload.
impl PartialEq for PoolSettings {
    fn eq(&self, other: &Self) -> bool {
        self.upstream == other.upstream
            && self.max_connections == other.max_connections
            && self.idle == other.idle
            && self.connect_timeout == other.connect_timeout
            && self.tls.is_some() == other.tls.is_some()
    }
}

/// The pool of one worker and app. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(Rc<Inner>, WhenFull);

/// What happens when all connections are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenFull {
    Wait,
    OpenOneMore,
}

struct Inner {
    settings: PoolSettings,
    permits: Rc<Permits>,
    /// Newest last.
    idle: RefCell<VecDeque<Idle>>,
    next: Cell<usize>,
    /// By upstream: when its name was looked up, and what was found.
    resolved: RefCell<Vec<Resolved>>,
}

type Resolved = Option<(Stopwatch, Vec<SocketAddr>)>;

struct Idle {
    connection: Box<Upstreamed>,
    since: Stopwatch,
}

/// One connection.
pub(super) struct Upstreamed {
    /// Its bytes.
    pub(super) wire: Wire,
    /// For the first byte of an answer.
    pub(super) patience: Patience,
    born: Stopwatch,
}

/// A connection in use. Dropped, it is closed, unless it was given back.
pub struct Lease {
    /// Boxed: it changes hands many times in a request.
    connection: Option<Box<Upstreamed>>,
    /// It carried another request before.
    pub reused: bool,
    pool: Pool,
    /// `None` for one beyond the bound.
    permit: Option<Permit>,
    upload: Option<UploadState>,
    /// How long an upload may stand still whose answer is over.
    upload_patience: Duration,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub(super) fn new(settings: PoolSettings) -> Self {
        let permits = Permits::new(settings.max_connections.max(1));
        let resolved = RefCell::new(vec![None; settings.upstream.len()]);
        let inner = Inner { settings, permits, idle: RefCell::default(), next: Cell::new(0), resolved };
        let inner = Rc::new(inner);
        // The task ends with the pool.
        tokio::task::spawn_local(close_stale(Rc::downgrade(&inner)));
        Self(inner, WhenFull::Wait)
    }

    /// The same pool for who holds one of its connections already: waiting for a second one, all of them could wait for
    /// each other. When the pool is full, one is opened beyond the bound, and closed after its answer.
    #[must_use]
    pub(super) fn for_holder(&self) -> Self {
        Self(Rc::clone(&self.0), WhenFull::OpenOneMore)
    }

    /// An idle connection that nobody has to wait for, which is what most requests find.
    #[must_use]
    pub(super) fn at_hand(&self) -> Option<Lease> {
        let permit = self.0.permits.at_hand()?;
        let connection = self.revive()?;
        Some(self.lend(connection, true, Some(permit)))
    }

    /// A connection: an idle one, or a new one when `fresh` is wanted or none is idle.
    ///
    /// # Errors
    /// No address answers in time, or no connection becomes free.
    // CANCEL: a connection that is being made is closed; its permit is free again.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease, PoolError> {
        let permit = match self.0.permits.at_hand() {
            Some(permit) => Some(permit),
            None if self.1 == WhenFull::OpenOneMore => None,
            None => Some(Box::pin(self.wait_for_permit()).await?),
        };
        let idle = if fresh { None } else { self.revive() };
        let reused = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let wire = Box::pin(self.connect()).await?;
                let (patience, born) = (Patience::default(), Stopwatch::start());
                Box::new(Upstreamed { wire, patience, born })
            }
        };
        Ok(self.lend(connection, reused, permit))
    }

    fn lend(&self, connection: Box<Upstreamed>, reused: bool, permit: Option<Permit>) -> Lease {
        let (connection, pool) = (Some(connection), self.clone());
        Lease { connection, reused, pool, permit, upload: None, upload_patience: Duration::ZERO }
    }

    async fn wait_for_permit(&self) -> Result<Permit, PoolError> {
        tokio::time::timeout(QUEUE_PATIENCE, self.0.permits.wait()).await.map_err(|_| PoolError::Busy)
    }

    /// The newest idle connection that is as it was left.
    fn revive(&self) -> Option<Box<Upstreamed>> {
        let now = Stopwatch::roughly();
        let mut idle = self.0.idle.borrow_mut();
        while let Some(mut last) = idle.pop_back() {
            if last.is_usable(self.0.settings.idle, now) {
                return Some(last.connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Wire, PoolError> {
        self.connect_to_any().await.map_err(PoolError::Connect)
    }

    /// Tries the upstreams in turn, beginning with the next one.
    async fn connect_to_any(&self) -> std::io::Result<Wire> {
        let count = self.0.settings.upstream.len().max(1);
        let first = self.0.next.get();
        self.0.next.set((first + 1) % count);
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        // One that does not answer must leave time for the next.
        let share = self.0.settings.connect_timeout / u32::try_from(count).unwrap_or(u32::MAX);
        for offset in 0..count {
            let one = self.connect_to_upstream((first + offset) % count);
            match tokio::time::timeout(share, one).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(error)) => last = error,
                Err(_) => last = std::io::Error::from(std::io::ErrorKind::TimedOut),
            }
        }
        Err(last)
    }

    async fn connect_to_upstream(&self, index: usize) -> std::io::Result<Wire> {
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for address in self.addresses(index).await? {
            match self.connect_to(index, address).await {
                Ok(sender) => return Ok(sender),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn addresses(&self, index: usize) -> std::io::Result<Vec<SocketAddr>> {
        let Some(upstream) = self.0.settings.upstream.get(index) else { return Ok(Vec::new()) };
        if let Ok(ip) = upstream.host.parse::<std::net::IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, upstream.port)]);
        }
        let known = self.0.resolved.borrow().get(index).cloned().flatten();
        if let Some((at, addresses)) = known
            && !is_older(at, RESOLVE_EVERY, Stopwatch::start())
        {
            return Ok(addresses);
        }
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((upstream.host.as_str(), upstream.port)).await?.collect();
        if let Some(entry) = self.0.resolved.borrow_mut().get_mut(index) {
            *entry = Some((Stopwatch::start(), addresses.clone()));
        }
        Ok(addresses)
    }

    async fn connect_to(&self, index: usize, address: SocketAddr) -> std::io::Result<Wire> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = self.secure(index, stream).await?;
        Ok(Wire::new(io))
    }

    async fn secure(&self, index: usize, stream: TcpStream) -> std::io::Result<UpstreamIo> {
        let upstream = self.0.settings.upstream.get(index);
        let (Some(upstream), Some(tls)) = (upstream.filter(|u| u.tls), &self.0.settings.tls) else {
            return Ok(UpstreamIo::Plain(stream));
        };
        let name = ServerName::try_from(upstream.host.clone()).map_err(std::io::Error::other)?;
        let secured = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        Ok(UpstreamIo::Tls(Box::new(secured)))
    }
}

impl Idle {
    fn is_usable(&mut self, limit: Duration, now: Stopwatch) -> bool {
        let too_old = is_older(self.since, limit, now) || is_older(self.connection.born, MAX_AGE, now);
        !too_old && self.connection.wire.is_fresh()
    }
}

/// Closes idle connections that are too old or that the app has closed: after a burst there may be no request for hours that
/// would look at them.
async fn close_stale(pool: Weak<Inner>) {
    loop {
        let Some(every) = pool.upgrade().map(|pool| pool.settings.idle.max(LEAST_REST)) else { return };
        tokio::time::sleep(every).await;
        if let Some(pool) = pool.upgrade() {
            let now = Stopwatch::start();
            pool.idle.borrow_mut().retain_mut(|idle| idle.is_usable(pool.settings.idle, now));
        }
    }
}

fn is_older(since: Stopwatch, limit: Duration, now: Stopwatch) -> bool {
    u128::from(now.since_us(since)) > limit.as_micros()
}

impl Lease {
    /// The connection; `None` once it was given back or discarded.
    pub(super) fn connection(&mut self) -> Option<&mut Upstreamed> {
        self.connection.as_deref_mut()
    }

    /// The connection for a tunnel; its place stays taken for as long as this lives.
    pub(super) fn take_wire(&mut self) -> Option<Wire> {
        self.connection.take().map(|connection| connection.wire)
    }

    /// Gives the connection back if its answer has been read to the end.
    pub(super) fn give_back_at_end(&mut self) {
        if self.is_end_stream() {
            self.give_back();
        }
    }

    /// Tells which upload goes out on it: until that has ended, or stood still for `patience`, the connection is busy, whatever
    /// the answer.
    pub(super) fn carries(&mut self, upload: Option<UploadState>, patience: Duration) {
        (self.upload, self.upload_patience) = (upload, patience);
    }

    /// The answer has been read to its end: the connection may carry another request. It is closed instead where an app
    /// answered before the upload had come: the rest may never come, and the connection's place stays taken until then.
    fn give_back(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let upload = self.upload.take();
        if connection.wire.leave_upload(self.upload_patience) {
            if let Some(upload) = upload {
                upload.hold(self.permit.take());
            }
            return;
        }
        let counted = self.permit.take().is_some();
        if counted && connection.wire.is_reusable() {
            connection.wire.shrink();
            self.pool.0.idle.borrow_mut().push_back(Idle { connection, since: Stopwatch::roughly() });
        }
    }

    /// The connection is closed.
    pub fn discard(&mut self) {
        self.connection = None;
        self.permit = None;
    }
}

/// The body of the answer. At its end the connection goes back to the pool.
impl Body for Lease {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        let polled = connection.wire.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.discard(),
            Poll::Ready(_) => self.give_back_at_end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.wire.is_end())
    }

    fn size_hint(&self) -> SizeHint {
        self.connection.as_ref().map_or(SizeHint::with_exact(0), |connection| connection.wire.size_hint())
    }
}
