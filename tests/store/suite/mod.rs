//! The contract of every store.

mod changes;
mod keys;

use std::num::NonZeroU32;
use std::sync::Arc;

use super::place::{Kept, open, table};
use crate::store_support::{AT, Recorder, book, identity, key, newcomer, secs, token};
use tenure::session::gate::Standing;
use tenure::session::identity::{Identity, UserCase};
use tenure::session::record::Mode;
use tenure::session::{EndReason, Moment, OnLimit, Policy, SessionId, Span};
use tenure::store::{AppRules, Book, Enrolled, EventKind, Filter, Newcomer, SessionRef, StateFilter};

pub(super) fn active(enrolled: Enrolled) -> SessionRef {
    match enrolled {
        Enrolled::Active(session) => session,
        Enrolled::Pending(_) => panic!("held back"),
        Enrolled::Over => panic!("over"),
    }
}

pub(super) fn sign_in(table: &Kept, user: &str, n: u64, now: Moment) -> SessionRef {
    active(table.sign_in(&newcomer(&[n]), identity(user), now))
}

pub(super) fn is_live(table: &Kept, n: u64, now: Moment) -> bool {
    matches!(table.look_up(key(n), now).0, Standing::Live { .. })
}

pub(super) fn limit(max: u32, on_limit: OnLimit) -> Policy {
    Policy { max_concurrent: NonZeroU32::new(max), on_limit, ..Policy::default() }
}

#[test]
fn a_session_is_found_by_its_token_and_by_nothing_else() {
    let table = table(Policy::default());
    sign_in(&table, "ann", 1, AT);
    assert!(is_live(&table, 1, AT));
    assert_eq!(table.look_up(key(2), AT).0, Standing::Unseen);
}

#[test]
fn an_idle_session_ends_at_its_deadline_without_any_sweep() {
    let recorder = Arc::new(Recorder::default());
    let policy = Policy { idle_timeout: Some(secs(60)), ..Policy::default() };
    let table = open(book(policy), recorder.clone());
    let session = sign_in(&table, "ann", 1, AT);
    let almost = AT.plus(Span::from_ms(59_999));
    assert!(is_live(&table, 1, almost));
    assert!(table.note_request(&session, key(1), true, almost));
    let over = almost.plus(secs(60));
    assert!(!is_live(&table, 1, over));
    assert!(!table.note_request(&session, key(1), true, over), "a touch follows from a live verdict");
    assert_eq!(recorder.ends(), [EndReason::IdleTimeout]);
}

#[test]
fn a_look_up_never_renews() {
    let table = table(Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    sign_in(&table, "ann", 1, AT);
    for second in 0..60 {
        assert!(is_live(&table, 1, AT.plus(secs(second))));
    }
    assert!(!is_live(&table, 1, AT.plus(secs(60))));
}

#[test]
fn the_sweeper_tells_ends_that_nobody_asked_about() {
    let recorder = Arc::new(Recorder::default());
    let policy = Policy { idle_timeout: Some(secs(60)), ..Policy::default() };
    let table = open(book(policy), recorder.clone());
    let session = sign_in(&table, "ann", 1, AT);
    table.sweep(AT.plus(secs(59)));
    assert!(table.note_request(&session, key(1), true, AT.plus(secs(59))));
    table.sweep(AT.plus(secs(61)));
    assert_eq!(recorder.ends(), [], "it was renewed");
    table.sweep(AT.plus(secs(119)).plus(Span::from_ms(1000)));
    assert_eq!(recorder.ends(), [EndReason::IdleTimeout]);
}

#[test]
fn an_end_is_for_ever_and_happens_once() {
    let table = table(Policy::default());
    let session = sign_in(&table, "ann", 1, AT);
    assert!(table.end(&session, EndReason::Revoked, Some("ops".into()), AT));
    assert!(!table.end(&session, EndReason::Logout, None, AT));
    assert!(!table.touch(&session, AT));
    assert!(!table.rotate(&session, &[token(2)], key(1), AT));
    assert_eq!(table.look_up(key(2), AT).0, Standing::Unseen);
    assert!(matches!(table.identify(&session, &[token(3)], identity("ann"), AT), Enrolled::Over));
    assert!(!is_live(&table, 1, AT) && !is_live(&table, 3, AT));
}

#[test]
fn the_limit_ends_the_oldest_and_never_the_newcomer() {
    let table = table(limit(2, OnLimit::EndOldest));
    for n in 1..=4 {
        sign_in(&table, "ann", n, AT.plus(secs(n)));
    }
    sign_in(&table, "bob", 9, AT.plus(secs(9)));
    let now = AT.plus(secs(10));
    assert_eq!([1, 2, 3, 4, 9].map(|n| is_live(&table, n, now)), [false, false, true, true, true]);
}

#[test]
fn dead_sessions_take_no_place() {
    let policy = Policy { idle_timeout: Some(secs(60)), ..limit(2, OnLimit::Refuse) };
    let table = table(policy);
    sign_in(&table, "ann", 1, AT);
    sign_in(&table, "ann", 2, AT.plus(secs(30)));
    sign_in(&table, "ann", 3, AT.plus(secs(60)));
    assert!(is_live(&table, 2, AT.plus(secs(60))) && is_live(&table, 3, AT.plus(secs(60))));
}

#[test]
fn sixty_four_tasks_signing_in_never_leave_more_than_the_limit() {
    let table = Arc::new(table(limit(3, OnLimit::EndOldest)));
    std::thread::scope(|scope| {
        for task in 0..64_u64 {
            let table = Arc::clone(&table);
            scope.spawn(move || {
                for round in 0..200_u64 {
                    sign_in(&table, "ann", 1000 * (task + 1) + round, AT);
                    let live = table.rivals_of(&sign_in_ref(&table, 1000 * (task + 1) + round), AT);
                    assert!(live.len() <= 3, "{} live after an answer", live.len());
                }
            });
        }
    });
    let filter =
        Filter { user: Some(vec!["ann".into()]), state: Some(StateFilter::Active), ..Filter::default() };
    assert_eq!(table.list(&filter, None, 100, AT).items.len(), 3);
}

fn sign_in_ref(table: &Kept, n: u64) -> SessionRef {
    table.look_up(key(n), AT).1.expect("known")
}

#[test]
fn a_session_beyond_the_limit_is_held_back_and_admitted_when_there_is_room() {
    for on_limit in [OnLimit::Refuse, OnLimit::Ask] {
        let recorder = Arc::new(Recorder::default());
        let table = open(book(limit(1, on_limit)), recorder.clone());
        let first = sign_in(&table, "ann", 1, AT);
        let Enrolled::Pending(second) = table.sign_in(&newcomer(&[2]), identity("ann"), AT) else {
            panic!("not held back")
        };
        assert!(matches!(table.look_up(key(2), AT).0, Standing::Pending { .. }));
        assert!(is_live(&table, 1, AT));
        assert!(matches!(table.admit_pending(&second, AT), Enrolled::Pending(_)));
        table.end(&first, EndReason::MaxConcurrent, Some("ann".into()), AT);
        assert!(matches!(table.admit_pending(&second, AT), Enrolled::Active(_)));
        assert!(is_live(&table, 2, AT));
        let held = recorder.kinds().iter().filter(|kind| **kind == EventKind::HeldBack).count();
        assert_eq!(held, 1, "told once");
    }
}

#[test]
fn a_held_back_session_ends_after_two_minutes() {
    let table = table(limit(1, OnLimit::Refuse));
    sign_in(&table, "ann", 1, AT);
    let _ = table.sign_in(&newcomer(&[2]), identity("ann"), AT);
    let later = AT.plus(secs(120));
    let standing = table.look_up(key(2), later).0;
    assert!(matches!(standing, Standing::Ended { reason: EndReason::MaxConcurrent, .. }), "{standing:?}");
}

#[test]
fn signing_in_keeps_the_id_and_the_age_and_drops_the_old_value() {
    let table = table(Policy::default());
    let session = table.start(&newcomer(&[1]), AT);
    let before = table.view(&session, AT);
    let later = AT.plus(secs(5));
    active(table.identify(&session, &[token(2)], identity("ann"), later));
    let after = table.view(&session, later);
    assert_eq!((after.id, after.times.created_at), (before.id, before.times.created_at));
    assert_eq!(after.times.signed_in_at, Some(later));
    assert!(is_live(&table, 2, later) && !is_live(&table, 1, later));
}

#[test]
fn rotation_is_no_second_session_and_moves_no_deadline() {
    let table = table(limit(1, OnLimit::EndOldest));
    let session = sign_in(&table, "ann", 1, AT);
    let before = table.view(&session, AT);
    let later = AT.plus(secs(100));
    assert!(table.rotate(&session, &[token(2)], key(1), later));
    let after = table.view(&session, later);
    assert_eq!((after.times, after.deadline), (before.times, before.deadline));
    assert!(matches!(table.look_up(key(1), later).0, Standing::Live { alias: true, .. }));
    assert!(!is_live(&table, 1, later.plus(secs(10))), "the alias is over after its grace");
    assert!(is_live(&table, 2, later.plus(secs(10))));
}

#[test]
fn a_switched_account_takes_over_the_value() {
    let table = table(Policy::default());
    let ann = sign_in(&table, "ann", 1, AT);
    let reason = EndReason::AccountSwitched;
    let bob = active(table.succeed(&ann, reason, newcomer(&[]), identity("bob"), AT));
    assert_eq!(table.view(&ann, AT).end.map(|end| end.reason), Some(reason));
    let Standing::Live { session, .. } = table.look_up(key(1), AT).0 else { panic!("dead") };
    assert_eq!(session, table.view(&bob, AT).id);
}

#[test]
fn a_recycled_value_begins_its_next_generation() {
    let recorder = Arc::new(Recorder::default());
    let table = open(book(Policy::default()), recorder.clone());
    let first = sign_in(&table, "ann", 1, AT);
    table.end(&first, EndReason::Logout, None, AT);
    assert!(matches!(table.look_up(key(1), AT).0, Standing::Ended { .. }));
    let second = table.start(&newcomer(&[1]), AT);
    assert_eq!(table.inspect(&second, AT, |s| s.generation), 1);
    assert!(is_live(&table, 1, AT));
    assert!(recorder.kinds().contains(&EventKind::Recycled));
    // The old session's later end of memory does not take the value from the new one.
    let forgotten = AT.plus(secs(31 * 24 * 3600));
    table.set_book(endless(), AT);
    table.sweep(forgotten);
    assert!(table.by_id(first.id()).is_none(), "forgotten after ended_kept");
    assert!(is_live(&table, 1, forgotten));
}

/// A book under which nothing ends by itself.
fn endless() -> Book {
    book(Policy { idle_timeout: None, ..Policy::default() })
}

fn table_id(table: &Kept, session: &SessionRef) -> SessionId {
    table.inspect(session, AT, |s| s.id)
}

#[test]
fn anonymous_sessions_are_bounded_and_the_signed_in_stay() {
    let mut small = book(Policy::default());
    small.anonymous_sessions = 10;
    let table = open(small, Arc::new(Recorder::default()));
    sign_in(&table, "ann", 1, AT);
    for n in 100..200 {
        table.start(&newcomer(&[n]), AT);
    }
    assert_eq!(table.counts().anonymous, 10);
    assert!(is_live(&table, 1, AT));
    assert_eq!(table.look_up(key(100), AT).0, Standing::Unseen, "evicted ones are forgotten");
}

#[test]
fn pages_stay_right_while_sessions_come_and_go() {
    let table = table(Policy::default());
    let all: Vec<SessionRef> =
        (0..50).map(|n| sign_in(&table, &format!("u{n}"), n, AT.plus(secs(n)))).collect();
    let filter = Filter { state: Some(StateFilter::Active), ..Filter::default() };
    let now = AT.plus(secs(100));
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = table.list(&filter, cursor, 7, now);
        seen.extend(page.items.iter().map(|view| view.id));
        // Between two pages one session that was shown ends, and a new one comes.
        table.end(&all[seen.len() - 7.min(seen.len())], EndReason::Revoked, None, now);
        sign_in(&table, "late", 1000 + seen.len() as u64, AT);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut unique = seen.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), seen.len(), "no session twice");
    let expected: Vec<SessionId> = all.iter().map(|s| table_id(&table, s)).collect();
    assert!(expected.iter().all(|id| seen.contains(id)), "none left out");
}

#[test]
fn revoking_by_filter_ends_what_fits_and_spares_the_exceptions() {
    let table = table(Policy::default());
    let keep = sign_in(&table, "ann", 1, AT);
    sign_in(&table, "ann", 2, AT);
    sign_in(&table, "bob", 3, AT);
    let filter = Filter { user: Some(vec!["ann".into()]), ..Filter::default() };
    let except = [table_id(&table, &keep)];
    let by: Arc<str> = "ops".into();
    assert_eq!(table.revoke(&filter, &except, true, &by, AT).matched, 1);
    assert!(is_live(&table, 2, AT), "a dry run ends nobody");
    assert_eq!(table.revoke(&filter, &except, false, &by, AT).ended.len(), 1);
    assert_eq!([1, 2, 3].map(|n| is_live(&table, n, AT)), [true, false, true]);
}

#[test]
fn a_user_of_a_tenant_is_found_there_alone() {
    let mut book = book(Policy::default());
    book.apps.push(AppRules { name: "exact".into(), mode: Mode::Enforce, case: UserCase::Exact });
    let table = open(book, Arc::new(Recorder::default()));
    let sign_in_to = |app: &str, tenant: &str, user: &str, n| {
        let newcomer = Newcomer { app: table.app_id(app).unwrap(), ..newcomer(&[n]) };
        active(table.sign_in(&newcomer, Identity { tenant: tenant.into(), ..identity(user) }, AT))
    };
    for (app, tenant, user, n) in [
        ("app", "default", "ann", 1),
        ("app", "default", "ann", 2),
        ("app", "acme", "ann", 3),
        ("app", "acme", "bob", 4),
        ("exact", "acme", "ann", 5),
        ("exact", "Acme", "Ann", 6),
    ] {
        sign_in_to(app, tenant, user, n);
    }
    let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    let state = Some(StateFilter::Active);
    for (user, tenant, only_tenant, app, found) in [
        (&["ann"][..], None, None, None, 4),
        (&["ann"], names(&["default"]), None, None, 2),
        (&["ann"], names(&["acme"]), None, None, 2),
        (&["ann"], names(&["acme"]), None, Some("exact"), 1),
        (&["ann", "Ann"], names(&["acme", "Acme"]), None, None, 2),
        (&["ann", "Ann"], names(&["acme", "Acme"]), None, Some("exact"), 1),
        (&["ann"], None, Some("acme"), None, 2),
        (&["ann"], names(&["default"]), Some("acme"), None, 0),
        (&["ann"], names(&["nowhere"]), None, None, 0),
        (&["bob"], names(&["default"]), None, None, 0),
        (&["bob"], names(&["acme"]), None, Some("no such app"), 0),
    ] {
        let (only_tenant, app) = (only_tenant.map(str::to_owned), app.map(str::to_owned));
        let filter = Filter { user: names(user), tenant, only_tenant, app, state, ..Filter::default() };
        assert_eq!(table.list(&filter, None, 100, AT).items.len(), found, "{filter}");
    }
    let filter = Filter { user: names(&["ann"]), tenant: names(&["default"]), ..Filter::default() };
    assert_eq!(table.revoke(&filter, &[], false, &"ops".into(), AT).ended.len(), 2);
    assert_eq!([1, 2, 3, 4, 5, 6].map(|n| is_live(&table, n, AT)), [false, false, true, true, true, true]);
}

#[test]
fn users_are_listed_with_their_live_sessions() {
    let table = table(Policy::default());
    for (user, n) in [("ann", 1), ("ann", 2), ("bob", 3), ("cid", 4)] {
        sign_in(&table, user, n, AT);
    }
    let (page, next) = table.users(None, None, None, 2, AT);
    assert_eq!(
        page.iter().map(|u| (u.user.as_str(), u.sessions)).collect::<Vec<_>>(),
        [("ann", 2), ("bob", 1)]
    );
    let (rest, end) = table.users(None, None, next.as_ref(), 2, AT);
    assert_eq!((rest.len(), rest[0].user.as_str(), end), (1, "cid", None));
}
