//! From a listening socket to HTTP: accepting, the PROXY protocol, TLS, HTTP/1.1 or HTTP/2.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_header::ParseConfig;
use proxy_header::io::ProxiedStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::browser::{Browser, Late, Watch};
use crate::proxy::{Connection, Proxy};
use crate::telemetry::{ConnectionGuard, Metrics};

/// Most connections of one worker; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 50_000;

/// How long accepting rests after an error such as "too many open files", which would repeat at once.
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

/// How long a peer may take for the PROXY header and the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a browser may take for a request's head; also how long an idle connection is kept: of HTTP/2 one that does not
/// answer a PING, for whoever answers keeps theirs.
const HEAD: Duration = Duration::from_secs(60);

/// Streams of one HTTP/2 connection (the library's advice against rapid reset, CVE-2023-44487).
const H2_STREAMS: u32 = 128;

/// Streams that may be reset before they were answered (CVE-2023-44487, CVE-2025-8671).
const H2_RESETS: usize = 64;

/// What one listener needs.
#[derive(Clone)]
pub(super) struct Acceptor {
    /// TLS, for the https listener.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// Every connection must begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Largest head of a request.
    pub header_bytes: usize,
    /// True once the gateway leaves.
    pub leaving: watch::Receiver<bool>,
    /// Counts connections and errors.
    pub metrics: Arc<Metrics>,
}

/// What an open connection holds: its place among [`MAX_CONNECTIONS`], and its count.
type Open = (OwnedSemaphorePermit, ConnectionGuard);

impl Acceptor {
    /// Accepts until the gateway leaves; then returns once every connection has ended.
    pub(super) async fn run(self, listener: TcpListener, proxy: Rc<Proxy>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut leaving = self.leaving.clone();
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            let accepted = tokio::select! {
                _ = leaving.wait_for(|leaving| *leaving) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (acceptor, proxy) = (self.clone(), Rc::clone(&proxy));
                    tokio::task::spawn_local(async move {
                        let open = (permit, acceptor.metrics.connection());
                        acceptor.serve(stream, (peer.ip(), open), proxy).await;
                    });
                }
                Err(error) if is_of_peer(&error) => self.metrics.accept_error(),
                Err(error) => {
                    self.metrics.accept_error();
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST_AFTER_ERROR).await;
                }
            }
        }
        drop(listener);
        // Every connection holds a permit until it has ended.
        let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
        let _ = permits.acquire_many(all).await;
    }

    async fn serve(self, stream: TcpStream, (peer, open): (IpAddr, Open), proxy: Rc<Proxy>) {
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
        if !self.proxy_protocol {
            return self.secure(stream, (peer, open), proxy).await;
        }
        let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
        let header = tokio::time::timeout(HANDSHAKE, ProxiedStream::create_from_tokio(stream, config)).await;
        match header {
            Ok(Ok(stream)) => {
                // LOCAL (health checks of the balancer) carries no address: the peer is itself.
                let peer =
                    stream.proxy_header().proxied_address().map_or(peer, |address| address.source.ip());
                self.secure(stream, (peer, open), proxy).await;
            }
            Ok(Err(_)) | Err(_) => tracing::debug!(%peer, "a connection without a PROXY header was closed"),
        }
    }

    async fn secure<S>(self, stream: S, (peer, open): (IpAddr, Open), proxy: Rc<Proxy>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Connection::new(peer, self.tls.is_some(), open);
        let Some(tls) = self.tls.as_ref().map(|tls| tls.load_full()) else {
            return self.http1(stream, connection, proxy).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await;
        match handshake {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.http2(stream, connection, proxy).await;
            }
            Ok(Ok(stream)) => self.http1(stream, connection, proxy).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    async fn http1<S>(self, stream: S, connection: Rc<Connection>, proxy: Rc<Proxy>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let watch = Watch::new();
        let asked = watch.clone();
        let service = service_fn(move |request| {
            asked.head_came();
            Rc::clone(&proxy).handle(request, Rc::clone(&connection))
        });
        let serving = http1::Builder::new()
            .timer(watch.clone())
            .header_read_timeout(HEAD)
            .max_buf_size(self.header_bytes.max(8192))
            // Whether the browser closes its side, the watch sees.
            .half_close(true)
            .serve_connection(TokioIo::new(Browser::new(stream, watch.clone())), service)
            .with_upgrades();
        let mut serving = pin!(serving);
        let mut late = Late::new(watch.clone(), HEAD);
        let ends = unless_left(poll_fn(|cx| poll_in_time(serving.as_mut(), &mut late, cx)), &self.leaving);
        let result = match ends.await {
            Some(result) => result,
            None => {
                serving.as_mut().graceful_shutdown();
                poll_fn(|cx| poll_in_time(serving.as_mut(), &mut late, cx)).await
            }
        };
        watch.rest();
        match result {
            Some(result) => ended(result, &self.metrics),
            None if watch.head_has_begun() => {
                self.metrics.bad_head("timeout");
                tracing::debug!("a request's head took too long");
            }
            None => tracing::debug!("an idle connection was closed"),
        }
    }

    async fn http2<S>(self, stream: S, connection: Rc<Connection>, proxy: Rc<Proxy>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| Rc::clone(&proxy).handle(request, Rc::clone(&connection)));
        let serving = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_pending_accept_reset_streams(H2_RESETS)
            .max_local_error_reset_streams(H2_RESETS)
            // The library's 16 KiB refuse cookies that HTTP/1.1 takes (FIELD F20).
            .max_header_list_size(u32::try_from(self.header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        match unless_left(serving.as_mut(), &self.leaving).await {
            Some(result) => return ended(result, &self.metrics),
            None => serving.as_mut().graceful_shutdown(),
        }
        ended(serving.await, &self.metrics);
    }
}

/// What `serving` comes to; `None` when the gateway leaves first. A connection is polled several times for each request: whether
/// the gateway leaves is looked at closely only when something has changed there.
async fn unless_left<F: Future + Unpin>(
    mut serving: F,
    leaving: &watch::Receiver<bool>,
) -> Option<F::Output> {
    let mut changes = leaving.clone();
    // Whatever is left of the task's budget, it enlists.
    let mut left = pin!(tokio::task::unconstrained(changes.wait_for(|leaving| *leaving)));
    let mut is_enlisted = false;
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut serving).poll(cx) {
            return Poll::Ready(Some(output));
        }
        // ORDER: enlisted with this task's waker once; a change wakes it.
        if is_enlisted && !leaving.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        is_enlisted = true;
        left.as_mut().poll(cx).map(|_| None)
    })
    .await
}

/// `None` once the head of a request is late.
fn poll_in_time<F: Future>(
    serving: Pin<&mut F>,
    late: &mut Late,
    cx: &mut Context<'_>,
) -> Poll<Option<F::Output>> {
    match serving.poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Pin::new(late).poll(cx).map(|()| None),
    }
}

fn ended(result: Result<(), hyper::Error>, metrics: &Metrics) {
    let Err(error) = result else { return };
    // hyper has answered these itself (431, 400), before any request of ours began.
    if error.is_parse_too_large() {
        metrics.bad_head("too_large");
    } else if error.is_parse() {
        metrics.bad_head("malformed");
    }
    tracing::debug!(%error, "a connection ended early");
}

/// Whether the failure was the peer's alone; others repeat at once ("too many open files").
fn is_of_peer(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Runs the futures of an HTTP/2 connection on this worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        // The task ends with its stream or its connection.
        tokio::task::spawn_local(future);
    }
}
