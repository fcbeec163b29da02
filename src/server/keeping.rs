//! Opens what keeps the sessions, as the configuration says.

use std::sync::Arc;

use super::settings::book;
use crate::clock::Clock;
use crate::config::{Config, StoreKind};
use crate::store::{Disk, Observer, Opened, Opening, StoreFault, Table, Trouble, derive_key, random_bytes};

/// What keeps the sessions, opened.
pub(super) struct Keeping {
    pub(super) table: Arc<Table>,
    pub(super) disk: Option<Disk>,
    /// What keys the hashes of tokens.
    pub(super) secret: [u8; 32],
    /// No earlier than what the store has seen.
    pub(super) clock: Clock,
    pub(super) trouble: Arc<Trouble>,
}

impl Keeping {
    pub(super) fn open(
        config: &Config,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StoreFault> {
        let trouble = Arc::new(Trouble::default());
        let secret = config.store.secret.as_ref().map(|secret| derive_key(secret.expose()));
        let path = match &config.store.kind {
            StoreKind::Path(path) => path,
            StoreKind::Memory => {
                let table = Arc::new(Table::new(book(config), observer));
                // What nobody wrote down nobody can read: a new secret with each start does.
                let secret = secret.unwrap_or_else(random_bytes);
                return Ok(Self { table, disk: None, secret, clock, trouble });
            }
        };
        let machine = clock.clone();
        let opening = Opening { path, secret, clock, trouble: Arc::clone(&trouble) };
        let Opened { table, disk, secret, clock, .. } = Disk::open(&opening, book(config), observer)?;
        let behind = clock.now().since(machine.now());
        if behind > crate::session::Span::from_secs(1) {
            tracing::warn!(%behind, "the machine's clock is behind what the store has seen; sessions go by the store's time");
        }
        Ok(Self { table, disk: Some(disk), secret, clock, trouble })
    }
}
