//! `preset`: what the file does not say of an app, its framework may know.

use super::raw::{Section, suggestion};
use super::{App, Custody, MethodPath, cookies};
use crate::session::preset::{PRESETS, Preset, find};
use crate::session::profile::CookieKind;

/// What the file says of a preset.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// No word.
    Nothing,
    /// One that does not exist; a fault already, and so no more is said of what it would have filled in.
    Unknown,
    /// This one.
    Known(&'static Preset),
}

impl Choice {
    pub(super) const fn known(self) -> Option<&'static Preset> {
        match self {
            Self::Known(preset) => Some(preset),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

/// One value that a preset could fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The key of `[[app]]`.
    pub key: &'static str,
    /// The value that holds, as people read it; what the preset had to offer where it was left out.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file says so.
    File,
    /// The preset says so, and the file nothing else.
    Preset,
    /// Neither says anything.
    Default,
    /// The preset says so, and it does not fit what the file says elsewhere, for this reason.
    LeftOut(&'static str),
}

pub(super) fn read(section: &mut Section<'_>) -> Choice {
    let Some(value) = section.value("preset") else { return Choice::Nothing };
    let Some(text) = value.text() else { return Choice::Unknown };
    if let Some(preset) = find(text) {
        return Choice::Known(preset);
    }
    let names = PRESETS.map(|preset| preset.name);
    value.fault(format!("{text:?} is no preset"), suggestion(text, &names));
    Choice::Unknown
}

/// What the preset of `app` could fill in, and what came of it.
pub(super) fn filled(section: &mut Section<'_>, app: &App) -> Vec<Filled> {
    let Some(preset) = app.preset else { return Vec::new() };
    let of_kind = |kind| {
        let rules = app.cookies.iter().filter(move |rule| rule.kind == kind);
        rules.map(|rule| cookies::show(&rule.name)).collect::<Vec<_>>().join(", ")
    };
    let passed: Vec<_> = app.pass_cookies.iter().map(cookies::show).collect();
    let logout = app.logout.as_ref().map(show);
    // What follows from the login page is no more of the preset's than that is.
    let said = section.value("sign_in").is_some();
    let is_shown = |rule: &&MethodPath| said || preset.sign_in.contains(&rule.path.as_str());
    let sign_in = app.sign_in.iter().filter(is_shown).map(show).collect::<Vec<_>>().join(", ");
    let custody = match app.custody {
        Custody::Track if preset.needs_vault.is_none() => String::new(),
        Custody::Track | Custody::Vault => app.custody.as_str().to_owned(),
    };
    let no_sign_in = "neither login nor sign_in is known";
    let elsewhere = "the file says that people sign in elsewhere";
    // With track every cookie goes to the browser, and there is nothing to say of those that a vault would let pass.
    let offered_to_pass = match app.custody {
        Custody::Track => String::new(),
        Custody::Vault => preset.pass_cookies.join(", "),
    };
    let rows = [
        ("cookie", of_kind(CookieKind::Session), preset.cookies.join(", "), ""),
        ("companions", of_kind(CookieKind::Companion), preset.companions.join(", "), no_sign_in),
        ("custody", custody, String::new(), ""),
        (
            "login",
            app.login.clone().unwrap_or_default(),
            preset.login.unwrap_or_default().to_owned(),
            elsewhere,
        ),
        ("sign_in", sign_in, preset.sign_in.join(", "), elsewhere),
        ("logout", logout.unwrap_or_default(), preset.logout.unwrap_or_default().to_owned(), ""),
        (
            "pass_cookies",
            passed.join(", "),
            offered_to_pass,
            "each is a session cookie or companion of the file",
        ),
    ];
    rows.into_iter()
        .filter_map(|(key, value, offered, why)| {
            let in_file = section.value(key).is_some();
            match (in_file, value.is_empty(), offered.is_empty()) {
                (true, _, _) => Some(Filled { key, value, origin: Origin::File }),
                (false, false, _) => Some(Filled { key, value, origin: Origin::Preset }),
                (false, true, false) => Some(Filled { key, value: offered, origin: Origin::LeftOut(why) }),
                (false, true, true) => (key == "custody").then(|| {
                    let value = app.custody.as_str().to_owned();
                    Filled { key, value, origin: Origin::Default }
                }),
            }
        })
        .collect()
}

fn show(rule: &MethodPath) -> String {
    let method = rule.method.iter().map(|method| format!("{method} "));
    method.chain([rule.path.as_str().to_owned()]).collect()
}
