//! WebSocket tunnels: bytes both ways with backpressure and half-close, ended with their session at a frame boundary.

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use super::frames::{FrameTracker, close_frame, masked_close_frame};
use super::upstream::Wire;
use crate::session::EndReason;

/// Close code of a session's end (CONTRACT).
pub(super) const CLOSE_SESSION_ENDED: u16 = 4401;

/// Close code of a gateway that leaves ("service restart").
pub(super) const CLOSE_RESTART: u16 = 1012;

/// Close code towards the app: the other side went away.
const CLOSE_GOING_AWAY: u16 = 1001;

/// How much of a direction is kept in memory.
const BUFFER: usize = 16 * 1024;

/// How long the browser may go on sending after it was told to close.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a frame in progress may take to pass before the connection is closed without a Close frame.
const BOUNDARY_PATIENCE: Duration = Duration::from_secs(1);

/// After one side has closed its half, the other has this long (FIELD F14: no sockets left in CLOSE_WAIT).
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// Why a tunnel is closed by the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// Its session ended.
    SessionEnded(EndReason),
    /// The gateway leaves.
    Restart,
}

/// Bytes that passed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// From the browser to the app.
    pub up: u64,
    /// From the app to the browser.
    pub down: u64,
}

/// Carries bytes until both sides are done or `close` comes. `on_client_data` is called for data frames of the
/// browser.
// CANCEL: both connections are dropped, and with them closed.
pub(super) async fn tunnel(
    browser: Upgraded,
    app: Wire,
    close: impl Future<Output = Close>,
    mut on_client_data: impl FnMut(),
) -> Passed {
    let (browser_in, browser_out) = split(TokioIo::new(browser));
    let (app_in, app_out) = split(app);
    let mut up = Direction::new(browser_in, app_out);
    let mut down = Direction::new(app_in, browser_out);
    let closed = tokio::select! {
        biased;
        close = close => Some(close),
        () = both(&mut up, &mut down, &mut on_client_data) => None,
    };
    if let Some(close) = closed {
        let (to_browser, to_app) = match close {
            Close::SessionEnded(reason) => {
                (close_frame(CLOSE_SESSION_ENDED, reason.as_str()), CLOSE_GOING_AWAY)
            }
            Close::Restart => (close_frame(CLOSE_RESTART, "restart"), CLOSE_RESTART),
        };
        let to_app = masked_close_frame(to_app);
        tokio::join!(down.close_with(&to_browser), up.close_with(&to_app));
        // What the browser still sends must not arrive at a closed socket: the reset could overtake the reason.
        let _ = tokio::time::timeout(LAST_WORDS, up.drain()).await;
    }
    Passed { up: up.passed, down: down.passed }
}

async fn both<A: Pipe, B: Pipe>(up: &mut A, down: &mut B, on_client_data: &mut impl FnMut()) {
    let mut ignore = || ();
    let (mut up, mut down) = (std::pin::pin!(up.run(on_client_data)), std::pin::pin!(down.run(&mut ignore)));
    tokio::select! {
        () = up.as_mut() => drop(tokio::time::timeout(HALF_CLOSED, down).await),
        () = down.as_mut() => drop(tokio::time::timeout(HALF_CLOSED, up).await),
    }
}

/// One direction of a tunnel.
struct Direction<R, W> {
    reader: R,
    writer: W,
    buffer: Vec<u8>,
    /// What of the buffer was read and not yet written.
    pending: std::ops::Range<usize>,
    tracker: FrameTracker,
    passed: u64,
}

trait Pipe {
    /// Carries bytes until the end of the stream or an error; then closes the writing half.
    async fn run(&mut self, on_data: &mut impl FnMut());
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pipe for Direction<R, W> {
    async fn run(&mut self, on_data: &mut impl FnMut()) {
        while self.step(on_data).await.is_ok_and(|more| more) {}
        let _ = self.writer.shutdown().await;
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Direction<R, W> {
    fn new(reader: R, writer: W) -> Self {
        Self {
            reader,
            writer,
            buffer: vec![0; BUFFER],
            pending: 0..0,
            tracker: FrameTracker::default(),
            passed: 0,
        }
    }

    /// Reads when there is nothing to write, else writes. False at the end of the stream.
    // CANCEL: `read` and `write` either have happened and are accounted for, or have not happened.
    async fn step(&mut self, on_data: &mut impl FnMut()) -> std::io::Result<bool> {
        if self.pending.is_empty() {
            let count = self.reader.read(&mut self.buffer).await?;
            self.pending = 0..count;
            return Ok(count > 0);
        }
        let end = self.pending.end;
        self.write_up_to(end, on_data).await?;
        Ok(true)
    }

    async fn write_up_to(&mut self, end: usize, on_data: &mut impl FnMut()) -> std::io::Result<()> {
        let written = self.writer.write(&self.buffer[self.pending.start..end]).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        let start = self.pending.start;
        if self.tracker.follow(&self.buffer[start..start + written]) > 0 {
            on_data();
        }
        self.passed += written as u64;
        self.pending.start += written;
        if self.pending.is_empty() {
            self.writer.flush().await?;
        }
        Ok(())
    }

    /// Reads and drops what still comes.
    async fn drain(&mut self) {
        while self.reader.read(&mut self.buffer).await.is_ok_and(|count| count > 0) {}
    }

    /// Lets a frame in progress pass, sends `frame`, and closes. Without a boundary in time it closes all the same.
    async fn close_with(&mut self, frame: &[u8]) {
        let orderly = async {
            while !self.tracker.at_boundary() {
                if self.pending.is_empty() && !self.step(&mut || ()).await? {
                    return Ok(());
                }
                let pending = &self.buffer[self.pending.clone()];
                let end = self.pending.start + self.tracker.up_to_boundary(pending);
                self.write_up_to(end, &mut || ()).await?;
            }
            self.writer.write_all(frame).await?;
            self.writer.flush().await
        };
        let _: Result<std::io::Result<()>, _> = tokio::time::timeout(BOUNDARY_PATIENCE, orderly).await;
        let _ = tokio::time::timeout(BOUNDARY_PATIENCE, self.writer.shutdown()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_close_frame_comes_at_a_boundary() {
        let (mut app, app_side) = tokio::io::duplex(64);
        let (browser_side, mut browser) = tokio::io::duplex(64);
        let mut down = Direction::new(app_side, browser_side);
        // Half a frame has passed when the end comes; the other half follows later.
        app.write_all(&[0x82, 4, 1, 2]).await.unwrap();
        assert!(down.step(&mut || ()).await.unwrap() && down.step(&mut || ()).await.unwrap());
        let frame = close_frame(CLOSE_SESSION_ENDED, "revoked");
        let rest = async {
            app.write_all(&[3, 4, 0x82, 1, 9]).await.unwrap();
        };
        tokio::join!(down.close_with(&frame), rest);
        let mut seen = Vec::new();
        browser.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [&[0x82, 4, 1, 2, 3, 4][..], &frame].concat());
    }

    #[tokio::test]
    async fn half_a_frame_that_never_ends_is_cut_off() {
        let (mut app, app_side) = tokio::io::duplex(64);
        let (browser_side, mut browser) = tokio::io::duplex(64);
        let mut down = Direction::new(app_side, browser_side);
        app.write_all(&[0x82, 4, 1]).await.unwrap();
        assert!(down.step(&mut || ()).await.unwrap() && down.step(&mut || ()).await.unwrap());
        down.close_with(&close_frame(CLOSE_SESSION_ENDED, "revoked")).await;
        let mut seen = Vec::new();
        browser.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [0x82, 4, 1]);
    }
}
