//! What a server lost, or never had, and what gateways make of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tenure::clock::Clock;
use tenure::session::gate::Standing;
use tenure::session::jar::{Jar, Site};
use tenure::session::{EndReason, OnLimit, Policy};

use crate::redis_support::Server;
use crate::store_support::{AT, book, identity, key, newcomer, secs, token};
use crate::{Gateway, all_are_well, gateway, gateways, limit, until};

fn tokens(server: &Server) -> usize {
    server.ask(&["--scan", "--pattern", "tenure:*:t:*"]).lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_everything_again_before_it_was_brought_together_gets_it_back() {
    let mut server = Server::start();
    let [a] = gateways(&server, Policy::default());
    let session = a.sign_in("ann", 1).await;
    a.sign_in("bob", 2).await;
    a.table.end(&session, EndReason::Revoked, None, AT);
    a.table.safe().await.unwrap();
    for _ in 0..2 {
        server.kill();
        until("it is noticed", || a.trouble.lasts(AT).is_some()).await;
        server.restart();
        until("what is known is stored", || tokens(&server) == 2).await;
    }
    all_are_well(&[&a]).await;
    let b = gateway(&server.settings(), Policy::default(), &Clock::manual(AT));
    assert!(matches!(b.look(1).await, Standing::Ended { reason: EndReason::Revoked, .. }));
    assert!(b.is_live(2).await);
}

/// Tokens are said to be where a session moves before it is stored there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_died_on_the_way_leaves_the_visitor_as_they_were() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    a.table.start(&newcomer(&[1]), AT);
    a.table.safe().await.unwrap();
    let key = server.ask(&["--scan", "--pattern", "tenure:*:t:*"]);
    let mut wire = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut pointer: Vec<u8> = redis::cmd("GET").arg(key.trim()).query(&mut wire).unwrap();
    pointer[15] ^= 1;
    redis::cmd("SET").arg(key.trim()).arg(pointer).arg("KEEPTTL").exec(&mut wire).unwrap();
    assert!(b.is_live(1).await);
}

/// More than one script tells of, and more than one step writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robot_with_thousands_of_sessions_is_known_everywhere() {
    const SESSIONS: u64 = 2_500;
    let mut server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    for n in 1..=SESSIONS {
        a.table.sign_in(&newcomer(&[n]), identity("robot"), AT);
    }
    a.table.safe().await.unwrap();
    let knows_all = |gateway: &Gateway| gateway.table.counts().signed_in as u64 == SESSIONS;
    until("the other knows all", || knows_all(&b)).await;
    server.kill();
    until("it is noticed", || a.trouble.lasts(AT).is_some()).await;
    server.restart();
    all_are_well(&[&a, &b]).await;
    let c = gateway(&server.settings(), Policy::default(), &Clock::manual(AT));
    assert!(knows_all(&c), "{:?}", c.table.counts());
    assert!(c.is_live(1).await && c.is_live(SESSIONS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_brought_together_while_users_go_on() {
    let mut server = Server::start();
    let [a] = gateways(&server, Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    let mut sessions = Vec::new();
    for n in 1..=50 {
        sessions.push((n, a.sign_in("ann", n).await));
    }
    let (table, clock) = (Arc::clone(&a.table), a.clock.clone());
    let goes_on = Arc::new(AtomicBool::new(true));
    let users = std::thread::spawn({
        let goes_on = Arc::clone(&goes_on);
        move || {
            while goes_on.load(Ordering::Relaxed) {
                clock.advance(secs(1));
                for (n, session) in &sessions {
                    table.note_request(session, key(*n), true, clock.now());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    server.kill();
    until("it is noticed", || a.trouble.lasts(a.clock.now()).is_some()).await;
    server.restart();
    all_are_well(&[&a]).await;
    goes_on.store(false, Ordering::Relaxed);
    users.join().unwrap();
    assert!(a.is_live(1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_lowered_limit_ends_is_told_once() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    a.sign_in("ann", 1).await;
    a.clock.advance(secs(1));
    b.sign_in("ann", 2).await;
    assert!(a.is_live(2).await && b.is_live(1).await);
    for gateway in [&a, &b] {
        gateway.table.set_book(book(limit(1, OnLimit::EndOldest)), gateway.clock.now());
    }
    until("the end is told", || a.recorder.ends().len() + b.recorder.ends().len() > 0).await;
    for gateway in [&a, &b] {
        gateway.table.safe().await.unwrap();
    }
    assert_eq!([a.recorder.ends(), b.recorder.ends()].concat(), [EndReason::MaxConcurrent]);
    assert!(!a.is_live(1).await && a.is_live(2).await && b.is_live(2).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fact_that_the_store_lost_is_put_back() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    a.table.keep_fact("setting", b"old".to_vec());
    a.table.safe().await.unwrap();
    let held = server.ask(&["hget", "tenure:facts", "setting"]);
    b.table.keep_fact("setting", b"new".to_vec());
    b.table.safe().await.unwrap();
    // As after a failover to a server that did not have it yet.
    server.ask(&["hset", "tenure:facts", "setting", held.trim()]);
    until("it is put back", || server.ask(&["hget", "tenure:facts", "setting"]).trim().ends_with("new"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_not_idle_because_the_store_lost_its_activity() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    let session = a.sign_in("ann", 1).await;
    assert!(b.is_live(1).await);
    a.clock.advance(secs(50));
    assert!(a.table.note_request(&session, key(1), true, a.clock.now()));
    a.table.safe().await.unwrap();
    server.ask(&["flushall"]);
    b.clock.advance(secs(20));
    while b.look(1).await == Standing::Unavailable {
        b.table.sweep(b.clock.now());
    }
    assert!(b.is_live(1).await);
    assert_eq!(b.recorder.ends(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signed_in_elsewhere_is_not_idle_where_nobody_heard_of_it() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    a.table.start(&newcomer(&[1]), AT);
    a.table.safe().await.unwrap();
    assert!(b.is_live(1).await);
    // Whoever may not listen hears nothing.
    server.ask(&["acl", "setuser", "default", "-subscribe"]);
    server.ask(&["client", "kill", "type", "pubsub"]);
    a.clock.advance(secs(50));
    let (_, session) = a.table.look_up(key(1), a.clock.now());
    a.table.identify(&session.unwrap(), &[token(2)], identity("ann"), a.clock.now());
    a.table.safe().await.unwrap();
    b.clock.advance(secs(20));
    b.table.sweep(b.clock.now());
    b.table.safe().await.unwrap();
    assert!(a.is_live(2).await && b.is_live(2).await);
    assert_eq!((a.recorder.ends(), b.recorder.ends()), (vec![], vec![]));
}

/// Each home with its version, which changes whenever it is written. At one moment two homes may have the same version.
fn versions(server: &Server) -> Vec<String> {
    let mut homes: Vec<String> =
        server.ask(&["--scan", "--pattern", "tenure:*:v"]).lines().map(str::to_owned).collect();
    homes.sort();
    homes.iter().map(|home| format!("{home} {}", server.ask(&["zscore", home, "#"]))).collect()
}

/// To give all that is known to a server that merely was slow would make it slower still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_slow_for_a_while_is_not_given_everything_again() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    for n in 1..=20 {
        a.sign_in(&format!("user {n}"), n).await;
    }
    assert!(b.is_live(20).await);
    let before = versions(&server);
    assert_eq!(before.len(), 20);
    for _ in 0..2 {
        server.pause();
        until("it is noticed", || {
            [&a, &b].iter().all(|gateway| gateway.trouble.lasts(gateway.clock.now()).is_some())
        })
        .await;
        assert_eq!(a.look(99).await, Standing::Unavailable);
        server.resume();
        all_are_well(&[&a, &b]).await;
    }
    server.ask(&["client", "kill", "type", "normal"]);
    a.sign_in("carol", 30).await;
    assert!(b.is_live(30).await);
    assert_eq!(
        b.judged(99).await,
        Standing::Unseen,
        "it is known at once that nobody else has to be waited for"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut after = versions(&server);
    after.retain(|version| !before.contains(version));
    assert_eq!(after.len(), 1, "of all homes carol's alone was written");
}

/// As where a primary of a cluster is replaced: what was written last is gone, and no connection was broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_lost_the_last_writes_without_a_word_gets_them_again() {
    let server = Server::with(&["--enable-debug-command", "yes"]);
    let [a, b] = gateways(&server, Policy::default());
    let ann = a.sign_in("ann", 1).await;
    a.sign_in("bob", 2).await;
    a.table.end(&ann, EndReason::Revoked, None, AT);
    a.table.safe().await.unwrap();
    until("the other knows", || matches!(b.table.look_up(key(1), AT).0, Standing::Ended { .. })).await;
    let known = server.ask(&["--scan", "--pattern", "tenure:*:*:*"]);
    let mut loses = redis::pipe();
    loses.atomic().cmd("DEBUG").arg("CHANGE-REPL-ID").ignore();
    for key in known.lines().filter(|key| !key.ends_with(":log")) {
        loses.cmd("DEL").arg(key).ignore();
    }
    let mut wire = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    loses.exec(&mut wire).unwrap();
    drop(wire);
    assert_eq!(tokens(&server), 0);
    until("it is stored again", || tokens(&server) == 2).await;
    all_are_well(&[&a, &b]).await;
    let c = gateway(&server.settings(), Policy::default(), &Clock::manual(AT));
    assert!(matches!(c.look(1).await, Standing::Ended { reason: EndReason::Revoked, .. }));
    assert!(c.is_live(2).await);
}

fn cookie_in(gateway: &Gateway, n: u64) -> Option<Vec<u8>> {
    let (_, session) = gateway.table.look_up(key(n), gateway.clock.now());
    let jar = gateway.table.inspect(&session?, gateway.clock.now(), |session| session.jar.clone())?;
    jar.iter(gateway.clock.now()).next().map(|(_, value)| value.to_vec())
}

/// What a gateway stores again is no newer for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jar_that_changed_elsewhere_is_not_undone_by_who_stores_the_session_again() {
    let server = Server::start();
    let [a, b] = gateways(&server, Policy::default());
    let site = Site::new("app.example", "/", true);
    let app_sets = |jar: &mut Jar, field: &[u8], at| {
        jar.store(field, &site, at, 4096);
    };
    let ann = a.sign_in("ann", 1).await;
    a.table.keep(&ann, key(1), AT, |jar| app_sets(jar, b"app=first", AT));
    a.table.safe().await.unwrap();
    assert!(b.is_live(1).await);
    until("the jar is known", || cookie_in(&b, 1).as_deref() == Some(b"first")).await;
    server.ask(&["acl", "setuser", "default", "-subscribe"]);
    server.ask(&["client", "kill", "type", "pubsub"]);
    // After half a day the first activity stores the session anew, so that its keys are kept.
    a.clock.advance(secs(13 * 3600));
    let now = a.clock.now();
    a.table.keep(&ann, key(1), now, |jar| app_sets(jar, b"app=second", now));
    a.table.safe().await.unwrap();
    let (_, met) = b.table.look_up(key(1), now);
    assert!(b.table.note_request(&met.unwrap(), key(1), true, now), "it lives");
    for _ in 0..2 {
        b.table.safe().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for gateway in [&a, &b] {
        let has_second = || cookie_in(gateway, 1).as_deref() == Some(b"second".as_slice());
        until("the later jar", has_second).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cookie_in(&a, 1).as_deref(), Some(b"second".as_slice()), "it was not undone");
}
