//! The database file: who may use it, what is in it, and the transactions that change it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::load::{Portion, Row};
use super::tally::{self, Tally};
use super::{StoreFault, audit, file_in, secret};
use crate::session::Moment;
use crate::store::audit::{Entry, Found};
use crate::store::secrets::{SecretFault, Secrets};

/// In every file of ours (`PRAGMA application_id`): "Tenu".
const APPLICATION: i64 = 0x5465_6e75;

/// The version of the tables below (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// Slots are small numbers that are used again, so that the tables stay dense: a random key would cost a page a row.
const TABLES: &str = "
    CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE session (slot INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE jar (slot INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
    CREATE TABLE activity (slot INTEGER PRIMARY KEY, record BLOB NOT NULL);
";

/// What the tables keep of each session.
const EVERYTHING: &str = "
    SELECT session.slot, session.record, activity.record, jar.sealed FROM session
    LEFT JOIN activity ON activity.slot = session.slot LEFT JOIN jar ON jar.slot = session.slot
    ORDER BY session.slot
";

/// No record of a session is smaller.
const LEAST_ROW_BYTES: u64 = 64;

/// How many rows are read before they are handed on.
const PORTION: usize = 1000;

/// What the write-ahead log may keep of the disk between checkpoints, in bytes.
const MAX_LOG_BYTES: i64 = 64 << 20;

/// Pages given back to the system at a time.
const PAGES_AT_ONCE: i64 = 1024;

/// How long somebody else's look into the database (`sqlite3`, a backup) may hold up a write.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What a database is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A gateway goes on with it.
    Serve,
    /// Sessions from elsewhere are taken in.
    TakeIn,
}

/// An open database, which nobody else writes.
pub(super) struct Database {
    pub(super) path: PathBuf,
    connection: Connection,
    tally: Tally,
    /// How many transactions were confirmed, since there is this database.
    confirmed: u64,
    /// Proofs of the secrets that key what is in it, to be written with the first transaction.
    keyed_by: Vec<u8>,
    /// Held as long as the database is open.
    _lock: File,
}

impl Database {
    /// Opens the database in the directory `path`, or makes both. Returns the secrets too: `secrets`, or the directory's own.
    pub(super) fn open(
        path: &Path,
        secrets: Option<Secrets>,
        purpose: Purpose,
    ) -> Result<(Self, Secrets), StoreFault> {
        let directory = |source| StoreFault::Directory { path: path.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(directory)?;
        let lock = lock(path)?;
        let file = file_in(path);
        check_content(path, purpose)?;
        // For its owner alone, as are the files that SQLite puts beside it.
        private(&file).map_err(directory)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let fault = |source| StoreFault::of(&file, source);
        let connection = Connection::open_with_flags(&file, flags).map_err(fault)?;
        // Until it is known that all of it can be read: a store that is refused is left as it is, its log too.
        connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fault)?;
        let (tally, told) = Tally::open(path).map_err(directory)?;
        let mut database =
            Self { path: file.clone(), connection, tally, confirmed: 0, keyed_by: Vec::new(), _lock: lock };
        let is_new = database.check_kind()?;
        database.configure(is_new).map_err(fault)?;
        database.make_tables().map_err(fault)?;
        database.check_tally(told)?;
        // ORDER: made only where a database of ours is, or has just been made.
        let secrets = secrets.map_or_else(|| secret::of(path), Ok)?;
        let known = database.fact("secret").map_err(|source| StoreFault::of(&file, source))?;
        database.key_by(&secrets, &known.unwrap_or_default())?;
        Ok((database, secrets))
    }

    /// Opens the database in the directory `path` to read what is in it at this moment, beside whoever uses it.
    pub(super) fn look(path: &Path) -> Result<Self, StoreFault> {
        let file = file_in(path);
        let directory = |source| StoreFault::Directory { path: file.clone(), source };
        let _lock = File::open(&file).map_err(directory)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let fault = |source| StoreFault::of(&file, source);
        let connection = Connection::open_with_flags(&file, flags).map_err(fault)?;
        connection.busy_timeout(PATIENCE).map_err(fault)?;
        // One moment for all that is read.
        connection.execute_batch("BEGIN").map_err(fault)?;
        let database =
            Self { path: file, connection, tally: Tally::none(), confirmed: 0, keyed_by: Vec::new(), _lock };
        match database.check_kind()? {
            false => Ok(database),
            true => Err(StoreFault::NotOurs { path: database.path }),
        }
    }

    /// All transactions that were confirmed have to be there.
    fn check_tally(&mut self, told: u64) -> Result<(), StoreFault> {
        let stored = self.fact("confirmed").map_err(|source| StoreFault::of(&self.path, source))?;
        let number = stored.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        self.confirmed = number.unwrap_or(0);
        let directory = self.path.parent().unwrap_or(&self.path);
        match told.checked_sub(self.confirmed) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(StoreFault::Missing {
                path: self.path.clone(),
                missing,
                tally: tally::file_in(directory),
            }),
        }
    }

    /// Whether it is a database of ours, or `true`: none yet.
    fn check_kind(&self) -> Result<bool, StoreFault> {
        let fault = |source| StoreFault::of(&self.path, source);
        let number = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application, version) =
            (number("application_id").map_err(fault)?, number("user_version").map_err(fault)?);
        match (application, version) {
            (APPLICATION, found) if found > VERSION => {
                Err(StoreFault::Newer { path: self.path.clone(), found, known: VERSION })
            }
            (APPLICATION, _) => Ok(false),
            (0, 0) => Ok(true),
            _ => Err(StoreFault::NotOurs { path: self.path.clone() }),
        }
    }

    fn configure(&self, is_new: bool) -> rusqlite::Result<()> {
        let db = &self.connection;
        db.busy_timeout(PATIENCE)?;
        if is_new {
            // Before the first table, or it has no effect but a write.
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "cell_size_check", true)?;
        db.pragma_update(None, "journal_size_limit", MAX_LOG_BYTES)
    }

    fn make_tables(&mut self) -> rusqlite::Result<()> {
        let version: i64 = self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == VERSION {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(audit::TABLE)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()
    }

    /// What is in it is keyed by what `proofs` prove: these have to be among the secrets.
    pub(super) fn key_by(&mut self, secrets: &Secrets, proofs: &[u8]) -> Result<(), StoreFault> {
        let path = self.path.clone();
        self.keyed_by = secrets.keyed_by(proofs).map_err(|fault| match fault {
            SecretFault::Other => StoreFault::OtherSecret { path },
            SecretFault::LeftOut => StoreFault::SecretLeftOut { path },
        })?;
        Ok(())
    }

    fn fact(&self, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM fact WHERE name = ?1")?;
        statement.query_row([name], |row| row.get(0)).optional()
    }

    /// All facts by their names.
    pub(super) fn facts(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreFault> {
        let read = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare("SELECT name, value FROM fact")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(|source| StoreFault::of(&self.path, source))
    }

    /// Writes a fact; within [`Database::change`].
    pub(super) fn set_fact(&self, name: &str, value: &[u8]) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached("INSERT OR REPLACE INTO fact VALUES (?1, ?2)")?;
        statement.execute(params![name, value]).map(drop)
    }

    /// The latest moment that was written: time does not run backwards for a session, over restarts neither (R1).
    pub(super) fn latest(&self) -> Result<Moment, StoreFault> {
        let stored = self.fact("latest").map_err(|source| StoreFault::of(&self.path, source))?;
        let Some(stored) = stored else { return Ok(Moment::default()) };
        let bytes = <[u8; 8]>::try_from(stored.as_slice());
        bytes.map(|bytes| Moment::from_unix_ms(u64::from_le_bytes(bytes))).map_err(|_| StoreFault::Damaged {
            path: self.path.clone(),
            what: "its latest moment is none".to_owned(),
        })
    }

    /// Every entry of the audit, oldest first.
    pub(super) fn entries<E: From<StoreFault>>(
        &self,
        mut each: impl FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let fault = |source| E::from(StoreFault::of(&self.path, source));
        let mut statement = self.connection.prepare(audit::EVERYTHING).map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            each(audit::found(row).map_err(fault)?)?;
        }
        Ok(())
    }

    /// Whether it can be written to at all: better known at the start than at the first sign-in.
    pub(super) fn begin_writing(&mut self) -> Result<(), StoreFault> {
        let latest = self.latest()?;
        let write = self.change(latest, |database| database.set_fact("secret", &database.keyed_by));
        let tidies = |()| self.connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop);
        write.and_then(tidies).map_err(|source| StoreFault::of(&self.path, source))
    }

    /// About how many sessions are stored: slots are used again. Never more than the file has room for.
    pub(super) fn about_how_many(&self) -> Result<usize, StoreFault> {
        let highest = "SELECT COALESCE(MAX(slot), 0) FROM session";
        let highest: rusqlite::Result<i64> = self.connection.query_row(highest, [], |row| row.get(0));
        let highest = highest.map_err(|source| StoreFault::of(&self.path, source))?;
        let bytes = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let most = usize::try_from(bytes / LEAST_ROW_BYTES).unwrap_or(usize::MAX);
        Ok(usize::try_from(highest).unwrap_or(0).min(most))
    }

    /// Every stored session in the order of the slots, in portions.
    pub(super) fn sessions<R>(
        &self,
        read: impl FnOnce(&mut dyn FnMut() -> Result<Option<Portion>, StoreFault>) -> Result<R, StoreFault>,
    ) -> Result<R, StoreFault> {
        let fault = |source| StoreFault::of(&self.path, source);
        let mut statement = self.connection.prepare(EVERYTHING).map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        read(&mut || {
            let mut portion = Portion::default();
            while portion.len() < PORTION {
                let Some(row) = rows.next().map_err(fault)? else { break };
                // Of another type than was written: SQLite reads a page that is not there as zeros.
                portion.push(row_of(row).map_err(|_| StoreFault::Damaged {
                    path: self.path.clone(),
                    what: "a row of its table session is not what was written".to_owned(),
                })?);
            }
            Ok((portion.len() > 0).then_some(portion))
        })
    }

    /// Changes rows in one transaction, which is safe when this returns.
    pub(super) fn change(
        &mut self,
        now: Moment,
        change: impl FnOnce(&Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let confirmed = self.confirmed + 1;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let changed = change(self)
            .and_then(|()| self.set_fact("latest", &now.unix_ms().to_le_bytes()))
            .and_then(|()| self.set_fact("confirmed", &confirmed.to_le_bytes()))
            .and_then(|()| self.connection.execute_batch("COMMIT"));
        if changed.is_err() && !self.connection.is_autocommit() {
            // Some faults end the transaction by themselves.
            self.connection.execute_batch("ROLLBACK")?;
        }
        changed?;
        self.confirmed = confirmed;
        self.tally.note(confirmed);
        Ok(())
    }

    /// Writes a row; within [`Database::change`].
    pub(super) fn put(&self, table: &Rows, slot: u32, bytes: &[u8]) -> rusqlite::Result<()> {
        self.connection.prepare_cached(table.put)?.execute(params![slot, bytes]).map(drop)
    }

    /// Removes a row; within [`Database::change`].
    pub(super) fn remove(&self, table: &Rows, slot: u32) -> rusqlite::Result<()> {
        self.connection.prepare_cached(table.remove)?.execute([slot]).map(drop)
    }

    /// Writes an entry of the audit; within [`Database::change`].
    pub(super) fn put_entry(&self, entry: &Entry) -> rusqlite::Result<()> {
        audit::write(&self.connection, entry)
    }

    /// Writes an entry that was found elsewhere; within [`Database::change`].
    pub(super) fn put_found(&self, found: &Found) -> rusqlite::Result<()> {
        audit::write_found(&self.connection, found)
    }

    /// Removes entries of the audit from before `oldest`, and gives room back that nothing uses any more; a little at a time.
    /// Returns whether there was anything.
    pub(super) fn give_back(&self, oldest: Moment) -> rusqlite::Result<bool> {
        if audit::trim(&self.connection, oldest)? {
            return Ok(true);
        }
        let free: i64 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free < PAGES_AT_ONCE {
            return Ok(false);
        }
        self.connection.pragma_update(None, "incremental_vacuum", PAGES_AT_ONCE)?;
        Ok(true)
    }
}

/// One of the tables that are keyed by slots.
pub(super) struct Rows {
    put: &'static str,
    remove: &'static str,
}

macro_rules! rows {
    ($name:literal) => {
        Rows {
            put: concat!("INSERT OR REPLACE INTO ", $name, " VALUES (?1, ?2)"),
            remove: concat!("DELETE FROM ", $name, " WHERE slot = ?1"),
        }
    };
}

/// Records of sessions.
pub(super) const SESSIONS: Rows = rows!("session");
/// Jars, encrypted.
pub(super) const JARS: Rows = rows!("jar");
/// The activity of sessions, where it came after their record was written.
pub(super) const ACTIVITY: Rows = rows!("activity");

fn row_of<'row>(row: &'row rusqlite::Row<'_>) -> rusqlite::Result<Row<'row>> {
    let bytes = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_blob_or_null()?);
    let record = row.get_ref(1)?.as_blob()?;
    Ok(Row { slot: row.get(0)?, record, activity: bytes(2)?, jar: bytes(3)? })
}

/// How often the lock is tried, and how far apart: half a second in all. Whoever held it may be leaving just now, and a program
/// that starts another has its open files twice until that one has begun.
const LOCK_LOOKS: u32 = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// SQLite's own locks are for each transaction; this one says that a gateway lives here.
fn lock(path: &Path) -> Result<File, StoreFault> {
    let directory = |source| StoreFault::Directory { path: path.to_path_buf(), source };
    let lock = private(&path.join("lock")).map_err(directory)?;
    let mut looks = LOCK_LOOKS;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if looks > 0 => std::thread::sleep(BETWEEN_LOOKS),
            Err(TryLockError::WouldBlock) => return Err(StoreFault::InUse { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(directory(source)),
        }
        looks -= 1;
    }
}

/// An empty file, or none, is a new database to SQLite, which throws its log away. It is one only where nothing else of ours
/// is: the secret is made after the first table, and the log after the first page. Who takes sessions in from elsewhere
/// brings their secret along.
fn check_content(path: &Path, purpose: Purpose) -> Result<(), StoreFault> {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let file = file_in(path);
    let has_secret = || purpose == Purpose::Serve && bytes(&secret::file_in(path)) > 0;
    let has_been_used = bytes(&file.with_extension("db-wal")) > 0 || has_secret();
    if bytes(&file) == 0 && has_been_used {
        let what = "it is empty or gone, and what lies beside it says that it has not always been".to_owned();
        return Err(StoreFault::Damaged { path: file, what });
    }
    Ok(())
}

fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
