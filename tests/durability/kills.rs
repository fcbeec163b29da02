//! `kill -9` at random moments under load, each followed by a restart and a comparison with what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use crate::compare::compare;
use crate::gateway::{Custody, Site};
use crate::ledger::Ledger;
use crate::load::Working;
use crate::number;
use crate::support::random::Random;

/// Kills on one directory, before another begins; it is as many as the short form has of each custody.
const KILLS_IN_A_LIFE: u64 = 5;
/// In the long form they are more, so that what has gathered is more too.
const KILLS_IN_A_LONG_LIFE: u64 = 25;
/// When the process dies, in milliseconds after the load began.
const SOONEST: usize = 5;
const LATEST: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_ended_comes_back_when_the_process_is_killed() {
    let (kills, seed) = (number("TENURE_KILLS", 2 * KILLS_IN_A_LIFE), number("TENURE_SEED", 1));
    let a_life = if kills > 50 { KILLS_IN_A_LONG_LIFE } else { KILLS_IN_A_LIFE };
    let (mut killed, mut sign_ins, mut ends) = (0, 0, 0);
    for life in 0..kills.div_ceil(a_life) {
        let rounds = a_life.min(kills - killed);
        let counts =
            live(Custody::of(life), rounds, Random(seed.wrapping_mul(1000).wrapping_add(life))).await;
        killed += rounds;
        sign_ins += counts.sign_ins;
        ends += counts.ends;
    }
    eprintln!(
        "{killed} kills: of {sign_ins} acknowledged sign-ins and {ends} acknowledged ends none was lost"
    );
    assert!(sign_ins as u64 > killed && ends as u64 > killed, "the load did next to nothing");
}

/// One directory, killed and restarted again and again.
async fn live(custody: Custody, rounds: u64, mut random: Random) -> crate::ledger::Counts {
    let site = Site::new(custody).await;
    let ledger = Arc::new(Ledger::default());
    for round in 0..rounds {
        let live = site.start().await;
        let working = Working::begin(&live, &ledger, custody, round, random.next());
        let moment = SOONEST + random.below(LATEST - SOONEST);
        tokio::time::sleep(Duration::from_millis(moment as u64)).await;
        live.kill().await;
        working.ends().await;
        let live = site.start().await;
        let is_last = round + 1 == rounds;
        let wrong = compare(&live, &ledger, &site.app, &mut random, is_last).await;
        assert!(wrong.is_empty(), "{custody:?}, round {round}, killed after {moment} ms:\n{wrong:#?}");
        live.leave_or_die(&mut random).await;
    }
    ledger.counts()
}
