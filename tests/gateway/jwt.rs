//! Users by tokens of an identity provider: whom they name, keys that change, and a provider that is away.

use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tenure::config::check_text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::setup::{POLICY, World, config_text};
use crate::support::app::PASSWORD;
use crate::support::browser::{Ask, Browser, Mode};
use crate::support::logs::LogBuffer;
use crate::support::search::TokenSearch;
use crate::support::wait::{PATIENCE, eventually};

const EXPIRES: u64 = 1_750_100_000;

/// A signing key of the provider, with its name.
struct Key {
    kid: &'static str,
    key: EncodingKey,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { kid, key: EncodingKey::from_ec_der(&pair.serialize_der()) }
    }

    fn token(&self, claims: &Value) -> String {
        let mut whole = json!({ "iss": "idp", "aud": "crm", "exp": EXPIRES });
        whole.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, &whole, &self.key).unwrap()
    }

    fn names(&self, user: &str) -> String {
        self.token(&json!({ "sub": user }))
    }
}

/// A JWKS of these keys, as an answer.
fn jwks(keys: &[&Key]) -> String {
    let keys = keys.iter().map(|key| {
        let mut jwk = Jwk::from_encoding_key(&key.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(key.kid.to_owned());
        jwk
    });
    answer("200 OK", &json!({ "keys": keys.collect::<Vec<_>>() }).to_string())
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The provider: answers every request with the same bytes; with none it hangs up.
struct Idp {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Idp {
    async fn new(first: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(first)), Arc::<Mutex<Vec<String>>>::default());
        tokio::spawn({
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = serve(stream, &answer, &asked).await;
                }
            }
        });
        Self { url, answer, asked }
    }

    fn says(&self, answer: String) {
        *self.answer.lock() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }

    fn source(&self, lines: &str) -> String {
        format!(
            "[[app.identity]]\n{lines}\njwks = \"{}\"\nissuer = \"idp\"\naudience = \"crm\"\n\
             algorithms = [\"ES256\"]\nuser = \"sub\"\ntenant = \"/org/id\"\nroles = \"roles\"\n",
            self.url
        )
    }

    /// Tokens in the usual header.
    fn by_header(&self) -> String {
        self.source("from = \"jwt-header\"\nname = \"Authorization\"")
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &Mutex<String>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    asked.lock().push(line);
    let bytes = answer.lock().clone();
    stream.write_all(bytes.as_bytes()).await?;
    stream.shutdown().await
}

/// Waits until this many fetches came to `result`.
async fn fetches(world: &World, result: &str, count: usize) {
    let line = format!("tenure_jwks_fetches_total{{result=\"{result}\"}} {count}");
    eventually(PATIENCE, async || world.gateway.handle().metrics_text().lines().any(|l| l == line)).await;
}

async fn world_of(identity: &str) -> World {
    World::with(|_| {}, "", identity, POLICY).await
}

/// Signs in at the app with `token` in the header, in a browser of its own.
async fn sign_in_with(world: &World, token: &str) -> Browser {
    let browser = world.browser();
    let ask = Ask::form("/login", &[("username", "whoever"), ("password", PASSWORD)]);
    let page = browser.send(ask.with("authorization", &format!("Bearer {token}")).no_follow()).await.unwrap();
    assert_eq!(page.status, 302, "the app itself let them in");
    browser
}

/// Whether a sign-in with this token is one of `user`.
async fn is_known(world: &World, user: &str, token: &str) -> bool {
    let before = world.live_of(user).len();
    sign_in_with(world, token).await;
    let known = world.live_of(user).len() > before;
    if known {
        world.revoke(user).await;
    }
    known
}

#[tokio::test]
async fn a_token_in_a_header_names_user_tenant_and_roles() {
    let key = Key::new("1");
    let idp = Idp::new(jwks(&[&key])).await;
    let rest = "[policy]\n[roles.admin]\nlearned = true\npermissions = [\"sessions.read\"]\n[roles.user]\n";
    let world = World::with(|_| {}, "", &idp.by_header(), rest).await;
    fetches(&world, "fetched", 1).await;
    let claims = json!({ "sub": "Ann@acme.example", "org": { "id": "acme" }, "roles": ["admin", "user"] });
    sign_in_with(&world, &key.token(&claims)).await;
    let session = world.only_session_of("ann@acme.example");
    assert_eq!(session.identity.unwrap().tenant, "acme");
    assert_eq!(session.roles, ["admin"], "the other role may not be learned");
    let seen = world.app.requests_to("/login").pop().unwrap();
    assert_eq!(seen.all("authorization").len(), 1, "the app may need it too");
}

#[tokio::test]
async fn a_token_in_a_cookie_counts_as_the_app_sets_it_and_not_as_a_request_brings_it() {
    let key = Key::new("1");
    let idp = Idp::new(jwks(&[&key])).await;
    let identity = idp.source("from = \"jwt-cookie\"\nname = \"access_token\"");
    let set = format!("access_token={}; Path=/; HttpOnly", key.names("ann"));
    let world =
        World::with(|s| s.extra_headers = vec![("Set-Cookie".into(), set)], "", &identity, POLICY).await;
    fetches(&world, "fetched", 1).await;
    sign_in_with(&world, "").await;
    assert_eq!(world.live_of("ann").len(), 1);
    let world = world_of(&identity).await;
    fetches(&world, "fetched", 1).await;
    let browser = world.browser();
    let ask = Ask::form("/login", &[("username", "bob"), ("password", PASSWORD)]);
    browser.send(ask.with("cookie", &format!("access_token={}", key.names("admin")))).await.unwrap();
    assert!(world.live_of("admin").is_empty());
}

#[tokio::test]
async fn a_forged_or_expired_token_names_nobody_and_is_told_nowhere() {
    let logs = LogBuffer::global();
    let (key, forged) = (Key::new("1"), Key::new("1"));
    let idp = Idp::new(jwks(&[&key])).await;
    let world = world_of(&idp.by_header()).await;
    fetches(&world, "fetched", 1).await;
    let expired = key.token(&json!({ "sub": "eve", "exp": 1_749_999_970 }));
    let tokens = [
        forged.names("eve"),
        expired,
        key.token(&json!({ "sub": "eve", "aud": "wiki" })),
        format!("{}x", key.names("eve")),
        key.names(&"e".repeat(300)),
    ];
    for token in &tokens {
        sign_in_with(&world, token).await;
        assert!(world.live_of("eve").is_empty());
    }
    let metrics = world.gateway.handle().metrics_text();
    let line = "tenure_identity_failures_total{app=\"app\",source=\"jwt-header\"} 5";
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
    assert!(is_known(&world, "eve", &key.names("eve")).await);
    eventually(PATIENCE, async || logs.contains("a token was not accepted")).await;
    let search = TokenSearch::new(tokens);
    search.assert_none([("the log", &logs.text()), ("metrics", &metrics)]);
}

#[tokio::test]
async fn of_two_providers_each_names_its_own_users_and_other_credentials_name_nobody() {
    let (key, other) = (Key::new("1"), Key::new("2"));
    let (idp, next) = (Idp::new(jwks(&[&key])).await, Idp::new(jwks(&[&other])).await);
    let world = world_of(&format!("{}{}", idp.by_header(), next.by_header())).await;
    fetches(&world, "fetched", 2).await;
    assert!(is_known(&world, "ann", &key.names("ann")).await);
    assert!(is_known(&world, "bob", &other.names("bob")).await);
    let browser = world.browser();
    for credentials in ["Basic YW5uOnNlY3JldA==", "Bearer", "Bearer ", ""] {
        browser.send(Ask::get(Mode::Navigate, "/").with("authorization", credentials)).await.unwrap();
    }
    let metrics = world.gateway.handle().metrics_text();
    let line = "tenure_identity_failures_total{app=\"app\",source=\"jwt-header\"} 0";
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
}

#[tokio::test]
async fn changed_keys_are_fetched_once_however_many_tokens_miss_them() {
    let (old, new) = (Key::new("1"), Key::new("2"));
    let idp = Idp::new(jwks(&[&old])).await;
    let world = world_of(&idp.by_header()).await;
    fetches(&world, "fetched", 1).await;
    idp.says(jwks(&[&new]));
    for _ in 0..5 {
        assert!(!is_known(&world, "ann", &new.names("ann")).await, "not known yet");
    }
    assert!(is_known(&world, "ann", &old.names("ann")).await, "not withdrawn yet");
    world.pass(31);
    fetches(&world, "fetched", 2).await;
    assert!(is_known(&world, "ann", &new.names("ann")).await);
    assert!(!is_known(&world, "ann", &old.names("ann")).await, "withdrawn");
    assert_eq!(idp.asked(), 2);
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_asked_again() {
    let key = Key::new("1");
    let idp = Idp::new(String::new()).await;
    let world = world_of(&idp.by_header()).await;
    fetches(&world, "failed", 1).await;
    assert!(!is_known(&world, "ann", &key.names("ann")).await);
    idp.says(jwks(&[&key]));
    world.pass(31);
    fetches(&world, "fetched", 1).await;
    assert!(is_known(&world, "ann", &key.names("ann")).await);
}

#[tokio::test]
async fn known_keys_stay_while_a_provider_gives_no_good_answer() {
    let key = Key::new("1");
    let idp = Idp::new(jwks(&[&key])).await;
    let world = world_of(&idp.by_header()).await;
    fetches(&world, "fetched", 1).await;
    let padded = format!("{{\"pad\":\"{}\",\"keys\":[]}}", "x".repeat(256 * 1024));
    let moved = "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[]}";
    let answers = [
        String::new(),
        answer("500 Internal Server Error", "{\"keys\":[]}"),
        answer("200 OK", "<html>"),
        answer("200 OK", &padded),
        moved.to_owned(),
        cut.to_owned(),
    ];
    for (index, bad) in answers.iter().enumerate() {
        idp.says(bad.clone());
        world.pass(601);
        fetches(&world, "failed", index + 1).await;
        assert!(is_known(&world, "ann", &key.names("ann")).await, "{index}");
    }
    assert!(idp.asked.lock().iter().all(|line| line == "GET /jwks.json HTTP/1.1"), "nothing was followed");
}

#[tokio::test]
async fn a_reload_keeps_known_keys_fetches_new_ones_at_once_and_forgets_the_rest() {
    let (key, other) = (Key::new("1"), Key::new("2"));
    let (idp, next) = (Idp::new(jwks(&[&key])).await, Idp::new(jwks(&[&other])).await);
    let world = world_of(&idp.by_header()).await;
    fetches(&world, "fetched", 1).await;
    let apply = |identity: &str| {
        let text = config_text(&world.app.url(), "", identity, POLICY);
        world.gateway.handle().apply(check_text("test.toml", &text, Path::new(".")).unwrap());
    };
    idp.says(String::new());
    apply(&idp.by_header());
    assert!(is_known(&world, "ann", &key.names("ann")).await, "no moment without keys");
    apply(&format!("{}{}", idp.by_header(), next.source("from = \"jwt-header\"\nname = \"X-Token\"")));
    fetches(&world, "fetched", 2).await;
    apply(&next.by_header());
    assert!(is_known(&world, "ann", &other.names("ann")).await);
    assert!(!is_known(&world, "ann", &key.names("ann")).await, "its provider is not trusted any more");
    for count in 3..6 {
        world.pass(601);
        fetches(&world, "fetched", count).await;
    }
    assert_eq!((idp.asked(), next.asked()), (1, 4));
    apply(&idp.by_header());
    fetches(&world, "failed", 1).await;
    assert!(!is_known(&world, "ann", &key.names("ann")).await, "what was forgotten is not known");
}
