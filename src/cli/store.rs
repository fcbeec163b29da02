//! `tenure store`: everything that the store holds, as lines of JSON without tokens.

use std::io::{self, BufWriter, Write};

use clap::Subcommand;

use super::{BAD_CONFIG, ConfigArgs, FAILED};
use crate::clock::Clock;
use crate::config::{self, Config, StoreKind};
use crate::store::{self, Carried, CarryFault, Secrets};

/// What is done with the store.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Write all of it to stdout; gateways may go on using it
    Export(ConfigArgs),
    /// Take in from stdin what `export` wrote; into an empty store that no gateway uses, of either kind
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
    let carried = match command {
        Command::Export(_) => export(&config, out),
        Command::Import(_) => import(&config),
    };
    match carried {
        Ok(Some(Carried { sessions, entries })) => {
            writeln!(err, "{sessions} sessions and {entries} entries of the audit")?;
            Ok(0)
        }
        Ok(None) => {
            writeln!(err, "[store] path is \"off\": nothing is kept that could be carried")?;
            Ok(FAILED)
        }
        Err(fault) => {
            writeln!(err, "{fault}")?;
            Ok(FAILED)
        }
    }
}

fn export(config: &Config, out: &mut impl Write) -> Result<Option<Carried>, CarryFault> {
    let out = &mut BufWriter::new(out);
    match &config.store.kind {
        StoreKind::Memory => Ok(None),
        StoreKind::Path(path) => store::export(path, out).map(Some),
        StoreKind::Redis(settings) => store::export_shared(settings, &Clock::system(), out).map(Some),
    }
}

fn import(config: &Config) -> Result<Option<Carried>, CarryFault> {
    let secrets = Secrets::configured(&config.store);
    let input = &mut io::stdin().lock();
    match &config.store.kind {
        StoreKind::Memory => Ok(None),
        StoreKind::Path(path) => store::import(path, secrets, input).map(Some),
        StoreKind::Redis(settings) => {
            let kept = config.limits.ended_kept;
            store::import_shared(settings, secrets, kept, &Clock::system(), input).map(Some)
        }
    }
}
