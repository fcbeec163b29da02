//! Reload, drain, probes and metrics by the API.

use http::Method;
use serde_json::json;

use crate::api::{OPS, World, config_text};
use crate::support::browser::{Ask, Browser, Mode};
use crate::support::wait::{PATIENCE, eventually};

async fn reload(world: &World) -> crate::support::browser::Page {
    world.call(OPS, Method::POST, "/v1/reload", None).await
}

#[tokio::test]
async fn a_reload_is_in_force_when_it_returns_and_tells_what_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let world = World::new().await;
    let text = config_text(&world.app.url(), &[], "");
    std::fs::write(&file, text.replace("idle_timeout = \"1h\"", "idle_timeout = \"20m\"")).unwrap();
    world.gateway.handle().reload_from(file.clone());
    assert_eq!(reload(&world).await.json(), json!({ "needs_restart": [] }));
    let shown = world.get("/v1/policy/effective").await;
    assert_eq!(shown["idle_timeout"]["value"], json!("20m"));
    std::fs::write(&file, text.replace("workers = 2", "workers = 1")).unwrap();
    for _ in 0..2 {
        let told = reload(&world).await.json();
        assert_eq!(told, json!({ "needs_restart": ["listen.workers"] }), "as long as it is so");
    }
    let secret = "path = \"off\"\nsecret = \"a secret that is long enough\"";
    std::fs::write(&file, text.replace("path = \"off\"", secret)).unwrap();
    assert_eq!(reload(&world).await.json(), json!({ "needs_restart": ["store.secret"] }));
    std::fs::write(&file, &text).unwrap();
    assert_eq!(reload(&world).await.json(), json!({ "needs_restart": [] }), "back to what runs");
}

#[tokio::test]
async fn a_reload_of_a_file_with_faults_names_them_all_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let world = World::new().await;
    let text = config_text(&world.app.url(), &[], "");
    std::fs::write(&file, text.replace("idle_timeout = \"1h\"", "idle_timeout = \"soon\"\nnonsense = 1"))
        .unwrap();
    world.gateway.handle().reload_from(file.clone());
    let page = reload(&world).await;
    assert_eq!(page.status, 422);
    for words in ["soon", "nonsense", "config.toml"] {
        assert!(page.text().contains(words), "{}", page.text());
    }
    assert_eq!(world.get("/v1/policy/effective").await["idle_timeout"]["value"], json!("1h"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(reload(&world).await.status, 422, "a file that is gone");
}

#[tokio::test]
async fn draining_is_told_by_readyz_while_livez_still_answers() {
    let world = World::with(&[], "").await;
    let probes = Browser::at(world.gateway.probes.unwrap());
    // An answer in progress holds the drain open.
    let browser = world.signed_in("ann").await;
    let slow = tokio::spawn(async move { browser.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    assert_eq!(probes.fetch("/readyz").await.status, 200);
    let page = world.call(OPS, Method::POST, "/v1/drain", None).await;
    assert_eq!((page.status, page.body.len()), (202, 0));
    for client in [&world.client(), &probes] {
        eventually(PATIENCE, async || client.fetch("/readyz").await.status == 503).await;
        assert_eq!(client.fetch("/livez").await.text(), "ok\n");
    }
    world.app.release(1);
    assert_eq!(slow.await.unwrap().status, 200, "it could finish");
}

#[tokio::test]
async fn the_probes_listener_has_probes_and_metrics_and_nothing_else() {
    let world = World::new().await;
    let probes = Browser::at(world.gateway.probes.unwrap());
    for path in ["/livez", "/readyz", "/metrics"] {
        let (alone, beside) = (probes.fetch(path).await, world.client().fetch(path).await);
        assert_eq!((alone.status, beside.status), (200, 200), "{path}, without a token");
        assert_eq!(alone.header("content-type"), beside.header("content-type"));
    }
    for path in ["/v1/sessions", "/v1/openapi.json", "/"] {
        let ask = Ask::get(Mode::Fetch, path).with("authorization", &format!("Bearer {OPS}"));
        let page = probes.send(ask).await.unwrap();
        assert_eq!((page.status, page.header("content-type")), (404, Some("application/problem+json")));
    }
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let world = World::new().await;
    world.signed_in("ann").await;
    let page = world.client().fetch("/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = page.text();
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# TYPE ") {
            described.insert(comment.split(' ').next().unwrap().to_owned());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(described.contains(name) || described.contains(base), "{name} has no type");
        assert!(name.starts_with("tenure_") || name.starts_with("process_"), "{name}");
    }
    assert!(text.contains("tenure_sessions{"), "{text}");
}

#[tokio::test]
async fn administrative_acts_are_audited_with_who_and_what() {
    use crate::support::logs::LogBuffer;
    let len = LogBuffer::global().len();
    let world = World::with_tokens(&[("token-of-auditee", &["*"])]).await;
    world.signed_in("ann").await;
    let id = world.id_of("ann").await;
    world.delete("token-of-auditee", &format!("/v1/sessions/{id}")).await;
    world.delete("token-of-auditee", "/v1/users/ann/sessions").await;
    world.revoke("token-of-auditee", json!({ "ip": "10.9.8.7", "dry_run": true })).await;
    world.call("token-of-auditee", Method::POST, "/v1/reload", None).await;
    world.call("token-of-nobody", Method::GET, "/v1/sessions", None).await;
    for words in [
        vec!["act=\"revoke\"", "by=\"auditee\"", &id, "ended=1"],
        vec!["act=\"revoke\"", "by=\"auditee\"", "user=", "ann", "matched=0"],
        vec!["act=\"revoke\"", "by=\"auditee\"", "10.9.8.7", "dry_run=true"],
        vec!["act=\"reload\"", "by=\"auditee\""],
        vec!["act=\"admin_refused\"", "ip=127.0.0.1", "/v1/sessions"],
    ] {
        let told = || {
            let text = String::from_utf8_lossy(&LogBuffer::global().since(len)).into_owned();
            text.lines().any(|line| line.contains(" audit: ") && words.iter().all(|word| line.contains(word)))
        };
        eventually(PATIENCE, async || told()).await;
    }
}
