//! Tables over Redis. What a test leaves there is what another gateway finds: compared when the test is over.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenure::clock::{Clock, Stopwatch};
use tenure::session::gate::Standing;
use tenure::session::identity::Identity;
use tenure::session::record::{AppId, Image};
use tenure::session::{Moment, Policy, Span, TokenKey};
use tenure::store::{
    Book, Enrolled, Newcomer, Observer, Redis, RedisFault, RedisOpened, RedisOpening, SessionRef, Table,
    Trouble,
};

use crate::redis_support::Server;
use crate::store_support::{AT, Recorder, book};

pub(super) struct Kept {
    table: Arc<Table>,
    redis: Option<Redis>,
    server: Server,
    clock: Clock,
    book: Mutex<Book>,
    runtime: tokio::runtime::Runtime,
}

impl Kept {
    pub(super) fn set_book(&self, book: Book, now: Moment) {
        *self.book.lock() = book.clone();
        self.table.set_book(book, now);
        self.settle(now);
    }

    /// As a request sees the token: what seems idle is asked for first.
    pub(super) fn look_up(&self, key: TokenKey, now: Moment) -> (Standing, Option<SessionRef>) {
        if self.table.look_up(key, now).0 == Standing::Unavailable {
            self.settle(now);
        }
        self.table.look_up(key, now)
    }

    pub(super) fn note_request(&self, session: &SessionRef, key: TokenKey, touch: bool, now: Moment) -> bool {
        self.look_up(key, now);
        self.table.note_request(session, key, touch, now)
    }

    /// As an answer that names a user: what others know of that user is met first.
    pub(super) fn sign_in(&self, newcomer: &Newcomer, identity: Identity, now: Moment) -> Enrolled {
        self.meet(newcomer.app, &identity, now);
        self.table.sign_in(newcomer, identity, now)
    }

    fn meet(&self, app: AppId, identity: &Identity, now: Moment) {
        self.runtime.block_on(self.table.meet(app, identity, now));
    }

    pub(super) fn sweep(&self, now: Moment) -> usize {
        let looked_at = self.table.sweep(now);
        self.settle(now);
        looked_at
    }

    /// The store is asked for all that seems idle at `now`, and has said so.
    fn settle(&self, now: Moment) {
        self.clock.advance(now.since(self.clock.now()));
        for _ in 0..2 {
            self.table.sweep(now);
            self.runtime.block_on(self.table.safe()).expect("it is stored");
        }
    }
}

fn open_in(server: &Server, clock: &Clock, book: &Book, observer: Arc<dyn Observer>) -> RedisOpened {
    let opening = RedisOpening {
        settings: &server.settings(),
        secrets: Some([7; 32].into()),
        clock: clock.clone(),
        trouble: Arc::new(Trouble::default()),
        patience: Span::ZERO,
    };
    Redis::open::<RedisFault>(&opening, |_| Ok(book.clone()), observer).expect("the store opens")
}

pub(super) fn open(book: Book, observer: Arc<dyn Observer>) -> Kept {
    let (server, clock) = (Server::start(), Clock::manual(AT));
    let RedisOpened { table, redis, .. } = open_in(&server, &clock, &book, observer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Kept { table, redis: Some(redis), server, clock, book: Mutex::new(book), runtime }
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

/// The sessions that every gateway follows. How many requests there were is known where they were.
fn images(table: &Table) -> Vec<Image> {
    let mut images = table.images();
    images.retain(|image| image.identity.is_some());
    images.iter_mut().for_each(|image| image.requests = 0);
    images.sort_by_key(|image| image.id);
    images
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        drop(self.redis.take());
        let left = images(&self.table);
        let found = open_in(&self.server, &self.clock, &self.book.lock(), Arc::new(Recorder::default()));
        let began = Stopwatch::start();
        while images(&found.table) != left && began.elapsed_us() < 5_000_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(images(&found.table), left);
    }
}
