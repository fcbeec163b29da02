//! The embedded store: a SQLite database in a directory of its own, written by one thread.
//!
//! A request never waits for it. What has to be safe before it is answered (a sign-in, an end) waits for the commit of the
//! batch that holds it; activity is written behind. `synchronous=FULL`: what was confirmed survives a power cut.

mod audit;
mod carry;
mod database;
mod fault;
mod load;
mod secret;
mod tally;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

pub(super) use audit::AuditFile;
pub use carry::{export, import};
pub use fault::StoreFault;

use super::audit::Audit;
use super::book::Book;
use super::journal::Journal;
use super::lasting::Backing;
use super::seal::Sealer;
use super::secrets::Secrets;
use super::table::Table;
use super::{Observer, Trouble};
use crate::clock::Clock;
use database::{Database, Purpose};
use load::Portion;
use write::{Slots, Writer};

/// The store of one gateway. Dropped, it writes what is left and lets the directory go.
pub struct Disk {
    journal: Arc<Journal>,
    writer: Option<JoinHandle<()>>,
}

/// A store that was opened, with what is in it.
pub struct Opened {
    /// The sessions.
    pub table: Arc<Table>,
    /// What keeps them.
    pub disk: Disk,
    /// What keys the hashes of tokens.
    pub secrets: Secrets,
    /// What the machine's clock must not be behind: the latest moment that the store has seen.
    pub clock: Clock,
    /// What was kept by [`Table::keep_fact`].
    pub facts: BTreeMap<String, Vec<u8>>,
}

/// Where and how to open the store.
pub struct Opening<'a> {
    /// `[store] path`.
    pub path: &'a Path,
    /// What keys the hashes of tokens; `None` for the directory's own.
    pub secrets: Option<Secrets>,
    /// The machine's time; the store may know a later one.
    pub clock: Clock,
    /// Told how the store fares.
    pub trouble: Arc<Trouble>,
}

impl Disk {
    /// Opens the store, or makes it, and takes in what it holds.
    ///
    /// # Errors
    /// [`StoreFault`]: the directory or the database cannot be used; nothing is changed then.
    pub fn open(
        opening: &Opening<'_>,
        book: Book,
        observer: Arc<dyn Observer>,
    ) -> Result<Opened, StoreFault> {
        Self::open_under(opening, |_| Ok(book), observer)
    }

    /// The same, where the book follows from facts that are kept: sessions are held to it as soon as they are taken in.
    ///
    /// # Errors
    /// [`StoreFault`], or what `book` says of the facts.
    pub fn open_under<E: From<StoreFault>>(
        opening: &Opening<'_>,
        book: impl FnOnce(&BTreeMap<String, Vec<u8>>) -> Result<Book, E>,
        observer: Arc<dyn Observer>,
    ) -> Result<Opened, E> {
        let secrets = opening.secrets.clone();
        let (mut database, secrets) = Database::open(opening.path, secrets, Purpose::Serve)?;
        let clock = opening.clock.not_before(database.latest()?);
        let facts = database.facts()?;
        let book = book(&facts)?;
        let journal = Journal::new();
        let audit = Audit::on_disk(Arc::clone(&journal), database.path.clone());
        let sealer = Sealer::new(&secrets);
        let expected = database.about_how_many()?;
        let backing = Backing { journal: Some(Arc::clone(&journal)), audit, sharing: None, expected };
        let table = Arc::new(Table::with_backing(book, observer, backing));
        let mut slots = Slots::default();
        database.sessions(|next| {
            let next = || {
                let portion = next()?;
                portion.iter().flat_map(Portion::slots).for_each(|slot| slots.is_used(slot));
                Ok(portion)
            };
            let read = |portion: Portion| {
                portion.rows().map(|row| load::read(&database.path, &sealer, row)).collect()
            };
            table.restore(next, read, clock.now())
        })?;
        database.begin_writing()?;
        let writer =
            Writer::new(database, &table, sealer, slots, clock.clone(), Arc::clone(&opening.trouble));
        let spawned = std::thread::Builder::new().name("store".into()).spawn({
            let journal = Arc::clone(&journal);
            move || writer.run(&journal)
        });
        let writer = spawned.map_err(|source| StoreFault::Thread { source })?;
        Ok(Opened { table, disk: Self { journal, writer: Some(writer) }, secrets, clock, facts })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.journal.close();
        if let Some(writer) = self.writer.take() {
            let _it_has_logged_why = writer.join();
        }
    }
}

fn file_in(path: &Path) -> PathBuf {
    path.join("sessions.db")
}
