//! `tenure reload`, `drain` and `health`.

use std::io::{self, Write};

use super::client::{Client, Failed, Remote, outcome};

pub(super) fn reload(remote: &Remote, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    outcome(reload_it(remote, out), err)
}

fn reload_it(remote: &Remote, out: &mut impl Write) -> Result<u8, Failed> {
    let report = Client::new(remote)?.post("/v1/reload", None)?;
    writeln!(out, "the configuration is in force")?;
    for key in report["needs_restart"].as_array().into_iter().flatten().filter_map(|key| key.as_str()) {
        writeln!(out, "needs a restart: {key}")?;
    }
    Ok(0)
}

pub(super) fn drain(remote: &Remote, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    outcome(drain_it(remote, out), err)
}

fn drain_it(remote: &Remote, out: &mut impl Write) -> Result<u8, Failed> {
    Client::new(remote)?.post("/v1/drain", None)?;
    writeln!(out, "draining")?;
    Ok(0)
}

pub(super) fn health(remote: &Remote, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    outcome(health_of(remote, out), err)
}

fn health_of(remote: &Remote, out: &mut impl Write) -> Result<u8, Failed> {
    Client::new(remote)?.get("/readyz", &[])?;
    writeln!(out, "ready")?;
    Ok(0)
}
