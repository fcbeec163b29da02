//! Sends a request upstream: judged right before its head is written, retried only where that is safe.

use std::time::Duration;

use http::StatusCode;
use http::response::Parts;

use super::body::{BodyError, UploadState};
use super::pool::{Lease, Pool, PoolError, Upstreamed};
use super::upstream::{Broken, ExchangeFault, Outgoing};

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
    /// The session ended before the head was written.
    #[error("the session ended before the request was sent")]
    Withdrawn,
    /// The session ended while the app's answer was awaited.
    #[error("the session ended meanwhile")]
    CutOff,
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
            Self::Withdrawn | Self::CutOff => "withdrawn",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientGone => "client_gone",
        }
    }

    /// The status that the browser gets.
    #[must_use]
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Connect(_) | Self::Protocol(_) => StatusCode::BAD_GATEWAY,
            Self::Busy | Self::Withdrawn | Self::CutOff => StatusCode::SERVICE_UNAVAILABLE,
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
            ExchangeFault::Body(BodyError::Ended) => Self::CutOff,
            ExchangeFault::Body(BodyError::Peer(_) | BodyError::App(_) | BodyError::Misframed) => {
                Self::ClientGone
            }
        }
    }
}

/// An answer's head with the connection that its body still flows on.
pub(super) type Answered = (Parts, Lease);

/// Sends `request`. `check` is asked with no await between it and the writing of the head (R2), for a retry anew.
///
/// # Errors
/// See [`UpstreamError`]. For `Connect`, `Busy` and `Withdrawn` the app answered nothing; it may have got the whole of a request
/// that may be sent twice, on a connection that it closed thereupon.
// CANCEL: the connection is closed; whether the app saw the request is unknown, as when a browser goes away.
pub(super) async fn send(
    pool: &Pool,
    request: &mut Outgoing,
    first_byte: Duration,
    check: impl Fn() -> bool,
) -> Result<Answered, UpstreamError> {
    let mut lease = match pool.at_hand() {
        Some(lease) => lease,
        None => Box::pin(pool.lease(false)).await?,
    };
    let repeatable = lease.reused && request.is_repeatable();
    match attempt(&mut lease, request, first_byte, &check).await {
        // The app may have closed a connection that was used before at any moment; a new one is tried once.
        Err(UpstreamError::Protocol(Broken::Unheard(_))) if repeatable => {
            drop(lease);
            request.rewind();
            let again = async {
                let mut lease = pool.lease(true).await?;
                attempt(&mut lease, request, first_byte, &check).await.map(|head| (head, lease))
            };
            Box::pin(again).await
        }
        answered => answered.map(|head| (head, lease)),
    }
}

async fn attempt(
    lease: &mut Lease,
    request: &mut Outgoing,
    first_byte: Duration,
    check: &impl Fn() -> bool,
) -> Result<Parts, UpstreamError> {
    let upload = request.upload().state().cloned();
    lease.carries(upload.clone(), first_byte);
    let Some(Upstreamed { wire, patience, .. }) = lease.connection() else {
        return Err(UpstreamError::Busy);
    };
    // Or the first poll would put writing off.
    if !tokio::task::coop::has_budget_remaining() {
        tokio::task::yield_now().await;
    }
    // SECURITY: no await between this and the first poll of `exchange`, which writes the head.
    if !check() {
        return Err(UpstreamError::Withdrawn);
    }
    let mut answer = wire.exchange(request);
    // The first byte is awaited from the end of the request: an upload in progress is no slow upstream.
    let came = || upload.as_ref().map(UploadState::bytes);
    loop {
        let before = came();
        match patience.within(first_byte, &mut answer).await {
            Some(answered) => return answered.map_err(UpstreamError::from),
            // The upstream is silent, or the browser: it may be slow, but not silent.
            None if came() == before => return Err(UpstreamError::Timeout),
            None => {}
        }
    }
}
