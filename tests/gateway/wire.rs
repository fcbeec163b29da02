//! Requests and answers between two connections: what is reused, what is sent twice, what is refused early.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, config_text};
use crate::support::app::Profile;
use crate::support::wait::soon;

/// One upstream connection for the whole gateway.
fn narrow(upstream: &str) -> String {
    config_text(upstream, "max_upstream_connections = 1", BY_HEADER, POLICY)
        .replace("workers = 2", "workers = 1")
}

async fn raw(world: &World, request: &str) -> String {
    String::from_utf8_lossy(&world.browser().raw(request).await).into_owned()
}

#[tokio::test]
async fn connections_to_the_app_are_used_again() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    for _ in 0..30 {
        assert_eq!(browser.fetch("/poll").await.status, 200);
    }
    assert!(world.app.connections() <= 4, "{}", world.app.connections());
}

/// An upstream that answers the first request of each connection by its head alone, and reads on for ever.
async fn hasty_upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let mut answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".as_slice();
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let _ = stream.write_all(std::mem::take(&mut answer)).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn an_upload_that_never_ends_holds_up_nobody_else() {
    let url = hasty_upstream().await;
    let text = |_: &str| {
        let text = config_text(&url, "max_upstream_connections = 2", BY_HEADER, POLICY);
        text.replace("workers = 2", "workers = 1")
    };
    let world = World::from_text(|_| {}, text).await;
    // The app answers at once; the rest of the upload never comes.
    let mut stalled = world.browser().raw_socket().await;
    let head = "POST /upload HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 1000000\r\n\r\n0123456789";
    stalled.write(head).await.unwrap();
    assert_eq!(soon("the app's answer", stalled.answer(false)).await.unwrap().status, 404);
    let browser = world.browser();
    let page = soon("another's answer", browser.fetch("/poll")).await;
    assert_eq!(page.status, 404, "on a connection of its own");
}

/// An upstream that answers the first request of each connection in full, and the second with `second`.
async fn upstream(second: &'static [u8]) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = std::sync::Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for answer in [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".as_slice(), second] {
                    let Ok(1..) = stream.read(&mut buffer).await else { return };
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    (format!("http://{address}"), requests)
}

#[tokio::test]
async fn a_request_is_sent_again_only_where_nothing_was_answered() {
    for (second, status, sent) in [(b"".as_slice(), 200, 3), (b"garbage\r\n\r\n", 502, 2)] {
        let (url, requests) = upstream(second).await;
        let text = |_: &str| narrow(&url);
        let world = World::from_text(|_| {}, text).await;
        let browser = world.browser();
        assert_eq!(browser.fetch("/a").await.status, 200);
        assert_eq!(browser.fetch("/b").await.status, status, "{second:?}");
        assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), sent, "{second:?}");
    }
    let (url, requests) = upstream(b"").await;
    let world = World::from_text(|_| {}, |_: &str| narrow(&url)).await;
    let browser = world.browser();
    assert_eq!(browser.fetch("/a").await.status, 200);
    let post = browser.post_json("/b", &serde_json::json!({})).await;
    assert_eq!((post.status, requests.load(std::sync::atomic::Ordering::SeqCst)), (502, 2), "never a POST");
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_believed() {
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n";
    let (url, _) = upstream(answer).await;
    let world = World::from_text(|_| {}, |_: &str| narrow(&url)).await;
    let browser = world.browser();
    assert_eq!(browser.fetch("/a").await.status, 200);
    let page = browser.fetch("/b").await;
    assert_eq!((page.status, page.text().as_str()), (200, "whole"));
}

#[tokio::test]
async fn a_body_of_a_get_reaches_the_app() {
    let world = World::new().await;
    let request = "GET /echo HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nquery\r\n0\r\n\r\n";
    let answer = raw(&world, request).await;
    assert!(answer.contains("\"body\":\"query\""), "{answer}");
}

#[tokio::test]
async fn trailers_say_nothing_that_only_a_head_may_say() {
    let (url, _) = upstream(b"").await;
    let seen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = seen.local_addr().unwrap();
    drop(url);
    let text = |_: &str| {
        let rest = "[[app.identity]]\nfrom = \"request-header\"\nuser = \"X-Remote-User\"\n";
        config_text(&format!("http://{address}"), "", rest, POLICY)
    };
    let world = World::from_text(|_| {}, text).await;
    let mut browser = world.browser().raw_socket().await;
    let request = "POST /upload HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\
                   Trailer: Cookie, X-Remote-User, X-Checksum\r\n\r\n\
                   1\r\nx\r\n0\r\nCookie: SID=dead\r\nX-Remote-User: root\r\nX-Checksum: 7\r\n\r\n";
    browser.write(request).await.unwrap();
    let (mut app, _) = seen.accept().await.unwrap();
    let mut came = Vec::new();
    let read = async {
        while !came.ends_with(b"\r\n\r\n") || !came.windows(5).any(|part| part == b"\r\n0\r\n") {
            let mut buffer = [0; 4096];
            let count = app.read(&mut buffer).await.unwrap();
            assert!(count > 0);
            came.extend_from_slice(&buffer[..count]);
        }
    };
    soon("the whole request", read).await;
    let came = String::from_utf8_lossy(&came).to_lowercase();
    let (_, trailers) = came.split_once("\r\n0\r\n").expect("the end of the body");
    assert!(!trailers.contains("sid") && !trailers.contains("x-remote-user"), "{trailers}");
}

#[tokio::test]
async fn the_next_upstream_is_tried_where_one_cannot_be_found() {
    let text = |upstream: &str| {
        let both = format!("upstream = [\"http://no-such-host.invalid:80\", \"{upstream}\"]");
        narrow(upstream).replace(&format!("upstream = \"{upstream}\""), &both)
    };
    let world = World::from_text(|_| {}, text).await;
    for _ in 0..4 {
        world.browser().fetch("/poll").await;
        assert_eq!(world.browser().fetch("/poll").await.status, 200);
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_comes() {
    let limits = "[limits]\nbody_bytes = \"10KiB\"\n";
    let world = World::with(|s| s.profile = Profile::Opaque, "", BY_FORM, limits).await;
    for path in ["/upload", "/login"] {
        let mut browser = world.browser().raw_socket().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 20000\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n"
        );
        browser.write(head).await.unwrap();
        let answer = soon("the refusal", browser.answer(false)).await.unwrap();
        assert_eq!(answer.status, 413, "{path}");
    }
    assert!(world.app.requests().is_empty());
    let text = world.gateway.handle().metrics_text();
    assert!(text.contains("outcome=\"body_too_large\",status=\"4xx\"} 2\n"), "{text}");
}

#[tokio::test]
async fn forwarded_is_heard_from_a_trusted_proxy() {
    for (field, expected) in [
        ("Forwarded: for=6.6.6.6, for=9.9.9.9;proto=https", "9.9.9.9"),
        ("Forwarded: for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("X-Forwarded-For: \u{ff}, 203.0.113.9", "203.0.113.9"),
        ("X-Forwarded-For: 203.0.113.9\r\nForwarded: for=6.6.6.6", "203.0.113.9"),
    ] {
        let text = |upstream: &str| {
            let usual = config_text(upstream, "", BY_HEADER, POLICY);
            usual.replace("workers = 2\n", "workers = 2\ntrusted_proxies = [\"127.0.0.0/8\"]\n")
        };
        let world = World::from_text(|s| s.anonymous_cookie = true, text).await;
        let request =
            format!("GET /poll HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n{field}\r\n\r\n");
        raw(&world, &request).await;
        let sessions = world.sessions(tenure::store::StateFilter::Active);
        assert_eq!(sessions[0].ip.to_string(), expected, "{field}");
    }
}

#[tokio::test]
async fn a_sign_in_that_never_comes_whole_is_given_up() {
    let world = World::with(|_| {}, "", BY_FORM, POLICY).await;
    let mut browser = world.browser().raw_socket().await;
    let head = "POST /login HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 20\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\nusername=";
    browser.write(head).await.unwrap();
    browser.finish().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), browser.read_to_end()).await;
    assert!(ended.is_ok(), "the connection is closed");
    assert!(world.app.requests().is_empty());
}
