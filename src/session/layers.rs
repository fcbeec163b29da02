//! Layers of policy and where each effective value comes from.
//!
//! Precedence, field by field: user > role > tenant > app > base. Of several roles the strictest value wins.
//! Bounds limit what a *tenant* chooses, never the operator's own layers (R19).

use std::collections::HashMap;
use std::num::NonZeroU32;

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

/// One effective value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value in force.
    pub value: T,
    /// The layer it comes from.
    pub source: Source,
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
}

impl Layers {
    /// The policy for `subject`, each field with its source.
    #[must_use]
    pub fn explain(&self, subject: &Subject<'_>) -> Explained {
        Explained {
            idle_timeout: self.field(
                subject,
                self.base.idle_timeout.map_or(Limit::Off, Limit::At),
                |layer| layer.idle_timeout,
                Limit::min,
                |value| self.bounds.idle_timeout.clamp(value),
            ),
            force_relogin: self.field(
                subject,
                self.base.force_relogin.map_or(Limit::Off, Limit::At),
                |layer| layer.force_relogin,
                Limit::min,
                |value| self.bounds.force_relogin.clamp(value),
            ),
            max_concurrent: self.field(
                subject,
                self.base.max_concurrent.map_or(Limit::Off, Limit::At),
                |layer| layer.max_concurrent,
                Limit::min,
                |value| self.bounds.max_concurrent.clamp(value),
            ),
            on_limit: self.field(subject, self.base.on_limit, |layer| layer.on_limit, OnLimit::max, |v| v),
        }
    }

    /// The policy for `subject`.
    #[must_use]
    pub fn effective(&self, subject: &Subject<'_>) -> Policy {
        self.explain(subject).policy()
    }

    /// One field through the layers; `stricter` picks between two roles, `clamp` applies a tenant's bounds.
    fn field<T: Copy + PartialEq>(
        &self,
        subject: &Subject<'_>,
        base: T,
        of: impl Fn(&Layer) -> Option<T>,
        stricter: impl Fn(T, T) -> T,
        clamp: impl Fn(T) -> T,
    ) -> Sourced<T> {
        let user = subject.user.zip(subject.tenant).and_then(|(user, tenant)| {
            let layer = self.users.get(&(tenant.to_owned(), user.to_owned()))?;
            Some(Sourced { value: of(layer)?, source: Source::User(user.to_owned()) })
        });
        let role = || self.strictest_role(subject.roles, &of, &stricter);
        let tenant = || {
            let name = subject.tenant?;
            let wished = of(self.tenants.get(name)?)?;
            let value = clamp(wished);
            let source = if value == wished { Source::Tenant(name.to_owned()) } else { Source::Bound };
            Some(Sourced { value, source })
        };
        let app = || {
            let value = of(self.apps.get(subject.app)?)?;
            Some(Sourced { value, source: Source::App(subject.app.to_owned()) })
        };
        user.or_else(role)
            .or_else(tenant)
            .or_else(app)
            .unwrap_or(Sourced { value: base, source: Source::Base })
    }

    fn strictest_role<T: Copy + PartialEq>(
        &self,
        roles: &[String],
        of: impl Fn(&Layer) -> Option<T>,
        stricter: impl Fn(T, T) -> T,
    ) -> Option<Sourced<T>> {
        let mut best: Option<Sourced<T>> = None;
        for role in roles {
            let Some(value) = self.roles.get(role).and_then(&of) else { continue };
            let wins = best.as_ref().is_none_or(|b| stricter(value, b.value) == value && value != b.value);
            if wins {
                best = Some(Sourced { value, source: Source::Role(role.clone()) });
            }
        }
        best
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
            assert_eq!(got, Sourced { value: Limit::At(Span::from_secs(secs)), source });
        }
    }

    #[test]
    fn a_tenant_is_held_to_its_bounds_and_the_operator_is_not() {
        let mut layers = layers();
        layers.bounds.idle_timeout.max = Some(Span::from_secs(50));
        let ask = |layers: &Layers, tenant| {
            layers.explain(&Subject { app: "crm", tenant, user: None, roles: &[] }).idle_timeout
        };
        let bound = Sourced { value: Limit::At(Span::from_secs(50)), source: Source::Bound };
        assert_eq!(ask(&layers, Some("acme")), bound);
        assert_eq!(ask(&layers, None).value, Limit::At(Span::from_secs(400)));
        assert!(!layers.bounds.idle_timeout.allows(Limit::Off));
    }
}
