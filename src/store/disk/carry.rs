//! Carrying the embedded store elsewhere, and taking in what was carried from elsewhere.

use std::io::{BufRead, Write};
use std::path::Path;

use super::StoreFault;
use super::database::{Database, JARS, Purpose, SESSIONS};
use super::load;
use crate::store::carry::{Carried, CarryFault, Item, Lines, Reading};
use crate::store::{Secrets, envelope};

/// Writes everything that is in the store at `path`; a gateway may be using it meanwhile.
///
/// # Errors
/// [`CarryFault`].
pub fn export(path: &Path, out: &mut impl Write) -> Result<Carried, CarryFault> {
    let database = Database::look(path)?;
    let facts = database.facts()?;
    let proof = facts.get("secret").map(Vec::as_slice).unwrap_or_default();
    let mut lines = Lines::begin(out, proof, database.latest()?)?;
    for (name, value) in &facts {
        lines.fact(name, value)?;
    }
    let mut fault = None;
    database.sessions(|next| {
        while let Some(portion) = next()? {
            for row in portion.rows() {
                let image = load::image(&database.path, row)?;
                if let Err(error) = lines.session(image, row.jar) {
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
    database.entries(|found| lines.entry(found))?;
    lines.end()
}

/// Takes in what was exported, by whichever kind of store, into a store at `path` without sessions; no gateway may be using
/// it. All of it, or nothing.
///
/// # Errors
/// [`CarryFault`].
pub fn import(
    path: &Path,
    secrets: Option<Secrets>,
    input: &mut impl BufRead,
) -> Result<Carried, CarryFault> {
    let (mut database, secrets) = Database::open(path, secrets, Purpose::TakeIn)?;
    if database.sessions(|next| Ok(next()?.is_some()))? {
        return Err(CarryFault::NotEmpty);
    }
    let (mut reading, head) = Reading::begin(input)?;
    database.key_by(&secrets, &reading.keyed_by(&head, &secrets)?)?;
    database.begin_writing()?;
    let latest = database.latest()?.max(head.latest);
    let mut fault = None;
    let changed = database.change(latest, |database| {
        take_in(database, &mut reading).map_err(|error| {
            fault = Some(error);
            // Ends the transaction without a trace.
            rusqlite::Error::QueryReturnedNoRows
        })
    });
    match (fault, changed) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(StoreFault::of(&database.path, error).into()),
        (None, Ok(())) => Ok(reading.carried()),
    }
}

fn take_in<R: BufRead>(database: &Database, reading: &mut Reading<'_, R>) -> Result<(), CarryFault> {
    let stored = |source| CarryFault::from(StoreFault::of(&database.path, source));
    let mut slot = 0;
    while let Some(item) = reading.next()? {
        match item {
            Item::Session(image, jar) => {
                slot += 1;
                let content = postcard::to_allocvec(&image);
                let content = content.map_err(|_| reading.malformed("it is no session"))?;
                let record = envelope::seal(&u32::to_le_bytes(slot), &content);
                database.put(&SESSIONS, slot, &record).map_err(stored)?;
                if let Some(sealed) = jar {
                    database.put(&JARS, slot, &sealed).map_err(stored)?;
                }
            }
            Item::Fact(name, value) => database.set_fact(&name, &value).map_err(stored)?,
            Item::Entry(found) => database.put_found(&found).map_err(stored)?,
        }
    }
    Ok(())
}
