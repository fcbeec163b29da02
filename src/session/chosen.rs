//! What was set while the gateway runs: layers that stand above those of the file, field by field.

use std::collections::BTreeMap;
use std::fmt;

use super::layers::Layer;

/// Most layers in all. They are written to the store as one value, which stays below 2 MiB by this.
pub const MAX_CHOSEN: usize = 10_000;

/// Most layers of one tenant's users: one tenant must not use up what is there for all.
pub const MAX_USERS_OF_TENANT: usize = 1000;

/// Whom a layer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// An app, by its name.
    App(String),
    /// A tenant.
    Tenant(String),
    /// A role.
    Role(String),
    /// A user of a tenant.
    User {
        /// The tenant.
        tenant: String,
        /// The user.
        user: String,
    },
}

/// As logs and the audit name it.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(name) => write!(f, "app={name:?}"),
            Self::Tenant(name) => write!(f, "tenant={name:?}"),
            Self::Role(name) => write!(f, "role={name:?}"),
            Self::User { tenant, user } => write!(f, "tenant={tenant:?} user={user:?}"),
        }
    }
}

/// What was set in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The fields that were set; all others are the file's.
    pub layer: Layer,
    /// A tenant chose it itself, so the bounds hold for it (R19). What stands in a tenant's place is bound in any case.
    pub bounded: bool,
}

/// There is no room for one more layer; it says how many there may be, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// See [`MAX_CHOSEN`].
    #[error("no more than {MAX_CHOSEN} layers can be set in all: remove one first")]
    Layers,
    /// See [`MAX_USERS_OF_TENANT`].
    #[error(
        "no more than {MAX_USERS_OF_TENANT} users of one tenant can have a layer of their own: remove one first"
    )]
    UsersOfTenant,
}

/// Everything that was set. A value: a change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen(BTreeMap<Holder, Choice>);

impl Chosen {
    /// What was set in this place.
    #[must_use]
    pub fn get(&self, holder: &Holder) -> Option<&Choice> {
        self.0.get(holder)
    }

    /// Whether nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything, in the order of [`Holder`].
    pub fn iter(&self) -> impl Iterator<Item = (&Holder, &Choice)> {
        self.0.iter()
    }

    /// This with `choice` in `place` instead of what was there, or with nothing there.
    ///
    /// # Errors
    /// [`Full`]: there are as many as there may be.
    pub fn changed(&self, holder: &Holder, choice: Option<Choice>) -> Result<Self, Full> {
        match choice {
            Some(choice) => self.with(holder, choice),
            None => Ok(self.without(holder)),
        }
    }

    /// A layer that sets nothing is as good as none.
    fn with(&self, holder: &Holder, choice: Choice) -> Result<Self, Full> {
        if choice.layer == Layer::default() {
            return Ok(self.without(holder));
        }
        let mut changed = self.clone();
        if changed.0.insert(holder.clone(), choice).is_none() {
            changed.has_room_for(holder)?;
        }
        Ok(changed)
    }

    fn without(&self, holder: &Holder) -> Self {
        let mut changed = self.clone();
        changed.0.remove(holder);
        changed
    }

    /// Whether it is within its bounds, `place` included.
    fn has_room_for(&self, holder: &Holder) -> Result<(), Full> {
        if self.0.len() > MAX_CHOSEN {
            return Err(Full::Layers);
        }
        let Holder::User { tenant, .. } = holder else { return Ok(()) };
        let first = Holder::User { tenant: tenant.clone(), user: String::new() };
        let of_tenant = |other: &&Holder| matches!(other, Holder::User { tenant: t, .. } if t == tenant);
        match self.0.range(first..).map(|(holder, _)| holder).take_while(of_tenant).count() {
            0..=MAX_USERS_OF_TENANT => Ok(()),
            _ => Err(Full::UsersOfTenant),
        }
    }
}

impl FromIterator<(Holder, Choice)> for Chosen {
    fn from_iter<I: IntoIterator<Item = (Holder, Choice)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;
    use crate::session::{OnLimit, Span, layers::Limit};

    fn choice() -> Choice {
        let idle_timeout = Some(Limit::At(Span::from_secs(60)));
        Choice { layer: Layer { idle_timeout, ..Layer::default() }, bounded: false }
    }

    fn user(number: usize) -> Holder {
        Holder::User { tenant: "acme".into(), user: number.to_string() }
    }

    #[test]
    fn a_layer_that_sets_nothing_is_none() {
        let holder = Holder::Tenant("acme".into());
        let set = Chosen::default().with(&holder, choice()).unwrap();
        assert_eq!(set.get(&holder), Some(&choice()));
        assert!(set.with(&holder, Choice::default()).unwrap().is_empty());
        assert!(set.without(&holder).is_empty());
    }

    #[test]
    fn one_tenant_cannot_use_up_the_room_of_all() {
        let full: Chosen = (0..MAX_USERS_OF_TENANT).map(|n| (user(n), choice())).collect();
        assert_eq!(full.with(&user(MAX_USERS_OF_TENANT), choice()), Err(Full::UsersOfTenant));
        let other =
            Choice { layer: Layer { on_limit: Some(OnLimit::Ask), ..Layer::default() }, bounded: true };
        assert_eq!(full.with(&user(7), other).unwrap().get(&user(7)), Some(&other), "in its own place");
        assert!(full.with(&Holder::User { tenant: "other".into(), user: "1".into() }, choice()).is_ok());
        let all: Chosen = (0..MAX_CHOSEN).map(|n| (Holder::Tenant(n.to_string()), choice())).collect();
        assert_eq!(all.with(&Holder::App("crm".into()), choice()), Err(Full::Layers));
    }
}
