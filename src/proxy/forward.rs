//! Sends a request upstream: judged right before its head is written, retried only where that is safe.

use std::future::Future;
use std::time::Duration;

use http::response::Parts;
use http::{Method, Request, StatusCode};

use super::body::{BodyError, Upload, UploadState};
use super::pool::{Lease, Pool, PoolError, Upstreamed};
use super::upstream::{Broken, ExchangeFault, Outgoing};
use crate::clock::Patience;

/// A request of which the app has seen nothing.
pub(super) struct Unsent(pub(super) Box<Request<Upload>>);

/// SECURITY: nothing of it appears in `Debug` output (law 10).
impl std::fmt::Debug for Unsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unsent")
    }
}

/// Why there is no answer from the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection could be made.
    #[error("cannot connect to the upstream")]
    Connect(#[source] std::io::Error),
    /// All connections are in use.
    #[error("all connections to the upstream are in use")]
    Busy,
    /// The first byte of the answer did not come in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The upstream broke off, or what it said is no HTTP.
    #[error("the upstream broke off")]
    Protocol(#[source] Broken),
    /// The session ended before the head was written, or while the app's answer was awaited.
    #[error("the session ended meanwhile")]
    Withdrawn(Option<Unsent>),
    /// The request body is larger than it may be.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The browser broke off its upload.
    #[error("the client broke off")]
    ClientGone,
}

impl UpstreamError {
    /// The label in metrics and access lines.
    #[must_use]
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Protocol(_) => "protocol",
            Self::Withdrawn(_) => "withdrawn",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientGone => "client_gone",
        }
    }

    /// The status that the browser gets.
    #[must_use]
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Connect(_) | Self::Protocol(_) => StatusCode::BAD_GATEWAY,
            Self::Busy | Self::Withdrawn(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientGone => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<PoolError> for UpstreamError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Connect(error) => Self::Connect(error),
            PoolError::Busy => Self::Busy,
        }
    }
}

impl From<ExchangeFault> for UpstreamError {
    fn from(fault: ExchangeFault) -> Self {
        match fault {
            ExchangeFault::Broken(broken) => Self::Protocol(broken),
            ExchangeFault::Body(BodyError::TooLarge) => Self::BodyTooLarge,
            ExchangeFault::Body(
                BodyError::Peer(_) | BodyError::App(_) | BodyError::Ended | BodyError::Misframed,
            ) => Self::ClientGone,
        }
    }
}

/// An answer's head with the connection that its body still flows on.
pub(super) type Answered = (Parts, Lease);

/// Sends `request`. `check` is asked with no await between it and the writing of the head (R2), for a retry anew.
///
/// # Errors
/// See [`UpstreamError`]; nothing of the request reached the app only for `Connect`, `Busy` and `Withdrawn`.
// CANCEL: the connection is closed; whether the app saw the request is unknown, as when a browser goes away.
pub(super) async fn send(
    pool: &Pool,
    mut request: Request<Upload>,
    state: &UploadState,
    first_byte: Duration,
    check: impl Fn() -> bool,
) -> Result<Answered, UpstreamError> {
    let mut lease = pool.lease(false).await?;
    let repeatable = lease.reused && is_repeatable(&request);
    match attempt(&mut lease, &mut request, state, first_byte, &check).await {
        Ok(head) => Ok((head, lease)),
        // The app may have closed a connection that was used before at any moment; a new one is tried once.
        Err(UpstreamError::Protocol(Broken::Unheard(_))) if repeatable => {
            drop(lease);
            let again = async {
                let mut lease = pool.lease(true).await?;
                match attempt(&mut lease, &mut request, state, first_byte, &check).await {
                    Ok(head) => Ok((head, lease)),
                    Err(error) => Err(error.with(request)),
                }
            };
            Box::pin(again).await
        }
        Err(error) => Err(error.with(request)),
    }
}

impl UpstreamError {
    /// What was withdrawn goes back to who sent it.
    fn with(self, request: Request<Upload>) -> Self {
        match self {
            Self::Withdrawn(_) => Self::Withdrawn(Some(Unsent(Box::new(request)))),
            other => other,
        }
    }
}

/// Whether the request may be sent a second time: it changes nothing, and has no body.
fn is_repeatable(request: &Request<Upload>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && matches!(request.body(), Upload::Empty)
}

/// Takes the body out of `request` unless it is withdrawn.
async fn attempt(
    lease: &mut Lease,
    request: &mut Request<Upload>,
    state: &UploadState,
    first_byte: Duration,
    check: &impl Fn() -> bool,
) -> Result<Parts, UpstreamError> {
    if matches!(request.body(), Upload::Streamed { .. }) {
        lease.carries(state.clone());
    }
    let Some(Upstreamed { wire, patience, .. }) = lease.connection() else {
        return Err(UpstreamError::Busy);
    };
    let empty = request.body().is_empty();
    // Or the first poll would put writing off.
    if !tokio::task::coop::has_budget_remaining() {
        tokio::task::yield_now().await;
    }
    // SECURITY: no await between this and the first poll of `exchange`, which writes the head.
    if !check() {
        return Err(UpstreamError::Withdrawn(None));
    }
    let outgoing = Outgoing::new(request).map_err(|fault| UpstreamError::Protocol(fault.into()))?;
    match in_time(wire.exchange(outgoing), patience, state, empty, first_byte).await {
        Some(answered) => answered.map_err(UpstreamError::from),
        None => Err(UpstreamError::Timeout),
    }
}

/// The first byte is awaited from the end of the request: an upload in progress is no slow upstream.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    patience: &mut Patience,
    state: &UploadState,
    empty: bool,
    first_byte: Duration,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let before = state.bytes();
        match patience.within(first_byte, answer.as_mut()).await {
            Some(answer) => return Some(answer),
            // The upstream is silent, or the browser: it may be slow, but not silent.
            None if empty || state.bytes() == before => return None,
            None => {}
        }
    }
}
