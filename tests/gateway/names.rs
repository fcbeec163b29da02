//! Several session cookies, prefixes, routes, cookies set twice (R3, F3, F4), and the attributes of a deletion (F10).

use tenure::store::StateFilter;

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, config_text, post_login, who};
use crate::support::app::{PASSWORD, Profile, Switches};
use crate::support::browser::{Ask, Browser, Mode};

/// A gateway whose session cookies are `names` (TOML).
async fn named(names: &str, habits: impl FnOnce(&mut Switches), app_lines: &str, identity: &str) -> World {
    let text = |upstream: &str| {
        let usual = config_text(upstream, app_lines, identity, POLICY);
        usual.replace("cookie = \"SID\"", &format!("cookie = {names}"))
    };
    World::from_text(habits, text).await
}

fn sets(fields: &[&str]) -> Vec<(String, String)> {
    fields.iter().map(|field| ("Set-Cookie".to_owned(), (*field).to_owned())).collect()
}

/// A browser signed in as ann, with the single sign-on's cookie beside the app's own.
async fn with_sso(world: &World) -> Browser {
    let browser = world.browser();
    world.app.set(|s| s.extra_headers = sets(&["SSO_a1=sso-of-ann; Path=/", "SSOX=sso2-of-ann; Path=/"]));
    browser.post_form("/login", &[("username", "ann"), ("password", PASSWORD), ("next", "/page")]).await;
    world.app.set(|s| s.extra_headers.clear());
    assert_eq!(world.live_of("ann").len(), 1);
    browser
}

#[tokio::test]
async fn each_of_several_session_cookies_is_a_token_and_dies_with_the_session() {
    let world = named("[\"SID\", \"SSO*\"]", |s| s.identity_headers = true, "", BY_HEADER).await;
    let browser = with_sso(&world).await;
    let sid = browser.cookie("SID").unwrap();
    // Any of them is the session.
    for cookie in [format!("SID={sid}"), "SSO_a1=sso-of-ann".to_owned(), "SSOX=sso2-of-ann".to_owned()] {
        let status = browser.fetch_with_cookie("/.tenure/status", &cookie).await.json();
        assert_eq!(status["user"], "ann", "{cookie}");
    }
    world.app.forget_requests();
    browser.fetch("/me").await;
    let cookie = world.app.last_request().header("cookie").unwrap();
    assert_eq!(cookie, format!("SID={sid}; SSO_a1=sso-of-ann; SSOX=sso2-of-ann"), "they travel together");
    // Of that prefix, but never seen being set.
    browser.fetch_with_cookie("/me", &format!("SSO_made_up=x; SID={sid}; SSOX=other; sso_a1=y")).await;
    assert_eq!(world.app.last_request().header("cookie"), Some(format!("SID={sid}")));
    world.revoke("ann").await;
    world.app.forget_requests();
    for cookie in ["SSO_a1=sso-of-ann", "SSOX=sso2-of-ann"] {
        assert_eq!(browser.fetch_with_cookie("/me", cookie).await.status, 401, "{cookie}");
    }
    assert!(world.app.requests().is_empty());
    let page = browser.navigate("/page").await;
    let deleted: Vec<_> =
        page.all("set-cookie").iter().map(|f| f.split('=').next().unwrap().to_owned()).collect();
    assert_eq!(deleted, ["SID", "SSO_a1", "SSOX"]);
    assert_eq!(browser.cookie("SSOX"), None);
}

async fn with_companion(app_lines: &str) -> (World, Browser) {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.remember_me = Some("remember".into());
    };
    let lines = format!("companions = [\"remember\"]\n{app_lines}");
    let world = World::with(habits, &lines, BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    (world, browser)
}

#[tokio::test]
async fn a_live_companion_alone_is_its_session() {
    let (world, browser) = with_companion("").await;
    let id = world.only_session_of("ann").id;
    let companion = browser.cookie("remember").unwrap();
    // A browser that was closed keeps the companion; the app signs it in again by it.
    browser.jar(|jar| *jar = Default::default());
    let ask = Ask::get(Mode::Fetch, "/me").with("cookie", &format!("remember={companion}"));
    assert_eq!(browser.send(ask).await.unwrap().json()["user"], "ann");
    assert!(world.app.saw_token(&companion));
    assert!(browser.cookie("SID").is_some(), "the app set a session cookie anew");
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(world.only_session_of("ann").id, id, "the same session");
}

#[tokio::test]
async fn a_dead_companion_is_stripped_on_a_public_path() {
    let (world, browser) = with_companion("public = [\"/static/**\"]").await;
    let companion = format!("remember={}", browser.cookie("remember").unwrap());
    browser.fetch_with_cookie("/static/app.css", &companion).await;
    assert_eq!(world.app.last_request().header("cookie"), Some(companion.clone()), "alive");
    world.revoke("ann").await;
    let page = browser.fetch_with_cookie("/static/app.css", &format!("a=b; {companion}")).await;
    assert_eq!(page.status, 200);
    assert_eq!(world.app.last_request().header("cookie").as_deref(), Some("a=b"));
}

#[tokio::test]
async fn a_failover_to_another_node_keeps_the_session_and_a_revocation_holds_for_every_node() {
    let habits = |s: &mut Switches| {
        s.cookie = "JSESSIONID".into();
        s.profile = Profile::Route;
        s.identity_headers = true;
    };
    let world = named("\"JSESSIONID\"", habits, "", BY_HEADER).await;
    let browser = world.signed_in("ann").await;
    let id = world.only_session_of("ann").id;
    let first = browser.cookie("JSESSIONID").unwrap();
    world.app.set(|s| s.route = "node2".into());
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    let second = browser.cookie("JSESSIONID").unwrap();
    let bare = first.strip_suffix(".node1").unwrap();
    assert_eq!(second.strip_suffix(".node2"), Some(bare));
    world.pass(60);
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(world.sessions(StateFilter::Active).len(), 1);
    assert_eq!(world.only_session_of("ann").id, id);
    world.revoke("ann").await;
    world.app.forget_requests();
    for value in [&first, &second, &format!("{bare}.node3"), &bare.to_owned(), &format!("\"{bare}.node1\"")] {
        let page = browser.fetch_with_cookie("/me", &format!("JSESSIONID={value}")).await;
        assert_eq!(page.status, 401, "{value}");
    }
    assert!(!world.app.saw_token(bare));
}

#[tokio::test]
async fn of_a_cookie_that_is_set_twice_the_last_value_is_the_session() {
    for identity in [BY_HEADER, BY_FORM] {
        let habits = |s: &mut Switches| {
            s.identity_headers = true;
            s.profile = Profile::DoubleSet;
        };
        let world = World::with(habits, "", identity, POLICY).await;
        let browser = world.browser();
        let page = post_login(&browser, "ann").await;
        let both: Vec<_> = page.chain[0].headers.get_all("set-cookie").iter().collect();
        assert_eq!(both.len(), 2, "both reach the browser");
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
        assert_eq!(world.sessions(StateFilter::Active).len(), 1, "{identity}");
        let unmeant = both[0].to_str().unwrap().split(';').next().unwrap();
        world.app.forget_requests();
        browser.fetch_with_cookie("/me", unmeant).await;
        assert!(world.app.last_request().all("cookie").is_empty(), "a value that no browser keeps");
    }
}

#[tokio::test]
async fn a_deletion_names_path_domain_and_partition_as_the_cookie_was_set() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.attributes.secure = true;
        s.attributes.partitioned = true;
        s.attributes.same_site = Some("None");
        s.profile = Profile::RotateLogin;
        s.move_path = Some("/page".into());
        s.move_domain = Some("app.localhost".into());
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.browser();
    post_login(&browser, "ann").await;
    assert!(browser.cookie_at("SID", "/page").is_some(), "the cookie stands below /page");
    world.revoke("ann").await;
    let page = browser.send(Ask::get(Mode::Navigate, "/page").no_follow()).await.unwrap();
    let deletions = page.all("set-cookie");
    assert_eq!(deletions.len(), 1, "{deletions:?}");
    let parts: Vec<_> = deletions[0].split("; ").collect();
    for part in
        ["SID=", "Path=/page", "Domain=app.localhost", "Secure", "HttpOnly", "Partitioned", "SameSite=None"]
    {
        assert!(parts.contains(&part), "{part} is missing in {parts:?}");
    }
    assert_eq!(browser.cookie_at("SID", "/page"), None, "the jar obeyed");
}
