//! Public paths, observing, and cookies from before the gateway (R14, R16, R17).

use tenure::session::EndReason;
use tenure::store::StateFilter;

use crate::setup::{BY_HEADER, POLICY, World, config_text, post_login};
use crate::support::app::Switches;
use crate::support::browser::{Ask, Browser, Heard, Mode};
use crate::support::wait::{PATIENCE, eventually, soon};

const PUBLIC: &str = "public = [\"/static/**\", \"/poll\", \"/ws\", \"/events\"]";

async fn with_public(habits: impl FnOnce(&mut Switches)) -> World {
    World::with(habits, PUBLIC, BY_HEADER, POLICY).await
}

#[tokio::test]
async fn a_public_path_teaches_who_signed_in_and_who_signed_out() {
    let world = with_public(|_| {}).await;
    let browser = world.browser();
    post_login(&browser, "ann").await;
    assert!(world.live_of("ann").is_empty(), "the app has not said who it is");
    world.app.set(|s| s.identity_headers = true);
    assert_eq!(browser.fetch("/poll").await.status, 200);
    assert_eq!(world.live_of("ann").len(), 1);
    world.app.set(|s| s.extra_headers = vec![("Set-Cookie".into(), "SID=; Path=/; Max-Age=0".into())]);
    assert_eq!(browser.fetch("/poll").await.status, 200);
    assert_eq!(world.ends_of("ann"), ["logout"]);
}

#[tokio::test]
async fn a_cookie_that_a_public_path_sets_is_kept_as_an_anonymous_one() {
    let world = with_public(|s| s.anonymous_cookie = true).await;
    let browser = world.browser();
    browser.fetch("/static/app.css").await;
    let token = browser.cookie("SID").expect("a cookie");
    let live = world.sessions(StateFilter::Active);
    assert_eq!((live.len(), live[0].identity.is_none()), (1, true));
    world.app.forget_requests();
    browser.fetch("/me").await;
    assert!(world.app.saw_token(&token), "a token of a live session");
    assert_eq!(browser.cookie("SID"), Some(token));
    assert_eq!(world.sessions(StateFilter::Active).len(), 1);
}

#[tokio::test]
async fn a_stream_that_was_opened_on_a_public_path_ends_with_its_session() {
    let world = with_public(|s| s.identity_headers = true).await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    let mut events = browser.event_stream("/events").await;
    eventually(PATIENCE, async || world.app.push("one") == 2).await;
    assert!(matches!(soon("a word", socket.hear()).await, Heard::Text(_)));
    world.revoke("ann").await;
    assert!(matches!(soon("the close", socket.hear_end()).await, Heard::Closed { code: 4401, .. }));
    let ended = async { while let Ok(Some(_)) = events.next().await {} };
    soon("the end of the events", ended).await;
}

#[tokio::test]
async fn public_requests_alone_let_a_session_go_idle() {
    let world = with_public(|s| s.identity_headers = true).await;
    let browser = world.signed_in("ann").await;
    for _ in 0..3 {
        world.pass(1000);
        assert_eq!(browser.fetch("/poll").await.status, 200);
    }
    assert_eq!(world.live_of("ann").len(), 1);
    world.pass(600);
    assert_eq!(browser.fetch("/poll").await.status, 200, "never answered by an end");
    assert_eq!(browser.fetch("/me").await.json()["reason"], "idle_timeout");
}

/// A gateway that only observes, before an app that was there before it.
async fn observing(habits: impl FnOnce(&mut Switches)) -> World {
    World::with(habits, "enforce = false", BY_HEADER, POLICY).await
}

/// Signs `user` in at the app itself, past the gateway; returns the `Cookie` field.
async fn signed_in_before(world: &World, user: &str) -> String {
    let direct = Browser::at(world.app.addr());
    post_login(&direct, user).await;
    format!("SID={}", direct.cookie("SID").unwrap())
}

#[tokio::test]
async fn a_log_out_acts_while_observing() {
    let world = observing(|s| s.identity_headers = true).await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    browser.navigate("/logout").await;
    assert_eq!(world.ends_of("ann"), ["logout"]);
    world.app.forget_requests();
    browser.fetch_with_cookie("/me", &format!("SID={token}")).await;
    assert!(!world.app.saw_token(&token), "dead all the same");
}

#[tokio::test]
async fn identity_headers_are_stripped_while_observing() {
    let world = observing(|s| s.identity_headers = true).await;
    let browser = world.browser();
    let page = post_login(&browser, "ann").await;
    for hop in page.chain.iter().map(|hop| &hop.headers).chain([&page.headers]) {
        assert!(hop.keys().all(|name| !name.as_str().starts_with("x-session")), "{hop:?}");
    }
    let forged = "GET /me HTTP/1.1\r\nHost: app.localhost\r\nX-Session-User: root\r\nX_Session_User: root\r\n\
                  Connection: close\r\n\r\n";
    browser.raw(forged).await;
    let seen = world.app.last_request();
    assert!(seen.all("x-session-user").is_empty() && seen.all("x_session_user").is_empty());
}

#[tokio::test]
async fn unseen_cookies_are_counted_while_observing() {
    let world = observing(|s| s.identity_headers = true).await;
    let cookie = signed_in_before(&world, "old").await;
    assert_eq!(world.count("tenure_unseen_total"), 0);
    let browser = world.browser();
    for _ in 0..3 {
        browser.fetch_with_cookie("/me", &cookie).await;
    }
    assert_eq!(world.count("tenure_unseen_total"), 1, "adopted by the first answer, and known from then on");
}

#[tokio::test]
async fn of_duplicates_of_an_unseen_cookie_one_is_forwarded_and_adopted() {
    let world = observing(|s| s.identity_headers = true).await;
    let (first, second) = (signed_in_before(&world, "old").await, signed_in_before(&world, "eve").await);
    world.app.forget_requests();
    let page = world.browser().fetch_with_cookie("/me", &format!("{first}; theme=dark; {second}")).await;
    assert_eq!(page.json()["user"], "old");
    let forwarded = world.app.last_request().header("cookie");
    assert_eq!(forwarded.as_deref(), Some(format!("{first}; theme=dark").as_str()));
    assert_eq!((world.live_of("old").len(), world.live_of("eve").len()), (1, 0));
}

#[tokio::test]
async fn a_value_that_the_app_replaced_is_not_adopted() {
    let world = observing(|s| s.anonymous_cookie = true).await;
    let browser = world.browser();
    browser.fetch_with_cookie("/me", "SID=made-up-by-somebody").await;
    assert!(world.app.saw_token("made-up-by-somebody"), "the app was asked");
    let live = world.sessions(StateFilter::Active);
    assert_eq!((live.len(), live[0].requests), (1, 0), "the session of the value that the app set");
    browser.fetch_with_cookie("/me", "SID=made-up-by-somebody").await;
    assert_eq!(world.count("tenure_unseen_total"), 2, "as unknown as before");
}

#[tokio::test]
async fn an_adopted_value_stays_dead_once_it_was_revoked() {
    let world = observing(|s| s.identity_headers = true).await;
    let cookie = signed_in_before(&world, "old").await;
    let browser = world.browser();
    assert_eq!(browser.fetch_with_cookie("/me", &cookie).await.json()["user"], "old");
    world.revoke("old").await;
    world.app.forget_requests();
    for _ in 0..3 {
        let page = browser.fetch_with_cookie("/me", &cookie).await;
        assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some(EndReason::Revoked.as_str())));
        world.pass(100_000);
    }
    assert!(world.app.requests().is_empty());
    assert!(world.live_of("old").is_empty());
}

#[tokio::test]
async fn a_request_that_waits_does_not_go_on_with_a_value_that_was_adopted_and_revoked_meanwhile() {
    let text = |upstream: &str| {
        let lines = "enforce = false\nmax_upstream_connections = 1";
        config_text(upstream, lines, BY_HEADER, POLICY).replace("workers = 2", "workers = 1")
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let cookie = signed_in_before(&world, "old").await;
    let bob = world.signed_in("bob").await;
    let holding = tokio::spawn(async move { bob.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    let before = world.count("tenure_unseen_total");
    let browser = world.browser();
    let ask = Ask::get(Mode::Fetch, "/events").with("cookie", &cookie);
    let streaming = tokio::spawn(async move { browser.open(ask).await });
    eventually(PATIENCE, async || world.count("tenure_unseen_total") == before + 1).await;
    let browser = world.browser();
    let waiting = tokio::spawn(async move { browser.fetch_with_cookie("/me", &cookie).await });
    eventually(PATIENCE, async || world.count("tenure_unseen_total") == before + 2).await;
    world.app.release(1);
    assert_eq!(holding.await.unwrap().status, 200);
    let _stream = soon("the stream", streaming).await.unwrap().unwrap();
    world.app.forget_requests();
    // It ends the stream, which makes way for who waits.
    world.revoke("old").await;
    let page = soon("the answer", waiting).await.unwrap();
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some(EndReason::Revoked.as_str())));
    assert!(world.app.requests_to("/me").is_empty(), "never forwarded");
}
