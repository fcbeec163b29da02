//! `tenure serve`: runs the gateway until it is told to leave.

use std::io::{self, Write};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{BAD_CONFIG, FAILED};
use crate::clock::Clock;
use crate::config::{self, LogFormat};
use crate::server::{Gateway, StartError};
use crate::telemetry;

pub(super) fn run(path: PathBuf, err: &mut impl Write) -> io::Result<u8> {
    let config = match config::load(&path) {
        Ok(config) => config,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            return Ok(BAD_CONFIG);
        }
    };
    let format = match config.log.format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    let _log = telemetry::init(format, config.log.level);
    let notes = config.notes();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the gateway starts: a signal that comes early must not kill it.
        let signals = Signals::new()?;
        let gateway = match Gateway::start(config, Clock::system()) {
            Ok(gateway) => gateway,
            Err(error) => return failed(&error, err),
        };
        for note in notes {
            tracing::warn!("{note}");
        }
        gateway.handle().reload_from(path);
        announce(&gateway);
        let handle = gateway.handle();
        signals.obey(gateway).await;
        Ok(if handle.is_broken() { FAILED } else { 0 })
    })
}

fn failed(error: &StartError, err: &mut impl Write) -> io::Result<u8> {
    writeln!(err, "tenure cannot start: {error}")?;
    Ok(FAILED)
}

fn announce(gateway: &Gateway) {
    let listeners = [
        ("http", gateway.http),
        ("https", gateway.https),
        ("admin", gateway.admin),
        ("probes", gateway.probes),
    ];
    for (what, address) in listeners {
        if let Some(address) = address {
            tracing::info!(%address, "listening for {what}");
        }
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
}

/// The signals of a service: `HUP` reloads, `TERM` and `INT` drain, and a second one of these leaves at once.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn obey(mut self, gateway: Gateway) {
        let handle = gateway.handle();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    let handle = handle.clone();
                    // Its faults are told in the log.
                    let _ = tokio::task::spawn_blocking(move || handle.reload()).await;
                }
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                // Drained through the API.
                () = handle.left() => break,
            }
        }
        tokio::select! {
            () = gateway.drain() => tracing::info!("left"),
            _ = self.terminate.recv() => tracing::warn!("left at once"),
            _ = self.interrupt.recv() => tracing::warn!("left at once"),
        }
    }
}
