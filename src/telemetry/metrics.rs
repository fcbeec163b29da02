//! Counters, and how they are told to Prometheus.
//!
//! The hot path adds to relaxed atomics of its app that were found at configuration load; everything is summed and
//! named when somebody scrapes. Nothing is labelled by user, session, path or raw host, which would have no bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::exposition::Exposition;
use super::habits::{Habit, Habits};
use crate::session::EndReason;

/// What a request came to. The list is closed, so that labels are.
const OUTCOMES: [&str; 19] = [
    "forwarded",
    "upgraded",
    "ended",
    "held_back",
    "reserved",
    "unidentified",
    "unavailable",
    "bad_sign_in",
    "user_unknown",
    "jar_full",
    "connect",
    "busy",
    "timeout",
    "protocol",
    "broke_off",
    "client_gone",
    "body_too_large",
    "bad_upgrade",
    "refused",
];

/// Upper bounds of the latency histogram, in microseconds.
const BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Why an upstream gave no answer.
const UPSTREAM_ERRORS: [&str; 7] =
    ["connect", "busy", "timeout", "protocol", "body_too_large", "client_gone", "bad_upgrade"];

/// What a connection may send in place of a request.
const BAD_HEADS: [&str; 3] = ["too_large", "malformed", "timeout"];

/// The identity sources.
const SOURCES: [&str; 7] =
    ["response-header", "login-form", "userinfo", "jwt-cookie", "jwt-header", "cookie", "request-header"];

/// What came of calls of the app's own logout, in the order of [`Farewelled`].
const FAREWELLS: [&str; 3] = ["called", "failed", "dropped"];

/// What came of a call of the app's own logout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewelled {
    /// The app took it.
    Called,
    /// It refused, or did not answer.
    Failed,
    /// Too many were waiting.
    Dropped,
}

type Counter = AtomicU64;

fn add(counter: &Counter, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn read(counter: &Counter) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The counters of one app.
#[derive(Debug, Default)]
pub struct AppMetrics {
    name: String,
    /// By outcome and class of status (0 for none).
    requests: [[Counter; 6]; OUTCOMES.len()],
    /// By bucket; the last holds what is slower than all of them.
    latency: [Counter; BUCKETS_US.len() + 1],
    latency_sum_us: Counter,
    sign_ins: Counter,
    held_back: Counter,
    ends: [Counter; EndReason::ALL.len()],
    would_end: [Counter; EndReason::ALL.len()],
    upstream_errors: [Counter; UPSTREAM_ERRORS.len()],
    identity_failures: [Counter; SOURCES.len()],
    cookies_dropped: Counter,
    set_cookies_unreadable: Counter,
    withheld: Counter,
    unconfirmed: Counter,
    evicted: Counter,
    farewells: [Counter; FAREWELLS.len()],
    /// What the app does that undoes its configuration.
    pub habits: Habits,
}

fn index_of(list: &[&str], label: &str) -> usize {
    list.iter().position(|known| *known == label).unwrap_or(list.len() - 1)
}

fn reason_index(reason: EndReason) -> usize {
    EndReason::ALL.iter().position(|known| *known == reason).unwrap_or(0)
}

impl AppMetrics {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The app's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request was answered, or not (`status` 0), after `micros`.
    pub fn request(&self, status: u16, outcome: &str, micros: u64) {
        let class = usize::from(status / 100).min(5);
        add(&self.requests[index_of(&OUTCOMES, outcome)][class], 1);
        add(&self.latency[BUCKETS_US.partition_point(|bound| *bound < micros)], 1);
        add(&self.latency_sum_us, micros);
    }

    /// Somebody signed in.
    pub fn signed_in(&self) {
        self.habits.named();
        add(&self.sign_ins, 1);
    }

    /// Somebody is held back at the limit.
    pub fn held_back(&self) {
        add(&self.held_back, 1);
    }

    /// A session ended.
    pub fn ended(&self, reason: EndReason) {
        add(&self.ends[reason_index(reason)], 1);
    }

    /// A session would have ended if the gateway enforced.
    pub fn would_end(&self, reason: EndReason) {
        add(&self.would_end[reason_index(reason)], 1);
    }

    /// The upstream gave no answer.
    pub fn upstream_error(&self, label: &str) {
        add(&self.upstream_errors[index_of(&UPSTREAM_ERRORS, label)], 1);
    }

    /// An identity source could not be read, verified or reached.
    pub fn identity_failure(&self, source: &str) {
        add(&self.identity_failures[index_of(&SOURCES, source)], 1);
    }

    /// Cookie pairs were dropped that the app could have read as a token.
    pub fn cookies_dropped(&self, n: u64) {
        add(&self.cookies_dropped, n);
    }

    /// The app set a cookie that browsers and the gateway cannot read, or that a browser would refuse. Told in the log when it
    /// happens first.
    pub fn set_cookie_unreadable(&self, app: &str) {
        if read(&self.set_cookies_unreadable) == 0 {
            let advice =
                "what it sets is followed by nobody; a Secure cookie needs https here, or to a trusted proxy";
            tracing::warn!(%app, advice, "the app sends a Set-Cookie that cannot be read, or that a browser would refuse");
        }
        add(&self.set_cookies_unreadable, 1);
    }

    /// A request presented only cookies that nobody saw being issued.
    pub fn unseen(&self) {
        self.habits.unseen(&self.name);
    }

    /// An answer changed what the store did not confirm in time.
    pub fn unconfirmed(&self) {
        add(&self.unconfirmed, 1);
    }

    /// A response's cookies were withheld.
    pub fn withheld(&self) {
        add(&self.withheld, 1);
    }

    /// The app used a dead value again.
    pub fn recycled(&self) {
        self.habits.recycled(&self.name);
    }

    /// The app's own logout was called for an end, or should have been.
    pub fn farewelled(&self, result: Farewelled) {
        add(&self.farewells[result as usize], 1);
    }

    /// An anonymous session was forgotten for room.
    pub fn evicted(&self) {
        add(&self.evicted, 1);
    }
}

/// How many sessions there are, for the gauges.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionCounts {
    /// Signed in.
    pub signed_in: usize,
    /// Anonymous.
    pub anonymous: usize,
    /// Ended and remembered.
    pub ended: usize,
    /// Cookies that sessions had no room for, since the start.
    pub crowded_out: usize,
    /// Writes of the store that are safe, and those that failed.
    pub store_writes: (u64, u64),
    /// The store cannot be written at present.
    pub store_degraded: bool,
    /// Sessions that wait to be written.
    pub store_waiting: usize,
    /// Entries of the audit that the store had no room for, since the start.
    pub audit_crowded_out: u64,
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    apps: RwLock<Vec<Arc<AppMetrics>>>,
    /// Requests for which no app was found.
    pub nowhere: Arc<AppMetrics>,
    connections: Counter,
    open_connections: AtomicI64,
    accept_errors: Counter,
    bad_heads: [Counter; BAD_HEADS.len()],
    reloads: [Counter; 2],
    key_fetches: [Counter; 2],
    admin_refusals: Counter,
}

/// Counts an open connection until dropped.
pub struct ConnectionGuard(Arc<Metrics>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            apps: RwLock::default(),
            nowhere: Arc::new(AppMetrics::new("")),
            connections: Counter::default(),
            open_connections: AtomicI64::default(),
            accept_errors: Counter::default(),
            bad_heads: Default::default(),
            reloads: Default::default(),
            key_fetches: Default::default(),
            admin_refusals: Counter::default(),
        })
    }

    /// The counters of the app `name`; the same for the same name, over reloads too.
    #[must_use]
    pub fn app(&self, name: &str) -> Arc<AppMetrics> {
        let known = |apps: &[Arc<AppMetrics>]| apps.iter().find(|app| app.name == name).cloned();
        if let Some(app) = known(&self.apps.read()) {
            return app;
        }
        let mut apps = self.apps.write();
        known(&apps).unwrap_or_else(|| {
            let app = Arc::new(AppMetrics::new(name));
            apps.push(Arc::clone(&app));
            app
        })
    }

    /// The counters of every app that a configuration ever named.
    #[must_use]
    pub fn apps(&self) -> Vec<Arc<AppMetrics>> {
        self.apps.read().clone()
    }

    /// A connection was accepted.
    #[must_use]
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        add(&self.connections, 1);
        self.open_connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        u64::try_from(self.open_connections.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// A connection could not be accepted.
    pub fn accept_error(&self) {
        add(&self.accept_errors, 1);
    }

    /// A connection brought no request that could be read: one of `too_large`, `malformed`, `timeout`.
    pub fn bad_head(&self, what: &str) {
        if let Some(at) = BAD_HEADS.iter().position(|known| *known == what) {
            add(&self.bad_heads[at], 1);
        }
    }

    /// The configuration was read again.
    pub fn reloaded(&self, accepted: bool) {
        add(&self.reloads[usize::from(accepted)], 1);
    }

    /// The keys of an identity provider were fetched, or could not be.
    pub fn keys_fetched(&self, fetched: bool) {
        add(&self.key_fetches[usize::from(fetched)], 1);
    }

    /// A call of the admin API had no token, or a wrong one.
    pub fn admin_refused(&self) {
        add(&self.admin_refusals, 1);
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn encode(&self, sessions: SessionCounts) -> String {
        let mut out = Exposition::default();
        out.family("tenure_sessions", "gauge", "Sessions by kind.");
        for (kind, n) in
            [("signed_in", sessions.signed_in), ("anonymous", sessions.anonymous), ("ended", sessions.ended)]
        {
            out.sample("tenure_sessions", &[("kind", kind)], n as u64);
        }
        let name = "tenure_cookies_crowded_out_total";
        out.family(name, "counter", "Configured cookies that a session had no room for.");
        out.sample(name, &[], sessions.crowded_out as u64);
        out.family("tenure_store_degraded", "gauge", "1 while the store cannot be written.");
        out.sample("tenure_store_degraded", &[], u64::from(sessions.store_degraded));
        out.family("tenure_store_waiting", "gauge", "Sessions that wait to be written.");
        out.sample("tenure_store_waiting", &[], sessions.store_waiting as u64);
        let name = "tenure_audit_crowded_out_total";
        out.family(
            name,
            "counter",
            "Entries of the audit that are in the log alone, because the store failed for long.",
        );
        out.sample(name, &[], sessions.audit_crowded_out);
        out.family("tenure_store_writes_total", "counter", "Transactions of the store by result.");
        let (safe, failed) = sessions.store_writes;
        for (result, n) in [("ok", safe), ("failed", failed)] {
            out.sample("tenure_store_writes_total", &[("result", result)], n);
        }
        let mut apps = self.apps.read().clone();
        apps.push(Arc::clone(&self.nowhere));
        encode_apps(&mut out, &apps);
        for (name, kind, help, value) in [
            ("tenure_connections_total", "counter", "Connections accepted.", read(&self.connections)),
            ("tenure_open_connections", "gauge", "Connections open.", self.open_connections()),
            ("tenure_accept_errors_total", "counter", "Connections not accepted.", read(&self.accept_errors)),
            ("tenure_admin_refusals_total", "counter", "Admin calls refused.", read(&self.admin_refusals)),
            (
                "tenure_log_lines_lost_total",
                "counter",
                "Log lines nobody took in time.",
                super::log::lost_lines(),
            ),
        ] {
            out.family(name, kind, help);
            out.sample(name, &[], value);
        }
        out.family("tenure_bad_heads_total", "counter", "Connections that brought no readable request.");
        for (reason, counter) in BAD_HEADS.iter().zip(&self.bad_heads) {
            out.sample("tenure_bad_heads_total", &[("reason", reason)], read(counter));
        }
        out.family("tenure_config_reloads_total", "counter", "Reloads by result.");
        for (result, counter) in ["refused", "accepted"].iter().zip(&self.reloads) {
            out.sample("tenure_config_reloads_total", &[("result", result)], read(counter));
        }
        out.family("tenure_jwks_fetches_total", "counter", "Fetches of identity providers' keys by result.");
        for (result, counter) in ["failed", "fetched"].iter().zip(&self.key_fetches) {
            out.sample("tenure_jwks_fetches_total", &[("result", result)], read(counter));
        }
        out.family("tenure_build_info", "gauge", "The version that runs.");
        out.sample("tenure_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        out.0
    }
}

type Read = fn(&AppMetrics) -> u64;

fn encode_apps(out: &mut Exposition, apps: &[Arc<AppMetrics>]) {
    let simple: [(&str, &str, Read); 13] = [
        ("tenure_sign_ins_total", "Sign-ins.", |app| read(&app.sign_ins)),
        ("tenure_held_back_total", "Sign-ins held back at the limit.", |app| read(&app.held_back)),
        (
            "tenure_set_cookies_unreadable_total",
            "Set-Cookie fields of the app that nobody can read.",
            |app| read(&app.set_cookies_unreadable),
        ),
        ("tenure_cookies_dropped_total", "Cookie pairs an app could have misread.", |app| {
            read(&app.cookies_dropped)
        }),
        ("tenure_unseen_total", "Requests with cookies never seen being issued.", |app| {
            app.habits.count(Habit::UnseenCookies)
        }),
        ("tenure_unconfirmed_total", "Answers whose change the store did not confirm in time.", |app| {
            read(&app.unconfirmed)
        }),
        ("tenure_withheld_total", "Responses whose cookies were withheld.", |app| read(&app.withheld)),
        ("tenure_recycled_total", "Dead values that the app used again.", |app| {
            app.habits.count(Habit::RecyclesIds)
        }),
        ("tenure_rotations_total", "Values that the app replaced without a sign-in.", |app| {
            app.habits.count(Habit::RotatesAlways)
        }),
        ("tenure_sign_in_forms_unmatched_total", "Sign-in forms that counted for nobody.", |app| {
            app.habits.count(Habit::SignInNeverMatches)
        }),
        ("tenure_anonymous_began_total", "Sessions that began without a user.", |app| {
            app.habits.count(Habit::NobodySignsIn)
        }),
        ("tenure_unidentified_total", "Requests with credentials in a header and no session.", |app| {
            app.habits.count(Habit::Unidentified)
        }),
        ("tenure_evicted_total", "Anonymous sessions forgotten for room.", |app| read(&app.evicted)),
    ];
    for (name, help, value) in simple {
        out.family(name, "counter", help);
        for app in apps.iter().filter(|app| !app.name.is_empty()) {
            out.sample(name, &[("app", &app.name)], value(app));
        }
    }
    let reasons = EndReason::ALL.map(EndReason::as_str);
    labelled(out, "tenure_ends_total", "Ends by reason.", "reason", &reasons, apps, |app| &app.ends);
    labelled(out, "tenure_would_end_total", "Ends only observed.", "reason", &reasons, apps, |app| {
        &app.would_end
    });
    let (name, help) = ("tenure_app_logouts_total", "Calls of the app's own logout after ends.");
    labelled(out, name, help, "result", &FAREWELLS, apps, |app| &app.farewells);
    let (name, help) = ("tenure_upstream_errors_total", "Requests without an answer.");
    labelled(out, name, help, "reason", &UPSTREAM_ERRORS, apps, |app| &app.upstream_errors);
    let (name, help) = ("tenure_identity_failures_total", "Identity sources that failed.");
    labelled(out, name, help, "source", &SOURCES, apps, |app| &app.identity_failures);
    encode_requests(out, apps);
}

fn labelled<const N: usize>(
    out: &mut Exposition,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str; N],
    apps: &[Arc<AppMetrics>],
    of: impl Fn(&AppMetrics) -> &[Counter; N],
) {
    out.family(name, "counter", help);
    for app in apps.iter().filter(|app| !app.name.is_empty()) {
        for (value, counter) in values.iter().zip(of(app)) {
            out.sample(name, &[("app", &app.name), (label, value)], read(counter));
        }
    }
}

fn encode_requests(out: &mut Exposition, apps: &[Arc<AppMetrics>]) {
    out.family("tenure_requests_total", "counter", "Requests by outcome and class of status.");
    for app in apps {
        for (outcome, classes) in OUTCOMES.iter().zip(&app.requests) {
            for (class, counter) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(classes) {
                if read(counter) > 0 {
                    let labels = [("app", app.name.as_str()), ("outcome", outcome), ("status", class)];
                    out.sample("tenure_requests_total", &labels, read(counter));
                }
            }
        }
    }
    out.family("tenure_request_seconds", "histogram", "Time from head to the end of the answer.");
    for app in apps {
        let mut total = 0;
        for (index, counter) in app.latency.iter().enumerate() {
            total += read(counter);
            let bound = BUCKETS_US.get(index).map_or("+Inf".to_owned(), |us| seconds(*us));
            out.sample("tenure_request_seconds_bucket", &[("app", &app.name), ("le", &bound)], total);
        }
        out.text("tenure_request_seconds_sum", &[("app", &app.name)], &seconds(read(&app.latency_sum_us)));
        out.sample("tenure_request_seconds_count", &[("app", &app.name)], total);
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_by_app() {
        let metrics = Metrics::new();
        let app = metrics.app("c\"rm");
        app.request(200, "forwarded", 700);
        app.request(0, "client_gone", 70_000_000);
        app.ended(EndReason::Revoked);
        let text = metrics.encode(SessionCounts { signed_in: 3, ..SessionCounts::default() });
        for line in [
            "tenure_sessions{kind=\"signed_in\"} 3",
            "tenure_requests_total{app=\"c\\\"rm\",outcome=\"forwarded\",status=\"2xx\"} 1",
            "tenure_ends_total{app=\"c\\\"rm\",reason=\"revoked\"} 1",
            "tenure_request_seconds_bucket{app=\"c\\\"rm\",le=\"0.001000\"} 1",
            "tenure_request_seconds_bucket{app=\"c\\\"rm\",le=\"+Inf\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        assert!(Arc::ptr_eq(&app, &metrics.app("c\"rm")));
    }
}
