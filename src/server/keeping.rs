//! Opens what keeps the sessions, as the configuration says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gateway::StartError;
use super::settings::book;
use crate::clock::Clock;
use crate::config::{self, ChosenFault, Config, StoreKind, read_chosen};
use crate::session::chosen::Chosen;
use crate::session::{Moment, Span};
use crate::store::{
    Disk, Observer, Opened, Opening, Redis, RedisOpened, RedisOpening, Secrets, Table, Trouble, random_bytes,
};

/// The fact by which the store keeps the policies that were set while the gateway ran.
pub(super) const POLICIES: &str = "policies";

/// How long a shared store that is empty waits for gateways that may know what was in it: they look twice a second.
const SHARED_PATIENCE: Span = Span::from_ms(1500);

/// Where sessions are kept. Dropped, it writes what is left.
pub(super) enum Keeper {
    /// In memory alone.
    Memory,
    /// In the embedded store.
    Disk { _store: Disk },
    /// With other gateways.
    Redis(Redis),
}

/// What keeps the sessions, opened.
pub(super) struct Keeping {
    pub(super) table: Arc<Table>,
    pub(super) keeper: Keeper,
    /// What keys the hashes of tokens.
    pub(super) secrets: Secrets,
    /// No earlier than what the store has seen.
    pub(super) clock: Clock,
    pub(super) trouble: Arc<Trouble>,
    /// The policies that were set while a gateway ran.
    pub(super) chosen: Arc<Chosen>,
}

impl Keeping {
    pub(super) fn open(
        config: &Config,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let trouble = Arc::new(Trouble::default());
        let secrets =
            Secrets::configured(&config.store).map(|secrets| keyed_by(config, secrets, clock.now()));
        let path = match &config.store.kind {
            StoreKind::Path(path) => path,
            StoreKind::Redis(settings) => {
                return Self::share(config, settings, secrets, clock, (observer, trouble));
            }
            StoreKind::Memory => {
                let chosen = Arc::default();
                let table = Arc::new(Table::new(book(config, &chosen), observer));
                // What nobody wrote down nobody can read: a new secret with each start does.
                let secrets = secrets.unwrap_or_else(|| random_bytes().into());
                return Ok(Self { table, keeper: Keeper::Memory, secrets, clock, trouble, chosen });
            }
        };
        let machine = clock.clone();
        let opening = Opening { path, secrets, clock, trouble: Arc::clone(&trouble) };
        let mut chosen = Arc::default();
        let under = |facts: &BTreeMap<String, Vec<u8>>| -> Result<_, StartError> {
            chosen = read_kept(facts.get(POLICIES))?;
            Ok(book(config, &chosen))
        };
        let Opened { table, disk, secrets, clock, .. } = Disk::open_under(&opening, under, observer)?;
        tell_of_strangers(config, &chosen);
        let behind = clock.now().since(machine.now());
        if behind > Span::from_secs(1) {
            tracing::warn!(%behind, "the machine's clock is behind what the store has seen; sessions go by the store's time");
        }
        Ok(Self { table, keeper: Keeper::Disk { _store: disk }, secrets, clock, trouble, chosen })
    }

    fn share(
        config: &Config,
        settings: &config::Redis,
        secrets: Option<Secrets>,
        clock: Clock,
        (observer, trouble): (Arc<dyn Observer>, Arc<Trouble>),
    ) -> Result<Self, StartError> {
        let patience = SHARED_PATIENCE;
        let opening = RedisOpening { settings, secrets, clock, trouble: Arc::clone(&trouble), patience };
        let mut chosen = Arc::default();
        let under = |facts: &HashMap<String, Vec<u8>>| -> Result<_, StartError> {
            chosen = read_kept(facts.get(POLICIES))?;
            Ok(book(config, &chosen))
        };
        let RedisOpened { table, redis, secrets, clock, .. } = Redis::open(&opening, under, observer)?;
        tell_of_strangers(config, &chosen);
        Ok(Self { table, keeper: Keeper::Redis(redis), secrets, clock, trouble, chosen })
    }
}

/// What the secrets of the configuration make.
fn keyed_by(config: &Config, secrets: Secrets, now: Moment) -> Secrets {
    let adopts = |app: &config::App| app.adopt_until.is_some_and(|until| now < until);
    Secrets { needs_all: config.apps.iter().any(adopts), ..secrets }
}

/// The policies as a store keeps them.
pub(super) fn read_kept(kept: Option<&Vec<u8>>) -> Result<Arc<Chosen>, ChosenFault> {
    Ok(Arc::new(kept.map_or_else(|| Ok(Chosen::default()), |kept| read_chosen(kept))?))
}

/// What was set for an app or a role that the configuration does not name any more has no effect, and is kept: it may come
/// back with the next file.
fn tell_of_strangers(config: &Config, chosen: &Chosen) {
    for (holder, _) in chosen.iter().filter(|(holder, _)| !config.names(holder)) {
        tracing::warn!(%holder, "a policy was set for what the configuration does not name; it has no effect");
    }
}
