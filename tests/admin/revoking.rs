//! Revocations: what a filter means, and that they are in force when the call returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::api::{OPS, World, revoked};
use crate::support::browser::{Ask, Browser, Heard, Mode};
use crate::support::wait::{PATIENCE, eventually, soon};

#[tokio::test]
async fn deleting_ends_a_session_once_and_tells_who_did_it() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let route = format!("/v1/sessions/{}", world.id_of("ann").await);
    world.pass(10);
    let ended = world.delete(OPS, &route).await;
    assert_eq!(ended.status, 200);
    let told = ended.json();
    assert_eq!(
        (&told["state"], &told["end_reason"], &told["ended_by"]),
        (&json!("ended"), &json!("revoked"), &json!("ops"))
    );
    assert_eq!(browser.fetch("/me").await.json()["reason"], json!("revoked"));
    world.pass(10);
    let again = world.delete(OPS, &route).await;
    assert_eq!((again.status, again.json()), (200, told), "ending it again changes nothing");
}

#[tokio::test]
async fn a_filter_ends_what_fits_but_for_what_is_spared() {
    let world = World::new().await;
    for user in ["ann", "ann", "ann", "bob"] {
        world.signed_in(user).await;
    }
    let list = world.get("/v1/sessions?user=ann").await;
    let spared = list["items"][1]["id"].clone();
    let body = json!({ "user": "ANN", "except": [spared], "dry_run": true });
    assert_eq!(world.revoke(OPS, body).await.json(), revoked(2, 0));
    assert_eq!(world.users_of(OPS, "/v1/sessions?state=active").await, ["ann", "ann", "ann", "bob"]);
    let body = json!({ "user": "ANN", "except": [spared] });
    assert_eq!(world.revoke(OPS, body.clone()).await.json(), revoked(2, 2));
    assert_eq!(world.revoke(OPS, body).await.json(), revoked(0, 0));
    assert_eq!(world.id_of("ann").await, spared.as_str().unwrap());
    assert_eq!(world.revoke(OPS, json!({ "id": spared })).await.json(), revoked(1, 1));
    assert_eq!(world.revoke(OPS, json!({ "everyone": true })).await.json(), revoked(1, 1));
}

#[tokio::test]
async fn a_users_sessions_end_in_the_named_tenant_and_app() {
    let world = World::new().await;
    for user in ["ann", "ann@acme.example"] {
        world.signed_in(user).await;
    }
    for (route, expected) in [
        ("/v1/users/ann/sessions?tenant=acme", revoked(0, 0)),
        ("/v1/users/ann@acme.example/sessions?app=another", revoked(0, 0)),
        ("/v1/users/Ann%40ACME.example/sessions?tenant=acme&app=app", revoked(1, 1)),
        ("/v1/users/ann/sessions", revoked(1, 1)),
    ] {
        assert_eq!(world.delete(OPS, route).await.json(), expected, "{route}");
    }
    assert_eq!(world.delete(OPS, "/v1/users/ann/sessions?usr=1").await.status, 400);
    assert_eq!(world.delete(OPS, "/v1/users/%20/sessions").await.status, 400);
}

#[tokio::test]
async fn what_might_end_too_much_is_refused() {
    let world = World::new().await;
    world.signed_in("ann").await;
    for (body, words) in [
        (json!({}), "everyone"),
        (json!({ "everyone": false }), "everyone"),
        (json!({ "except": [] }), "everyone"),
        (json!({ "dry_run": true }), "everyone"),
        (json!({ "usr": "ann" }), "usr"),
        (json!({ "user": "" }), "empty"),
        (json!({ "user": 7 }), "string"),
        (json!({ "user": ["ann"] }), "string"),
        (json!({ "id": "none" }), "id"),
        (json!({ "user": "ann", "except": ["none"] }), "id"),
        (json!({ "ip": "here" }), "no IP address"),
        (json!({ "state": "alive" }), "active, pending or ended"),
        (json!([]), "a JSON object"),
        (json!([null, null, null, null, null, null, [], false, true]), "a JSON object"),
        (json!("everyone"), "a JSON object"),
    ] {
        let page = world.revoke(OPS, body.clone()).await;
        assert_eq!(page.status, 400, "{body}: {}", page.text());
        assert!(page.text().contains(words), "{body}: {}", page.text());
    }
    let post = |kind: &str, body: String| {
        let ask = Ask::post(Mode::Fetch, "/v1/sessions/revoke", kind, body);
        world.send(ask.with("authorization", &format!("Bearer {OPS}")))
    };
    assert_eq!(post("application/json", "{".into()).await.status, 400, "cut off");
    assert_eq!(post("text/plain", r#"{"everyone":true}"#.into()).await.status, 415);
    let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(post("application/json", long).await.status, 413);
    assert_eq!(world.users_of(OPS, "/v1/sessions?state=active").await, ["ann"], "nothing happened");
}

/// Asks without pause until refused; how often it was answered. Each request says whether it began after the revocation
/// had returned.
async fn ask_until_refused(browser: Browser, cookie: String, returned: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    loop {
        let after = if returned.load(Ordering::SeqCst) { "yes" } else { "no" };
        let ask = Ask::get(Mode::Fetch, "/poll").with("cookie", &cookie).with("x-after", after);
        if browser.send(ask).await.unwrap().status != 200 {
            return answered;
        }
        answered += 1;
    }
}

#[tokio::test]
async fn when_delete_returns_32_busy_connections_forward_nothing_and_streams_are_closed() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let cookie = format!("SID={}", browser.cookie("SID").unwrap());
    let id = world.id_of("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    let mut events = browser.event_stream("/events").await;
    eventually(PATIENCE, async || world.app.push("one") > 0).await;
    assert!(soon("an event", events.next()).await.expect("flows").is_some());
    let mut tasks = tokio::task::JoinSet::new();
    let returned = Arc::new(AtomicBool::new(false));
    for _ in 0..32 {
        let own = Browser::at(world.gateway.http.unwrap());
        tasks.spawn(ask_until_refused(own, cookie.clone(), Arc::clone(&returned)));
    }
    eventually(PATIENCE, async || world.app.requests_to("/poll").len() > 500).await;
    assert_eq!(world.delete(OPS, &format!("/v1/sessions/{id}")).await.status, 200);
    returned.store(true, Ordering::SeqCst);
    let ends = async {
        let end = socket.hear_end().await;
        assert_eq!(end, Heard::Closed { code: 4401, reason: "revoked".into() });
        while let Ok(Some(_)) = events.next().await {}
    };
    tokio::time::timeout(Duration::from_millis(500), ends).await.expect("both have ended by then");
    let answered: usize = tasks.join_all().await.into_iter().sum();
    assert!(answered > 400);
    let late = |seen: &crate::support::app::Seen| seen.header("x-after").as_deref() == Some("yes");
    assert!(!world.app.requests_to("/poll").iter().any(late), "nothing that began after it was forwarded");
    world.app.forget_requests();
    assert_eq!(
        Browser::at(world.gateway.http.unwrap()).fetch_with_cookie("/poll", &cookie).await.status,
        401
    );
    assert!(world.app.requests().is_empty(), "nothing is forwarded any more");
}

#[tokio::test]
async fn no_answer_and_no_log_line_holds_a_token() {
    let logs = crate::support::logs::LogBuffer::global();
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.signed_in("bob").await;
    let route = format!("/v1/sessions/{}", world.id_of("ann").await);
    let mut texts = Vec::new();
    for (method, reference) in [
        (Method::GET, "/v1/sessions"),
        (Method::GET, route.as_str()),
        (Method::DELETE, route.as_str()),
        (Method::GET, "/v1/users"),
        (Method::GET, "/v1/policy"),
        (Method::GET, "/v1/policy/effective?user=ann"),
        (Method::GET, "/metrics"),
        (Method::GET, "/v1/openapi.json"),
        (Method::DELETE, "/v1/users/bob/sessions"),
    ] {
        let page = world.call(OPS, method, reference, None).await;
        assert_eq!(page.status, 200, "{reference}");
        texts.push(page.text());
    }
    // A caller's slip: the app's token where an id belongs, an operator's token in a query.
    let token = browser.cookie("SID").unwrap();
    texts.push(world.call(OPS, Method::GET, &format!("/v1/sessions/{token}"), None).await.text());
    texts.push(
        world.call("wrong", Method::GET, &format!("/v1/sessions?access_token={OPS}"), None).await.text(),
    );
    eventually(PATIENCE, async || logs.contains("admin_refused")).await;
    texts.push(logs.text());
    let mut secrets = world.app.issued_tokens();
    assert!(secrets.len() >= 2);
    secrets.push(OPS.into());
    crate::support::search::TokenSearch::new(secrets).assert_none(texts.iter().map(|text| ("a text", text)));
}

#[tokio::test]
async fn in_an_app_that_keeps_the_case_only_the_one_who_is_named_is_ended() {
    let world = World::from_text(|text| text.replace("logout =", "user_case = \"exact\"\nlogout =")).await;
    for user in ["Ann", "ann"] {
        world.signed_in(user).await;
    }
    assert_eq!(world.users_of(OPS, "/v1/sessions?user=Ann").await, ["Ann"]);
    assert_eq!(world.delete(OPS, "/v1/users/Ann/sessions").await.json(), revoked(1, 1));
    assert_eq!(world.users_of(OPS, "/v1/sessions?state=active").await, ["ann"]);
}
