//! What changes of policy, mode and roles do to living sessions, and what observing counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tenure::session::gate::Standing;
use tenure::session::identity::Identity;
use tenure::session::layers::{Layer, Limit};
use tenure::session::record::Mode;
use tenure::session::{EndReason, Moment, OnLimit, Policy, Span};
use tenure::store::{Enrolled, Event, EventKind, Observer, RoleRules};

use super::super::place::{open, table};
use super::{active, is_live, limit, sign_in};
use crate::store_support::{AT, Recorder, book, identity, key, newcomer, secs};

#[test]
fn a_tighter_policy_ends_at_once_what_it_must_and_a_looser_one_revives_nothing() {
    let table = table(Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    sign_in(&table, "ann", 1, AT);
    sign_in(&table, "bob", 2, AT.plus(secs(50)));
    let now = AT.plus(secs(70));
    // Ann's session is over under the old deadline, though nobody looked; a longer time-out does not save it (R1).
    table.set_book(book(Policy { idle_timeout: Some(secs(3600)), ..Policy::default() }), now);
    assert!(!is_live(&table, 1, now) && is_live(&table, 2, now));
    table.set_book(book(Policy { idle_timeout: Some(secs(5)), ..Policy::default() }), now);
    assert!(!is_live(&table, 2, now));
}

#[test]
fn a_policy_of_one_user_holds_for_that_user() {
    let mut book = book(Policy::default());
    let layer = Layer { idle_timeout: Some(Limit::At(secs(5))), ..Layer::default() };
    book.layers.users.insert(("default".into(), "ann".into()), layer);
    let table = open(book, Arc::new(Recorder::default()));
    sign_in(&table, "ann", 1, AT);
    sign_in(&table, "bob", 2, AT);
    assert_eq!([1, 2].map(|n| is_live(&table, n, AT.plus(secs(6)))), [false, true]);
}

#[test]
fn observing_ends_nobody_by_time_or_limit_and_counts_once() {
    let mut observed = book(Policy { idle_timeout: Some(secs(10)), ..limit(1, OnLimit::EndOldest) });
    observed.apps[0].mode = Mode::Observe;
    let recorder = Arc::new(Recorder::default());
    let table = open(observed, recorder.clone());
    let first = sign_in(&table, "ann", 1, AT);
    sign_in(&table, "ann", 2, AT);
    let later = AT.plus(secs(20));
    for _ in 0..3 {
        assert!(is_live(&table, 1, later) && is_live(&table, 2, later));
    }
    let would = |reason| recorder.kinds().iter().filter(|k| **k == EventKind::WouldEnd(reason)).count();
    assert_eq!((would(EndReason::MaxConcurrent), would(EndReason::IdleTimeout)), (1, 2));
    table.end(&first, EndReason::Revoked, None, later);
    assert!(!is_live(&table, 1, later), "revocation acts as ever");
}

#[test]
fn switching_enforcement_off_revives_nothing_and_on_judges_all() {
    let policy = Policy { idle_timeout: Some(secs(60)), ..Policy::default() };
    let mut observed = book(policy);
    observed.apps[0].mode = Mode::Observe;
    let table = table(policy);
    sign_in(&table, "ann", 1, AT);
    let over = AT.plus(Span::from_ms(60_100));
    table.set_book(observed, over);
    assert!(!is_live(&table, 1, over), "it was over before, though nobody had looked (R1)");
    let session = sign_in(&table, "ann", 2, over);
    let later = over.plus(secs(100));
    assert!(is_live(&table, 2, later));
    table.set_book(book(policy), later);
    assert!(!is_live(&table, 2, later));
    assert_eq!(table.view(&session, later).end.map(|end| end.at), Some(later), "it ends by the change (R17)");
}

#[test]
fn a_lowered_limit_ends_the_surplus_at_once_and_refuse_ends_nobody() {
    for (on_limit, live) in [
        (OnLimit::EndOldest, [false, true, true]),
        (OnLimit::EndIdlest, [true, false, true]),
        (OnLimit::Refuse, [true; 3]),
        (OnLimit::Ask, [true; 3]),
    ] {
        let recorder = Arc::new(Recorder::default());
        let table = open(book(limit(3, on_limit)), recorder.clone());
        let first = sign_in(&table, "ann", 1, AT);
        sign_in(&table, "ann", 2, AT.plus(secs(1)));
        sign_in(&table, "ann", 3, AT.plus(secs(2)));
        sign_in(&table, "bob", 4, AT);
        table.note_request(&first, key(1), true, AT.plus(secs(3)));
        let now = AT.plus(secs(4));
        table.set_book(book(limit(2, on_limit)), now);
        assert_eq!([1, 2, 3].map(|n| is_live(&table, n, now)), live, "{on_limit:?}");
        assert!(is_live(&table, 4, now));
        let ends = recorder.ends();
        assert!(ends.iter().all(|reason| *reason == EndReason::MaxConcurrent), "{ends:?}");
        assert_eq!(ends.len(), live.iter().filter(|live| !**live).count());
    }
}

#[test]
fn observing_counts_the_limit_once_for_each_session_and_frees_what_nobody_uses() {
    let mut observed = book(Policy { idle_timeout: Some(secs(10)), ..limit(1, OnLimit::EndOldest) });
    observed.apps[0].mode = Mode::Observe;
    let recorder = Arc::new(Recorder::default());
    let table = open(observed, recorder.clone());
    let used = sign_in(&table, "ann", 1, AT);
    for n in 2..=5 {
        sign_in(&table, "ann", n, AT);
    }
    let would = |reason| recorder.kinds().iter().filter(|k| **k == EventKind::WouldEnd(reason)).count();
    assert_eq!(would(EndReason::MaxConcurrent), 4);
    let hour = 3600;
    for n in 0..27 {
        table.note_request(&used, key(1), true, AT.plus(secs(n * hour)));
        table.sweep(AT.plus(secs(n * hour)));
    }
    assert_eq!((table.counts().signed_in, table.filed()), (1, 1), "only what is used is kept");
    assert!(is_live(&table, 1, AT.plus(secs(27 * hour))));
    assert_eq!(table.look_up(key(2), AT).0, Standing::Unseen);
    assert_eq!((would(EndReason::IdleTimeout), recorder.ends()), (5, vec![]));
}

#[test]
fn other_roles_act_at_once_and_revive_nothing() {
    let mut roles = book(Policy { idle_timeout: Some(secs(60)), ..Policy::default() });
    roles.roles.insert("staff".into(), RoleRules { learned: true, ..RoleRules::default() });
    let layer = Layer { idle_timeout: Some(Limit::At(secs(10))), ..Layer::default() };
    roles.layers.roles.insert("staff".into(), layer);
    let table = open(roles, Arc::new(Recorder::default()));
    let session = sign_in(&table, "ann", 1, AT);
    let staff = Identity { roles: vec!["staff".into()], ..identity("ann") };
    assert!(table.change_roles(&session, &staff, AT) && !table.change_roles(&session, &staff, AT));
    assert!(is_live(&table, 1, AT.plus(secs(9))) && !is_live(&table, 1, AT.plus(secs(10))));
    assert!(!table.change_roles(&session, &identity("ann"), AT.plus(secs(11))));
    assert!(!is_live(&table, 1, AT.plus(secs(11))));
}

#[test]
fn a_session_made_during_a_reload_is_held_to_the_new_book() {
    let [long, short] = [3600, 10].map(|idle| {
        let mut book = book(Policy { idle_timeout: Some(secs(idle)), ..Policy::default() });
        book.anonymous_sessions = 100_000;
        book
    });
    for _ in 0..100 {
        let table = open(long.clone(), Arc::new(Recorder::default()));
        let begun = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200 {
                    table.start(&newcomer(&[n]), AT);
                    begun.store(n, Ordering::Release);
                }
            });
            while begun.load(Ordering::Acquire) < 20 {
                std::hint::spin_loop();
            }
            table.set_book(short.clone(), AT);
        });
        table.sweep(AT.plus(secs(11)));
        assert_eq!((table.counts().anonymous, table.filed()), (0, 0));
    }
}

#[test]
fn being_admitted_later_is_no_second_sign_in() {
    let table = table(limit(1, OnLimit::Refuse));
    let first = sign_in(&table, "ann", 1, AT);
    let later = AT.plus(secs(1));
    let Enrolled::Pending(second) = table.sign_in(&newcomer(&[2]), identity("ann"), later) else {
        panic!("not held back")
    };
    table.end(&first, EndReason::Logout, None, later);
    active(table.admit_pending(&second, AT.plus(secs(60))));
    let times = table.view(&second, later).times;
    assert_eq!((times.signed_in_at, times.last_active_at), (Some(later), AT.plus(secs(60))));
}

#[test]
fn activity_puts_an_anonymous_session_behind_the_idle_ones() {
    let mut small = book(Policy::default());
    small.anonymous_sessions = 3;
    let table = open(small, Arc::new(Recorder::default()));
    for n in 1..=3 {
        let session = table.start(&newcomer(&[n]), AT);
        table.note_request(&session, key(n), true, AT);
    }
    let first = table.look_up(key(1), AT).1.unwrap();
    let later = AT.plus(secs(300));
    table.note_request(&first, key(1), true, later);
    table.start(&newcomer(&[4]), later);
    assert_eq!([1, 2, 3, 4].map(|n| is_live(&table, n, later)), [true, false, true, true]);
}

/// Remembers when each event happened.
#[derive(Default)]
struct Moments(parking_lot::Mutex<Vec<(EventKind, Moment)>>);

impl Observer for Moments {
    fn observe(&self, event: &Event) {
        self.0.lock().push((event.kind.clone(), event.at));
    }
}

#[test]
fn what_is_no_end_is_dated_when_it_comes_to_light() {
    let mut observed = book(Policy { idle_timeout: Some(secs(10)), ..Policy::default() });
    observed.apps[0].mode = Mode::Observe;
    observed.anonymous_sessions = 1;
    let moments = Arc::new(Moments::default());
    let table = open(observed, moments.clone());
    table.start(&newcomer(&[1]), AT);
    let later = AT.plus(secs(60));
    assert!(is_live(&table, 1, later));
    table.start(&newcomer(&[2]), later);
    let expected = [(EventKind::WouldEnd(EndReason::IdleTimeout), later), (EventKind::Evicted, later)];
    assert_eq!(*moments.0.lock(), expected);
}
