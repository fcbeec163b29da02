//! One connection to an upstream: a request goes out on it and its answer is read off it, one exchange after the other.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http::response::Parts;
use http_body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::framing::{Framing, Piece};
use super::head::{Head, MAX_BYTES, Malformed, read};
use super::io::UpstreamIo;
use super::outgoing::{Outgoing, SendFault};
use crate::proxy::body::BodyError;

/// What is read at once: room for most answers, and more where they turn out to be large.
const ROOM: usize = 8 * 1024;
const MAX_ROOM: usize = 64 * 1024;

/// Most interim answers (1xx) before the final one.
const MAX_INTERIM: usize = 16;

/// An exchange came to no good end on the app's side.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection was closed, or failed, before anything was answered.
    #[error("closed before anything was answered")]
    Unheard(#[source] Option<std::io::Error>),
    /// The connection was closed in the middle of the answer.
    #[error("closed in the middle of the answer")]
    Incomplete,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// What was answered is no HTTP/1.1.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// An exchange came to no answer.
#[derive(Debug)]
pub(in crate::proxy) enum ExchangeFault {
    /// The app's fault.
    Broken(Broken),
    /// The browser's fault.
    Body(BodyError),
}

impl From<Broken> for ExchangeFault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// See the module.
pub(in crate::proxy) struct Wire {
    io: Side,
    buffer: BytesMut,
    room: usize,
    /// What is still to come of the answer in progress.
    framing: Framing,
    /// The connection may carry another request after this answer.
    keeps: bool,
    /// An upload that goes on while the answer flows. Ends with the connection, see [`Wire::leave_upload`].
    upload: Option<Uploading>,
}

/// How far an exchange has come.
#[derive(Default)]
struct Progress {
    /// Nothing is left to be sent, or nobody to send it to.
    is_sent: bool,
    /// Why not all of it could be sent.
    lost: Option<std::io::Error>,
    /// Interim answers so far.
    interim: usize,
    /// How much of the buffer is known to be no whole head.
    looked_at: usize,
}

enum Side {
    Whole(UpstreamIo),
    /// The other half is an upload's.
    Reading(ReadHalf<UpstreamIo>),
    /// Nothing more is heard.
    Closed,
}

/// An upload on its own; broken off when this is dropped, unless it was left to itself.
struct Uploading(Option<(AbortHandle, Left)>);

/// Tells an upload that nobody waits for it any more, and how long it may stand still.
type Left = oneshot::Sender<Duration>;

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some((task, _)) = self.0.take() {
            task.abort();
        }
    }
}

impl Wire {
    pub(in crate::proxy) fn new(io: UpstreamIo) -> Self {
        Self {
            io: Side::Whole(io),
            buffer: BytesMut::new(),
            room: ROOM,
            framing: Framing::Nothing,
            keeps: true,
            upload: None,
        }
    }

    /// Whether the connection is idle and nothing was heard on it: neither its end nor an answer that nobody asked for. Asks the
    /// kernel only if it has told of something.
    pub(in crate::proxy) fn is_fresh(&mut self) -> bool {
        match &mut self.io {
            Side::Whole(io) => self.buffer.is_empty() && io.is_silent(),
            Side::Reading(_) | Side::Closed => false,
        }
    }

    /// Whether the connection may carry another request: the answer was read to its end, and the app keeps it open.
    pub(in crate::proxy) fn is_reusable(&self) -> bool {
        self.keeps && self.is_end() && self.buffer.is_empty() && matches!(self.io, Side::Whole(_))
    }

    /// Gives back the memory that a large answer took.
    pub(in crate::proxy) fn shrink(&mut self) {
        if self.room > ROOM {
            (self.room, self.buffer) = (ROOM, BytesMut::new());
        }
    }

    /// Sends a request and waits for the head of its answer. The body follows from [`Wire::poll_frame`].
    // CANCEL: the connection is of no use any more and has to be dropped.
    pub(in crate::proxy) fn exchange<'a>(
        &'a mut self,
        outgoing: &'a mut Outgoing,
    ) -> impl Future<Output = Result<Parts, ExchangeFault>> + Unpin + 'a {
        let mut progress = Progress::default();
        // Not `async`: each future around another one moves what it yields once more.
        poll_fn(move |cx| self.poll_exchange(outgoing, &mut progress, cx))
    }

    fn poll_exchange(
        &mut self,
        outgoing: &mut Outgoing,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Parts, ExchangeFault>> {
        if let (false, Side::Whole(io)) = (progress.is_sent, &mut self.io) {
            match outgoing.poll_send(io, cx) {
                Poll::Ready(Ok(())) => progress.is_sent = true,
                // The app may have answered before it closed: that is read.
                Poll::Ready(Err(SendFault::Io(error))) => {
                    (progress.is_sent, progress.lost) = (true, Some(error));
                }
                Poll::Ready(Err(SendFault::Body(fault))) => {
                    return Poll::Ready(Err(ExchangeFault::Body(fault)));
                }
                Poll::Pending => {}
            }
        }
        let head = match ready!(self.poll_head(outgoing, progress, cx)) {
            Ok(head) => head,
            Err(Broken::Unheard(None)) => {
                return Poll::Ready(Err(Broken::Unheard(progress.lost.take()).into()));
            }
            Err(broken) => return Poll::Ready(Err(broken.into())),
        };
        self.framing = head.framing;
        // What was not sent whole leaves the app in the middle of a request.
        self.keeps = head.keeps && progress.is_sent && progress.lost.is_none();
        if !progress.is_sent {
            self.send_on(outgoing.take());
        }
        Poll::Ready(Ok(parts(head)))
    }

    fn poll_head(
        &mut self,
        outgoing: &Outgoing,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Broken>> {
        loop {
            // A head ends with a line: one that comes byte by byte is not read anew with each.
            let has_line =
                self.buffer[progress.looked_at..].contains(&b'\n') || self.buffer.len() > MAX_BYTES;
            let found = if has_line { read(&mut self.buffer, outgoing.method())? } else { None };
            progress.looked_at = if found.is_none() { self.buffer.len() } else { 0 };
            match found {
                Some(head) if is_interim(head.status) => {
                    progress.interim += 1;
                    if progress.interim > MAX_INTERIM {
                        return Poll::Ready(Err(Malformed::Head.into()));
                    }
                }
                Some(head) => return Poll::Ready(Ok(head)),
                None => {
                    let heard = !self.buffer.is_empty() || progress.interim > 0;
                    match ready!(self.poll_fill(cx)) {
                        Ok(0) if heard => return Poll::Ready(Err(Broken::Incomplete)),
                        Ok(0) => return Poll::Ready(Err(Broken::Unheard(None))),
                        Ok(_) => {}
                        Err(error) if heard => return Poll::Ready(Err(Broken::Io(error))),
                        Err(error) => return Poll::Ready(Err(Broken::Unheard(Some(error)))),
                    }
                }
            }
        }
    }

    /// The app answered before the upload had come. It goes on by itself: a browser that is busy sending may not read, and
    /// would wait for the app while the app waited for the browser.
    fn send_on(&mut self, outgoing: Outgoing) {
        let Side::Whole(io) = std::mem::replace(&mut self.io, Side::Closed) else { return };
        let (reading, writing) = split(io);
        self.io = Side::Reading(reading);
        let (leave, left) = oneshot::channel();
        let task = tokio::task::spawn_local(send_rest(outgoing, writing, left));
        self.upload = Some(Uploading(Some((task.abort_handle(), leave))));
    }

    /// The answer is over. An upload that goes on is no longer broken off with this connection, but once it stands still for
    /// `patience`; returns whether there is one.
    pub(in crate::proxy) fn leave_upload(&mut self, patience: Duration) -> bool {
        let uploading = self.upload.as_mut().and_then(|Uploading(task)| task.take());
        uploading.is_some_and(|(task, left)| left.send(patience).is_ok() && !task.is_finished())
    }

    /// More of the answer's body.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.framing.take(&mut self.buffer) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.framing == Framing::UntilClose => {
                    self.framing = Framing::Nothing;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(Broken::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Broken::Io(error)))),
            }
        }
    }

    /// The answer has been read to its end.
    pub(in crate::proxy) fn is_end(&self) -> bool {
        self.framing == Framing::Nothing
    }

    /// How much of the answer's body is to come.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Nothing => SizeHint::with_exact(0),
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunks(_) | Framing::UntilClose => SizeHint::default(),
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.buffer.reserve(self.room);
        let filled = match &mut self.io {
            Side::Whole(io) => ready!(pin!(io.read_buf(&mut self.buffer)).poll(cx)),
            Side::Reading(io) => ready!(pin!(io.read_buf(&mut self.buffer)).poll(cx)),
            Side::Closed => Ok(0),
        };
        if self.buffer.len() >= self.room {
            self.room = MAX_ROOM.min(self.room * 2);
        }
        Poll::Ready(filled)
    }
}

/// Sends what is left of a request. Once the answer is over, `left` tells how long it may stand still.
async fn send_rest(
    mut outgoing: Outgoing,
    mut writing: WriteHalf<UpstreamIo>,
    left: oneshot::Receiver<Duration>,
) {
    let patience = async {
        match left.await {
            Ok(patience) => patience,
            // Broken off with the connection.
            Err(_) => std::future::pending().await,
        }
    };
    let sent = tokio::select! {
        sent = poll_fn(|cx| outgoing.poll_send(&mut writing, cx)) => Some(sent),
        patience = patience => send_within(&mut outgoing, &mut writing, patience).await,
    };
    // With it goes the connection's place.
    drop(outgoing);
    match sent {
        Some(Ok(())) => {}
        Some(Err(why)) => {
            tracing::debug!(?why, "an upload ended early");
            // The other half may still read: the app would wait for the rest.
            let _ = writing.shutdown().await;
        }
        None => tracing::debug!("an upload that stood still was given up"),
    }
}

/// `None` once nothing went out for as long as `patience`.
async fn send_within(
    outgoing: &mut Outgoing,
    writing: &mut WriteHalf<UpstreamIo>,
    patience: Duration,
) -> Option<Result<(), SendFault>> {
    loop {
        let before = outgoing.sent();
        let sending = poll_fn(|cx| outgoing.poll_send(writing, cx));
        match tokio::time::timeout(patience, sending).await {
            Ok(sent) => return Some(sent),
            Err(_) if outgoing.sent() == before => return None,
            Err(_) => {}
        }
    }
}

/// Everything before the final answer; a change of protocols is one.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn parts(head: Head) -> Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.headers) = (head.status, head.headers);
    if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
        parts.extensions.insert(reason);
    }
    parts
}

/// After a change of protocols the connection carries bytes.
impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if !this.buffer.is_empty() {
            let count = this.buffer.len().min(room.remaining());
            room.put_slice(&this.buffer[..count]);
            this.buffer.advance(count);
            return Poll::Ready(Ok(()));
        }
        match &mut this.io {
            Side::Whole(io) => Pin::new(io).poll_read(cx, room),
            Side::Reading(io) => Pin::new(io).poll_read(cx, room),
            Side::Closed => Poll::Ready(Ok(())),
        }
    }
}

/// As above. A half that is an upload's cannot be written.
impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.io {
            Side::Whole(io) => Pin::new(io).poll_write(cx, bytes),
            Side::Reading(_) | Side::Closed => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.io {
            Side::Whole(io) => Pin::new(io).poll_flush(cx),
            Side::Reading(_) | Side::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.io {
            Side::Whole(io) => Pin::new(io).poll_shutdown(cx),
            Side::Reading(_) | Side::Closed => Poll::Ready(Ok(())),
        }
    }
}
