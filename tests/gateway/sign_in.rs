//! Signing in and out, rotation, generations, account switches: what responses teach.

use tenure::store::StateFilter;

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, post_login, sign_in, who};
use crate::support::app::{PASSWORD, Profile, Resurrect, Switches};
use crate::support::browser::{Ask, Mode};
use crate::support::wait::{PATIENCE, eventually};

#[tokio::test]
async fn an_anonymous_session_becomes_a_signed_in_one_and_keeps_its_id() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.anonymous_cookie = true;
            s.profile = Profile::RotateLogin;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.browser();
    browser.navigate("/login").await;
    let before = world.sessions(StateFilter::Active);
    let old = browser.cookie("SID").unwrap();
    assert_eq!(before.len(), 1);
    world.pass(10);
    sign_in(&browser, "ann").await;
    let after = world.only_session_of("ann");
    assert_eq!((after.id, after.times.created_at), (before[0].id, before[0].times.created_at));
    assert_eq!(after.times.signed_in_at, Some(world.clock.now()));
    // The value from before the sign-in is no alias: session fixation opens nothing.
    world.app.forget_requests();
    let fixed = browser.fetch_with_cookie("/me", &format!("SID={old}")).await;
    assert_eq!(fixed.json()["user"], serde_json::Value::Null);
    assert!(!world.app.saw_token(&old));
}

#[tokio::test]
async fn no_spelling_of_a_path_signs_in_or_out_unseen() {
    let habits = |s: &mut Switches| {
        s.any_spelling = true;
        s.anonymous_cookie = true;
        s.profile = Profile::RotateLogin;
    };
    let world = World::with(habits, "", BY_FORM, POLICY).await;
    let spell = |path: &str| {
        let capitals = path.to_uppercase();
        // A browser takes what begins with two slashes for another host.
        let doubled = format!("/x/../{path}");
        [
            capitals,
            format!("{path}/"),
            format!("{path};a=b"),
            format!("{doubled};a=b//"),
            doubled,
            format!("/x/..;/{path}"),
        ]
    };
    for (n, (login, logout)) in spell("/login").iter().zip(&spell("/logout")).enumerate() {
        let (browser, user) = (world.browser(), format!("ann{n}"));
        let form = [("username", user.as_str()), ("password", PASSWORD)];
        browser.send(Ask::form(login, &form).no_follow()).await.unwrap();
        assert_eq!(who(&browser).await.as_deref(), Some(&*user), "{login}: the app has signed in");
        assert_eq!(world.live_of(&user).len(), 1, "{login}");
        browser.send(Ask::get(Mode::Navigate, logout).no_follow()).await.unwrap();
        assert_eq!(world.ends_of(&user), ["logout"], "{logout}");
    }
}

#[tokio::test]
async fn what_follows_behind_a_script_hides_no_form() {
    let form = BY_FORM.replace("/login\"\nuser", "/login.php\"\nuser");
    let world = World::with(|s| s.scripts = true, "", &form, POLICY).await;
    let browser = world.browser();
    let form = [("username", "ann"), ("password", PASSWORD)];
    browser.send(Ask::form("/login.php/x", &form).no_follow()).await.unwrap();
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "the app has signed in");
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn rotation_on_every_answer_keeps_one_session() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.profile = Profile::RotateEach;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    let before = world.only_session_of("ann");
    for _ in 0..20 {
        world.pass(60);
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
    let after = world.only_session_of("ann");
    assert_eq!((after.id, after.times.signed_in_at), (before.id, before.times.signed_in_at));
}

#[tokio::test]
async fn a_log_out_ends_the_session_silently() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    let page = browser.navigate("/logout").await;
    assert_eq!(page.status, 200);
    assert_eq!(world.ends_of("ann"), ["logout"]);
    world.app.forget_requests();
    let copy = browser.fetch_with_cookie("/me", &format!("SID={token}")).await;
    assert_eq!(copy.status, 200, "a log-out is nothing to be told");
    assert!(!world.app.saw_token(&token));
}

#[tokio::test]
async fn signing_in_again_supersedes_and_another_user_switches() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.profile = Profile::RotateLogin;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    sign_in(&browser, "ann").await;
    assert_eq!((world.live_of("ann").len(), world.ends_of("ann")), (1, vec!["superseded"]));
    sign_in(&browser, "bob").await;
    assert_eq!(world.live_of("ann").len(), 0);
    let mut ends = world.ends_of("ann");
    ends.sort_unstable();
    assert_eq!(ends, ["account_switched", "superseded"]);
    assert_eq!(world.live_of("bob").len(), 1);
}

#[tokio::test]
async fn a_failed_sign_in_teaches_nothing() {
    let world = World::new().await;
    let browser = world.browser();
    let page = browser.post_form("/login", &[("username", "ann"), ("password", "wrong")]).await;
    assert_eq!(page.status, 200);
    assert!(world.live_of("ann").is_empty());
}

#[tokio::test]
async fn a_recycled_id_lives_again_only_by_the_app_itself() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.profile = Profile::Recycle;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    world.revoke("ann").await;
    // The very value is presented again and again: it is stripped, and nobody comes back by it.
    for _ in 0..3 {
        assert_eq!(browser.fetch_with_cookie("/me", &format!("SID={token}")).await.status, 401);
    }
    assert_eq!(world.count("tenure_recycled_total"), 0);
    // The app itself hands the value out again, to a browser that carried none.
    world.app.hand_out(&token);
    let other = world.browser();
    sign_in(&other, "bob").await;
    assert_eq!(other.cookie("SID").as_deref(), Some(token.as_str()), "recycled");
    assert_eq!(world.count("tenure_recycled_total"), 1);
    assert_eq!(who(&other).await.as_deref(), Some("bob"));
    assert_eq!(world.live_of("bob").len(), 1);
}

#[tokio::test]
async fn an_answer_to_a_request_from_before_the_end_recycles_nothing() {
    let world = World::new().await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    // A stranger without any cookie asks before ann's session ends, and is given her very value afterwards.
    world.app.set(|s| s.anonymous_cookie = true);
    world.app.hand_out(&token);
    let other = world.browser();
    let tab = other.new_tab();
    let slow = tokio::spawn(async move { tab.fetch("/slow").await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    world.pass(1);
    world.revoke("ann").await;
    world.app.release(1);
    assert_eq!(slow.await.unwrap().status, 200);
    assert_eq!((other.cookie("SID"), world.count("tenure_withheld_total")), (None, 1));
    assert_eq!(other.fetch_with_cookie("/me", &format!("SID={token}")).await.status, 401, "dead");
    // A request that comes after the end may bring it back.
    world.app.hand_out(&token);
    other.fetch("/poll").await;
    assert_eq!((other.cookie("SID"), world.count("tenure_recycled_total")), (Some(token), 1));
}

#[tokio::test]
async fn a_session_that_another_sign_in_replaced_ends_in_silence() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.profile = Profile::RotateLogin;
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    for (user, reason) in [("ann", "superseded"), ("bob", "account_switched")] {
        let dead = format!("SID={}", browser.cookie("SID").unwrap());
        sign_in(&browser, user).await;
        assert!(world.ends_of("ann").contains(&reason), "{:?}", world.ends_of("ann"));
        let fetched = browser.fetch_with_cookie("/me", &dead).await;
        let answer = (fetched.status, fetched.header("tenure-session"), &fetched.json()["user"]);
        assert_eq!(answer, (200, None, &serde_json::Value::Null), "{reason}");
        let ask = Ask::get(Mode::Navigate, "/page").with("cookie", &dead).no_follow();
        let page = browser.send(ask).await.unwrap();
        let answer = (page.status, page.header("location"), page.header("tenure-session"));
        assert_eq!(answer, (302, Some("/login?next=/page"), None), "the app's own: {reason}");
        assert!(world.app.last_request().all("cookie").is_empty());
    }
}

#[tokio::test]
async fn a_slow_answer_brings_no_ended_session_back() {
    for resurrect in [Resurrect::Same, Resurrect::New] {
        let world = World::with(
            |s| {
                s.identity_headers = true;
                s.resurrect = resurrect;
            },
            "",
            BY_HEADER,
            POLICY,
        )
        .await;
        let browser = world.signed_in("ann").await;
        let token = browser.cookie("SID").unwrap();
        let tab = browser.new_tab();
        let slow = tokio::spawn(async move { tab.send(Ask::get(Mode::Fetch, "/slow")).await });
        eventually(PATIENCE, async || world.app.waiting() == 1).await;
        world.revoke("ann").await;
        let page = slow.await.unwrap().unwrap();
        assert_eq!(page.status, 401, "the answer was replaced by that of the end");
        world.app.release(1);
        assert_eq!(who(&browser).await, None);
        assert_eq!(browser.fetch_with_cookie("/me", &format!("SID={token}")).await.status, 401);
        assert!(world.live_of("ann").is_empty());
    }
}

#[tokio::test]
async fn an_anonymous_answer_that_a_sign_in_overtook_signs_nobody_out() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.anonymous_cookie = true;
        s.profile = Profile::RotateLogin;
        s.resurrect = Resurrect::New;
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.browser();
    browser.navigate("/").await;
    let anonymous = browser.cookie("SID").expect("a cookie for every visitor");
    let tab = browser.new_tab();
    let slow = tokio::spawn(async move { tab.send(Ask::get(Mode::Fetch, "/slow")).await });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    sign_in(&browser, "ann").await;
    let signed_in = browser.cookie("SID").expect("a cookie");
    assert_ne!(anonymous, signed_in);
    world.app.release(1);
    assert_eq!(slow.await.unwrap().unwrap().status, 200);
    assert_eq!(browser.cookie("SID"), Some(signed_in), "the answer's own cookie stayed behind");
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
}

/// Requests that were sent before the answer of a sign-in arrived, and that are judged after it.
#[tokio::test]
async fn a_visitors_cookie_does_not_take_the_place_of_a_sign_in_that_came_first() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.anonymous_cookie = true;
        s.profile = Profile::RotateLogin;
    };
    let custodies = ["custody = \"track\"", "custody = \"vault\""];
    for (custody, name) in custodies.into_iter().zip(["SID", "tenure-app"]) {
        let world = World::with(habits, custody, BY_HEADER, POLICY).await;
        let browser = world.browser();
        browser.navigate("/").await;
        // First the sign-in of a visitor, then one on top of a session.
        for user in ["ann", "ann", "bob"] {
            let before = browser.cookie(name).expect("a cookie");
            sign_in(&browser, user).await;
            let signed_in = browser.cookie(name).expect("a cookie");
            assert_ne!(before, signed_in);
            let late = browser.fetch_with_cookie("/me", &format!("{name}={before}")).await;
            let answer = (late.status, &late.json()["user"], late.header("set-cookie"));
            assert_eq!(answer, (200, &serde_json::Value::Null, None), "{name} {user}");
            assert!(world.app.last_request().all("cookie").is_empty(), "{name} {user}");
            assert_eq!(who(&browser).await.as_deref(), Some(user), "{name}");
        }
        let copy = browser.cookie(name).expect("a cookie");
        sign_in(&browser, "ann").await;
        world.pass(10);
        let late = browser.fetch_with_cookie("/me", &format!("{name}={copy}")).await;
        assert!(late.header("set-cookie").is_some(), "after the grace it is a visitor like others: {name}");
    }
}

#[tokio::test]
async fn remember_me_does_not_sign_a_browser_in_again_after_an_end() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.remember_me = Some("remember".into());
        },
        "companions = [\"remember\"]",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    let companion = browser.cookie("remember").expect("a companion");
    world.revoke("ann").await;
    let page = browser.navigate("/page").await;
    assert_eq!(page.status, 401);
    assert_eq!(browser.cookie("remember"), None, "the companion is deleted with its session");
    world.app.forget_requests();
    let copy = browser.fetch_with_cookie("/me", &format!("remember={companion}")).await;
    assert_eq!(copy.json()["user"], serde_json::Value::Null);
    assert!(!world.app.saw_token(&companion), "stripped, also without a session cookie");
    assert!(world.live_of("ann").is_empty());
}

#[tokio::test]
async fn parallel_requests_during_a_rotation_are_one_session() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.profile = Profile::RotateEach;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    for _ in 0..10 {
        let (a, b) = (browser.new_tab(), browser.new_tab());
        let (one, two) = tokio::join!(who(&a), who(&b));
        assert_eq!((one.as_deref(), two.as_deref()), (Some("ann"), Some("ann")));
        world.pass(1);
    }
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn unseen_cookies_are_stripped() {
    let world = World::new().await;
    let browser = world.browser();
    let page = browser.fetch_with_cookie("/me", "SID=made-up-by-somebody; theme=dark").await;
    assert_eq!(page.json()["user"], serde_json::Value::Null);
    let seen = world.app.last_request();
    assert_eq!(seen.header("cookie").as_deref(), Some("theme=dark"));
}

#[tokio::test]
async fn observing_ends_nobody_and_follows_sessions_from_before() {
    let world = World::with(|s| s.identity_headers = true, "enforce = false", BY_HEADER, POLICY).await;
    // This browser signed in before the gateway stood there.
    let before = crate::support::browser::Browser::at(world.app.addr());
    post_login(&before, "old").await;
    let cookie = format!("SID={}", before.cookie("SID").unwrap());
    let browser = world.browser();
    let page = browser.fetch_with_cookie("/me", &cookie).await;
    assert_eq!(page.json()["user"], "old", "not stripped while observing");
    assert_eq!(world.live_of("old").len(), 1, "and followed from now on");
    let ann = world.signed_in("ann").await;
    for _ in 0..3 {
        world.signed_in("ann").await;
    }
    world.pass(80_000);
    assert_eq!(who(&ann).await.as_deref(), Some("ann"));
    let text = world.gateway.handle().metrics_text();
    assert!(text.contains("tenure_would_end_total{app=\"app\",reason=\"max_concurrent\"} 2"), "{text}");
}

/// A browser of Ann's, or of a visitor, whose tabs go on while one of them signs Bob in: the app does so on the session
/// that there is, and says so to whoever asks, before the form is answered.
async fn seen_early(profile: Profile, custody: &str, is_visitor: bool, form_first: bool) {
    let what = format!("{profile:?} {custody} visitor: {is_visitor}, form first: {form_first}");
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.anonymous_cookie = is_visitor;
        s.profile = profile;
    };
    let policy = "[policy]\nidle_timeout = \"1h\"\nmax_concurrent = 1\n";
    let world = World::with(habits, &format!("custody = \"{custody}\""), BY_HEADER, policy).await;
    let browser = world.browser();
    match is_visitor {
        true => drop(browser.navigate("/login").await),
        false => sign_in(&browser, "ann").await,
    }
    let tab = browser.new_tab();
    let form = [("username", "bob"), ("password", PASSWORD)];
    let form = Ask::form("/login?hold=1", &form).no_follow();
    let form = tokio::spawn(async move { tab.hold(form).await.unwrap() });
    eventually(PATIENCE, async || world.app.waiting() == 1).await;
    let other = browser.hold(Ask::get(Mode::Fetch, "/me")).await.unwrap();
    let id = world.only_session_of("bob").id;
    world.app.release(1);
    let form = form.await.unwrap();
    let (one, two) = if form_first { (form, other) } else { (other, form) };
    for answer in [one, two] {
        browser.deliver(answer).await.unwrap();
        assert_eq!(who(&browser).await.as_deref(), Some("bob"), "{what}");
    }
    world.pass(60);
    assert_eq!(who(&browser).await.as_deref(), Some("bob"), "{what}");
    assert_eq!((world.only_session_of("bob").id, world.ends_of("bob").len()), (id, 0), "{what}");
    let of_ann: &[&str] = if is_visitor { &[] } else { &["account_switched"] };
    assert_eq!(world.ends_of("ann"), of_ann, "{what}");
}

#[tokio::test]
async fn an_answer_that_shows_a_sign_in_before_its_own_answer_makes_no_second_session() {
    for profile in [Profile::Opaque, Profile::RotateEach] {
        for custody in ["track", "vault"] {
            for (is_visitor, form_first) in [(false, false), (false, true), (true, false), (true, true)] {
                seen_early(profile, custody, is_visitor, form_first).await;
            }
        }
    }
}
