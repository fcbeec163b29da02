//! What was set while the gateway runs, as the store keeps it: JSON with the number of its version.

use serde::{Deserialize, Serialize};

use super::{Config, Settings};
use crate::session::chosen::{Choice, Chosen, Holder};

/// The version that this program writes, and the newest that it reads.
const VERSION: u64 = 1;

/// What the store has of the policies that were set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChosenFault {
    /// A newer program wrote them.
    #[error(
        "the policies in the store are of version {found}, and this program knows versions up to {VERSION}\n  start the \
         newer tenure that wrote them, or name another directory in [store] path"
    )]
    Newer {
        /// Their version.
        found: u64,
    },
    /// They are not what was written.
    #[error(
        "the policies in the store cannot be read: {what}\n  put a copy of the directory back, or name another one in \
         [store] path; to go on without them would hold sessions to other limits than was decided"
    )]
    Damaged {
        /// What was found.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    layers: Vec<Entry>,
}

/// One layer; `tenant` stands beside `user` too.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default)]
    bounded: bool,
    set: Settings,
}

/// What the store is to keep.
#[must_use]
pub fn write_chosen(chosen: &Chosen) -> Vec<u8> {
    let layers = chosen.iter().map(|(holder, choice)| entry(holder, choice)).collect();
    // Texts and numbers alone: nothing of it can fail to be written.
    serde_json::to_vec(&Document { version: VERSION, layers }).unwrap_or_default()
}

/// What the store has kept.
///
/// # Errors
/// [`ChosenFault`].
pub fn read_chosen(kept: &[u8]) -> Result<Chosen, ChosenFault> {
    let damaged = |what: serde_json::Error| ChosenFault::Damaged { what: what.to_string() };
    let document: serde_json::Value = serde_json::from_slice(kept).map_err(damaged)?;
    // The version comes first: of a newer one nothing else is known.
    if let Some(found) = document["version"].as_u64().filter(|found| *found > VERSION) {
        return Err(ChosenFault::Newer { found });
    }
    let document: Document = serde_json::from_value(document).map_err(damaged)?;
    document.layers.iter().map(read_entry).collect()
}

fn entry(holder: &Holder, choice: &Choice) -> Entry {
    let rest = Entry { bounded: choice.bounded, set: (&choice.layer).into(), ..Entry::default() };
    match holder.clone() {
        Holder::App(name) => Entry { app: Some(name), ..rest },
        Holder::Role(name) => Entry { role: Some(name), ..rest },
        Holder::Tenant(name) => Entry { tenant: Some(name), ..rest },
        Holder::User { tenant, user } => Entry { tenant: Some(tenant), user: Some(user), ..rest },
    }
}

fn read_entry(entry: &Entry) -> Result<(Holder, Choice), ChosenFault> {
    let name = String::clone;
    let holder = match (&entry.app, &entry.role, &entry.tenant, &entry.user) {
        (Some(app), None, None, None) => Holder::App(name(app)),
        (None, Some(role), None, None) => Holder::Role(name(role)),
        (None, None, Some(tenant), None) => Holder::Tenant(name(tenant)),
        (None, None, Some(tenant), Some(user)) => Holder::User { tenant: name(tenant), user: name(user) },
        _ => return Err(ChosenFault::Damaged { what: "a layer does not say whom it is for".to_owned() }),
    };
    let layer = entry.set.read().map_err(|what| ChosenFault::Damaged { what })?;
    Ok((holder, Choice { layer, bounded: entry.bounded }))
}

impl Config {
    /// Whether the configuration knows whom this place is for. Tenants and users are whoever signs in.
    #[must_use]
    pub fn names(&self, holder: &Holder) -> bool {
        match holder {
            Holder::App(name) => self.apps.iter().any(|app| app.name == *name),
            Holder::Role(name) => self.roles.contains_key(name),
            Holder::Tenant(_) | Holder::User { .. } => true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;
    use crate::session::layers::{Layer, Limit};
    use crate::session::{OnLimit, Span};

    #[test]
    fn what_was_set_is_read_as_it_was_written() {
        let name = || "a\"b\u{e9}".to_owned();
        let layer = Layer { idle_timeout: Some(Limit::At(Span::from_ms(90_500))), ..Layer::default() };
        let other =
            Layer { max_concurrent: Some(Limit::Off), on_limit: Some(OnLimit::Ask), ..Layer::default() };
        let chosen: Chosen = [
            (Holder::App(name()), Choice { layer, bounded: false }),
            (Holder::Tenant(name()), Choice { layer: other, bounded: true }),
            (Holder::Role(name()), Choice { layer, bounded: false }),
            (Holder::User { tenant: name(), user: name() }, Choice { layer: other, bounded: true }),
        ]
        .into_iter()
        .collect();
        assert_eq!(read_chosen(&write_chosen(&chosen)).unwrap(), chosen);
    }

    #[test]
    fn what_cannot_be_read_whole_is_not_read_at_all() {
        let fault = |text: &str| read_chosen(text.as_bytes()).unwrap_err();
        assert_eq!(fault(r#"{"version":2,"more":[]}"#), ChosenFault::Newer { found: 2 });
        for text in [
            "",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":1,"layers":[],"more":1}"#,
            r#"{"version":1,"layers":[{"set":{}}]}"#,
            r#"{"version":1,"layers":[{"user":"ann","set":{}}]}"#,
            r#"{"version":1,"layers":[{"app":"a","role":"b","set":{}}]}"#,
            r#"{"version":1,"layers":[{"app":"a","set":{"idle_timeout":"soon"}}]}"#,
        ] {
            assert!(matches!(fault(text), ChosenFault::Damaged { .. }), "{text}");
        }
    }
}
