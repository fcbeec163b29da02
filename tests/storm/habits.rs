//! The habits of apps (FIELD A and F), as switches of the fixture app and as what a configuration says about it.

use crate::support::app::{Profile, Resurrect, Switches};

/// So few anonymous sessions are kept where they come as a flood.
pub(crate) const FEW_ANONYMOUS: usize = 40;

/// The name of ASP.NET Core's cookie: base and chunks are known by it.
const CHUNKED: &str = ".AspNetCore.Cookies";

/// One app, and what the model has to know of it.
#[derive(Clone, Copy)]
pub(crate) struct Habit {
    pub(crate) name: &'static str,
    set: fn(&mut Switches),
    /// In place of `cookie = "SID"`.
    cookie: &'static str,
    /// Further lines of the app.
    lines: &'static str,
    /// How a value `{}` of the app's is presented by who has a copy.
    pub(crate) copy: &'static str,
    /// Further lines at the end of the file.
    pub(crate) rest: &'static str,
    /// Who signs in again on a session of theirs gets a new value, and with it a new session.
    pub(crate) renews: bool,
    /// Each answer brings a new value.
    pub(crate) rotates: bool,
    /// Nobody can see in the app's answer that it signed its user out: the cookie stays as it is.
    pub(crate) hides_log_out: bool,
    /// What only this habit brings about.
    pub(crate) own: Option<Own>,
    /// Every visitor has a session.
    pub(crate) anonymous: bool,
    pub(crate) mfa: bool,
}

/// What happens with one habit only.
#[derive(Clone, Copy)]
pub(crate) enum Own {
    /// The next session gets the value of one that has ended.
    Recycle,
    /// Another node serves from now on.
    Failover,
    /// Visitors come who never return.
    Flood,
}

const PLAIN: Habit = Habit {
    name: "opaque",
    set: |_| (),
    cookie: "cookie = \"SID\"",
    lines: "",
    copy: "SID={}",
    rest: "",
    renews: false,
    rotates: false,
    hides_log_out: false,
    own: None,
    anonymous: false,
    mfa: false,
};

/// As Django and Tomcat.
const RENEWING: Habit =
    Habit { name: "rotate-login", set: |s| s.profile = Profile::RotateLogin, renews: true, ..PLAIN };

/// All of them.
pub(crate) const HABITS: [Habit; 13] = [
    PLAIN,
    Habit {
        name: "recycle",
        set: |s| s.profile = Profile::Recycle,
        hides_log_out: true,
        own: Some(Own::Recycle),
        ..PLAIN
    },
    Habit {
        name: "rotate-each",
        set: |s| s.profile = Profile::RotateEach,
        renews: true,
        rotates: true,
        ..PLAIN
    },
    RENEWING,
    Habit {
        name: "chunked",
        set: |s| {
            s.profile = Profile::Chunked;
            s.cookie = CHUNKED.to_owned();
        },
        cookie: "preset = \"aspnetcore\"",
        lines: "i_accept_replay = true",
        copy: ".AspNetCore.Cookies=chunks-2; .AspNetCore.CookiesC1={}",
        renews: true,
        ..PLAIN
    },
    Habit {
        name: "route",
        set: |s| {
            s.profile = Profile::Route;
            s.cookie = "JSESSIONID".to_owned();
        },
        cookie: "preset = \"tomcat\"",
        copy: "JSESSIONID={}.node1",
        own: Some(Own::Failover),
        ..PLAIN
    },
    Habit { name: "double-set", set: |s| s.profile = Profile::DoubleSet, ..PLAIN },
    Habit {
        name: "remember-me",
        set: |s| s.remember_me = Some("remember".to_owned()),
        lines: "companions = [\"remember\"]",
        copy: "remember={}; SID={}",
        ..PLAIN
    },
    Habit {
        name: "anonymous",
        set: |s| {
            s.profile = Profile::RotateLogin;
            s.anonymous_cookie = true;
            // A slow answer brings a fresh anonymous value, also after a sign-in that overtook it (FIELD F9).
            s.resurrect = Resurrect::New;
        },
        anonymous: true,
        ..RENEWING
    },
    Habit {
        name: "anonymous-flood",
        set: |s| {
            s.profile = Profile::RotateLogin;
            s.anonymous_cookie = true;
        },
        // FEW_ANONYMOUS.
        rest: "[limits]\nanonymous_sessions = 40\n",
        own: Some(Own::Flood),
        anonymous: true,
        ..RENEWING
    },
    Habit {
        name: "resurrect-same",
        set: |s| {
            s.profile = Profile::RotateLogin;
            s.resurrect = Resurrect::Same;
        },
        ..RENEWING
    },
    Habit {
        name: "resurrect-new",
        set: |s| {
            s.profile = Profile::RotateLogin;
            s.resurrect = Resurrect::New;
        },
        ..RENEWING
    },
    Habit {
        name: "mfa",
        set: |s| {
            s.profile = Profile::RotateLogin;
            s.mfa = true;
        },
        lines: "sign_in = [\"POST /login\", \"POST /mfa\"]",
        mfa: true,
        ..RENEWING
    },
];

impl Habit {
    /// Switches it on.
    pub(crate) fn switch_on(&self, s: &mut Switches) {
        s.identity_headers = true;
        (self.set)(s);
    }

    /// The app's lines of the configuration: in place of `cookie = "SID"`, and further ones.
    pub(crate) fn lines(&self, custody: &str) -> (String, String) {
        (self.cookie.to_owned(), format!("custody = \"{custody}\"\n{}", self.lines_for(custody)))
    }

    /// Replay need not be accepted where no copy leaves the gateway.
    fn lines_for(&self, custody: &str) -> &'static str {
        if custody == "vault" && self.lines.starts_with("i_accept_replay") { "" } else { self.lines }
    }
}
