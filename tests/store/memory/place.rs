//! Tables in memory alone.

use std::sync::Arc;

use tenure::session::Policy;
use tenure::store::{Book, Observer, Table};

use crate::store_support::{Recorder, book};

pub(super) fn open(book: Book, observer: Arc<dyn Observer>) -> Table {
    Table::new(book, observer)
}

pub(super) fn table(base: Policy) -> Table {
    open(book(base), Arc::new(Recorder::default()))
}
