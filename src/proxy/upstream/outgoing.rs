//! A request on its way to the app: its head, then its body as it comes from the browser, with backpressure.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, Method, Request};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::io::AsyncWrite;

use super::head::{Sending, Writer};
use crate::proxy::body::{BodyError, Upload};

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum SendFault {
    /// The app does not take it any more. It may have answered all the same.
    Io(std::io::Error),
    /// The browser's part: it broke off, or sends too much.
    Body(BodyError),
}

/// A request that is being sent.
pub(in crate::proxy) struct Outgoing {
    method: Method,
    sending: Sending,
    upload: Upload,
    /// What is to be written next: the head or a chunk's size, then data, then what follows it.
    staged: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    /// Bytes that went out.
    sent: u64,
    /// Nothing is to be staged any more.
    is_whole: bool,
    /// The trailers that the head announces; others are not sent.
    announced: Vec<HeaderName>,
}

impl Outgoing {
    /// A request with this `head`, which says of the body what `sending` says, and announces trailers.
    pub(in crate::proxy) fn new(
        method: Method,
        head: Vec<u8>,
        (sending, upload): (Sending, Upload),
        announced: Vec<HeaderName>,
    ) -> Self {
        Self {
            method,
            sending,
            upload,
            staged: head,
            written: 0,
            data: Bytes::new(),
            tail: b"",
            sent: 0,
            is_whole: matches!(sending, Sending::Nothing | Sending::Length(0)),
            announced,
        }
    }

    /// A request without a body, as it stands.
    pub(in crate::proxy) fn bare(request: &Request<()>) -> Self {
        let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut head = Writer::new(request.method(), target);
        request.headers().iter().for_each(|(name, value)| head.line(name, value.as_bytes()));
        let nothing = (Sending::Nothing, Upload::Empty);
        Self::new(request.method().clone(), head.end(nothing.0), nothing, Vec::new())
    }

    /// Puts another head in the place of the one that was not sent.
    pub(in crate::proxy) fn replace_head(&mut self, head: Vec<u8>) {
        debug_assert_eq!(self.written, 0, "the app has seen the head");
        (self.staged, self.written) = (head, 0);
    }

    /// Whether it may be sent a second time: it changes nothing, and has no body.
    pub(in crate::proxy) fn is_repeatable(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
            && matches!(self.upload, Upload::Empty)
    }

    /// Makes it ready to be sent again, see [`Self::is_repeatable`].
    pub(in crate::proxy) fn rewind(&mut self) {
        self.written = 0;
    }

    /// Its body, as far as that has not been sent.
    pub(in crate::proxy) fn upload(&self) -> &Upload {
        &self.upload
    }

    /// What the browser may still be sending, where nobody will have it.
    pub(in crate::proxy) fn into_unread(self) -> Option<Incoming> {
        match self.upload {
            Upload::Streamed(streamed) if !streamed.incoming.is_end_stream() => Some(streamed.incoming),
            Upload::Streamed(_) | Upload::Empty | Upload::Full(_) => None,
        }
    }

    /// Takes it away, for who sends the rest.
    pub(super) fn take(&mut self) -> Self {
        let nothing = (Sending::Nothing, Upload::Empty);
        std::mem::replace(self, Self::new(Method::GET, Vec::new(), nothing, Vec::new()))
    }

    /// How many bytes went out, by which it is seen whether it stands still.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Writes what there is. Ready once the whole request went out, or cannot.
    // CANCEL: what was written is accounted for; polling goes on from there.
    pub(super) fn poll_send(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            ready!(self.poll_write(io, cx)).map_err(SendFault::Io)?;
            if self.is_whole {
                return Pin::new(io).poll_flush(cx).map_err(SendFault::Io);
            }
            match Pin::new(&mut self.upload).poll_frame(cx) {
                Poll::Ready(Some(frame)) => self.stage(frame.map_err(SendFault::Body)?)?,
                Poll::Ready(None) => self.stage_end()?,
                Poll::Pending => {
                    // What was written may wait in the TLS layer, and the app for it.
                    ready!(Pin::new(io).poll_flush(cx)).map_err(SendFault::Io)?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let staged = &self.staged[self.written..];
            let left = staged.len() + self.data.len() + self.tail.len();
            if left == 0 {
                return Poll::Ready(Ok(()));
            }
            let count = if left == staged.len() {
                ready!(Pin::new(&mut *io).poll_write(cx, staged))?
            } else {
                let slices = [IoSlice::new(staged), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
    }

    fn advance(&mut self, count: usize) {
        self.sent += count as u64;
        let of_staged = count.min(self.staged.len() - self.written);
        self.written += of_staged;
        let of_data = (count - of_staged).min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[count - of_staged - of_data..];
    }

    fn stage(&mut self, frame: Frame<Bytes>) -> Result<(), SendFault> {
        self.staged.clear();
        self.written = 0;
        match frame.into_data() {
            // An empty chunk would be the last one.
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                let count = data.len() as u64;
                match &mut self.sending {
                    Sending::Chunked => {
                        self.staged.extend_from_slice(format!("{count:x}\r\n").as_bytes());
                        self.tail = b"\r\n";
                    }
                    Sending::Length(left) => {
                        *left = left.checked_sub(count).ok_or_else(misframed)?;
                        self.is_whole = *left == 0;
                    }
                    Sending::Nothing => return Err(misframed()),
                }
                self.data = data;
            }
            Err(frame) => {
                if let (Ok(trailers), Sending::Chunked) = (frame.into_trailers(), self.sending) {
                    self.stage_last_chunk(&trailers);
                }
            }
        }
        Ok(())
    }

    fn stage_end(&mut self) -> Result<(), SendFault> {
        self.staged.clear();
        self.written = 0;
        match self.sending {
            Sending::Chunked => self.stage_last_chunk(&HeaderMap::new()),
            Sending::Length(0) | Sending::Nothing => self.is_whole = true,
            Sending::Length(_) => return Err(misframed()),
        }
        Ok(())
    }

    fn stage_last_chunk(&mut self, trailers: &HeaderMap) {
        self.staged.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| self.announced.contains(name)) {
            self.staged.extend_from_slice(name.as_str().as_bytes());
            self.staged.extend_from_slice(b": ");
            self.staged.extend_from_slice(value.as_bytes());
            self.staged.extend_from_slice(b"\r\n");
        }
        self.staged.extend_from_slice(b"\r\n");
        self.is_whole = true;
    }
}

/// The body is not as long as its head says. SECURITY: the app would take what follows for the next request, or wait.
fn misframed() -> SendFault {
    SendFault::Body(BodyError::Misframed)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    async fn sent(sending: Sending, body: &'static str) -> Result<String, SendFault> {
        let (mut near, mut far) = tokio::io::duplex(5);
        let upload = Upload::Full((!body.is_empty()).then(|| Bytes::from_static(body.as_bytes())));
        let head = Writer::new(&Method::POST, "/").end(sending);
        let mut outgoing = Outgoing::new(Method::POST, head, (sending, upload), Vec::new());
        let mut text = String::new();
        let sending = async {
            let sent = poll_fn(|cx| outgoing.poll_send(&mut near, cx)).await;
            drop(near);
            sent
        };
        let (sent, read) = tokio::join!(sending, far.read_to_string(&mut text));
        read.unwrap();
        sent.map(|()| text)
    }

    #[tokio::test]
    async fn a_body_goes_out_behind_its_head_in_one_framing() {
        let text = sent(Sending::Length(4), "abcd").await.unwrap();
        assert_eq!(text, "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd");
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
        assert_eq!(sent(Sending::Chunked, "abcd").await.unwrap(), text);
        assert!(sent(Sending::Chunked, "").await.unwrap().ends_with("\r\n\r\n0\r\n\r\n"));
        assert_eq!(sent(Sending::Nothing, "").await.unwrap(), "POST / HTTP/1.1\r\n\r\n");
    }

    #[tokio::test]
    async fn a_body_of_another_length_than_its_head_says_is_broken_off() {
        for length in [3, 5] {
            let fault = sent(Sending::Length(length), "abcd").await.unwrap_err();
            assert!(matches!(fault, SendFault::Body(BodyError::Misframed)), "{length}");
        }
    }

    #[test]
    fn a_request_of_our_own_goes_out_as_it_stands() {
        let request = Request::get("/who?x").header("x-one-two", "1").body(()).unwrap();
        let mut outgoing = Outgoing::bare(&request);
        assert_eq!(outgoing.staged, b"GET /who?x HTTP/1.1\r\nX-One-Two: 1\r\n\r\n");
        assert!(outgoing.is_repeatable() && outgoing.is_whole);
        outgoing.replace_head(b"other".to_vec());
        assert_eq!(outgoing.staged, b"other");
    }
}
