//! The app's pages: a frame, a sign-in form, and panels that show live what happens.

use crate::session::Moment;

use super::sessions::SignedIn;

const LOGIN: &str = include_str!("assets/login.html");
const ORDERS: &str = include_str!("assets/orders.html");
const NOTICES: &str = include_str!("assets/notices.html");
const CLOCK: &str = include_str!("assets/clock.html");
const TICKER: &str = include_str!("assets/ticker.html");

/// Which time it is at the sign-in form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Failed,
}

/// The pages behind the sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Home,
    Inbox,
    Clock,
    Ticker,
}

impl Page {
    const ALL: [Self; 4] = [Self::Home, Self::Inbox, Self::Clock, Self::Ticker];

    /// The page at this path.
    pub(super) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.path() == path)
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Inbox => "/inbox",
            Self::Clock => "/clock",
            Self::Ticker => "/ticker",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Home => "Order desk",
            Self::Inbox => "Notices",
            Self::Clock => "Station clock",
            Self::Ticker => "Prices",
        }
    }

    fn panels(self) -> String {
        match self {
            Self::Home => [CLOCK, TICKER, NOTICES, ORDERS].concat(),
            Self::Inbox => NOTICES.to_owned(),
            Self::Clock => CLOCK.to_owned(),
            Self::Ticker => TICKER.to_owned(),
        }
    }
}

/// The sign-in form.
pub(super) fn login(attempt: Attempt) -> String {
    let complaint = match attempt {
        Attempt::First => "",
        Attempt::Failed => "<p class=\"bad\" role=\"alert\">Wrong user name or password.</p>",
    };
    document("Sign in", "", &LOGIN.replace("{complaint}", complaint))
}

/// A page for somebody who has signed in.
pub(super) fn page(page: Page, who: SignedIn, now: Moment) -> String {
    let mut links = String::new();
    for other in Page::ALL {
        let current = if other == page { " aria-current=\"page\"" } else { "" };
        links.push_str(&format!("<a href=\"{}\"{current}>{}</a>\n", other.path(), other.title()));
    }
    let ago = now.since(who.at).as_ms() / 1000;
    let bar = format!(
        "<nav>{links}</nav>\n<div id=\"who\">Signed in: <b>{}</b> ({})\n\
         <form method=\"post\" action=\"/logout\"><button>Sign out</button></form></div>\n\
         <div id=\"times\" data-signed-in=\"{ago}\">Signed in <b id=\"signed-in\">{ago}</b> s ago, \
         page opened <b id=\"opened\">0</b> s ago</div>\n",
        who.user.full_name, who.user.name
    );
    let main =
        format!("<div id=\"panels\">{}</div>\n<script src=\"/static/app.js\"></script>\n", page.panels());
    document(page.title(), &bar, &main)
}

/// What stands where there is nothing.
pub(super) fn not_found() -> String {
    document("Not found", "", "<p>There is no such page. <a href=\"/\">Order desk</a></p>\n")
}

/// The answer to the page that polls.
pub(super) fn notifications(now: Moment) -> String {
    let seconds = now.unix_ms() / 1000;
    format!("{{\"unread\":{},\"at\":\"{}\"}}", seconds / 7 % 5, time_of_day(now))
}

/// `13:05:59`, in UTC as the server's hall has it.
pub(super) fn time_of_day(now: Moment) -> String {
    let seconds = now.unix_ms() / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn document(title: &str, bar: &str, main: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} - OrderTrack</title><link rel=\"stylesheet\" href=\"/static/style.css\"></head>\n\
         <body><header><div id=\"brand\">OrderTrack <small>3.1 (2004)</small></div>\n{bar}</header>\n\
         <main><h1>{title}</h1>\n{main}</main></body></html>\n"
    )
}
