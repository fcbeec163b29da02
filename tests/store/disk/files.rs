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
    let opening = Opening { path: place.path(), secrets: None, clock: clock.clone(), trouble };
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

/// While nothing can be written, those who are forgotten before they ever were do not pile up (law 12).
#[test]
fn a_flood_of_visitors_does_not_fill_the_queue_of_a_store_that_fails() {
    let place = tempfile::tempdir().unwrap();
    let (clock, trouble) = (Clock::manual(AT), Arc::new(Trouble::default()));
    let opening = Opening { path: place.path(), secrets: None, clock, trouble: Arc::clone(&trouble) };
    let book = Book { anonymous_sessions: 100, ..book(Policy::default()) };
    let Opened { table, disk, .. } = Disk::open(&opening, book, Arc::new(Recorder::default())).unwrap();
    let blocker = rusqlite::Connection::open(place.path().join("sessions.db")).unwrap();
    blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut n = 0;
    // A write fails when it has waited for some seconds.
    while trouble.counts().1 < 2 {
        for _ in 0..100 {
            n += 1;
            table.start(&newcomer(&[n]), AT);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(n > 10_000, "{n} visitors");
    blocker.execute_batch("ROLLBACK").unwrap();
    drop(disk);
    assert_eq!((table.waiting(), table.counts().anonymous), (0, 100));
    let select = "SELECT count(*), max(slot) FROM session";
    let (rows, last): (u64, u64) =
        blocker.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(rows, 100, "nobody else is there");
    assert!(last < n / 2, "nor ever had a place: the last one is {last} after {n} visitors");
}
