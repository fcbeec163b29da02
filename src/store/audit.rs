//! The audit: who signed in, what ended and why, and what operators did. Kept for as long as ended sessions are.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::disk::AuditFile;
use super::journal::Journal;
use crate::session::{EndReason, Moment, SessionId};

/// Most entries that are kept in memory, where nothing outlives the process.
const IN_MEMORY: usize = 10_000;

/// Most entries that a shared store keeps, and each gateway with it.
pub(super) const SHARED: usize = 50_000;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody signed in.
    SignedIn,
    /// Somebody signed in beyond the limit and is held back.
    HeldBack,
    /// A session ended.
    Ended(EndReason),
    /// An operator did this.
    Operator(&'static str),
}

impl Act {
    /// Its name in listings.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::SignedIn => "signed_in",
            Self::HeldBack => "held_back",
            Self::Ended(_) => "ended",
            Self::Operator(name) => name,
        }
    }

    /// Why, of an end.
    #[must_use]
    pub const fn reason(&self) -> Option<EndReason> {
        match self {
            Self::Ended(reason) => Some(*reason),
            Self::SignedIn | Self::HeldBack | Self::Operator(_) => None,
        }
    }
}

/// One entry, as it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Moment,
    /// What.
    pub act: Act,
    /// Which session.
    pub session: Option<SessionId>,
    /// The app's name.
    pub app: Option<Arc<str>>,
    /// The session's tenant.
    pub tenant: Option<String>,
    /// The session's user.
    pub user: Option<String>,
    /// By whom, where a person or an operator's token did it.
    pub by: Option<Arc<str>>,
    /// What it was about (a filter, a count); never a secret.
    pub detail: Option<String>,
}

impl Entry {
    /// What an operator did, or what was done by the operator's word; an empty `detail` says nothing.
    #[must_use]
    pub fn of_operator(
        at: Moment,
        act: &'static str,
        by: &str,
        tenant: Option<String>,
        detail: &str,
    ) -> Self {
        let detail = (!detail.is_empty()).then(|| detail.to_owned());
        let (act, by) = (Act::Operator(act), Some(by.into()));
        Self { at, act, session: None, app: None, tenant, user: None, by, detail }
    }
}

impl Entry {
    /// As it is found, before it has a number.
    pub(super) fn found(&self) -> Found {
        Found::of(0, self)
    }
}

/// One entry, as it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Grows with each entry.
    pub number: u64,
    /// See [`Entry`], for this and what follows.
    pub at: Moment,
    /// See [`Act::as_str`].
    pub act: String,
    /// Which session.
    pub session: Option<String>,
    /// The app's name.
    pub app: Option<String>,
    /// The session's tenant.
    pub tenant: Option<String>,
    /// The session's user.
    pub user: Option<String>,
    /// Why, of an end.
    pub reason: Option<String>,
    /// By whom.
    pub by: Option<String>,
    /// What it was about.
    pub detail: Option<String>,
}

impl Found {
    fn of(number: u64, entry: &Entry) -> Self {
        Self {
            number,
            at: entry.at,
            act: entry.act.as_str().to_owned(),
            session: entry.session.map(|id| id.to_string()),
            app: entry.app.as_deref().map(str::to_owned),
            tenant: entry.tenant.clone(),
            user: entry.user.clone(),
            reason: entry.act.reason().map(|reason| reason.as_str().to_owned()),
            by: entry.by.as_deref().map(str::to_owned),
            detail: entry.detail.clone(),
        }
    }
}

/// Which entries are meant. Every member that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The app's name.
    pub app: Option<String>,
    /// One of these tenants.
    pub tenants: Option<Vec<String>>,
    /// One of these users.
    pub users: Option<Vec<String>>,
    /// The session.
    pub session: Option<SessionId>,
    /// What was done.
    pub act: Option<String>,
    /// Not before.
    pub since: Option<Moment>,
    /// Before.
    pub until: Option<Moment>,
    /// Before the entry of this number, for the next page.
    pub before: Option<u64>,
}

impl AuditFilter {
    fn fits(&self, found: &Found) -> bool {
        let one_of = |names: &Option<Vec<String>>, name: &Option<String>| {
            names.as_ref().is_none_or(|names| name.as_ref().is_some_and(|name| names.contains(name)))
        };
        self.app.is_none_or_eq(found.app.as_ref())
            && one_of(&self.tenants, &found.tenant)
            && one_of(&self.users, &found.user)
            && self.session.map(|id| id.to_string()).is_none_or_eq(found.session.as_ref())
            && self.act.is_none_or_eq(Some(&found.act))
            && self.since.is_none_or(|since| found.at >= since)
            && self.until.is_none_or(|until| found.at < until)
            && self.before.is_none_or(|before| found.number < before)
    }
}

trait Asked<T> {
    /// Nothing is asked for, or just this.
    fn is_none_or_eq(&self, found: Option<&T>) -> bool;
}

impl<T: PartialEq> Asked<T> for Option<T> {
    fn is_none_or_eq(&self, found: Option<&T>) -> bool {
        self.is_none() || self.as_ref() == found
    }
}

/// What happened on one day in one app to the sessions of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// Sign-ins.
    pub sign_ins: u64,
    /// Sign-ins that were held back.
    pub held_back: u64,
    /// Ends by reason.
    pub ends: BTreeMap<String, u64>,
}

/// Days since the Unix epoch, app, tenant.
pub type DayKey = (u64, String, String);

impl Day {
    pub(super) fn count(&mut self, act: &str, reason: Option<String>, n: u64) {
        match (act, reason) {
            ("signed_in", _) => self.sign_ins += n,
            ("held_back", _) => self.held_back += n,
            (_, Some(reason)) => *self.ends.entry(reason).or_default() += n,
            (_, None) => {}
        }
    }
}

/// Milliseconds of a day.
pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;

/// The audit cannot be read now.
#[derive(Debug, thiserror::Error)]
#[error("the audit cannot be read: {0}")]
pub struct CannotRead(#[from] rusqlite::Error);

/// Where entries are kept.
pub(super) enum Audit {
    /// The latest ones, until the process ends.
    Memory(Mutex<Ring>),
    /// In the store.
    Disk(Arc<Journal>, AuditFile),
    /// In a store that gateways share: the latest ones of all of them, followed here.
    Shared(Arc<Journal>, Mutex<Ring>),
}

#[derive(Default)]
pub(super) struct Ring {
    entries: VecDeque<Found>,
    last: u64,
}

impl Ring {
    fn push(&mut self, found: Found, most: usize) {
        if found.number > self.last {
            self.last = found.number;
            self.entries.push_back(found);
        }
        if self.entries.len() > most {
            self.entries.pop_front();
        }
    }
}

impl Audit {
    pub(super) fn in_memory() -> Self {
        Self::Memory(Mutex::default())
    }

    pub(super) fn on_disk(journal: Arc<Journal>, database: PathBuf) -> Self {
        Self::Disk(journal, AuditFile::new(database))
    }

    pub(super) fn shared(journal: Arc<Journal>) -> Self {
        Self::Shared(journal, Mutex::default())
    }

    pub(super) fn note(&self, entry: Entry) {
        match self {
            Self::Disk(journal, _) | Self::Shared(journal, _) => journal.note_entry(entry),
            Self::Memory(ring) => {
                let mut ring = ring.lock();
                let found = Found::of(ring.last + 1, &entry);
                ring.push(found, IN_MEMORY);
            }
        }
    }

    /// Takes in what a gateway noted in the shared store, in the store's order.
    pub(super) fn follow(&self, number: u64, found: Found) {
        if let Self::Shared(_, ring) = self {
            ring.lock().push(Found { number, ..found }, SHARED);
        }
    }

    pub(super) fn page(&self, filter: &AuditFilter, limit: usize) -> Result<Vec<Found>, CannotRead> {
        match self {
            Self::Disk(_, file) => Ok(file.page(filter, limit)?),
            Self::Memory(ring) | Self::Shared(_, ring) => {
                let ring = ring.lock();
                let fitting = ring.entries.iter().rev().filter(|found| filter.fits(found));
                Ok(fitting.take(limit).cloned().collect())
            }
        }
    }

    pub(super) fn days(&self, filter: &AuditFilter) -> Result<BTreeMap<DayKey, Day>, CannotRead> {
        match self {
            Self::Disk(_, file) => Ok(file.days(filter)?),
            Self::Memory(ring) | Self::Shared(_, ring) => {
                let mut days: BTreeMap<DayKey, Day> = BTreeMap::new();
                for found in ring.lock().entries.iter().filter(|found| filter.fits(found)) {
                    let (Some(app), Some(tenant)) = (&found.app, &found.tenant) else { continue };
                    let key = (found.at.unix_ms() / DAY_MS, app.clone(), tenant.clone());
                    days.entry(key).or_default().count(&found.act, found.reason.clone(), 1);
                }
                Ok(days)
            }
        }
    }
}
