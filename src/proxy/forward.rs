//! Sends a request upstream: judged right before its head is written, retried only where that is safe.

use std::future::Future;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::{Upload, UploadState};
use super::pool::{Lease, Pool, PoolError, Upstreamed};
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
    Protocol(#[source] hyper::Error),
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

/// An answer's head with the connection that its body still flows on.
pub(super) type Answered = (Response<Incoming>, Lease);

/// Sends `request`. `check` is asked with no await between it and the writing of the head (R2), for a retry anew.
///
/// # Errors
/// See [`UpstreamError`]; nothing of the request reached the app only for `Connect`, `Busy` and `Withdrawn`.
// CANCEL: the connection is closed; whether the app saw the request is unknown, as when a browser goes away.
pub(super) async fn send(
    pool: &Pool,
    request: Request<Upload>,
    state: &UploadState,
    first_byte: Duration,
    check: impl Fn() -> bool,
) -> Result<Answered, UpstreamError> {
    let mut lease = pool.lease(false).await?;
    let spare = spare_copy(&request, lease.reused);
    let (error, returned) = match attempt(&mut lease, request, state, first_byte, &check).await {
        Ok(response) => return Ok((response, lease)),
        Err(failure) => failure,
    };
    // A reused connection may have been closed by the app at any moment. The request goes out once more on a new
    // one if hyper hands it back untouched, or if it is idempotent, without a body, and nothing was answered.
    let again = match (&error, returned) {
        (UpstreamError::Protocol(_), Some(untouched)) => Some(untouched),
        // What answered something else than HTTP has seen the request.
        (UpstreamError::Protocol(error), None) => spare.filter(|_| !error.is_parse()),
        (
            UpstreamError::Connect(_)
            | UpstreamError::Busy
            | UpstreamError::Timeout
            | UpstreamError::Withdrawn(_)
            | UpstreamError::BodyTooLarge
            | UpstreamError::ClientGone,
            _,
        ) => None,
    };
    let (true, Some(again)) = (lease.reused, again) else { return Err(error) };
    drop(lease);
    let retry = async {
        let mut lease = pool.lease(true).await?;
        match attempt(&mut lease, again, state, first_byte, &check).await {
            Ok(response) => Ok((response, lease)),
            Err((error, _)) => Err(error),
        }
    };
    Box::pin(retry).await
}

/// A copy for the retry, made only where one may be needed and is allowed.
fn spare_copy(request: &Request<Upload>, reused: bool) -> Option<Request<Upload>> {
    let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !(reused && idempotent && matches!(request.body(), Upload::Empty)) {
        return None;
    }
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

type Failure = (UpstreamError, Option<Request<Upload>>);

async fn attempt(
    lease: &mut Lease,
    request: Request<Upload>,
    state: &UploadState,
    first_byte: Duration,
    check: &impl Fn() -> bool,
) -> Result<Response<Incoming>, Failure> {
    if matches!(request.body(), Upload::Streamed { .. }) {
        lease.carries(state.clone());
    }
    let Some(Upstreamed { sender, patience, .. }) = lease.connection() else {
        return Err((UpstreamError::Busy, Some(request)));
    };
    let empty = request.body().is_empty();
    // SECURITY: no await between this and `try_send_request`, which queues the head at once.
    if !check() {
        return Err((UpstreamError::Withdrawn(Some(Unsent(Box::new(request)))), None));
    }
    let answer = sender.try_send_request(request);
    match in_time(answer, patience, state, empty, first_byte).await {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut failed)) => {
            let returned = failed.take_message();
            let error = failed.into_error();
            if state.is_too_large() {
                return Err((UpstreamError::BodyTooLarge, None));
            }
            if error.is_user() {
                return Err((UpstreamError::ClientGone, None));
            }
            Err((UpstreamError::Protocol(error), returned))
        }
        None => Err((UpstreamError::Timeout, None)),
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
