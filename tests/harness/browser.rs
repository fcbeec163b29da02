//! The browser's manners and its ways to connect, and the app's bad ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tenure::clock::Clock;
use tenure::session::{Moment, Span};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::app::{App, BadHeader, CloseAfter, PASSWORD, WebSocketEnd, pattern};
use crate::support::browser::{Ask, Browser, Heard, Mode, NetError, Options, Tls, Url};
use crate::support::tls::Certificate;
use crate::support::wait::{PATIENCE, eventually};

async fn signed_in() -> (App, Browser) {
    let app = App::start().await;
    let browser = Browser::at(app.addr());
    browser.post_form("/login", &[("username", "ann"), ("password", PASSWORD)]).await;
    (app, browser)
}

#[tokio::test]
async fn a_navigation_and_a_fetch_can_be_told_apart() {
    let (app, browser) = signed_in().await;
    browser.navigate("/page").await;
    let seen = app.last_request();
    assert_eq!(seen.header("sec-fetch-mode").as_deref(), Some("navigate"));
    assert_eq!(seen.header("sec-fetch-site").as_deref(), Some("same-origin"));
    assert!(seen.header("accept").unwrap().starts_with("text/html"));
    assert_eq!(seen.header("origin"), None);
    browser.fetch("/poll").await;
    let seen = app.last_request();
    assert_eq!(seen.header("sec-fetch-mode").as_deref(), Some("cors"));
    assert_eq!(
        (seen.header("accept").as_deref(), seen.header("upgrade-insecure-requests")),
        (Some("*/*"), None)
    );
    assert_eq!(seen.header("referer"), Some(browser.url("/page").to_string()));
    let post = app.requests_to("/login").pop().unwrap();
    assert_eq!((post.method.as_str(), post.header("sec-fetch-site").as_deref()), ("POST", Some("none")));
}

#[tokio::test]
async fn an_old_browser_sends_no_fetch_metadata() {
    let app = App::start().await;
    let mut options = Options::default();
    options.agent.sec_fetch = false;
    Browser::with(app.addr(), options).navigate("/page").await;
    assert!(app.requests().iter().all(|seen| seen.header("sec-fetch-mode").is_none()));
}

#[tokio::test]
async fn another_site_s_link_brings_lax_cookies_and_its_script_none() {
    let (app, browser) = signed_in().await;
    let evil = Url::parse("http://evil.example/").unwrap();
    browser.send(Ask::get(Mode::Navigate, "/page").initiated_by(&evil)).await.unwrap();
    let link = app.last_request();
    assert!(link.header("cookie").is_some());
    assert_eq!(link.header("sec-fetch-site").as_deref(), Some("cross-site"));
    assert_eq!(link.header("referer").as_deref(), Some("http://evil.example/"));
    browser.send(Ask::get(Mode::Fetch, "/me").initiated_by(&evil)).await.unwrap();
    let script = app.last_request();
    assert_eq!(
        (script.header("cookie"), script.header("origin").as_deref()),
        (None, Some("http://evil.example"))
    );
}

#[tokio::test]
async fn tabs_share_the_jar_and_shuffled_answers_arrive_in_the_test_s_order() {
    let (app, browser) = signed_in().await;
    app.set(|s| s.profile = crate::support::app::Profile::RotateEach);
    let other = browser.new_tab();
    let first = browser.hold(Ask::get(Mode::Fetch, "/poll")).await.unwrap();
    let second = other.hold(Ask::get(Mode::Fetch, "/poll")).await.unwrap();
    let value = |page: &crate::support::browser::Page| page.all("set-cookie")[0][4..36].to_owned();
    let second = other.deliver(second).await.unwrap();
    assert_eq!(browser.cookie("SID"), Some(value(&second)));
    let first = browser.deliver(first).await.unwrap();
    assert_eq!(other.cookie("SID"), Some(value(&first)), "the answer that came last wins");
}

#[tokio::test]
async fn redirects_are_followed_as_the_standard_says() {
    let (app, browser) = signed_in().await;
    let next = |path: &str| vec![("Location".to_owned(), path.to_owned())];
    for (status, method, body) in
        [(302, "GET", ""), (303, "GET", ""), (307, "POST", "x=1"), (308, "POST", "x=1")]
    {
        app.set(|s| s.extra_headers = next("/echo"));
        let page = browser.post_form(&format!("/status?code={status}"), &[("x", "1")]).await;
        let echo = page.json();
        assert_eq!((echo["method"].as_str(), echo["body"].as_str()), (Some(method), Some(body)), "{status}");
    }
    let page = browser.send(Ask::get(Mode::Fetch, "/status?code=302").no_follow()).await.unwrap();
    assert_eq!(page.status, 302);
    app.set(|s| s.extra_headers = next("/status?code=302"));
    let endless = browser.send(Ask::get(Mode::Navigate, "/status?code=302")).await;
    assert!(matches!(endless, Err(NetError::Redirects)));
    app.set(|s| (s.extra_headers, s.absolute_location) = (Vec::new(), true));
    browser.navigate("/logout").await;
    let page = browser.navigate("/page").await;
    assert!(page.chain[0].headers["location"].to_str().unwrap().starts_with("http://app.localhost:"));
    assert_eq!(page.url.path(), "/login");
}

#[tokio::test]
async fn cookies_expire_by_the_browser_s_clock() {
    let app = App::with(|s| s.attributes.max_age = Some(60)).await;
    let clock = Clock::manual(Moment::from_unix_ms(1_800_000_000_000));
    let browser = Browser::with(app.addr(), Options { clock: clock.clone(), ..Options::default() });
    browser.post_form("/login", &[("username", "ann"), ("password", PASSWORD)]).await;
    clock.advance(Span::from_secs(59));
    assert!(browser.cookie("SID").is_some());
    clock.advance(Span::from_secs(1));
    assert_eq!(browser.cookie("SID"), None);
}

#[tokio::test]
async fn a_web_socket_echoes_speaks_unasked_and_closes_from_either_side() {
    let (app, browser) = signed_in().await;
    let mut socket = browser.websocket("/ws").await.unwrap();
    let handshake = app.last_request();
    assert_eq!(handshake.user.as_deref(), Some("ann"));
    assert_eq!(handshake.header("origin"), Some(browser.url("/").origin()));
    assert!(socket.say("hello").await && socket.say_binary(&b"\x00\xff"[..]).await);
    assert_eq!(socket.hear().await, Heard::Text("hello".to_owned()));
    assert_eq!(socket.hear().await, Heard::Binary(Bytes::from_static(b"\x00\xff")));
    assert_eq!((app.open_streams(), app.push("news")), (1, 1));
    assert_eq!(socket.hear().await, Heard::Text("news".to_owned()));
    assert_eq!(socket.close(4000, "bye").await, Heard::Closed { code: 4000, reason: "bye".to_owned() });
    eventually(PATIENCE, async || app.open_streams() == 0).await;
    assert_eq!(app.web_socket_ends(), vec![WebSocketEnd { code: Some(4000), reason: "bye".to_owned() }]);

    app.set(|s| s.tick = Some(Duration::from_millis(1)));
    let mut socket = browser.websocket("/ws").await.unwrap();
    assert_eq!(socket.hear().await, Heard::Text("tick".to_owned()));
    socket.say("please close").await;
    assert_eq!(socket.hear_end().await, Heard::Closed { code: 1005, reason: String::new() });

    app.set(|s| s.tick = None);
    let mut socket = browser.websocket("/ws").await.unwrap();
    drop(app);
    assert_eq!(socket.hear_end().await, Heard::Broken);
}

#[tokio::test]
async fn a_refused_web_socket_is_a_page() {
    let (app, browser) = signed_in().await;
    app.set(|s| s.refuse_upgrade = Some(403));
    let page = browser.websocket("/ws").await.err().unwrap();
    assert_eq!((page.status, page.text().contains("No sockets")), (403, true));
    assert_eq!(browser.fetch("/ws").await.status, 403);
}

#[tokio::test]
async fn an_event_stream_is_heard_and_ends() {
    let (app, browser) = signed_in().await;
    let mut stream = browser.event_stream("/events").await;
    let hello = stream.next().await.unwrap().unwrap();
    assert_eq!((hello.event.as_str(), hello.data.as_str()), ("hello", "ann"));
    assert_eq!(app.last_request().header("accept").as_deref(), Some("text/event-stream"));
    app.push("one");
    app.push("two");
    assert_eq!(stream.next().await.unwrap().unwrap().data, "one");
    let two = stream.next().await.unwrap().unwrap();
    assert_eq!((two.id.as_str(), two.data.as_str()), ("2", "two"));
    drop(stream);
    eventually(PATIENCE, async || app.open_streams() == 0).await;
    app.set(|s| s.http10 = true);
    let mut stream = browser.event_stream("/events").await;
    assert_eq!(stream.next().await.unwrap().unwrap().event, "hello");
    drop(app);
    assert!(stream.next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_upload_is_counted_as_it_comes() {
    let (app, browser) = signed_in().await;
    let upload = browser.upload("/upload");
    upload.body.send(Bytes::from_static(&[7; 1000])).await.unwrap();
    eventually(PATIENCE, async || app.uploaded() == 1000).await;
    upload.body.send(Bytes::from_static(&[7; 500])).await.unwrap();
    drop(upload.body);
    assert_eq!(upload.answer.await.unwrap().unwrap().json()["bytes"], 1500);
    let broken = browser.upload("/upload");
    broken.body.send(Bytes::from_static(b"abc")).await.unwrap();
    eventually(PATIENCE, async || app.uploaded() == 1503).await;
    broken.answer.abort();
    eventually(PATIENCE, async || app.open_connections() == 1).await;
}

#[tokio::test]
async fn a_download_is_a_pattern_with_a_gate_and_trailers() {
    let (app, browser) = signed_in().await;
    let page = browser.fetch("/download?bytes=70000").await;
    assert_eq!(page.body, pattern(0, 70_000));
    let mut held = browser.open(Ask::get(Mode::Fetch, "/download?bytes=40000&hold=16384")).await.unwrap();
    let first = held.piece().await.unwrap().unwrap();
    eventually(PATIENCE, async || app.waiting() == 1).await;
    app.release(1);
    let rest = held.page().await.unwrap();
    assert_eq!([&first[..], &rest.body[..]].concat(), pattern(0, 40_000));
    let page = browser.fetch("/download?bytes=20000&trailers=1").await;
    assert_eq!((page.body.len(), page.trailers.unwrap()["x-checksum"].to_str().unwrap()), (20_000, "251"));
}

#[tokio::test]
async fn connections_are_reused_and_a_stale_one_is_replaced() {
    let (app, browser) = signed_in().await;
    browser.fetch("/poll").await;
    browser.navigate("/page").await;
    assert_eq!(app.connections(), 1);
    app.set(|s| s.close_after = CloseAfter::Answers(1));
    browser.fetch("/poll").await;
    browser.fetch("/poll").await;
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn bad_habits_of_answers_show_on_the_wire() {
    let (app, browser) = signed_in().await;
    const ASK: &str = "GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let raw = async || String::from_utf8_lossy(&browser.raw(ASK).await).into_owned();
    app.set(|s| (s.fold_headers, s.anonymous_cookie) = (true, true));
    assert!(raw().await.contains(";\r\n\tPath=/"));
    app.set(|s| (s.fold_headers, s.http10) = (false, true));
    let answer = raw().await;
    assert!(answer.starts_with("HTTP/1.0 302") && !answer.contains("Content-Length"));
    app.set(|s| (s.http10, s.early_hints, s.chunked_answers) = (false, true, true));
    let answer = raw().await;
    assert!(answer.starts_with("HTTP/1.1 103") && answer.ends_with("\r\n0\r\n\r\n"));
    for (habit, line) in [
        (BadHeader::SpaceInName, "X Legacy Name: cafe\r\n"),
        (BadHeader::SpaceBeforeColon, "X-Legacy-Name : cafe\r\n"),
        (BadHeader::NoColon, "X-Legacy-Name\r\n"),
        (BadHeader::Latin1, "X-Legacy-Name: caf\u{fffd}\r\n"),
    ] {
        app.set(|s| s.bad_header = habit);
        assert!(raw().await.contains(line), "{habit:?}");
        assert_eq!(browser.fetch("/me").await.status, 200, "a browser is lenient: {habit:?}");
    }
}

#[tokio::test]
async fn answers_break_off_as_switched() {
    let (app, browser) = signed_in().await;
    app.set(|s| s.close_after = CloseAfter::FinMidAnswer);
    assert!(matches!(browser.send(Ask::get(Mode::Fetch, "/page")).await, Err(NetError::Body(_))));
    app.set(|s| s.close_after = CloseAfter::Reset);
    assert!(matches!(browser.send(Ask::get(Mode::Fetch, "/page")).await, Err(NetError::Http(_))));
    let mut socket = browser.raw_socket().await;
    socket.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let error = socket.read_to_end().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_body_waits_for_continue_unless_the_app_is_silent() {
    let (app, browser) = signed_in().await;
    const HEAD: &str =
        "POST /upload HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut socket = browser.raw_socket().await;
    socket.write(HEAD).await.unwrap();
    assert_eq!(socket.answer(false).await.unwrap().status, 100);
    socket.write("abc").await.unwrap();
    let answer = socket.answer(false).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"bytes\":3}"[..]));
    app.set(|s| s.ignore_expect = true);
    socket.write([HEAD, "abc"].concat()).await.unwrap();
    assert_eq!(socket.answer(false).await.unwrap().status, 200);
    socket.write("HEAD /page HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let head = socket.answer(true).await.unwrap();
    assert_eq!((head.status, head.all("content-length").len()), (302, 1));
    socket
        .write("POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(socket.answer(false).await.unwrap().body, b"{\"bytes\":2}");
    socket.write("no HTTP at all\r\n\r\n").await.unwrap();
    assert_eq!(socket.answer(false).await.unwrap().status, 400);
}

/// A TLS server that tells the HTTP version and every `Cookie` field it saw.
async fn tls_server() -> (SocketAddr, Certificate) {
    let certificate = Certificate::of("app.localhost");
    let acceptor = TlsAcceptor::from(Arc::new(certificate.server(&["h2", "http/1.1"])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let (stream, service) = (TokioIo::new(stream), service_fn(told));
            if h2 {
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service));
            } else {
                tokio::spawn(http1::Builder::new().serve_connection(stream, service));
            }
        }
    });
    (addr, certificate)
}

async fn told(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let cookies = request.headers().get_all("cookie").iter();
    let cookies: Vec<_> =
        cookies.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let text = format!("{:?} {}", request.version(), cookies.join(" | "));
    let answer =
        Response::builder().header("set-cookie", "__Host-a=1; Path=/; Secure").header("set-cookie", "b=2");
    Ok(answer.body(Full::new(Bytes::from(text))).unwrap())
}

#[tokio::test]
async fn https_speaks_h2_with_cookie_crumbs_or_http_1_1() {
    let (addr, certificate) = tls_server().await;
    for (h2, expected) in [(true, "HTTP/2.0 __Host-a=1 | b=2"), (false, "HTTP/1.1 __Host-a=1; b=2")] {
        let options = Options { tls: Some(Tls { root: certificate.root.clone(), h2 }), ..Options::default() };
        let browser = Browser::with(addr, options);
        browser.navigate("/").await;
        assert_eq!(browser.fetch("/").await.text(), expected);
    }
}
