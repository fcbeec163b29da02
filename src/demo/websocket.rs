//! As much of a WebSocket server (RFC 6455) as a clock needs: text out once a second, pings answered, closing
//! handshake kept. What the browser sends besides is read and forgotten.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::pages::time_of_day;
use crate::clock::Clock;

const PERIOD: Duration = Duration::from_secs(1);

/// A browser of ours sends nothing but control frames; no frame needs to be longer.
const MAX_FRAME_BYTES: usize = 4096;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The value of `Sec-WebSocket-Accept`; `None` when this is no handshake of version 13.
pub(super) fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let is = |name, wanted: &str| {
        headers
            .get(name)
            .is_some_and(|value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    if !is(UPGRADE, "websocket") || !is(SEC_WEBSOCKET_VERSION, "13") {
        return None;
    }
    let mut text = headers.get(SEC_WEBSOCKET_KEY)?.as_bytes().to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::from_str(&STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))).ok()
}

/// Tells the time of day until the other side closes or goes away.
pub(super) async fn clock(mut io: impl AsyncRead + AsyncWrite + Unpin, clock: &Clock) {
    let mut ticks = tokio::time::interval(PERIOD);
    let mut received = BytesMut::new();
    loop {
        let sent = tokio::select! {
            _ = ticks.tick() => {
                let text = time_of_day(clock.now());
                io.write_all(&frame(TEXT, text.as_bytes())).await.is_ok()
            }
            // CANCEL: what was read stays in the buffer.
            read = io.read_buf(&mut received) => {
                matches!(read, Ok(1..)) && reply(&mut io, &mut received).await
            }
        };
        if !sent {
            return;
        }
    }
}

/// Answers what has been received; false when the conversation is over.
async fn reply(io: &mut (impl AsyncWrite + Unpin), received: &mut BytesMut) -> bool {
    loop {
        let (answer, goes_on) = match next_frame(received) {
            Incoming::Part => return true,
            Incoming::Frame(PING, payload) => (frame(PONG, &payload), true),
            Incoming::Frame(CLOSE, payload) => (frame(CLOSE, payload.get(..2).unwrap_or_default()), false),
            Incoming::Frame(_, _) => continue,
            Incoming::Broken(code) => (frame(CLOSE, &code.to_be_bytes()), false),
        };
        if io.write_all(&answer).await.is_err() || !goes_on {
            return false;
        }
    }
}

/// What stands at the head of the received bytes.
#[derive(Debug, PartialEq, Eq)]
enum Incoming {
    /// Not yet a whole frame.
    Part,
    /// Opcode and payload.
    Frame(u8, Vec<u8>),
    /// Against the protocol, or too long: the code to close with.
    Broken(u16),
}

/// Takes one masked frame off `received`.
fn next_frame(received: &mut BytesMut) -> Incoming {
    let &[first, second, ..] = &received[..] else { return Incoming::Part };
    let opcode = first & 0x0F;
    let (length, mask_at) = match second & 0x7F {
        126 => match received.get(2..4) {
            Some(&[high, low]) => (usize::from(u16::from_be_bytes([high, low])), 4),
            _ => return Incoming::Part,
        },
        127 => return Incoming::Broken(1009),
        short => (usize::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    if !masked || first & 0x70 != 0 || (opcode >= CLOSE && length > 125) {
        return Incoming::Broken(1002);
    }
    if length > MAX_FRAME_BYTES {
        return Incoming::Broken(1009);
    }
    let (start, end) = (mask_at + 4, mask_at + 4 + length);
    if received.len() < end {
        return Incoming::Part;
    }
    let mask = &received[mask_at..start];
    let payload =
        received[start..end].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    received.advance(end);
    Incoming::Frame(opcode, payload)
}

/// A whole frame as a server sends it; the payload is at most 125 bytes and cut there.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(125)];
    let mut frame = vec![0x80 | opcode, u8::try_from(payload.len()).unwrap_or(125)];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap()];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    #[test]
    fn the_accept_value_is_that_of_the_specification() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&headers), None, "the version is missing");
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_taken_off_whole_and_in_order() {
        let bytes = [masked(PING, b"ab"), masked(CLOSE, &[3, 232])].concat();
        for cut in 0..bytes.len() {
            let mut received = BytesMut::from(&bytes[..cut]);
            let mut frames = Vec::new();
            while let Incoming::Frame(opcode, payload) = next_frame(&mut received) {
                frames.push((opcode, payload));
            }
            received.extend_from_slice(&bytes[cut..]);
            while let Incoming::Frame(opcode, payload) = next_frame(&mut received) {
                frames.push((opcode, payload));
            }
            assert_eq!(frames, [(PING, b"ab".to_vec()), (CLOSE, vec![3, 232])], "cut at {cut}");
        }
    }

    #[test]
    fn what_breaks_the_protocol_closes() {
        for (bytes, code) in [
            (&[0x81, 0x02, b'a', b'b'][..], 1002),
            (&[0xC1, 0x80, 0, 0, 0, 0][..], 1002),
            (&[0x89, 0xFE, 0x00, 0x7E][..], 1002),
            (&[0x81, 0xFE, 0xFF, 0xFF][..], 1009),
            (&[0x81, 0xFF, 0, 0][..], 1009),
        ] {
            assert_eq!(next_frame(&mut BytesMut::from(bytes)), Incoming::Broken(code), "{bytes:?}");
        }
    }
}
