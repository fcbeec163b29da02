//! The audit and its counts by day, from memory and from the store.

use serde_json::{Value, json};

use crate::api::{ACME, OPS, World};

/// A gateway without a store, and one with the store in a directory.
async fn worlds() -> [(World, Option<tempfile::TempDir>); 2] {
    let place = tempfile::tempdir().unwrap();
    let path = format!("path = \"{}\"", place.path().join("data").display());
    let kept = World::from_text(|text| text.replace("path = \"off\"", &path)).await;
    [(World::new().await, None), (kept, Some(place))]
}

fn acts(list: &Value) -> Vec<[&str; 4]> {
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|entry| ["act", "user", "reason", "by"].map(|member| entry[member].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn what_happened_is_found_newest_first_and_by_what_is_asked_for() {
    for (world, _place) in worlds().await {
        world.signed_in("ann").await;
        world.pass(60);
        world.signed_in("bob@acme.example").await;
        world.pass(60);
        assert_eq!(world.revoke(OPS, json!({ "user": "ann" })).await.status, 200);
        let all = world.get("/v1/audit").await;
        assert_eq!(
            acts(&all),
            [
                ["revoke", "", "", "ops"],
                ["ended", "ann", "revoked", "ops"],
                ["signed_in", "bob@acme.example", "", ""],
                ["signed_in", "ann", "", ""],
            ]
        );
        let first = &all["items"][3];
        assert_eq!((&first["at"], &first["app"]), (&json!("2025-06-15T15:06:40.000Z"), &json!("app")));
        assert!(first["session"].as_str().is_some_and(|id| id.len() == 32));
        let detail = all["items"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("user=\"ann\"") && detail.contains("ended=1"), "{detail}");
        let session = first["session"].as_str().unwrap();
        for (query, n) in [
            ("user=ANN", 2),
            ("tenant=acme", 1),
            ("act=signed_in", 2),
            ("act=ended&user=ann", 1),
            ("app=another", 0),
            (&format!("session={session}"), 2),
            ("since=2025-06-15T15:07:40Z", 3),
            ("until=2025-06-15T15:07:40Z", 1),
            ("since=2025-06-15T15:07:40Z&until=2025-06-15T15:08:00Z", 1),
        ] {
            let found = world.get(&format!("/v1/audit?{query}")).await;
            assert_eq!(found["items"].as_array().unwrap().len(), n, "{query}");
        }
        assert_eq!(acts(&world.get_by(ACME, "/v1/audit").await).len(), 1, "one's own tenant alone");
        assert_eq!(acts(&world.get_by(ACME, "/v1/audit?tenant=default").await).len(), 0);
    }
}

#[tokio::test]
async fn pages_of_the_audit_hold_each_entry_once() {
    for (world, _place) in worlds().await {
        for n in 0..7 {
            world.signed_in(&format!("user{n}")).await;
        }
        let (mut seen, mut reference) = (Vec::new(), "/v1/audit?limit=3".to_owned());
        loop {
            let page = world.get(&reference).await;
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|e| e["user"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break };
            reference = format!("/v1/audit?limit=3&cursor={next}");
        }
        assert_eq!(seen, (0..7).rev().map(|n| format!("user{n}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn each_day_has_its_counts() {
    for (world, _place) in worlds().await {
        world.signed_in("ann").await;
        world.signed_in("bob@acme.example").await;
        world.revoke(OPS, json!({ "user": "ann" })).await;
        world.pass(24 * 3600);
        world.signed_in("ann").await;
        let days = world.get("/v1/stats").await;
        let day = |day: &str, tenant: &str, sign_ins: u32, ends: Value| json!({ "day": day, "app": "app", "tenant": tenant, "sign_ins": sign_ins, "held_back": 0, "ends": ends });
        // Bob's session went idle in the hour after it began.
        assert_eq!(
            days["items"],
            json!([
                day("2025-06-15", "acme", 1, json!({ "idle_timeout": 1 })),
                day("2025-06-15", "default", 1, json!({ "revoked": 1 })),
                day("2025-06-16", "default", 1, json!({})),
            ])
        );
        let own = world.get_by(ACME, "/v1/stats?since=2025-06-15T00:00:00Z").await;
        assert_eq!(own["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let world = World::with_tokens(&[("tenure-test-token-of-reader", &["sessions.read"])]).await;
    for (reference, status) in [
        ("/v1/audit?since=yesterday", 400),
        ("/v1/audit?cursor=x", 400),
        ("/v1/audit?limit=0", 400),
        ("/v1/audit?usr=ann", 400),
        ("/v1/audit?session=1", 400),
        ("/v1/stats?day=1", 400),
    ] {
        assert_eq!(world.refused(reference).await.0, status, "{reference}");
    }
    for route in ["/v1/audit", "/v1/stats"] {
        let page = world.call("tenure-test-token-of-reader", http::Method::GET, route, None).await;
        assert_eq!(page.status, 403, "{route}");
    }
}
