//! A request on its way to the app: its head, then its body as it comes from the browser, with backpressure.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::TRAILER;
use http::{HeaderMap, HeaderName, Method, Request};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::head::{Malformed, Sending, write};
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
    /// Nothing is to be staged any more.
    is_whole: bool,
    /// The trailers that the head announces; others are not sent.
    announced: Vec<HeaderName>,
}

impl Outgoing {
    /// Takes the body out of `request`, of which the head stays.
    ///
    /// # Errors
    /// [`Malformed::Length`], see [`Sending::of`].
    pub(in crate::proxy) fn new(request: &mut Request<Upload>) -> Result<Self, Malformed> {
        let sending = Sending::of(request.headers())?;
        if sending == Sending::Nothing && !request.body().is_end_stream() {
            return Err(Malformed::Length);
        }
        let staged = write(request, sending);
        let upload = std::mem::replace(request.body_mut(), Upload::Empty);
        Ok(Self {
            method: request.method().clone(),
            sending,
            upload,
            staged,
            written: 0,
            data: Bytes::new(),
            tail: b"",
            is_whole: matches!(sending, Sending::Nothing | Sending::Length(0)),
            announced: announced(request.headers()),
        })
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

fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let fields = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|text| text.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
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

    async fn sent(request: &mut Request<Upload>) -> Result<String, SendFault> {
        let (mut near, mut far) = tokio::io::duplex(5);
        let mut outgoing = Outgoing::new(request).unwrap();
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

    fn post(field: (&str, &str), body: &'static str) -> Request<Upload> {
        let body = Upload::Full((!body.is_empty()).then(|| Bytes::from_static(body.as_bytes())));
        Request::post("/").header(field.0, field.1).body(body).unwrap()
    }

    #[tokio::test]
    async fn a_body_goes_out_behind_its_head_in_one_framing() {
        let mut request = post(("content-length", "4"), "abcd");
        assert_eq!(sent(&mut request).await.unwrap(), "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd");
        let mut request = post(("transfer-encoding", "chunked"), "abcd");
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
        assert_eq!(sent(&mut request).await.unwrap(), text);
        let mut request = post(("transfer-encoding", "chunked"), "");
        assert!(sent(&mut request).await.unwrap().ends_with("\r\n\r\n0\r\n\r\n"));
        let mut request = post(("x", "y"), "");
        assert_eq!(sent(&mut request).await.unwrap(), "POST / HTTP/1.1\r\nX: y\r\n\r\n");
    }

    #[tokio::test]
    async fn a_body_of_another_length_than_its_head_says_is_broken_off() {
        for length in ["3", "5"] {
            let fault = sent(&mut post(("content-length", length), "abcd")).await.unwrap_err();
            assert!(matches!(fault, SendFault::Body(BodyError::Misframed)), "{length}");
        }
    }
}
