//! What answers teach after the sign-in: silent and later sources, sign-outs off the path, what is not admitted after an end.

use tenure::store::StateFilter;

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, who};
use crate::support::app::{PASSWORD, Profile, Switches};
use crate::support::browser::{Ask, Browser, Mode};

const BY_COOKIE: &str = "[[app.identity]]\nfrom = \"cookie\"\nuser = \"username\"\n";
const BY_USERINFO: &str =
    "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";

fn sets(field: &str) -> Vec<(String, String)> {
    vec![("Set-Cookie".to_owned(), field.to_owned())]
}

#[tokio::test]
async fn a_later_source_neither_changes_nor_clears_the_user() {
    let both = format!("{BY_HEADER}{BY_COOKIE}");
    let world = World::with(|s| s.identity_headers = true, "", &both, POLICY).await;
    let browser = world.signed_in("ann").await;
    let id = world.only_session_of("ann").id;
    for field in ["username=mallory; Path=/", "username=; Path=/; Max-Age=0", "username=; Path=/"] {
        for by_header in [true, false] {
            world.app.set(|s| {
                s.identity_headers = by_header;
                s.extra_headers = sets(field);
            });
            assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{field}");
            assert_eq!(world.only_session_of("ann").id, id, "{field}");
            assert!(world.live_of("mallory").is_empty(), "{field}");
        }
    }
}

#[tokio::test]
async fn a_source_that_names_nobody_for_a_new_value_has_signed_the_user_out() {
    // The app forgot its sessions, and gives the browser an anonymous one in place of it.
    for identity in [BY_HEADER, BY_USERINFO] {
        let habits = |s: &mut Switches| {
            s.identity_headers = true;
            s.anonymous_cookie = true;
        };
        let world = World::with(habits, "", identity, POLICY).await;
        let browser = world.signed_in("ann").await;
        let before = browser.cookie("SID").unwrap();
        world.app.forget_sessions();
        assert_eq!(browser.fetch("/poll").await.status, 200);
        assert_ne!(browser.cookie("SID").unwrap(), before);
        assert_eq!(world.ends_of("ann"), ["logout"], "{identity}");
        let live = world.sessions(StateFilter::Active);
        assert_eq!((live.len(), live[0].identity.is_none()), (1, true), "the anonymous one");
        let copy = browser.fetch_with_cookie("/me", &format!("SID={before}")).await;
        assert_eq!(copy.status, 200, "a log-out is silent");
    }
}

#[tokio::test]
async fn the_app_signs_out_wherever_it_deletes_the_cookie() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    world.app.set(|s| s.extra_headers = sets("SID=; Path=/; Max-Age=0"));
    assert_eq!(browser.fetch("/poll").await.status, 200);
    assert_eq!(browser.cookie("SID"), None);
    assert_eq!(world.ends_of("ann"), ["logout"]);
}

#[tokio::test]
async fn a_deletion_in_answer_to_an_alias_signs_nobody_out() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.profile = Profile::RotateEach;
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    let alias = format!("SID={}", browser.cookie("SID").unwrap());
    who(&browser).await;
    world.app.set(|s| {
        s.profile = Profile::Opaque;
        s.extra_headers = sets("SID=; Path=/; Max-Age=0");
    });
    let page = browser.fetch_with_cookie("/poll", &alias).await;
    assert_eq!((page.status, page.header("set-cookie")), (200, None), "the deletion is withheld");
    assert_eq!(world.count("tenure_withheld_total"), 1);
    world.app.set(|s| s.extra_headers.clear());
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert!(world.ends_of("ann").is_empty());
}

#[tokio::test]
async fn a_browser_that_the_app_signs_in_again_after_an_end_is_not_admitted() {
    let odd = "theme=\"a b\";;path=/x; Foo=bar ;SameSite=none";
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.remember_me = Some("remember".into());
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    let dead = browser.cookie("SID").unwrap();
    world.revoke("ann").await;
    world.app.set(|s| s.extra_headers = sets(odd));
    // The login page is never answered by an end, and the app takes the browser for ann by a cookie we know nothing of.
    let page = browser.send(Ask::get(Mode::Navigate, "/login").no_follow()).await.unwrap();
    assert_eq!(page.status, 200);
    assert_eq!(world.app.last_request().user.as_deref(), Some("ann"), "signed in, as the app sees it");
    assert_eq!(page.all("set-cookie"), [odd], "what is no token passes byte for byte");
    assert_eq!(browser.cookie("SID").as_deref(), Some(dead.as_str()), "no new one came");
    assert!(world.live_of("ann").is_empty());
    assert_eq!(world.count("tenure_withheld_total"), 1);
}

/// A browser that the app has given an anonymous cookie, before a form at `/echo` that sets no cookie whatever it is sent.
async fn before_a_form(success: &str) -> (World, Browser) {
    let form = BY_FORM.replace("/login\"\nuser", "/echo\"\nuser");
    let (head, _) = form.split_once("success").unwrap();
    let identity = format!("{head}success = {{ status = [200]{success} }}\n");
    let world = World::with(|s| s.anonymous_cookie = true, "", &identity, POLICY).await;
    let browser = world.browser();
    browser.navigate("/login").await;
    assert!(browser.cookie("SID").is_some());
    (world, browser)
}

async fn submit(browser: &Browser, user: &str) {
    let page = browser.post_form("/echo", &[("username", user), ("password", PASSWORD)]).await;
    assert_eq!(page.status, 200);
}

#[tokio::test]
async fn a_form_counts_only_where_the_answer_sets_the_session_cookie() {
    let (world, browser) = before_a_form("").await;
    submit(&browser, "ann").await;
    assert!(world.live_of("ann").is_empty(), "the predicate held, and no cookie was set");
    world.app.set(|s| s.rolling = true);
    submit(&browser, "ann").await;
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn a_form_that_need_set_no_cookie_counts_on_a_session_without_a_user_alone() {
    let (world, browser) = before_a_form(", sets_cookie = false").await;
    submit(&browser, "ann").await;
    let id = world.only_session_of("ann").id;
    for profile in [Profile::Opaque, Profile::RotateEach] {
        world.app.set(|s| s.profile = profile);
        submit(&browser, "bob").await;
        assert_eq!(world.only_session_of("ann").id, id, "{profile:?}");
        assert!(world.live_of("bob").is_empty(), "who is signed in stays so");
    }
}

#[tokio::test]
async fn a_form_counts_where_the_answer_sets_a_cookie_that_was_named() {
    let (world, browser) = before_a_form(", sets_cookie = [\"AUTH\", \"AUTH2\"]").await;
    for (field, counts) in [("OTHER=1; Path=/", 0), ("AUTH2=; Path=/; Max-Age=0", 0), ("AUTH2=1; Path=/", 1)]
    {
        world.app.set(|s| s.extra_headers = sets(field));
        submit(&browser, "ann").await;
        assert_eq!(world.live_of("ann").len(), counts, "{field}");
    }
}
