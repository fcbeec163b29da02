//! The four settings of a policy as JSON has them: spelled as in the file, absent where nothing is said.

use std::fmt::Display;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use super::policy::{ON_LIMIT, show_range};
use super::raw::suggestion;
use super::value::{MAX_COUNT, parse_span, show};
use crate::session::Span;
use crate::session::layers::{Bounds, Layer, Limit, Range};

/// What a layer says; a member that is absent or `null` leaves its setting to the layer below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A duration such as `"30m"`, or `"off"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// A duration such as `"12h"`, or `"off"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_relogin: Option<String>,
    /// A number above zero, or `"off"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = number_or_off)]
    pub max_concurrent: Option<Value>,
    /// `end-oldest`, `end-idlest`, `ask` or `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = one_of_on_limit)]
    pub on_limit: Option<String>,
}

fn number_or_off() -> Schema {
    let kinds = SchemaType::Array(vec![Type::Integer, Type::String, Type::Null]);
    let number = ObjectBuilder::new().schema_type(kinds).minimum(Some(1)).maximum(Some(MAX_COUNT));
    number.pattern(Some("^off$")).description(Some("A number above zero, or `\"off\"`.")).into()
}

fn one_of_on_limit() -> Schema {
    let words = ON_LIMIT.iter().map(|(word, _)| json!(word)).chain([Value::Null]);
    let kinds = SchemaType::Array(vec![Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(kinds).enum_values(Some(words)).into()
}

impl Settings {
    /// The layer that this says.
    ///
    /// # Errors
    /// What is wrong with a value, and what to write instead.
    pub fn read(&self) -> Result<Layer, String> {
        let span = |name: &str, text: &Option<String>| {
            text.as_deref().map(read_span).transpose().map_err(|why| format!("{name}: {why}"))
        };
        Ok(Layer {
            idle_timeout: span("idle_timeout", &self.idle_timeout)?,
            force_relogin: span("force_relogin", &self.force_relogin)?,
            max_concurrent: self.max_concurrent.as_ref().map(read_count).transpose()?,
            on_limit: self.on_limit.as_deref().map(read_on_limit).transpose()?,
        })
    }
}

/// The layer in the file's spelling.
impl From<&Layer> for Settings {
    fn from(layer: &Layer) -> Self {
        let count = |limit: Limit<NonZeroU32>| limit.into_option().map_or(json!("off"), |most| json!(most));
        Self {
            idle_timeout: layer.idle_timeout.map(show),
            force_relogin: layer.force_relogin.map(show),
            max_concurrent: layer.max_concurrent.map(count),
            on_limit: layer.on_limit.map(|on_limit| on_limit.as_str().to_owned()),
        }
    }
}

fn read_span(text: &str) -> Result<Limit<Span>, String> {
    match text {
        "off" => Ok(Limit::Off),
        _ => parse_span(text).map(Limit::At).map_err(|(message, hint)| format!("{message}; {hint}")),
    }
}

fn read_count(value: &Value) -> Result<Limit<NonZeroU32>, String> {
    if value.as_str() == Some("off") {
        return Ok(Limit::Off);
    }
    let number = value.as_u64().filter(|number| *number <= MAX_COUNT);
    let number = number.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new);
    number.map(Limit::At).ok_or_else(|| {
        format!("max_concurrent: {value} is no limit; write a number from 1 to {MAX_COUNT}, or \"off\"")
    })
}

fn read_on_limit(text: &str) -> Result<crate::session::OnLimit, String> {
    let known = ON_LIMIT.iter().find(|(word, _)| *word == text);
    known.map(|(_, on_limit)| *on_limit).ok_or_else(|| {
        let words: Vec<&str> = ON_LIMIT.iter().map(|(word, _)| *word).collect();
        format!("on_limit: {text:?} is not known here; {}", suggestion(text, &words))
    })
}

/// Says whether a tenant may choose all of `layer`.
///
/// # Errors
/// What is outside of the bounds, which bound that is, and the nearest value within.
pub fn within(layer: &Layer, bounds: &Bounds) -> Result<(), String> {
    allowed("idle_timeout", layer.idle_timeout, &bounds.idle_timeout)?;
    allowed("force_relogin", layer.force_relogin, &bounds.force_relogin)?;
    allowed("max_concurrent", layer.max_concurrent, &bounds.max_concurrent)
}

fn allowed<T: Copy + Ord + Display>(
    name: &str,
    wish: Option<Limit<T>>,
    range: &Range<T>,
) -> Result<(), String> {
    match wish {
        Some(limit) if !range.allows(limit) => Err(format!(
            "{name}: {} is outside of the bounds that the operator has set for tenants, {}; the nearest is {}",
            show(limit),
            show_range(range),
            show(range.clamp(limit)),
        )),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;

    fn read(document: Value) -> Result<Layer, String> {
        serde_json::from_value::<Settings>(document).map_err(|error| error.to_string())?.read()
    }

    #[test]
    fn settings_are_written_as_they_were_read() {
        for document in [
            json!({}),
            json!({ "idle_timeout": "30m", "max_concurrent": 3 }),
            json!({ "idle_timeout": "1s500ms", "force_relogin": "off", "max_concurrent": "off", "on_limit": "ask" }),
            json!({ "force_relogin": "90d", "on_limit": "refuse", "max_concurrent": 1_000_000 }),
        ] {
            let layer = read(document.clone()).unwrap();
            assert_eq!(serde_json::to_value(Settings::from(&layer)).unwrap(), document);
        }
    }

    #[test]
    fn what_is_no_setting_is_told() {
        for (document, words) in [
            (json!({ "idle_timeout": "30" }), "idle_timeout: \"30\" has no unit"),
            (json!({ "force_relogin": "0s" }), "force_relogin"),
            (json!({ "idle_timeout": 30 }), "invalid type"),
            (json!({ "max_concurrent": 0 }), "from 1 to"),
            (json!({ "max_concurrent": 1_000_001 }), "from 1 to"),
            (json!({ "max_concurrent": 1.5 }), "from 1 to"),
            (json!({ "max_concurrent": "3" }), "from 1 to"),
            (json!({ "on_limit": "end-oldst" }), "did you mean \"end-oldest\""),
            (json!({ "idle": "30m" }), "unknown field"),
        ] {
            let fault = read(document).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        }
    }
}
