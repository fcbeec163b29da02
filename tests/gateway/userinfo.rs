//! The app is asked who a cookie is (`from = "userinfo"`, R8): once, within two seconds, and what it sets is learned.

use crate::setup::{POLICY, World, config_text, post_login, who};
use crate::support::app::{PASSWORD, Profile, Switches};
use crate::support::browser::{Ask, Browser, Page};
use crate::support::wait::{PATIENCE, eventually, soon};

/// Asks `path`, where the user stands at `user`.
fn asking(path: &str, user: &str) -> String {
    format!("[[app.identity]]\nfrom = \"userinfo\"\npath = \"{path}\"\nuser = \"{user}\"\n")
}

fn whoami() -> String {
    asking("/api/whoami", "/user/email")
}

/// Submits the sign-in form; the first answer counts.
async fn submit(browser: &Browser, user: &str) -> Page {
    let ask = Ask::form("/login", &[("username", user), ("password", PASSWORD)]).no_follow();
    browser.send(ask).await.unwrap()
}

#[tokio::test]
async fn the_app_is_asked_as_the_browser_would() {
    // Apps redirect what did not come by TLS, serve several hosts, and tie sessions to addresses and browsers.
    let world = World::with(|_| (), "", &whoami(), POLICY).await;
    submit(&world.browser(), "ann").await;
    let (asked, by_browser) = (world.app.requests_to("/api/whoami"), world.app.requests_to("/login"));
    for name in
        ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "user-agent"]
    {
        assert!(by_browser[0].header(name).is_some(), "{name}");
        assert_eq!(asked[0].header(name), by_browser[0].header(name), "{name}");
    }
}

#[tokio::test]
async fn the_value_that_the_app_sets_when_asked_reaches_the_browser_and_lives() {
    let habits = |s: &mut Switches| s.profile = Profile::RotateEach;
    let world = World::with(habits, "", &whoami(), POLICY).await;
    world.app.hand_out("v1-set-by-the-sign-in");
    world.app.hand_out("v2-set-when-asked-who");
    let browser = world.browser();
    let page = submit(&browser, "ann").await;
    assert_eq!(page.status, 302);
    assert_eq!(page.all("set-cookie").len(), 2, "both reach the browser, in their order");
    assert_eq!(browser.cookie("SID").as_deref(), Some("v2-set-when-asked-who"));
    assert_eq!(world.live_of("ann").len(), 1);
    world.app.forget_requests();
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert!(world.app.saw_token("v2-set-when-asked-who"), "a token of the session");
}

#[tokio::test]
async fn eight_tabs_at_once_ask_who_a_new_value_is_a_single_time() {
    // Nobody says where signing in happens: the value is asked about when it first returns. The question waits at the
    // app's gate until all tabs have asked for their pages.
    let text = |upstream: &str| {
        let usual = config_text(upstream, "", &asking("/slow", "/user"), POLICY);
        usual.replace("login = \"/login\"\n", "")
    };
    let world = World::from_text(|_| {}, text).await;
    let browser = world.browser();
    submit(&browser, "ann").await;
    assert!(world.app.requests_to("/slow").is_empty(), "not yet");
    let mut tabs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let tab = browser.new_tab();
        tabs.spawn(async move { who(&tab).await });
    }
    eventually(PATIENCE, async || world.app.requests_to("/me").len() == 8 && world.app.waiting() == 1).await;
    for _ in 0..7 {
        let answered = soon("an answer that waits for nobody", tabs.join_next()).await;
        assert_eq!(answered.unwrap().unwrap().as_deref(), Some("ann"));
    }
    world.app.release(1);
    assert_eq!(tabs.join_next().await.unwrap().unwrap().as_deref(), Some("ann"));
    assert_eq!(world.app.requests_to("/slow").len(), 1);
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn an_app_that_is_silent_when_asked_does_not_hold_the_sign_in_up() {
    for path in ["/slow", "/download?bytes=100&hold=10"] {
        let world = World::with(|_| {}, "", &asking(path, "/user"), POLICY).await;
        let browser = world.browser();
        let page = soon("the sign-in", submit(&browser, "ann")).await;
        assert_eq!((page.status, page.header("location")), (302, Some("/")), "{path}");
        assert_eq!(who(&browser).await.as_deref(), Some("ann"), "signed in, as far as the app knows");
        assert!(world.live_of("ann").is_empty(), "admitted without a user");
        let text = world.gateway.handle().metrics_text();
        let counted = "tenure_identity_failures_total{app=\"app\",source=\"userinfo\"} 1";
        assert!(text.contains(counted), "{text}");
    }
}

#[tokio::test]
async fn the_app_is_asked_although_its_only_connection_is_in_use() {
    let text = |upstream: &str| {
        let usual = config_text(upstream, "max_upstream_connections = 1", &whoami(), POLICY);
        usual.replace("workers = 2\n", "workers = 1\n")
    };
    let world = World::from_text(|s| s.login_status = 200, text).await;
    let browser = world.browser();
    assert_eq!(post_login(&browser, "ann").await.status, 200);
    assert_eq!(world.live_of("ann").len(), 1, "known at the sign-in");
    for _ in 0..5 {
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
    eventually(PATIENCE, async || world.app.open_connections() == 1).await;
}
