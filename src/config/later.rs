//! Keys of the contract that a later version brings. Only their default may stand in a file: anything else is
//! refused, because a setting that is silently ignored is worse than none.

use super::raw::{Section, Value};

/// What may stand in the file already.
enum Default {
    /// Nothing: the key has no default.
    Nothing,
    /// This string.
    Text(&'static str),
}

struct Later {
    key: &'static str,
    default: Default,
    instead: &'static str,
}

const STORE: &[Later] = &[
    Later {
        key: "redis",
        default: Default::Nothing,
        instead: "leave it out and run one gateway: sessions are in its memory",
    },
    Later {
        key: "on_outage",
        default: Default::Text("local"),
        instead: "leave it out: it belongs to [store] redis",
    },
    Later {
        key: "outage_max",
        default: Default::Text("15m"),
        instead: "leave it out: it belongs to [store] redis",
    },
];

/// Refuses what `[store]` cannot do yet.
pub(super) fn refuse_in_store(section: &mut Section<'_>) {
    refuse(section, STORE);
}

fn refuse(section: &mut Section<'_>, later: &[Later]) {
    for Later { key, default, instead } in later {
        let Some(value) = section.value(key) else { continue };
        if !stands(&value, default) {
            value.fault("not yet available in this version", *instead);
        }
    }
}

fn stands(value: &Value<'_>, default: &Default) -> bool {
    match default {
        Default::Nothing => false,
        Default::Text(text) => value.as_text() == Some(text),
    }
}
