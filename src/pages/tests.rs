use super::*;

fn at(secs: u64) -> Moment {
    Moment::from_unix_ms(secs * 1000)
}

fn entry(id: u128, user_agent: &str) -> AskEntry {
    AskEntry {
        id: SessionId::from_u128(id),
        device: Device::read(user_agent),
        signed_in_at: at(1_000),
        last_active_at: at(1_000 + 7_200),
    }
}

fn held(sessions: &[AskEntry]) -> HeldBack<'_> {
    HeldBack { sessions, held_until: at(8_400), now: at(8_280), login: Some("/login") }
}

/// Every element that is opened is closed, in order; returns how many there were.
fn assert_well_formed(page: &str) -> usize {
    let void = ["meta", "input", "br", "!doctype"];
    let mut open: Vec<String> = Vec::new();
    let mut seen = 0;
    for tag in page.split('<').skip(1) {
        let name: String = tag.chars().take_while(|c| !matches!(c, ' ' | '>' | '\n')).collect();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop().as_deref(), Some(closed), "in {page}"),
            None if void.contains(&name.as_str()) => {}
            None => {
                seen += 1;
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    seen
}

#[test]
fn every_reason_has_a_complete_page() {
    for reason in EndReason::ALL {
        for login in [None, Some("/login")] {
            let page = ended(reason, login);
            assert!(assert_well_formed(&page) > 5);
            assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
            assert_eq!(page.matches("<h1>").count(), 1);
            assert_eq!(page.contains("href=\"/login\""), login.is_some());
        }
    }
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let evil = "\"><script>alert(1)</script>";
    let sessions = [entry(1, evil)];
    let mut held = held(&sessions);
    held.login = Some(evil);
    let pages = [ended(EndReason::Revoked, Some(evil)), ask(&held, evil, &[(evil, evil)]), refused(&held)];
    for page in pages {
        assert!(!page.contains("<script"), "{page}");
        assert_well_formed(&page);
    }
}

#[test]
fn ask_offers_a_button_for_each_session() {
    let sessions = [entry(1, "curl/8"), entry(2, "Mozilla/5.0 (X11; Linux) Firefox/1")];
    let page = ask(&held(&sessions), "/.tenure/ask", &[("next", "/a?b=c&d")]);
    assert!(page.contains("signed in on 2 devices"));
    assert!(page.contains("<form method=\"post\" action=\"/.tenure/ask\">"));
    assert!(page.contains("<input type=\"hidden\" name=\"next\" value=\"/a?b=c&amp;d\">"));
    assert!(page.contains("Firefox on Linux"));
    assert!(page.contains("title=\"1970-01-01T00:16:40Z\">2 hours ago</time>"));
    assert!(page.contains("waits for 2 minutes"));
    for session in &sessions {
        assert!(page.contains(&format!("name=\"session\" value=\"{}\"", session.id)));
    }
}

#[test]
fn refuse_offers_to_try_again_and_ends_nobody() {
    let sessions = [entry(1, "curl/8")];
    let page = refused(&held(&sessions));
    assert!(page.contains("signed in on one device"));
    assert!(page.contains("<a class=\"button primary\" href=\"\">Try again</a>"));
    assert!(!page.contains("<form") && !page.contains("<button"));
}

#[test]
fn the_list_is_bounded() {
    let sessions: Vec<AskEntry> = (0..200).map(|id| entry(id, "curl/8")).collect();
    let page = ask(&held(&sessions), "/x", &[]);
    assert_eq!(page.matches("<li>").count(), MAX_LISTED);
    assert!(page.contains("150 more are not shown"));
}

#[test]
fn pages_load_and_run_nothing() {
    let sessions = [entry(1, "curl/8")];
    for page in [ended(EndReason::Revoked, None), ask(&held(&sessions), "/x", &[]), refused(&held(&sessions))]
    {
        for forbidden in ["<script", "<img", "<link", "src=", "style=\"", "url(", "http://", "https://"] {
            let body = page.split("</style>").nth(1).unwrap();
            let found = body.contains(forbidden);
            assert!(!found, "{forbidden} in {body}");
        }
    }
}
