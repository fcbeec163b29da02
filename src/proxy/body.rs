//! The bodies that pass through: streamed, with backpressure, in bounded memory.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::headers::{strip_answer_trailers, strip_trailers};
use super::permits::Permit;
use super::pool::Lease;
use super::site::{AppSite, Site};
use super::upstream::Broken;
use crate::store::{BusyGuard, LiveGuard};
use crate::telemetry::AccessGuard;

/// How long an answer that is already flowing may go on after its session's end (R2).
const FLOWS_ON: Duration = Duration::from_secs(5);

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The browser broke off.
    #[error("the browser broke off")]
    Peer(#[source] hyper::Error),
    /// The app broke off.
    #[error("the app broke off")]
    App(#[source] Broken),
    /// The session ended.
    #[error("the session ended")]
    Ended,
    /// The request body is larger than `limits.body_bytes`.
    #[error("the body is too large")]
    TooLarge,
    /// The body is not as long as its head said.
    #[error("the body is not as long as its head said")]
    Misframed,
}

/// The body of an answer.
pub enum Body {
    /// One of our own.
    Own(Option<Bytes>),
    /// The upstream's, as it flows.
    Upstream(Box<Flow>),
}

impl Body {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Own(None)
    }

    /// This body.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Own((!bytes.is_empty()).then_some(bytes))
    }
}

/// An upstream's answer on its way to the browser.
pub struct Flow {
    /// The connection that it comes on; goes back to its pool when the body has ended.
    pub lease: Lease,
    /// Registered with its session, and how to be told of its end.
    pub bound: Option<Bound>,
    /// An event stream ends at once and cleanly with its session; any other answer may flow on for a little.
    pub event_stream: bool,
    /// Writes the access line when dropped.
    pub access: AccessGuard,
    /// Says which trailers may not go to the browser.
    pub app: Arc<AppSite>,
    /// Runs since the session's end.
    pub last_seconds: Option<Pin<Box<Sleep>>>,
}

/// What binds an exchange to its session. Dropped together.
pub struct Bound {
    /// How an end is told.
    pub exchange: Exchange,
    /// Counts the exchange.
    pub busy: BusyGuard,
    /// Counts a live connection (event stream, WebSocket).
    pub live: Option<LiveGuard>,
}

impl Flow {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(bound) = &self.bound else { return Poll::Pending };
        if bound.exchange.poll_cut(cx).is_pending() {
            return Poll::Pending;
        }
        if self.event_stream {
            self.lease.discard();
            return Poll::Ready(None);
        }
        // Counted from the cut, not from when somebody reads on.
        let left = || FLOWS_ON.saturating_sub(bound.exchange.since_cut());
        let patience = self.last_seconds.get_or_insert_with(|| Box::pin(tokio::time::sleep(left())));
        if patience.as_mut().poll(cx).is_ready() {
            self.lease.discard();
            return Poll::Ready(Some(Err(BodyError::Ended)));
        }
        Poll::Pending
    }

    /// SECURITY: what a head may not bring to the browser, no trailer brings.
    fn for_browser(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_trailers() {
            Ok(mut trailers) => {
                strip_answer_trailers(&mut trailers, |name| self.app.identity_headers.contains(name));
                Frame::trailers(trailers)
            }
            Err(data) => data,
        }
    }

    fn poll_flow(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(end) = self.poll_end(cx) {
            return Poll::Ready(end);
        }
        match Pin::new(&mut self.lease).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.access.sent(data.len() as u64);
                }
                Poll::Ready(Some(Ok(self.for_browser(frame))))
            }
            Poll::Ready(Some(Err(broken))) => {
                self.access.broke_off();
                Poll::Ready(Some(Err(BodyError::App(broken))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(flow) => flow.poll_flow(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Upstream(flow) => flow.lease.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Upstream(flow) => flow.lease.size_hint(),
        }
    }
}

/// What the exchange can see of its upload while hyper reads it.
#[derive(Clone, Default)]
pub struct UploadState(Rc<UploadCells>);

#[derive(Default)]
struct UploadCells {
    bytes: Cell<u64>,
    /// The place among the upstream's connections that an upload still takes after its answer.
    held: Cell<Option<Permit>>,
}

impl UploadState {
    /// Bytes that went upstream so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// Keeps a connection's place taken until the upload is over.
    pub(super) fn hold(&self, permit: Option<Permit>) {
        self.0.held.set(permit);
    }
}

/// The body of a request on its way upstream.
pub enum Upload {
    /// None.
    Empty,
    /// One that was read before (a sign-in form).
    Full(Option<Bytes>),
    /// As it comes from the browser. Boxed: most requests have none, and an upload changes hands often.
    Streamed(Box<Streamed>),
}

/// A body that comes from the browser while it goes upstream.
pub struct Streamed {
    /// The body itself.
    pub incoming: Incoming,
    /// The largest body; `None` is off.
    pub limit: Option<u64>,
    /// What the exchange sees of it.
    pub state: UploadState,
    /// The end of its session breaks it off, also where the app has answered already (R2).
    pub bound: Option<Bound>,
    /// Told of every piece, in bytes.
    pub progress: Option<Box<dyn FnMut(u64)>>,
    /// Says which trailers may not go upstream.
    pub site: Arc<Site>,
}

impl Upload {
    /// Whether nobody knows beforehand how long it is.
    #[must_use]
    pub fn has_unknown_length(&self) -> bool {
        matches!(self, Self::Streamed(streamed) if streamed.incoming.size_hint().exact().is_none())
    }

    /// What can be seen of it while it is sent, where it is not there already.
    #[must_use]
    pub fn state(&self) -> Option<&UploadState> {
        match self {
            Self::Empty | Self::Full(_) => None,
            Self::Streamed(streamed) => Some(&streamed.state),
        }
    }
}

impl Streamed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(bound) = &self.bound
            && let Poll::Ready(reason) = bound.exchange.poll_cut(cx)
            && reason.is_told()
        {
            return Poll::Ready(Some(Err(BodyError::Ended)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let came = frame.data_ref().map_or(0, |data| data.len() as u64);
                let sent = self.state.bytes() + came;
                self.state.0.bytes.set(sent);
                if let Some(progress) = &mut self.progress {
                    progress(came);
                }
                if self.limit.is_some_and(|limit| sent > limit) {
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                Poll::Ready(Some(Ok(without_forbidden(frame, &self.site.identity_headers))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Peer(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(streamed) => streamed.poll_piece(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
        }
    }
}

/// SECURITY: what may not come in the head may not come behind the body either (CVE-2013-5704).
fn without_forbidden(frame: Frame<Bytes>, identity: &[HeaderName]) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_trailers(&mut trailers, identity);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Whether an answer is an event stream.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().trim_ascii_start().get(..EVENT_STREAM.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}
