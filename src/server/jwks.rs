//! Fetches the keys of identity providers (JWKS, RFC 7517), over HTTPS or from this machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::session::keys::{KeyFault, KeySet};
use crate::telemetry::Metrics;

/// How long a fetch may take, from the look-up of the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest document that is read.
const MAX_BYTES: usize = 256 * 1024;

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the URL cannot be used")]
    Url,
    #[error("it cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    // The status alone: a redirection is not followed, since nobody configured where it leads.
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer broke off, or is longer than {MAX_BYTES} bytes")]
    Body,
    #[error("its answer is of no use: {0}")]
    Keys(#[from] KeyFault),
    #[error("it took longer than {} s", PATIENCE.as_secs())]
    Slow,
}

/// Fetches key sets, counts the results and warns.
pub(super) struct Fetcher {
    /// How providers are verified.
    pub tls: Arc<rustls::ClientConfig>,
    /// Where results are counted.
    pub metrics: Arc<Metrics>,
}

impl Fetcher {
    /// The keys at `url`; `None` when they cannot be had now, which the log tells.
    pub(super) async fn fetch(&self, url: &str) -> Option<KeySet> {
        let fetched = match tokio::time::timeout(PATIENCE, self.get(url)).await {
            Ok(Ok(body)) => KeySet::from_jwks(&body).map_err(FetchError::Keys),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(FetchError::Slow),
        };
        self.metrics.keys_fetched(fetched.is_ok());
        let host = host_of(url);
        match &fetched {
            Ok(keys) if keys.is_empty() => tracing::warn!(host, "a JWKS holds no key that can be used"),
            Ok(_) => tracing::debug!(host, "a JWKS was fetched"),
            Err(error) => {
                tracing::warn!(host, %error, "a JWKS could not be fetched; the keys known stay in use")
            }
        }
        fetched.ok()
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let authority = uri.authority().ok_or(FetchError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let address = authority
            .port_u16()
            .map_or_else(|| authority.host().to_owned(), |port| format!("{}:{port}", authority.host()));
        let request = Request::get(uri.path_and_query().map_or("/", |target| target.as_str()))
            .header(HOST, address)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())
            .map_err(|_| FetchError::Url)?;
        let stream = TcpStream::connect((host, port)).await?;
        if secure {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
            exchange(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

/// The host alone: the rest of a URL may hold credentials.
fn host_of(url: &str) -> String {
    url.parse().ok().and_then(|uri: Uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|_| FetchError::Body)
    };
    let carrying = async {
        // How the connection ends is told by the exchange.
        let _ = connection.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        answered = asking => answered,
        never = carrying => match never {},
    }
}
