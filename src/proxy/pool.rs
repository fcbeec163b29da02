//! Connections to one app's upstream, per worker: bounded, reused, never trusted to be alive.
//!
//! An idle connection is used only while it is younger than the app's own keep-alive limit (FIELD F19), the newest
//! first; what is stale all the same is caught by the retry rule in `forward`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;

use super::body::{Upload, UploadState};
use crate::clock::{Patience, Stopwatch};
use crate::config::Upstream;

/// A connection is closed after this age, so that a changed address or a new node is found.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Addresses of a name are looked up again after this time; the system's resolver tells no lifetime.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// How often a connection is asked whether it is ready for another request before it is given up.
const READY_LOOKS: usize = 3;

/// How long a request may wait for a connection when all are in use.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);

/// The largest head of an upstream's answer.
const MAX_HEAD_BYTES: usize = 256 * 1024;

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
    permits: Arc<Semaphore>,
    /// Newest last.
    idle: RefCell<VecDeque<Idle>>,
    next: Cell<usize>,
    /// By upstream: when its name was looked up, and what was found.
    resolved: RefCell<Vec<Resolved>>,
}

type Resolved = Option<(Stopwatch, Vec<SocketAddr>)>;

struct Idle {
    connection: Upstreamed,
    since: Stopwatch,
}

/// One connection.
pub struct Upstreamed {
    /// Sends requests on it.
    pub sender: SendRequest<Upload>,
    /// For the first byte of an answer.
    pub patience: Patience,
    born: Stopwatch,
}

/// A connection in use. Dropped, it is closed, unless it was given back.
pub struct Lease {
    connection: Option<Upstreamed>,
    /// It carried another request before.
    pub reused: bool,
    pool: Pool,
    /// `None` for one beyond the bound.
    permit: Option<OwnedSemaphorePermit>,
    upload: Option<UploadState>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub(super) fn new(settings: PoolSettings) -> Self {
        let permits = Arc::new(Semaphore::new(settings.max_connections.max(1)));
        let resolved = RefCell::new(vec![None; settings.upstream.len()]);
        let inner = Inner { settings, permits, idle: RefCell::default(), next: Cell::new(0), resolved };
        Self(Rc::new(inner), WhenFull::Wait)
    }

    /// The same pool for who holds one of its connections already: waiting for a second one, all of them could wait for
    /// each other. When the pool is full, one is opened beyond the bound, and closed after its answer.
    #[must_use]
    pub(super) fn for_holder(&self) -> Self {
        Self(Rc::clone(&self.0), WhenFull::OpenOneMore)
    }

    /// A connection: an idle one, or a new one when `fresh` is wanted or none is idle.
    ///
    /// # Errors
    /// No address answers in time, or no connection becomes free.
    // CANCEL: a connection that is being made is closed; a permit is given back.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease, PoolError> {
        let permit = match Arc::clone(&self.0.permits).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if self.1 == WhenFull::OpenOneMore => None,
            Err(_) => Some(Box::pin(self.wait_for_permit()).await?),
        };
        if !fresh {
            while let Some(idle) = self.take_idle() {
                if let Some(connection) = revive(idle).await {
                    let pool = self.clone();
                    return Ok(Lease {
                        connection: Some(connection),
                        reused: true,
                        pool,
                        permit,
                        upload: None,
                    });
                }
            }
        }
        let sender = Box::pin(self.connect()).await?;
        let connection = Upstreamed { sender, patience: Patience::default(), born: Stopwatch::start() };
        let pool = self.clone();
        Ok(Lease { connection: Some(connection), reused: false, pool, permit, upload: None })
    }

    async fn wait_for_permit(&self) -> Result<OwnedSemaphorePermit, PoolError> {
        let permits = Arc::clone(&self.0.permits).acquire_owned();
        match tokio::time::timeout(QUEUE_PATIENCE, permits).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(PoolError::Busy),
        }
    }

    fn take_idle(&self) -> Option<Idle> {
        let limit = self.0.settings.idle;
        let mut idle = self.0.idle.borrow_mut();
        // The oldest are over first; they are dropped here, so that no timer is needed.
        while idle.front().is_some_and(|oldest| older_than(oldest.since, limit)) {
            idle.pop_front();
        }
        idle.pop_back()
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, PoolError> {
        self.connect_to_any().await.map_err(PoolError::Connect)
    }

    /// Tries the upstreams in turn, beginning with the next one.
    async fn connect_to_any(&self) -> std::io::Result<SendRequest<Upload>> {
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

    async fn connect_to_upstream(&self, index: usize) -> std::io::Result<SendRequest<Upload>> {
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
            && !older_than(at, RESOLVE_EVERY)
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

    async fn connect_to(&self, index: usize, address: SocketAddr) -> std::io::Result<SendRequest<Upload>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = self.secure(index, stream).await?;
        let (sender, connection) = http1::Builder::new()
            // Old servers fold headers, put spaces before colons and depend on the case of names (FIELD F26).
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .title_case_headers(true)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(std::io::Error::other)?;
        // The task ends with the connection, which ends when its sender is dropped.
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(sender)
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

/// `None` when the connection turns out to be closed, or is not done with what it carried last.
async fn revive(idle: Idle) -> Option<Upstreamed> {
    let connection = idle.connection;
    for _ in 0..READY_LOOKS {
        if connection.sender.is_closed() || older_than(connection.born, MAX_AGE) {
            return None;
        }
        if connection.sender.is_ready() {
            return Some(connection);
        }
        // Its task may have something left to do, and does it now, or it waits for others.
        tokio::task::yield_now().await;
    }
    None
}

fn older_than(since: Stopwatch, limit: Duration) -> bool {
    u128::from(since.elapsed_us()) > limit.as_micros()
}

impl Lease {
    /// The connection; `None` once it was given back or discarded.
    pub fn connection(&mut self) -> Option<&mut Upstreamed> {
        self.connection.as_mut()
    }

    /// Tells which upload goes out on it: until that has ended the connection is busy, whatever the answer.
    pub(super) fn carries(&mut self, upload: UploadState) {
        self.upload = Some(upload);
    }

    /// The answer has been read to its end: the connection may carry another request. It is closed instead where an app
    /// answered before the upload had come: the rest may never come, and the connection's place stays taken until then.
    pub fn give_back(&mut self) {
        if let Some(upload) = self.upload.take().filter(|upload| !upload.is_done()) {
            upload.hold(self.permit.take());
            return self.discard();
        }
        let counted = self.permit.take().is_some();
        if let Some(connection) = self.connection.take().filter(|c| counted && !c.sender.is_closed()) {
            let idle = Idle { connection, since: Stopwatch::start() };
            self.pool.0.idle.borrow_mut().push_back(idle);
        }
    }

    /// The connection is closed.
    pub fn discard(&mut self) {
        self.connection = None;
        self.permit = None;
    }
}

/// A connection to an upstream, plain or TLS.
enum UpstreamIo {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
