//! Verifiers of JWT sources, and their keys: given as PEM, or fetched as a JWKS by the control thread.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::jwks::Fetcher;
use crate::clock::Clock;
use crate::config::Config;
use crate::proxy::jwt::{SharedKeys, Verifier};
use crate::session::Span;
use crate::session::identity::{JwtKeys, SourceKind};
use crate::session::keys::KeySet;

/// How often keys are fetched without being missed.
const EVERY: Span = Span::from_secs(600);

/// Between two fetches of one URL lies at least this time, whatever tokens come and however fetching fails.
const AT_LEAST: Span = Span::from_secs(30);

/// All key sets in use, by URL; their number is that of the configuration's sources.
pub(super) struct Keys {
    sets: Mutex<HashMap<String, Arc<SharedKeys>>>,
    changed: Notify,
    fetcher: Arc<Fetcher>,
}

impl Keys {
    /// No keys yet; `fetcher` will get them.
    pub(super) fn new(fetcher: Fetcher) -> Self {
        Self { sets: Mutex::default(), changed: Notify::new(), fetcher: Arc::new(fetcher) }
    }

    /// The verifier of a JWT source. A URL that is known keeps its keys; a new one is fetched at once.
    pub(super) fn verifier(&self, kind: &SourceKind) -> Option<Verifier> {
        let (SourceKind::JwtCookie { jwt, .. } | SourceKind::JwtHeader { jwt, .. }) = kind else {
            return None;
        };
        let keys = match &jwt.keys {
            JwtKeys::Jwks(url) => self.set_of(url),
            // The configuration was checked; a key that cannot be read verifies nothing.
            JwtKeys::Pem(pem) => SharedKeys::new(KeySet::from_pem(pem).unwrap_or_default()),
        };
        Some(Verifier::new(jwt, keys))
    }

    fn set_of(&self, url: &str) -> Arc<SharedKeys> {
        let mut sets = self.sets.lock();
        let known = sets.entry(url.to_owned());
        let keys = known.or_insert_with(|| {
            self.changed.notify_one();
            Arc::default()
        });
        Arc::clone(keys)
    }

    /// Forgets what `config` does not use.
    pub(super) fn keep(&self, config: &Config) {
        let rules =
            config.apps.iter().flat_map(|app| &app.identity).filter_map(|source| match &source.kind {
                SourceKind::JwtCookie { jwt, .. } | SourceKind::JwtHeader { jwt, .. } => Some(&jwt.keys),
                SourceKind::ResponseHeader(_)
                | SourceKind::LoginForm(_)
                | SourceKind::UserInfo { .. }
                | SourceKind::Cookie(_)
                | SourceKind::RequestHeader(_) => None,
            });
        let used: Vec<&JwtKeys> = rules.collect();
        self.sets
            .lock()
            .retain(|url, _| used.iter().any(|keys| matches!(keys, JwtKeys::Jwks(u) if u == url)));
        self.changed.notify_one();
    }

    /// Fetches all keys, again and again, for ever.
    // CANCEL: every fetch ends with the future.
    pub(super) async fn fetch(&self, clock: &Clock) {
        let mut tasks = JoinSet::new();
        let mut followed: HashMap<String, (Arc<SharedKeys>, AbortHandle)> = HashMap::new();
        loop {
            let wanted = self.sets.lock().clone();
            followed.retain(|url, (keys, task)| {
                let stays = wanted.get(url).is_some_and(|set| Arc::ptr_eq(set, keys));
                if !stays {
                    task.abort();
                }
                stays
            });
            for (url, keys) in
                wanted.into_iter().filter(|(url, _)| !followed.contains_key(url)).collect::<Vec<_>>()
            {
                let following =
                    follow(url.clone(), Arc::clone(&keys), Arc::clone(&self.fetcher), clock.clone());
                followed.insert(url, (keys, tasks.spawn(following)));
            }
            while tasks.try_join_next().is_some() {}
            self.changed.notified().await;
        }
    }
}

/// Keeps the keys of one URL fresh. Those in use stay while fetching fails.
async fn follow(url: String, keys: Arc<SharedKeys>, fetcher: Arc<Fetcher>, clock: Clock) {
    loop {
        let began = clock.now();
        let fetched = fetcher.refresh(&url, &keys).await;
        clock.sleep_until(began.plus(AT_LEAST)).await;
        if fetched {
            tokio::select! {
                () = keys.missed() => {}
                () = clock.sleep_until(began.plus(EVERY)) => {}
            }
        }
    }
}
