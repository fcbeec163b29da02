//! The answers that last: downloads, event streams, WebSockets.

use std::future::pending;
use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::answer::{Answer, chunk};
use super::routes::Reply;
use super::switches::Switches;
use super::wire::{Head, Wire};
use super::{Counted, Shared, WebSocketEnd};

const PIECE: u64 = 16 * 1024;

/// Sends a download; the pieces are a pattern that a test can compute: byte `n` is `n % 251`.
pub async fn download(
    app: &Shared,
    s: &Switches,
    wire: &mut Wire,
    head: Answer,
    reply: &Reply,
) -> io::Result<()> {
    let Reply::Download { bytes, hold, trailers } = reply else { return Ok(()) };
    let _counted = Counted::one(&app.streams);
    let encoding = trailers.then_some("chunked");
    let mut start = head.with("Content-Type", "application/octet-stream").head(s, encoding, s.http10);
    match (trailers, s.http10) {
        (true, _) => start.extend_from_slice(b"Trailer: X-Checksum, Set-Cookie, X-Session-User\r\n\r\n"),
        (false, true) => start.extend_from_slice(b"\r\n"),
        (false, false) => start.extend_from_slice(format!("Content-Length: {bytes}\r\n\r\n").as_bytes()),
    }
    wire.write(&start).await?;
    let mut sent = 0;
    while sent < *bytes {
        if hold.is_some_and(|hold| sent >= hold && sent < hold + PIECE) {
            app.wait_at_gate().await;
        }
        let piece = pattern(sent, PIECE.min(bytes - sent));
        sent += piece.len() as u64;
        wire.write(&if *trailers { chunk(&piece) } else { piece }).await?;
    }
    if *trailers {
        // What no trailer may say stands beside what one may.
        wire.write(b"0\r\nX-Checksum: 251\r\nSet-Cookie: SID=trailing\r\nX-Session-User: eve\r\n\r\n")
            .await?;
    }
    Ok(())
}

/// The bytes of a download from `start` on.
pub fn pattern(start: u64, length: u64) -> Vec<u8> {
    (start..start + length).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect()
}

/// Speaks server-sent events until the peer goes away.
pub async fn events(app: &Shared, s: &Switches, wire: &mut Wire, head: Answer, user: &str) -> io::Result<()> {
    let _counted = Counted::one(&app.streams);
    let mut pushed = app.push.subscribe();
    let head = head.with("Content-Type", "text/event-stream").with("Cache-Control", "no-cache");
    let encoding = (!s.http10).then_some("chunked");
    let framed = |text: String| if s.http10 { text.into_bytes() } else { chunk(text.as_bytes()) };
    let mut start = head.head(s, encoding, s.http10);
    start.extend_from_slice(b"\r\n");
    start.extend_from_slice(&framed(format!("id: 0\nevent: hello\ndata: {user}\n\n")));
    wire.write(&start).await?;
    for number in 1.. {
        let Some(text) = (tokio::select! {
            () = wire.closed() => None,
            text = next_word(&mut pushed, s.tick) => Some(text),
        }) else {
            break;
        };
        wire.write(&framed(format!("id: {number}\ndata: {text}\n\n"))).await?;
    }
    Ok(())
}

/// What is to be said next unasked: something pushed by the test, or `tick` at the switched pace.
async fn next_word(pushed: &mut broadcast::Receiver<String>, tick: Option<Duration>) -> String {
    tokio::select! {
        text = pushed.recv() => match text {
            Ok(text) => text,
            Err(_) => "missed".to_owned(),
        },
        () = pace(tick) => "tick".to_owned(),
    }
}

async fn pace(tick: Option<Duration>) {
    match tick {
        Some(tick) => tokio::time::sleep(tick).await,
        None => pending().await,
    }
}

/// Shakes hands and echoes until either side closes.
pub async fn web_socket(
    app: &Shared,
    s: &Switches,
    mut wire: Wire,
    head: &Head,
    answer: Answer,
) -> io::Result<()> {
    let _counted = Counted::one(&app.streams);
    let key = head.header("sec-websocket-key").unwrap_or_default();
    let mut answer = answer
        .with("Upgrade", "websocket")
        .with("Connection", "Upgrade")
        .with("Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    if let Some(protocol) = head.header("sec-websocket-protocol").and_then(|list| list.split(',').next()) {
        answer = answer.with("Sec-WebSocket-Protocol", protocol.trim());
    }
    let mut pushed = app.push.subscribe();
    let mut start = answer.head(&Switches { http10: false, ..s.clone() }, None, false);
    start.extend_from_slice(b"\r\n");
    wire.write(&start).await?;
    let (stream, unread) = wire.into_parts();
    let socket = WebSocketStream::from_partially_read(stream, unread, Role::Server, None).await;
    let end = converse(socket, &mut pushed, s.tick).await;
    app.socket_ends.lock().push(end);
    Ok(())
}

async fn converse(
    mut socket: WebSocketStream<TcpStream>,
    pushed: &mut broadcast::Receiver<String>,
    tick: Option<Duration>,
) -> WebSocketEnd {
    loop {
        let reply = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Close(frame))) => {
                    // Reading on lets the library answer the peer's Close with ours.
                    while let Some(Ok(_)) = socket.next().await {}
                    return WebSocketEnd::of(frame);
                }
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(_)) | None => return WebSocketEnd::default(),
            },
            text = next_word(pushed, tick) => Message::text(text),
        };
        let closing = matches!(&reply, Message::Text(text) if text.as_str() == "please close");
        let sent = if closing { socket.close(None).await } else { socket.send(reply).await };
        if sent.is_err() {
            return WebSocketEnd::default();
        }
    }
}
