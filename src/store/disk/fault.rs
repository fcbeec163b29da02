//! Why the store cannot be used, in words that help.

use std::path::PathBuf;

use crate::store::envelope::{Unreadable, VERSION};

/// The store cannot be opened. The gateway does not start then: it would sign everybody out.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The directory is missing and cannot be made, or cannot be written to.
    #[error(
        "the store {path} cannot be used: {source}\n  the directory must be writable by the user that runs tenure; [store] \
         path names it, and path = \"off\" keeps sessions in memory alone"
    )]
    Directory {
        /// `[store] path`, or a file in it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "the store {path} is in use by another process\n  each gateway needs a directory of its own; is another one running?"
    )]
    InUse {
        /// `[store] path`.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the store {path} is of version {found}, and this program knows versions up to {known}\n  start the newer tenure that \
         wrote it, or name another directory in [store] path, where everybody signs in anew"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It is a database, but none of ours.
    #[error("{path} is no store of tenure\n  name another directory in [store] path")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Something in it cannot be read.
    #[error(
        "the store {path} is damaged: {what}\n  put a copy of the directory back; or move it away and start again: then \
         everybody signs in anew, and ended sessions stay ended only as far as the app itself knows"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Transactions are missing that were confirmed.
    #[error(
        "the store {path} is damaged: its last {missing} transactions are missing, though they were confirmed\n  put a newer \
         copy of the directory back; or, where it is an older copy that was put there on purpose, remove {tally}: then sessions \
         that ended since may live again as far as their time allows"
    )]
    Missing {
        /// The database.
        path: PathBuf,
        /// How many.
        missing: u64,
        /// The file that tells.
        tally: PathBuf,
    },
    /// It was written under another secret.
    #[error(
        "the store {path} was written under another secret: nobody's cookie would be known\n  put the secret back, or name \
         it in [store] previous_secrets; or name another directory in [store] path, where everybody signs in anew"
    )]
    OtherSecret {
        /// The database.
        path: PathBuf,
    },
    /// A secret was left out while tokens that nobody knows are adopted.
    #[error(
        "tokens in the store {path} are keyed by a secret that is named no more, and with unseen = \"adopt\" those of ended \
         sessions would be taken for new ones\n  name it in [store] previous_secrets until adopt_until is over"
    )]
    SecretLeftOut {
        /// The database.
        path: PathBuf,
    },
    /// The database reports something else.
    #[error("the store {path} cannot be used: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What it reports.
        #[source]
        source: rusqlite::Error,
    },
    /// The system gives no thread.
    #[error("the store cannot be written: {source}")]
    Thread {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl StoreFault {
    /// What `source` means for the database at `path`.
    pub(super) fn of(path: &std::path::Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase};
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged { path, what: source.to_string() },
            Some(DatabaseBusy | DatabaseLocked) => Self::InUse { path },
            Some(CannotOpen) => Self::Directory { path, source: std::io::Error::other(source) },
            Some(_) | None => Self::Database { path, source },
        }
    }

    /// A row cannot be read.
    pub(super) fn row(path: &std::path::Path, table: &str, slot: u32, why: Unreadable) -> Self {
        let path = path.to_path_buf();
        match why {
            Unreadable::Newer(found) => {
                Self::Newer { path, found: i64::from(found), known: i64::from(VERSION) }
            }
            Unreadable::Damaged => Self::Damaged {
                path,
                what: format!("row {slot} of its table {table} is not what was written"),
            },
        }
    }
}
