//! Lists: filters, order, pages, and pages while the table changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::api::{OPS, START, World, names};
use crate::support::browser::Browser;

#[tokio::test]
async fn a_session_is_told_whole() {
    let world = World::with(&[], "[roles.user]\nlearned = true").await;
    let browser = world.signed_in("ann@acme.example").await;
    world.pass(60);
    browser.fetch("/me").await;
    let _socket = browser.websocket("/ws").await.expect("opens");
    let id = world.id_of("ann@acme.example").await;
    let session = world.get(&format!("/v1/sessions/{id}")).await;
    let at = |seconds: u64| json!(START.plus(tenure::session::Span::from_secs(seconds)).to_rfc3339());
    for (member, expected) in [
        ("id", json!(id)),
        ("app", json!("app")),
        ("tenant", json!("acme")),
        ("user", json!("ann@acme.example")),
        ("roles", json!(["user"])),
        ("state", json!("active")),
        ("created_at", at(0)),
        ("signed_in_at", at(0)),
        ("last_active_at", at(60)),
        ("idle_expires_at", at(3660)),
        ("lifetime_expires_at", at(8 * 3600)),
        ("ended_at", Value::Null),
        ("end_reason", Value::Null),
        ("ended_by", Value::Null),
        ("ip", json!("127.0.0.1")),
        ("location", Value::Null),
        ("live_connections", json!(1)),
    ] {
        assert_eq!(session[member], expected, "{member}");
    }
    assert!(session["device"].is_object() && session["user_agent"].is_string());
    assert!(session["requests"].as_u64().unwrap() >= 2);
}

#[tokio::test]
async fn filters_are_conjunctive_and_names_are_normalised() {
    let world = World::new().await;
    for user in ["ann@acme.example", "bob@acme.example", "eve@other.example"] {
        world.signed_in(user).await;
        world.pass(1);
    }
    world.delete(OPS, "/v1/users/bob@acme.example/sessions").await;
    for (query, expected) in [
        ("", vec!["ann@acme.example", "bob@acme.example", "eve@other.example"]),
        ("?state=active", vec!["ann@acme.example", "eve@other.example"]),
        ("?state=ended", vec!["bob@acme.example"]),
        ("?state=pending", vec![]),
        ("?reason=revoked", vec!["bob@acme.example"]),
        ("?reason=idle_timeout", vec![]),
        ("?tenant=acme", vec!["ann@acme.example", "bob@acme.example"]),
        ("?tenant=acme&state=active", vec!["ann@acme.example"]),
        ("?tenant=ACME&user=%20Ann@Acme.Example%20", vec!["ann@acme.example"]),
        ("?app=app&user=eve@other.example", vec!["eve@other.example"]),
        ("?app=another", vec![]),
        ("?ip=127.0.0.1&tenant=other", vec!["eve@other.example"]),
        ("?ip=::ffff:127.0.0.1&tenant=other", vec!["eve@other.example"]),
        ("?ip=10.0.0.1", vec![]),
    ] {
        assert_eq!(names(&world.get(&format!("/v1/sessions{query}")).await), expected, "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_a_400_that_says_so() {
    let world = World::new().await;
    for (reference, words) in [
        ("/v1/sessions?usr=ann", "usr"),
        ("/v1/sessions?user=", "empty"),
        ("/v1/sessions?ip=localhost", "no IP address"),
        ("/v1/sessions?state=alive", "active, pending or ended"),
        ("/v1/sessions?reason=boredom", "idle_timeout"),
        ("/v1/sessions?limit=0", "1 to 1000"),
        ("/v1/sessions?limit=1001", "1 to 1000"),
        ("/v1/sessions?limit=-1", "limit"),
        ("/v1/sessions?limit=many", "limit"),
        ("/v1/sessions?cursor=nonsense", "no cursor"),
        ("/v1/sessions?cursor=AAAA", "no cursor"),
        ("/v1/sessions?user=a&user=b", "user"),
        ("/v1/users?cursor=eA", "no cursor"),
        ("/v1/users?limit=0", "1 to 1000"),
        ("/v1/users?name=ann", "name"),
    ] {
        let (status, detail) = world.refused(reference).await;
        assert_eq!(status, 400, "{reference}");
        assert!(detail.contains(words), "{reference}: {detail}");
    }
    for unknown in ["/v1/sessions/0", "/v1/sessions/no-id", "/v1/sessions/%00", "/v1/sessions/%ff"] {
        assert_eq!(world.refused(unknown).await.0, 404, "{unknown}");
    }
}

#[tokio::test]
async fn users_are_listed_once_with_their_live_sessions() {
    let world = World::new().await;
    for user in ["bob", "ann", "ann", "anton"] {
        world.signed_in(user).await;
    }
    world.delete(OPS, "/v1/users/bob/sessions").await;
    let list = world.get("/v1/users").await;
    assert_eq!(names(&list), ["ann", "anton"]);
    assert_eq!((&list["items"][0]["sessions"], &list["items"][0]["apps"]), (&json!(2), &json!(["app"])));
    assert_eq!(names(&world.get("/v1/users?q=TON").await), ["anton"]);
    assert_eq!(names(&world.get("/v1/users?tenant=Default").await), ["ann", "anton"]);
    let first = world.get("/v1/users?limit=1").await;
    assert_eq!(names(&first), ["ann"]);
    let second = world.get(&format!("/v1/users?limit=1&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((names(&second), &second["next"]), (vec!["anton".to_owned()], &Value::Null));
}

/// All pages of a list, `limit` at a time, with `between` after each of them.
async fn pages(world: &World, limit: usize, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/sessions?limit={limit}{cursor}")).await;
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= limit);
        assert!(items.len() < 10_000, "pages without end");
        items.extend(found.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
        between().await;
    }
}

#[tokio::test]
async fn pages_are_complete_and_ordered_by_beginning() {
    let world = World::new().await;
    for n in 0..7 {
        world.signed_in(&format!("user{n}")).await;
        // Some begin in the same millisecond.
        world.pass(n % 2);
    }
    for limit in [1, 2, 3, 6, 7, 8] {
        let items = pages(&world, limit, async || {}).await;
        let times: Vec<&str> = items.iter().map(|item| item["created_at"].as_str().unwrap()).collect();
        let ids: BTreeSet<&str> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!((items.len(), ids.len()), (7, 7), "limit {limit}");
    }
}

#[tokio::test]
async fn paging_while_sessions_come_and_go_shows_each_that_stays_exactly_once() {
    let world = World::new().await;
    let mut staying = BTreeSet::new();
    for n in 0..12 {
        world.signed_in(&format!("stays{n}")).await;
        staying.insert(world.id_of(&format!("stays{n}")).await);
        world.signed_in(&format!("goes{n}")).await;
    }
    let mut round = 0;
    let items = pages(&world, 3, async || {
        // One that was shown or is yet to come goes, and two begin.
        world.delete(OPS, &format!("/v1/users/goes{}/sessions", (round * 5) % 12)).await;
        world.signed_in(&format!("early{round}")).await;
        world.pass(round % 2);
        world.signed_in(&format!("late{round}")).await;
        round += 1;
        assert!(round < 100, "paging ends");
    })
    .await;
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &items {
        *shown.entry(item["id"].as_str().unwrap()).or_default() += 1;
    }
    assert!(shown.values().all(|times| *times == 1), "each once");
    assert!(staying.iter().all(|id| shown.contains_key(id.as_str())), "and none is missing");
}

#[tokio::test]
async fn paging_under_load_shows_each_that_stays_exactly_once() {
    let world = World::new().await;
    let mut staying = BTreeSet::new();
    for n in 0..10 {
        world.signed_in(&format!("stays{n}")).await;
        staying.insert(world.id_of(&format!("stays{n}")).await);
    }
    let over = AtomicBool::new(false);
    let churn = async {
        let mut n = 0;
        while !over.load(Ordering::Relaxed) {
            world.signed_in(&format!("passing{}", n % 4)).await;
            world.delete(OPS, &format!("/v1/users/passing{}/sessions", (n + 2) % 4)).await;
            n += 1;
        }
        n
    };
    let listing = async {
        for _ in 0..20 {
            let items = pages(&world, 4, async || {}).await;
            let ids: Vec<&str> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
            for id in &staying {
                assert_eq!(ids.iter().filter(|shown| *shown == id).count(), 1);
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    let (changes, ()) = tokio::join!(churn, listing);
    assert!(changes > 0);
}

#[tokio::test]
async fn visitors_without_a_name_are_sessions_of_nobody() {
    let world = World::new().await;
    world.app.set(|s| s.anonymous_cookie = true);
    let visitor = Browser::at(world.gateway.http.unwrap());
    visitor.navigate("/page").await;
    let list = world.get("/v1/sessions").await;
    let item = &list["items"][0];
    assert_eq!(
        (&item["user"], &item["tenant"], &item["signed_in_at"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let id = item["id"].as_str().unwrap();
    let page = world.call(crate::api::ACME, Method::GET, &format!("/v1/sessions/{id}"), None).await;
    assert_eq!(page.status, 404, "of no tenant, so of none that a bound token may see");
}

#[tokio::test]
async fn what_an_app_does_against_its_configuration_is_told_with_the_advice() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/advice").await, json!({ "items": [], "next": null }));
    let browser = Browser::at(world.gateway.http.unwrap());
    for n in 0..50 {
        browser.fetch_with_cookie("/me", &format!("SID=made-up-{n}")).await;
    }
    let list = world.get("/v1/advice").await;
    let item = &list["items"][0];
    assert_eq!((&item["habit"], &item["count"]), (&json!("unseen_cookies"), &json!(50)));
    assert!(item["advice"].as_str().unwrap().contains("past the gateway"));
    let bound = world.get_by(crate::api::ACME, "/v1/advice").await;
    assert_eq!(bound["items"], json!([]), "apps belong to no tenant");
}
