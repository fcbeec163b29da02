//! Policies that are set while the gateway runs.

use std::collections::HashMap;
use std::sync::Arc;

use super::gateway::Inner;
use super::keeping::{POLICIES, read_kept};
use super::settings::{book, layers};
use crate::config::write_chosen;
use crate::session::chosen::{Choice, Full, Holder};
use crate::session::layers::Layers;

impl Inner {
    /// All layers in force.
    #[must_use]
    pub fn layers(&self) -> Layers {
        layers(&self.config(), &self.chosen.load())
    }

    /// Puts `choice` in `place`, or takes away what is there, and holds every session to it at once. Returns how many ended;
    /// [`Inner::in_force`] and [`Inner::is_safe`] say when that is so everywhere and for good. Takes a while where there are
    /// many sessions: not for a thread that serves others.
    ///
    /// # Errors
    /// [`Full`]: there is no room; nothing has changed then.
    pub fn choose(&self, holder: &Holder, choice: Option<Choice>) -> Result<usize, Full> {
        let _one_at_a_time = self.reloading.lock();
        let old = self.chosen.load_full();
        let new = Arc::new(old.changed(holder, choice)?);
        if new == old {
            return Ok(0);
        }
        let (table, now) = (&self.shared().table, self.shared().clock.now());
        // ORDER: noted first, so that no end by the new policy is written before the policy is.
        table.keep_fact(POLICIES, write_chosen(&new));
        self.chosen.store(Arc::clone(&new));
        Ok(table.change_book(book(&self.config(), &new), now))
    }

    /// Another gateway set policies: they hold here too.
    pub(super) fn hear_facts(&self, facts: &HashMap<String, Vec<u8>>) {
        let _one_at_a_time = self.reloading.lock();
        let new = match read_kept(facts.get(POLICIES)) {
            Ok(new) => new,
            Err(why) => {
                tracing::error!(%why, "policies that were set through another gateway cannot be used; the old ones stay");
                return;
            }
        };
        if new == self.chosen.load_full() {
            return;
        }
        self.chosen.store(Arc::clone(&new));
        let (table, now) = (&self.shared().table, self.shared().clock.now());
        let ended = table.change_book(book(&self.config(), &new), now);
        tracing::info!(ended, "policies were set through another gateway");
    }

    /// How many sessions [`Inner::choose`] would end now.
    ///
    /// # Errors
    /// [`Full`].
    pub fn foresee(&self, holder: &Holder, choice: Option<Choice>) -> Result<usize, Full> {
        let _one_at_a_time = self.reloading.lock();
        let old = self.chosen.load();
        let new = Arc::new(old.changed(holder, choice)?);
        let (table, now) = (&self.shared().table, self.shared().clock.now());
        Ok(table.foresee(book(&self.config(), &new), now))
    }
}
