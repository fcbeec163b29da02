//! Tables in memory alone.

use std::sync::Arc;

use tenure::session::Policy;
use tenure::store::{Book, Observer, Table};

use crate::store_support::{Recorder, book};

pub(super) type Kept = Table;

pub(super) fn open(book: Book, observer: Arc<dyn Observer>) -> Kept {
    Table::new(book, observer)
}

pub(super) fn table(base: Policy) -> Kept {
    open(book(base), Arc::new(Recorder::default()))
}
