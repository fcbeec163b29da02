//! Gateways of two versions side by side: what the newer one stored in a form that the older one does not know.

use redis::Commands;
use tenure::clock::Clock;
use tenure::session::gate::Standing;
use tenure::session::{EndReason, Policy};

use crate::redis_support::Server;
use crate::store_support::{AT, book, newcomer, secs};
use crate::{Gateway, gateway, until};

/// Writes every record of one home anew, in a form that is not known yet.
fn store_as_newer(server: &Server, home: &str) {
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let records: Vec<(Vec<u8>, Vec<u8>)> = redis.hgetall(format!("{home}:r")).unwrap();
    assert!(!records.is_empty());
    for (id, mut record) in records {
        record[0] += 1;
        let at = record.len() - 8;
        let mut sum = blake3::Hasher::new();
        sum.update(&id).update(&record[..at]);
        sum.finalize_xof().fill(&mut record[at..]);
        let _: () = redis.hset(format!("{home}:r"), &id, record).unwrap();
        let _: f64 = redis.zincr(format!("{home}:v"), &id, 1).unwrap();
        let _: f64 = redis.zincr(format!("{home}:v"), "#", 1).unwrap();
    }
}

/// The homes that are there.
fn homes(server: &Server) -> Vec<String> {
    let keys = server.ask(&["--scan", "--pattern", "tenure:*:r"]);
    keys.lines().map(|key| key.strip_suffix(":r").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_not_known_yet_signs_nobody_out() {
    let server = Server::start();
    let clock = Clock::manual(AT);
    let policy = Policy { idle_timeout: Some(secs(600)), ..Policy::default() };
    let start = || gateway(&server.settings(), policy, &clock);
    let a = start();
    a.sign_in("bob", 2).await;
    let [of_bob] = homes(&server).try_into().unwrap();
    a.sign_in("ann", 1).await;
    store_as_newer(&server, &of_bob);
    // One that never saw the old form.
    let c: Gateway = start();
    assert_eq!(c.look(2).await, Standing::Unavailable, "it may be live, or over");
    assert!(c.is_live(1).await);
    assert_eq!(c.look(9).await, Standing::Unseen);
    // The same user may sign in anew, and others go on.
    c.sign_in("bob", 3).await;
    assert!(a.is_live(3).await && c.is_live(3).await);
    let ann = a.table.look_up(crate::store_support::key(1), clock.now()).1.unwrap();
    a.table.end(&ann, EndReason::Revoked, None, clock.now());
    until("the end", || {
        matches!(c.table.look_up(crate::store_support::key(1), clock.now()).0, Standing::Ended { .. })
    })
    .await;
    assert_eq!((a.trouble.lasts(clock.now()), c.trouble.lasts(clock.now())), (None, None));
    assert_eq!(c.look(2).await, Standing::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_a_newer_gateway_moved_stays_where_it_moved() {
    let server = Server::start();
    let clock = Clock::manual(AT);
    let idle_after = |seconds| Policy { idle_timeout: Some(secs(seconds)), ..Policy::default() };
    let a = gateway(&server.settings(), idle_after(600), &clock);
    a.table.start(&newcomer(&[1]), AT);
    a.table.safe().await.unwrap();
    // Somebody signs in on it at a newer gateway: it is stored elsewhere, in a form that is not known here.
    let [alone] = homes(&server).try_into().unwrap();
    let (moved, last) = alone.split_at(alone.len() - 1);
    let moved = format!("{moved}{:x}", u8::from_str_radix(last, 16).unwrap() ^ 1);
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    for part in ["r", "v"] {
        redis::cmd("COPY")
            .arg(format!("{alone}:{part}"))
            .arg(format!("{moved}:{part}"))
            .exec(&mut redis)
            .unwrap();
    }
    store_as_newer(&server, &moved);
    let token = server.ask(&["--scan", "--pattern", "tenure:*:t:*"]);
    let mut pointer: Vec<u8> = redis.get(token.trim()).unwrap();
    pointer[15] ^= 1;
    redis::cmd("SET").arg(token.trim()).arg(&pointer).arg("KEEPTTL").exec(&mut redis).unwrap();
    // This one has not heard of it, and writes what it knows.
    a.table.set_book(book(idle_after(601)), clock.now());
    a.table.safe().await.unwrap();
    assert_eq!(redis.get::<_, Vec<u8>>(token.trim()).unwrap(), pointer);
    let b = gateway(&server.settings(), idle_after(600), &clock);
    assert_eq!(b.look(1).await, Standing::Unavailable, "the newer gateway can say");
}
