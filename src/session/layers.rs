//! Layers of policy and where each effective value comes from.
//!
//! Precedence, field by field: user > role > tenant > app > base. Of several roles the strictest value wins.
//! In each of them a field that was set while the gateway runs stands above the file's. Bounds limit what a *tenant*
//! chooses, never the operator's own layers (R19).

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::chosen::{Choice, Chosen, Holder};
use super::{OnLimit, Policy, Span};

/// A value that can be switched off in a layer. Ordered by strictness: a smaller bound is stricter, `Off` laxest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit<T> {
    /// At this value.
    At(T),
    /// No bound.
    Off,
}

impl<T> Limit<T> {
    /// The bound as an option; `None` is off.
    #[must_use]
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::At(value) => Some(value),
            Self::Off => None,
        }
    }
}

/// One layer: `None` leaves the field to the layer below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// See [`Policy::idle_timeout`].
    pub idle_timeout: Option<Limit<Span>>,
    /// See [`Policy::force_relogin`].
    pub force_relogin: Option<Limit<Span>>,
    /// See [`Policy::max_concurrent`].
    pub max_concurrent: Option<Limit<NonZeroU32>>,
    /// See [`Policy::on_limit`].
    pub on_limit: Option<OnLimit>,
}

/// What a tenant may choose for one field, ends included; `None` leaves that side open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<T> {
    /// The smallest value.
    pub min: Option<T>,
    /// The largest value; `off` exceeds it.
    pub max: Option<T>,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self { min: None, max: None }
    }
}

impl<T: Copy + Ord> Range<T> {
    /// Whether a tenant may choose `value`.
    #[must_use]
    pub fn allows(&self, value: Limit<T>) -> bool {
        self.clamp(value) == value
    }

    /// The nearest value that a tenant may choose.
    #[must_use]
    pub fn clamp(&self, value: Limit<T>) -> Limit<T> {
        let raised = self.min.map_or(value, |min| value.max(Limit::At(min)));
        self.max.map_or(raised, |max| raised.min(Limit::At(max)))
    }
}

/// What tenants may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bounds of `idle_timeout`.
    pub idle_timeout: Range<Span>,
    /// Bounds of `force_relogin`.
    pub force_relogin: Range<Span>,
    /// Bounds of `max_concurrent`.
    pub max_concurrent: Range<NonZeroU32>,
}

/// Where an effective value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `[policy]`, or the built-in default.
    Base,
    /// `[app.policy]` of this app.
    App(String),
    /// The tenant's layer.
    Tenant(String),
    /// A role's layer.
    Role(String),
    /// The user's own layer.
    User(String),
    /// A tenant's value that lies outside the bounds was moved to the nearest bound.
    Bound,
}

/// Where a layer's value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file, or nowhere: the built-in default.
    File,
    /// It was set while the gateway ran.
    Set,
}

impl Origin {
    /// The API's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Set => "set",
        }
    }
}

/// One effective value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value in force.
    pub value: T,
    /// The layer it comes from.
    pub source: Source,
    /// Where that layer says so; of [`Source::Bound`], where the value was written that the bounds moved.
    pub origin: Origin,
}

/// An effective policy, each field with its source: what `explain` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// See [`Policy::idle_timeout`].
    pub idle_timeout: Sourced<Limit<Span>>,
    /// See [`Policy::force_relogin`].
    pub force_relogin: Sourced<Limit<Span>>,
    /// See [`Policy::max_concurrent`].
    pub max_concurrent: Sourced<Limit<NonZeroU32>>,
    /// See [`Policy::on_limit`].
    pub on_limit: Sourced<OnLimit>,
}

impl Explained {
    /// The values alone.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            idle_timeout: self.idle_timeout.value.into_option(),
            force_relogin: self.force_relogin.value.into_option(),
            max_concurrent: self.max_concurrent.value.into_option(),
            on_limit: self.on_limit.value,
        }
    }
}

/// Whom a policy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The app's name.
    pub app: &'a str,
    /// The tenant, where one is known.
    pub tenant: Option<&'a str>,
    /// The user, where one is known.
    pub user: Option<&'a str>,
    /// The roles that count for this session.
    pub roles: &'a [String],
}

/// All layers of one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// `[policy]` over the built-in defaults.
    pub base: Policy,
    /// `[policy.bounds]`.
    pub bounds: Bounds,
    /// By app name.
    pub apps: HashMap<String, Layer>,
    /// By tenant.
    pub tenants: HashMap<String, Layer>,
    /// By role.
    pub roles: HashMap<String, Layer>,
    /// By (tenant, user).
    pub users: HashMap<(String, String), Layer>,
    /// What was set while the gateway runs; it stands above all of the file in its own place.
    pub chosen: Arc<Chosen>,
}

/// What one place says: what was set there, above what the file has there.
struct Level<'a> {
    set: Option<&'a Choice>,
    file: Option<&'a Layer>,
    /// The file's and the operator's word is a tenant's wish here too.
    bounded: bool,
    source: fn(String) -> Source,
    name: &'a str,
}

impl Level<'_> {
    /// One field: `of` picks it, `clamp` applies a tenant's bounds.
    fn says<T: Copy + PartialEq>(
        &self,
        of: impl Fn(&Layer) -> Option<T>,
        clamp: impl Fn(T) -> T,
    ) -> Option<Sourced<T>> {
        let set = self.set.and_then(|choice| Some((of(&choice.layer)?, choice.bounded, Origin::Set)));
        let file = || Some((of(self.file?)?, false, Origin::File));
        let (wished, by_tenant, origin) = set.or_else(file)?;
        let value = if self.bounded || by_tenant { clamp(wished) } else { wished };
        let source = if value == wished { (self.source)(self.name.to_owned()) } else { Source::Bound };
        Some(Sourced { value, source, origin })
    }
}

/// Every place that has a say about one subject.
struct Levels<'a> {
    user: Option<Level<'a>>,
    roles: Vec<Level<'a>>,
    tenant: Option<Level<'a>>,
    app: Level<'a>,
}

impl Levels<'_> {
    /// One field through the places; `stricter` picks between two roles.
    fn field<T: Copy + PartialEq>(
        &self,
        base: T,
        of: impl Fn(&Layer) -> Option<T>,
        stricter: impl Fn(T, T) -> T,
        clamp: impl Fn(T) -> T,
    ) -> Sourced<T> {
        let says = |level: &Level<'_>| level.says(&of, &clamp);
        let role = || {
            self.roles.iter().filter_map(says).reduce(|best, next| {
                let wins = stricter(next.value, best.value) == next.value && next.value != best.value;
                if wins { next } else { best }
            })
        };
        let base = Sourced { value: base, source: Source::Base, origin: Origin::File };
        (self.user.as_ref().and_then(says))
            .or_else(role)
            .or_else(|| self.tenant.as_ref().and_then(says))
            .or_else(|| says(&self.app))
            .unwrap_or(base)
    }
}

impl Layers {
    /// The policy for `subject`, each field with its source.
    #[must_use]
    pub fn explain(&self, subject: &Subject<'_>) -> Explained {
        let (levels, base, bounds) = (self.levels(subject), &self.base, &self.bounds);
        Explained {
            idle_timeout: levels.field(
                base.idle_timeout.map_or(Limit::Off, Limit::At),
                |layer| layer.idle_timeout,
                Limit::min,
                |value| bounds.idle_timeout.clamp(value),
            ),
            force_relogin: levels.field(
                base.force_relogin.map_or(Limit::Off, Limit::At),
                |layer| layer.force_relogin,
                Limit::min,
                |value| bounds.force_relogin.clamp(value),
            ),
            max_concurrent: levels.field(
                base.max_concurrent.map_or(Limit::Off, Limit::At),
                |layer| layer.max_concurrent,
                Limit::min,
                |value| bounds.max_concurrent.clamp(value),
            ),
            on_limit: levels.field(base.on_limit, |layer| layer.on_limit, OnLimit::max, |v| v),
        }
    }

    /// The policy for `subject`.
    #[must_use]
    pub fn effective(&self, subject: &Subject<'_>) -> Policy {
        self.explain(subject).policy()
    }

    /// What the file has in this place.
    #[must_use]
    pub fn of_file(&self, holder: &Holder) -> Option<&Layer> {
        match holder {
            Holder::App(name) => self.apps.get(name),
            Holder::Tenant(name) => self.tenants.get(name),
            Holder::Role(name) => self.roles.get(name),
            Holder::User { tenant, user } => self.users.get(&(tenant.clone(), user.clone())),
        }
    }

    /// What this place says, all in all: what was set above what the file has, within the bounds where they hold.
    #[must_use]
    pub fn comes_to(&self, holder: &Holder) -> Layer {
        let (source, name): (fn(String) -> Source, &str) = match holder {
            Holder::App(name) => (Source::App, name),
            Holder::Tenant(name) => (Source::Tenant, name),
            Holder::Role(name) => (Source::Role, name),
            Holder::User { user, .. } => (Source::User, user),
        };
        let (level, bounds) = (self.level(holder, source, name), &self.bounds);
        let idle_timeout = level.says(|layer| layer.idle_timeout, |v| bounds.idle_timeout.clamp(v));
        let force_relogin = level.says(|layer| layer.force_relogin, |v| bounds.force_relogin.clamp(v));
        let max_concurrent = level.says(|layer| layer.max_concurrent, |v| bounds.max_concurrent.clamp(v));
        Layer {
            idle_timeout: idle_timeout.map(|found| found.value),
            force_relogin: force_relogin.map(|found| found.value),
            max_concurrent: max_concurrent.map(|found| found.value),
            on_limit: level.says(|layer| layer.on_limit, |v| v).map(|found| found.value),
        }
    }

    fn levels<'a>(&'a self, subject: &Subject<'a>) -> Levels<'a> {
        let role = |role: &'a String| self.level(&Holder::Role(role.clone()), Source::Role, role);
        Levels {
            user: subject.user.zip(subject.tenant).map(|(user, tenant)| {
                let holder = Holder::User { tenant: tenant.to_owned(), user: user.to_owned() };
                self.level(&holder, Source::User, user)
            }),
            roles: subject.roles.iter().map(role).collect(),
            tenant: subject
                .tenant
                .map(|tenant| self.level(&Holder::Tenant(tenant.to_owned()), Source::Tenant, tenant)),
            app: self.level(&Holder::App(subject.app.to_owned()), Source::App, subject.app),
        }
    }

    fn level<'a>(&'a self, holder: &Holder, source: fn(String) -> Source, name: &'a str) -> Level<'a> {
        let bounded = matches!(holder, Holder::Tenant(_));
        Level { set: self.chosen.get(holder), file: self.of_file(holder), bounded, source, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(secs: u64) -> Layer {
        Layer { idle_timeout: Some(Limit::At(Span::from_secs(secs))), ..Layer::default() }
    }

    fn layers() -> Layers {
        let mut layers = Layers::default();
        layers.apps.insert("crm".into(), idle(400));
        layers.tenants.insert("acme".into(), idle(300));
        layers.roles.insert("admin".into(), idle(200));
        layers.roles.insert("guest".into(), idle(250));
        layers.users.insert(("acme".into(), "ann".into()), idle(100));
        layers
    }

    fn explain(user: Option<&str>, roles: &[&str], tenant: Option<&str>, app: &str) -> Sourced<Limit<Span>> {
        let roles: Vec<String> = roles.iter().map(|r| (*r).to_owned()).collect();
        layers().explain(&Subject { app, tenant, user, roles: &roles }).idle_timeout
    }

    #[test]
    fn the_nearest_layer_wins_field_by_field() {
        let cases = [
            (Some("ann"), vec!["admin"], Some("acme"), "crm", 100, Source::User("ann".into())),
            (Some("bob"), vec!["guest", "admin"], Some("acme"), "crm", 200, Source::Role("admin".into())),
            (Some("bob"), vec![], Some("acme"), "crm", 300, Source::Tenant("acme".into())),
            (Some("ann"), vec![], Some("other"), "crm", 400, Source::App("crm".into())),
            (None, vec![], None, "wiki", 86_400, Source::Base),
        ];
        for (user, roles, tenant, app, secs, source) in cases {
            let got = explain(user, &roles, tenant, app);
            let value = Limit::At(Span::from_secs(secs));
            assert_eq!(got, Sourced { value, source, origin: Origin::File });
        }
    }

    #[test]
    fn a_tenant_is_held_to_its_bounds_and_the_operator_is_not() {
        let mut layers = layers();
        layers.bounds.idle_timeout.max = Some(Span::from_secs(50));
        let ask = |layers: &Layers, tenant| {
            layers.explain(&Subject { app: "crm", tenant, user: None, roles: &[] }).idle_timeout
        };
        let value = Limit::At(Span::from_secs(50));
        let bound = Sourced { value, source: Source::Bound, origin: Origin::File };
        assert_eq!(ask(&layers, Some("acme")), bound);
        assert_eq!(ask(&layers, None).value, Limit::At(Span::from_secs(400)));
        assert!(!layers.bounds.idle_timeout.allows(Limit::Off));
    }
    #[test]
    fn what_was_set_stands_above_the_file_in_its_own_place() {
        let mut layers = layers();
        layers.bounds.idle_timeout.max = Some(Span::from_secs(500));
        let holder = |user: &str| Holder::User { tenant: "acme".into(), user: user.into() };
        let choice = |secs, bounded| Choice { layer: idle(secs), bounded };
        let chosen = [
            (Holder::App("crm".into()), choice(800, false)),
            (Holder::Tenant("acme".into()), choice(600, false)),
            (holder("bob"), choice(900, true)),
            (holder("cid"), choice(900, false)),
        ];
        layers.chosen = Arc::new(chosen.into_iter().collect());
        let ask = |user, tenant| {
            let found = layers.explain(&Subject { app: "crm", tenant, user, roles: &[] }).idle_timeout;
            (found.value, found.source, found.origin)
        };
        let at = |secs| Limit::At(Span::from_secs(secs));
        assert_eq!(ask(Some("ann"), Some("acme")), (at(100), Source::User("ann".into()), Origin::File));
        assert_eq!(ask(None, Some("acme")), (at(500), Source::Bound, Origin::Set), "a tenant's wish");
        assert_eq!(ask(Some("bob"), Some("acme")), (at(500), Source::Bound, Origin::Set), "of its user too");
        let by_operator = (at(900), Source::User("cid".into()), Origin::Set);
        assert_eq!(ask(Some("cid"), Some("acme")), by_operator, "the operator is not bound");
        assert_eq!(ask(None, None), (at(800), Source::App("crm".into()), Origin::Set));
        assert_eq!(layers.comes_to(&holder("bob")).idle_timeout, Some(at(500)));
        assert_eq!(layers.comes_to(&Holder::Role("admin".into())), idle(200));
    }
}
