//! What a browser meets when its session has ended: by kind of request, by reason, by place.

use crate::setup::{BY_HEADER, POLICY, World, post_login, sign_in, who};
use crate::support::app::Switches;
use crate::support::browser::{Ask, Mode};

#[tokio::test]
async fn an_idle_session_is_sent_to_the_login_page_once_and_its_cookie_deleted() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    world.pass(3600);
    let page = browser.send(Ask::get(Mode::Navigate, "/page").no_follow()).await.unwrap();
    assert_eq!((page.status, page.header("location")), (303, Some("/login")));
    assert_eq!(page.header("tenure-session"), Some("ended; reason=idle_timeout"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(browser.cookie("SID"), None, "the jar obeyed the deletion");
    world.app.forget_requests();
    // Somebody kept a copy: it is told once on a navigation, and opens nothing ever after.
    let copy = browser.fetch_with_cookie("/me", &format!("SID={token}")).await;
    assert_eq!(copy.status, 401);
    assert!(!world.app.saw_token(&token));
    sign_in(&browser, "ann").await;
    assert_eq!(world.ends_of("ann"), ["idle_timeout"]);
}

#[tokio::test]
async fn activity_keeps_a_session_and_its_lifetime_ends_it_all_the_same() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    for _ in 0..8 {
        world.pass(3599);
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
    world.pass(8);
    let page = browser.fetch("/me").await;
    assert_eq!(page.status, 401);
    assert_eq!(page.json()["reason"], "force_relogin");
}

#[tokio::test]
async fn a_script_gets_a_problem_document_that_names_the_reason() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.pass(3600);
    for mode in [Mode::Fetch, Mode::EventSource] {
        let page =
            browser.send(Ask::get(mode, "/me").with("cookie", &dead_cookie(&world).await)).await.unwrap();
        assert_eq!(page.status, 401);
        assert_eq!(page.header("content-type"), Some("application/problem+json"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert_eq!(
            page.json(),
            serde_json::json!({
                "type": "about:blank", "title": "Session ended", "status": 401, "reason": "idle_timeout", "login": "/login"
            })
        );
    }
    drop(browser);
}

/// The cookie of a session that ended by idleness an hour ago.
async fn dead_cookie(world: &World) -> String {
    let browser = world.signed_in("dora").await;
    let cookie = format!("SID={}", browser.cookie("SID").unwrap());
    world.pass(3600);
    cookie
}

#[tokio::test]
async fn a_websocket_handshake_of_an_ended_session_is_refused() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.pass(3600);
    let Err(page) = browser.websocket("/ws").await else { panic!("opened") };
    assert_eq!(page.status, 401);
}

#[tokio::test]
async fn the_limit_and_a_revocation_are_told_by_a_page() {
    let world = World::new().await;
    let first = world.signed_in("ann").await;
    world.pass(1);
    let second = world.signed_in("ann").await;
    world.pass(1);
    let third = world.signed_in("ann").await;
    let page = first.navigate("/page").await;
    assert_eq!(page.status, 401);
    assert!(page.text().contains("signed in on as many devices"), "{}", page.text());
    assert!(page.header("content-security-policy").is_some());
    assert_eq!(page.header("tenure-session"), Some("ended; reason=max_concurrent"));
    // Told once: the next navigation goes on to the app, which knows nobody.
    let next = first.navigate("/page").await;
    assert_eq!(next.chain.last().map(|hop| hop.status), Some(302), "the app's own redirect to its login");
    assert_eq!(world.live_of("ann").len(), 2);
    assert_eq!((who(&second).await.as_deref(), who(&third).await.as_deref()), (Some("ann"), Some("ann")));
    let bob = world.signed_in("bob").await;
    world.revoke("bob").await;
    let page = bob.navigate("/").await;
    assert!(page.text().contains("administrator"), "{}", page.text());
}

#[tokio::test]
async fn an_end_is_told_once_though_the_dead_cookie_comes_again() {
    let world = World::new().await;
    for reason in ["revoked", "idle_timeout"] {
        let browser = world.signed_in("ann").await;
        let cookie = format!("SID={}", browser.cookie("SID").unwrap());
        if reason == "revoked" {
            world.revoke("ann").await;
        } else {
            world.pass(3600);
        }
        let again = Ask::get(Mode::Navigate, "/page").with("cookie", &cookie).no_follow();
        let told = browser.send(again.clone()).await.unwrap();
        let end = format!("ended; reason={reason}");
        assert_eq!(told.header("tenure-session"), Some(end.as_str()));
        for _ in 0..2 {
            let page = browser.send(again.clone()).await.unwrap();
            let answer = (page.status, page.header("location"), page.header("tenure-session"));
            assert_eq!(answer, (302, Some("/login?next=/page"), None), "the app's own answer: {reason}");
            assert!(world.app.last_request().all("cookie").is_empty());
        }
    }
}

#[tokio::test]
async fn neither_a_poll_nor_a_prefetch_uses_up_the_page_that_says_why() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.revoke("ann").await;
    let prefetch = Ask::get(Mode::Navigate, "/page").with("sec-purpose", "prefetch");
    for _ in 0..2 {
        let poll = browser.fetch("/poll").await;
        assert_eq!((poll.status, poll.json()["reason"].as_str()), (401, Some("revoked")));
        assert_eq!(browser.send(prefetch.clone()).await.unwrap().status, 401);
        assert!(browser.websocket("/ws").await.is_err());
    }
    let page = browser.navigate("/page").await;
    assert_eq!(page.status, 401);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(browser.cookie("SID"), None, "told, and deleted");
    // A second tab may have kept the cookie; from now on nothing is left to be told.
    let copy = format!("SID={}", world.app.issued_tokens()[0]);
    let late = browser.fetch_with_cookie("/poll", &copy).await;
    assert!(late.header("set-cookie").is_some_and(|field| field.starts_with("SID=;")));
}

#[tokio::test]
async fn login_sign_in_and_public_paths_are_never_answered_by_an_end() {
    let world =
        World::with(|s| s.identity_headers = true, "public = [\"/static/**\"]", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    let cookie = format!("SID={token}");
    world.pass(3600);
    world.app.forget_requests();
    for path in ["/login", "/static/app.css"] {
        assert_eq!(browser.fetch_with_cookie(path, &cookie).await.status, 200, "{path}");
    }
    assert_eq!(post_login(&browser, "ann").await.status, 200);
    assert!(!world.app.saw_token(&token), "the dead token was stripped everywhere");
}

#[tokio::test]
async fn without_a_login_page_the_request_goes_on_without_its_cookie() {
    let text = |upstream: &str| {
        format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\nworkers = 1\n[store]\npath = \"off\"\n[[app]]\nname = \"app\"\nupstream = \"{upstream}\"\n\
             cookie = \"SID\"\n{BY_HEADER}\n{POLICY}"
        )
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    world.pass(3600);
    world.app.forget_requests();
    let page = browser.send(Ask::get(Mode::Navigate, "/page").no_follow()).await.unwrap();
    assert_eq!(
        (page.status, page.header("location")),
        (302, Some("/login?next=/page")),
        "the app's own answer"
    );
    assert!(!world.app.saw_token(&token));
    assert_eq!(browser.cookie("SID"), None);
}

#[tokio::test]
async fn a_post_is_sent_to_the_login_page_and_never_replayed() {
    let world = World::with(|s| s.identity_headers = true, "return_to = \"next\"", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    browser.navigate("/page?x=1").await;
    world.pass(3600);
    world.app.forget_requests();
    let ask = Ask::form("/page", &[("a", "b")]).no_follow();
    let page = browser.send(ask).await.unwrap();
    assert_eq!((page.status, page.header("location")), (303, Some("/login?next=/page%3Fx%3D1")));
    assert!(world.app.requests().is_empty(), "nothing reached the app");
}

#[tokio::test]
async fn a_post_of_which_nobody_knows_the_page_leads_back_to_the_front_page() {
    let world = World::with(|s| s.identity_headers = true, "return_to = \"next\"", BY_HEADER, POLICY).await;
    for referer in [None, Some("https://evil.example/page"), Some("no URL")] {
        let browser = world.signed_in("ann").await;
        world.pass(3600);
        let ask = Ask::form("/page?x=1", &[("a", "b")]).no_follow();
        let ask = match referer {
            Some(referer) => ask.with("referer", referer),
            None => ask,
        };
        // A tab of its own shows no page yet, and sends no `Referer` by itself.
        let page = browser.new_tab().send(ask).await.unwrap();
        let answer = (page.status, page.header("location"));
        assert_eq!(answer, (303, Some("/login?next=/")), "{referer:?}");
    }
}

#[tokio::test]
async fn the_way_back_is_kept_and_leads_nowhere_else() {
    let world = World::with(|s| s.identity_headers = true, "return_to = \"next\"", BY_HEADER, POLICY).await;
    for (target, location) in [
        ("/page?a=1&b=2", "/login?next=/page%3Fa%3D1%26b%3D2"),
        ("//evil.example/", "/login"),
        ("/%5cevil.example", "/login"),
        ("/%09/evil.example", "/login"),
        ("/page;jsessionid=ABC?SID=x", "/login?next=/page%3F"),
    ] {
        let browser = world.signed_in("ann").await;
        world.pass(3600);
        let cookie = format!("SID={}", browser.cookie("SID").unwrap());
        let raw = format!(
            "GET {target} HTTP/1.1\r\nHost: app.localhost\r\nCookie: {cookie}\r\nSec-Fetch-Mode: navigate\r\nConnection: close\r\n\r\n"
        );
        let answer = String::from_utf8(browser.raw(raw).await).unwrap();
        let found = answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
        assert!(
            found == location || found == location.trim_end_matches("%3F"),
            "{target}: {found}\n{answer}"
        );
    }
}

#[tokio::test]
async fn ends_of_anonymous_sessions_are_silent() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.anonymous_cookie = true;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.browser();
    browser.navigate("/login").await;
    let token = browser.cookie("SID").unwrap();
    world.pass(3600);
    let page = browser.fetch("/me").await;
    assert_eq!(page.status, 200, "no end is told to a stranger");
    assert_ne!(browser.cookie("SID").unwrap(), token, "the app gave a new cookie");
}

#[tokio::test]
async fn the_status_never_renews_and_a_touch_does() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let status = browser.fetch("/.tenure/status").await.json();
    assert_eq!((status["state"].as_str(), status["user"].as_str()), (Some("active"), Some("ann")));
    assert!(status["idle_expires_at"].as_str().unwrap().ends_with('Z'), "{status}");
    world.pass(3000);
    browser.fetch("/.tenure/status").await;
    let touch = browser.send(Ask::post(Mode::Fetch, "/.tenure/touch", "text/plain", "")).await.unwrap();
    assert_eq!(touch.status, 204);
    world.pass(3000);
    let status = browser.fetch("/.tenure/status").await.json();
    assert_eq!(status["state"], "active", "the touch renewed it");
    world.pass(600);
    assert_eq!(browser.fetch("/.tenure/status").await.json()["state"], "ended", "the status did not");
    assert!(world.app.requests().iter().all(|seen| !seen.target.contains(".tenure")), "never upstream");
    let touch = browser.send(Ask::post(Mode::Fetch, "/.tenure/touch", "text/plain", "")).await.unwrap();
    assert_eq!(touch.status, 401);
    let cross =
        Ask::post(Mode::Fetch, "/.tenure/touch", "text/plain", "").with("sec-fetch-site", "cross-site");
    assert_eq!(browser.send(cross).await.unwrap().status, 403);
}

#[tokio::test]
async fn the_status_is_found_below_the_path_of_the_cookie() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.attributes.path = "/page".into();
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.browser();
    post_login(&browser, "ann").await;
    world.app.forget_requests();
    let status = browser.fetch("/page/.tenure/status").await.json();
    assert_eq!((status["state"].as_str(), status["user"].as_str()), (Some("active"), Some("ann")));
    world.pass(3000);
    let touch = Ask::post(Mode::Fetch, "/page/.tenure/touch", "text/plain", "");
    assert_eq!(browser.send(touch).await.unwrap().status, 204);
    world.pass(3000);
    assert_eq!(world.live_of("ann").len(), 1, "touched");
    assert_eq!(browser.fetch("/.tenure/status").await.json()["state"], "none", "no cookie is sent there");
    assert!(world.app.requests().is_empty());
}

#[tokio::test]
async fn credentials_in_a_header_are_no_way_round_the_session() {
    let habits = |s: &mut Switches| s.identity_headers = true;
    let lines = "unidentified = \"refuse\"\npublic = [\"/static/**\"]";
    let world = World::with(habits, lines, BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    let ask = |path: &str, with: &str| Ask::get(Mode::Fetch, path).with("authorization", with);
    for credentials in ["Basic YW5uOng=", "bearer x.y.z", "BASIC x"] {
        let stranger = world.browser();
        world.app.forget_requests();
        let page = stranger.send(ask("/me", credentials)).await.unwrap();
        assert_eq!((page.status, page.header("www-authenticate")), (401, Some("Session")), "{credentials}");
        assert!(world.app.requests().is_empty());
        for path in ["/login", "/static/app.css"] {
            assert_eq!(stranger.send(ask(path, credentials)).await.unwrap().status, 200, "{path}");
        }
        let page = browser.send(ask("/me", credentials)).await.unwrap();
        assert_eq!(page.json()["user"], "ann", "with a session they pass");
        assert_eq!(world.app.last_request().header("authorization").as_deref(), Some(credentials));
    }
    let other = world.browser();
    assert_eq!(other.send(ask("/me", "Digest username=x")).await.unwrap().status, 200);
    let passing = World::new().await;
    assert_eq!(passing.browser().send(ask("/me", "Basic x")).await.unwrap().status, 200, "the default");
}

#[tokio::test]
async fn the_reserved_prefix_never_goes_upstream_in_any_spelling() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.app.forget_requests();
    for target in [
        "/.tenure/status",
        "/%2etenure/x",
        "/.TENURE/",
        "/a/../.tenure/x",
        "/app/.tenure/y",
        "/.tenure;a=b/z",
        "/a%2f.tenure%2fx",
    ] {
        let raw = format!("GET {target} HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n");
        browser.raw(raw).await;
    }
    assert!(world.app.requests().is_empty(), "{:?}", world.app.requests());
}

#[tokio::test]
async fn an_upload_of_an_ended_session_is_answered_and_not_reset() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.pass(3600);
    let body = vec![b'x'; 100_000];
    let page =
        browser.send(Ask::post(Mode::Fetch, "/upload", "application/octet-stream", body)).await.unwrap();
    assert_eq!(page.status, 401);
    assert_eq!(world.app.uploaded(), 0);
}
