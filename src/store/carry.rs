//! Carrying a store elsewhere: everything in it as lines of JSON, without tokens. Jars go as they lie, encrypted. The lines
//! are the same whatever kind of store wrote them, and each kind reads them.

use std::io::{BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::audit::Found;
use super::disk::StoreFault;
use super::redis::RedisFault;
use super::secrets::{SecretFault, Secrets};
use crate::session::Moment;
use crate::session::record::Image;

/// The form of the lines.
const FORM: u32 = 1;

/// The longest line: a jar of the largest size that is allowed, and what stands around it.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// Facts that belong to one directory and are not carried.
pub(super) const OF_THE_PLACE: [&str; 3] = ["secret", "latest", "confirmed"];

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
    /// The embedded store itself.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The shared store itself.
    #[error(transparent)]
    Shared(#[from] RedisFault),
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
    /// There is something in it that is not to be mixed with what comes.
    #[error(
        "there are keys in Redis that begin with {prefix:?}\n  take the lines into an empty one, by another prefix in \
         [store.redis], or remove what is there; nothing was changed"
    )]
    PrefixInUse {
        /// `[store.redis] prefix`.
        prefix: String,
    },
    /// There is nothing of ours.
    #[error(
        "no key in Redis says that a gateway keeps its sessions there under {prefix:?}\n  see [store.redis] prefix"
    )]
    Nothing {
        /// `[store.redis] prefix`.
        prefix: String,
    },
    /// A stored session cannot be read.
    #[error("a session in the store cannot be read: {0}\n  nothing was left out: the lines end before it")]
    Unreadable(String),
    /// The tokens would not be known.
    #[error(
        "the lines were written under another secret: nobody's cookie would be known\n  copy the file `secret` of the old \
         directory into the new one, or name the old secret in [store] secret or previous_secrets; nothing was taken in"
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

/// Writes lines.
pub(super) struct Lines<'a, W> {
    out: &'a mut W,
    written: u64,
    carried: Carried,
}

impl<'a, W: Write> Lines<'a, W> {
    /// Lines from a store whose tokens are keyed by what `proof` proves, and that has seen the moment `latest`.
    pub(super) fn begin(out: &'a mut W, proof: &[u8], latest: Moment) -> Result<Self, CarryFault> {
        let mut lines = Self { out, written: 0, carried: Carried::default() };
        lines.put(&Line::Head { form: FORM, secret: STANDARD.encode(proof), latest })?;
        Ok(lines)
    }

    /// A value that is kept under a name, unless it is the place's own.
    pub(super) fn fact(&mut self, name: &str, value: &[u8]) -> Result<(), CarryFault> {
        if OF_THE_PLACE.contains(&name) {
            return Ok(());
        }
        self.put(&Line::Fact { name: name.to_owned(), value: STANDARD.encode(value) })
    }

    /// A session, with its jar as it lies in the store.
    pub(super) fn session(&mut self, image: Image, jar: Option<&[u8]>) -> Result<(), CarryFault> {
        self.carried.sessions += 1;
        let jar = jar.map(|sealed| STANDARD.encode(sealed));
        self.put(&Line::Session { image: Box::new(image), jar })
    }

    /// An entry of the audit.
    pub(super) fn entry(&mut self, found: Found) -> Result<(), CarryFault> {
        self.carried.entries += 1;
        self.put(&Line::Entry(found))
    }

    /// That was all.
    pub(super) fn end(mut self) -> Result<Carried, CarryFault> {
        let end = Line::End { lines: self.written };
        self.put(&end)?;
        self.out.flush()?;
        Ok(self.carried)
    }

    fn put(&mut self, line: &Line) -> Result<(), CarryFault> {
        serde_json::to_writer(&mut *self.out, line).map_err(std::io::Error::from)?;
        self.out.write_all(b"\n")?;
        self.written += 1;
        Ok(())
    }
}

/// What a line brings.
pub(super) enum Item {
    /// A session, and its jar as it lay in the store.
    Session(Box<Image>, Option<Vec<u8>>),
    /// A value under a name.
    Fact(String, Vec<u8>),
    /// An entry of the audit.
    Entry(Found),
}

/// What the first line says.
pub(super) struct Head {
    /// What keyed the tokens.
    pub(super) proof: Vec<u8>,
    /// The latest moment that the store had seen.
    pub(super) latest: Moment,
}

/// Reads lines one by one.
pub(super) struct Reading<'a, R> {
    input: &'a mut R,
    number: u64,
    carried: Carried,
}

impl<'a, R: BufRead> Reading<'a, R> {
    /// Reads the first line.
    pub(super) fn begin(input: &'a mut R) -> Result<(Self, Head), CarryFault> {
        let mut reading = Self { input, number: 0, carried: Carried::default() };
        match reading.line()? {
            Line::Head { form, .. } if form > FORM => Err(reading.malformed("a newer tenure wrote it")),
            Line::Head { secret, latest, .. } => {
                let proof = reading.decoded(&secret)?;
                Ok((reading, Head { proof, latest }))
            }
            Line::Session { .. } | Line::Fact { .. } | Line::Entry(_) | Line::End { .. } => {
                Err(reading.malformed("the head is missing"))
            }
        }
    }

    /// What proves the secrets that key the tokens of the lines, if they are among these.
    pub(super) fn keyed_by(&self, head: &Head, secrets: &Secrets) -> Result<Vec<u8>, CarryFault> {
        if head.proof.is_empty() {
            return Err(self.malformed("it does not say under which secret they were written"));
        }
        secrets.keyed_by(&head.proof).map_err(|fault| match fault {
            SecretFault::Other | SecretFault::LeftOut => CarryFault::OtherSecret,
        })
    }

    /// What the next line brings; `None` after the last one.
    pub(super) fn next(&mut self) -> Result<Option<Item>, CarryFault> {
        Ok(Some(match self.line()? {
            Line::Head { .. } => return Err(self.malformed("it is a second head")),
            Line::Session { image, jar } => {
                self.carried.sessions += 1;
                let jar = jar.map(|sealed| self.decoded(&sealed)).transpose()?;
                Item::Session(image, jar)
            }
            Line::Fact { name, value } if !OF_THE_PLACE.contains(&name.as_str()) => {
                Item::Fact(name, self.decoded(&value)?)
            }
            Line::Fact { .. } => return Err(self.malformed("this fact belongs to one directory")),
            Line::Entry(found) => {
                self.carried.entries += 1;
                Item::Entry(found)
            }
            Line::End { lines } if lines + 1 == self.number => return Ok(None),
            Line::End { .. } => return Err(self.malformed("lines are missing before it")),
        }))
    }

    /// What was read until now.
    pub(super) fn carried(&self) -> Carried {
        self.carried
    }

    /// The line that was read last is none of ours.
    pub(super) fn malformed(&self, what: &str) -> CarryFault {
        CarryFault::Malformed { line: self.number, what: what.to_owned() }
    }

    fn decoded(&self, text: &str) -> Result<Vec<u8>, CarryFault> {
        STANDARD.decode(text).map_err(|_| self.malformed("it is not base64"))
    }

    fn line(&mut self) -> Result<Line, CarryFault> {
        let mut bytes = Vec::new();
        self.number += 1;
        let read = std::io::Read::take(&mut *self.input, MAX_LINE_BYTES).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Err(self.malformed("the end is missing"));
        }
        // The fault says what was expected and in which column, never what stood there.
        serde_json::from_slice(&bytes).map_err(|error| {
            self.malformed(&format!("{:?} error in column {}", error.classify(), error.column()))
        })
    }
}
