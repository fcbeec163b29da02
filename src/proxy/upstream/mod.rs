//! HTTP/1.1 towards an app, on one connection (RFC 9112).
//!
//! Of our own, because a proxy's other half is driven by the task that serves the browser: no task, channel or copy of a
//! head stands between the verdict and the bytes that go out (R2), and none between the app's answer and the browser.
//! Parsing is httparse's; `head` and `framing` are pure, `outgoing` and `wire` do the reading and writing.

mod framing;
mod head;
mod io;
mod outgoing;
mod wire;

use bytes::BytesMut;
use http::Method;

use self::framing::Piece;
pub(super) use self::head::{Sending, Writer, write_line};
pub(super) use self::io::UpstreamIo;
pub(super) use self::outgoing::Outgoing;
pub(super) use self::wire::{Broken, ExchangeFault, Wire};

/// The body of the answer that `bytes` are, as far as it has come; `None` where they are no answer. They come in pieces of `step`
/// bytes, which must make no difference. For tests of what is told apart by reading alone.
#[must_use]
pub fn read_in_pieces(bytes: &[u8], step: usize, asked: &Method) -> Option<Vec<u8>> {
    let (mut buffer, mut body, mut framing) = (BytesMut::new(), Vec::new(), None);
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        if framing.is_none() {
            framing = head::read(&mut buffer, asked).ok()?.map(|head| head.framing);
        }
        let Some(framing) = &mut framing else { continue };
        while let Piece::Data(data) = framing.take(&mut buffer).ok()? {
            body.extend_from_slice(&data);
        }
    }
    framing.map(|_| body)
}
