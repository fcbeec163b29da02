//! What surrounds a request: the PROXY protocol, hop-by-hop fields of answers, switching protocols, HTTP/2's crumbs, and
//! what the gateway says of a session by itself.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::setup::{BY_HEADER, POLICY, World, config_text, post_login};
use crate::support::browser::{Ask, Browser, Mode, Options, Tls};
use crate::support::tls::Certificate;
use crate::support::wait::soon;

#[tokio::test]
async fn the_proxy_protocol_is_required_where_it_is_configured() {
    let text = |upstream: &str| {
        let usual = config_text(upstream, "", BY_HEADER, POLICY);
        usual.replace("workers = 2\n", "workers = 2\nproxy_protocol = true\n")
    };
    let world = World::from_text(|_| {}, text).await;
    let request = "GET /poll HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    let with_header = format!("PROXY TCP4 9.9.9.9 127.0.0.1 4711 80\r\n{request}");
    let answer = String::from_utf8_lossy(&world.browser().raw(with_header).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = world.app.last_request();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("9.9.9.9"));
    world.app.forget_requests();
    let mut without = world.browser().raw_socket().await;
    without.write(request).await.unwrap();
    let _ = soon("the end", without.read_to_end()).await;
    assert_eq!(without.into_unread(), b"", "closed without a word");
    assert!(world.app.requests().is_empty());
}

#[tokio::test]
async fn what_concerns_the_apps_connection_or_only_the_gateway_stays_behind() {
    let world = World::new().await;
    let extra = [
        ("Connection", "X-Drop"),
        ("X-Drop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Tenure-Session", "forged"),
        ("X-Keep", "yes"),
    ];
    world.app.set(|s| s.extra_headers = extra.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
    let page = world.browser().fetch("/poll").await;
    for name in ["x-drop", "keep-alive", "proxy-authenticate", "tenure-session"] {
        assert_eq!(page.header(name), None, "{name}");
    }
    assert_eq!(page.header("x-keep"), Some("yes"));
}

#[tokio::test]
async fn nothing_is_tunnelled_but_a_websocket_that_was_asked_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let Ok(count) = stream.read(&mut buffer).await else { continue };
            let other = String::from_utf8_lossy(&buffer[..count]).contains("/other");
            let protocol = if other { "h2c" } else { "websocket" };
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\nsmuggled"
            );
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    let world = World::from_text(|_| {}, |_: &str| config_text(&url, "", BY_HEADER, POLICY)).await;
    // Another protocol than was asked for, and an upgrade that nobody asked for.
    for ask in [Ask::get(Mode::WebSocket, "/other"), Ask::get(Mode::Fetch, "/plain")] {
        let answer = match ask.mode {
            Mode::WebSocket => world.browser().websocket_with(ask).await.err().map(|page| *page),
            Mode::Navigate | Mode::Fetch | Mode::EventSource => world.browser().send(ask).await.ok(),
        };
        let page = answer.expect("refused");
        assert_eq!(page.status, 502);
        assert!(!page.text().contains("smuggled"), "{}", page.text());
    }
    let text = world.gateway.handle().metrics_text();
    assert!(text.contains("reason=\"bad_upgrade\"} 2\n"), "{text}");
}

#[tokio::test]
async fn crumbs_of_http2_are_one_field_to_the_app() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::of("app.localhost");
    let (cert, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    std::fs::write(&cert, &certificate.cert_pem).unwrap();
    std::fs::write(&key, &certificate.key_pem).unwrap();
    let lines = format!(
        "workers = 2\nhttps = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]\n",
        cert.display(),
        key.display()
    );
    let text = |upstream: &str| config_text(upstream, "", BY_HEADER, POLICY).replace("workers = 2\n", &lines);
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let tls = Some(Tls { root: certificate.root, h2: true });
    let browser = Browser::with(world.gateway.https.unwrap(), Options { tls, ..Options::default() });
    let large = "x".repeat(20_000);
    let request = Ask::get(Mode::Fetch, "/poll")
        .with("cookie", &format!("theme=dark; lang=de; made-up=1; large={large}"));
    assert_eq!(browser.send(request).await.unwrap().status, 200);
    let seen = world.app.last_request();
    assert_eq!(seen.all("cookie"), [format!("theme=dark; lang=de; made-up=1; large={large}")]);
}

#[tokio::test]
async fn the_status_says_all_that_a_page_needs_and_no_more() {
    let policy = POLICY.replace("max_concurrent = 2", "max_concurrent = 1\non_limit = \"refuse\"");
    let world = World::with(|s| s.identity_headers = true, "", BY_HEADER, &policy).await;
    let now = world.clock.now();
    let at = |seconds: u64| json!(now.plus(tenure::session::Span::from_secs(seconds)).to_rfc3339());
    let status = async |browser: &Browser| browser.fetch("/.tenure/status").await.json();
    let said = |state: &str, reason: Value, user: Value, idle: Value, lifetime: Value| {
        json!({ "state": state, "reason": reason, "user": user, "idle_expires_at": idle,
                "lifetime_expires_at": lifetime, "now": at(0) })
    };
    let null = || Value::Null;
    let nobody = world.browser();
    assert_eq!(status(&nobody).await, said("none", null(), null(), null(), null()));
    let first = world.signed_in("ann").await;
    assert_eq!(status(&first).await, said("active", null(), json!("ann"), at(3600), at(8 * 3600)));
    let second = world.browser();
    post_login(&second, "ann").await;
    assert_eq!(status(&second).await, said("pending", null(), null(), null(), null()));
    world.revoke("ann").await;
    assert_eq!(status(&first).await, said("ended", json!("revoked"), null(), null(), null()));
}

#[tokio::test]
async fn visitors_without_a_name_are_bounded_as_configured() {
    let world =
        World::with(|s| s.anonymous_cookie = true, "", BY_HEADER, "[limits]\nanonymous_sessions = 10\n")
            .await;
    for _ in 0..50 {
        world.browser().fetch("/poll").await;
    }
    assert_eq!(world.sessions(tenure::store::StateFilter::Active).len(), 10);
    let text = world.gateway.handle().metrics_text();
    assert!(text.contains("tenure_evicted_total{app=\"app\"} 40\n"), "{text}");
}
