//! What a response teaches: the second half of the gate.
//!
//! [`learn`] is a total function of what the request carried, what the response did to the session cookie, and whom
//! the identity sources named. The store carries the lesson out, atomically.

use super::gate::Place;
use super::identity::Identity;

/// What the request carried upstream, judged again at the moment of learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried<'a> {
    /// No token of a session that is live now.
    Nothing,
    /// A value that was in use when the request was judged, and that a sign-in has replaced meanwhile (R10).
    Replaced,
    /// A live session that nobody has signed in on.
    Anonymous {
        /// By a value in use, not by an alias.
        current: bool,
    },
    /// A live session with a user.
    SignedIn {
        /// Whose.
        identity: &'a Identity,
        /// By a value in use, not by an alias.
        current: bool,
    },
    /// A live session on which another answer has signed in before the answer of the sign-in itself, which is this one.
    Early {
        /// Whom the other answer named.
        identity: &'a Identity,
    },
    /// A session that has ended meanwhile.
    Over {
        /// By the app's own doing: it signed its user out or in, and nobody was thrown out.
        by_app: bool,
    },
}

/// What the response does to the configured cookies, companions aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookies {
    /// Nothing, or it sets again what the request carried.
    Untouched,
    /// It sets a value that the request did not carry and that no live session holds.
    Fresh,
    /// It sets a value of an ended session that may begin its next generation now (R12).
    Recycled,
    /// It sets a value of an ended session, and this response may not bring it back.
    Dead,
    /// It deletes the session cookie.
    Deleted,
}

/// Everything that a lesson is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Taught<'a> {
    /// What the request carried.
    pub carried: Carried<'a>,
    /// What the response does to the session cookie.
    pub cookies: Cookies,
    /// Whom the sources name for this response.
    pub identity: Option<&'a Identity>,
    /// The source that named the carried session's user was asked about this response and named nobody.
    pub source_silent: bool,
    /// Where the request went.
    pub place: Place,
    /// The configuration says where signing in happens.
    pub sign_in_known: bool,
    /// The request brought a dead token of somebody's ended session.
    pub after_end: bool,
}

/// What to do about the response's cookies and identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing about sessions.
    Nothing,
    /// Drop the configured cookies from the response; learn nothing.
    Withhold,
    /// A new anonymous session begins with the response's cookies.
    Start,
    /// A new signed-in session begins with the response's cookies.
    SignIn,
    /// The carried anonymous session becomes a signed-in one.
    Identify,
    /// The sign-in has been seen already: its own answer's values stand beside those that another one brought.
    Join,
    /// The carried session's cookie has a new value.
    Rotate,
    /// The same user signed in again: a new session, the old one ends as `superseded`.
    Supersede,
    /// Another user signed in: a new session, the old one ends as `account_switched`.
    Switch,
    /// The app signed its user out.
    Logout,
    /// The app signed its user out and began an anonymous session.
    LogoutAndStart,
}

/// Draws the lesson.
#[must_use]
pub fn learn(taught: &Taught<'_>) -> Lesson {
    match (taught.carried, taught.cookies) {
        // Two tabs signed in at once, or an answer of the app that came first showed the old session gone already (R10).
        (Carried::Over { by_app: true }, Cookies::Fresh)
            if taught.identity.is_some() && taught.place == Place::SignIn =>
        {
            Lesson::SignIn
        }
        (Carried::Early { identity: known }, Cookies::Fresh | Cookies::Untouched)
            if taught.identity.is_some_and(|named| is_same_user(named, known)) =>
        {
            Lesson::Join
        }
        // As above, of somebody else.
        (Carried::Early { .. }, Cookies::Fresh) if taught.identity.is_some() => Lesson::SignIn,
        // A response to a request whose session ended meanwhile brings nothing back (FIELD F7).
        (Carried::Over { .. } | Carried::Early { .. }, _) | (_, Cookies::Dead) => Lesson::Withhold,
        (Carried::Nothing, cookies) => without_session(taught, cookies),
        (Carried::Replaced, cookies) => on_replaced(taught, cookies),
        (Carried::Anonymous { current }, cookies) => on_anonymous(taught, current, cookies),
        (Carried::SignedIn { identity, current }, cookies) => {
            on_signed_in(taught, identity, current, cookies)
        }
    }
}

fn without_session(taught: &Taught<'_>, cookies: Cookies) -> Lesson {
    if !matches!(cookies, Cookies::Fresh | Cookies::Recycled) {
        return Lesson::Nothing;
    }
    match taught.identity {
        None => Lesson::Start,
        Some(_) if is_back_by_itself(taught) => Lesson::Withhold,
        Some(_) => Lesson::SignIn,
    }
}

/// The browser has, or is about to get, the cookie of the sign-in that overtook this answer: an anonymous cookie that
/// comes after it would take its place, and sign out who has just signed in (FIELD F9).
fn on_replaced(taught: &Taught<'_>, cookies: Cookies) -> Lesson {
    match (taught.identity, cookies) {
        (_, Cookies::Untouched) => Lesson::Nothing,
        (Some(_), Cookies::Fresh | Cookies::Recycled) => without_session(taught, cookies),
        (_, Cookies::Fresh | Cookies::Recycled | Cookies::Dead | Cookies::Deleted) => Lesson::Withhold,
    }
}

/// The app signs the browser back in by itself (remember-me): that is no sign-in (R6, FIELD F6).
fn is_back_by_itself(taught: &Taught<'_>) -> bool {
    taught.after_end && taught.sign_in_known && taught.place != Place::SignIn
}

fn on_anonymous(taught: &Taught<'_>, current: bool, cookies: Cookies) -> Lesson {
    match (taught.identity, cookies) {
        (_, Cookies::Recycled | Cookies::Dead) => Lesson::Withhold,
        (Some(_), Cookies::Fresh) if is_back_by_itself(taught) => Lesson::Withhold,
        (Some(_), Cookies::Untouched) if is_back_by_itself(taught) => Lesson::Nothing,
        (Some(_), Cookies::Untouched | Cookies::Fresh) => Lesson::Identify,
        (_, Cookies::Deleted) if current => Lesson::Logout,
        (_, Cookies::Deleted) => Lesson::Withhold,
        (None, Cookies::Fresh) => Lesson::Rotate,
        (None, Cookies::Untouched) => Lesson::Nothing,
    }
}

fn on_signed_in(taught: &Taught<'_>, known: &Identity, current: bool, cookies: Cookies) -> Lesson {
    let fresh = match cookies {
        Cookies::Recycled | Cookies::Dead => return Lesson::Withhold,
        // Only an answer to the current value signs out (R11).
        Cookies::Deleted if current => return Lesson::Logout,
        Cookies::Deleted => return Lesson::Withhold,
        Cookies::Fresh => true,
        Cookies::Untouched => false,
    };
    match taught.identity {
        // A later source never changes what an earlier one said (R8); the form of a sign-in says who signs in now.
        Some(named) if named.source > known.source && !(fresh && taught.place == Place::SignIn) => {
            rotate_if(fresh)
        }
        Some(named) if !is_same_user(named, known) => Lesson::Switch,
        Some(_) if fresh && taught.place == Place::SignIn => Lesson::Supersede,
        Some(_) => rotate_if(fresh),
        None if fresh && current && (taught.place == Place::Logout || taught.source_silent) => {
            Lesson::LogoutAndStart
        }
        None => rotate_if(fresh),
    }
}

/// Whether a response gives the user of the carried session other roles: only the source that named the user may (R8).
#[must_use]
pub fn gives_other_roles(taught: &Taught<'_>) -> bool {
    match (taught.carried, taught.identity) {
        (Carried::SignedIn { identity: known, .. }, Some(named)) => {
            named.source == known.source && is_same_user(named, known) && named.roles != known.roles
        }
        _ => false,
    }
}

fn rotate_if(fresh: bool) -> Lesson {
    if fresh { Lesson::Rotate } else { Lesson::Nothing }
}

fn is_same_user(a: &Identity, b: &Identity) -> bool {
    a.user == b.user && a.tenant == b.tenant
}

/// Whether what a lesson changed has to be safe before the browser learns of it (R22); `signed_in` says whether somebody had
/// signed in on the carried session. What concerns visitors alone is written behind.
#[must_use]
pub fn outlives(lesson: Lesson, cookies: Cookies, signed_in: bool) -> bool {
    match lesson {
        Lesson::SignIn
        | Lesson::Identify
        | Lesson::Join
        | Lesson::Supersede
        | Lesson::Switch
        | Lesson::Logout
        | Lesson::LogoutAndStart => true,
        Lesson::Rotate => signed_in,
        Lesson::Start => cookies == Cookies::Recycled,
        Lesson::Nothing | Lesson::Withhold => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: &str, source: u8) -> Identity {
        Identity { user: user.into(), tenant: "default".into(), roles: vec![], source }
    }

    fn taught<'a>(carried: Carried<'a>, cookies: Cookies, identity: Option<&'a Identity>) -> Taught<'a> {
        Taught {
            carried,
            cookies,
            identity,
            source_silent: false,
            place: Place::Other,
            sign_in_known: true,
            after_end: false,
        }
    }

    #[test]
    fn a_silent_response_teaches_nothing_wherever_its_session_stands() {
        let ann = who("ann", 0);
        for carried in [
            Carried::Nothing,
            Carried::Replaced,
            Carried::Over { by_app: false },
            Carried::Over { by_app: true },
            Carried::Early { identity: &ann },
            Carried::Anonymous { current: true },
            Carried::Anonymous { current: false },
            Carried::SignedIn { identity: &ann, current: true },
            Carried::SignedIn { identity: &ann, current: false },
        ] {
            for place in [Place::Other, Place::SignIn, Place::Login, Place::Logout, Place::Public] {
                for bits in 0..8 {
                    let [sign_in_known, after_end, source_silent] = [1, 2, 4].map(|bit| bits & bit != 0);
                    let silent = taught(carried, Cookies::Untouched, None);
                    let taught = Taught { place, sign_in_known, after_end, source_silent, ..silent };
                    let lesson = learn(&taught);
                    // Withholding concerns cookies, and there are none.
                    assert!(matches!(lesson, Lesson::Nothing | Lesson::Withhold), "{carried:?} {lesson:?}");
                }
            }
        }
    }

    #[test]
    fn lessons_follow_from_what_was_carried_and_set() {
        let (ann, bob) = (who("ann", 0), who("bob", 0));
        let anonymous = Carried::Anonymous { current: true };
        let signed_in = Carried::SignedIn { identity: &ann, current: true };
        let by_alias = Carried::SignedIn { identity: &ann, current: false };
        let cases = [
            (Carried::Nothing, Cookies::Untouched, None, Lesson::Nothing),
            (Carried::Nothing, Cookies::Untouched, Some(&ann), Lesson::Nothing),
            (Carried::Nothing, Cookies::Fresh, None, Lesson::Start),
            (Carried::Nothing, Cookies::Recycled, None, Lesson::Start),
            (Carried::Nothing, Cookies::Fresh, Some(&ann), Lesson::SignIn),
            (Carried::Nothing, Cookies::Dead, Some(&ann), Lesson::Withhold),
            (Carried::Over { by_app: false }, Cookies::Fresh, Some(&ann), Lesson::Withhold),
            (Carried::Over { by_app: true }, Cookies::Fresh, Some(&ann), Lesson::Withhold),
            (anonymous, Cookies::Fresh, None, Lesson::Rotate),
            (anonymous, Cookies::Fresh, Some(&ann), Lesson::Identify),
            (anonymous, Cookies::Untouched, Some(&ann), Lesson::Identify),
            (anonymous, Cookies::Deleted, None, Lesson::Logout),
            (signed_in, Cookies::Fresh, None, Lesson::Rotate),
            (signed_in, Cookies::Fresh, Some(&ann), Lesson::Rotate),
            (signed_in, Cookies::Untouched, Some(&ann), Lesson::Nothing),
            (signed_in, Cookies::Untouched, Some(&bob), Lesson::Switch),
            (signed_in, Cookies::Deleted, None, Lesson::Logout),
            (by_alias, Cookies::Deleted, None, Lesson::Withhold),
            (by_alias, Cookies::Fresh, None, Lesson::Rotate),
            (signed_in, Cookies::Dead, None, Lesson::Withhold),
        ];
        for (carried, cookies, identity, lesson) in cases {
            assert_eq!(
                learn(&taught(carried, cookies, identity)),
                lesson,
                "{carried:?} {cookies:?} {identity:?}"
            );
        }
    }

    #[test]
    fn a_sign_in_by_the_same_user_supersedes() {
        let ann = who("ann", 0);
        let carried = Carried::SignedIn { identity: &ann, current: true };
        let at_sign_in = Taught { place: Place::SignIn, ..taught(carried, Cookies::Fresh, Some(&ann)) };
        assert_eq!(learn(&at_sign_in), Lesson::Supersede);
        let same_value = Taught { cookies: Cookies::Untouched, ..at_sign_in };
        assert_eq!(learn(&same_value), Lesson::Nothing);
    }

    #[test]
    fn remember_me_after_an_end_is_no_sign_in() {
        let ann = who("ann", 0);
        let back = Taught { after_end: true, ..taught(Carried::Nothing, Cookies::Fresh, Some(&ann)) };
        assert_eq!(learn(&back), Lesson::Withhold);
        assert_eq!(learn(&Taught { place: Place::SignIn, ..back }), Lesson::SignIn);
        assert_eq!(learn(&Taught { sign_in_known: false, ..back }), Lesson::SignIn);
    }

    #[test]
    fn a_fresh_anonymous_value_on_logout_or_from_a_silent_source_signs_out() {
        let ann = who("ann", 0);
        let base = taught(Carried::SignedIn { identity: &ann, current: true }, Cookies::Fresh, None);
        assert_eq!(learn(&Taught { place: Place::Logout, ..base }), Lesson::LogoutAndStart);
        assert_eq!(learn(&Taught { source_silent: true, ..base }), Lesson::LogoutAndStart);
    }

    #[test]
    fn an_answer_that_a_sign_in_overtook_leaves_its_cookie_alone() {
        let ann = who("ann", 0);
        for (cookies, identity, lesson) in [
            (Cookies::Fresh, None, Lesson::Withhold),
            (Cookies::Deleted, None, Lesson::Withhold),
            (Cookies::Untouched, None, Lesson::Nothing),
            (Cookies::Fresh, Some(&ann), Lesson::SignIn),
            (Cookies::Deleted, Some(&ann), Lesson::Withhold),
        ] {
            assert_eq!(
                learn(&taught(Carried::Replaced, cookies, identity)),
                lesson,
                "{cookies:?} {identity:?}"
            );
        }
    }

    #[test]
    fn the_answer_of_a_sign_in_that_was_seen_before_begins_no_second_session() {
        let (ann, bob) = (who("ann", 0), who("bob", 0));
        for (cookies, identity, lesson) in [
            (Cookies::Fresh, Some(&ann), Lesson::Join),
            (Cookies::Untouched, Some(&ann), Lesson::Join),
            (Cookies::Fresh, Some(&bob), Lesson::SignIn),
            (Cookies::Untouched, Some(&bob), Lesson::Withhold),
            (Cookies::Fresh, None, Lesson::Withhold),
            (Cookies::Dead, Some(&ann), Lesson::Withhold),
        ] {
            let carried = Carried::Early { identity: &ann };
            let taught = Taught { place: Place::SignIn, ..taught(carried, cookies, identity) };
            assert_eq!(learn(&taught), lesson, "{cookies:?} {identity:?}");
        }
    }

    #[test]
    fn a_later_source_never_changes_the_user() {
        let (ann, bob) = (who("ann", 0), who("bob", 1));
        let carried = Carried::SignedIn { identity: &ann, current: true };
        assert_eq!(learn(&taught(carried, Cookies::Untouched, Some(&bob))), Lesson::Nothing);
    }

    #[test]
    fn after_an_end_an_anonymous_session_is_no_way_round_the_sign_in() {
        let ann = who("ann", 0);
        let anonymous = Carried::Anonymous { current: true };
        for (cookies, lesson) in [(Cookies::Fresh, Lesson::Withhold), (Cookies::Untouched, Lesson::Nothing)] {
            let back = Taught { after_end: true, ..taught(anonymous, cookies, Some(&ann)) };
            assert_eq!(learn(&back), lesson);
            assert_eq!(learn(&Taught { place: Place::SignIn, ..back }), Lesson::Identify);
            assert_eq!(learn(&Taught { sign_in_known: false, ..back }), Lesson::Identify);
        }
    }

    #[test]
    fn a_sign_in_counts_though_the_app_has_shown_the_old_session_gone() {
        let ann = who("ann", 0);
        for (by_app, identity, place, lesson) in [
            (true, Some(&ann), Place::SignIn, Lesson::SignIn),
            (true, None, Place::SignIn, Lesson::Withhold),
            (true, Some(&ann), Place::Other, Lesson::Withhold),
            (false, Some(&ann), Place::SignIn, Lesson::Withhold),
        ] {
            let answer = Taught { place, ..taught(Carried::Over { by_app }, Cookies::Fresh, identity) };
            assert_eq!(learn(&answer), lesson, "{by_app} {identity:?} {place:?}");
        }
    }

    #[test]
    fn only_the_source_that_named_the_user_gives_other_roles() {
        let ann = who("ann", 1);
        let carried = Carried::SignedIn { identity: &ann, current: true };
        for (user, source, gives) in
            [("ann", 1, true), ("ann", 0, false), ("ann", 2, false), ("bob", 1, false)]
        {
            let named = Identity { roles: vec!["staff".into()], ..who(user, source) };
            assert_eq!(gives_other_roles(&taught(carried, Cookies::Untouched, Some(&named))), gives);
        }
        assert!(!gives_other_roles(&taught(carried, Cookies::Untouched, Some(&ann))));
    }
}
