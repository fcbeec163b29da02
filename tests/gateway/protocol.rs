//! HTTP itself: framing, streaming, retries, old upstreams, forwarding headers, TLS and HTTP/2.

use std::path::Path;
use std::time::Duration;

use tenure::config::check_text;

use crate::setup::{BY_HEADER, POLICY, World, config_text, https_lines, sign_in, who};
use crate::support::app::{BadHeader, CloseAfter, pattern};
use crate::support::browser::{Ask, Browser, Mode, Options, Tls};
use crate::support::tls::Certificate;
use crate::support::wait::{PATIENCE, eventually};

async fn raw(world: &World, request: &str) -> String {
    String::from_utf8_lossy(&world.browser().raw(request).await).into_owned()
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_is_closed() {
    let world = World::new().await;
    for (head, status) in [
        ("GET /echo HTTP/1.1\r\n\r\n", "400"),
        ("GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET http://other.localhost/echo HTTP/1.1\r\nHost: app.localhost\r\n\r\n", "400"),
        (
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "400",
        ),
        ("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: +1\r\n\r\nx", "400"),
        ("TRACE / HTTP/1.1\r\nHost: app.localhost\r\n\r\n", "405"),
        ("NONSENSE\r\n\r\n", "400"),
    ] {
        let answer = raw(&world, head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head:?} -> {answer:?}");
    }
    assert!(world.app.requests().is_empty(), "{:?}", world.app.requests());
}

#[tokio::test]
async fn chunked_beside_a_length_is_forwarded_with_one_framing_alone() {
    let world = World::new().await;
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let request = format!(
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\n{fields}Connection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        );
        raw(&world, &request).await;
    }
    for seen in world.app.requests() {
        let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
        assert_eq!((framings, seen.body.as_slice()), (1, b"x".as_slice()));
    }
}

#[tokio::test]
async fn hop_by_hop_headers_go_and_forwarding_headers_tell_the_truth() {
    let world = World::new().await;
    let request = "GET /echo HTTP/1.1\r\nHost: app.localhost\r\nConnection: close, X-Drop\r\nX-Drop: 1\r\nKeep-Alive: 5\r\n\
                   TE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
                   X-Forwarded-Proto: https\r\nTenure-Evil: 1\r\nX-Real-IP: 6.6.6.6\r\nX-Keep: yes\r\n\r\n";
    raw(&world, request).await;
    let seen = world.app.last_request();
    for gone in ["x-drop", "keep-alive", "upgrade", "tenure-evil", "x-real-ip"] {
        assert!(seen.all(gone).is_empty(), "{gone}");
    }
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen.header("forwarded").as_deref(), Some("for=127.0.0.1;host=\"app.localhost\";proto=http"));
    assert_eq!(seen.header("x-keep").as_deref(), Some("yes"));
    assert_eq!(seen.header("host").as_deref(), Some("app.localhost"));
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let page = browser.fetch("/download?bytes=20000000").await;
    assert_eq!(page.body.len(), 20_000_000);
    assert!(page.body == pattern(0, 20_000_000));
    let body = vec![b'x'; 20_000_000];
    let page =
        browser.send(Ask::post(Mode::Fetch, "/upload", "application/octet-stream", body)).await.unwrap();
    assert_eq!(page.json()["bytes"], 20_000_000);
}

#[tokio::test]
async fn trailers_pass() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let page = browser
        .send(Ask::get(Mode::Fetch, "/download?bytes=10&trailers=1").with("te", "trailers"))
        .await
        .unwrap();
    let trailers = page.trailers.expect("trailers");
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-checksum"], "and nothing that only a head may say");
}

#[tokio::test]
async fn head_has_a_length_and_no_body() {
    let world = World::new().await;
    let answer =
        raw(&world, "HEAD /static/app.css HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("content-length: 21"), "{answer}");
}

#[tokio::test]
async fn an_ended_session_is_told_before_the_upload_is_asked_for() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let cookie = browser.cookie("SID").unwrap();
    let head = |cookie: &str| {
        format!(
            "POST /upload HTTP/1.1\r\nHost: app.localhost\r\nCookie: SID={cookie}\r\nSec-Fetch-Mode: cors\r\n\
             Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        )
    };
    let mut socket = world.browser().raw_socket().await;
    socket.write(head(&cookie)).await.unwrap();
    let first = socket.answer(false).await.unwrap();
    assert_eq!(first.status, 100);
    socket.write("hello").await.unwrap();
    assert_eq!(socket.answer(false).await.unwrap().status, 200);
    world.revoke("ann").await;
    let answer = raw(&world, &head(&cookie)).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn old_upstreams_are_understood() {
    type Habit = fn(&mut crate::support::app::Switches);
    let habits: [(&str, Habit); 6] = [
        ("folded headers", |s| s.fold_headers = true),
        ("HTTP/1.0", |s| s.http10 = true),
        ("chunked", |s| s.chunked_answers = true),
        ("early hints", |s| s.early_hints = true),
        ("a space before the colon", |s| s.bad_header = BadHeader::SpaceBeforeColon),
        ("Latin-1", |s| s.bad_header = BadHeader::Latin1),
    ];
    for (name, habit) in habits {
        let world = World::with(
            |s| {
                s.identity_headers = true;
                habit(s);
            },
            "",
            BY_HEADER,
            POLICY,
        )
        .await;
        let browser = world.browser();
        sign_in(&browser, "ann").await;
        assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{name}");
        assert_eq!(world.live_of("ann").len(), 1, "{name}");
    }
}

#[tokio::test]
async fn stale_connections_are_retried_where_that_is_safe() {
    for close in [CloseAfter::Answers(1), CloseAfter::Idle(Duration::from_millis(1))] {
        let world = World::with(
            |s| {
                s.identity_headers = true;
                s.close_after = close;
            },
            "",
            BY_HEADER,
            POLICY,
        )
        .await;
        let browser = world.signed_in("ann").await;
        for _ in 0..50 {
            assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{close:?}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_fails_is_told_apart() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.app.set(|s| s.close_after = CloseAfter::Reset);
    assert_eq!(browser.fetch("/me").await.status, 502);
    world.app.set(|s| s.close_after = CloseAfter::Never);
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "nobody was signed out");
    let text = world.gateway.handle().metrics_text();
    assert!(text.contains("tenure_upstream_errors_total{app=\"app\",reason=\"protocol\"}"), "{text}");
    let gone = World::from_text(|_| {}, |_| config_text("http://127.0.0.1:1", "", BY_HEADER, POLICY)).await;
    assert_eq!(gone.browser().fetch("/").await.status, 502);
    let slow =
        World::with(|s| s.identity_headers = true, "", BY_HEADER, "[limits]\nfirst_byte_timeout = \"1s\"\n")
            .await;
    assert_eq!(slow.browser().fetch("/slow").await.status, 504);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let world =
        World::with(|s| s.identity_headers = true, "", BY_HEADER, "[limits]\nbody_bytes = \"10KiB\"\n").await;
    let browser = world.browser();
    let page = browser.send(Ask::post(Mode::Fetch, "/upload", "text/plain", vec![b'x'; 9000])).await.unwrap();
    assert_eq!(page.status, 200);
    let page =
        browser.send(Ask::post(Mode::Fetch, "/upload", "text/plain", vec![b'x'; 20_000])).await.unwrap();
    assert_eq!(page.status, 413);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let world =
        World::with(|s| s.identity_headers = true, "", BY_HEADER, "[limits]\nheader_bytes = \"16KiB\"\n")
            .await;
    let request = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\nX-Big: {}\r\n\r\n", "x".repeat(40_000));
    let answer = raw(&world, &request).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn an_unknown_host_is_misdirected() {
    let world =
        World::with(|s| s.identity_headers = true, "hosts = [\"crm.localhost\"]", BY_HEADER, POLICY).await;
    let answer = raw(&world, "GET / HTTP/1.1\r\nHost: other.localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    let answer =
        raw(&world, "GET /static/app.css HTTP/1.1\r\nHost: CRM.localhost:80\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn only_a_websocket_opens_a_tunnel() {
    let world = World::new().await;
    world.app.set(|s| s.refuse_upgrade = Some(403));
    let browser = world.signed_in("ann").await;
    let Err(page) = browser.websocket("/ws").await else { panic!("opened") };
    assert_eq!(page.status, 403, "the app's own answer");
    let request =
        "GET /echo HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n";
    let answer = raw(&world, request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn browsers_come_by_https_and_http2() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::of("app.localhost");
    let text = |upstream: &str| {
        config_text(upstream, "", BY_HEADER, POLICY)
            .replace("workers = 2\n", &https_lines(&folder, &certificate))
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let address = world.gateway.https.unwrap();
    for h2 in [false, true] {
        let browser = Browser::with(
            address,
            Options { tls: Some(Tls { root: certificate.root.clone(), h2 }), ..Options::default() },
        );
        sign_in(&browser, "ann").await;
        browser.jar(|_| ());
        assert_eq!(who(&browser).await.as_deref(), Some("ann"), "h2 = {h2}");
        let seen = world.app.requests_to("/me").pop().unwrap();
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(seen.all("cookie").len(), 1, "crumbs are joined");
    }
    eventually(PATIENCE, async || world.live_of("ann").len() == 2).await;
    // Renewed certificates are shown from the next handshake on, after any reload.
    let renewed = Certificate::of("app.localhost");
    let text = text(&world.app.url());
    https_lines(&folder, &renewed);
    let config = check_text("test.toml", &text, Path::new(".")).unwrap();
    assert_eq!(world.gateway.handle().apply(config).needs_restart, Vec::<&str>::new());
    for (root, trusted) in [(certificate.root, false), (renewed.root, true)] {
        let options = Options { tls: Some(Tls { root, h2: false }), ..Options::default() };
        let asked = Browser::with(address, options).send(Ask::get(Mode::Fetch, "/me")).await;
        assert_eq!(asked.is_ok(), trusted, "{:?}", asked.err());
    }
}

#[tokio::test]
async fn the_limit_of_a_head_is_the_configured_one() {
    let world = World::with(|_| {}, "", BY_HEADER, "[limits]\nheader_bytes = \"64KiB\"\n").await;
    for (bytes, status) in [(60_000, "200"), (70_000, "431"), (300_000, "431")] {
        let head = format!(
            "GET /poll HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\nX-Long: {}\r\n\r\n",
            "x".repeat(bytes)
        );
        let answer = String::from_utf8_lossy(&world.browser().raw(head).await).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{bytes}: {answer}");
    }
    // Some are refused by their sum, larger ones by the library's buffer, before there is a request at all.
    let told = async || {
        let text = world.gateway.handle().metrics_text();
        text.contains("outcome=\"refused\"") && !text.contains("bad_heads_total{reason=\"too_large\"} 0\n")
    };
    eventually(PATIENCE, told).await;
}
