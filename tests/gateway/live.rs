//! Live connections end with their session, and busy ones forward nothing after a revocation has returned.

use std::time::Duration;

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, config_text, who};
use crate::support::app::{PASSWORD, Profile};
use crate::support::browser::{Ask, Browser, Heard, Mode};
use crate::support::wait::{PATIENCE, eventually, soon};

#[tokio::test]
async fn a_websocket_is_closed_with_the_reason() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    assert!(socket.say("hello").await);
    assert!(matches!(socket.hear().await, Heard::Text(text) if text.contains("hello")));
    assert_eq!(world.only_session_of("ann").live_connections, 1);
    world.revoke("ann").await;
    let end = soon("the close", socket.hear_end()).await;
    assert_eq!(end, Heard::Closed { code: 4401, reason: "revoked".into() });
    eventually(PATIENCE, async || world.app.web_socket_ends().iter().any(|end| end.code == Some(1001))).await;
}

#[tokio::test]
async fn an_idle_websocket_ends_with_its_session_within_the_promised_second() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    // Server push is no activity.
    world.app.push("news");
    world.pass(3601);
    let end = soon("the close", socket.hear_end()).await;
    assert_eq!(end, Heard::Closed { code: 4401, reason: "idle_timeout".into() });
}

#[tokio::test]
async fn client_data_counts_as_activity_only_when_told_so() {
    for (line, alive) in [("", false), ("websocket_activity = true", true)] {
        let world = World::with(|s| s.identity_headers = true, line, BY_HEADER, POLICY).await;
        let browser = world.signed_in("ann").await;
        let mut socket = browser.websocket("/ws").await.expect("opens");
        world.pass(3000);
        assert!(socket.say("still here").await);
        assert!(matches!(socket.hear().await, Heard::Text(_)));
        world.pass(1000);
        assert_eq!(who(&browser).await.is_some(), alive, "{line}");
    }
}

#[tokio::test]
async fn pings_are_no_activity_even_where_client_data_is() {
    let lines = "websocket_activity = true";
    let world = World::with(|s| s.identity_headers = true, lines, BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    world.pass(3000);
    for _ in 0..3 {
        assert!(socket.ping().await, "answered by the app");
    }
    world.pass(601);
    assert!(matches!(soon("the close", socket.hear_end()).await, Heard::Closed { code: 4401, .. }));
    assert_eq!(world.ends_of("ann"), ["idle_timeout"]);
}

#[tokio::test]
async fn an_event_stream_and_a_download_end_with_their_session() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut events = browser.event_stream("/events").await;
    eventually(PATIENCE, async || world.app.push("one") > 0).await;
    assert!(soon("an event", events.next()).await.expect("flows").is_some());
    world.revoke("ann").await;
    let ended = soon("the end", async {
        loop {
            match events.next().await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break true,
            }
        }
    });
    assert!(ended.await);
    let again = browser.fetch("/events").await;
    assert_eq!(again.status, 401);
}

#[tokio::test]
async fn what_a_browser_waits_for_ends_when_it_goes_away() {
    let text = |upstream: &str| {
        let text = config_text(upstream, "max_upstream_connections = 1", BY_HEADER, POLICY);
        text.replace("workers = 2", "workers = 1")
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let cookie = world.signed_in("ann").await.cookie("SID").unwrap();
    // A stream on which nothing comes, and an answer that does not begin: each takes the only connection to the app.
    for (line, body) in [("GET /events", ""), ("GET /slow", ""), ("POST /slow", "all of it")] {
        let before = world.app.waiting();
        let mut socket = world.browser().raw_socket().await;
        let length = body.len();
        let fields = format!("Host: app.localhost\r\nCookie: SID={cookie}\r\nContent-Length: {length}\r\n");
        socket.write(format!("{line} HTTP/1.1\r\n{fields}\r\n{body}")).await.unwrap();
        // The app itself goes on waiting when nobody waits for it any more.
        eventually(PATIENCE, async || world.app.open_streams() + world.app.waiting() == before + 1).await;
        socket.finish().await.unwrap();
        soon("the end of the connection", socket.read_to_end()).await.unwrap();
        eventually(PATIENCE, async || world.app.open_streams() == 0).await;
    }
    assert_eq!(world.browser().fetch("/poll").await.status, 200, "the connection's place is free");
    assert_eq!(world.only_session_of("ann").live_connections, 0);
}

#[tokio::test]
async fn a_download_in_progress_is_cut_and_the_browser_sees_that_it_is() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut opened = browser.open(Ask::get(Mode::Fetch, "/download?bytes=1000000&hold=1000")).await.unwrap();
    assert!(opened.piece().await.unwrap().is_some());
    world.revoke("ann").await;
    let outcome = tokio::time::timeout(Duration::from_secs(8), async {
        loop {
            match opened.piece().await {
                Ok(Some(_)) => {}
                Ok(None) => break "whole",
                Err(_) => break "broken off",
            }
        }
    });
    assert_eq!(outcome.await.expect("within five seconds and a little"), "broken off");
}

#[tokio::test]
async fn no_request_on_any_of_32_busy_connections_is_forwarded_after_a_revocation() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let cookie = format!("SID={}", browser.cookie("SID").unwrap());
    let mut socket = browser.websocket("/ws").await.expect("opens");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (own, cookie) = (world.browser(), cookie.clone());
        tasks.spawn(async move {
            let mut answered = 0;
            loop {
                if own.fetch_with_cookie("/poll", &cookie).await.status != 200 {
                    return answered;
                }
                answered += 1;
            }
        });
    }
    eventually(PATIENCE, async || world.app.requests_to("/poll").len() > 500).await;
    world.revoke("ann").await;
    let forwarded = world.app.requests().len();
    let mut answered = 0;
    while let Some(task) = tasks.join_next().await {
        answered += task.unwrap();
    }
    // What was on the wire may still arrive; nothing new is sent.
    let after = world.app.requests().len();
    assert!(answered > 0);
    assert!(after <= forwarded + 32, "{} more", after - forwarded);
    assert!(matches!(soon("the close", socket.hear_end()).await, Heard::Closed { code: 4401, .. }));
    world.app.forget_requests();
    assert_eq!(world.browser().fetch_with_cookie("/poll", &cookie).await.status, 401);
    assert!(world.app.requests().is_empty());
}

#[tokio::test]
async fn a_request_that_waits_for_the_app_is_answered_by_the_end() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let tab = browser.new_tab();
    let slow = tokio::spawn(async move { tab.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    world.revoke("ann").await;
    let page = soon("the answer", slow).await.unwrap();
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")));
}

#[tokio::test]
async fn polling_and_prefetching_are_no_activity() {
    let lines = "inactive = [\"GET /poll\", \"header:X-Background\"]";
    let world = World::with(|s| s.identity_headers = true, lines, BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    for _ in 0..4 {
        world.pass(890);
        browser.fetch("/poll").await;
        browser.send(Ask::get(Mode::Fetch, "/me").with("x-background", "1")).await.unwrap();
        browser.send(Ask::get(Mode::Navigate, "/page").with("sec-purpose", "prefetch")).await.unwrap();
    }
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "3560 s idle");
    let browser = world.signed_in("bob").await;
    for _ in 0..4 {
        world.pass(900);
        browser.fetch("/poll").await;
    }
    assert_eq!(who(&browser).await, None, "3600 s idle, whatever was polled");
}

/// Sends pieces of an upload to `path`, each after a pause, and tells whether the session outlived all of them.
async fn uploads_through(world: &World, browser: &Browser, path: &str, pieces: &[(u64, usize)]) -> bool {
    let upload = browser.upload(path);
    let mut sent = world.app.uploaded();
    for (pause, bytes) in pieces {
        world.pass(*pause);
        if upload.body.send(vec![b'x'; *bytes].into()).await.is_err() {
            return false;
        }
        sent += *bytes as u64;
        eventually(PATIENCE, async || world.app.uploaded() == sent || world.live_of("ann").is_empty()).await;
    }
    !world.live_of("ann").is_empty()
}

#[tokio::test]
async fn a_steady_upload_holds_the_idle_clock_for_one_further_timeout() {
    // Idle after 3600 s. After a pause the rate is taken anew, so the idle clock is renewed at 3002 s.
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let pieces = [(0, 10), (3000, 10), (2, 100_000), (2998, 10), (2, 100_000)];
    assert!(uploads_through(&world, &browser, "/upload", &pieces).await);
    // What came at 6002 s was too late to hold it.
    world.pass(601);
    eventually(PATIENCE, async || world.ends_of("ann") == ["idle_timeout"]).await;
}

#[tokio::test]
async fn a_trickle_or_an_upload_that_is_no_activity_holds_nothing() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    assert!(!uploads_through(&world, &browser, "/upload", &[(0, 10), (3000, 10), (601, 10)]).await);
    for line in ["inactive = [\"/upload\"]", "public = [\"/upload\"]"] {
        let world = World::with(|s| s.identity_headers = true, line, BY_HEADER, POLICY).await;
        let browser = world.signed_in("ann").await;
        let pieces = [(0, 10), (3000, 10), (2, 100_000), (601, 10)];
        assert!(!uploads_through(&world, &browser, "/upload", &pieces).await, "{line}");
    }
}

#[tokio::test]
async fn a_stream_by_which_a_session_was_adopted_ends_with_it() {
    let world = World::with(|_| {}, "enforce = false", BY_HEADER, POLICY).await;
    world.app.hand_out("a-value-from-before-the-roll-out");
    let direct = Browser::at(world.app.addr());
    direct.post_form("/login", &[("username", "ann"), ("password", PASSWORD)]).await;
    let cookie = format!("SID={}", direct.cookie("SID").unwrap());
    let ask = Ask::get(Mode::WebSocket, "/ws").with("cookie", &cookie);
    let mut socket = world.browser().websocket_with(ask).await.expect("opens");
    let adopted = world.sessions(tenure::store::StateFilter::Active);
    assert_eq!((adopted.len(), adopted[0].live_connections), (1, 1));
    let session = world.gateway.table().by_id(adopted[0].id).unwrap();
    let reason = tenure::session::EndReason::Revoked;
    assert!(world.gateway.table().end(&session, reason, None, world.clock.now()));
    assert!(matches!(soon("the close", socket.hear_end()).await, Heard::Closed { code: 4401, .. }));
}

#[tokio::test]
async fn a_sign_in_goes_on_though_its_old_session_ends_meanwhile() {
    let world = World::with(|s| s.profile = Profile::RotateLogin, "", BY_FORM, POLICY).await;
    let browser = world.signed_in("ann").await;
    let old = browser.cookie("SID").unwrap();
    let fields = [("username", "ann"), ("password", PASSWORD)];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut socket = browser.raw_socket().await;
    let head = format!(
        "POST /login HTTP/1.1\r\nHost: app.localhost\r\nCookie: theme=dark; SID={old}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let before = world.only_session_of("ann").requests;
    socket.write(head).await.unwrap();
    eventually(PATIENCE, async || world.only_session_of("ann").requests > before).await;
    world.revoke("ann").await;
    world.app.forget_requests();
    socket.write(body).await.unwrap();
    let answer = socket.answer(false).await.unwrap();
    assert_eq!(answer.status, 302, "signed in, not told of an end");
    assert!(!world.app.saw_token(&old), "and without the dead token");
    assert_eq!(world.app.last_request().header("cookie").as_deref(), Some("theme=dark"));
    assert_eq!(world.live_of("ann").len(), 1);
}
