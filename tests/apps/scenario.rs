//! What a person meets at each limit, the same before every app.
//!
//! Each part has a gateway of its own before the one app, and all run at once: the app cannot tell. Nothing is timed:
//! a part waits for what it wants to see, and the admin API tells when a session is over without touching it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::form::first_link;
use crate::gateway::Gateway;
use crate::support::browser::{Browser, Jar, Page};
use crate::support::wait::comes_true;

/// Far beyond every limit here.
const PATIENCE: Duration = Duration::from_secs(20);

/// An app that nobody here wrote for the gateway, and how a person uses it.
pub(crate) trait RealApp: Sized {
    /// Its name in the configuration.
    const NAME: &str;
    /// Its session cookie.
    const COOKIE: &str;
    /// Its cookies stay in the gateway, because they are the session themselves.
    const IN_VAULT: bool = false;
    /// Where people are sent to sign in.
    const LOGIN: &str;
    /// A page that they work on, elsewhere than where they sign in.
    const WORK: &str;
    /// What a page asks for by itself; `inactive` in the settings.
    const POLLED: &str;
    /// How a path carries the session's id, for an app that takes it from there too.
    const ID_IN_PATH: Option<&str> = None;
    /// What the configuration says of it: the rest of `[[app]]`, and one source of users.
    const SETTINGS: &str;

    /// Starts it.
    async fn start() -> Self;
    /// Where it listens.
    fn addr(&self) -> SocketAddr;
    /// Whether the page is the form to sign in with.
    fn asks_to_sign_in(page: &Page) -> bool;
    /// Fills in that form; what it led to.
    async fn fill_in(browser: &Browser, form: &Page, user: &str, password: &str) -> Page;
    /// Whom the app takes the browser for.
    async fn who(browser: &Browser) -> Option<String>;
    /// Leaves by the app's own button.
    async fn sign_out(browser: &Browser);
}

/// Goes through all limits before one app.
pub(crate) async fn every_limit<A: RealApp>() {
    let app = A::start().await;
    // The first visit makes an app load and compile what a short limit need not wait for.
    let browser = Browser::at(app.addr());
    sign_in::<A>(&browser, "ann").await;
    work::<A>(&browser).await;
    tokio::join!(
        goes_idle(&app),
        works_beyond_the_lifetime(&app),
        signs_in_once_too_often(&app),
        is_revoked(&app),
        leaves(&app),
        brings_the_apps_own_cookie(&app),
    );
}

/// A cookie that the app itself takes is worth nothing at a gateway that never saw it being issued.
async fn brings_the_apps_own_cookie<A: RealApp>(app: &A) {
    let direct = Browser::at(app.addr());
    sign_in::<A>(&direct, "ann").await;
    let all: Vec<_> = direct.jar(|jar| jar.all().to_vec());
    let gateway = Gateway::before(app, "").await;
    let (browser, mark) = (gateway.browser(), gateway.tap.mark());
    let url = browser.url("/");
    for cookie in &all {
        let line = format!("{}={}; Path={}", cookie.name, cookie.value, cookie.path);
        browser.jar(|jar| jar.learn(&url, line.as_bytes(), browser.now()));
    }
    assert_eq!(A::who(&browser).await, None);
    let token = all.iter().find(|cookie| cookie.name == A::COOKIE).expect("the app's cookie");
    assert!(
        !gateway.tap.heard_since(mark, &token.value),
        "the app was sent a cookie that nobody saw being issued"
    );
    assert!(gateway.live_of("ann").await.is_empty());
}

/// A page is left open, and polls: that is nobody's activity.
async fn goes_idle<A: RealApp>(app: &A) {
    let gateway = Gateway::before(app, "idle_timeout = \"2s\"").await;
    let browser = gateway.browser();
    let token = signed_in::<A>(&gateway, &browser, "ann").await;
    let id = gateway.only_session_of("ann").await;
    // All that the browser holds, and not by itself, so that it learns nothing from the answer that tells a script.
    let held =
        |jar: &mut Jar| jar.all().iter().map(|c| format!("{}={}", c.name, c.value)).collect::<Vec<_>>();
    let cookie = browser.jar(held).join("; ");
    let mut end = None;
    let ended = comes_true(PATIENCE, async || {
        browser.new_tab().fetch_with_cookie(A::POLLED, &cookie).await;
        end = gateway.end_of(&id).await;
        end.is_some()
    });
    assert!(ended.await && end.as_deref() == Some("idle_timeout"), "{end:?}");

    let mark = gateway.tap.mark();
    let form = browser.navigate(A::WORK).await;
    is_sent_to_sign_in::<A>(&browser, &form, "idle_timeout", &token);
    copies_are_dead::<A>(&gateway, &token, "idle_timeout").await;
    let page = A::fill_in(&browser, &form, "ann", "ann-secret").await;
    if A::SETTINGS.contains("return_to") {
        assert_eq!(page.url.target, A::WORK, "back where the end was met");
    }
    assert_eq!(A::who(&browser).await.as_deref(), Some("ann"));
    assert!(!gateway.tap.heard_since(mark, &token), "the app was sent a dead token");
    gateway.told_none_of(&[token, token_of::<A>(&browser)]).await;
}

/// Never idle, and yet to sign in again.
async fn works_beyond_the_lifetime<A: RealApp>(app: &A) {
    let gateway = Gateway::before(app, "idle_timeout = \"2s\"\nforce_relogin = \"3s\"").await;
    let browser = gateway.browser();
    let token = signed_in::<A>(&gateway, &browser, "ann").await;
    let id = gateway.only_session_of("ann").await;
    let mut met = None;
    let ended = comes_true(PATIENCE, async || {
        let page = browser.navigate(A::WORK).await;
        let over = page.statuses() != [200];
        met = over.then_some(page);
        over
    });
    assert!(ended.await, "one may work on for ever");
    let form = met.expect("what ended the loop");
    let mark = gateway.tap.mark();
    is_sent_to_sign_in::<A>(&browser, &form, "force_relogin", &token);
    assert_eq!(gateway.end_of(&id).await.as_deref(), Some("force_relogin"));
    copies_are_dead::<A>(&gateway, &token, "force_relogin").await;
    A::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!(A::who(&browser).await.as_deref(), Some("ann"));
    assert!(!gateway.tap.heard_since(mark, &token), "the app was sent a dead token");
    gateway.told_none_of(&[token, token_of::<A>(&browser)]).await;
}

/// Three browsers where two are allowed: the first one meets the page that says why.
async fn signs_in_once_too_often<A: RealApp>(app: &A) {
    let gateway = Gateway::before(app, "max_concurrent = 2").await;
    let [first, second, third, other] = [(); 4].map(|()| gateway.browser());
    let bobs = signed_in::<A>(&gateway, &other, "bob").await;
    let firsts = signed_in::<A>(&gateway, &first, "ann").await;
    let seconds = signed_in::<A>(&gateway, &second, "ann").await;
    assert_eq!(gateway.live_of("ann").await.len(), 2);
    let thirds = signed_in::<A>(&gateway, &third, "ann").await;
    assert_eq!(gateway.live_of("ann").await.len(), 2);

    let mark = gateway.tap.mark();
    let page = first.navigate(A::WORK).await;
    let form = is_told_why::<A>(&first, &page, "max_concurrent", &firsts).await;
    copies_are_dead::<A>(&gateway, &firsts, "max_concurrent").await;
    for (browser, user) in [(&second, "ann"), (&third, "ann"), (&other, "bob")] {
        assert_eq!(A::who(browser).await.as_deref(), Some(user), "nobody else was ended");
    }
    // Signing in again takes the place of the next.
    A::fill_in(&first, &form, "ann", "ann-secret").await;
    assert_eq!(A::who(&first).await.as_deref(), Some("ann"));
    let page = second.navigate(A::WORK).await;
    is_told_why::<A>(&second, &page, "max_concurrent", &seconds).await;
    assert_eq!(A::who(&third).await.as_deref(), Some("ann"));
    assert!(!gateway.tap.heard_since(mark, &firsts), "the app was sent a dead token");
    gateway.told_none_of(&[bobs, firsts, seconds, thirds]).await;
}

/// An operator ends a session, which is over when the call returns.
async fn is_revoked<A: RealApp>(app: &A) {
    let gateway = Gateway::before(app, "").await;
    let (browser, other) = (gateway.browser(), gateway.browser());
    let token = signed_in::<A>(&gateway, &browser, "ann").await;
    let others = signed_in::<A>(&gateway, &other, "bob").await;
    let id = gateway.only_session_of("ann").await;
    gateway.revoke(&id).await;
    let mark = gateway.tap.mark();
    let page = browser.navigate(A::WORK).await;
    let form = is_told_why::<A>(&browser, &page, "revoked", &token).await;
    copies_are_dead::<A>(&gateway, &token, "revoked").await;
    assert_eq!(gateway.end_of(&id).await.as_deref(), Some("revoked"));
    assert_eq!(A::who(&other).await.as_deref(), Some("bob"), "nobody else was ended");
    A::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!(A::who(&browser).await.as_deref(), Some("ann"));
    assert_ne!(gateway.only_session_of("ann").await, id, "another session");
    assert!(!gateway.tap.heard_since(mark, &token), "the app was sent a dead token");
    gateway.told_none_of(&[token, others]).await;
}

/// One who signs out is no longer counted, and somebody else may sign in on the same browser.
async fn leaves<A: RealApp>(app: &A) {
    let gateway = Gateway::before(app, "max_concurrent = 1").await;
    let browser = gateway.browser();
    let token = signed_in::<A>(&gateway, &browser, "ann").await;
    let id = gateway.only_session_of("ann").await;
    A::sign_out(&browser).await;
    assert_eq!(gateway.end_of(&id).await.as_deref(), Some("logout"));
    assert_eq!(gateway.live_of("ann").await.len(), 0);
    let mark = gateway.tap.mark();
    let page = browser.navigate(A::WORK).await;
    assert_eq!(page.header("tenure-session"), None, "one who left is not told");
    let bobs = signed_in::<A>(&gateway, &browser, "bob").await;
    gateway.only_session_of("bob").await;
    assert!(!gateway.tap.heard_since(mark, &token), "the app was sent a dead token");
    gateway.told_none_of(&[token, bobs]).await;
}

async fn sign_in<A: RealApp>(browser: &Browser, user: &str) {
    let form = browser.navigate(A::LOGIN).await;
    assert!(A::asks_to_sign_in(&form), "{} shows no form: {:?}", A::LOGIN, form.statuses());
    A::fill_in(browser, &form, user, &format!("{user}-secret")).await;
    assert_eq!(A::who(browser).await.as_deref(), Some(user), "signed in");
}

/// Signs in and works; the token, which the app was sent.
async fn signed_in<A: RealApp>(gateway: &Gateway, browser: &Browser, user: &str) -> String {
    sign_in::<A>(browser, user).await;
    work::<A>(browser).await;
    let token = token_of::<A>(browser);
    if A::IN_VAULT {
        assert!(
            !gateway.tap.heard_since(0, &token),
            "the gateway's own cookie is none of the app's business"
        );
        let held: Vec<_> = browser.jar(|jar| jar.all().iter().map(|cookie| cookie.name.clone()).collect());
        assert_eq!(held, [held_cookie::<A>()], "no cookie of the app is in the browser");
    } else {
        assert!(gateway.tap.heard_since(0, &token), "the tap hears nothing");
    }
    token
}

/// The name of the cookie that stands for the session in the browser.
fn held_cookie<A: RealApp>() -> String {
    if A::IN_VAULT { format!("tenure-{}", A::NAME) } else { A::COOKIE.to_owned() }
}

async fn work<A: RealApp>(browser: &Browser) {
    let page = browser.navigate(A::WORK).await;
    assert_eq!(page.statuses(), [200], "{}", page.text());
}

fn token_of<A: RealApp>(browser: &Browser) -> String {
    browser.cookie_at(&held_cookie::<A>(), A::WORK).expect("the browser has a cookie")
}

/// The browser was sent from where it went to the app's own form, and has lost the dead cookie.
fn is_sent_to_sign_in<A: RealApp>(browser: &Browser, form: &Page, reason: &str, token: &str) {
    let hop = form.chain.first().expect("a redirect");
    let header = |name: &str| hop.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((hop.status, header("tenure-session")), (303, format!("ended; reason={reason}").as_str()));
    let target = header("location").split('?').next();
    assert_eq!(target, Some(A::LOGIN));
    assert!(A::asks_to_sign_in(form), "{:?}", form.statuses());
    has_lost(browser, token);
}

/// The browser meets the page that says why, whose link leads to the app's own form; that form.
async fn is_told_why<A: RealApp>(browser: &Browser, page: &Page, reason: &str, token: &str) -> Page {
    assert_eq!(page.statuses(), [401], "{}", page.text());
    assert_eq!(page.header("tenure-session"), Some(format!("ended; reason={reason}").as_str()));
    let words = match reason {
        "revoked" => "was ended by an administrator",
        _ => "signed in on as many devices as it may be",
    };
    assert!(page.text().contains(words), "{}", page.text());
    has_lost(browser, token);
    let link = first_link(page).expect("a link to sign in again");
    let form = browser.navigate(&link).await;
    assert!(A::asks_to_sign_in(&form), "{link}: {:?}", form.statuses());
    form
}

fn has_lost(browser: &Browser, token: &str) {
    assert!(
        browser.jar(|jar| jar.all().iter().all(|cookie| cookie.value != token)),
        "the dead cookie is kept"
    );
}

/// Whoever kept a copy is refused, on a page and on the form, whichever way it is brought.
async fn copies_are_dead<A: RealApp>(gateway: &Gateway, token: &str, reason: &str) {
    let thief = gateway.browser();
    let mark = gateway.tap.mark();
    let cookie = format!("{}={token}", held_cookie::<A>());
    let refused = thief.fetch_with_cookie(A::WORK, &cookie).await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (401, Some(reason)));
    let form = thief.fetch_with_cookie(A::LOGIN, &cookie).await;
    assert!(A::asks_to_sign_in(&form), "{:?}", form.statuses());
    if let Some(parameter) = A::ID_IN_PATH {
        let form = thief.fetch(&format!("{}{parameter}{token}", A::LOGIN)).await;
        assert!(A::asks_to_sign_in(&form), "{:?}", form.statuses());
    }
    assert!(!gateway.tap.heard_since(mark, token), "the app was sent a dead token");
}
