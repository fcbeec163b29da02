//! A page's WebSocket.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::super::wait::soon;

/// What a WebSocket heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// The peer closed properly; 1005 when its Close frame had no code.
    Closed {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The connection broke off without a Close frame (a browser reports 1006).
    Broken,
}

/// An open WebSocket.
pub struct WebSocket {
    /// The headers of the handshake's answer.
    pub headers: HeaderMap,
    inner: WebSocketStream<TokioIo<Upgraded>>,
}

impl WebSocket {
    pub(super) async fn new(headers: HeaderMap, upgraded: Upgraded) -> Self {
        let inner = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Self { headers, inner }
    }

    /// Sends a text message; `false` when the connection is gone.
    pub async fn say(&mut self, text: &str) -> bool {
        soon("sending on a WebSocket", self.inner.send(Message::text(text))).await.is_ok()
    }

    /// Sends a binary message; `false` when the connection is gone.
    pub async fn say_binary(&mut self, data: impl Into<Bytes>) -> bool {
        soon("sending on a WebSocket", self.inner.send(Message::binary(data.into()))).await.is_ok()
    }

    /// Pings the peer and waits for its pong; `false` when the connection is gone. What else is heard meanwhile is lost.
    pub async fn ping(&mut self) -> bool {
        if soon("pinging", self.inner.send(Message::Ping(Bytes::from_static(b"there?")))).await.is_err() {
            return false;
        }
        loop {
            match soon("a pong", self.inner.next()).await {
                Some(Ok(Message::Pong(_))) => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    /// What is heard next; pings are answered on the way.
    pub async fn hear(&mut self) -> Heard {
        loop {
            match soon("hearing from a WebSocket", self.inner.next()).await {
                Some(Ok(Message::Text(text))) => return Heard::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(data))) => return Heard::Binary(data),
                Some(Ok(Message::Close(frame))) => return closed(frame),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return Heard::Broken,
            }
        }
    }

    /// What is heard when the socket ends; messages before it are dropped.
    pub async fn hear_end(&mut self) -> Heard {
        loop {
            let heard = self.hear().await;
            if matches!(heard, Heard::Closed { .. } | Heard::Broken) {
                return heard;
            }
        }
    }

    /// Says goodbye and waits for the peer's.
    pub async fn close(&mut self, code: u16, reason: &str) -> Heard {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        match soon("closing a WebSocket", self.inner.close(Some(frame))).await {
            Ok(()) => self.hear_end().await,
            Err(_) => Heard::Broken,
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> Heard {
    match frame {
        Some(frame) => Heard::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() },
        None => Heard::Closed { code: 1005, reason: String::new() },
    }
}
