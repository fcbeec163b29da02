//! The fixture app: one program with every habit of legacy apps that trips a gateway up, over real sockets.
//!
//! It keeps its own sessions, knows nothing of a gateway, records every request as it came and every token that it
//! ever handed out. A user is any name with [`PASSWORD`]; tenant and role follow from the name (see
//! [`Person::named`]). It lives until the [`App`] is dropped.
//!
//! Paths: `/login`, `/mfa`, `/logout`, `/`, `/page`, `/me`, `/api/whoami`, `/poll`, `/slow?ms=` (without `ms` it waits
//! for [`App::release`]), `/events`, `/ws`, `/upload?early=` (with `early` it answers first), `/download?bytes=&hold=&trailers=`,
//! `/echo`, `/status?code=`, `/static/app.css`.

mod answer;
mod form;
mod routes;
mod serve;
mod sessions;
mod streams;
mod switches;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::logs::LogBuffer;
use super::search::TokenSearch;
pub use sessions::Person;
use sessions::Sessions;
pub use streams::pattern;
pub use switches::{Attributes, BadHeader, CloseAfter, Profile, Resurrect, Switches, WrongPassword};

/// The password of every user; odd enough that an encoded leak differs from a plain one.
pub const PASSWORD: &str = "correct horse/battery+staple&7";
/// The code of the second step.
pub const MFA_CODE: &str = "271828";

/// The newest requests are kept up to this many.
const MOST_RECORDED: usize = 200_000;

/// A request as the app received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The connection it came on, counted from 1.
    pub connection: usize,
    /// The head's bytes.
    pub raw: Vec<u8>,
    /// The method.
    pub method: String,
    /// The target, unparsed.
    pub target: String,
    /// Names in their own case, and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body's first 64 KiB.
    pub body: Vec<u8>,
    /// Who the app took it to be from.
    pub user: Option<String>,
}

impl Seen {
    /// All values of a header, as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The value of a header that should stand once: panics when it stands twice.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() < 2, "{name} stands {} times", all.len());
        all.pop()
    }
}

/// How a WebSocket ended, as the app saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketEnd {
    /// The peer's close code; `None` when the connection just broke off.
    pub code: Option<u16>,
    /// The peer's reason.
    pub reason: String,
}

impl WebSocketEnd {
    fn of(frame: Option<CloseFrame>) -> Self {
        // 1005: RFC 6455's own number for a Close frame without a code.
        frame.map_or(Self { code: Some(1005), reason: String::new() }, |frame| Self {
            code: Some(frame.code.into()),
            reason: frame.reason.as_str().to_owned(),
        })
    }
}

/// What the app's tasks share.
pub struct Shared {
    switches: Mutex<Switches>,
    sessions: Mutex<Sessions>,
    seen: Mutex<Vec<Seen>>,
    socket_ends: Mutex<Vec<WebSocketEnd>>,
    push: broadcast::Sender<String>,
    gate: Semaphore,
    waiting: AtomicUsize,
    streams: AtomicUsize,
    connections: AtomicUsize,
    open_connections: AtomicUsize,
    uploaded: AtomicU64,
    polls: AtomicU64,
}

impl Shared {
    fn poll_count(&self) -> u64 {
        self.polls.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn wait_at_gate(&self) {
        let _counted = Counted::one(&self.waiting);
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }
}

/// Counts one for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The running app. Dropping it ends it and all its connections.
pub struct App {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
    /// How much this process had logged when the app started.
    logged: usize,
}

/// Whatever a test is about: no token that the app handed out may stand in a log line or a panic (law 10).
impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
        let long = self.issued_tokens().into_iter().filter(|token| token.len() >= 16);
        let search = TokenSearch::new(long);
        if !std::thread::panicking() && search.tokens() > 0 {
            search.assert_none([("the log", LogBuffer::global().since(self.logged))]);
        }
    }
}

impl App {
    /// Starts a well-behaved app on a free port.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts an app with the habits that `set` switches on.
    pub async fn with(set: impl FnOnce(&mut Switches)) -> Self {
        let mut switches = Switches::default();
        set(&mut switches);
        let shared = Arc::new(Shared {
            switches: Mutex::new(switches),
            sessions: Mutex::default(),
            seen: Mutex::default(),
            socket_ends: Mutex::default(),
            push: broadcast::Sender::new(64),
            gate: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open_connections: AtomicUsize::new(0),
            uploaded: AtomicU64::new(0),
            polls: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("the listener has an address");
        let task = tokio::spawn(serve::accept(shared.clone(), listener)).abort_handle();
        Self { addr, shared, task, logged: LogBuffer::global().len() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`, as an upstream is written in a configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Turns switches; requests that have already come are answered by the old ones.
    pub fn set(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.shared.switches.lock());
    }

    /// The requests so far, in the order of their heads' arrival.
    pub fn requests(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock();
        assert!(seen.len() < MOST_RECORDED, "more requests than are recorded");
        seen.clone()
    }

    /// The requests whose target begins with `path`.
    pub fn requests_to(&self, path: &str) -> Vec<Seen> {
        self.requests().into_iter().filter(|seen| seen.target.starts_with(path)).collect()
    }

    /// The newest request.
    pub fn last_request(&self) -> Seen {
        self.shared.seen.lock().last().cloned().expect("the app has seen a request")
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.seen.lock().clear();
    }

    /// Whether a recorded request carried this value, in any spelling, in head or body.
    pub fn saw_token(&self, value: &str) -> bool {
        let search = TokenSearch::new([value]);
        let seen = self.requests();
        seen.iter().any(|seen| {
            !search.find("head", &seen.raw).is_empty() || !search.find("body", &seen.body).is_empty()
        })
    }

    /// Every token that the app ever handed out, companions and chunks included.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.shared.sessions.lock().issued()
    }

    /// The next session cookie is to have this value (an app that uses an old id again).
    pub fn hand_out(&self, token: &str) {
        self.shared.sessions.lock().hand_out(token);
    }

    /// Forgets all sessions, as a restart of the app would.
    pub fn forget_sessions(&self) {
        self.shared.sessions.lock().forget();
    }

    /// How many of the app's own sessions are signed in.
    pub fn signed_in(&self) -> usize {
        self.shared.sessions.lock().signed_in()
    }

    /// How many requests wait at the gate (`/slow`, `/download?hold=`).
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::SeqCst)
    }

    /// Lets `count` requests through the gate, now or when they come.
    pub fn release(&self, count: usize) {
        self.shared.gate.add_permits(count);
    }

    /// Says `text` on every open event stream and WebSocket; returns on how many.
    pub fn push(&self, text: &str) -> usize {
        self.shared.push.send(text.to_owned()).unwrap_or(0)
    }

    /// How many event streams, WebSockets and downloads are open.
    pub fn open_streams(&self) -> usize {
        self.shared.streams.load(Ordering::SeqCst)
    }

    /// How the WebSockets ended, in order.
    pub fn web_socket_ends(&self) -> Vec<WebSocketEnd> {
        self.shared.socket_ends.lock().clone()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open_connections.load(Ordering::SeqCst)
    }

    /// Body bytes that arrived at `/upload`, also of uploads that never ended.
    pub fn uploaded(&self) -> u64 {
        self.shared.uploaded.load(Ordering::SeqCst)
    }
}
