//! Bodies that do not pass through: read whole, within bounds (a sign-in form, an answer to the ask page), or not wanted.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

/// How long a browser may take for a short body.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of a body nobody wants is read before our own answer, so that it does not arrive as a reset (FIELD F13).
const UNWANTED_BYTES: usize = 256 * 1024;

/// How long that may take.
const UNWANTED_PATIENCE: Duration = Duration::from_millis(500);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CollectFault {
    /// It is larger than it may be.
    #[error("the body is too large")]
    TooLarge,
    /// It did not come in time.
    #[error("the body did not come in time")]
    TooSlow,
    /// The browser broke off.
    #[error("the body broke off")]
    BrokeOff,
}

impl CollectFault {
    /// The status to answer with.
    #[must_use]
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BrokeOff => StatusCode::BAD_REQUEST,
        }
    }
}

/// The whole body, of `limit` bytes at most.
///
/// # Errors
/// See [`CollectFault`].
// CANCEL: what was read is dropped; the browser has gone then.
pub(super) async fn collect(body: Incoming, limit: usize) -> Result<Bytes, CollectFault> {
    let collecting = Limited::new(body, limit).collect();
    match tokio::time::timeout(PATIENCE, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(CollectFault::TooLarge),
        Ok(Err(_)) => Err(CollectFault::BrokeOff),
        Err(_) => Err(CollectFault::TooSlow),
    }
}

/// Reads a little of a body that nobody wants. A client that waits for `100 Continue` is not made to send it.
pub(super) async fn settle(mut body: Incoming, expects_continue: bool) {
    if expects_continue {
        return;
    }
    let read = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > UNWANTED_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(UNWANTED_PATIENCE, read).await;
}
