//! `tenure store`: everything that the store holds, as lines of JSON without tokens.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::Subcommand;

use super::{BAD_CONFIG, ConfigArgs, FAILED};
use crate::config::{self, Config, StoreKind};
use crate::store::{self, Carried, derive_key};

/// What is done with the store.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Write all of it to stdout; a gateway may go on using it
    Export(ConfigArgs),
    /// Take in from stdin what `export` wrote; into an empty store that no gateway uses
    Import(ConfigArgs),
}

pub(super) fn run(command: &Command, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let (Command::Export(args) | Command::Import(args)) = command;
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            return Ok(BAD_CONFIG);
        }
    };
    let path = match &config.store.kind {
        StoreKind::Path(path) => path,
        StoreKind::Memory => {
            writeln!(err, "[store] path is \"off\": nothing is kept that could be carried")?;
            return Ok(FAILED);
        }
        StoreKind::Redis(_) => {
            writeln!(
                err,
                "sessions are in [store] redis: export and import are for the embedded store, [store] path"
            )?;
            return Ok(FAILED);
        }
    };
    let carried = match command {
        Command::Export(_) => store::export(path, &mut BufWriter::new(out)),
        Command::Import(_) => import(&config, path),
    };
    match carried {
        Ok(Carried { sessions, entries }) => {
            writeln!(err, "{sessions} sessions and {entries} entries of the audit")?;
            Ok(0)
        }
        Err(fault) => {
            writeln!(err, "{fault}")?;
            Ok(FAILED)
        }
    }
}

fn import(config: &Config, path: &Path) -> Result<Carried, store::CarryFault> {
    let secret = config.store.secret.as_ref().map(|secret| derive_key(secret.expose()));
    store::import(path, secret, &mut io::stdin().lock())
}
