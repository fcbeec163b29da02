//! Tables in the embedded store. What a test leaves there is what the next process finds: compared when the test is over.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tenure::clock::Clock;
use tenure::session::record::Image;
use tenure::session::{Moment, Policy};
use tenure::store::{Book, Disk, Observer, Opened, Opening, Table, Trouble};

use crate::store_support::{AT, Recorder, book};

pub(super) struct Kept {
    table: Arc<Table>,
    disk: Option<Disk>,
    place: TempDir,
    book: Mutex<Book>,
}

impl Kept {
    pub(super) fn set_book(&self, book: Book, now: Moment) {
        *self.book.lock() = book.clone();
        self.table.set_book(book, now);
    }
}

fn open_in(place: &TempDir, book: Book, observer: Arc<dyn Observer>) -> Opened {
    let trouble = Arc::new(Trouble::default());
    let clock = Clock::manual(AT);
    let opening = Opening { path: &place.path().join("data"), secrets: None, clock, trouble };
    Disk::open(&opening, book, observer).expect("the store opens")
}

pub(super) fn open(book: Book, observer: Arc<dyn Observer>) -> Kept {
    let place = tempfile::tempdir().expect("a directory");
    let Opened { table, disk, .. } = open_in(&place, book.clone(), observer);
    Kept { table, disk: Some(disk), place, book: Mutex::new(book) }
}

pub(super) fn table(base: Policy) -> Kept {
    open(book(base), Arc::new(Recorder::default()))
}

impl Deref for Kept {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

fn images(table: &Table) -> Vec<Image> {
    let mut images = table.images();
    images.sort_by_key(|image| image.id);
    images
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        drop(self.disk.take());
        let left = images(&self.table);
        let found = open_in(&self.place, self.book.lock().clone(), Arc::new(Recorder::default()));
        assert_eq!(images(&found.table), left);
    }
}
