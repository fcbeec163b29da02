use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::*;

/// Starts the app; it ends when the returned set is dropped.
async fn start() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut owner = JoinSet::new();
    owner.spawn(run(listener));
    (address, owner)
}

/// One request on a connection of its own; the whole answer as text.
async fn ask(address: &str, method: &str, path: &str, cookie: Option<&str>, body: &str) -> String {
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{cookie}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The session cookie as an answer sets it.
fn set_cookie(answer: &str) -> Option<String> {
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "))?;
    line.split(';').next().map(str::to_owned)
}

async fn sign_in(address: &str) -> String {
    set_cookie(&ask(address, "POST", "/login", None, "username=ann&password=ann").await).unwrap()
}

#[tokio::test]
async fn a_sign_in_rotates_the_session_and_a_sign_out_ends_it() {
    let (address, _owner) = start().await;
    let form = ask(&address, "GET", "/login", None, "").await;
    let before = set_cookie(&form).unwrap();
    let wrong = ask(&address, "POST", "/login", Some(&before), "username=ann&password=no").await;
    assert!(wrong.starts_with("HTTP/1.1 200") && wrong.contains("Wrong user name"));
    let right = ask(&address, "POST", "/login", Some(&before), "username=ann&password=ann").await;
    assert!(right.starts_with("HTTP/1.1 302"));
    let after = set_cookie(&right).unwrap();
    assert_ne!(before, after);
    assert!(ask(&address, "GET", "/", Some(&after), "").await.contains("Ann Archer"));
    assert!(ask(&address, "GET", "/", Some(&before), "").await.contains("location: /login"));
    ask(&address, "POST", "/logout", Some(&after), "").await;
    assert!(ask(&address, "GET", "/", Some(&after), "").await.contains("location: /login"));
}

#[tokio::test]
async fn strangers_get_the_form_and_nothing_else() {
    let (address, _owner) = start().await;
    for path in ["/", "/inbox", "/clock", "/ticker", "/nowhere"] {
        assert!(ask(&address, "GET", path, None, "").await.starts_with("HTTP/1.1 302"), "{path}");
    }
    for path in ["/notifications", "/ws", "/events"] {
        assert!(
            ask(&address, "GET", path, Some("LEGACYSID=x"), "").await.starts_with("HTTP/1.1 401"),
            "{path}"
        );
    }
    let long = format!("username={}", "a".repeat(20_000));
    assert!(ask(&address, "POST", "/login", None, &long).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn every_page_is_there_for_those_who_signed_in() {
    let (address, _owner) = start().await;
    let cookie = sign_in(&address).await;
    for path in ["/", "/inbox", "/clock", "/ticker", "/static/app.js", "/static/style.css", "/notifications"]
    {
        assert!(ask(&address, "GET", path, Some(&cookie), "").await.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(ask(&address, "GET", "/nowhere", Some(&cookie), "").await.starts_with("HTTP/1.1 404"));
    assert!(ask(&address, "POST", "/clock", Some(&cookie), "").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn the_clock_ticks_answers_pings_and_closes() {
    let (address, _owner) = start().await;
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert("cookie", sign_in(&address).await.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let tick = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(tick.len(), "00:00:00".len());
    socket.send(Message::Ping("x".into())).await.unwrap();
    while socket.next().await.unwrap().unwrap() != Message::Pong("x".into()) {}
    socket.close(None).await.unwrap();
    while let Some(message) = socket.next().await {
        assert!(message.is_ok());
    }
}

#[tokio::test]
async fn events_keep_coming() {
    let (address, _owner) = start().await;
    let cookie = sign_in(&address).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /events HTTP/1.1\r\nHost: app\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("id: 2") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "the stream ended: {text}");
        text.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    assert!(text.contains("content-type: text/event-stream"));
}

#[tokio::test]
async fn all_connections_end_with_the_app() {
    let (address, owner) = start().await;
    let cookie = sign_in(&address).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /events HTTP/1.1\r\nHost: app\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
    drop(owner);
    let mut rest = Vec::new();
    // The end may arrive as a reset: what matters is that it arrives.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(&address).await.is_err());
}
