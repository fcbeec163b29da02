//! `tenure check`: every fault of the configuration at once, or what it means.

use std::io::{self, Write};
use std::path::Path;

use super::BAD_CONFIG;
use crate::config;

pub(super) fn run(path: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            return Ok(BAD_CONFIG);
        }
    };
    writeln!(out, "{} is good", path.display())?;
    for line in config.summary() {
        writeln!(out, "{line}")?;
    }
    for note in config.notes() {
        writeln!(out, "note    {note}")?;
    }
    Ok(0)
}
