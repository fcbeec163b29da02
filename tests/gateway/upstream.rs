//! What the gateway makes of the connections to apps: answers that come early, end oddly, or end connections.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, config_text};
use crate::support::wait::soon;

/// An app that does with each connection what it is told.
async fn app<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
    lines: &str,
) -> World {
    app_in(serve, |usual| format!("{usual}\n{lines}")).await
}

/// The same with another configuration than the usual one.
async fn app_in<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
    change: impl FnOnce(String) -> String,
) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let usual = config_text(&url, "", BY_HEADER, POLICY).replace("workers = 2", "workers = 1");
    World::from_text(|_| {}, |_| change(usual)).await
}

/// An app that answers every request with the same bytes.
async fn saying(answer: &'static [u8]) -> World {
    let serve = move |mut stream: TcpStream| async move {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {
            let _ = stream.write_all(answer).await;
        }
    };
    app(serve, "").await
}

/// An app that tells what reached it, and answers every request alike.
async fn telling() -> (World, mpsc::UnboundedReceiver<String>) {
    telling_behind("").await
}

/// The same with `listening` in the section of the listeners.
async fn telling_behind(listening: &str) -> (World, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                tell.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    };
    let listens = |usual: String| usual.replace("workers = 1\n", &format!("workers = 1\n{listening}"));
    (app_in(serve, listens).await, told)
}

async fn raw(world: &World, request: &str) -> String {
    let answer = soon("the answer", world.browser().raw(request)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_an_answer() {
    let serve = |mut stream: TcpStream| async move {
        let mut request = [0; 4096];
        let _whole = stream.read(&mut request).await.unwrap();
        let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\nX-A: b\r\nContent-Length: 2\n\nok";
        stream.set_nodelay(true).unwrap();
        for byte in answer {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _closed = stream.read(&mut request).await;
    };
    let world = app(serve, "").await;
    let answer = String::from_utf8(soon("the answer", world.browser().raw(GET)).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-a: b\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn an_upload_comes_whole_though_the_app_has_answered() {
    const LENGTH: usize = 3_000_000;
    let (came, mut arrived) = mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let came = came.clone();
        async move {
            let mut bytes = vec![0; 64 * 1024];
            let first = stream.read(&mut bytes).await.unwrap();
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let mut body = first - head;
            while body < LENGTH {
                match stream.read(&mut bytes).await {
                    Ok(count @ 1..) => body += count,
                    _ => break,
                }
            }
            came.send(body).unwrap();
        }
    };
    let world = app(serve, "").await;
    let mut browser = world.browser().raw_socket().await;
    let head = format!("POST /upload HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {LENGTH}\r\n\r\n");
    browser.write(&head).await.unwrap();
    assert_eq!(soon("the early answer", browser.answer(false)).await.unwrap().status, 200);
    for _ in 0..LENGTH / 1000 {
        browser.write(&"x".repeat(1000)).await.unwrap();
    }
    assert_eq!(soon("the upload", arrived.recv()).await, Some(LENGTH));
}

#[tokio::test]
async fn an_upload_that_is_broken_off_after_the_answer_began_does_not_leave_the_app_waiting() {
    let (ended, mut seen) = mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let ended = ended.clone();
        async move {
            let mut bytes = vec![0; 64 * 1024];
            let _ = stream.read(&mut bytes).await.unwrap();
            // The head of an answer that goes on until the upload has come.
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
                .await
                .unwrap();
            while let Ok(1..) = stream.read(&mut bytes).await {}
            ended.send(()).unwrap();
        }
    };
    let world = app(serve, "[limits]\nbody_bytes = \"4KiB\"").await;
    let mut browser = world.browser().raw_socket().await;
    let head = "POST /upload HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    browser.write(head).await.unwrap();
    // Once the answer has begun, more comes than may.
    assert_eq!(soon("the answer's head", browser.answer(true)).await.unwrap().status, 200);
    let _ = browser.write(&format!("2000\r\n{}\r\n", "x".repeat(0x2000))).await;
    assert_eq!(soon("the end of the upload", seen.recv()).await, Some(()));
}

#[tokio::test]
async fn the_app_is_asked_for_the_path_that_was_judged() {
    let (world, mut told) = telling().await;
    for (target, asked) in [
        ("http://app.localhost?x=1", "GET /?x=1 HTTP/1.1\r\n"),
        ("http://app.localhost", "GET / HTTP/1.1\r\n"),
        ("http://app.localhost/a%20b?c=%20", "GET /a%20b?c=%20 HTTP/1.1\r\n"),
        ("/?", "GET /? HTTP/1.1\r\n"),
    ] {
        raw(&world, &format!("GET {target} HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n"))
            .await;
        let head = soon("the head", told.recv()).await.unwrap();
        assert!(head.starts_with(asked), "{head}");
    }
}

#[tokio::test]
async fn what_only_a_trusted_proxy_may_say_does_not_pass_in_any_spelling() {
    let (world, mut told) = telling().await;
    let said = "X-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nX_Real_IP: 1.2.3.4\r\nx-real_ip: 1.2.3.4\r\n\
                X_FORWARDED_PROTO: 1.2.3.4\r\nTenure_Session: 1.2.3.4\r\nMy_Own: passes\r\nTE: gzip, trailers\r\n\
                Expect: 100-continue\r\nConnection: te, close, my-own\r\n";
    raw(&world, &format!("GET / HTTP/1.1\r\nHost: app.localhost\r\n{said}\r\n")).await;
    let head = soon("the head", told.recv()).await.unwrap().to_ascii_lowercase();
    assert!(!head.contains("1.2.3.4") && !head.contains("expect"), "{head}");
    assert!(head.contains("my_own: passes\r\n"), "{head}");
    assert!(head.contains("\r\nte: trailers\r\n") && head.contains("\r\nconnection: te\r\n"), "{head}");
}

#[tokio::test]
async fn a_sign_in_is_seen_whatever_the_case_of_its_method() {
    let serve = |mut stream: TcpStream| async move {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {
            let answer = "HTTP/1.1 302 Found\r\nLocation: /\r\nSet-Cookie: SID=one\r\nX-Session-User: bob\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    for method in ["POST", "post", "Post"] {
        // The form is asked before the header, which the app sends with every answer.
        let world = app_in(serve, |usual| usual.replace(BY_HEADER, &format!("{BY_FORM}{BY_HEADER}"))).await;
        let request = format!(
            "{method} /login HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\nContent-Length: 12\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\nusername=ann"
        );
        assert!(raw(&world, &request).await.starts_with("HTTP/1.1 302 "));
        assert_eq!(world.live_of("ann").len(), 1, "{method}");
    }
}

#[tokio::test]
async fn no_word_of_a_browser_takes_the_length_from_its_body() {
    let world = World::new().await;
    let request = "POST /echo HTTP/1.1\r\nHost: app.localhost\r\nConnection: close, content-length\r\n\
                   Content-Length: 5\r\n\r\nhello";
    let answer = raw(&world, request).await;
    assert!(answer.contains("\"body\":\"hello\""), "{answer}");
}

#[tokio::test]
async fn what_an_app_says_of_a_status_reaches_the_browser() {
    let world = saying(b"HTTP/1.1 499 Quota Exceeded\r\nContent-Length: 0\r\n\r\n").await;
    let answer = raw(&world, GET).await;
    assert!(answer.starts_with("HTTP/1.1 499 Quota Exceeded\r\n"), "{answer}");
}

#[tokio::test]
async fn a_length_that_is_told_twice_is_told_once_to_the_browser() {
    for lines in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        let world = saying(answer.leak().as_bytes()).await;
        let answer = raw(&world, &GET.replace("GET", "HEAD")).await;
        assert!(answer.to_ascii_lowercase().contains("\r\ncontent-length: 5\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_whose_chunks_are_malformed_is_not_passed_off_as_whole() {
    let world = saying(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\r\n\r\n5\r\nworld\r\n0\r\n\r\n",
    )
    .await;
    let answer = raw(&world, GET).await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn connections_that_the_app_has_closed_are_closed_though_nobody_asks_for_them() {
    let (closed, mut seen) = mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let closed = closed.clone();
        async move {
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut bytes).await.unwrap_or(0), 0);
            closed.send(()).unwrap();
        }
    };
    let world = app(serve, "[limits]\nupstream_idle = \"1s\"").await;
    assert!(raw(&world, GET).await.ends_with("ok"));
    let end = tokio::time::timeout(Duration::from_secs(20), seen.recv()).await;
    assert_eq!(end.expect("it is closed"), Some(()));
}

#[tokio::test]
async fn a_trusted_proxy_lets_no_other_spelling_pass_than_its_own() {
    let (world, mut told) = telling_behind("trusted_proxies = [\"127.0.0.0/8\"]\n").await;
    let said = "X-Session-User: ann\r\nX_Session_User: bob\r\nX-Session_Tenant: bob\r\nX_Forwarded_For: bob\r\nX_Real_IP: bob\r\n\
                X-Real-IP: 1.2.3.4\r\nTenure_Session: bob\r\nMy_Own: passes\r\n";
    raw(&world, &format!("GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n{said}\r\n")).await;
    let head = soon("the head", told.recv()).await.unwrap().to_ascii_lowercase();
    assert!(!head.contains("bob"), "{head}");
    for passes in ["x-session-user: ann\r\n", "x-real-ip: 1.2.3.4\r\n", "my_own: passes\r\n"] {
        assert!(head.contains(passes), "{head}");
    }
}

#[tokio::test]
async fn an_app_hears_of_https_also_from_a_proxy_that_speaks_forwarded_alone() {
    let (world, mut told) = telling_behind("trusted_proxies = [\"127.0.0.0/8\"]\n").await;
    for (field, proto) in [
        ("Forwarded: for=9.9.9.9;proto=https", "https"),
        ("Forwarded: for=9.9.9.9;proto=http", "http"),
        ("X-Forwarded-For: 9.9.9.9", "http"),
    ] {
        raw(
            &world,
            &format!("GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n{field}\r\n\r\n"),
        )
        .await;
        let head = soon("the head", told.recv()).await.unwrap();
        assert!(head.contains(&format!("\r\nX-Forwarded-Proto: {proto}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn an_error_is_answered_though_the_browser_is_busy_sending() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = |_: &str| config_text(&format!("http://{gone}"), "", BY_HEADER, POLICY);
    let world = World::from_text(|_| {}, text).await;
    let mut browser = world.browser().raw_socket().await;
    let head = "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100000\r\n\r\n";
    browser.write(head).await.unwrap();
    browser.write("x".repeat(100_000)).await.unwrap();
    assert_eq!(soon("the answer", browser.answer(false)).await.unwrap().status, 502);
    // What was read to its end is not reset: the connection goes on.
    browser.write(GET).await.unwrap();
    assert_eq!(soon("the next answer", browser.answer(false)).await.unwrap().status, 502);
}
