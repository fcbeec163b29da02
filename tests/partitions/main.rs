//! Several gateways over one store while links break, stand still and lose announcements, gateways crash, and the store loses
//! what it held or falls back to what it held before: seeded, beside a naive model.
//!
//! A seed decides what users, operators and faults do; how threads interleave is left to the machine. Each seed has a
//! database of one server to itself and a link of its own between each gateway and it, so that many run at once and their
//! waiting costs no time. `TENURE_SEEDS=1000` runs that many seeds, from `TENURE_FROM=3001` on where that is set; `TENURE_SEED=42`
//! replays one, and with `TENURE_SEEDS` so many times. `TENURE_AT_ONCE=64` says how many at once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod acts;
mod checks;
mod faults;
mod link;
mod model;
#[path = "../support/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod random;
#[path = "../redis_support/mod.rs"]
mod redis_support;
mod remains;
mod replica;
mod server;
#[path = "../store_support/mod.rs"]
mod store_support;
mod unanswered;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis_support::Server;
use tokio::runtime::{Handle, Runtime};
use world::{Place, World};

const ROUNDS: usize = 3;
const STEPS: usize = 25;

/// How many seeds are run where nobody says otherwise.
const USUAL: u64 = 40;

/// Seeds that found something once: they are run before all others.
const FOUND: [u64; 16] =
    [49, 77, 185, 197, 228, 276, 422, 1159, 1313, 1462, 3597, 4468, 5458, 7115, 8622, 9610];

/// So many failures are enough to look at.
const ENOUGH: usize = 10;

fn run(seed: u64, place: &Place) {
    let mut world = World::new(seed, place);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..ROUNDS {
            world.plan_faults();
            for _ in 0..STEPS {
                world.step();
            }
            world.come_to_rest();
        }
        world.end_all();
    }));
    if let Err(panic) = outcome {
        let why = panic.downcast_ref::<String>().map_or("see above", String::as_str);
        world.tell_what_is_known();
        println!("seed {seed} failed: {why}\n{}\nseed {seed} failed: {why}", world.story());
        std::panic::resume_unwind(panic);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// What is to run: seeds, one after the other, or one again and again.
struct Runs {
    first: u64,
    count: u64,
    is_one: bool,
    next: AtomicU64,
    failed: Mutex<Vec<u64>>,
}

impl Runs {
    fn new() -> Self {
        let (one, count) = (number("TENURE_SEED"), number("TENURE_SEEDS"));
        Self {
            first: one.or(number("TENURE_FROM")).unwrap_or(1),
            count: match one {
                Some(_) => count.unwrap_or(1),
                None => count.unwrap_or(USUAL) + FOUND.len() as u64,
            },
            is_one: one.is_some(),
            next: AtomicU64::new(0),
            failed: Mutex::default(),
        }
    }

    fn take(&self) -> Option<u64> {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = nth < self.count && self.failed.lock().len() < ENOUGH;
        let found = usize::try_from(nth).ok().and_then(|nth| FOUND.get(nth).copied());
        goes_on.then(|| match (self.is_one, found) {
            (true, _) => self.first,
            (false, Some(found)) => found,
            (false, None) => self.first + nth - FOUND.len() as u64,
        })
    }

    fn run(&self, place: &Place, links: &Handle) {
        let _links = links.enter();
        while let Some(seed) = self.take() {
            if std::panic::catch_unwind(|| run(seed, place)).is_err() {
                self.failed.lock().push(seed);
            }
        }
    }
}

#[test]
fn gateways_agree_with_the_naive_model_whatever_breaks() {
    let runs = Runs::new();
    let at_once = number("TENURE_AT_ONCE").unwrap_or(32).min(runs.count);
    let server = Server::with(&["--databases", "1024"]);
    server::admit_operators(&server);
    let links = Runtime::new().unwrap();
    std::thread::scope(|scope| {
        for slot in 0..at_once {
            let place = Place { settings: server.settings(), database: u32::try_from(slot).unwrap() };
            let (runs, links) = (&runs, links.handle());
            scope.spawn(move || runs.run(&place, links));
        }
    });
    let failed = runs.failed.into_inner();
    assert!(failed.is_empty(), "replay with TENURE_SEED=n, one of {failed:?}");
    assert!(runs.next.into_inner() > 0, "no seed was run");
}
