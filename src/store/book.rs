//! The book of policies that the table holds sessions to; replaced whole at a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::table::Table;
use crate::session::identity::{Identity, UserCase};
use crate::session::layers::{Layers, Subject};
use crate::session::record::{AppId, Mode, Terms};
use crate::session::{Moment, Policy, Span};

/// What the table needs to know of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRules {
    /// Its name.
    pub name: String,
    /// Whether time-outs and limits act.
    pub mode: Mode,
    /// How its users' names are compared.
    pub case: UserCase,
}

/// What the table needs to know of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleRules {
    /// Users who hold it by the operator's word, by (tenant, user).
    pub users: Vec<(String, String)>,
    /// It counts when an identity source gives it (R9).
    pub learned: bool,
}

/// Everything that a session's policy follows from, and the table's own bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// All layers.
    pub layers: Layers,
    /// Every app of the configuration.
    pub apps: Vec<AppRules>,
    /// Every role of the configuration.
    pub roles: BTreeMap<String, RoleRules>,
    /// How long the value from before a rotation lives on.
    pub rotation_grace: Span,
    /// Most anonymous sessions.
    pub anonymous_sessions: usize,
    /// How long ended sessions are remembered.
    pub ended_kept: Span,
    /// Until when they are all remembered: while cookies are adopted, one that was forgotten would be adopted again (R14).
    pub ended_kept_until: Moment,
}

/// The book with what the table adds: its number, and apps by their ids.
pub(super) struct Bound {
    pub(super) epoch: u32,
    pub(super) book: Book,
    /// Index: [`AppId`]. Names stay for ever, modes follow the book.
    pub(super) apps: Vec<(Arc<str>, Mode)>,
}

impl Bound {
    pub(super) fn mode(&self, app: AppId) -> Mode {
        self.apps.get(usize::from(app.0)).map_or(Mode::Enforce, |(_, mode)| *mode)
    }

    pub(super) fn case(&self, app: AppId) -> UserCase {
        let name = self.name(app);
        let rules = self.book.apps.iter().find(|rules| *rules.name == *name);
        rules.map_or(UserCase::Fold, |rules| rules.case)
    }

    pub(super) fn name(&self, app: AppId) -> Arc<str> {
        self.apps.get(usize::from(app.0)).map_or_else(|| "".into(), |(name, _)| Arc::clone(name))
    }

    /// What a session of `app` is held to.
    pub(super) fn terms(&self, app: AppId, identity: Option<&Identity>) -> Terms {
        Terms { policy: self.policy(app, identity), mode: self.mode(app), epoch: self.epoch }
    }

    pub(super) fn policy(&self, app: AppId, identity: Option<&Identity>) -> Policy {
        let name = self.name(app);
        let roles = identity.map(|identity| self.book.roles_of(identity)).unwrap_or_default();
        self.book.layers.effective(&Subject {
            app: &name,
            tenant: identity.map(|i| i.tenant.as_str()),
            user: identity.map(|i| i.user.as_str()),
            roles: &roles,
        })
    }
}

impl Book {
    /// The roles that count for `identity`: those the operator gave, and those a source gave that may be learned.
    #[must_use]
    pub fn roles_of(&self, identity: &Identity) -> Vec<String> {
        let holds = |rules: &RoleRules, role: &String| {
            let given = rules.users.iter().any(|(t, u)| *t == identity.tenant && *u == identity.user);
            given || (rules.learned && identity.roles.contains(role))
        };
        self.roles.iter().filter(|(role, rules)| holds(rules, role)).map(|(role, _)| role.clone()).collect()
    }
}

impl Table {
    /// The number of the app `name`; `None` when no configuration ever named it.
    #[must_use]
    pub fn app_id(&self, name: &str) -> Option<AppId> {
        let bound = self.bound.load();
        let index = bound.apps.iter().position(|(known, _)| &**known == name)?;
        u16::try_from(index).ok().map(AppId)
    }

    /// Gives a number to an app that the configuration does not name.
    pub(super) fn add_app(&self, name: &str) -> AppId {
        let _one_at_a_time = self.changing.lock();
        let old = self.bound.load_full();
        let number = u16::try_from(old.apps.len()).unwrap_or(u16::MAX);
        let mut known = old.apps.clone();
        known.push((name.into(), Mode::Enforce));
        self.hold_to(Bound { epoch: old.epoch, book: old.book.clone(), apps: known });
        AppId(number)
    }
}
