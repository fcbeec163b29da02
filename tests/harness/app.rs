//! The app's habits, as a browser meets them without a gateway between.

use std::time::Duration;

use serde_json::json;

use crate::support::app::{App, CloseAfter, MFA_CODE, PASSWORD, Profile, Resurrect, Switches, WrongPassword};
use crate::support::browser::{Ask, Browser, Mode, Page};
use crate::support::wait::{PATIENCE, eventually};

const ANN: &str = "ann@acme.example";

async fn start(set: impl FnOnce(&mut Switches)) -> (App, Browser) {
    let app = App::with(set).await;
    let browser = Browser::at(app.addr());
    (app, browser)
}

async fn sign_in(browser: &Browser, user: &str) -> Page {
    browser.post_form("/login", &[("username", user), ("password", PASSWORD)]).await
}

async fn who(browser: &Browser) -> Option<String> {
    browser.fetch("/me").await.json()["user"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_person_signs_in_works_and_signs_out() {
    let (app, browser) = start(|_| {}).await;
    assert_eq!(browser.navigate("/page").await.url.target, "/login?next=/page");
    let page = sign_in(&browser, ANN).await;
    assert_eq!((page.statuses(), page.url.path()), (vec![302, 200], "/"));
    assert!(page.text().contains("/ of ann@acme.example"));
    let me = browser.fetch("/api/whoami").await.json();
    assert_eq!(me, json!({ "user": { "email": ANN }, "tenant": "acme", "roles": ["user"] }));
    let token = browser.cookie("SID").unwrap();
    assert!(app.saw_token(&token) && app.issued_tokens().contains(&token));
    assert_eq!(browser.navigate("/logout").await.url.path(), "/login");
    assert_eq!((browser.cookie("SID"), who(&browser).await, app.signed_in()), (None, None, 0));
    assert_eq!(browser.fetch("/api/whoami").await.status, 401);
}

#[tokio::test]
async fn the_way_back_is_kept() {
    let (_app, browser) = start(|s| s.login_status = 303).await;
    let page = browser.post_form("/login?next=/page", &[("username", ANN), ("password", PASSWORD)]).await;
    assert_eq!((page.statuses(), page.url.path()), (vec![303, 200], "/page"));
}

#[tokio::test]
async fn sign_in_speaks_three_languages() {
    let (_app, browser) = start(|s| s.login_status = 200).await;
    let fields = [("username", ANN), ("password", PASSWORD)];
    assert!(browser.post_multipart("/login", &fields).await.text().contains(ANN));
    browser.navigate("/logout").await;
    let page = browser.post_json("/login", &json!({ "username": "bob", "password": PASSWORD })).await;
    assert_eq!((page.status, who(&browser).await.as_deref()), (200, Some("bob")));
}

#[tokio::test]
async fn a_wrong_password_is_answered_as_switched() {
    let (app, browser) = start(|_| {}).await;
    for (habit, statuses) in [
        (WrongPassword::Ok200, vec![200]),
        (WrongPassword::Unauthorized401, vec![401]),
        (WrongPassword::Redirect302, vec![302, 200]),
    ] {
        app.set(|s| s.wrong_password = habit);
        let page = browser.post_form("/login", &[("username", ANN), ("password", "wrong")]).await;
        assert_eq!((page.statuses(), page.url.path()), (statuses, "/login"), "{habit:?}");
        assert_eq!(browser.cookie("SID"), None);
    }
}

#[tokio::test]
async fn a_second_step_is_asked_for() {
    let (_app, browser) = start(|s| (s.mfa, s.profile) = (true, Profile::RotateLogin)).await;
    let half = sign_in(&browser, ANN).await;
    assert_eq!((half.statuses(), half.url.path()), (vec![302, 200], "/mfa"));
    let first = browser.cookie("SID");
    assert_eq!(who(&browser).await, None);
    browser.post_form("/mfa", &[("code", "000000")]).await;
    assert_eq!(who(&browser).await, None);
    browser.post_form("/mfa", &[("code", MFA_CODE)]).await;
    assert_eq!(who(&browser).await.as_deref(), Some(ANN));
    assert_ne!(browser.cookie("SID"), first);
}

#[tokio::test]
async fn anonymous_visitors_get_a_cookie_each() {
    let (_app, browser) = start(|s| s.anonymous_cookie = true).await;
    browser.fetch("/static/app.css").await;
    let anonymous = browser.cookie("SID");
    assert!(anonymous.is_some());
    sign_in(&browser, ANN).await;
    assert_eq!(browser.cookie("SID"), anonymous, "an opaque value is kept at sign-in");
    browser.navigate("/logout").await;
    assert!(browser.cookie("SID").is_some_and(|after| Some(after) != anonymous));
}

#[tokio::test]
async fn a_value_rotates_at_sign_in() {
    let (app, browser) = start(|s| (s.profile, s.anonymous_cookie) = (Profile::RotateLogin, true)).await;
    browser.navigate("/login").await;
    let before = browser.cookie("SID").unwrap();
    sign_in(&browser, ANN).await;
    assert_ne!(browser.cookie("SID").unwrap(), before);
    app.set(|s| s.anonymous_cookie = false);
    let dead = browser.fetch_with_cookie("/me", &format!("SID={before}")).await;
    assert_eq!(dead.json()["user"], json!(null));
    let first = browser.cookie("SID").unwrap();
    sign_in(&browser, ANN).await;
    assert_ne!(browser.cookie("SID").unwrap(), first);
    let dead = browser.fetch_with_cookie("/me", &format!("SID={first}")).await;
    assert_eq!(dead.json()["user"], json!(null));
}

#[tokio::test]
async fn a_value_rotates_at_each_answer_and_old_ones_stay() {
    let (app, browser) = start(|s| s.profile = Profile::RotateEach).await;
    sign_in(&browser, ANN).await;
    let old = browser.cookie("SID").unwrap();
    assert_eq!(who(&browser).await.as_deref(), Some(ANN));
    assert_ne!(browser.cookie("SID").unwrap(), old);
    let still = browser.fetch_with_cookie("/me", &format!("SID={old}")).await;
    assert_eq!(still.json()["user"], json!(ANN));
    assert!(app.issued_tokens().len() >= 3);
}

#[tokio::test]
async fn an_id_is_recycled() {
    let (app, browser) = start(|s| s.profile = Profile::Recycle).await;
    sign_in(&browser, ANN).await;
    let id = browser.cookie("SID").unwrap();
    browser.navigate("/logout").await;
    assert_eq!((browser.cookie("SID").as_ref(), who(&browser).await), (Some(&id), None));
    sign_in(&browser, "bob").await;
    assert_eq!((browser.cookie("SID").as_ref(), who(&browser).await.as_deref()), (Some(&id), Some("bob")));
    app.forget_sessions();
    browser.jar(|jar| jar.clear());
    app.hand_out(&id);
    sign_in(&browser, ANN).await;
    assert_eq!((browser.cookie("SID"), who(&browser).await.as_deref()), (Some(id), Some(ANN)));
}

#[tokio::test]
async fn a_long_value_comes_in_chunks() {
    let (app, browser) = start(|s| s.profile = Profile::Chunked).await;
    sign_in(&browser, ANN).await;
    assert_eq!(browser.cookie("SID").as_deref(), Some("chunks-2"));
    let (one, two) = (browser.cookie("SIDC1").unwrap(), browser.cookie("SIDC2").unwrap());
    assert_eq!((one.len(), two.len(), who(&browser).await.as_deref()), (4050, 1950, Some(ANN)));
    assert!(app.issued_tokens().contains(&two));
    browser.navigate("/logout").await;
    assert_eq!((browser.cookie("SID"), browser.cookie("SIDC1"), browser.cookie("SIDC2")), (None, None, None));
}

#[tokio::test]
async fn the_route_changes_at_a_failover() {
    let (app, browser) = start(|s| s.profile = Profile::Route).await;
    sign_in(&browser, ANN).await;
    let first = browser.cookie("SID").unwrap();
    app.set(|s| s.route = "node2".to_owned());
    assert_eq!(who(&browser).await.as_deref(), Some(ANN));
    assert_eq!(browser.cookie("SID").unwrap(), first.replace("node1", "node2"));
}

#[tokio::test]
async fn of_two_cookies_in_an_answer_the_last_is_meant() {
    let (_app, browser) = start(|s| s.profile = Profile::DoubleSet).await;
    let page = sign_in(&browser, ANN).await;
    assert_eq!(page.chain[0].headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(who(&browser).await.as_deref(), Some(ANN));
}

#[tokio::test]
async fn a_companion_signs_in_again() {
    let (app, browser) = start(|s| s.remember_me = Some("remember-me".to_owned())).await;
    sign_in(&browser, ANN).await;
    let first = browser.cookie("SID");
    browser.jar(|jar| jar.end_browser_session());
    assert_eq!(browser.cookie("SID"), None);
    assert_eq!(who(&browser).await.as_deref(), Some(ANN));
    assert_ne!(browser.cookie("SID"), first);
    let companion = browser.cookie("remember-me").unwrap();
    assert!(app.issued_tokens().contains(&companion));
    browser.navigate("/logout").await;
    assert_eq!((browser.cookie("remember-me"), who(&browser).await), (None, None));
    let page = browser.fetch_with_cookie("/me", &format!("remember-me={companion}")).await;
    assert_eq!(page.json()["user"], json!(null));
}

#[tokio::test]
async fn with_replay_a_copy_outlives_log_out() {
    let (_app, browser) = start(|s| s.replay = true).await;
    sign_in(&browser, ANN).await;
    let copy = format!("SID={}", browser.cookie("SID").unwrap());
    browser.navigate("/logout").await;
    assert_eq!(who(&browser).await, None);
    assert_eq!(browser.fetch_with_cookie("/me", &copy).await.json()["user"], json!(ANN));
}

#[tokio::test]
async fn a_slow_request_brings_the_session_back_as_switched() {
    for (habit, comes_back, same_value) in
        [(Resurrect::None, false, false), (Resurrect::Same, true, true), (Resurrect::New, true, false)]
    {
        let (app, browser) = start(|s| s.resurrect = habit).await;
        sign_in(&browser, ANN).await;
        assert_eq!(
            browser.fetch("/slow?ms=1").await.all("set-cookie").len(),
            1,
            "a cookie at the end: {habit:?}"
        );
        let token = browser.cookie("SID");
        let other = browser.new_tab();
        let slow = tokio::spawn(async move { other.fetch("/slow").await });
        eventually(PATIENCE, async || app.waiting() == 1).await;
        browser.navigate("/logout").await;
        app.release(1);
        let set = slow.await.unwrap().all("set-cookie").len();
        assert_eq!(set, usize::from(comes_back), "{habit:?}");
        assert_eq!(who(&browser).await.is_some(), comes_back, "{habit:?}");
        assert_eq!(browser.cookie("SID") == token, same_value, "{habit:?}");
    }
}

#[tokio::test]
async fn a_moved_cookie_leaves_the_first_one_behind() {
    let (app, browser) = start(|s| s.anonymous_cookie = true).await;
    browser.navigate("/login").await;
    app.set(|s| (s.move_path, s.profile) = (Some("/page".to_owned()), Profile::RotateLogin));
    sign_in(&browser, ANN).await;
    assert_ne!(browser.cookie_at("SID", "/page"), browser.cookie_at("SID", "/"));
    assert!(browser.navigate("/page").await.text().contains(ANN), "the longer path comes first and counts");
    app.set(|s| s.last_duplicate = true);
    assert_eq!(browser.navigate("/page").await.url.path(), "/login");
}

#[tokio::test]
async fn ids_in_urls_count_when_switched_on() {
    let (app, browser) = start(|_| {}).await;
    sign_in(&browser, ANN).await;
    let token = browser.cookie("SID").unwrap();
    let stranger = Browser::at(app.addr());
    for path in [format!("/me;sid={token}"), format!("/me?SID={token}")] {
        app.set(|s| s.url_ids = false);
        let plain = stranger.fetch(&path).await;
        assert!(plain.status == 404 || plain.json()["user"].is_null());
        app.set(|s| s.url_ids = true);
        assert_eq!(stranger.fetch(&path).await.json()["user"], json!(ANN), "{}", path.len());
    }
}

#[tokio::test]
async fn identity_headers_name_the_user() {
    let (_app, browser) = start(|s| s.identity_headers = true).await;
    assert_eq!(browser.navigate("/login").await.header("x-session-user"), None);
    sign_in(&browser, "admin.eve@other.example").await;
    let page = browser.fetch("/poll").await;
    assert_eq!(page.header("x-session-user"), Some("admin.eve@other.example"));
    assert_eq!(
        (page.header("x-session-tenant"), page.header("x-session-roles")),
        (Some("other"), Some("admin"))
    );
}

#[tokio::test]
async fn requests_are_recorded_as_they_came() {
    let (app, browser) = start(|_| {}).await;
    browser
        .raw("GET /echo?a=%2F HTTP/1.1\r\nHost: h\r\nx-ODD: 1\r\nX-Odd: 2\r\nConnection: close\r\n\r\n")
        .await;
    let seen = app.last_request();
    assert_eq!(
        (seen.target.as_str(), seen.all("X-Odd")),
        ("/echo?a=%2F", vec!["1".to_owned(), "2".to_owned()])
    );
    assert_eq!(seen.headers[1].0, "x-ODD");
    let ask = Ask::post(Mode::Fetch, "/echo", "text/plain", "the body").with("x-mark", "7");
    let echo = browser.send(ask).await.unwrap().json();
    assert_eq!((&echo["method"], &echo["body"]), (&json!("POST"), &json!("the body")));
    assert!(echo["headers"].as_array().unwrap().contains(&json!(["x-mark", "7"])));
    assert_eq!(app.last_request().body, b"the body");
    app.forget_requests();
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn idle_connections_are_closed_as_switched() {
    let (app, browser) = start(|s| s.close_after = CloseAfter::Answers(2)).await;
    for _ in 0..4 {
        browser.fetch("/poll").await;
    }
    assert_eq!(app.connections(), 2);
    app.set(|s| s.close_after = CloseAfter::Idle(Duration::from_millis(5)));
    browser.fetch("/poll").await;
    eventually(PATIENCE, async || app.open_connections() == 0).await;
}
