//! A store is carried to another kind of store and back: nothing of it is lost, and nothing is mixed.

use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tenure::clock::Clock;
use tenure::config;
use tenure::session::gate::Standing;
use tenure::session::jar::{Jar, Site};
use tenure::session::{EndReason, Policy};
use tenure::store::{
    Carried, CarryFault, Disk, Enrolled, Newcomer, Opened, Opening, Trouble, export, export_shared, import,
    import_shared,
};

use crate::redis_support::{Cluster, Server};
use crate::store_support::{AT, Recorder, book, identity, key, newcomer, secs, token};
use crate::{Gateway, SECRET, gateway};

fn open(place: &TempDir, clock: &Clock) -> Opened {
    let trouble = Arc::new(Trouble::default());
    let opening = Opening { path: place.path(), secrets: Some(SECRET.into()), clock: clock.clone(), trouble };
    Disk::open(&opening, book(Policy::default()), Arc::new(Recorder::default())).unwrap()
}

/// A store with something of everything, as lines.
async fn lines_of_everything(place: &TempDir) -> Vec<u8> {
    let Opened { table, disk, .. } = open(place, &Clock::manual(AT));
    let active = |enrolled| match enrolled {
        Enrolled::Active(session) => session,
        _ => panic!("it is active"),
    };
    let mut jar = Jar::default();
    jar.store(b"app=topsecret; Path=/", &Site::new("app.example", "/", true), AT, 4096);
    let with_jar = Newcomer { jar: Some(Arc::new(jar)), ..newcomer(&[1]) };
    let ann = active(table.sign_in(&with_jar, identity("ann"), AT));
    let other = active(table.sign_in(&newcomer(&[2]), identity("ann"), AT.plus(secs(1))));
    table.rotate(&other, &[token(3)], key(2), AT.plus(secs(2)));
    let bob = active(table.sign_in(&newcomer(&[4]), identity("bob"), AT));
    table.end(&bob, EndReason::Revoked, Some("ops".into()), AT.plus(secs(3)));
    table.start(&newcomer(&[5]), AT);
    // The value of a session that has ended begins a new one: it stands for that one alone.
    let carl = active(table.sign_in(&newcomer(&[6]), identity("carl"), AT));
    table.end(&carl, EndReason::Logout, None, AT.plus(secs(3)));
    active(table.sign_in(&newcomer(&[6]), identity("carl"), AT.plus(secs(4))));
    table.note_request(&ann, key(1), true, AT.plus(secs(5)));
    table.keep_fact("policies", b"[]".to_vec());
    table.safe().await.unwrap();
    drop(disk);
    let mut lines = Vec::new();
    export(place.path(), &mut lines).unwrap();
    lines
}

/// Lines but for what may differ from place to place: their order, and the numbers and moments of the places.
fn content(lines: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(lines).unwrap();
    let mut content = Vec::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(head) = line.get_mut("head") {
            head["latest"] = Value::Null;
        }
        if let Some(entry) = line.get_mut("entry") {
            entry["number"] = Value::Null;
        }
        content.push(line.to_string());
    }
    content.sort();
    content
}

/// On a thread without a runtime, as a command is.
fn apart<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(f).join().unwrap())
}

fn take_in(settings: &config::Redis, secret: [u8; 32], lines: &[u8]) -> Result<Carried, CarryFault> {
    let clock = Clock::manual(AT.plus(secs(9)));
    apart(|| import_shared(settings, Some(secret.into()), secs(30 * 24 * 3600), &clock, &mut &*lines))
}

fn lines_of(settings: &config::Redis) -> Vec<u8> {
    let mut lines = Vec::new();
    apart(|| export_shared(settings, &Clock::manual(AT), &mut lines)).unwrap();
    lines
}

async fn knows_everybody(at: &Gateway) {
    assert!(at.is_live(1).await && at.is_live(3).await && at.is_live(5).await && at.is_live(6).await);
    assert!(matches!(at.look(4).await, Standing::Ended { reason: EndReason::Revoked, .. }));
    let (_, session) = at.table.look_up(key(1), at.clock.now());
    let jar = at.table.inspect(&session.unwrap(), at.clock.now(), |session| session.jar.clone());
    let jar = jar.expect("it has a jar");
    assert!(jar.iter(AT).any(|(name, value)| (name, value) == (b"app".as_slice(), b"topsecret".as_slice())));
}

#[tokio::test]
async fn from_disk_to_redis_and_back_nothing_is_lost() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = lines_of_everything(&old).await;
    assert_eq!(content(&lines).iter().filter(|line| line.contains("\"session\":{")).count(), 6);
    let server = Server::start();
    let settings = server.settings();
    let carried = take_in(&settings, SECRET, &lines).unwrap();
    let there = lines_of(&settings);
    assert_eq!(content(&there), content(&lines));
    assert_eq!(apart(|| import(new.path(), Some(SECRET.into()), &mut &*there)).unwrap(), carried);
    let mut again = Vec::new();
    export(new.path(), &mut again).unwrap();
    assert_eq!(content(&again), content(&lines));
    let clock = Clock::manual(AT.plus(secs(9)));
    let at = gateway(&settings, Policy::default(), &clock);
    knows_everybody(&at).await;
    let audit = at.table.audit(&Default::default(), 100).unwrap();
    assert_eq!(audit.len(), usize::try_from(carried.entries).unwrap());
    drop(at);
    let Opened { table, .. } = open(&new, &clock);
    assert!(matches!(table.look_up(key(1), clock.now()).0, Standing::Live { .. }));
}

#[tokio::test]
async fn a_cluster_takes_in_and_gives_out_the_same() {
    let lines = lines_of_everything(&tempfile::tempdir().unwrap()).await;
    let cluster = Cluster::start();
    let settings = cluster.settings();
    take_in(&settings, SECRET, &lines).unwrap();
    assert_eq!(content(&lines_of(&settings)), content(&lines));
    assert!(matches!(take_in(&settings, SECRET, &lines), Err(CarryFault::PrefixInUse { .. })));
    let [at] = crate::gateways_at(&settings, Policy::default());
    knows_everybody(&at).await;
}

#[tokio::test]
async fn what_is_there_is_not_mixed_with_what_comes() {
    let lines = lines_of_everything(&tempfile::tempdir().unwrap()).await;
    let server = Server::start();
    let keys = || server.ask(&["dbsize"]).trim().to_owned();
    assert!(matches!(take_in(&server.settings(), [8; 32], &lines), Err(CarryFault::OtherSecret)));
    for cut in [lines.len() / 2, lines.len() - 20] {
        let fault = take_in(&server.settings(), SECRET, &lines[..cut]);
        assert!(matches!(fault, Err(CarryFault::Malformed { .. })), "{fault:?}");
    }
    assert_eq!(keys(), "0", "nothing of it is left");
    let nothing = apart(|| export_shared(&server.settings(), &Clock::manual(AT), &mut Vec::new()));
    assert!(matches!(nothing, Err(CarryFault::Nothing { .. })), "{nothing:?}");
    take_in(&server.settings(), SECRET, &lines).unwrap();
    let before = keys();
    let fault = take_in(&server.settings(), SECRET, &lines).unwrap_err().to_string();
    assert!(fault.contains("\"tenure:\"") && fault.contains("nothing was changed"), "{fault}");
    assert_eq!(keys(), before);
    let beside = config::Redis { prefix: "other:".to_owned(), ..server.settings() };
    take_in(&beside, SECRET, &lines).unwrap();
    assert_eq!(content(&lines_of(&beside)), content(&lines));
}

#[tokio::test]
async fn no_gateway_begins_with_half_of_it() {
    let server = Server::start();
    server.ask(&["set", "tenure:taking-in", "1"]);
    let fault = apart(|| crate::try_gateway(&server.settings(), SECRET).err().unwrap().to_string());
    assert!(fault.contains("store import") && fault.contains("\"tenure:\""), "{fault}");
}
