//! What the store leaves on the disk in the long run.

use std::sync::Arc;

use tempfile::TempDir;
use tenure::clock::Clock;
use tenure::session::{EndReason, Policy};
use tenure::store::{Book, Disk, Opened, Opening, Trouble};

use crate::store_support::{AT, Recorder, book, identity, newcomer, secs};

/// Sign-ins of one hour.
const HOURLY: u64 = 2000;

fn open(place: &TempDir, book: Book, clock: &Clock) -> Opened {
    let trouble = Arc::new(Trouble::default());
    let opening = Opening { path: place.path(), secret: None, clock: clock.clone(), trouble };
    Disk::open(&opening, book, Arc::new(Recorder::default())).unwrap()
}

fn bytes(place: &TempDir) -> u64 {
    let entries = std::fs::read_dir(place.path()).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Sessions come and go for a day: some end by the app, some by time, visitors are forgotten for room, and of all of them
/// nothing is left after two hours.
#[tokio::test]
async fn a_day_of_traffic_leaves_the_files_bounded() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::manual(AT);
    let policy = Policy { idle_timeout: Some(secs(1800)), ..Policy::default() };
    let book = Book { ended_kept: secs(2 * 3600), anonymous_sessions: 500, ..book(policy) };
    let Opened { table, disk, .. } = open(&place, book.clone(), &clock);
    let mut sizes = Vec::new();
    for hour in 0..24 {
        for n in 0..HOURLY {
            let (now, number) = (clock.now(), (hour * HOURLY + n) * 2);
            let signed_in = table.sign_in(&newcomer(&[number]), identity(&format!("user{n}")), now);
            if let (true, tenure::store::Enrolled::Active(session)) = (n % 3 == 0, &signed_in) {
                table.end(session, EndReason::Logout, None, now);
            }
            table.start(&newcomer(&[number + 1]), now);
            if n % 100 == 0 {
                clock.advance(secs(3600 / (HOURLY / 100)));
                table.sweep(clock.now());
                table.safe().await.unwrap();
            }
        }
        sizes.push(bytes(&place));
    }
    let (early, late) = (sizes[3], sizes.into_iter().skip(4).max().unwrap());
    assert!(late < early + early / 2, "{early} bytes after four hours, {late} later");
    let entries = table.audit(&tenure::store::AuditFilter::default(), 1_000_000).unwrap();
    assert!(
        entries.len() < 4 * 2 * usize::try_from(HOURLY).unwrap(),
        "{} entries of the audit",
        entries.len()
    );
    clock.advance(secs(1));
    table.sweep(clock.now());
    let left = table.counts();
    drop(disk);
    let Opened { table, .. } = open(&place, book, &clock);
    assert_eq!(table.counts(), left, "and a restart finds what was there");
}
