//! Connections: plain or TLS, HTTP/1.1 with reuse or HTTP/2 with one connection per origin.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::url::Url;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Browsers keep no more idle connections to one host.
const MOST_IDLE: usize = 6;
const MOST_HEAD_BYTES: usize = 256 * 1024;

/// What went wrong on the way, without a word of what was sent.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No connection, or none that could be secured.
    #[error("connecting: {0}")]
    Connect(#[source] io::Error),
    /// The exchange broke off.
    #[error("the exchange: {0}")]
    Http(#[source] hyper::Error),
    /// The body broke off, or grew beyond all measure.
    #[error("the body: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More redirects than a browser follows.
    #[error("too many redirects")]
    Redirects,
    /// A `Location` that leads nowhere.
    #[error("a redirect to nowhere")]
    Nowhere,
    /// Longer than a test waits.
    #[error("no end in sight")]
    Patience,
}

/// HTTPS: whom to trust, and whether to offer HTTP/2.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate that signs the server's.
    pub root: CertificateDer<'static>,
    /// Offer `h2` before `http/1.1`.
    pub h2: bool,
}

/// Where hosts are and how to speak with them.
pub struct Net {
    addr: SocketAddr,
    elsewhere: Mutex<HashMap<String, SocketAddr>>,
    tls: Option<Arc<rustls::ClientConfig>>,
    idle: Mutex<HashMap<String, Vec<http1::SendRequest<Body>>>>,
    shared: tokio::sync::Mutex<HashMap<String, http2::SendRequest<Body>>>,
}

/// An answer whose body is still to be read, and the connection it will free.
pub struct Exchange {
    /// Head and body.
    pub answer: Response<Incoming>,
    /// The connection, when it can be used again.
    pub freed: Option<http1::SendRequest<Body>>,
}

enum Fresh {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Net {
    /// All hosts are at `addr`, unless told otherwise.
    pub fn new(addr: SocketAddr, tls: Option<&Tls>) -> Self {
        Self {
            addr,
            elsewhere: Mutex::default(),
            tls: tls.map(|tls| Arc::new(client_config(tls))),
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// This host is at `addr`.
    pub fn resolve(&self, host: &str, addr: SocketAddr) {
        self.elsewhere.lock().insert(host.to_owned(), addr);
    }

    /// Where a URL's host is.
    pub fn addr(&self, url: &Url) -> SocketAddr {
        self.elsewhere.lock().get(&url.host).copied().unwrap_or(self.addr)
    }

    /// Sends what `make` makes. A reused connection that turns out dead is replaced once, as browsers do.
    pub async fn send(&self, url: &Url, make: impl Fn() -> Request<Body>) -> Result<Exchange, NetError> {
        if let Some(shared) = self.living_h2(url).await {
            return on_h2(shared, url, make()).await;
        }
        while let Some(mut sender) = self.take_idle(url) {
            if sender.ready().await.is_ok() {
                match on_h1(sender, make()).await {
                    Err(NetError::Http(error)) if error.is_incomplete_message() || error.is_canceled() => {
                        break;
                    }
                    outcome => return outcome,
                }
            }
        }
        self.send_fresh(url, make(), true).await
    }

    /// Sends on a connection of its own; without `offer_h2` it speaks HTTP/1.1 in any case.
    pub async fn send_fresh(
        &self,
        url: &Url,
        request: Request<Body>,
        offer_h2: bool,
    ) -> Result<Exchange, NetError> {
        match self.connect(url, offer_h2).await? {
            Fresh::One(sender) => on_h1(sender, request).await,
            Fresh::Two(sender) => {
                self.shared.lock().await.insert(url.origin(), sender.clone());
                on_h2(sender, url, request).await
            }
        }
    }

    async fn living_h2(&self, url: &Url) -> Option<http2::SendRequest<Body>> {
        self.shared.lock().await.get(&url.origin()).filter(|sender| !sender.is_closed()).cloned()
    }

    fn take_idle(&self, url: &Url) -> Option<http1::SendRequest<Body>> {
        self.idle.lock().get_mut(&url.origin())?.pop()
    }

    /// Keeps a connection whose answer was read to the end.
    pub fn give_back(&self, url: &Url, sender: http1::SendRequest<Body>) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(url.origin()).or_default();
        if kept.len() < MOST_IDLE && !sender.is_closed() {
            kept.push(sender);
        }
    }

    /// Drops every idle connection.
    pub async fn hang_up(&self) {
        self.idle.lock().clear();
        self.shared.lock().await.clear();
    }

    async fn connect(&self, url: &Url, offer_h2: bool) -> Result<Fresh, NetError> {
        let stream = TcpStream::connect(self.addr(url)).await.map_err(NetError::Connect)?;
        stream.set_nodelay(true).map_err(NetError::Connect)?;
        if url.scheme == "http" {
            return one(stream).await;
        }
        let stream = self.secure(url, stream, offer_h2).await.map_err(NetError::Connect)?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") { two(stream).await } else { one(stream).await }
    }

    async fn secure(
        &self,
        url: &Url,
        stream: TcpStream,
        offer_h2: bool,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let config = self.tls.as_ref().ok_or_else(|| io::Error::other("this browser was given no root"))?;
        let mut config = config.clone();
        if !offer_h2 {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }
}

fn client_config(tls: &Tls) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(tls.root.clone()).expect("the root is a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    if tls.h2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config
}

async fn one(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Fresh, NetError> {
    let mut builder = http1::Builder::new();
    // As lenient as browsers are.
    builder
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    builder.ignore_invalid_headers_in_responses(true).max_buf_size(MOST_HEAD_BYTES);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(NetError::Http)?;
    // It ends with its sender and its answers; what broke it is told to whoever waits on it.
    tokio::spawn(connection.with_upgrades());
    Ok(Fresh::One(sender))
}

async fn two(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Fresh, NetError> {
    let executor = TokioExecutor::new();
    let (sender, connection) =
        http2::handshake(executor, TokioIo::new(stream)).await.map_err(NetError::Http)?;
    tokio::spawn(connection);
    Ok(Fresh::Two(sender))
}

async fn on_h1(mut sender: http1::SendRequest<Body>, request: Request<Body>) -> Result<Exchange, NetError> {
    let answer = sender.send_request(request).await.map_err(NetError::Http)?;
    Ok(Exchange { answer, freed: Some(sender) })
}

/// HTTP/2 names scheme and authority in the request line, and browsers send each cookie as a field of its own.
async fn on_h2(
    mut sender: http2::SendRequest<Body>,
    url: &Url,
    mut request: Request<Body>,
) -> Result<Exchange, NetError> {
    *request.uri_mut() = url.to_string().parse().map_err(|_| NetError::Nowhere)?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(http::header::HOST);
    if let Some(cookies) = request.headers_mut().remove(http::header::COOKIE) {
        for crumb in cookies.as_bytes().split(|byte| *byte == b';') {
            let value = http::HeaderValue::from_bytes(crumb.trim_ascii()).map_err(|_| NetError::Nowhere)?;
            request.headers_mut().append(http::header::COOKIE, value);
        }
    }
    sender.ready().await.map_err(NetError::Http)?;
    let answer = sender.send_request(request).await.map_err(NetError::Http)?;
    Ok(Exchange { answer, freed: None })
}
