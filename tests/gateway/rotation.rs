//! Values that change without a sign-in: what an alias is worth (R10), routes and cookies set twice (F3, F4).

use crate::setup::{BY_HEADER, POLICY, World, who};
use crate::support::app::{Profile, Switches};
use crate::support::browser::{Ask, Browser, Mode};
use crate::support::wait::{PATIENCE, eventually};

async fn world(profile: Profile) -> World {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.profile = profile;
    };
    World::with(habits, "", BY_HEADER, POLICY).await
}

/// A browser whose value has just changed, and the value from before.
async fn rotated(world: &World) -> (Browser, String) {
    let browser = world.signed_in("ann").await;
    let old = browser.cookie("SID").unwrap();
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_ne!(browser.cookie("SID").unwrap(), old, "the app rotates");
    (browser, format!("SID={old}"))
}

#[tokio::test]
async fn an_alias_reaches_the_app_as_sent_and_opens_nothing_of_the_gateway() {
    let world = world(Profile::RotateEach).await;
    let (browser, alias) = rotated(&world).await;
    let page = browser.fetch_with_cookie("/poll", &alias).await;
    assert_eq!(page.status, 200);
    let seen = world.app.last_request();
    assert_eq!((seen.header("cookie"), seen.user.as_deref()), (Some(alias.clone()), Some("ann")));
    let status = browser.fetch_with_cookie("/.tenure/status", &alias).await.json();
    assert_eq!((status["state"].as_str(), &status["user"]), (Some("none"), &serde_json::Value::Null));
    let touch = Ask::post(Mode::Fetch, "/.tenure/touch", "text/plain", "").with("cookie", &alias);
    assert_eq!(browser.send(touch).await.unwrap().status, 401);
}

#[tokio::test]
async fn an_alias_does_not_keep_its_session_from_going_idle() {
    let world = world(Profile::RotateEach).await;
    let (browser, alias) = rotated(&world).await;
    world.app.set(|s| s.profile = Profile::Opaque);
    world.pass(5);
    assert_eq!(browser.fetch_with_cookie("/me", &alias).await.json()["user"], "ann");
    world.pass(3595);
    assert_eq!(browser.fetch("/me").await.status, 401);
    assert_eq!(world.ends_of("ann"), ["idle_timeout"]);
}

#[tokio::test]
async fn an_alias_is_worth_nothing_once_its_grace_is_over() {
    let world = world(Profile::RotateEach).await;
    let (browser, alias) = rotated(&world).await;
    world.app.set(|s| s.profile = Profile::Opaque);
    world.pass(9);
    assert_eq!(browser.fetch_with_cookie("/me", &alias).await.json()["user"], "ann");
    world.pass(1);
    let page = browser.fetch_with_cookie("/me", &format!("theme=dark; {alias}")).await;
    assert_eq!(page.json()["user"], serde_json::Value::Null);
    assert_eq!(world.app.last_request().header("cookie").as_deref(), Some("theme=dark"));
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "the session goes on by its newest value");
}

#[tokio::test]
async fn a_slow_answer_whose_value_was_rotated_away_begins_no_second_session() {
    let world = world(Profile::RotateEach).await;
    let browser = world.signed_in("ann").await;
    let id = world.only_session_of("ann").id;
    world.pass(1);
    let tab = browser.new_tab();
    let slow = tokio::spawn(async move { tab.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    // The value that the slow request carries is an alias by then, and after the grace nothing at all.
    for _ in 0..3 {
        world.pass(11);
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
    let newest = browser.cookie("SID");
    world.app.release(1);
    assert_eq!(slow.await.unwrap().status, 200);
    assert_eq!(browser.cookie("SID"), newest, "the answer's own value stayed behind");
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(world.only_session_of("ann").id, id);
    assert!(world.ends_of("ann").is_empty());
}

#[tokio::test]
async fn as_many_answers_at_once_as_a_browser_has_connections_are_one_session() {
    let world = world(Profile::RotateEach).await;
    let browser = world.signed_in("ann").await;
    let id = world.only_session_of("ann").id;
    world.pass(1);
    let asking = (0..12).map(|_| {
        let tab = browser.new_tab();
        tokio::spawn(async move { tab.fetch("/slow").await })
    });
    let asking: Vec<_> = asking.collect();
    eventually(PATIENCE, async || world.app.waiting() == 12).await;
    world.app.release(12);
    for answer in asking {
        assert_eq!(answer.await.unwrap().json()["user"], "ann");
    }
    assert_eq!(world.only_session_of("ann").id, id);
}
