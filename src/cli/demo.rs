//! `tenure demo`: an app in an old manner and the gateway before it, on loopback.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use super::{FAILED, token};
use crate::clock::Clock;
use crate::demo::{self, guide};
use crate::server::Gateway;
use crate::telemetry;

/// Where people expect a gateway to try; any free port when somebody is there already.
const GATEWAY_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9901;

pub(super) fn run(out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let _log = telemetry::init(telemetry::LogFormat::Text, tracing::Level::WARN);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(until_interrupted(out)) {
        Ok(()) => Ok(0),
        Err(error) => {
            writeln!(err, "the demonstration cannot run: {error}")?;
            Ok(FAILED)
        }
    }
}

async fn until_interrupted(out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    // Before the banner: whoever reads it may press Ctrl-C.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let app = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut at = guide::Addresses {
        gateway: preferably(GATEWAY_PORT),
        admin: preferably(ADMIN_PORT),
        app: app.local_addr()?,
    };
    let token = token::fresh()?;
    let text = guide::configuration(&at, &token::hash(&token));
    let config =
        crate::config::check_text("demo", &text, Path::new("")).map_err(|faults| faults.to_string())?;
    let gateway = Gateway::start(config, Clock::system())?;
    at.gateway = gateway.http.unwrap_or(at.gateway);
    at.admin = gateway.admin.unwrap_or(at.admin);
    let handle = gateway.handle();
    write!(out, "{}", guide::banner(&at, &token))?;
    out.flush()?;
    tokio::select! {
        () = demo::run(app) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        // Drained through the API.
        () = handle.left() => {}
    }
    gateway.drain().await;
    Ok(())
}

fn preferably(port: u16) -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    SocketAddr::from((Ipv4Addr::LOCALHOST, if free { port } else { 0 }))
}
