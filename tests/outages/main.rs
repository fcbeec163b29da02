//! Gateways under load while their store stops, dies, fails over, moves or is cut off: whoever is known meets no error, nobody
//! is signed out who should not be, and afterwards all gateways agree. Short by default; `TENURE_OUTAGE` is the length of
//! each outage in seconds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod fleet;
mod partition;
#[path = "../redis_support/mod.rs"]
mod redis_support;
#[path = "../gateway/setup.rs"]
#[allow(dead_code, reason = "written for the tests of one gateway")]
mod setup;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use fleet::Fleet;
use partition::Partition;
use redis_support::{Cluster, Sentinels, Server};
use setup::who;
use support::browser::Heard;
use support::wait::soon;

/// How long each outage lasts.
fn outage() -> Duration {
    let seconds = std::env::var("TENURE_OUTAGE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// The store's address as the configuration has it.
fn url_at(port: u16) -> String {
    format!("redis = \"redis://127.0.0.1:{port}/0\"")
}

fn nodes(mode: &str, ports: &[u16]) -> String {
    let urls: Vec<String> = ports.iter().map(|port| format!("\"redis://127.0.0.1:{port}\"")).collect();
    format!("[store.redis]\nurls = [{}]\nmode = \"{mode}\"", urls.join(", "))
}

/// Does what blocks on a thread of its own, while load goes on.
async fn apart<T: Send + 'static>(mut with: T, blocks: impl FnOnce(&mut T) + Send + 'static) -> T {
    let working = tokio::task::spawn_blocking(move || {
        blocks(&mut with);
        with
    });
    working.await.unwrap()
}

/// One gateway of the fleet ends somebody's session while the store is away.
async fn revoke_while_away(fleet: &Fleet, user: &str, at: usize) {
    fleet.revoke(at, user);
    assert!(fleet.is_over_at(at, user), "in force where it was caused");
}

#[tokio::test]
async fn a_store_that_stops_and_then_loses_everything_costs_nobody_anything() {
    let mut server = Server::start();
    let fleet = Fleet::start(&[&url_at(server.port()); 3]).await;
    let load = fleet.load().await;
    let (bob, sue) = (fleet.signed_in("bob", 1).await, fleet.signed_in("sue", 2).await);
    let mut socket = sue.websocket("/ws").await.expect("opens");
    fleet.all_know(&["bob", "sue"]).await;
    load.during(async {
        server.pause();
        let eve = fleet.signed_in("eve", 0).await;
        revoke_while_away(&fleet, "bob", 1).await;
        assert_eq!(who(&bob).await, None);
        tokio::time::sleep(outage()).await;
        assert_eq!(who(&eve).await.as_deref(), Some("eve"));
        server.resume();
        fleet.all_agree().await;
        fleet.all_know(&["eve"]).await;
        server.kill();
        tokio::time::sleep(outage()).await;
        revoke_while_away(&fleet, "sue", 2).await;
        let end = soon("the close", socket.hear_end()).await;
        assert_eq!(end, Heard::Closed { code: 4401, reason: "revoked".into() });
        server.restart();
        fleet.all_agree().await;
        fleet.all_know(&["eve"]).await;
        fleet.nobody_has(&["bob", "sue"]).await;
    })
    .await;
    load.stops(&fleet).await;
}

#[tokio::test]
async fn a_primary_that_fails_over_under_load_costs_nobody_anything() {
    let servers = Sentinels::start();
    let lines = format!("{}\nservice = \"mymaster\"", nodes("sentinel", &servers.ports()));
    let fleet = Fleet::start(&[&lines; 3]).await;
    let load = fleet.load().await;
    let bob = fleet.signed_in("bob", 1).await;
    fleet.all_know(&["bob"]).await;
    let servers = load.during(async {
        let servers = apart(servers, Sentinels::fail_over).await;
        revoke_while_away(&fleet, "bob", 0).await;
        fleet.all_agree().await;
        fleet.nobody_has(&["bob"]).await;
        assert_eq!(who(&bob).await, None);
        fleet.signed_in("eve", 2).await;
        fleet.all_know(&["eve"]).await;
        servers
    });
    let _servers = servers.await;
    load.stops(&fleet).await;
}

#[tokio::test]
async fn slots_that_move_under_load_cost_nobody_anything() {
    let cluster = Cluster::start();
    let fleet = Fleet::start(&[&nodes("cluster", &cluster.ports()); 3]).await;
    let load = fleet.load().await;
    let moved = load.during(async {
        let mut users = Vec::new();
        for n in 0..10 {
            let user = format!("user{n}");
            fleet.signed_in(&user, n % 3).await;
            users.push(user);
        }
        let cluster = apart(cluster, |cluster| cluster.move_slots(3000)).await;
        revoke_while_away(&fleet, "user0", 1).await;
        fleet.all_agree().await;
        fleet.nobody_has(&["user0"]).await;
        let rest: Vec<&str> = users.iter().skip(1).map(String::as_str).collect();
        fleet.all_know(&rest).await;
        cluster
    });
    let _cluster = moved.await;
    load.stops(&fleet).await;
}

#[tokio::test]
async fn a_gateway_that_is_cut_off_is_brought_back_with_all_that_happened() {
    let server = Server::start();
    let partition = Partition::before(server.port());
    let (near, far) = (url_at(server.port()), url_at(partition.port()));
    let fleet = Fleet::start(&[&near, &near, &far]).await;
    let load = fleet.load().await;
    let (bob, sue) = (fleet.signed_in("bob", 2).await, fleet.signed_in("sue", 0).await);
    let mut socket = bob.websocket("/ws").await.expect("opens");
    assert!(socket.say("hello").await);
    assert!(matches!(socket.hear().await, Heard::Text(_)));
    fleet.all_know(&["bob", "sue"]).await;
    load.during(async {
        partition.cut();
        // Each side goes on by what it knows.
        fleet.revoke(0, "bob");
        fleet.revoke(2, "sue");
        let (eve, mia) = (fleet.signed_in("eve", 2).await, fleet.signed_in("mia", 0).await);
        tokio::time::sleep(outage()).await;
        assert_eq!(who(&bob).await.as_deref(), Some("bob"), "nobody has told his gateway");
        assert_eq!(who(&sue).await.as_deref(), Some("sue"), "nor hers");
        let healed = partition.heal();
        let end = soon("the close", socket.hear_end()).await;
        assert_eq!(end, Heard::Closed { code: 4401, reason: "revoked".into() });
        fleet.nobody_has(&["bob", "sue"]).await;
        println!("both revocations in force at all {} ms after the partition", healed.elapsed_us() / 1000);
        fleet.all_agree().await;
        fleet.all_know(&["eve", "mia"]).await;
        assert_eq!((who(&bob).await, who(&sue).await), (None, None));
        assert!(who(&eve).await.is_some() && who(&mia).await.is_some());
    })
    .await;
    load.stops(&fleet).await;
}
