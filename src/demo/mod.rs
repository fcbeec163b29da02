//! The demonstration app: a small web application in an old manner, for the gateway to stand in front of.
//!
//! It signs people in by a form, keeps its sessions in a map behind a cookie (`LEGACYSID`), never times anybody out,
//! and leaves WebSockets and event streams open after a sign-out, as such applications do. It knows nothing of the
//! gateway: only [`guide`], which writes the configuration and the words for `tenure demo`, names both.

pub mod guide;
mod pages;
mod routes;
mod sessions;
mod ticker;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::clock::Clock;
use routes::App;

/// More connections wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;

/// How long a connection may take over a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the app on `listener`, for as long as the future lives.
// CANCEL: the connections are owned by this future and end with it.
pub async fn run(listener: TcpListener) {
    let app = Arc::new(App::new(Clock::system()));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(Arc::clone(&app), stream));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection, and the WebSocket that it may turn into.
async fn serve(app: Arc<App>, stream: TcpStream) {
    let tunnel: Mutex<Option<OnUpgrade>> = Mutex::new(None);
    let service = service_fn(|request| routes::respond(&app, &tunnel, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // What went wrong with a browser's connection is of no interest to a demonstration.
    let finished = served.with_upgrades().await;
    let upgrade = tunnel.lock().take();
    if let (Ok(()), Some(upgrade)) = (finished, upgrade)
        && let Ok(upgraded) = upgrade.await
    {
        websocket::clock(TokioIo::new(upgraded), &app.clock).await;
    }
}

#[cfg(test)]
mod tests;
