//! Several gateways over one store: their tables alone, without any network but that to the store.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod carrying;
mod lost;
#[path = "../redis_support/mod.rs"]
mod redis_support;
mod secured;
#[path = "../store_support/mod.rs"]
mod store_support;
mod upgrade;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use redis_support::{Cluster, Sentinels, Server};
use store_support::{AT, Recorder, book, identity, key, newcomer, secs};
use tenure::clock::{Clock, Stopwatch};
use tenure::config;
use tenure::session::gate::Standing;
use tenure::session::record::AppId;
use tenure::session::{EndReason, OnLimit, Policy, Span};
use tenure::store::{
    Enrolled, Observer, Redis, RedisFault, RedisOpened, RedisOpening, SessionRef, Table, Trouble,
};

/// What keys the tokens of all.
const SECRET: [u8; 32] = [7; 32];

struct Gateway {
    table: Arc<Table>,
    clock: Clock,
    trouble: Arc<Trouble>,
    recorder: Arc<Recorder>,
    redis: Redis,
}

fn gateway(settings: &config::Redis, policy: Policy, clock: &Clock) -> Gateway {
    let (trouble, recorder) = (Arc::new(Trouble::default()), Arc::new(Recorder::default()));
    let opening = RedisOpening {
        settings,
        secrets: Some(SECRET.into()),
        clock: clock.clone(),
        trouble: Arc::clone(&trouble),
        // Two beats of a gateway: as long as it takes until the others have said that they are there.
        patience: Span::from_ms(1200),
    };
    let observer: Arc<dyn Observer> = Arc::clone(&recorder) as _;
    let opened = Redis::open::<RedisFault>(&opening, |_| Ok(book(policy)), observer);
    let RedisOpened { table, redis, clock, .. } = opened.expect("the store opens");
    Gateway { table, clock, trouble, recorder, redis }
}

/// A gateway that may not come about.
fn try_gateway(settings: &config::Redis, secret: [u8; 32]) -> Result<RedisOpened, RedisFault> {
    let (trouble, patience) = (Arc::new(Trouble::default()), Span::from_ms(1200));
    let opening =
        RedisOpening { settings, secrets: Some(secret.into()), clock: Clock::manual(AT), trouble, patience };
    Redis::open::<RedisFault>(&opening, |_| Ok(book(Policy::default())), Arc::new(Recorder::default()))
}

fn gateways<const N: usize>(server: &Server, policy: Policy) -> [Gateway; N] {
    gateways_at(&server.settings(), policy)
}

fn gateways_at<const N: usize>(settings: &config::Redis, policy: Policy) -> [Gateway; N] {
    let clock = Clock::manual(AT);
    std::array::from_fn(|_| gateway(settings, policy, &clock))
}

/// Waits for what happens in the background.
async fn until(what: &str, is_so: impl FnMut() -> bool) -> Duration {
    within(20, what, is_so).await
}

async fn within(seconds: u64, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Stopwatch::start();
    while !is_so() {
        assert!(began.elapsed_us() < seconds * 1_000_000, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Duration::from_micros(began.elapsed_us())
}

async fn all_are_well(gateways: &[&Gateway]) {
    until("all is well again", || gateways.iter().all(|g| g.trouble.lasts(g.clock.now()).is_none())).await;
}

impl Gateway {
    /// As a request sees the token.
    async fn look(&self, n: u64) -> Standing {
        let now = self.clock.now();
        let silent = self
            .table
            .ask(&[key(n)], std::net::IpAddr::from([192, 0, 2, u8::try_from(n % 251).unwrap()]), now)
            .await;
        match self.table.look_up(key(n), now).0 {
            Standing::Unseen if !silent.is_empty() => Standing::Unavailable,
            standing => standing,
        }
    }

    /// What is said of it once the store can be believed.
    async fn judged(&self, n: u64) -> Standing {
        let began = Stopwatch::start();
        loop {
            match self.look(n).await {
                Standing::Unavailable => assert!(began.elapsed_us() < 20_000_000, "{n} is never judged"),
                standing => return standing,
            }
            // One address may not ask often.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    async fn is_live(&self, n: u64) -> bool {
        matches!(self.look(n).await, Standing::Live { .. })
    }

    async fn sign_in(&self, user: &str, n: u64) -> SessionRef {
        let now = self.clock.now();
        self.table.meet(AppId(0), &identity(user), now).await;
        let enrolled = self.table.sign_in(&newcomer(&[n]), identity(user), now);
        self.table.safe().await.expect("it is stored");
        match enrolled {
            Enrolled::Active(session) | Enrolled::Pending(session) => session,
            Enrolled::Over => panic!("over"),
        }
    }
}

fn limit(max: u32, on_limit: OnLimit) -> Policy {
    Policy { max_concurrent: NonZeroU32::new(max), on_limit, ..Policy::default() }
}

/// How much of something, unless the environment says otherwise.
fn more(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn a_session_is_known_to_every_gateway() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    a.sign_in("ann", 1).await;
    assert!(b.is_live(1).await);
    assert_eq!(b.look(2).await, Standing::Unseen);
}

/// An operator who ends a user's sessions through it is not told that there are none.
#[tokio::test]
async fn a_gateway_that_begins_knows_all_users_sessions() {
    let server = Server::start();
    let [a] = gateways(&server, Policy::default());
    for n in 1..=1000 {
        a.table.sign_in(&newcomer(&[n]), identity(&format!("user{n}")), AT);
    }
    while a.table.safe().await.is_err() {}
    let [b] = gateways(&server, Policy::default());
    assert_eq!((b.table.counts().signed_in, b.trouble.has_read_all()), (1000, true));
}

#[tokio::test]
async fn an_end_is_in_force_everywhere() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    let session = a.sign_in("ann", 1).await;
    assert!(b.is_live(1).await);
    a.table.end(&session, EndReason::Revoked, None, AT);
    let took = until("the end", || matches!(b.table.look_up(key(1), AT).0, Standing::Ended { .. })).await;
    println!("{took:?}");
    assert_eq!((a.recorder.ends(), b.recorder.ends()), (vec![EndReason::Revoked], vec![]), "it is told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_no_more_sessions_than_the_limit_whichever_gateways_admit_them() {
    const TASKS: u64 = 64;
    let each = more("TENURE_SIGN_INS", 20);
    let server = Server::start();
    let gateways: Arc<[Gateway; 3]> = Arc::new(gateways(&server, limit(3, OnLimit::EndOldest)));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let gateways = Arc::clone(&gateways);
        tasks.spawn(async move {
            for n in 0..each {
                let gateway = &gateways[usize::try_from((task + n) % 3).unwrap()];
                gateway.sign_in("ann", task * each + n + 1).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // What one gateway ended is in force at the others within the time of a push (R21).
    let stands =
        |gateway: &Gateway, n: u64| matches!(gateway.table.look_up(key(n), AT).0, Standing::Live { .. });
    let live_at = |gateway: &Gateway| (1..=TASKS * each).filter(|n| stands(gateway, *n)).collect::<Vec<_>>();
    until("they agree", || {
        let live = live_at(&gateways[0]);
        live.len() == 3 && gateways.iter().all(|gateway| live_at(gateway) == live)
    })
    .await;
    let mut live = Vec::new();
    for n in 1..=TASKS * each {
        live.extend(gateways[2].is_live(n).await.then_some(n));
    }
    assert_eq!(live.len(), 3, "{live:?}");
}

#[tokio::test]
async fn who_was_active_elsewhere_is_not_idle() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    let session = a.sign_in("ann", 1).await;
    assert!(b.is_live(1).await);
    a.clock.advance(secs(50));
    assert!(a.table.note_request(&session, key(1), true, a.clock.now()));
    a.table.safe().await.unwrap();
    b.clock.advance(secs(10));
    assert!(b.is_live(1).await);
    b.table.sweep(b.clock.now());
    assert_eq!(b.recorder.ends(), []);
    b.clock.advance(secs(50));
    assert!(matches!(b.look(1).await, Standing::Ended { reason: EndReason::IdleTimeout, .. }));
    until("the end is told", || b.recorder.ends() == [EndReason::IdleTimeout]).await;
    assert!(matches!(a.look(1).await, Standing::Ended { reason: EndReason::IdleTimeout, .. }));
    a.table.safe().await.unwrap();
    assert_eq!(a.recorder.ends(), [], "it is told once");
}

/// As the program does it: the policy's fact is kept, and whoever hears of it takes it on.
fn follow_idle_timeout(gateway: &Gateway) {
    let (table, clock) = (Arc::downgrade(&gateway.table), gateway.clock.clone());
    gateway.redis.on_facts(Box::new(move |facts| {
        if let (Some(table), Some(fact)) = (table.upgrade(), facts.get("idle")) {
            table.set_book(book(idle_after(u64::from(fact[0]))), clock.now());
        }
    }));
}

fn idle_after(seconds: u64) -> Policy {
    Policy { idle_timeout: Some(secs(seconds)), ..Policy::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stricter_policy_ends_nobody_who_was_active_elsewhere() {
    let server = Server::start();
    let [a, b] = gateways(&server, idle_after(120));
    let session = a.sign_in("ann", 1).await;
    let idle = a.sign_in("ann", 2).await;
    assert!(b.is_live(1).await && b.is_live(2).await);
    let active = |seconds| {
        a.clock.advance(secs(seconds));
        assert!(a.table.note_request(&session, key(1), true, a.clock.now()));
    };
    active(100);
    a.table.safe().await.unwrap();
    a.clock.advance(secs(20));
    assert!(b.is_live(1).await, "b asks, and hears of what was 20 s ago");
    active(20);
    a.table.safe().await.unwrap();
    active(1);
    a.clock.advance(secs(10));
    // Nobody else knows of the last.
    [&a, &b].into_iter().for_each(follow_idle_timeout);
    b.table.keep_fact("idle", vec![11]);
    b.table.set_book(book(idle_after(11)), b.clock.now());
    b.table.sweep(b.clock.now());
    assert!(matches!(b.judged(1).await, Standing::Live { .. }));
    assert!(matches!(b.judged(2).await, Standing::Ended { reason: EndReason::IdleTimeout, .. }));
    until("it is heard", || a.table.inspect(&idle, a.clock.now(), |s| s.is_over())).await;
    assert!(a.is_live(1).await);
}

#[tokio::test]
async fn beyond_the_limit_one_of_two_gateways_holds_back() {
    let server = Server::start();
    let [a, b] = gateways(&server, limit(1, OnLimit::Refuse));
    let now = AT;
    let one = a.table.sign_in(&newcomer(&[1]), identity("ann"), now);
    let two = b.table.sign_in(&newcomer(&[2]), identity("ann"), now);
    assert!(matches!((one, two), (Enrolled::Active(_), Enrolled::Active(_))), "neither knows of the other");
    let (first, second) = tokio::join!(a.table.safe(), b.table.safe());
    assert!(first.is_ok() && second.is_ok());
    let standings = [a.look(1).await, b.look(2).await];
    let live = standings.iter().filter(|s| matches!(s, Standing::Live { .. })).count();
    let pending = standings.iter().filter(|s| matches!(s, Standing::Pending { .. })).count();
    assert_eq!((live, pending), (1, 1), "{standings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_signs_nobody_out() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    a.sign_in("ann", 1).await;
    assert!(b.is_live(1).await);
    server.pause();
    assert!(a.is_live(1).await && b.is_live(1).await);
    assert_eq!(b.look(2).await, Standing::Unavailable, "it may be anybody's");
    a.table.sign_in(&newcomer(&[3]), identity("bob"), AT);
    assert!(a.table.safe().await.is_err());
    assert!(a.is_live(3).await);
    assert!(a.trouble.lasts(AT).is_some());
    server.resume();
    until("all is well again", || a.trouble.lasts(AT).is_none() && b.trouble.lasts(AT).is_none()).await;
    assert!(b.is_live(3).await, "what was admitted meanwhile is known");
    assert_eq!(b.judged(2).await, Standing::Unseen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_everything_gets_it_back() {
    let mut server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    a.sign_in("ann", 1).await;
    let bob = b.sign_in("bob", 2).await;
    b.table.end(&bob, EndReason::Revoked, None, AT);
    b.table.safe().await.unwrap();
    server.kill();
    until("it is noticed", || a.trouble.lasts(AT).is_some() && b.trouble.lasts(AT).is_some()).await;
    server.restart();
    all_are_well(&[&a, &b]).await;
    // It may have heard of the sign-in alone before the server died.
    until("the end is known", || matches!(a.table.look_up(key(2), AT).0, Standing::Ended { .. })).await;
    assert!(b.is_live(1).await);
    assert_eq!(a.judged(9).await, Standing::Unseen);
}

/// What is asked of every kind of server.
async fn sessions_are_shared(a: &Gateway, b: &Gateway, first: u64) {
    let n = |nth: u64| first + nth;
    // Of sign-ins of one moment nobody could say which is the oldest.
    a.clock.advance(secs(1));
    let old = a.sign_in("ann", n(0)).await;
    assert!(b.is_live(n(0)).await);
    a.clock.advance(secs(1));
    b.sign_in("ann", n(1)).await;
    a.clock.advance(secs(1));
    a.sign_in("ann", n(2)).await;
    until("the oldest ends", || {
        b.table.by_id(old.id()).is_some_and(|s| b.table.inspect(&s, b.clock.now(), |s| s.is_over()))
    })
    .await;
    assert!(!a.is_live(n(0)).await && b.is_live(n(1)).await && b.is_live(n(2)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_signs_nobody_out() {
    let mut servers = Sentinels::start();
    let [a, b] = gateways_at(&servers.settings(), limit(2, OnLimit::EndOldest));
    sessions_are_shared(&a, &b, 1).await;
    let bob = a.sign_in("bob", 50).await;
    servers.fail_over();
    a.table.end(&bob, EndReason::Revoked, None, a.clock.now());
    until("both know the new primary", || {
        let now = a.clock.now();
        a.trouble.lasts(now).is_none() && b.trouble.lasts(now).is_none()
    })
    .await;
    until("the end is known", || matches!(b.table.look_up(key(50), b.clock.now()).0, Standing::Ended { .. }))
        .await;
    assert!(a.is_live(2).await && b.is_live(3).await);
    sessions_are_shared(&b, &a, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_cluster_may_move() {
    let cluster = Cluster::start();
    let [a, b] = gateways_at(&cluster.settings(), limit(2, OnLimit::EndOldest));
    sessions_are_shared(&a, &b, 1).await;
    for n in 0..20 {
        a.sign_in(&format!("user{n}"), 1000 + n).await;
    }
    cluster.move_slots(4000);
    for n in 0..20 {
        assert!(b.is_live(1000 + n).await, "{n}");
        b.sign_in(&format!("user{n}"), 2000 + n).await;
    }
    for n in 0..20 {
        assert!(a.is_live(2000 + n).await, "{n}");
    }
    sessions_are_shared(&b, &a, 100).await;
}

/// The time from a revocation at one gateway to the end at another: told, not judged (machines differ).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_are_in_force_everywhere_within_moments() {
    let count = more("TENURE_REVOCATIONS", 50);
    let server = Server::start();
    let [a, b, c] = gateways(&server, Policy::default());
    let mut took = Vec::new();
    for n in 1..=count {
        let session = a.sign_in("ann", n).await;
        assert!(b.is_live(n).await && c.is_live(n).await);
        a.table.end(&session, EndReason::Revoked, None, AT);
        let over = |gateway: &Gateway| matches!(gateway.table.look_up(key(n), AT).0, Standing::Ended { .. });
        let (stored, elapsed) = tokio::join!(a.table.safe(), until("the end", || over(&b) && over(&c)));
        stored.expect("it is stored");
        took.push(elapsed);
    }
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    println!(
        "in force at all of 3 gateways: p50 {:?}, p99 {:?}, longest {:?}",
        at(50),
        at(99),
        took[took.len() - 1]
    );
}

/// Announcements are lost: nobody listens, and the logs alone tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_that_is_lost_is_made_good() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    let session = a.sign_in("ann", 1).await;
    assert!(b.is_live(1).await);
    // Whoever may not listen hears nothing.
    server.ask(&["acl", "setuser", "default", "-subscribe"]);
    assert_eq!(server.ask(&["client", "kill", "type", "pubsub"]).trim(), "2");
    a.table.end(&session, EndReason::Revoked, None, AT);
    let took = until("the end", || matches!(b.table.look_up(key(1), AT).0, Standing::Ended { .. })).await;
    println!("made good within {took:?}");
}

#[tokio::test]
async fn one_address_cannot_have_everything_looked_up() {
    let server = Server::start();
    let [a] = gateways(&server, Policy::default());
    let keys: Vec<_> = (1..=300).map(key).collect();
    let (one, other) = (std::net::IpAddr::from([192, 0, 2, 1]), std::net::IpAddr::from([192, 0, 2, 2]));
    assert_eq!(a.table.ask(&keys, one, AT).await.len(), 100, "they are not taken for unseen");
    assert_eq!(a.table.ask(&keys[..10], other, AT).await.len(), 0);
    assert_eq!(a.table.ask(&keys[200..], one, AT.plus(secs(1))).await.len(), 0);
}

#[tokio::test]
async fn nothing_is_left_of_sessions_that_are_over() {
    let count = more("TENURE_SHORT_SESSIONS", 500);
    let server = Server::start();
    let [a] = gateways(&server, Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    for n in 0..count {
        a.table.sign_in(&newcomer(&[n + 1]), identity(&format!("user{}", n % 50)), a.clock.now());
    }
    for n in 0..500 {
        a.table.start(&newcomer(&[1_000_000 + n]), a.clock.now());
    }
    while a.table.safe().await.is_err() {}
    let tokens = server.ask(&["--scan", "--pattern", "tenure:*:t:*"]).lines().count();
    assert_eq!(u64::try_from(tokens).unwrap(), count + 500);
    a.clock.advance(secs(61 + 32 * 24 * 3600));
    let took = within(20 + count / 500, "the ends are stored", || {
        // What the store could not say at once is asked again after a while.
        a.clock.advance(secs(1));
        a.table.sweep(a.clock.now());
        a.table.counts().signed_in + a.table.counts().anonymous + a.table.counts().ended == 0
    })
    .await;
    println!("{count} sessions ended and were forgotten within {took:?}");
    while a.table.safe().await.is_err() {}
    // Every key that is left: those of the store as a whole, the buckets' epochs, and what the server forgets by itself.
    let left = server.ask(&["eval", LEFT, "0"]);
    let of_the_store = ["audit", "epoch", "facts", "gateways", "keyed-by"];
    let stale: Vec<&str> = left
        .split_whitespace()
        .filter(|key| !of_the_store.contains(&key.rsplit(':').next().unwrap()))
        .collect();
    assert!(stale.is_empty(), "{} keys, as {:?}", stale.len(), &stale[..stale.len().min(5)]);
    assert!(left.contains("epoch"), "{left}");
    let gateways: u64 = server.ask(&["zcard", "tenure:gateways"]).trim().parse().unwrap();
    assert_eq!(gateways, 1);
}

/// Names of keys that stay for ever, or that are kept for sessions though they are over: only tokens, logs and gateways have a term
/// of the server's own clock, which this test cannot move.
const LEFT: &str = "local left = {}
for _, key in ipairs(redis.call('keys', '*')) do
  local has_term = redis.call('pttl', key) > 0
  local is_forgotten = string.find(key, '}:t:') or string.find(key, '}:log$') or string.find(key, ':accepts:')
  if not (has_term and is_forgotten) then left[#left + 1] = key end
end
return left";

#[tokio::test]
async fn no_token_and_no_name_of_a_browser_is_in_the_keys() {
    let server = Server::start();
    let [a] = gateways(&server, Policy::default());
    a.sign_in("ann", 1).await;
    let keys = server.ask(&["--scan"]);
    assert!(keys.lines().count() > 5 && !keys.contains("ann"), "{keys}");
    let ttl: i64 = server
        .ask(&["--scan", "--pattern", "tenure:*:t:*"])
        .lines()
        .map(|key| server.ask(&["ttl", key]).trim().parse::<i64>().unwrap())
        .min()
        .unwrap();
    assert!(ttl > 24 * 3600, "a token is kept as long as its session: {ttl}");
}
