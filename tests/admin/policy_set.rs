//! Policies that are set through the API.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tenure::config::check_text;

use crate::api::{ACME, OPS, World, config_text};
use crate::support::browser::Page;

const LAYERS: &str = r#"
[policy.bounds]
idle_timeout = { max = "2h" }
max_concurrent = { min = 2 }
[[policy.tenant]]
name = "acme"
idle_timeout = "30m"
on_limit = "ask"
[roles.admin]
learned = true
"#;

const TENANT: &str = "/v1/policy/tenant/acme";
const ANN: &str = "/v1/policy/user/ann@acme.example?tenant=acme";

impl World {
    async fn put(&self, token: &str, reference: &str, settings: Value) -> Page {
        self.call(token, Method::PUT, reference, Some(&settings)).await
    }

    /// How many sessions ended, or would, by a change that has to be taken.
    async fn ended_by(&self, reference: &str, settings: Value) -> Value {
        let page = self.put(OPS, reference, settings).await;
        assert_eq!(page.status, 200, "{}", page.text());
        page.json()["ended"].clone()
    }
}

fn status_and_detail(page: &Page) -> (u16, String) {
    (page.status, page.json()["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_set_holds_at_once_above_the_file_and_until_it_is_taken_back() {
    let world = World::with(&[], LAYERS).await;
    let (ann, bob) = (world.signed_in("ann@acme.example").await, world.signed_in("bob").await);
    world.pass(600);
    let change = json!({ "idle_timeout": "5m", "max_concurrent": 2 });
    let preview = world.put(OPS, "/v1/policy/tenant/ACME?preview=true", change.clone()).await.json();
    assert_eq!(
        (&preview["preview"], &preview["ended"], &preview["kept"]),
        (&json!(true), &json!(1), &json!(false))
    );
    assert_eq!(preview["policy"]["comes_to"]["idle_timeout"], json!("5m"));
    assert_eq!(world.get(TENANT).await["set"], Value::Null, "a preview changes nothing");
    assert_eq!(ann.fetch("/me").await.status, 200);
    world.pass(600);

    assert_eq!(world.ended_by(TENANT, change).await, json!(1));
    assert_eq!(ann.fetch("/me").await.json()["reason"], json!("idle_timeout"));
    assert_eq!(bob.fetch("/me").await.status, 200, "of another tenant");
    let layer = json!({
        "layer": "tenant", "name": "acme", "tenant": null,
        "file": { "idle_timeout": "30m", "on_limit": "ask" },
        "set": { "idle_timeout": "5m", "max_concurrent": 2 },
        "comes_to": { "idle_timeout": "5m", "max_concurrent": 2, "on_limit": "ask" },
    });
    assert_eq!(world.get(TENANT).await, layer);
    assert_eq!(world.get("/v1/policy").await["set"]["tenants"], json!({ "acme": layer["set"] }));
    let effective = world.get("/v1/policy/effective?tenant=acme").await;
    let origins = |field: &str| (effective[field]["source"].clone(), effective[field]["origin"].clone());
    assert_eq!(origins("idle_timeout"), (json!("tenant"), json!("set")));
    assert_eq!(origins("on_limit"), (json!("tenant"), json!("file")));

    assert_eq!(world.ended_by(TENANT, json!({ "on_limit": "refuse" })).await, json!(0));
    assert_eq!(world.get(TENANT).await["set"], json!({ "on_limit": "refuse" }), "replaced whole");
    for _ in 0..2 {
        let removed = world.delete(OPS, TENANT).await;
        assert_eq!((removed.status, &removed.json()["policy"]["set"]), (200, &Value::Null));
    }
    assert_eq!(world.get(TENANT).await["comes_to"], layer["file"]);
}

#[tokio::test]
async fn a_preview_counts_what_the_limit_and_the_time_outs_would_end() {
    let world = World::with(&[], LAYERS).await;
    let mut browsers = Vec::new();
    for user in ["ann@acme.example", "ann@acme.example", "ann@acme.example", "bob@acme.example", "cid"] {
        browsers.push(world.signed_in(user).await);
        world.pass(60);
    }
    // The first two are past the new time-out; of what is left of Ann's, nothing is beyond the new limit.
    let change = json!({ "idle_timeout": "210s", "max_concurrent": 2, "on_limit": "end-oldest" });
    for (settings, ends) in [
        (json!({ "max_concurrent": 2 }), 0),
        (json!({ "max_concurrent": 2, "on_limit": "end-oldest" }), 1),
        (json!({ "idle_timeout": "210s" }), 2),
        (change.clone(), 2),
    ] {
        let preview = format!("{TENANT}?preview=true");
        assert_eq!(world.ended_by(&preview, settings.clone()).await, json!(ends), "{settings}");
    }
    assert_eq!(world.ended_by(TENANT, change).await, json!(2), "as foreseen");
    assert_eq!(
        world.users_of(OPS, "/v1/sessions?state=active").await,
        ["ann@acme.example", "bob@acme.example", "cid"]
    );
    let all = "/v1/policy/app/app";
    assert_eq!(
        world.ended_by(&format!("{all}?preview=true"), json!({ "idle_timeout": "61s" })).await,
        json!(0)
    );
    assert_eq!(
        world.ended_by(all, json!({ "idle_timeout": "60s" })).await,
        json!(1),
        "the app's holds where no tenant's does"
    );
}

#[tokio::test]
async fn each_place_can_be_set() {
    let world = World::with(&[], LAYERS).await;
    for (reference, layer) in [
        ("/v1/policy/app/app", "app"),
        (TENANT, "tenant"),
        ("/v1/policy/role/admin", "role"),
        ("/v1/policy/user/Ann%40ACME.example?tenant=acme", "user"),
    ] {
        assert_eq!(world.ended_by(reference, json!({ "max_concurrent": 3 })).await, json!(0));
        assert_eq!(world.get(reference).await["comes_to"]["max_concurrent"], json!(3), "{reference}");
        let whom = "/v1/policy/effective?app=app&tenant=acme&user=ann@acme.example&role=admin";
        assert_eq!(world.get(whom).await["max_concurrent"]["source"], json!(layer));
    }
    let set = &world.get("/v1/policy").await["set"];
    assert_eq!(set["users"], json!([{ "tenant": "acme", "user": "ann@acme.example", "max_concurrent": 3 }]));
    assert_eq!(set["apps"], json!({ "app": { "max_concurrent": 3 } }));
    for reference in ["/v1/policy/app/other", "/v1/policy/role/other", "/v1/policy/team/acme"] {
        assert_eq!(world.put(OPS, reference, json!({})).await.status, 404, "{reference}");
        assert_eq!(world.delete(OPS, reference).await.status, 404, "{reference}");
        assert_eq!(world.refused(reference).await.0, 404, "{reference}");
    }
}

#[tokio::test]
async fn the_bounds_hold_for_tenants_and_not_for_the_operator() {
    let world = World::with(&[], LAYERS).await;
    for (token, reference, settings, words) in [
        (OPS, TENANT, json!({ "idle_timeout": "3h" }), "idle_timeout: 3h is outside"),
        (OPS, TENANT, json!({ "idle_timeout": "off" }), "at most 2h"),
        (ACME, TENANT, json!({ "max_concurrent": 1 }), "the nearest is 2"),
        (ACME, ANN, json!({ "idle_timeout": "3h" }), "at most 2h"),
    ] {
        let (status, detail) = status_and_detail(&world.put(token, reference, settings).await);
        assert!(status == 422 && detail.contains(words), "{status} {detail}");
    }
    assert_eq!(world.put(OPS, ANN, json!({ "idle_timeout": "3h" })).await.status, 200);
    assert_eq!(world.put(ACME, TENANT, json!({ "idle_timeout": "2h" })).await.status, 200);
    assert_eq!(world.put(ACME, "/v1/policy/user/bob", json!({ "idle_timeout": "2h" })).await.status, 200);
    // Tighter bounds move what a tenant chose, and leave the operator's word alone (R19).
    let tighter = LAYERS.replace("\"2h\"", "\"1h\"");
    let text = config_text(&world.app.url(), &[], &tighter);
    world.gateway.handle().apply(check_text("test.toml", &text, Path::new(".")).unwrap());
    for (whom, value, source) in
        [("user=ann@acme.example", "3h", "user"), ("user=bob", "1h", "bound"), ("role=admin", "1h", "bound")]
    {
        let found = world.get(&format!("/v1/policy/effective?tenant=acme&{whom}")).await;
        let idle = &found["idle_timeout"];
        assert_eq!(
            (&idle["value"], &idle["source"], &idle["origin"]),
            (&json!(value), &json!(source), &json!("set"))
        );
    }
}

#[tokio::test]
async fn a_token_changes_what_it_may_and_nothing_else() {
    let reader = "tenure-test-token-of-reader";
    let world = World::with(&[(reader, &["policy.read"])], LAYERS).await;
    assert_eq!(world.get_by(reader, TENANT).await["name"], json!("acme"));
    for (token, reference, status) in [
        (reader, TENANT, 403),
        (ACME, "/v1/policy/app/app", 403),
        (ACME, "/v1/policy/role/admin", 403),
        (ACME, "/v1/policy/tenant/other", 404),
        (ACME, "/v1/policy/user/ann?tenant=other", 404),
        (ACME, TENANT, 200),
        (ACME, "/v1/policy/user/ann", 200),
    ] {
        let put = world.put(token, reference, json!({ "idle_timeout": "1h" })).await;
        assert_eq!(
            (put.status, world.delete(token, reference).await.status),
            (status, status),
            "{token} {reference}"
        );
    }
    assert_eq!(world.put(OPS, "/v1/policy/tenant/other", json!({ "on_limit": "ask" })).await.status, 200);
    assert_eq!(world.get_by(ACME, "/v1/policy").await["set"]["tenants"], json!({}), "another's is not told");
}

#[tokio::test]
async fn what_cannot_be_a_layer_is_refused_in_words() {
    let world = World::with(&[], LAYERS).await;
    for (reference, settings, words) in [
        (TENANT, json!({ "idle_timeot": "5m" }), "unknown field"),
        (TENANT, json!({ "idle_timeout": "5" }), "has no unit"),
        (TENANT, json!({ "max_concurrent": 0 }), "from 1 to"),
        (TENANT, json!({ "on_limit": "end" }), "known here"),
        (TENANT, json!([]), "object"),
        ("/v1/policy/user/ann", json!({}), "tenant="),
        ("/v1/policy/tenant/acme?tenant=acme", json!({}), "tenant="),
        ("/v1/policy/tenant/%20", json!({}), "no name"),
        ("/v1/policy/tenant/acme?previw=true", json!({}), "previw"),
    ] {
        let (status, detail) = status_and_detail(&world.put(OPS, reference, settings).await);
        assert!(status == 400 && detail.contains(words), "{reference}: {status} {detail}");
    }
    assert_eq!(world.get("/v1/policy").await["set"]["tenants"], json!({}));
}

#[tokio::test]
async fn a_reload_of_the_file_keeps_what_was_set() {
    let world = World::with(&[], LAYERS).await;
    world.ended_by(TENANT, json!({ "idle_timeout": "5m" })).await;
    world.ended_by("/v1/policy/role/admin", json!({ "idle_timeout": "4m" })).await;
    // The new file knows neither the tenant's layer nor the role.
    let text = config_text(&world.app.url(), &[], "");
    world.gateway.handle().apply(check_text("test.toml", &text, Path::new(".")).unwrap());
    assert_eq!(world.get(TENANT).await["comes_to"], json!({ "idle_timeout": "5m" }));
    assert_eq!(world.get("/v1/policy/role/admin").await["set"], json!({ "idle_timeout": "4m" }), "kept");
    let change = json!({ "idle_timeout": "3m" });
    assert_eq!(world.put(OPS, "/v1/policy/role/admin", change).await.status, 404, "and not to be changed");
    assert_eq!(world.delete(OPS, "/v1/policy/role/admin").await.status, 200, "but for taking it back");
    assert_eq!(world.refused("/v1/policy/role/admin").await.0, 404);
}

#[tokio::test]
async fn sessions_are_held_to_what_was_set_after_a_reload_too() {
    let world = World::with(&[], LAYERS).await;
    let ann = world.signed_in("ann@acme.example").await;
    world.ended_by(TENANT, json!({ "idle_timeout": "5m" })).await;
    let text = config_text(&world.app.url(), &[], "");
    world.gateway.handle().apply(check_text("test.toml", &text, Path::new(".")).unwrap());
    world.pass(300);
    assert_eq!(ann.fetch("/me").await.json()["reason"], json!("idle_timeout"));
}

#[tokio::test]
async fn what_the_store_does_not_confirm_is_told_to_be_in_force_here_alone() {
    let place = tempfile::tempdir().unwrap();
    let kept = format!("path = \"{}\"", place.path().display());
    let world = World::from_text(|text| text.replacen("path = \"off\"", &kept, 1)).await;
    let blocker = rusqlite::Connection::open(place.path().join("sessions.db")).unwrap();
    blocker.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = world.put(OPS, TENANT, json!({ "idle_timeout": "5m" })).await;
    assert_eq!((refused.status, &refused.json()["in_force"]), (503, &json!("local")), "{}", refused.text());
    assert_eq!(world.get(TENANT).await["comes_to"], json!({ "idle_timeout": "5m" }));
    blocker.execute_batch("ROLLBACK").unwrap();
    let again = world.put(OPS, TENANT, json!({ "idle_timeout": "5m" })).await;
    assert_eq!((again.status, &again.json()["kept"]), (200, &json!(true)), "{}", again.text());
}
