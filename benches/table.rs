//! What the session table costs with a thousand, a million and ten million sessions in it: a growing table must not
//! make a request slower than memory itself does.
//!
//! `cargo bench --bench table`, which takes some ten minutes and about 11 GB; `TENURE_BENCH_SESSIONS=1000000` for fewer.

#[path = "../tests/store_support/mod.rs"]
mod store_support;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use store_support::{AT, book, identity, key, newcomer, secs};
use tenure::session::identity::Identity;
use tenure::session::{EndReason, Policy};
use tenure::store::{Filter, StateFilter, Table};

/// Two sessions a user, as DESIGN's budget of memory has it.
const SESSIONS_A_USER: u64 = 2;

/// Criterion's default, and its minimum.
const SAMPLES: usize = 100;
const SAMPLES_OF_WALKS: usize = 10;

/// Hears nothing: what an observer does is measured elsewhere.
struct Deaf;

impl tenure::store::Observer for Deaf {
    fn observe(&self, _: &tenure::store::Event) {}
}

fn user(n: u64) -> Identity {
    identity(&format!("user{:016}", n / SESSIONS_A_USER))
}

/// A table with the sessions `0..sessions`, all signed in.
fn filled(sessions: u64) -> Table {
    let policy = Policy {
        idle_timeout: Some(secs(3600)),
        force_relogin: Some(secs(12 * 3600)),
        max_concurrent: NonZeroU32::new(3),
        ..Policy::default()
    };
    let table = Table::new(book(policy), Arc::new(Deaf));
    for n in 0..sessions {
        table.sign_in(&newcomer(&[n]), user(n), AT);
    }
    table
}

/// Visits all sessions in an order that no cache foresees; the step is prime to every size.
struct Walk {
    at: u64,
    sessions: u64,
}

impl Walk {
    fn next(&mut self) -> u64 {
        self.at = (self.at + 7_368_787) % self.sessions;
        self.at
    }
}

fn measure(c: &mut Criterion, sessions: u64) {
    let table = filled(sessions);
    let mut walk = Walk { at: 0, sessions };
    let mut group = c.benchmark_group("table");
    let id = |what: &str| BenchmarkId::new(what, sessions);
    group.bench_function(id("look up and note a request"), |b| {
        b.iter(|| {
            let key = key(walk.next());
            let (_, session) = table.look_up(key, AT);
            session.is_some_and(|session| table.note_request(&session, key, true, AT))
        });
    });
    group.bench_function(id("miss"), |b| b.iter(|| table.look_up(key(black_box(sessions + 1)), AT).0));
    let mut of_user = |is_tenant_known: bool, state| {
        let Identity { user, tenant, .. } = user(walk.next());
        let tenant = is_tenant_known.then(|| vec![tenant]);
        let filter = Filter { user: Some(vec![user]), tenant, state, ..Filter::default() };
        table.list(&filter, None, 100, AT).items.len()
    };
    let living = Some(StateFilter::Active);
    group.bench_function(id("list a user's live sessions"), |b| b.iter(|| of_user(true, living)));
    // What walks over all users or all sessions: of ten million that takes seconds.
    group.sample_size(SAMPLES_OF_WALKS);
    group.bench_function(id("the same, tenant unknown"), |b| b.iter(|| of_user(false, living)));
    group.bench_function(id("list a user's sessions, ended ones too"), |b| b.iter(|| of_user(true, None)));
    group.bench_function(id("first page of all"), |b| {
        b.iter(|| table.list(&Filter::default(), None, 100, AT).items.len());
    });
    group.sample_size(SAMPLES);
    let mut fresh = sessions + 2;
    group.bench_function(id("sign in and end"), |b| {
        b.iter_batched(
            || {
                fresh += 1;
                (newcomer(&[fresh]), user(fresh))
            },
            |(newcomer, user)| {
                table.sign_in(&newcomer, user, AT);
                let (_, session) = table.look_up(newcomer.tokens[0].key, AT);
                session.is_some_and(|session| table.end(&session, EndReason::Revoked, None, AT))
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function(id("sweep with nothing due"), |b| b.iter(|| table.sweep(AT)));
    group.finish();
}

fn tables(c: &mut Criterion) {
    let sizes = std::env::var("TENURE_BENCH_SESSIONS").unwrap_or_else(|_| "1000,1000000,10000000".to_owned());
    for size in sizes.split(',').filter_map(|size| size.trim().parse().ok()) {
        measure(c, size);
    }
}

criterion_group!(benches, tables);
criterion_main!(benches);
