//! Policies as the API tells them.

use http::Method;
use serde_json::{Value, json};

use crate::api::{ACME, OPS, World};

const LAYERS: &str = r#"
[policy.bounds]
idle_timeout = { max = "2h" }
[[policy.tenant]]
name = "acme"
idle_timeout = "30m"
[[policy.tenant]]
name = "other"
max_concurrent = "off"
[[policy.role]]
name = "admin"
max_concurrent = 1
on_limit = "refuse"
[[policy.user]]
name = "ann@acme.example"
tenant = "acme"
idle_timeout = "5m"
"#;

fn sourced(value: &Value, source: &str, name: &Value) -> Value {
    json!({ "value": value, "source": source, "name": name, "origin": "file" })
}

#[tokio::test]
async fn each_field_is_told_with_its_source() {
    let world = World::with(&[], LAYERS).await;
    let user = world.get("/v1/policy/effective?tenant=acme&user=Ann@acme.example&role=admin").await;
    assert_eq!(user["idle_timeout"], sourced(&json!("5m"), "user", &json!("ann@acme.example")));
    assert_eq!(user["force_relogin"], sourced(&json!("8h"), "policy", &Value::Null));
    assert_eq!(user["max_concurrent"], sourced(&json!(1), "role", &json!("admin")));
    assert_eq!(user["on_limit"], sourced(&json!("refuse"), "role", &json!("admin")));
    assert_eq!(
        user["subject"],
        json!({ "app": "app", "tenant": "acme", "user": "ann@acme.example", "roles": ["admin"] })
    );
    let other = world.get("/v1/policy/effective?app=app&tenant=other").await;
    assert_eq!(other["max_concurrent"], sourced(&Value::Null, "tenant", &json!("other")));
    let nobody = world.get("/v1/policy/effective").await;
    assert_eq!(nobody["max_concurrent"], sourced(&json!(5), "policy", &Value::Null));
}

#[tokio::test]
async fn all_layers_are_told_as_the_file_has_them() {
    let world = World::with(&[], LAYERS).await;
    let all = world.get("/v1/policy").await;
    assert_eq!(all["base"]["idle_timeout"], json!("1h"));
    assert_eq!(all["bounds"]["idle_timeout"], json!({ "min": null, "max": "2h" }));
    assert_eq!(all["tenants"]["other"], json!({ "max_concurrent": "off" }));
    assert_eq!(all["roles"]["admin"], json!({ "max_concurrent": 1, "on_limit": "refuse" }));
    assert_eq!(all["users"], json!([{ "tenant": "acme", "user": "ann@acme.example", "idle_timeout": "5m" }]));
}

#[tokio::test]
async fn a_token_of_a_tenant_sees_the_policy_of_its_tenant() {
    let world = World::with(&[], LAYERS).await;
    let all = world.get_by(ACME, "/v1/policy").await;
    assert_eq!(all["tenants"].as_object().unwrap().keys().collect::<Vec<_>>(), ["acme"]);
    let own = world.get_by(ACME, "/v1/policy/effective").await;
    assert_eq!(
        own["idle_timeout"],
        sourced(&json!("30m"), "tenant", &json!("acme")),
        "its tenant by default"
    );
    let foreign = world.call(ACME, Method::GET, "/v1/policy/effective?tenant=other", None).await;
    assert_eq!(foreign.status, 404);
}

#[tokio::test]
async fn a_subject_that_does_not_exist_is_told() {
    let world = World::new().await;
    assert_eq!(world.call(OPS, Method::GET, "/v1/policy/effective?app=none", None).await.status, 404);
    assert_eq!(world.refused("/v1/policy/effective?usr=x").await.0, 400);
    assert_eq!(world.refused("/v1/policy/effective?user=").await.0, 400);
}

#[tokio::test]
async fn among_several_apps_one_has_to_be_named() {
    let second = "[[app]]\nname = \"second\"\nhosts = [\"b.example\"]\nupstream = \"http://127.0.0.1:9\"\ncookie = \"B\"\nuser_case = \"exact\"\n";
    let world = World::with(&[], second).await;
    let (status, detail) = world.refused("/v1/policy/effective?user=ann").await;
    assert_eq!(status, 400);
    assert!(detail.contains("app="), "{detail}");
    let exact = world.get("/v1/policy/effective?app=second&user=Ann").await;
    assert_eq!(exact["subject"]["user"], json!("Ann"), "in the case that this app keeps");
}
