//! Keys of the contract that a later version brings. Only their default may stand in a file: anything else is
//! refused, because a setting that is silently ignored is worse than none.

use super::raw::{Section, Value};

/// What may stand in the file already.
enum Default {
    /// Nothing: the key has no default.
    Nothing,
    /// This string.
    Text(&'static str),
    /// `false`.
    False,
    /// An empty list.
    EmptyList,
}

struct Later {
    key: &'static str,
    default: Default,
    instead: &'static str,
}

const APP: &[Later] = &[
    Later {
        key: "preset",
        default: Default::Nothing,
        instead: "leave it out and name the app's session cookie: cookie = \"JSESSIONID\"",
    },
    Later {
        key: "custody",
        default: Default::Text("track"),
        instead: "leave it out: cookies of server-side sessions are tracked",
    },
    Later {
        key: "pass_cookies",
        default: Default::EmptyList,
        instead: "leave it out: with custody = \"track\" every cookie goes to the browser",
    },
    Later {
        key: "i_accept_replay",
        default: Default::False,
        instead: "leave it out, and track only cookies that name a server-side session",
    },
    Later {
        key: "app_logout",
        default: Default::Text("off"),
        instead: "leave it out: an ended session's cookie never reaches the app again",
    },
    Later {
        key: "app_commands",
        default: Default::False,
        instead: "leave it out, and end sessions through the admin API or `tenure revoke`",
    },
    Later {
        key: "harden",
        default: Default::EmptyList,
        instead: "leave it out, and set the cookie's attributes in the app",
    },
    Later {
        key: "clear_on_end",
        default: Default::False,
        instead: "leave it out: the session's cookies are deleted at an end",
    },
];

const LIMITS: &[Later] = &[Later {
    key: "jar_bytes",
    default: Default::Text("64KiB"),
    instead: "leave it out: it belongs to custody = \"vault\"",
}];

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

/// Refuses what `[[app]]` cannot do yet.
pub(super) fn refuse_in_app(section: &mut Section<'_>) {
    refuse(section, APP);
}

/// Refuses what `[limits]` cannot do yet.
pub(super) fn refuse_in_limits(section: &mut Section<'_>) {
    refuse(section, LIMITS);
}

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
        Default::False => value.as_flag() == Some(false),
        Default::EmptyList => value.is_empty_list(),
    }
}

/// The keys of `[[app]]` that a later version brings.
pub(super) fn app_keys() -> impl Iterator<Item = &'static str> {
    APP.iter().map(|later| later.key)
}
