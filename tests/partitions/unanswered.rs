//! A write that the store carries out, and of which its gateway never hears so; then the store loses it. No seed: told step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tenure::config::Redis;
use tenure::session::gate::Standing;
use tenure::session::{Moment, OnLimit, Span};
use tenure::store::{Enrolled, SessionRef};
use tokio::runtime::Runtime;

use crate::checks::eventually;
use crate::link::{Flow, Link};
use crate::redis_support::Server;
use crate::replica::{Replica, Terms, Told};
use crate::server::{self, Database};
use crate::store_support::{AT, identity};
use crate::world::one;

/// The store, and what gateways reach it by.
struct Store {
    settings: Redis,
    database: Database,
    losses: Arc<AtomicU32>,
    links: Runtime,
}

impl Store {
    fn of(server: &Server) -> Self {
        server::admit_operators(server);
        let settings = server.settings();
        let database = Database::open(settings.nodes[0].port, 0);
        Self { settings, database, losses: Arc::default(), links: Runtime::new().unwrap() }
    }

    /// A gateway that begins now, behind a link of its own.
    fn gateway(&self, number: u32, now: Moment) -> (Link, Replica) {
        let link = Link::to(self.settings.nodes[0].port, &self.losses, self.links.handle());
        let mut settings = self.settings.clone();
        settings.nodes[0].port = link.port;
        let terms = Terms { idle: 10, max: 0, on_limit: OnLimit::EndOldest };
        (link, Replica::open(&settings, (number, now), terms, &Arc::new(Told::default())))
    }

    fn has_all_of(&self, gateway: &Replica) {
        eventually("it is stored", || self.links.block_on(gateway.table.safe()).is_ok());
    }

    fn knows(&self, gateway: &Replica, n: u64) -> bool {
        matches!(self.links.block_on(gateway.look(n)).0, Standing::Live { .. })
    }
}

fn sign_in(gateway: &Replica, user: &str, n: u64) -> SessionRef {
    let enrolled = gateway.table.sign_in(&one(n), identity(user), gateway.now());
    let Enrolled::Active(session) = enrolled else { panic!("nobody holds it back") };
    session
}

/// Another gateway may have followed it and stored what the app changed since: with a new date it would be a later sign-in
/// there, and undo that.
#[test]
fn a_sign_in_keeps_its_date_where_nobody_knows_whether_the_store_took_it() {
    let server = Server::start();
    let mut store = Store::of(&server);
    let (link, ours) = store.gateway(1, AT);
    // The server has the scripts from now on.
    sign_in(&ours, "bob", 3);
    store.has_all_of(&ours);
    let before = store.database.held();

    link.set(Flow::DeafToStoring);
    let session = sign_in(&ours, "ann", 1);
    let (_their_link, others) = store.gateway(2, AT);
    eventually("another gateway hears of it", || store.knows(&others, 1));
    assert_eq!(link.flow(), Flow::Deaf, "the answer was held back");
    drop(others);

    link.set(Flow::Cut);
    let severed = link.sever(false);
    store.database.hang_up(severed.names());
    drop(severed);
    store.database.fall_back(&before);
    store.losses.fetch_add(1, Ordering::AcqRel);
    let (_link, theirs) = store.gateway(3, AT.plus(Span::from_ms(150)));
    sign_in(&theirs, "ann", 2);
    store.has_all_of(&theirs);
    assert!(!store.knows(&theirs, 1), "the store has lost it");

    link.set(Flow::Passes);
    eventually("each knows both", || store.knows(&theirs, 1) && store.knows(&ours, 2));
    let signed_in_at = ours.table.inspect(&session, ours.now(), |s| s.times.signed_in_at);
    assert_eq!(signed_in_at, Some(AT));
}
