//! The pages that the gateway itself shows to people: plain values in, complete HTML documents out.
//!
//! They carry no script and load nothing, so that they work on the oldest browser and under the strictest policy;
//! send them with [`CONTENT_SECURITY_POLICY`] and `Cache-Control: no-store`. Everything that is not written here is
//! escaped. No IP address, place or token appears on any of them (R13).

mod html;

use std::fmt::Write;

pub use html::CONTENT_SECURITY_POLICY;
use html::{Escaped, ago, document, length};

use crate::session::device::Device;
use crate::session::{EndReason, Moment, SessionId};

/// No more sessions than this are listed on one page.
pub const MAX_LISTED: usize = 50;

/// The form field of [`ask`] that carries the public id of the session to end.
pub const SESSION_FIELD: &str = "session";

/// The page that says why a session ended. `login` leads to signing in; without it the person goes on to the page
/// asked for, which the app then answers as it answers strangers.
#[must_use]
pub fn ended(reason: EndReason, login: Option<&str>) -> String {
    let (title, why, advice) = words(reason);
    let mut main = format!("<p>{why}</p>\n");
    if let Some(advice) = advice {
        let _ = writeln!(main, "<p class=\"muted\">{advice}</p>");
    }
    // An empty reference is this very address.
    let (href, label) = login.map_or(("", "Continue"), |login| (login, "Sign in again"));
    main.push_str(&actions(&[Link { href, label, primary: true }]));
    document(title, &main)
}

/// Title, reason and advice.
const fn words(reason: EndReason) -> (&'static str, &'static str, Option<&'static str>) {
    match reason {
        EndReason::MaxConcurrent => (
            "You have been signed out here",
            "Your account is signed in on as many devices as it may be at once, so the session in this browser \
             was ended.",
            Some("If those other sign-ins are not yours, sign in and change your password."),
        ),
        EndReason::Revoked => (
            "Your session was ended",
            "The session in this browser was ended by an administrator, or by you from another device.",
            Some("If you did not expect this, ask whoever looks after this application."),
        ),
        EndReason::IdleTimeout => (
            "You have been signed out",
            "Nothing happened in this session for a while, so it was ended to keep your account safe.",
            None,
        ),
        EndReason::ForceRelogin => (
            "Please sign in again",
            "A sign-in here holds for a limited time, however busy you are, and that time is over.",
            None,
        ),
        EndReason::Logout => ("You are signed out", "You have signed out of this application.", None),
        EndReason::Superseded => (
            "You signed in again",
            "A newer sign-in in this browser has taken the place of this session.",
            None,
        ),
        EndReason::AccountSwitched => (
            "Another account is signed in",
            "Somebody signed in with another account in this browser, so this session was ended.",
            None,
        ),
    }
}

/// One of the person's other sessions, as [`ask`] and [`refused`] list it.
#[derive(Clone, Debug)]
pub struct AskEntry {
    /// Its public id.
    pub id: SessionId,
    /// What it runs on.
    pub device: Device,
    /// When its user signed in.
    pub signed_in_at: Moment,
    /// The user's last activity.
    pub last_active_at: Moment,
}

/// What the pages of a sign-in beyond the limit are made from.
#[derive(Clone, Copy, Debug)]
pub struct HeldBack<'a> {
    /// The user's live sessions.
    pub sessions: &'a [AskEntry],
    /// Until when the new session is held; then it is dropped.
    pub held_until: Moment,
    /// The present.
    pub now: Moment,
    /// The login page, where somebody else may sign in.
    pub login: Option<&'a str>,
}

/// The page of `on_limit = "ask"`: the sign-in went well, but first one of these sessions must end. Each has a
/// button that posts its id as [`SESSION_FIELD`] to `form_action`, along with the `hidden` fields.
#[must_use]
pub fn ask(held: &HeldBack<'_>, form_action: &str, hidden: &[(&str, &str)]) -> String {
    let mut main = format!(
        "<p>{} To go on here, end one of these sessions first.</p>\n\
         <form method=\"post\" action=\"{}\">\n",
        full(held.sessions.len()),
        Escaped(form_action)
    );
    for (name, value) in hidden {
        let (name, value) = (Escaped(name), Escaped(value));
        let _ = writeln!(main, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
    main.push_str(&list(held, |entry, index| {
        format!(
            "<button class=\"button\" name=\"{SESSION_FIELD}\" value=\"{}\" \
             aria-describedby=\"s{index}\">End this session</button>",
            entry.id
        )
    }));
    main.push_str("</form>\n");
    main.push_str(&waiting(held, "Work that was not saved there may be lost."));
    main.push_str(&held.login.map_or_else(String::new, |href| {
        actions(&[Link { href, label: "Use another account", primary: false }])
    }));
    document("You are signed in elsewhere", &main)
}

/// The page of `on_limit = "refuse"`: the sign-in went well, but it must wait until one of the others has ended.
#[must_use]
pub fn refused(held: &HeldBack<'_>) -> String {
    let mut main =
        format!("<p>{} Sign out on one of them, then try again here.</p>\n", full(held.sessions.len()));
    main.push_str(&list(held, |_, _| String::new()));
    main.push_str(&waiting(held, ""));
    // An empty reference is this very address: asked again, the gateway looks again.
    let mut links = vec![Link { href: "", label: "Try again", primary: true }];
    links.extend(held.login.map(|href| Link { href, label: "Use another account", primary: false }));
    main.push_str(&actions(&links));
    document("You are signed in elsewhere", &main)
}

fn full(count: usize) -> String {
    match count {
        0 => "Your account is in use on as many devices as it may be at once.".to_owned(),
        1 => "Your account is signed in on one device, and may not be used on more at once.".to_owned(),
        n => format!("Your account is signed in on {n} devices, and may not be used on more at once."),
    }
}

/// The sessions with device and times, `action` behind each.
fn list(held: &HeldBack<'_>, action: impl Fn(&AskEntry, usize) -> String) -> String {
    if held.sessions.is_empty() {
        return String::new();
    }
    let mut out = String::from("<ul>\n");
    for (index, entry) in held.sessions.iter().take(MAX_LISTED).enumerate() {
        let device = entry.device.to_string();
        let _ = writeln!(
            out,
            "<li><div id=\"s{index}\"><h2>{}</h2>\n<p class=\"muted\">Signed in {}<br>Last active {}</p></div>{}</li>",
            Escaped(&device),
            ago(entry.signed_in_at, held.now),
            ago(entry.last_active_at, held.now),
            action(entry, index)
        );
    }
    out.push_str("</ul>\n");
    let unlisted = held.sessions.len().saturating_sub(MAX_LISTED);
    if unlisted > 0 {
        let _ = writeln!(out, "<p class=\"muted\">{unlisted} more are not shown.</p>");
    }
    out
}

fn waiting(held: &HeldBack<'_>, besides: &str) -> String {
    let left = length(held.held_until.since(held.now)).unwrap_or_else(|| "less than a minute".to_owned());
    let space = if besides.is_empty() { "" } else { " " };
    format!("<p class=\"muted\">{besides}{space}This sign-in waits for {left}, then it is dropped.</p>\n")
}

struct Link<'a> {
    href: &'a str,
    label: &'a str,
    primary: bool,
}

fn actions(links: &[Link<'_>]) -> String {
    let mut out = String::from("<p class=\"actions\">");
    for link in links {
        let class = if link.primary { "button primary" } else { "button" };
        let _ =
            write!(out, "<a class=\"{class}\" href=\"{}\">{}</a>", Escaped(link.href), Escaped(link.label));
    }
    out.push_str("</p>\n");
    out
}

#[cfg(test)]
mod tests;
