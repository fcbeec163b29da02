//! One connection to the store, with what both directions need.

use std::sync::Arc;
use std::time::Duration;

use super::layout::{Home, Layout, Row, Said, read_answer};
use super::link::{Link, LinkFault, LuaScript};
use super::pace::Pace;
use super::replica::{Replica, Taken};
use super::versions::Base;
use crate::clock::Clock;

/// How often a home is written anew because another gateway was first. Each time means that somebody made progress; what is
/// left then stands in the next batch.
pub(super) const MAX_TRIES: usize = 64;

pub(super) static READ: LuaScript =
    LuaScript::new(concat!(include_str!("common.lua"), include_str!("read.lua")));

/// Why something could not be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteFault {
    #[error(transparent)]
    Link(#[from] LinkFault),
    #[error("the server has lost what it held; the gateways bring it together again")]
    Epoch,
    #[error("the server gave an answer that no script of this version gives")]
    Answer,
    #[error("a stored session cannot be read: {0}")]
    Record(String),
    #[error("other gateways changed the same again and again")]
    Busy,
    #[error("the server has not been this one for long enough to say what nobody knows")]
    Unsettled,
}

/// See the module.
pub(super) struct Port {
    pub(super) link: Link,
    pub(super) pace: Pace,
    pub(super) layout: Layout,
    pub(super) replica: Arc<Replica>,
    pub(super) clock: Clock,
}

impl Port {
    /// For how long from now others may store the activity of sessions by policies that are not in force here any more.
    pub(super) fn policies_unheard_for(&self) -> Duration {
        match self.replica.is_alone() {
            true => Duration::ZERO,
            false => self.replica.table.unheard_for(self.pace.noticed()),
        }
    }

    /// Reads what was stored of a home since this gateway looked last.
    pub(super) async fn follow(&self, home: Home) -> Result<(), WriteFault> {
        let mut keys = self.layout.home(home).to_vec();
        keys.push(self.layout.epoch(home.0[0]));
        let mut tries = 0;
        while tries < MAX_TRIES {
            let since = self.replica.versions.base(home);
            let args = [since.version.to_string().into_bytes(), epoch_arg(&self.replica)];
            let said = self.eval(&READ, &keys, &args).await?;
            let is_all = matches!(said, Said::Read(..));
            let (version, rows) = match said {
                Said::Read(version, rows) | Said::Part(version, rows) => (version, rows),
                Said::Epoch => return Err(WriteFault::Epoch),
                Said::Stored(..) | Said::Behind(..) | Said::Missing | Said::Held(_) => {
                    return Err(WriteFault::Answer);
                }
            };
            match self.take_over((home, since), version, &rows) {
                Taken::Over(_) if is_all => return Ok(()),
                Taken::Over(_) => {}
                Taken::Late | Taken::Lost => tries += 1,
            }
        }
        Err(WriteFault::Busy)
    }

    /// Whether what the store has just not known is known nowhere: others may not have stored yet what a server that took
    /// another one's place does not have. Ask afterwards, not before.
    ///
    /// # Errors
    /// [`WriteFault::Unsettled`] where somebody may know it.
    pub(super) async fn sure(&self) -> Result<(), WriteFault> {
        self.link.look_again().await?;
        if self.link.is_settled() { Ok(()) } else { Err(WriteFault::Unsettled) }
    }

    /// Takes over what the store said of a home, see [`Replica::take_over`].
    pub(super) fn take_over(&self, of: (Home, Base), version: u64, rows: &[Row]) -> Taken {
        let taken = self.replica.take_over(of, version, rows, self.clock.now());
        if matches!(taken, Taken::Lost) {
            tracing::warn!("the store has lost what was written last; this gateway stores what it knows");
            self.link.has_lost();
        }
        taken
    }

    /// Runs a script, and reads its answer.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub(super) async fn eval(
        &self,
        script: &LuaScript,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Said, WriteFault> {
        let answer = self.link.eval(script, keys, args).await?;
        read_answer(&answer).ok_or(WriteFault::Answer)
    }
}

/// The epoch that a bucket has to be of. While the store is being brought together everything may be written and read.
pub(super) fn epoch_arg(replica: &Replica) -> Vec<u8> {
    match replica.epoch() {
        0 => Vec::new(),
        epoch => epoch.to_string().into_bytes(),
    }
}
