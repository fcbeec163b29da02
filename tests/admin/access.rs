//! Who may do what: tokens, scopes, and the tenant that a token is bound to.

use http::Method;
use serde_json::{Value, json};

use crate::api::{ACME, OPS, World, names, revoked};
use crate::support::browser::{Ask, Browser, Mode};

#[tokio::test]
async fn a_wrong_credential_is_refused_and_counted() {
    let world = World::new().await;
    let long = format!("Bearer {}", "x".repeat(4000));
    for field in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic b3BzOm9wcw==", OPS, &long] {
        let ask = Ask::get(Mode::Fetch, "/v1/sessions").with("authorization", field);
        assert_eq!(world.send(ask).await.status, 401, "{field:?}");
    }
    // RFC 9110, 11.1: the scheme's name in any case.
    let ask = Ask::get(Mode::Fetch, "/v1/sessions").with("authorization", &format!("bEARER {OPS}"));
    assert_eq!(world.send(ask).await.status, 200);
    let metrics = world.gateway.handle().metrics_text();
    assert!(metrics.contains("tenure_admin_refusals_total 7\n"), "{metrics}");
}

#[tokio::test]
async fn each_scope_opens_its_own_routes_and_no_other() {
    let scopes = [
        "sessions.read",
        "sessions.revoke",
        "sessions.pii",
        "policy.read",
        "gateway.reload",
        "gateway.drain",
    ];
    let own: Vec<[&str; 1]> = scopes.iter().map(|scope| [*scope]).collect();
    let tokens: Vec<String> = (0..scopes.len()).map(|n| format!("a-token-for-scope-{n}")).collect();
    let pairs: Vec<(&str, &[&str])> =
        tokens.iter().zip(&own).map(|(token, scope)| (token.as_str(), scope.as_slice())).collect();
    let world = World::with_tokens(&pairs).await;
    let routes = [
        (Method::GET, "/v1/sessions", "sessions.read"),
        (Method::GET, "/v1/sessions/0", "sessions.read"),
        (Method::GET, "/v1/users", "sessions.read"),
        (Method::DELETE, "/v1/sessions/0", "sessions.revoke"),
        (Method::DELETE, "/v1/users/nobody/sessions", "sessions.revoke"),
        (Method::POST, "/v1/sessions/revoke", "sessions.revoke"),
        (Method::GET, "/v1/policy", "policy.read"),
        (Method::GET, "/v1/policy/effective", "policy.read"),
        (Method::POST, "/v1/reload", "gateway.reload"),
        (Method::POST, "/v1/drain", "gateway.drain"),
    ];
    for (method, route, needed) in routes {
        for (token, scope) in tokens.iter().zip(scopes) {
            let body = (method == Method::POST).then(|| json!({ "user": "nobody" }));
            let page = world.call(token, method.clone(), route, body.as_ref()).await;
            let name = format!("{method} {route} with {scope}: {}", page.status);
            assert_eq!(page.status != 403, scope == needed, "{name}");
            if page.status == 403 {
                assert!(page.text().contains(needed), "{name} tells what is missing");
            }
        }
    }
}

#[tokio::test]
async fn addresses_are_told_only_with_sessions_pii() {
    let reader = "token-of-reader";
    let world = World::with_tokens(&[(reader, &["sessions.read", "sessions.revoke"])]).await;
    world.signed_in("ann").await;
    let shown = |list: Value| list["items"][0]["ip"].clone();
    assert_eq!(shown(world.get("/v1/sessions").await), json!("127.0.0.1"));
    assert_eq!(shown(world.get_by(reader, "/v1/sessions").await), Value::Null);
    let id = world.id_of("ann").await;
    assert_eq!(world.get_by(reader, &format!("/v1/sessions/{id}")).await["ip"], Value::Null);
    // Neither by asking who has which, nor by counting them.
    let asked = world.call(reader, Method::GET, "/v1/sessions?ip=127.0.0.1", None).await;
    assert_eq!(asked.status, 403);
    assert_eq!(world.revoke(reader, json!({ "ip": "127.0.0.1", "dry_run": true })).await.status, 403);
    let ended = world.delete(reader, &format!("/v1/sessions/{id}")).await;
    assert_eq!((ended.status, &ended.json()["ip"]), (200, &Value::Null));
}

#[tokio::test]
async fn a_token_of_a_tenant_knows_that_tenant_alone() {
    let world = World::new().await;
    for user in ["ann@acme.example", "bob@acme.example", "eve@other.example", "zoe"] {
        world.signed_in(user).await;
    }
    // A visitor without a name belongs to no tenant.
    world.app.set(|s| s.anonymous_cookie = true);
    Browser::at(world.gateway.http.unwrap()).navigate("/page").await;
    assert_eq!(world.get("/v1/sessions").await["items"].as_array().unwrap().len(), 5);
    let acme = ["ann@acme.example", "bob@acme.example"];
    assert_eq!(world.users_of(ACME, "/v1/sessions?state=active").await, acme);
    assert_eq!(names(&world.get_by(ACME, "/v1/users").await), acme);
    for nobody in ["/v1/sessions?tenant=other", "/v1/sessions?user=zoe", "/v1/users?tenant=other"] {
        assert_eq!(world.users_of(ACME, nobody).await, Vec::<String>::new(), "{nobody}");
    }
    let foreign = world.id_of("eve@other.example").await;
    for method in [Method::GET, Method::DELETE] {
        let page = world.call(ACME, method, &format!("/v1/sessions/{foreign}"), None).await;
        assert_eq!(page.status, 404, "as if it did not exist");
    }
    assert_eq!(world.revoke(ACME, json!({ "id": foreign })).await.json(), revoked(0, 0));
    assert_eq!(world.revoke(ACME, json!({ "tenant": "other" })).await.json(), revoked(0, 0));
    assert_eq!(world.delete(ACME, "/v1/users/zoe/sessions").await.json(), revoked(0, 0));
    assert_eq!(world.delete(ACME, "/v1/users/zoe/sessions?tenant=default").await.json(), revoked(0, 0));
    // Everyone is everyone of acme.
    assert_eq!(world.revoke(ACME, json!({ "everyone": true })).await.json(), revoked(2, 2));
    assert_eq!(world.users_of(OPS, "/v1/sessions?state=active").await, ["", "eve@other.example", "zoe"]);
}

#[tokio::test]
async fn a_token_of_a_tenant_neither_reloads_nor_drains() {
    let world = World::new().await;
    for route in ["/v1/reload", "/v1/drain"] {
        let page = world.call(ACME, Method::POST, route, None).await;
        assert_eq!(page.status, 403);
        assert!(page.text().contains("bound to one tenant"), "{}", page.text());
    }
    assert!(world.gateway.handle().is_ready());
}
