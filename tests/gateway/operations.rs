//! Reload, drain, metrics, and the search for tokens in everything that leaves the gateway.

use std::path::Path;

use tenure::config::check_text;

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, config_text, who};
use crate::support::browser::{Ask, Heard, Mode};
use crate::support::logs::LogBuffer;
use crate::support::search::TokenSearch;
use crate::support::wait::{PATIENCE, eventually, soon};

#[tokio::test]
async fn a_reload_changes_the_policy_and_cuts_no_stream() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    let text = config_text(&world.app.url(), "", BY_HEADER, "[policy]\nidle_timeout = \"10m\"\n");
    let config = check_text("test.toml", &text, Path::new(".")).unwrap();
    let reloaded = world.gateway.handle().apply(config);
    assert_eq!(reloaded.needs_restart, Vec::<&str>::new());
    assert!(socket.say("still open").await);
    assert!(matches!(socket.hear().await, Heard::Text(_)));
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    world.pass(601);
    assert!(matches!(soon("the close", socket.hear_end()).await, Heard::Closed { code: 4401, .. }));
}

#[tokio::test]
async fn a_tighter_policy_acts_on_living_sessions_at_once() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.pass(900);
    let text = config_text(&world.app.url(), "", BY_HEADER, "[policy]\nidle_timeout = \"10m\"\n");
    world.gateway.handle().apply(check_text("test.toml", &text, Path::new(".")).unwrap());
    assert_eq!(world.ends_of("ann"), ["idle_timeout"]);
    assert_eq!(who(&browser).await, None);
}

#[tokio::test]
async fn a_file_with_faults_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new().await;
    let file = folder.path().join("config.toml");
    std::fs::write(&file, config_text(&world.app.url(), "nonsense = 1", BY_HEADER, POLICY)).unwrap();
    let handle = world.gateway.handle();
    handle.reload_from(file.clone());
    let faults = handle.reload().unwrap_err();
    assert!(faults.to_string().contains("nonsense"), "{faults}");
    let browser = world.signed_in("ann").await;
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    std::fs::write(&file, config_text(&world.app.url(), "", BY_HEADER, POLICY)).unwrap();
    assert!(handle.reload().is_ok());
}

#[tokio::test]
async fn draining_finishes_what_is_in_progress_and_takes_nothing_new() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    let tab = browser.new_tab();
    let slow = tokio::spawn(async move { tab.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    let address = world.gateway.http.unwrap();
    let World { app, gateway, .. } = world;
    let handle = gateway.handle();
    let draining = tokio::spawn(gateway.drain());
    eventually(PATIENCE, async || !handle.is_ready()).await;
    assert_eq!(
        soon("the close", socket.hear_end()).await,
        Heard::Closed { code: 1012, reason: "restart".into() }
    );
    eventually(PATIENCE, async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    app.release(1);
    let page = soon("the slow answer", slow).await.unwrap();
    assert_eq!(page.status, 200, "it could finish");
    soon("the end of the drain", draining).await.unwrap();
}

#[tokio::test]
async fn no_token_is_in_any_log_answer_or_metric() {
    let logs = LogBuffer::global();
    let world = World::with(
        |s| s.remember_me = Some("remember".into()),
        "companions = [\"remember\"]",
        BY_FORM,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    for target in ["/page?SID=abc", "/me", "/.tenure/status", "/nowhere"] {
        browser.fetch(target).await;
    }
    let cookie = format!("SID={}", browser.cookie("SID").unwrap());
    let mut texts = Vec::new();
    world.revoke("ann").await;
    texts.push(browser.fetch("/me").await.text());
    texts.push(browser.fetch_with_cookie("/me", &cookie).await.text());
    let ask = Ask::get(Mode::Navigate, "/page").with("cookie", &cookie);
    texts.push(browser.send(ask).await.unwrap().text());
    texts.push(world.gateway.handle().metrics_text());
    let sessions = world.sessions(tenure::store::StateFilter::Ended);
    texts.push(format!("{sessions:?}"));
    let search = TokenSearch::new(world.app.issued_tokens());
    assert!(search.tokens() >= 2);
    let passwords = TokenSearch::new([crate::support::app::PASSWORD]);
    eventually(PATIENCE, async || logs.contains("revoked")).await;
    texts.push(logs.text());
    search.assert_none(texts.iter().map(|text| ("a text", text)));
    passwords.assert_none(texts.iter().map(|text| ("a text", text)));
}

#[tokio::test]
async fn draining_says_so_on_every_tunnel_of_every_worker() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(browser.websocket("/ws").await.expect("opens"));
    }
    assert!(world.gateway.handle().metrics_text().contains("tenure_open_connections 9"), "tunnels count");
    let World { app: _app, gateway, .. } = world;
    let draining = tokio::spawn(gateway.drain());
    for mut socket in sockets {
        let close = Heard::Closed { code: 1012, reason: "restart".into() };
        assert_eq!(soon("the close", socket.hear_end()).await, close);
    }
    soon("the end of the drain", draining).await.unwrap();
}

#[tokio::test]
async fn every_request_is_recorded_once() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let before = forwarded(&world);
    for _ in 0..10 {
        browser.fetch("/me").await;
    }
    eventually(PATIENCE, async || forwarded(&world) == before + 10).await;
}

fn forwarded(world: &World) -> u64 {
    let text = world.gateway.handle().metrics_text();
    let line = "tenure_requests_total{app=\"app\",outcome=\"forwarded\",status=\"2xx\"} ";
    text.lines().find_map(|l| l.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}
