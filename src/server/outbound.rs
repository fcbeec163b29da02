//! Requests of the gateway's own, apart from any that it forwards: one connection each, from the control thread.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("the host's name cannot be verified")]
    Name,
    #[error("it cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("its answer broke off, or is too long")]
    Body,
}

/// Asks `host` and reads the answer, `max_bytes` of body at most. The caller bounds the time.
pub(super) async fn ask(
    host: &str,
    port: u16,
    tls: Option<&Arc<rustls::ClientConfig>>,
    request: Request<Empty<Bytes>>,
    max_bytes: usize,
) -> Result<(StatusCode, Bytes), AskError> {
    let stream = TcpStream::connect((host, port)).await?;
    let Some(tls) = tls else { return exchange(stream, request, max_bytes).await };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| AskError::Name)?;
    exchange(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?, request, max_bytes).await
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    max_bytes: usize,
) -> Result<(StatusCode, Bytes), AskError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, max_bytes).collect().await.map_err(|_| AskError::Body)?;
        Ok((head.status, body.to_bytes()))
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
