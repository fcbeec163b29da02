//! `[policy]` and everything below it, and `[app.policy]`.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::num::NonZeroU32;

use super::app::{ReadApp, belongs_to_app};
use super::raw::{Mark, Section, Value};
use super::tenancy::Tenancy;
use super::value::show;
use crate::session::layers::{Bounds, Layer, Layers, Limit, Range};
use crate::session::{OnLimit, Policy, Span};

const SETTINGS: &[&str] = &["idle_timeout", "force_relogin", "max_concurrent", "on_limit"];

/// The spellings of `on_limit`.
pub(super) const ON_LIMIT: &[(&str, OnLimit)] = &[
    ("end-oldest", OnLimit::EndOldest),
    ("end-idlest", OnLimit::EndIdlest),
    ("ask", OnLimit::Ask),
    ("refuse", OnLimit::Refuse),
];

/// Whether `key` is a setting of a policy.
pub(super) fn is_setting(key: &str) -> bool {
    SETTINGS.contains(&key)
}

/// `[app.policy]`.
pub(super) fn read_app_layer(mut section: Section<'_>) -> Layer {
    let layer = read_layer(&mut section, None);
    section.finish_with(|key| belongs_to_app(key, "[app.policy] or [[app.identity]]"));
    layer
}

pub(super) fn read(mut section: Section<'_>, apps: &[ReadApp], tenancy: &Tenancy) -> Layers {
    let base = over_defaults(read_layer(&mut section, None));
    let bounds = read_bounds(section.sub("bounds"));
    let tenant_name = |value: &Value<'_>| tenancy.tenant(value);
    let tenants = named(section.tables("tenant"), Some(&bounds), |section| {
        section.required("name", NAME).and_then(|value| tenant_name(&value))
    });
    let roles = named(section.tables("role"), None, |section| {
        section.required("name", NAME).and_then(|value| value.text()).map(str::to_owned)
    });
    let users = named(section.tables("user"), None, |section| {
        let tenant = section.value("tenant");
        let name = section.required("name", NAME)?;
        let user = tenancy.user(&name)?;
        let tenant = match tenant {
            Some(tenant) => tenant_name(&tenant)?,
            None => tenancy.only_tenant(&name)?,
        };
        Some((tenant, user))
    });
    section.finish();
    let apps = apps.iter().map(|read| (read.app.name.clone(), read.layer)).collect();
    Layers { base, bounds, apps, tenants, roles, users, ..Layers::default() }
}

const NAME: &str = "say whom the layer is for: name = \"...\"";

fn over_defaults(layer: Layer) -> Policy {
    let default = Policy::default();
    Policy {
        idle_timeout: layer.idle_timeout.map_or(default.idle_timeout, Limit::into_option),
        force_relogin: layer.force_relogin.map_or(default.force_relogin, Limit::into_option),
        max_concurrent: layer.max_concurrent.map_or(default.max_concurrent, Limit::into_option),
        on_limit: layer.on_limit.unwrap_or(default.on_limit),
    }
}

/// The layers of one list of tables by their names, each of which may stand once.
fn named<'t, K: Eq + Hash>(
    sections: Vec<Section<'t>>,
    bounds: Option<&Bounds>,
    key: impl Fn(&mut Section<'t>) -> Option<K>,
) -> HashMap<K, Layer> {
    let mut layers = HashMap::new();
    for mut section in sections {
        let name = key(&mut section);
        let layer = read_layer(&mut section, bounds);
        let (sink, at) = (section.sink, section.at.clone());
        section.finish();
        let Some(name) = name else { continue };
        if layers.insert(name, layer).is_some() {
            sink.fault(
                &at,
                "a second layer for the same name",
                "join the two: one layer holds all that is set",
            );
        }
    }
    layers
}

/// The four settings; with `bounds`, what a tenant may not choose is a fault.
fn read_layer(section: &mut Section<'_>, bounds: Option<&Bounds>) -> Layer {
    let any = Bounds::default();
    let bounds = bounds.unwrap_or(&any);
    Layer {
        idle_timeout: bounded(section.value("idle_timeout"), Value::limit, &bounds.idle_timeout),
        force_relogin: bounded(section.value("force_relogin"), Value::limit, &bounds.force_relogin),
        max_concurrent: bounded(section.value("max_concurrent"), Value::count, &bounds.max_concurrent),
        on_limit: section.value("on_limit").and_then(|value| value.choice(ON_LIMIT)),
    }
}

fn bounded<'t, T: Copy + Ord + Display>(
    value: Option<Value<'t>>,
    read: impl Fn(&Value<'t>) -> Option<Limit<T>>,
    range: &Range<T>,
) -> Option<Limit<T>> {
    let value = value?;
    let limit = read(&value)?;
    if !range.allows(limit) {
        let message = format!("{} is outside of [policy.bounds], {}", show(limit), show_range(range));
        let nearest = show(range.clamp(limit));
        value.fault(message, format!("choose {nearest} here, or widen the bounds"));
    }
    Some(limit)
}

/// A range in words.
pub(super) fn show_range<T: Display>(range: &Range<T>) -> String {
    match (&range.min, &range.max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "without bounds".to_owned(),
    }
}

fn read_bounds(mut section: Section<'_>) -> Bounds {
    let span = |value: &Value<'_>| value.span();
    let number = |value: &Value<'_>| value.number();
    let bounds = Bounds {
        idle_timeout: range::<Span>(section.sub("idle_timeout"), span),
        force_relogin: range::<Span>(section.sub("force_relogin"), span),
        max_concurrent: range::<NonZeroU32>(section.sub("max_concurrent"), number),
    };
    section.finish();
    bounds
}

/// `{ min = ..., max = ... }`; "off" leaves a side open.
fn range<'t, T: Copy + Ord + Display>(
    mut section: Section<'t>,
    read: impl Fn(&Value<'t>) -> Option<T>,
) -> Range<T> {
    let side = |value: Option<Value<'t>>| value.filter(|v| v.as_text() != Some("off")).and_then(|v| read(&v));
    let min = side(section.value("min"));
    let max = side(section.value("max"));
    let (sink, at): (_, Mark) = (section.sink, section.at.clone());
    section.finish();
    match (min, max) {
        (Some(low), Some(high)) if low > high => {
            sink.fault(&at, format!("min {low} is above max {high}"), "exchange the two");
            Range::default()
        }
        _ => Range { min, max },
    }
}
