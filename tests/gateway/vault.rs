//! `custody = "vault"`: the app's cookies stay in the gateway, whatever the app does to them.

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, config_text, https_lines, post_login, sign_in, who};
use crate::support::app::{PASSWORD, Profile, Switches};
use crate::support::browser::{Ask, Browser, Heard, Mode, Options, Tls};
use crate::support::tls::Certificate;

/// Our cookie's name over plain HTTP.
const OURS: &str = "tenure-app";

const VAULT: &str = "custody = \"vault\"\ncompanions = [\"remember\"]";

async fn world_with(habits: impl FnOnce(&mut Switches)) -> World {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        habits(s);
    };
    World::with(habits, VAULT, BY_HEADER, POLICY).await
}

fn names(browser: &Browser) -> Vec<String> {
    browser.jar(|jar| jar.all().iter().map(|cookie| cookie.name.clone()).collect())
}

#[tokio::test]
async fn the_browser_holds_our_cookie_alone_whatever_the_app_does() {
    for profile in [
        Profile::Opaque,
        Profile::Recycle,
        Profile::RotateEach,
        Profile::RotateLogin,
        Profile::Chunked,
        Profile::Route,
        Profile::DoubleSet,
    ] {
        let world = world_with(|s| {
            s.profile = profile;
            s.anonymous_cookie = true;
            s.remember_me = Some("remember".into());
        })
        .await;
        let browser = world.browser();
        browser.navigate("/").await;
        sign_in(&browser, "ann").await;
        for _ in 0..3 {
            assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{profile:?}");
        }
        assert_eq!(names(&browser), [OURS], "{profile:?}");
        assert_eq!(world.live_of("ann").len(), 1, "{profile:?}: one session all along");
        browser.navigate("/logout").await;
        // An app that recycles ids keeps the cookie at a log-out, and one that chunks it sets `chunks-2` again: under a name
        // that is not known to be chunked nobody can see the log-out in the answer (R11).
        let hidden = matches!(profile, Profile::Recycle | Profile::Chunked);
        let seen: &[&str] = if hidden { &[] } else { &["logout"] };
        assert_eq!(world.ends_of("ann"), seen, "{profile:?}");
        assert_eq!(who(&browser).await, None, "{profile:?}");
    }
}

#[tokio::test]
async fn whoever_signs_in_gets_a_new_value() {
    let world = world_with(|s| s.anonymous_cookie = true).await;
    let browser = world.browser();
    browser.navigate("/").await;
    let planted = browser.cookie(OURS).expect("a cookie for every visitor");
    sign_in(&browser, "ann").await;
    let value = browser.cookie(OURS).unwrap();
    assert_ne!(planted, value);
    assert_eq!(value.len(), 43, "256 bits");
    let page = browser.fetch_with_cookie("/me", &format!("{OURS}={planted}")).await;
    assert_eq!(page.json()["user"], serde_json::Value::Null, "what was there before opens nothing");
    assert_eq!(world.sessions(tenure::store::StateFilter::Active).len(), 1, "nor begins anything");
}

#[tokio::test]
async fn copies_are_worthless_after_an_end() {
    let world = world_with(|s| {
        s.profile = Profile::RotateEach;
        s.replay = true;
        s.remember_me = Some("remember".into());
    })
    .await;
    let browser = world.signed_in("ann").await;
    who(&browser).await;
    let copy = browser.cookie(OURS).unwrap();
    let issued = world.app.issued_tokens();
    assert!(issued.len() > 1);
    world.revoke("ann").await;
    world.app.forget_requests();
    let thief = world.browser();
    let page = thief.fetch_with_cookie("/me", &format!("{OURS}={copy}")).await;
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")));
    for token in &issued {
        for cookie in [format!("SID={token}"), format!("remember={token}"), format!("a=\"; SID={token}\"")] {
            let page = thief.fetch_with_cookie("/me", &cookie).await;
            assert_eq!(page.json()["user"], serde_json::Value::Null);
        }
    }
    assert!(issued.iter().all(|token| !world.app.saw_token(token)));
}

#[tokio::test]
async fn nothing_but_a_live_value_of_ours_opens_the_jar() {
    let world = world_with(|_| ()).await;
    let browser = world.signed_in("ann").await;
    let token = world.app.issued_tokens().pop().unwrap();
    let value = browser.cookie(OURS).unwrap();
    let mut other = value.clone().into_bytes();
    other[7] ^= 1;
    let other = String::from_utf8(other).unwrap();
    world.app.forget_requests();
    for cookie in [
        format!("SID={token}"),
        format!("{OURS}={other}"),
        format!("__Host-{OURS}={value}"),
        "theme=dark".into(),
    ] {
        browser.fetch_with_cookie("/me", &cookie).await;
        assert_eq!(world.app.last_request().header("cookie"), None, "{cookie}");
    }
    let both = format!("SID=x; {OURS}={value}; theme=dark");
    assert_eq!(browser.fetch_with_cookie("/me", &both).await.json()["user"], "ann");
    assert_eq!(world.app.last_request().header("cookie"), Some(format!("SID={token}")));
}

#[tokio::test]
async fn time_limit_and_revocation_end_a_session_and_its_jar() {
    let world = world_with(|s| s.replay = true).await;
    let idle = world.signed_in("ann").await;
    world.pass(3600);
    let page = idle.fetch("/me").await;
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("idle_timeout")));
    assert!(names(&idle).is_empty(), "our cookie is deleted");
    let oldest = world.signed_in("ann").await;
    for _ in 0..2 {
        world.pass(1);
        world.signed_in("ann").await;
    }
    assert!(oldest.navigate("/").await.text().contains("signed in"), "a page says why");
    assert_eq!(world.ends_of("ann"), ["idle_timeout", "max_concurrent"]);
}

#[tokio::test]
async fn a_websocket_opens_with_the_jar_and_closes_with_its_session() {
    let world = world_with(|_| ()).await;
    let browser = world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("open");
    assert!(world.app.last_request().header("cookie").unwrap().starts_with("SID="));
    world.revoke("ann").await;
    let Heard::Closed { code, .. } = socket.hear_end().await else { panic!("closed") };
    assert_eq!(code, 4401);
}

#[tokio::test]
async fn what_passes_is_the_browsers_to_hold() {
    let lines = format!("{VAULT}\npass_cookies = [\"XSRF-*\"]");
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.extra_headers = vec![
            ("Set-Cookie".into(), "XSRF-TOKEN=for-scripts; Path=/".into()),
            ("Set-Cookie".into(), "lang=de; Path=/".into()),
        ];
    };
    let world = World::with(habits, &lines, BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    assert_eq!(browser.cookie("XSRF-TOKEN").as_deref(), Some("for-scripts"));
    assert_eq!(browser.cookie("lang"), None);
    who(&browser).await;
    let cookie = world.app.last_request().header("cookie").unwrap();
    assert!(cookie.contains("lang=de") && cookie.ends_with("XSRF-TOKEN=for-scripts"), "{cookie}");
    browser.navigate("/logout").await;
    let cookie = world.app.last_request().header("cookie").unwrap();
    assert!(cookie.contains("lang=de") && !cookie.contains("SID="), "the rest of the jar lives on: {cookie}");
}

#[tokio::test]
async fn more_than_a_jar_holds_is_refused_in_words() {
    let world = world_with(|_| ()).await;
    let browser = world.signed_in("ann").await;
    let crowd = (0..30).map(|n| ("Set-Cookie".into(), format!("c{n}={}", "x".repeat(3000)))).collect();
    world.app.set(|s| s.extra_headers = crowd);
    let page = browser.fetch("/me").await;
    assert_eq!((page.status, page.json()["title"].as_str()), (502, Some("Cookies do not fit")));
    assert_eq!(names(&browser), [OURS]);
    world.app.set(|s| s.extra_headers.clear());
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "the jar is as it was");
}

#[tokio::test]
async fn cookies_from_before_are_adopted_and_taken_from_the_browser() {
    let lines = format!("{VAULT}\nenforce = false");
    let world = World::with(|s| s.identity_headers = true, &lines, BY_HEADER, POLICY).await;
    let direct = Browser::at(world.app.addr());
    sign_in(&direct, "ann").await;
    let token = direct.cookie("SID").unwrap();
    let browser = world.browser();
    let url = browser.url("/");
    let line = format!("SID={token}; Path=/");
    browser.jar(|jar| jar.learn(&url, line.as_bytes(), browser.now()));
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(names(&browser), [OURS]);
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "from the jar");
    assert_eq!(world.live_of("ann").len(), 1);
    let stranger = world.browser();
    let page = stranger.fetch_with_cookie("/me", "SID=made-up").await;
    assert_eq!(page.json()["user"], serde_json::Value::Null);
}

#[tokio::test]
async fn sources_name_users_as_ever() {
    let userinfo = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";
    for (identity, profile) in
        [(BY_FORM, Profile::RotateEach), (userinfo, Profile::RotateEach), (userinfo, Profile::RotateLogin)]
    {
        let world = World::with(|s| s.profile = profile, VAULT, identity, POLICY).await;
        let browser = world.browser();
        browser.post_form("/login", &[("username", "ann"), ("password", "wrong")]).await;
        assert!(world.live_of("ann").is_empty(), "{identity} {profile:?}");
        post_login(&browser, "ann").await;
        assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{identity} {profile:?}");
        assert_eq!(world.live_of("ann").len(), 1, "{identity} {profile:?}");
        post_login(&browser, "ann").await;
        assert_eq!(world.ends_of("ann"), ["superseded"], "{identity} {profile:?}");
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
}

#[tokio::test]
async fn over_https_only_this_host_can_have_set_our_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::of("app.localhost");
    let world = World::from_text(
        |s| {
            s.identity_headers = true;
            s.profile = Profile::Chunked;
            s.cookie = ".AspNetCore.Cookies".into();
            s.attributes.secure = true;
        },
        |upstream| {
            let text = config_text(upstream, "preset = \"aspnetcore\"", BY_HEADER, POLICY);
            text.replace("cookie = \"SID\"\n", "")
                .replace("workers = 2\n", &https_lines(&folder, &certificate))
        },
    )
    .await;
    let tls = Tls { root: certificate.root.clone(), h2: false };
    let options = Options { tls: Some(tls), ..Options::default() };
    let browser = Browser::with(world.gateway.https.unwrap(), options);
    sign_in(&browser, "ann").await;
    let name = format!("__Host-{OURS}");
    assert_eq!(names(&browser), std::slice::from_ref(&name));
    let (secure, http_only, path) = browser.jar(|jar| {
        let cookie = &jar.all()[0];
        (cookie.secure, cookie.http_only, cookie.path.clone())
    });
    assert_eq!((secure, http_only, path.as_str()), (true, true, "/"));
    let planted = format!("{OURS}={}", browser.cookie(&name).unwrap());
    let page = browser.fetch_with_cookie("/me", &planted).await;
    assert_eq!(
        page.json()["user"],
        serde_json::Value::Null,
        "a page of another host could have set that name"
    );
    browser.navigate("/logout").await;
    assert_eq!(world.ends_of("ann"), ["logout"]);
    assert!(names(&browser).is_empty());
}

#[tokio::test]
async fn whoever_is_held_back_has_a_jar_that_stays_shut_until_there_is_room() {
    let policy = "[policy]\nmax_concurrent = 1\non_limit = \"refuse\"\n";
    let world = World::with(|s| s.identity_headers = true, VAULT, BY_HEADER, policy).await;
    let first = world.signed_in("ann").await;
    let second = world.browser();
    post_login(&second, "ann").await;
    world.app.forget_requests();
    assert_eq!(second.navigate("/page").await.status, 403);
    assert!(world.app.requests().iter().all(|seen| seen.header("cookie").is_none()));
    assert_eq!(who(&first).await.as_deref(), Some("ann"));
    first.navigate("/logout").await;
    assert_eq!(who(&second).await.as_deref(), Some("ann"), "its jar was kept");
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn whoever_is_held_back_after_a_visit_keeps_what_the_sign_in_set() {
    let policy = "[policy]\nmax_concurrent = 1\non_limit = \"refuse\"\n";
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.anonymous_cookie = true;
        s.profile = Profile::RotateLogin;
    };
    let world = World::with(habits, VAULT, BY_HEADER, policy).await;
    let first = world.signed_in("ann").await;
    let second = world.browser();
    second.navigate("/").await;
    assert_eq!(names(&second), [OURS], "an anonymous session");
    post_login(&second, "ann").await;
    assert_eq!(second.navigate("/page").await.status, 403);
    first.navigate("/logout").await;
    assert_eq!(who(&second).await.as_deref(), Some("ann"), "the app knows it by the cookie of the sign-in");
}

#[tokio::test]
async fn what_was_adopted_is_adopted_once_and_dead_with_its_session() {
    let lines = format!("{VAULT}\nenforce = false");
    let world = World::with(|s| s.identity_headers = true, &lines, BY_HEADER, POLICY).await;
    let direct = Browser::at(world.app.addr());
    sign_in(&direct, "ann").await;
    let copy = format!("SID={}", direct.cookie("SID").unwrap());
    let browser = world.browser();
    assert_eq!(browser.fetch_with_cookie("/me", &copy).await.json()["user"], "ann");
    let again = world.browser();
    assert_eq!(again.fetch_with_cookie("/me", &copy).await.json()["user"], serde_json::Value::Null);
    assert_eq!(world.live_of("ann").len(), 1, "a copy is no second session");
    world.revoke("ann").await;
    world.app.forget_requests();
    for _ in 0..3 {
        let page = world.browser().fetch_with_cookie("/me", &copy).await;
        assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")));
    }
    assert!(world.app.requests().is_empty());
}

#[tokio::test]
async fn another_site_cannot_take_the_cookie_from_somebody_who_is_signed_in() {
    let world = world_with(|s| s.extra_headers = vec![("set-cookie".into(), "csrf=1; Path=/".into())]).await;
    let browser = world.signed_in("ann").await;
    let ours = browser.cookie(OURS).unwrap();
    // The form of another site: the browser leaves our cookie out and keeps what the answer sets.
    let stranger = world.browser();
    let form = Ask::form("/page", &[("a", "b")]).with("sec-fetch-site", "cross-site").no_follow();
    let page = stranger.send(form).await.unwrap();
    assert_eq!(page.headers.get("set-cookie"), None, "nothing that could stand in place of {ours}");
    assert_eq!(names(&stranger), Vec::<String>::new());
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
}

#[tokio::test]
async fn an_identity_provider_may_sign_in_by_a_form_from_its_own_site() {
    // The answer to the form sets the app's cookie and names nobody yet (OpenID Connect by form_post, SAML).
    let world = world_with(|s| s.anonymous_cookie = true).await;
    let browser = world.browser();
    world.app.set(|s| s.identity_headers = false);
    let foreign = |path: &str| {
        let form = [("username", "ann"), ("password", PASSWORD)];
        Ask::form(path, &form).with("sec-fetch-site", "cross-site").no_follow()
    };
    browser.send(foreign("/page")).await.unwrap();
    assert_eq!(names(&browser), Vec::<String>::new(), "elsewhere it could only take a cookie away");
    assert_eq!(browser.send(foreign("/login")).await.unwrap().status, 302);
    assert_eq!(names(&browser), [OURS]);
    world.app.set(|s| s.identity_headers = true);
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn the_deletion_of_one_of_several_session_cookies_is_a_log_out() {
    for custody in ["track", "vault"] {
        let text = |upstream: &str| {
            let lines = format!("custody = \"{custody}\"");
            config_text(upstream, &lines, BY_HEADER, POLICY)
                .replace("cookie = \"SID\"", "cookie = [\"SID\", \"AUTH\"]")
        };
        let sets = |field: &str| vec![("Set-Cookie".to_owned(), field.to_owned())];
        let habits = |s: &mut Switches| {
            s.identity_headers = true;
            s.extra_headers = sets("AUTH=ticket; Path=/");
        };
        let world = World::from_text(habits, text).await;
        let browser = world.signed_in("ann").await;
        world.app.set(|s| s.extra_headers = sets("AUTH=; Path=/; Max-Age=0"));
        browser.fetch("/poll").await;
        assert_eq!(world.ends_of("ann"), ["logout"], "{custody}");
    }
}

#[tokio::test]
async fn the_gateways_own_pages_know_the_session_by_our_cookie() {
    let world = world_with(|_| ()).await;
    let browser = world.signed_in("ann").await;
    let status = browser.fetch("/.tenure/status").await.json();
    assert_eq!((status["state"].as_str(), status["user"].as_str()), (Some("active"), Some("ann")));
    let touch = browser.send(Ask::post(Mode::Fetch, "/.tenure/touch", "text/plain", "")).await.unwrap();
    assert_eq!(touch.status, 204);
}

#[tokio::test]
async fn many_tabs_share_one_jar() {
    let world = world_with(|s| s.profile = Profile::RotateEach).await;
    let browser = world.signed_in("ann").await;
    let tabs: Vec<_> = (0..8).map(|_| browser.new_tab()).collect();
    let asking = tabs.into_iter().map(|tab| {
        tokio::spawn(async move {
            for _ in 0..25 {
                let page = tab.send(Ask::get(Mode::Fetch, "/me")).await.unwrap();
                assert_eq!(page.json()["user"], "ann");
            }
        })
    });
    for tab in asking.collect::<Vec<_>>() {
        tab.await.unwrap();
    }
    assert_eq!(names(&browser), [OURS]);
    assert_eq!(world.live_of("ann").len(), 1);
}
