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

/// Stored sessions as they lie there, in one piece: an allocation for each of a million rows, freed by another thread, costs
/// more than reading them.
#[derive(Default)]
pub(super) struct Portion {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where the parts of a row end; they lie one behind the other.
struct Place {
    slot: u32,
    record: usize,
    activity: Option<usize>,
    jar: Option<usize>,
}

/// A stored session as it lies there.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) slot: u32,
    pub(super) record: &'a [u8],
    pub(super) activity: Option<&'a [u8]>,
    pub(super) jar: Option<&'a [u8]>,
}

impl Portion {
    pub(super) fn push(&mut self, row: Row<'_>) {
        let mut end_of = |part: &[u8]| {
            self.bytes.extend_from_slice(part);
            self.bytes.len()
        };
        let (record, activity, jar) =
            (end_of(row.record), row.activity.map(&mut end_of), row.jar.map(&mut end_of));
        self.places.push(Place { slot: row.slot, record, activity, jar });
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(|place| place.slot)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut start = 0;
        self.places.iter().map(move |place| {
            let mut part = |end: usize| {
                let part = self.bytes.get(start..end).unwrap_or_default();
                start = end;
                part
            };
            Row {
                slot: place.slot,
                record: part(place.record),
                activity: place.activity.map(&mut part),
                jar: place.jar.map(&mut part),
            }
        })
    }
}

/// The session of a row; `path` is that of the database, for the fault.
pub(super) fn read(path: &Path, sealer: &Sealer, row: Row<'_>) -> Result<Stored, StoreFault> {
    let image = image(path, row)?;
    let jar = row.jar.map(|sealed| sealer.open(image.id, sealed)).transpose();
    let jar = jar.map_err(|why| StoreFault::Damaged {
        path: path.to_path_buf(),
        what: format!("row {} of its table jar: {why}", row.slot),
    })?;
    Ok(Stored::new(image, jar, row.slot))
}

/// The session of a row without its jar.
pub(super) fn image(path: &Path, row: Row<'_>) -> Result<Image, StoreFault> {
    let fault = |table| move |why| StoreFault::row(path, table, row.slot, why);
    let mut image: Image = open(row.slot, row.record).map_err(fault("session"))?;
    if let Some(bytes) = row.activity {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_portion_are_those_that_were_put_there() {
        let rows =
            [(1, "a", None, Some("jar")), (5, "bc", Some("active"), None), (6, "", Some(""), Some("x"))];
        let mut portion = Portion::default();
        for (slot, record, activity, jar) in rows {
            let (activity, jar) = (activity.map(str::as_bytes), jar.map(str::as_bytes));
            portion.push(Row { slot, record: record.as_bytes(), activity, jar });
        }
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        let found = portion.rows().map(|r| (r.slot, text(r.record), r.activity.map(text), r.jar.map(text)));
        assert_eq!(found.collect::<Vec<_>>(), rows);
        assert_eq!((portion.len(), portion.slots().collect::<Vec<_>>()), (3, vec![1, 5, 6]));
    }
}
