//! What the pure core costs per request: reading cookies, normalising the path, weighing, judging, deciding.
//!
//! `cargo bench --bench core`. Figures are for comparing versions of this code on one machine; what a whole request
//! costs is measured by `benches/side-by-side/run.sh`.

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, criterion_group, criterion_main};
use tenure::session::activity::{Asked, Kind};
use tenure::session::cookie::{RequestCookies, read_set_cookie};
use tenure::session::device::Device;
use tenure::session::fields::Fields;
use tenure::session::gate::{Evidence, Facts, Place, Rules, Standing, Unseen, Weighed, decide, weigh};
use tenure::session::path::normalise;
use tenure::session::policy::{Admission, Rival, admit};
use tenure::session::profile::{CookieKind, CookieRule, Extract, NamePattern};
use tenure::session::{Moment, Policy, SessionId, Span, Times, deadline, judge};

const PLAIN: &str = "theme=dark; _ga=GA1.2.1403312345.1700000000; lang=en";
const ONE: &str = "theme=dark; JSESSIONID=5F4DCC3B5AA765D61D8327DEB882CF99.node1; lang=en";

fn rules() -> Vec<CookieRule> {
    [("JSESSIONID", CookieKind::Session), ("remember-me", CookieKind::Companion)]
        .map(|(name, kind)| CookieRule {
            name: NamePattern::parse(name),
            kind,
            extract: Extract::for_name(name),
        })
        .into()
}

fn cookies(c: &mut Criterion) {
    let rules = rules();
    let many = format!("{}; {ONE}", (0..20).map(|i| format!("k{i}=v{i}")).collect::<Vec<_>>().join("; "));
    let mut group = c.benchmark_group("cookies");
    for (name, header) in [("none of ours", PLAIN), ("one of ours", ONE), ("one among 23", &many)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                RequestCookies::parse(std::iter::once(black_box(header).as_bytes()), &rules).tokens.len()
            });
        });
    }
    let parsed = RequestCookies::parse(std::iter::once(ONE.as_bytes()), &rules);
    group.bench_function("forward one", |b| b.iter(|| black_box(&parsed).forwarded(|_, _| true)));
    let field = b"JSESSIONID=5F4DCC3B5AA765D61D8327DEB882CF99; Path=/app; Secure; HttpOnly; SameSite=Lax";
    group.bench_function("read Set-Cookie", |b| {
        b.iter(|| read_set_cookie(black_box(field), "/app/x", Moment::from_unix_ms(0)));
    });
    group.finish();
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("path");
    for (name, path) in [
        ("plain", "/app/orders/2026/11/list"),
        ("escaped", "/app/%6frders/../caf%c3%a9/%2e%2e/list"),
        ("with session id", "/app/orders;jsessionid=5F4DCC3B5AA765D61D8327DEB882CF99/list"),
    ] {
        group.bench_function(name, |b| b.iter(|| normalise(black_box(path), &["jsessionid"])));
    }
    group.finish();
}

fn gate(c: &mut Criterion) {
    let session = SessionId::from_u128(7);
    let rules = Rules { unseen: Unseen::Refuse, pass_unidentified: true, enforce: true, has_login: true };
    let facts = Facts { kind: Kind::Navigation, place: Place::Other, activity: true, credentials: false };
    let mut group = c.benchmark_group("gate");
    let standing = Standing::Live { session, alias: false };
    let tokens = [Weighed { name: b"JSESSIONID", kind: CookieKind::Session, standing }];
    group.bench_function("weigh one live token", |b| b.iter(|| weigh(black_box(&tokens), 0)));
    let evidence = Evidence::Live { session, alias: false };
    group.bench_function("decide", |b| b.iter(|| decide(&rules, black_box(&facts), black_box(evidence))));
    let mut headers = http::HeaderMap::new();
    headers.insert("sec-fetch-mode", http::HeaderValue::from_static("navigate"));
    let asked = Asked { method: &http::Method::GET, path: "/app/orders", fields: &Fields::of(&headers) };
    group.bench_function("kind of a request", |b| b.iter(|| black_box(&asked).kind()));
    group.finish();
}

fn policy(c: &mut Criterion) {
    let policy = Policy {
        force_relogin: Some(Span::from_secs(12 * 3600)),
        max_concurrent: NonZeroU32::new(3),
        ..Policy::default()
    };
    let at = Moment::from_unix_ms(1_790_000_000_000);
    let times = Times { created_at: at, signed_in_at: Some(at), last_active_at: at };
    let mut group = c.benchmark_group("policy");
    group.bench_function("deadline and judge", |b| {
        b.iter(|| judge(deadline(black_box(&policy), black_box(&times)), black_box(at)));
    });
    let rival = |id| Rival { id: SessionId::from_u128(id), signed_in_at: at, last_active_at: at };
    let rivals: Vec<Rival> = (0..50).map(rival).collect();
    assert!(matches!(admit(&policy, &rivals), Admission::Active { end } if end.len() == 48));
    group.bench_function("admit beside 3", |b| b.iter(|| admit(&policy, black_box(&rivals[..3]))));
    group.bench_function("admit beside 50", |b| b.iter(|| admit(&policy, black_box(&rivals))));
    group.finish();
}

fn device(c: &mut Criterion) {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
    c.bench_function("device", |b| b.iter(|| Device::read(black_box(agent))));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = cookies, paths, gate, policy, device
}
criterion_main!(benches);
