//! Whom a key stands for, and what becomes of it when answers cross each other, sessions end or are evicted.

use std::sync::Arc;

use tenure::session::gate::Standing;
use tenure::session::{EndReason, Policy};
use tenure::store::{Enrolled, EventKind, Filter, Newcomer};

use super::super::place::{open, table};
use super::{active, is_live, sign_in};
use crate::store_support::{AT, Recorder, book, companion, identity, key, newcomer, secs, token};

fn with_companion(n: u64, companion_value: u64) -> Newcomer {
    let mut newcomer = newcomer(&[n]);
    newcomer.tokens.push(companion(companion_value));
    newcomer
}

#[test]
fn what_is_evicted_or_over_leaves_the_sweeper_too() {
    let mut small = book(Policy::default());
    small.anonymous_sessions = 10;
    let table = open(small.clone(), Arc::new(Recorder::default()));
    for n in 0..100 {
        table.start(&newcomer(&[n]), AT);
    }
    assert_eq!((table.filed(), table.counts().ended), (10, 0));
    for idle in [60, 3600, 120] {
        small.layers.base.idle_timeout = Some(secs(idle));
        table.set_book(small.clone(), AT);
        assert_eq!(table.filed(), 10, "a reload files nothing twice");
    }
    let session = sign_in(&table, "ann", 1000, AT);
    assert_eq!(table.filed(), 11);
    table.end(&session, EndReason::Revoked, None, AT);
    assert_eq!(table.filed(), 10);
    table.sweep(AT.plus(secs(1000)));
    assert_eq!((table.filed(), table.counts().ended), (0, 11));
}

#[test]
fn somebody_who_signs_in_while_being_evicted_is_either_in_or_out() {
    for round in 0..200 {
        let mut small = book(Policy::default());
        small.anonymous_sessions = 1;
        let table = open(small, Arc::new(Recorder::default()));
        let session = table.start(&newcomer(&[1]), AT);
        let enrolled = std::thread::scope(|scope| {
            let evicting = scope.spawn(|| table.start(&newcomer(&[2]), AT));
            let enrolled = table.identify(&session, &[token(3)], identity("ann"), AT);
            evicting.join().unwrap();
            enrolled
        });
        let found = table.by_id(session.id()).is_some();
        assert_eq!(matches!(enrolled, Enrolled::Active(_)), found, "round {round}");
        assert_eq!((is_live(&table, 3, AT), found), (found, found));
        let filter = Filter { user: Some(vec!["ann".into()]), ..Filter::default() };
        assert_eq!(table.revoke(&filter, &[], true, &"ops".into(), AT).matched, usize::from(found));
    }
}

#[test]
fn nothing_happens_on_an_evicted_session() {
    let mut small = book(Policy::default());
    small.anonymous_sessions = 1;
    let table = open(small, Arc::new(Recorder::default()));
    let session = table.start(&newcomer(&[1]), AT);
    table.start(&newcomer(&[2]), AT);
    assert!(matches!(table.identify(&session, &[token(3)], identity("ann"), AT), Enrolled::Over));
    assert!(!table.rotate(&session, &[token(4)], key(1), AT) && !table.touch(&session, AT));
    assert!(!table.is_live(&session, key(1), AT));
    assert_eq!([1, 3, 4].map(|n| table.look_up(key(n), AT).0), [Standing::Unseen; 3]);
}

#[test]
fn nobody_succeeds_a_session_that_is_over() {
    let table = table(Policy::default());
    let ann = sign_in(&table, "ann", 1, AT);
    table.end(&ann, EndReason::Revoked, None, AT);
    let succeeded =
        table.succeed(&ann, EndReason::AccountSwitched, newcomer(&[2]), identity("bob"), AT.plus(secs(1)));
    assert!(matches!(succeeded, Enrolled::Over));
    assert!(matches!(table.look_up(key(1), AT).0, Standing::Ended { reason: EndReason::Revoked, .. }));
    assert_eq!(table.look_up(key(2), AT).0, Standing::Unseen);
}

#[test]
fn a_companion_of_two_browsers_dies_with_the_first_of_their_sessions() {
    for (revoked, other) in [(0, 1), (1, 0)] {
        let table = table(Policy::default());
        let sessions = [1, 2].map(|n| active(table.sign_in(&with_companion(n, 50), identity("ann"), AT)));
        let Standing::Live { session, .. } = table.look_up(key(50), AT).0 else { panic!("dead") };
        assert_eq!(session, sessions[0].id(), "it stays with the first");
        table.end(&sessions[revoked], EndReason::Revoked, None, AT);
        let standing = table.look_up(key(50), AT).0;
        assert!(matches!(standing, Standing::Ended { reason: EndReason::Revoked, .. }), "{standing:?}");
        assert!(is_live(&table, [1, 2][other], AT), "the other browser has its own cookie");
        // Neither the app's answer to the other browser nor a sign-in there brings it back.
        assert!(table.rotate(&sessions[other], &[companion(50)], key([1, 2][other]), AT));
        assert!(!is_live(&table, 50, AT));
        let reason = EndReason::Superseded;
        active(table.succeed(&sessions[other], reason, newcomer(&[3]), identity("ann"), AT));
        assert!(!is_live(&table, 50, AT) && is_live(&table, 3, AT));
    }
}

#[test]
fn a_companion_follows_its_session_to_the_next_sign_in() {
    let table = table(Policy::default());
    let first = active(table.sign_in(&with_companion(1, 50), identity("ann"), AT));
    active(table.succeed(&first, EndReason::Superseded, newcomer(&[2]), identity("ann"), AT));
    assert_eq!([1, 2, 50].map(|n| is_live(&table, n, AT)), [false, true, true]);
}

#[test]
fn a_live_session_cookie_is_taken_over_by_nobody() {
    let table = table(Policy::default());
    let ann = sign_in(&table, "ann", 1, AT);
    let bob = sign_in(&table, "bob", 2, AT);
    assert!(table.rotate(&bob, &[token(1)], key(2), AT));
    assert_eq!(table.start(&newcomer(&[1]), AT).id(), ann.id());
    assert!(matches!(table.sign_in(&newcomer(&[1]), identity("bob"), AT), Enrolled::Over));
    let Standing::Live { session, .. } = table.look_up(key(1), AT).0 else { panic!("dead") };
    assert_eq!((session, is_live(&table, 2, AT)), (ann.id(), true));
}

#[test]
fn two_answers_identify_one_session_once() {
    let recorder = Arc::new(Recorder::default());
    let table = open(book(Policy::default()), recorder.clone());
    let session = table.start(&newcomer(&[1]), AT);
    active(table.identify(&session, &[token(2)], identity("ann"), AT));
    assert!(matches!(table.identify(&session, &[token(3)], identity("bob"), AT), Enrolled::Over));
    assert_eq!(recorder.kinds().iter().filter(|kind| **kind == EventKind::SignedIn).count(), 1);
    let bobs = Filter { user: Some(vec!["bob".into()]), ..Filter::default() };
    assert_eq!(table.revoke(&bobs, &[], true, &"ops".into(), AT).matched, 0);
    assert_eq!(table.look_up(key(3), AT).0, Standing::Unseen);
}

#[test]
fn an_anonymous_answer_after_a_sign_in_changes_nothing_in_it() {
    let table = table(Policy::default());
    let session = table.start(&newcomer(&[1]), AT);
    active(table.identify(&session, &[token(2)], identity("ann"), AT));
    assert!(
        !table.rotate(&session, &[token(3)], key(1), AT),
        "its request carried what the sign-in replaced"
    );
    assert!(is_live(&table, 2, AT));
    assert_eq!(table.look_up(key(3), AT).0, Standing::Unseen);
}

#[test]
fn a_value_that_a_sign_in_replaced_does_not_go_on() {
    let table = table(Policy::default());
    let session = table.start(&newcomer(&[1]), AT);
    assert!(table.note_request(&session, key(1), true, AT));
    active(table.identify(&session, &[token(2)], identity("ann"), AT));
    assert!(!table.is_live(&session, key(1), AT) && !table.note_request(&session, key(1), true, AT));
    assert!(table.is_live(&session, key(2), AT));
    table.rotate(&session, &[token(3)], key(2), AT);
    assert!(table.is_live(&session, key(2), AT), "an alias within its grace goes on");
    assert!(!table.is_live(&session, key(2), AT.plus(secs(10))));
}

#[test]
fn a_companion_that_the_app_deletes_is_forgotten() {
    let table = table(Policy::default());
    let session = active(table.sign_in(&with_companion(1, 50), identity("ann"), AT));
    table.forget_cookie(&session, "remember", AT);
    assert_eq!(table.look_up(key(50), AT).0, Standing::Unseen);
    assert!(is_live(&table, 1, AT));
}
