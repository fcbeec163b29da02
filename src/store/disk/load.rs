//! Reading the whole store at the start. What cannot be read is reported and refuses the start: a session that was
//! overlooked could be one that ended.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreFault;
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

/// A stored session as it lies there.
pub(super) struct Row {
    pub(super) slot: u32,
    pub(super) record: Vec<u8>,
    pub(super) activity: Option<Vec<u8>>,
    pub(super) jar: Option<Vec<u8>>,
}

/// The session of a row; `path` is that of the database, for the fault.
pub(super) fn read(path: &Path, sealer: &Sealer, row: &Row) -> Result<Stored, StoreFault> {
    let image = image(path, row)?;
    let jar = row.jar.as_ref().map(|sealed| sealer.open(image.id, sealed)).transpose();
    let jar = jar.map_err(|why| StoreFault::Damaged {
        path: path.to_path_buf(),
        what: format!("row {} of its table jar: {why}", row.slot),
    })?;
    Ok(Stored::new(image, jar, row.slot))
}

/// The session of a row without its jar.
pub(super) fn image(path: &Path, row: &Row) -> Result<Image, StoreFault> {
    let fault = |table| move |why| StoreFault::row(path, table, row.slot, why);
    let mut image: Image = open(row.slot, &row.record).map_err(fault("session"))?;
    if let Some(bytes) = &row.activity {
        let active: Active = open(row.slot, bytes).map_err(fault("activity"))?;
        image.active(active.at, active.requests);
    }
    Ok(image)
}

fn open<T: for<'de> Deserialize<'de>>(slot: u32, bytes: &[u8]) -> Result<T, Unreadable> {
    let content = envelope::open(&slot.to_le_bytes(), bytes)?;
    // What a newer program added stands at the end, and is left alone.
    postcard::take_from_bytes(content).map(|(value, _)| value).map_err(|_| Unreadable::Damaged)
}
