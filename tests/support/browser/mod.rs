//! A client that is true to a browser where a session gateway could tell: one cookie jar for all tabs, `Set-Cookie`
//! learned from every answer (redirects and handshakes too), the headers of navigations and fetches, redirects
//! followed by the Fetch standard's rules, connections reused.
//!
//! A [`Browser`] is one tab; [`Browser::new_tab`] opens another on the same jar. Every host is found at the address
//! that the browser was made for, unless [`Browser::resolve`] says otherwise; pages are served from
//! `app.localhost`, which browsers trust with `Secure` cookies over plain HTTP.

mod ask;
mod cookie;
mod events;
mod jar;
mod net;
mod page;
mod raw;
mod socket;
mod url;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use serde_json::Value;
use tenure::clock::Clock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::wait::PATIENCE;
pub use ask::{Agent, Ask, Mode};
pub use cookie::{SameSite, SetCookie, date};
pub use events::{Event, EventStream};
pub use jar::{From, Jar, Stored};
use net::{Body, Exchange, Net};
pub use net::{NetError, Tls};
pub use page::{Hop, Opened, Page};
pub use raw::{RawAnswer, RawSocket};
pub use socket::{Heard, WebSocket};
pub use url::Url;

/// As many as Chromium follows.
const MOST_REDIRECTS: usize = 20;

/// What a browser is made of; [`Options::default`] is a modern one over plain HTTP.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host of the pages.
    pub host: String,
    /// HTTPS in place of HTTP.
    pub tls: Option<Tls>,
    /// Name and age of the browser.
    pub agent: Agent,
    /// The time that cookies expire by.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        let name = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        Self {
            host: "app.localhost".to_owned(),
            tls: None,
            agent: Agent { name: name.to_owned(), sec_fetch: true },
            clock: Clock::system(),
        }
    }
}

struct Profile {
    jar: Mutex<Jar>,
    net: Arc<Net>,
    agent: Agent,
    clock: Clock,
    home: Url,
}

/// One tab of a browser.
pub struct Browser {
    profile: Arc<Profile>,
    page: Mutex<Option<Url>>,
}

/// An upload whose body the test writes piece by piece.
pub struct Upload {
    /// The body; dropping it ends the body properly.
    pub body: mpsc::Sender<Bytes>,
    /// The answer; aborting it breaks the upload off.
    pub answer: JoinHandle<Result<Page, NetError>>,
}

impl Browser {
    /// A modern browser whose pages come from `addr`, over plain HTTP.
    pub fn at(addr: SocketAddr) -> Self {
        Self::with(addr, Options::default())
    }

    /// A browser of one's own.
    pub fn with(addr: SocketAddr, options: Options) -> Self {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let home = Url::parse(&format!("{scheme}://{}:{}/", options.host, addr.port()));
        let profile = Profile {
            jar: Mutex::default(),
            net: Arc::new(Net::new(addr, options.tls.as_ref())),
            agent: options.agent,
            clock: options.clock,
            home: home.expect("host and port make a URL"),
        };
        Self { profile: Arc::new(profile), page: Mutex::new(None) }
    }

    /// Another tab: same jar, same connections, no page yet.
    pub fn new_tab(&self) -> Self {
        Self { profile: self.profile.clone(), page: Mutex::new(None) }
    }

    /// This host is at `addr`.
    pub fn resolve(&self, host: &str, addr: SocketAddr) {
        self.profile.net.resolve(host, addr);
    }

    /// The URL of a path on the pages' host.
    pub fn url(&self, reference: &str) -> Url {
        self.profile.home.join(reference).expect("a test asks for a valid URL")
    }

    /// The page that the tab shows.
    pub fn page(&self) -> Option<Url> {
        self.page.lock().clone()
    }

    /// Looks at, or changes, the jar.
    pub fn jar<T>(&self, look: impl FnOnce(&mut Jar) -> T) -> T {
        look(&mut self.profile.jar.lock())
    }

    /// The value of the cookie that a request to `/` would carry first.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookie_at(name, "/")
    }

    /// The value of the cookie that a request to `reference` would carry first.
    pub fn cookie_at(&self, name: &str, reference: &str) -> Option<String> {
        let (url, now) = (self.url(reference), self.now());
        self.jar(|jar| {
            let found =
                jar.matching(&url, From::SameSite, now).into_iter().find(|cookie| cookie.name == name);
            found.map(|cookie| cookie.value.clone())
        })
    }

    /// Seconds since the epoch, by the browser's clock.
    pub fn now(&self) -> i64 {
        i64::try_from(self.profile.clock.now().unix_ms() / 1000).unwrap_or(i64::MAX)
    }

    /// Drops the idle connections.
    pub async fn hang_up(&self) {
        self.profile.net.hang_up().await;
    }

    /// Follows a link, or types an address into a fresh tab; panics when nothing answers.
    pub async fn navigate(&self, reference: &str) -> Page {
        arrived(self.send(Ask::get(Mode::Navigate, reference)).await)
    }

    /// `fetch(reference)`; panics when nothing answers.
    pub async fn fetch(&self, reference: &str) -> Page {
        arrived(self.send(Ask::get(Mode::Fetch, reference)).await)
    }

    /// Fetches with these cookies in place of the jar's, as a thief of them would: the jar learns nothing of it.
    pub async fn fetch_with_cookie(&self, reference: &str, cookie: &str) -> Page {
        let held = self.hold(Ask::get(Mode::Fetch, reference).with("cookie", cookie)).await;
        arrived(arrived(held).page().await)
    }

    /// Submits a form; panics when nothing answers.
    pub async fn post_form(&self, reference: &str, fields: &[(&str, &str)]) -> Page {
        arrived(self.send(Ask::form(reference, fields)).await)
    }

    /// Submits a multipart form; panics when nothing answers.
    pub async fn post_multipart(&self, reference: &str, fields: &[(&str, &str)]) -> Page {
        arrived(self.send(Ask::multipart(reference, fields)).await)
    }

    /// A script posts JSON; panics when nothing answers.
    pub async fn post_json(&self, reference: &str, value: &Value) -> Page {
        arrived(self.send(Ask::json(reference, value)).await)
    }

    /// Asks, and reads the answer to its end.
    pub async fn send(&self, ask: Ask) -> Result<Page, NetError> {
        self.open(ask).await?.page().await
    }

    /// Asks, follows redirects, and leaves the last answer's body to be read.
    pub async fn open(&self, mut ask: Ask) -> Result<Opened, NetError> {
        let from = self.page();
        let mut url = self.place(&ask)?;
        let mut chain = Vec::new();
        loop {
            let mut opened = self.ask_once(&ask, &url, from.as_ref()).await?;
            self.learn(&opened.url, &opened.headers);
            let Some(next) = redirect(&opened).filter(|_| ask.follow) else {
                if ask.mode == Mode::Navigate {
                    *self.page.lock() = Some(url);
                }
                opened.chain = chain;
                return Ok(opened);
            };
            if chain.len() == MOST_REDIRECTS {
                return Err(NetError::Redirects);
            }
            let hop = opened.page().await?;
            ask.redirected(hop.status);
            chain.push(Hop { url, status: hop.status, headers: hop.headers });
            url = next.ok_or(NetError::Nowhere)?;
        }
    }

    /// Asks once, and keeps the answer's cookies out of the jar until [`Browser::deliver`]: tests shuffle the order
    /// in which answers arrive.
    pub async fn hold(&self, ask: Ask) -> Result<Opened, NetError> {
        let url = self.place(&ask)?;
        self.ask_once(&ask, &url, self.page().as_ref()).await
    }

    /// Lets a held answer arrive.
    pub async fn deliver(&self, held: Opened) -> Result<Page, NetError> {
        self.learn(&held.url, &held.headers);
        held.page().await
    }

    /// Opens an event stream; panics when nothing answers.
    pub async fn event_stream(&self, reference: &str) -> EventStream {
        EventStream::new(arrived(self.open(Ask::get(Mode::EventSource, reference)).await))
    }

    /// Opens a WebSocket (over HTTP/1.1, also where pages come by HTTP/2), or returns the answer that refused it;
    /// panics when nothing answers.
    pub async fn websocket(&self, reference: &str) -> Result<WebSocket, Box<Page>> {
        self.websocket_with(Ask::get(Mode::WebSocket, reference)).await
    }

    /// The same, with an ask of one's own.
    pub async fn websocket_with(&self, ask: Ask) -> Result<WebSocket, Box<Page>> {
        let key = generate_key();
        let ask = ask
            .with("connection", "Upgrade")
            .with("upgrade", "websocket")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", &key);
        let url = arrived(self.place(&ask));
        let page = self.page().unwrap_or_else(|| self.profile.home.clone());
        let request = self.request(&ask, &url, Some(&page), whole(Bytes::new()));
        let sent = timeout(PATIENCE, self.profile.net.send_fresh(&url, request, false));
        let Exchange { mut answer, .. } = arrived(sent.await.unwrap_or(Err(NetError::Patience)));
        self.learn(&url, answer.headers());
        if answer.status() != 101 {
            return Err(Box::new(arrived(opened(url, answer, None).page().await)));
        }
        let accept = answer.headers().get("sec-websocket-accept").map(HeaderValue::as_bytes);
        assert_eq!(
            accept,
            Some(derive_accept_key(key.as_bytes()).as_bytes()),
            "the handshake's proof is wrong"
        );
        let headers = answer.headers().clone();
        let upgraded =
            hyper::upgrade::on(&mut answer).await.expect("the connection is handed over after a 101");
        Ok(WebSocket::new(headers, upgraded).await)
    }

    /// Begins an upload by a script, on a connection of its own.
    pub fn upload(&self, reference: &str) -> Upload {
        let (body, pieces) = mpsc::channel::<Bytes>(1);
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
            let piece = pieces.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), pieces))
        });
        let ask = Ask::post(Mode::Fetch, reference, "application/octet-stream", Bytes::new()).no_follow();
        let tab = self.new_tab();
        let url = self.url(reference);
        let request = self.request(&ask, &url, self.page().as_ref(), StreamBody::new(pieces).boxed_unsync());
        let answer = tokio::spawn(async move {
            let Exchange { answer, .. } = tab.profile.net.send_fresh(&url, request, true).await?;
            tab.learn(&url, answer.headers());
            opened(url, answer, None).page().await
        });
        Upload { body, answer }
    }

    /// A bare socket to where the pages come from.
    pub async fn raw_socket(&self) -> RawSocket {
        let addr = self.profile.net.addr(&self.profile.home);
        RawSocket::connect(addr).await.expect("the server accepts")
    }

    /// Sends these bytes, returns what came until the peer closed: ask it to (`Connection: close`), or this takes all
    /// of a test's patience. Our side stays open, for many servers take a FIN for a client that went away.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut socket = self.raw_socket().await;
        // A peer that refuses early may close before all is written; its answer counts.
        let _ = socket.write(bytes).await;
        let _ = socket.read_to_end().await;
        socket.into_unread()
    }

    fn place(&self, ask: &Ask) -> Result<Url, NetError> {
        self.page().as_ref().unwrap_or(&self.profile.home).join(&ask.reference).ok_or(NetError::Nowhere)
    }

    async fn ask_once(&self, ask: &Ask, url: &Url, page: Option<&Url>) -> Result<Opened, NetError> {
        let make = || self.request(ask, url, page, whole(ask.body.clone()));
        let Exchange { answer, freed } =
            timeout(PATIENCE, self.profile.net.send(url, make)).await.map_err(|_| NetError::Patience)??;
        let freed = freed.map(|sender| (self.profile.net.clone(), sender));
        Ok(opened(url.clone(), answer, freed))
    }

    fn request(&self, ask: &Ask, url: &Url, page: Option<&Url>, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = url.target.parse().expect("a URL's target is a request target");
        *request.headers_mut() = ask.headers(url, page, &self.profile.agent);
        let now = self.now();
        let cookies = self.jar(|jar| jar.pairs(url, ask.site(url, page), now)).join(&b"; "[..]);
        if !cookies.is_empty() && !request.headers().contains_key(header::COOKIE) {
            let value = HeaderValue::from_bytes(&cookies).expect("the jar holds what headers can carry");
            request.headers_mut().insert(header::COOKIE, value);
        }
        request
    }

    fn learn(&self, url: &Url, headers: &HeaderMap) {
        let now = self.now();
        self.jar(|jar| {
            for line in headers.get_all(header::SET_COOKIE) {
                jar.learn(url, line.as_bytes(), now);
            }
        });
    }
}

/// `None`: no redirect. `Some(None)`: one to nowhere.
fn redirect(opened: &Opened) -> Option<Option<Url>> {
    if !matches!(opened.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = opened.headers.get(header::LOCATION)?;
    Some(opened.url.join(&String::from_utf8_lossy(location.as_bytes())))
}

fn opened(
    url: Url,
    answer: http::Response<hyper::body::Incoming>,
    freed: Option<(Arc<Net>, hyper::client::conn::http1::SendRequest<Body>)>,
) -> Opened {
    let (parts, body) = answer.into_parts();
    Opened { status: parts.status.as_u16(), headers: parts.headers, url, chain: Vec::new(), body, freed }
}

fn whole(body: Bytes) -> Body {
    Full::new(body).boxed_unsync()
}

fn arrived<T>(outcome: Result<T, NetError>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("the browser got no answer: {error}"),
    }
}
