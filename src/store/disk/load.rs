//! Reading the whole store at the start. What cannot be read is reported and refuses the start: a session that was
//! overlooked could be one that ended.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::StoreFault;
use super::database::{ACTIVITY, Database, JARS, Rows, SESSIONS};
use crate::session::Moment;
use crate::session::record::{Image, Session};
use crate::store::envelope::{self, Unreadable};
use crate::store::restore::Stored;
use crate::store::seal::Sealer;

/// A row of the table of activity.
#[derive(Serialize, Deserialize)]
struct Active {
    at: Moment,
    requests: u64,
}

/// The row of a record; `None` once the session was forgotten.
pub(super) fn record_row(slot: u32, session: &Session, app: &str) -> Option<Vec<u8>> {
    let content = postcard::to_allocvec(&session.image(app)?).ok()?;
    Some(envelope::seal(&slot.to_le_bytes(), &content))
}

/// The row of an activity.
pub(super) fn activity_row(slot: u32, at: Moment, requests: u64) -> Option<Vec<u8>> {
    let content = postcard::to_allocvec(&Active { at, requests }).ok()?;
    Some(envelope::seal(&slot.to_le_bytes(), &content))
}

/// Every session of the store.
pub(super) fn all(database: &Database, sealer: &Sealer) -> Result<Vec<Stored>, StoreFault> {
    let mut stored: Vec<Stored> = Vec::new();
    database.rows(&SESSIONS, |slot, bytes| {
        let image: Image = read(database, &SESSIONS, slot, bytes)?;
        stored.push(Stored { image, jar: None, slot });
        Ok(())
    })?;
    let places: HashMap<u32, usize> =
        stored.iter().enumerate().map(|(index, stored)| (stored.slot, index)).collect();
    database.rows(&ACTIVITY, |slot, bytes| {
        let active: Active = read(database, &ACTIVITY, slot, bytes)?;
        if let Some(stored) = places.get(&slot).and_then(|index| stored.get_mut(*index)) {
            stored.image.active(active.at, active.requests);
        }
        Ok(())
    })?;
    database.rows(&JARS, |slot, bytes| {
        let Some(stored) = places.get(&slot).and_then(|index| stored.get_mut(*index)) else { return Ok(()) };
        let jar = sealer.open(stored.image.id, bytes);
        stored.jar =
            Some(jar.map_err(|_| StoreFault::row(&database.path, JARS.name, slot, Unreadable::Damaged))?);
        Ok(())
    })?;
    Ok(stored)
}

fn read<T: for<'de> Deserialize<'de>>(
    database: &Database,
    table: &Rows,
    slot: u32,
    bytes: &[u8],
) -> Result<T, StoreFault> {
    let fault = |why| StoreFault::row(&database.path, table.name, slot, why);
    let content = envelope::open(&slot.to_le_bytes(), bytes).map_err(fault)?;
    // What a newer program added stands at the end, and is left alone.
    postcard::take_from_bytes(content).map(|(value, _)| value).map_err(|_| fault(Unreadable::Damaged))
}
