//! Carrying a store elsewhere: everything in it as lines of JSON, without tokens. Jars go as they lie, encrypted.

use std::io::{BufRead, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::StoreFault;
use super::database::{Database, JARS, Purpose, SESSIONS};
use super::load::{self, Row};
use crate::session::Moment;
use crate::session::record::Image;
use crate::store::audit::Found;
use crate::store::envelope;

/// The form of the lines.
const FORM: u32 = 1;

/// The longest line: a jar of the largest size that is allowed, and what stands around it.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// Facts that belong to one directory and are not carried.
const OF_THE_PLACE: [&str; 3] = ["secret", "latest", "confirmed"];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Head { form: u32, secret: String, latest: Moment },
    Session { image: Box<Image>, jar: Option<String> },
    Fact { name: String, value: String },
    Entry(Found),
    End { lines: u64 },
}

/// Why a store cannot be carried.
#[derive(Debug, thiserror::Error)]
pub enum CarryFault {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// What is read or written.
    #[error("the lines cannot be read or written: {0}")]
    Lines(#[from] std::io::Error),
    /// A line is none of ours.
    #[error("line {line} is none that `tenure store export` writes: {what}\n  nothing was taken in")]
    Malformed {
        /// Which one, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// There is something in it.
    #[error("the store holds sessions already\n  take them into an empty directory; nothing was changed")]
    NotEmpty,
    /// The tokens would not be known.
    #[error(
        "the lines were written under another secret: nobody's cookie would be known\n  copy the file `secret` of the old \
         directory into the new one, or name the old [store] secret; nothing was taken in"
    )]
    OtherSecret,
}

/// How much was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Sessions, the ended ones included.
    pub sessions: u64,
    /// Entries of the audit.
    pub entries: u64,
}

struct Lines<'a, W> {
    out: &'a mut W,
    written: u64,
}

impl<W: Write> Lines<'_, W> {
    fn put(&mut self, line: &Line) -> Result<(), CarryFault> {
        serde_json::to_writer(&mut *self.out, line).map_err(std::io::Error::from)?;
        self.out.write_all(b"\n")?;
        self.written += 1;
        Ok(())
    }
}

/// Writes everything that is in the store at `path`; a gateway may be using it meanwhile.
///
/// # Errors
/// [`CarryFault`].
pub fn export(path: &Path, out: &mut impl Write) -> Result<Carried, CarryFault> {
    let database = Database::look(path)?;
    let mut carried = Carried::default();
    let mut lines = Lines { out, written: 0 };
    let facts = database.facts()?;
    let secret = facts.get("secret").map(|secret| STANDARD.encode(secret)).unwrap_or_default();
    lines.put(&Line::Head { form: FORM, secret, latest: database.latest()? })?;
    for (name, value) in facts.iter().filter(|(name, _)| !OF_THE_PLACE.contains(&name.as_str())) {
        lines.put(&Line::Fact { name: name.clone(), value: STANDARD.encode(value) })?;
    }
    let mut fault = None;
    database.sessions(|next| {
        while let Some(rows) = next()? {
            for row in rows {
                let line = session_line(&database, &row)?;
                carried.sessions += 1;
                if let Err(error) = lines.put(&line) {
                    fault = Some(error);
                    return Ok(());
                }
            }
        }
        Ok(())
    })?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    database.entries(|found| {
        carried.entries += 1;
        lines.put(&Line::Entry(found))
    })?;
    let end = Line::End { lines: lines.written };
    lines.put(&end)?;
    lines.out.flush()?;
    Ok(carried)
}

fn session_line(database: &Database, row: &Row) -> Result<Line, StoreFault> {
    let image = Box::new(load::image(&database.path, row)?);
    Ok(Line::Session { image, jar: row.jar.as_ref().map(|sealed| STANDARD.encode(sealed)) })
}

/// Takes in what [`export`] wrote, into a store at `path` without sessions; no gateway may be using it. All of it, or
/// nothing.
///
/// # Errors
/// [`CarryFault`].
pub fn import(
    path: &Path,
    secret: Option<[u8; 32]>,
    input: &mut impl BufRead,
) -> Result<Carried, CarryFault> {
    let (mut database, _) = Database::open(path, secret, Purpose::TakeIn)?;
    if database.sessions(|next| Ok(next()?.is_some()))? {
        return Err(CarryFault::NotEmpty);
    }
    database.begin_writing()?;
    let facts = database.facts()?;
    let ours = facts.get("secret").map(|secret| STANDARD.encode(secret)).unwrap_or_default();
    let latest = database.latest()?;
    let mut fault = None;
    let mut carried = Carried::default();
    let changed = database.change(latest, |database| {
        match take_in(database, &ours, input, &mut carried) {
            Ok(seen) => database.set_fact("latest", &latest.max(seen).unix_ms().to_le_bytes()),
            Err(error) => {
                fault = Some(error);
                // Ends the transaction without a trace.
                Err(rusqlite::Error::QueryReturnedNoRows)
            }
        }
    });
    match (fault, changed) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(StoreFault::of(&database.path, error).into()),
        (None, Ok(())) => Ok(carried),
    }
}

/// Reads lines up to the last one; returns the latest moment that they have seen.
fn take_in(
    database: &Database,
    ours: &str,
    input: &mut impl BufRead,
    carried: &mut Carried,
) -> Result<Moment, CarryFault> {
    let stored = |source| CarryFault::from(StoreFault::of(&database.path, source));
    let mut latest = Moment::default();
    let mut slot = 0;
    for number in 1.. {
        let malformed = |what: &str| CarryFault::Malformed { line: number, what: what.to_owned() };
        let line = read_line(input, number)?.ok_or_else(|| malformed("the end is missing"))?;
        let decoded = |text: &str| STANDARD.decode(text).map_err(|_| malformed("it is not base64"));
        match line {
            Line::Head { form, secret, latest: seen } if number == 1 => {
                if form > FORM {
                    return Err(malformed("a newer tenure wrote it"));
                }
                if secret != ours {
                    return Err(CarryFault::OtherSecret);
                }
                latest = seen;
            }
            Line::Head { .. } => return Err(malformed("it is a second head")),
            _ if number == 1 => return Err(malformed("the head is missing")),
            Line::Session { image, jar } => {
                slot += 1;
                carried.sessions += 1;
                let content = postcard::to_allocvec(&image).map_err(|_| malformed("it is no session"))?;
                let record = envelope::seal(&u32::to_le_bytes(slot), &content);
                database.put(&SESSIONS, slot, &record).map_err(stored)?;
                if let Some(sealed) = jar {
                    database.put(&JARS, slot, &decoded(&sealed)?).map_err(stored)?;
                }
            }
            Line::Fact { name, value } if !OF_THE_PLACE.contains(&name.as_str()) => {
                database.set_fact(&name, &decoded(&value)?).map_err(stored)?;
            }
            Line::Fact { .. } => return Err(malformed("this fact belongs to one directory")),
            Line::Entry(found) => {
                carried.entries += 1;
                database.put_found(&found).map_err(stored)?;
            }
            Line::End { lines } if lines + 1 == number => return Ok(latest),
            Line::End { .. } => return Err(malformed("lines are missing before it")),
        }
    }
    Ok(latest)
}

fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<Line>, CarryFault> {
    let mut bytes = Vec::new();
    let read = std::io::Read::take(&mut *input, MAX_LINE_BYTES).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    let line = serde_json::from_slice(&bytes);
    // The fault says what was expected and in which column, never what stood there.
    line.map(Some).map_err(|error| CarryFault::Malformed {
        line: number,
        what: format!("{:?} error in column {}", error.classify(), error.column()),
    })
}
