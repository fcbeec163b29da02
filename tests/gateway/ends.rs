//! An end reaches what is under way: requests that wait, uploads, answers that flow, sockets at their deadline.

use tenure::session::Span;

use crate::setup::{BY_HEADER, POLICY, World, config_text};
use crate::support::browser::{Ask, Heard, Mode};
use crate::support::wait::{PATIENCE, eventually, soon};

#[tokio::test]
async fn a_request_that_waits_for_a_connection_is_not_forwarded_after_the_end() {
    let text = |upstream: &str| {
        let text = config_text(upstream, "max_upstream_connections = 1", BY_HEADER, POLICY);
        text.replace("workers = 2", "workers = 1")
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let (ann, bob) = (world.signed_in("ann").await, world.signed_in("bob").await);
    let holding = tokio::spawn(async move { bob.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    let before = world.only_session_of("ann").requests;
    world.app.forget_requests();
    let waiting = tokio::spawn(async move { ann.fetch("/me").await });
    eventually(PATIENCE, async || world.only_session_of("ann").requests > before).await;
    world.revoke("ann").await;
    world.app.release(1);
    let page = soon("the answer", waiting).await.unwrap();
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")));
    assert_eq!(holding.await.unwrap().status, 200);
    assert!(world.app.requests_to("/me").is_empty(), "never forwarded");
}

#[tokio::test]
async fn an_answer_that_flows_may_finish_within_its_last_seconds() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let ask = Ask::get(Mode::Fetch, "/download?bytes=100000&hold=1000");
    let mut opened = browser.open(ask).await.unwrap();
    let mut came = opened.piece().await.unwrap().expect("the beginning").len();
    world.revoke("ann").await;
    world.app.release(1);
    let rest = async {
        while let Some(piece) = opened.piece().await.expect("it is not broken off") {
            came += piece.len();
        }
    };
    soon("the rest", rest).await;
    assert_eq!(came, 100_000);
}

#[tokio::test]
async fn a_socket_lives_until_its_deadline_and_not_a_second_longer() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    world.clock.advance(Span::from_ms(3_600_000 - 1));
    assert!(socket.say("still here").await);
    assert!(matches!(socket.hear().await, Heard::Text(_)), "a millisecond before");
    let mut late = 0;
    let ended = tokio::spawn(async move { socket.hear_end().await });
    while !ended.is_finished() && late <= 1000 {
        world.clock.advance(Span::from_ms(250));
        late += 250;
        // The sweeper's turn, and the worker's.
        let _ = crate::support::wait::comes_true(std::time::Duration::from_millis(300), async || {
            ended.is_finished()
        })
        .await;
    }
    assert!(late <= 1000, "{late} ms too late");
    let end = soon("the close", ended).await.unwrap();
    assert_eq!(end, Heard::Closed { code: 4401, reason: "idle_timeout".into() });
}

#[tokio::test]
async fn an_upload_that_goes_on_after_its_answer_ends_with_its_session() {
    let rest = format!("{POLICY}\n[limits]\nupstream_idle = \"1s\"");
    let world = World::with(|s| s.identity_headers = true, "", BY_HEADER, &rest).await;
    let browser = world.signed_in("ann").await;
    let upload = browser.upload("/upload?early=");
    upload.body.send(vec![b'x'; 1000].into()).await.unwrap();
    assert_eq!(soon("the early answer", upload.answer).await.unwrap().unwrap().status, 200);
    upload.body.send(vec![b'x'; 1000].into()).await.unwrap();
    eventually(PATIENCE, async || world.app.uploaded() == 2000).await;
    // What the sign-in came on is not kept for long.
    eventually(PATIENCE, async || world.app.open_connections() == 1).await;
    world.revoke("ann").await;
    // Sooner than any time-out would end it.
    let broken_off = async || world.app.open_connections() == 0;
    assert!(crate::support::wait::comes_true(std::time::Duration::from_secs(3), broken_off).await);
    let _ = upload.body.send(vec![b'x'; 1000].into()).await;
    assert_eq!(world.app.uploaded(), 2000);
}

#[tokio::test]
async fn an_upload_that_stands_still_after_its_answer_gives_up_its_place() {
    let text = |upstream: &str| {
        let rest = format!("{POLICY}\n[limits]\nfirst_byte_timeout = \"1s\"");
        let text = config_text(upstream, "max_upstream_connections = 1", BY_HEADER, &rest);
        text.replace("workers = 2", "workers = 1")
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let browser = world.browser();
    let upload = browser.upload("/upload?early=");
    upload.body.send(vec![b'x'; 1000].into()).await.unwrap();
    assert_eq!(soon("the early answer", upload.answer).await.unwrap().unwrap().status, 200);
    assert_eq!(world.browser().fetch("/poll").await.status, 200, "its place among the connections is free");
    assert_eq!(world.app.uploaded(), 1000);
    drop(upload.body);
}

#[tokio::test]
async fn an_upload_under_way_is_answered_by_the_end_and_grows_no_more() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let upload = browser.upload("/upload");
    upload.body.send(vec![b'x'; 1000].into()).await.unwrap();
    eventually(PATIENCE, async || world.app.uploaded() == 1000).await;
    // The connection of the sign-in may still be kept beside that of the upload.
    let open = world.app.open_connections();
    world.revoke("ann").await;
    let page = soon("the answer", upload.answer).await.unwrap().unwrap();
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")));
    let _ = upload.body.send(vec![b'x'; 1000].into()).await;
    eventually(PATIENCE, async || world.app.open_connections() < open).await;
    assert_eq!(world.app.uploaded(), 1000);
}
