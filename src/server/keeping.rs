//! Opens what keeps the sessions, as the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateway::StartError;
use super::settings::book;
use crate::clock::Clock;
use crate::config::{Config, StoreKind, read_chosen};
use crate::session::chosen::Chosen;
use crate::store::{Disk, Observer, Opened, Opening, Table, Trouble, derive_key, random_bytes};

/// The fact by which the store keeps the policies that were set while the gateway ran.
pub(super) const POLICIES: &str = "policies";

/// What keeps the sessions, opened.
pub(super) struct Keeping {
    pub(super) table: Arc<Table>,
    pub(super) disk: Option<Disk>,
    /// What keys the hashes of tokens.
    pub(super) secret: [u8; 32],
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
        let secret = config.store.secret.as_ref().map(|secret| derive_key(secret.expose()));
        let path = match &config.store.kind {
            StoreKind::Path(path) => path,
            StoreKind::Memory => {
                let chosen = Arc::default();
                let table = Arc::new(Table::new(book(config, &chosen), observer));
                // What nobody wrote down nobody can read: a new secret with each start does.
                let secret = secret.unwrap_or_else(random_bytes);
                return Ok(Self { table, disk: None, secret, clock, trouble, chosen });
            }
        };
        let machine = clock.clone();
        let opening = Opening { path, secret, clock, trouble: Arc::clone(&trouble) };
        let mut chosen = Arc::default();
        let under = |facts: &BTreeMap<String, Vec<u8>>| -> Result<_, StartError> {
            chosen = Arc::new(
                facts.get(POLICIES).map_or_else(|| Ok(Chosen::default()), |kept| read_chosen(kept))?,
            );
            Ok(book(config, &chosen))
        };
        let Opened { table, disk, secret, clock, .. } = Disk::open_under(&opening, under, observer)?;
        tell_of_strangers(config, &chosen);
        let behind = clock.now().since(machine.now());
        if behind > crate::session::Span::from_secs(1) {
            tracing::warn!(%behind, "the machine's clock is behind what the store has seen; sessions go by the store's time");
        }
        Ok(Self { table, disk: Some(disk), secret, clock, trouble, chosen })
    }
}

/// What was set for an app or a role that the configuration does not name any more has no effect, and is kept: it may come
/// back with the next file.
fn tell_of_strangers(config: &Config, chosen: &Chosen) {
    for (holder, _) in chosen.iter().filter(|(holder, _)| !config.names(holder)) {
        tracing::warn!(%holder, "a policy was set for what the configuration does not name; it has no effect");
    }
}
