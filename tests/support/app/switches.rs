//! The habits of the fixture app, each a switch that a test may turn at run time.

use std::time::Duration;

/// How the app goes about its session cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One random value for the life of the session; a live anonymous value is kept at sign-in.
    Opaque,
    /// A value that the browser presents is taken as the id of a new session; log-out keeps it (PHP, ASP.NET).
    Recycle,
    /// New bytes on every answer, the earlier ones stay valid (Laravel, Rails).
    RotateEach,
    /// A new value at sign-in, the one before it is dead (Django, Tomcat).
    RotateLogin,
    /// The cookie says `chunks-2` for everybody; the data stand in `C1` and `C2` (ASP.NET Core).
    Chunked,
    /// The value ends with the name of the node, which changes at a failover (Tomcat, Jetty).
    Route,
    /// Two `Set-Cookie` of one name in an answer: the second one is meant.
    DoubleSet,
}

/// How a wrong password is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongPassword {
    /// `200` and the form again.
    Ok200,
    /// `401`.
    Unauthorized401,
    /// `302` back to the form.
    Redirect302,
}

/// What `/slow` does with the session when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resurrect {
    /// Sets the session's own cookie again if the session still lives.
    None,
    /// Saves the session as it was when the request began, with the same value, even if it ended meanwhile.
    Same,
    /// Brings a new value for the user that the request began with.
    New,
}

/// How the app closes its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseAfter {
    /// Only when asked to.
    Never,
    /// After so many answers on a connection, unannounced.
    Answers(u32),
    /// When a connection was idle so long, unannounced.
    Idle(Duration),
    /// With a TCP reset in place of every answer.
    Reset,
    /// With a FIN in the middle of every answer's body.
    FinMidAnswer,
}

/// A header line that no answer should carry, added to every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// None.
    None,
    /// A value with a byte that is no UTF-8.
    Latin1,
    /// A space within the name.
    SpaceInName,
    /// A space between the name and the colon.
    SpaceBeforeColon,
    /// No colon at all.
    NoColon,
}

/// The attributes of the session cookie (and of its companions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `Path=`.
    pub path: String,
    /// `Domain=`.
    pub domain: Option<String>,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite=`.
    pub same_site: Option<&'static str>,
    /// `Partitioned`.
    pub partitioned: bool,
    /// `Max-Age=`, in seconds.
    pub max_age: Option<u64>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            domain: None,
            secure: false,
            http_only: true,
            same_site: None,
            partitioned: false,
            max_age: None,
        }
    }
}

/// Every habit. The default is a plain, well-behaved app.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Name of the session cookie.
    pub cookie: String,
    /// How the app goes about it.
    pub profile: Profile,
    /// Its attributes.
    pub attributes: Attributes,
    /// From sign-in on the cookie is set with this Path instead.
    pub move_path: Option<String>,
    /// From sign-in on the cookie is set with this Domain instead.
    pub move_domain: Option<String>,
    /// The node's name at the end of the value ([`Profile::Route`]).
    pub route: String,
    /// At sign-in a second cookie of this name is set that signs the browser in again.
    pub remember_me: Option<String>,
    /// Every visitor without a session is given one.
    pub anonymous_cookie: bool,
    /// Log-out deletes the cookie in the browser and nothing in the app: copies stay valid.
    pub replay: bool,
    /// Of two session cookies in a request the last one counts, not the first.
    pub last_duplicate: bool,
    /// Values of cookies are decoded before they are read: escapes (Express, PHP, Rack), quotes and what they escape (Python).
    pub decodes_cookies: bool,
    /// The session id is also read from `;name=` in the path and `?name=` in the query.
    pub url_ids: bool,
    /// Case, empty segments, a slash at the end and path parameters make no other page (ASP.NET and Express, Apache, Tomcat).
    pub any_spelling: bool,
    /// Every page is a script's: `/login.php` is `/login`, and so is `/login.php/what/ever` (PHP's path info).
    pub scripts: bool,
    /// What `/slow` does at its end.
    pub resurrect: Resurrect,
    /// The form field of the user's name.
    pub user_field: String,
    /// Every answer sets the session cookie again (Express with `rolling`).
    pub rolling: bool,
    /// `/api/whoami` answers 500.
    pub whoami_fails: bool,
    /// How a wrong password is answered.
    pub wrong_password: WrongPassword,
    /// The status of a sign-in that succeeded: 302, 303, or 200 with a page.
    pub login_status: u16,
    /// The password alone is not enough; `/mfa` asks for [`super::MFA_CODE`].
    pub mfa: bool,
    /// `X-Session-User`, `-Tenant` and `-Roles` on the answers of signed-in sessions.
    pub identity_headers: bool,
    /// They call everybody an admin.
    pub all_admins: bool,
    /// `Location` names scheme and host (as the request's `Host` had them).
    pub absolute_location: bool,
    /// How connections are closed.
    pub close_after: CloseAfter,
    /// Header lines are folded over two lines, `Set-Cookie` included.
    pub fold_headers: bool,
    /// A header line that no answer should carry.
    pub bad_header: BadHeader,
    /// Answers as HTTP/1.0: no length, the end of the connection ends the body.
    pub http10: bool,
    /// Bodies are sent chunked in place of a `Content-Length`.
    pub chunked_answers: bool,
    /// A `103 Early Hints` before each answer.
    pub early_hints: bool,
    /// `Expect: 100-continue` is not answered with `100`: the app waits for the body in silence.
    pub ignore_expect: bool,
    /// `/ws` answers the handshake with this status.
    pub refuse_upgrade: Option<u16>,
    /// `/ws` and `/events` speak unasked at this pace.
    pub tick: Option<Duration>,
    /// Further header lines on every answer.
    pub extra_headers: Vec<(String, String)>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            cookie: "SID".to_owned(),
            profile: Profile::Opaque,
            attributes: Attributes::default(),
            move_path: None,
            move_domain: None,
            route: "node1".to_owned(),
            remember_me: None,
            anonymous_cookie: false,
            replay: false,
            last_duplicate: false,
            decodes_cookies: false,
            url_ids: false,
            any_spelling: false,
            scripts: false,
            resurrect: Resurrect::None,
            user_field: "username".to_owned(),
            rolling: false,
            whoami_fails: false,
            wrong_password: WrongPassword::Ok200,
            login_status: 302,
            mfa: false,
            identity_headers: false,
            all_admins: false,
            absolute_location: false,
            close_after: CloseAfter::Never,
            fold_headers: false,
            bad_header: BadHeader::None,
            http10: false,
            chunked_answers: false,
            early_hints: false,
            ignore_expect: false,
            refuse_upgrade: None,
            tick: None,
            extra_headers: Vec::new(),
        }
    }
}
