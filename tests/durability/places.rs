//! Where the store cannot work: each start is refused in words, with exit code 1, and nothing on the disk is changed by it.
//! And a disk that is really full. What can be seen within one process stands in `tests/gateway/durable.rs`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::compare::compare;
use crate::gateway::{Custody, Live, Site};
use crate::ledger::Ledger;
use crate::load::Working;
use crate::support::random::Random;

/// How long a store is filled before something is done to it.
const FILLING: Duration = Duration::from_millis(250);

/// What lies in a directory: its files with content. `-shm` is memory that SQLite shares between processes, and none.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let shared = |path: &PathBuf| path.to_string_lossy().ends_with("-shm");
    let files = paths.filter(|path| !shared(path)).map(|path| (path.clone(), fs::read(&path).unwrap()));
    files.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

/// What is there now is what was there `before`.
fn assert_untouched(directory: &Path, before: &BTreeMap<PathBuf, Vec<u8>>, when: &str) {
    let now = snapshot(directory);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(before), "{when}");
    let changed: Vec<&PathBuf> = now.keys().filter(|path| now[*path] != before[*path]).collect();
    assert!(changed.is_empty(), "{when}: {changed:?} changed");
}

async fn fill(live: &Live, ledger: &Arc<Ledger>, round: u64) {
    let working = Working::begin(live, ledger, Custody::Track, round, round);
    sleep(FILLING).await;
    working.ends().await;
}

/// What the start is refused with.
async fn refusal(site: &Site, setup: &str) -> String {
    let mut gateway = match setup {
        "" => site.begin(""),
        setup => site.begin_above(setup),
    };
    let status = gateway.ends().await;
    let err = gateway.err();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("tenure cannot start: the store ") && !err.contains("panicked"), "{err}");
    err
}

/// Whether this machine lets a test mount what it likes in a namespace of its own.
fn may_mount(place: &Path) -> bool {
    let try_it = format!("mount -t tmpfs none '{}'", place.display());
    let done = Command::new("unshare").args(["-m", "sh", "-c", &try_it]).output();
    let may = done.is_ok_and(|done| done.status.success());
    if !may {
        eprintln!("left out: this system lets the test mount nothing");
    }
    may
}

/// Makes the directory one that cannot be written to: by a mount, or for whom modes hold by its mode.
fn read_only(site: &Site) -> Option<&'static str> {
    if may_mount(site.place.path()) {
        return Some("mount --bind data data && mount -o remount,bind,ro data");
    }
    if rustix::process::geteuid().is_root() {
        return None;
    }
    fs::set_permissions(site.data(), Permissions::from_mode(0o500)).unwrap();
    let files = fs::read_dir(site.data()).unwrap().map(|entry| entry.unwrap().path());
    files.for_each(|file| fs::set_permissions(file, Permissions::from_mode(0o400)).unwrap());
    Some("")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_directory_is_made_for_its_owner_alone() {
    let site = Site::new(Custody::Track).await;
    let live = site.start().await;
    assert_eq!(fs::metadata(site.data()).unwrap().permissions().mode() & 0o777, 0o700);
    live.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_refused() {
    let site = Site::new(Custody::Track).await;
    let ledger = Arc::<Ledger>::default();
    let live = site.start().await;
    fill(&live, &ledger, 0).await;
    live.leave().await;
    let Some(setup) = read_only(&site) else { return };
    let before = snapshot(&site.data());
    let err = refusal(&site, setup).await;
    assert!(err.contains("cannot be used"), "{err}");
    assert!(err.contains("Read-only") || err.contains("Permission denied"), "{err}");
    assert!(err.contains("[store] path names it"), "{err}");
    assert_untouched(&site.data(), &before, "read-only");
    // Before there is anything in it, too.
    fs::set_permissions(site.data(), Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(site.data()).unwrap();
    fs::create_dir(site.data()).unwrap();
    let setup = read_only(&site).expect("as before");
    assert!(refusal(&site, setup).await.contains("[store] path names it"));
    assert!(snapshot(&site.data()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_made_is_refused() {
    let site = Site::new(Custody::Track).await;
    site.change_config("path = \"data\"", "path = \"config.toml/data\"");
    let err = refusal(&site, "").await;
    assert!(
        err.contains("config.toml/data cannot be used") && err.contains("[store] path names it"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_by_another_process_is_refused_and_its_owner_goes_on() {
    let site = Site::new(Custody::Track).await;
    let ledger = Arc::<Ledger>::default();
    let live = site.start().await;
    fill(&live, &ledger, 0).await;
    assert!(refusal(&site, "").await.contains("in use by another process"));
    fill(&live, &ledger, 1).await;
    let wrong = compare(&live, &ledger, &site.app, &mut Random(1), true).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_and_left_as_it_is() {
    let site = Site::new(Custody::Track).await;
    let ledger = Arc::<Ledger>::default();
    let live = site.start().await;
    fill(&live, &ledger, 0).await;
    live.leave().await;
    // What was there stands in the database, what comes now in its write-ahead log.
    let live = site.start().await;
    fill(&live, &ledger, 1).await;
    live.kill().await;
    let whole = snapshot(&site.data());
    let database = site.data().join("sessions.db");
    assert!(whole.keys().any(|path| path.ends_with("sessions.db-wal")) && whole[&database].len() > 16 * 1024);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("cut in its middle", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut within a page", |bytes| bytes.truncate(bytes.len() / 2 + 1000)),
        ("empty", Vec::clear),
        ("garbage", |bytes| bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 % 251) as u8)),
        ("flipped", |bytes| bytes[4096..].iter_mut().for_each(|byte| *byte ^= 0x10)),
    ];
    for (name, damage) in damages {
        // Once with its log, once as a log that was lost leaves it.
        for without_log in [true, false] {
            restore(&site.data(), &whole);
            let mut bytes = whole[&database].clone();
            damage(&mut bytes);
            fs::write(&database, &bytes).unwrap();
            if without_log {
                fs::remove_file(site.data().join("sessions.db-wal")).unwrap();
            }
            let before = snapshot(&site.data());
            let mut gateway = site.begin("");
            if gateway.ends_or_says("ready").await.is_none() && !without_log {
                // The log holds whatever was damaged: all is there.
                let live = site.live(gateway).await;
                let wrong = compare(&live, &ledger, &site.app, &mut Random(1), true).await;
                assert!(wrong.is_empty(), "{name}: {wrong:#?}");
                live.kill().await;
                continue;
            }
            let (status, err) = (gateway.ends().await, gateway.err());
            assert_eq!(status.code(), Some(1), "{name}: {err}");
            assert!(err.contains("is damaged: ") && !err.contains("panicked"), "{name}: {err}");
            assert_untouched(&site.data(), &before, &format!("{name}, without its log: {without_log}"));
        }
    }
    restore(&site.data(), &whole);
    let live = site.start().await;
    let wrong = compare(&live, &ledger, &site.app, &mut Random(1), true).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A copy of the directory is put back, as the refusal says.
fn restore(directory: &Path, whole: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
    whole.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_secret_is_refused() {
    let site = Site::new(Custody::Track).await;
    site.start().await.leave().await;
    let secret = site.data().join("secret");
    OpenOptions::new().write(true).open(&secret).unwrap().set_len(10).unwrap();
    let before = snapshot(&site.data());
    let err = refusal(&site, "").await;
    assert!(err.contains("/secret cannot be used"), "{err}");
    assert_untouched(&site.data(), &before, "half a secret");
}

/// A disk of 2 MiB, most of which something else takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_lived_with_until_there_is_room_again() {
    let site = Site::new(Custody::Track).await;
    fs::create_dir(site.data()).unwrap();
    if !may_mount(&site.data()) {
        return;
    }
    let setup = "mount -t tmpfs -o size=2m,mode=700 none data && head -c 1900000 /dev/zero >data/filler";
    let mut live = site.serves(site.begin_above(setup)).await;
    let ledger = Arc::<Ledger>::default();
    let working = Working::begin(&live, &ledger, Custody::Track, 0, 7);
    live.operator().degraded_becomes(1).await;
    sleep(FILLING).await;
    let disk = PathBuf::from(format!("/proc/{}/root{}", site.process(), site.data().display()));
    fs::remove_file(disk.join("filler")).unwrap();
    live.operator().degraded_becomes(0).await;
    sleep(FILLING).await;
    live.gateway.signal(Signal::STOP);
    // The disk goes with the process: what is on it is looked at on another one.
    let whole = snapshot(&disk);
    live.gateway.signal(Signal::KILL);
    live.gateway.ends().await;
    live.assert_no_panic();
    assert!(working.ends().await > 0, "the disk was not full");
    for (path, bytes) in whole {
        fs::write(site.data().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let live = site.start().await;
    let wrong = compare(&live, &ledger, &site.app, &mut Random(1), true).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(ledger.counts().sign_ins > 10, "{:?}", ledger.counts());
}
