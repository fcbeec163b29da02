//! What an app does that undoes its configuration is noticed: a counter, one line in the log with the advice, and a line
//! of `tenure sessions`.

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, who};
use crate::support::app::{Profile, Switches};

fn noticed(world: &World) -> Vec<&'static str> {
    let app = world.gateway.handle().shared().metrics.app("app");
    app.habits.noticed().map(tenure::telemetry::Habit::as_str).collect()
}

async fn world(habits: impl FnOnce(&mut Switches), app_lines: &str) -> World {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        habits(s);
    };
    World::with(habits, app_lines, BY_HEADER, POLICY).await
}

#[tokio::test]
async fn a_cookie_that_changes_with_every_answer() {
    let tracked = world(|s| s.profile = Profile::RotateEach, "").await;
    let kept = world(|s| s.profile = Profile::RotateEach, "custody = \"vault\"").await;
    for world in [&tracked, &kept] {
        let browser = world.signed_in("ann").await;
        for _ in 0..60 {
            who(&browser).await;
        }
    }
    assert_eq!((noticed(&tracked), noticed(&kept)), (vec!["rotates_always"], vec![]));
    assert!(tracked.count("tenure_rotations_total") >= 60);
}

#[tokio::test]
async fn an_app_that_recycles_ids() {
    let world = world(|s| s.profile = Profile::Recycle, "").await;
    let browser = world.signed_in("ann").await;
    assert!(noticed(&world).is_empty());
    world.revoke("ann").await;
    browser.navigate("/").await;
    browser.navigate("/").await;
    let token = browser.cookie("SID").unwrap_or_else(|| world.app.issued_tokens().pop().unwrap());
    world.app.hand_out(&token);
    crate::setup::post_login(&browser, "ann").await;
    assert_eq!(noticed(&world), ["recycles_ids"]);
}

#[tokio::test]
async fn a_rule_of_signing_in_that_never_matches() {
    let never = BY_FORM.replace("[302, 303]", "[204]");
    let (wrong, right) =
        (World::with(|_| (), "", &never, POLICY).await, World::with(|_| (), "", BY_FORM, POLICY).await);
    for world in [&wrong, &right] {
        for _ in 0..50 {
            crate::setup::post_login(&world.browser(), "ann").await;
        }
    }
    assert_eq!((noticed(&wrong), noticed(&right)), (vec!["sign_in_never_matches"], vec![]));
    assert_eq!(wrong.count("tenure_sign_in_forms_unmatched_total"), 50);
}

#[tokio::test]
async fn sessions_without_anybody() {
    let world = World::with(|s| s.anonymous_cookie = true, "", BY_HEADER, POLICY).await;
    for _ in 0..100 {
        world.browser().navigate("/").await;
    }
    assert_eq!(noticed(&world), ["nobody_signs_in"]);
}

#[tokio::test]
async fn cookies_that_nobody_saw_being_issued_and_credentials_without_a_session() {
    let world = world(|_| (), "").await;
    let browser = world.browser();
    for n in 0..50 {
        browser.fetch_with_cookie("/me", &format!("SID=made-up-{n}")).await;
        let ask = crate::support::browser::Ask::get(crate::support::browser::Mode::Fetch, "/me");
        browser.send(ask.with("authorization", "Basic YW5uOnB3")).await.unwrap();
    }
    assert_eq!(noticed(&world), ["unseen_cookies", "unidentified"]);
    assert_eq!(world.count("tenure_unidentified_total"), 50);
}

#[tokio::test]
async fn what_was_issued_and_is_dead_is_no_cookie_that_nobody_saw() {
    let world = world(|s| s.remember_me = Some("remember".into()), "companions = [\"remember\"]").await;
    let browser = world.signed_in("ann").await;
    let copy = format!("remember={}", browser.cookie("remember").unwrap());
    browser.navigate("/logout").await;
    for _ in 0..60 {
        assert_eq!(browser.fetch_with_cookie("/me", &copy).await.json()["user"], serde_json::Value::Null);
    }
    assert_eq!(noticed(&world), Vec::<&str>::new());
    assert_eq!(world.count("tenure_unseen_total"), 0);
}
