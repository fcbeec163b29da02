//! `/.tenure/`: the gateway's own paths, at the root and below every path, since a browser sends a cookie only below
//! the Path that the app set it with (R5). Nothing here ever goes upstream or renews a session by a look-up.

use http::{HeaderMap, Method, Response, StatusCode};

use hyper::body::Incoming;

use super::answer;
use super::body::Body;
use super::collect::collect;
use super::intake::Intake;
use super::visit::Visit;
use crate::pages::{self, AskEntry, HeldBack};
use crate::session::device::Device;
use crate::session::gate::Action;
use crate::session::record::{Session, State};
use crate::session::{EndReason, Moment, OnLimit, SessionId};
use crate::store::{Enrolled, SessionRef, Table};

/// The largest body that a reserved path takes (R26).
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// What comes behind `/.tenure/` in a normalised path; `None` when the path is the app's. Any spelling counts.
#[must_use]
pub(super) fn subpath(path: &str) -> Option<String> {
    // A segment that begins with a dot, in any spelling, is rare: nothing is copied for the others.
    if !(path.contains("/.") || path.contains(['%', '\\'])) {
        return None;
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().to_ascii_lowercase();
    let plain = decoded.replace('\\', "/");
    let mut segments = plain.split('/');
    segments.by_ref().find(|segment| segment.split(';').next() == Some(".tenure"))?;
    Some(segments.collect::<Vec<_>>().join("/"))
}

/// Whether the request comes from a page of this very origin. Browsers say so in `Sec-Fetch-Site`, older ones in
/// `Origin`; a request that says neither is refused, because only a browser's word protects its user here.
#[must_use]
pub(super) fn is_same_origin(headers: &HeaderMap, host: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        }
        (None, None) => false,
    }
}

/// Answers a request to a reserved path.
pub(super) async fn answer(
    table: &Table,
    visit: &Visit,
    intake: &Intake,
    subpath: &str,
    body: Incoming,
    now: Moment,
) -> Response<Body> {
    let headers = &visit.head.headers;
    match (subpath, &visit.head.method) {
        ("status", &Method::GET | &Method::HEAD) => status(table, shown(visit, intake), now),
        ("touch", &Method::POST) if !is_same_origin(headers, &visit.host.name) => cross_site(),
        ("touch", &Method::POST) => touch(table, shown(visit, intake), now),
        ("ask", &Method::POST) if !is_same_origin(headers, &visit.host.name) => cross_site(),
        ("ask", &Method::POST) => ask(table, visit, intake, body, now).await,
        ("status" | "touch" | "ask", _) => {
            answer::problem(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", &[])
        }
        _ => answer::problem(StatusCode::NOT_FOUND, "Not found", &[]),
    }
}

fn cross_site() -> Response<Body> {
    answer::problem(StatusCode::FORBIDDEN, "Same origin only", &[])
}

fn status(table: &Table, shown: Option<&SessionRef>, now: Moment) -> Response<Body> {
    let session = shown.map(|session| table.read(session, now));
    answer::json(StatusCode::OK, &answer::status(session.as_ref(), now))
}

/// The session that a reserved path speaks of. An alias opens nothing here (R10).
fn shown<'a>(visit: &'a Visit, intake: &Intake) -> Option<&'a SessionRef> {
    visit.presented().filter(|_| !intake.by_alias)
}

fn touch(table: &Table, shown: Option<&SessionRef>, now: Moment) -> Response<Body> {
    match shown {
        Some(session) if table.touch(session, now) => answer::empty(StatusCode::NO_CONTENT),
        Some(_) | None => answer::problem(StatusCode::UNAUTHORIZED, "No live session", &[]),
    }
}

/// The page for a session that is held back: which sessions there are, and with `ask` a way to end one.
#[must_use]
pub(super) fn held_back_page(table: &Table, visit: &Visit, session: &SessionRef, now: Moment) -> String {
    let record = table.read(session, now);
    let entries: Vec<AskEntry> = table.rivals_of(session, now).iter().map(entry).collect();
    let held = HeldBack {
        sessions: &entries,
        held_until: match record.state {
            State::Pending(until) => until,
            State::Active | State::Ended(_) => now,
        },
        now,
        login: visit.app.config.login.as_deref(),
    };
    if record.policy.on_limit == OnLimit::Ask {
        pages::ask(&held, &format!("{}/.tenure/ask", base_of(&record)), &[])
    } else {
        pages::refused(&held)
    }
}

/// The path below which the browser sends the session's cookie, without a trailing `/`: there our own paths are found
/// (R5), and there the app is.
fn base_of(session: &Session) -> String {
    session.cookie_path().unwrap_or_default().trim_end_matches('/').to_owned()
}

fn entry(session: &Session) -> AskEntry {
    AskEntry {
        id: session.id,
        device: Device::read(&session.visitor.user_agent),
        signed_in_at: session.times.signed_in_at.unwrap_or(session.times.created_at),
        last_active_at: session.times.last_active_at,
    }
}

/// The user chose a session to end; the one held back may then become active.
async fn ask(table: &Table, visit: &Visit, intake: &Intake, body: Incoming, now: Moment) -> Response<Body> {
    let (Action::HoldBack { .. } | Action::ForwardWithout, Some(session)) =
        (intake.action, shown(visit, intake))
    else {
        return answer::redirect("/");
    };
    let (waits, home) = table.inspect(session, now, |s| {
        let waits = matches!(s.state, State::Pending(_)) && s.policy.on_limit == OnLimit::Ask;
        (waits, format!("{}/", base_of(s)))
    });
    if !waits {
        return answer::redirect(&home);
    }
    let form = match collect(body, MAX_BODY_BYTES).await {
        Ok(form) => form,
        Err(fault) => {
            return answer::problem(fault.status(), "No choice", &[("detail", Some(&fault.to_string()))]);
        }
    };
    let chosen = form_urlencoded::parse(&form)
        .find(|(name, _)| name == pages::SESSION_FIELD)
        .and_then(|(_, value)| value.parse::<SessionId>().ok());
    let rivals = table.rivals_of(session, now);
    // Only this very user's sessions can be chosen.
    let rival =
        chosen.and_then(|id| rivals.iter().find(|rival| rival.id == id)).and_then(|r| table.by_id(r.id));
    if let Some(rival) = rival {
        let by = table.inspect(session, now, |s| s.identity.as_ref().map(|i| i.user.as_str().into()));
        table.end(&rival, EndReason::MaxConcurrent, by, now);
    }
    match table.admit_pending(session, now) {
        Enrolled::Active(_) => answer::redirect(&home),
        Enrolled::Pending(_) => answer::held_back(visit, Some(held_back_page(table, visit, session, now))),
        Enrolled::Over => answer::redirect(visit.app.config.login.as_deref().unwrap_or(&home)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_prefix_is_ours() {
        for (path, expected) in [
            ("/.tenure/status", Some("status")),
            ("/.tenure", Some("")),
            ("/app/.tenure/touch", Some("touch")),
            ("/.TENURE/status", Some("status")),
            ("/%2Etenure/status", Some("status")),
            ("/a%2F.tenure%2Fstatus", Some("status")),
            ("/.tenure;x=1/status", Some("status")),
            ("/a%5C.tenure/status", Some("status")),
            ("/tenure/status", None),
            ("/x.tenure/", None),
        ] {
            assert_eq!(subpath(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn only_the_same_origin_may_act() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect::<HeaderMap>()
        };
        assert!(is_same_origin(&headers(&[("sec-fetch-site", "same-origin")]), "a.example"));
        assert!(is_same_origin(&headers(&[("origin", "https://a.example")]), "a.example"));
        assert!(!is_same_origin(
            &headers(&[("sec-fetch-site", "same-site"), ("origin", "https://a.example")]),
            "a.example"
        ));
        assert!(!is_same_origin(&headers(&[("origin", "https://b.example")]), "a.example"));
        assert!(!is_same_origin(&headers(&[("origin", "null")]), "a.example"));
        assert!(!is_same_origin(&headers(&[]), "a.example"));
    }
}
