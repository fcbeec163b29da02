//! What goes with an end where it is asked for: the app's own logout, `Clear-Site-Data`, commands of the app, and
//! attributes that the app forgot.

use crate::setup::{BY_HEADER, POLICY, World, config_text, https_lines, sign_in, who};
use crate::support::app::{Profile, Switches};
use crate::support::browser::{Browser, Options, Page, Tls};
use crate::support::tls::Certificate;
use crate::support::wait::{PATIENCE, eventually};

async fn world_with(app_lines: &str) -> World {
    World::with(|s| s.identity_headers = true, app_lines, BY_HEADER, POLICY).await
}

fn commands(world: &World, command: &'static str) {
    world.app.set(|s: &mut Switches| s.extra_headers = vec![("Tenure-Command".into(), command.into())]);
}

async fn command(world: &World, browser: &Browser, command: &'static str) -> Page {
    commands(world, command);
    let page = browser.fetch("/poll").await;
    world.app.set(|s| s.extra_headers.clear());
    page
}

#[tokio::test]
async fn the_app_is_told_of_an_end_by_its_own_logout() {
    for custody in ["custody = \"track\"", "custody = \"vault\""] {
        let world = world_with(&format!("{custody}\napp_logout = \"POST /logout\"")).await;
        let browser = world.signed_in("ann").await;
        let token = world.app.issued_tokens().pop().unwrap();
        assert_eq!(world.app.signed_in(), 1);
        world.revoke("ann").await;
        for _ in 0..3 {
            assert_eq!(browser.fetch("/me").await.status, 401);
        }
        eventually(PATIENCE, async || world.app.signed_in() == 0).await;
        let calls = world.app.requests_to("/logout");
        assert_eq!(calls.len(), 1, "once: {custody}");
        assert_eq!(
            (calls[0].method.as_str(), calls[0].header("cookie")),
            ("POST", Some(format!("SID={token}")))
        );
        // As the browser asked: an app may serve several hosts, and redirect what came without TLS.
        for name in ["host", "x-forwarded-host"] {
            let host = calls[0].header(name).unwrap();
            assert!(host.starts_with("app.localhost"), "{custody}: {name} {host}");
        }
        assert_eq!(calls[0].header("x-forwarded-proto").as_deref(), Some("http"), "{custody}");
        let counted = "tenure_app_logouts_total{app=\"app\",result=\"called\"} 1";
        eventually(PATIENCE, async || world.gateway.handle().metrics_text().contains(counted)).await;
    }
}

#[tokio::test]
async fn a_log_out_by_the_app_itself_needs_no_second_one() {
    for custody in ["custody = \"track\"", "custody = \"vault\""] {
        let world = world_with(&format!("{custody}\napp_logout = \"POST /logout\"")).await;
        let browser = world.signed_in("ann").await;
        browser.navigate("/logout").await;
        assert_eq!(world.ends_of("ann"), ["logout"]);
        world.signed_in("ann").await;
        world.revoke("ann").await;
        browser.navigate("/").await;
        let called = "tenure_app_logouts_total{app=\"app\",result=\"called\"} ";
        let text = world.gateway.handle().metrics_text();
        let count = text.lines().find_map(|line| line.strip_prefix(called)).unwrap();
        assert!(matches!(count, "0" | "1"), "{custody}: at most that of the revocation");
    }
}

#[tokio::test]
async fn who_signs_in_again_is_not_signed_out_by_the_end_of_the_session_before() {
    for custody in ["custody = \"track\"", "custody = \"vault\""] {
        let world = world_with(&format!("{custody}\napp_logout = \"POST /logout\"")).await;
        let browser = world.signed_in("ann").await;
        sign_in(&browser, "ann").await;
        sign_in(&browser, "bob").await;
        // A call would come from another thread; one that is due for certain comes after it.
        let other = world.signed_in("ann").await;
        world.revoke("ann").await;
        other.fetch("/me").await;
        eventually(PATIENCE, async || !world.app.requests_to("/logout").is_empty()).await;
        assert_eq!(who(&browser).await.as_deref(), Some("bob"), "{custody}");
        assert_eq!(world.app.requests_to("/logout").len(), 1, "{custody}");
    }
}

#[tokio::test]
async fn the_browsers_store_is_cleared_where_that_is_asked_for() {
    let (asked, plain) = (world_with("clear_on_end = true").await, world_with("").await);
    for (world, expected) in [(&asked, Some("\"cache\", \"storage\"")), (&plain, None)] {
        let browser = world.signed_in("ann").await;
        world.pass(3600);
        let page = browser.fetch("/me").await;
        assert_eq!((page.status, page.header("clear-site-data")), (401, expected));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let browser = world.signed_in("ann").await;
        let page = browser.fetch("/logout").await;
        assert_eq!(
            page.chain.first().and_then(|hop| hop.headers.get("clear-site-data")).is_some(),
            expected.is_some()
        );
    }
}

#[tokio::test]
async fn what_the_next_session_goes_on_with_is_left_to_the_browser() {
    let named = |user: &str| vec![("X-Who".to_owned(), user.to_owned())];
    let identity = "[[app.identity]]\nfrom = \"response-header\"\nuser = \"X-Who\"\n";
    let habits = |s: &mut Switches| s.extra_headers = named("ann");
    let world = World::with(habits, "clear_on_end = true", identity, POLICY).await;
    let browser = world.browser();
    crate::setup::post_login(&browser, "ann").await;
    let value = browser.cookie("SID").expect("set");
    world.app.set(|s| s.extra_headers = named("bob"));
    let page = browser.fetch("/poll").await;
    assert!(page.header("clear-site-data").is_some(), "what Ann's pages left behind goes");
    assert_eq!(world.ends_of("ann"), ["account_switched"]);
    assert_eq!(browser.cookie("SID"), Some(value), "the app kept its value");
    assert_eq!(world.only_session_of("bob").identity.map(|i| i.user.clone()).as_deref(), Some("bob"));
}

#[tokio::test]
async fn an_answer_that_comes_after_a_new_sign_in_deletes_nothing_of_it() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.profile = Profile::RotateLogin;
    };
    for first in ["superseded", "logout"] {
        let world = World::with(habits, "clear_on_end = true", BY_HEADER, POLICY).await;
        let browser = world.signed_in("ann").await;
        let tab = browser.new_tab();
        let slow = tokio::spawn(async move { tab.fetch("/slow").await });
        eventually(PATIENCE, async || world.app.waiting() == 1).await;
        if first == "logout" {
            browser.navigate("/logout").await;
        }
        sign_in(&browser, "ann").await;
        assert_eq!(world.ends_of("ann"), [first]);
        world.app.release(1);
        let page = slow.await.unwrap();
        assert_eq!((page.status, page.header("clear-site-data")), (200, None), "{first}");
        assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{first}");
    }
}

#[tokio::test]
async fn what_the_app_forgets_at_a_log_out_is_deleted_too() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.remember_me = Some("remember".into());
    };
    let world = World::with(habits, "companions = [\"remember\"]", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    assert!(browser.cookie("remember").is_some());
    world.app.set(|s| s.remember_me = None);
    browser.navigate("/logout").await;
    assert_eq!(world.ends_of("ann"), ["logout"]);
    assert_eq!((browser.cookie("SID"), browser.cookie("remember")), (None, None));
}

#[tokio::test]
async fn the_app_ends_a_session_by_a_header_that_nobody_sees() {
    let world = world_with("app_commands = true").await;
    let browser = world.signed_in("ann").await;
    let page = command(&world, &browser, "end").await;
    assert_eq!((page.status, page.header("tenure-command")), (200, None));
    assert_eq!(world.ends_of("ann"), ["logout"]);
    assert_eq!(browser.cookie("SID"), None, "the cookie is deleted");
    assert_eq!(who(&browser).await, None);
}

#[tokio::test]
async fn the_app_ends_all_sessions_of_a_user() {
    let world = world_with("app_commands = true").await;
    let (here, there) = (world.signed_in("ann").await, world.signed_in("ann").await);
    let bob = world.signed_in("bob").await;
    command(&world, &here, "end-user").await;
    let mut ends = world.ends_of("ann");
    ends.sort_unstable();
    assert_eq!(ends, ["logout", "revoked"]);
    assert_eq!(there.fetch("/me").await.json()["reason"], "revoked");
    assert_eq!(who(&bob).await.as_deref(), Some("bob"));
}

#[tokio::test]
async fn the_app_says_what_was_no_activity() {
    let world = world_with("app_commands = true").await;
    let browser = world.signed_in("ann").await;
    for _ in 0..3 {
        world.pass(1000);
        assert_eq!(command(&world, &browser, "no-activity").await.status, 200);
    }
    world.pass(599);
    assert_eq!(command(&world, &browser, "no-activity").await.status, 200);
    world.pass(1);
    assert_eq!(browser.fetch("/me").await.json()["reason"], "idle_timeout");
}

#[tokio::test]
async fn nobody_but_the_app_commands_and_only_where_it_may() {
    let world = world_with("").await;
    let browser = world.signed_in("ann").await;
    let page = command(&world, &browser, "end").await;
    assert_eq!(page.header("tenure-command"), None, "it never reaches the browser");
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    let world = world_with("app_commands = true").await;
    let browser = world.signed_in("ann").await;
    let ask = crate::support::browser::Ask::get(crate::support::browser::Mode::Fetch, "/echo");
    browser.send(ask.with("tenure-command", "end")).await.unwrap();
    assert_eq!(world.app.last_request().header("tenure-command"), None);
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
}

#[tokio::test]
async fn what_the_app_forgot_is_added_also_where_it_sets_the_cookie_when_asked_for_the_user() {
    let userinfo = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";
    let habits = |s: &mut Switches| {
        s.attributes.http_only = false;
        s.rolling = true;
    };
    let world = World::with(habits, "harden = [\"httponly\"]", userinfo, POLICY).await;
    let browser = world.browser();
    let form = [("username", "ann"), ("password", crate::support::app::PASSWORD)];
    browser.send(crate::support::browser::Ask::form("/login", &form).no_follow()).await.unwrap();
    assert_eq!(world.app.requests_to("/api/whoami").len(), 1);
    assert!(browser.jar(|jar| jar.all().iter().all(|cookie| cookie.name == "SID" && cookie.http_only)));
}

#[tokio::test]
async fn what_the_app_forgot_is_added_to_its_session_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::of("app.localhost");
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.attributes.http_only = false;
        s.extra_headers = vec![("Set-Cookie".into(), "theme=dark".into())];
    };
    let world = World::from_text(habits, |upstream| {
        let lines = "harden = [\"secure\", \"httponly\", \"samesite=lax\"]";
        config_text(upstream, lines, BY_HEADER, POLICY)
            .replace("workers = 2\n", &https_lines(&folder, &certificate))
    })
    .await;
    let tls = Some(Tls { root: certificate.root.clone(), h2: false });
    let secure = Browser::with(world.gateway.https.unwrap(), Options { tls, ..Options::default() });
    for (browser, https) in [(secure, true), (world.browser(), false)] {
        sign_in(&browser, "ann").await;
        let (sid, theme) = browser.jar(|jar| {
            let named = |name: &str| jar.all().iter().find(|cookie| cookie.name == name).unwrap().clone();
            (named("SID"), named("theme"))
        });
        assert_eq!((sid.secure, sid.http_only), (https, true), "Secure would keep a browser over http out");
        assert!(!theme.secure && !theme.http_only, "others are the app's own business");
        world.revoke("ann").await;
        browser.navigate("/").await;
        assert_eq!(browser.cookie("SID"), None, "deleted with what was added");
    }
}
