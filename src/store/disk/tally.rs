//! How many transactions were confirmed, told beside the database.
//!
//! SQLite takes a damaged page of its log for the torn end of it, and what follows was never there: transactions that were
//! confirmed would be missing without a word. So their number is written to a file of its own after each of them, and the
//! database must not know of fewer. It is not forced to the disk: after a power cut it may be behind, never ahead.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Tally(Option<File>);

pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join("confirmed")
}

impl Tally {
    /// The tally of a directory, and what it says; nothing where there is none yet.
    pub(super) fn open(directory: &Path) -> std::io::Result<(Self, u64)> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(file_in(directory))?;
        let mut bytes = [0; 8];
        let known = file.read_exact_at(&mut bytes, 0).is_ok();
        Ok((Self(Some(file)), if known { u64::from_le_bytes(bytes) } else { 0 }))
    }

    /// For somebody who only looks.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Notes that so many transactions are confirmed. What cannot be noted is found out later, or never; the database itself
    /// is safe. Little end first: of a write that broke off the number is no larger than the new one.
    pub(super) fn note(&self, confirmed: u64) {
        if let Some(file) = &self.0 {
            let _it_may_be_behind = file.write_all_at(&confirmed.to_le_bytes(), 0);
        }
    }
}
