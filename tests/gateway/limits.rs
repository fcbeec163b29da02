//! The limit of concurrent sessions over real sockets, in all four behaviours.

use std::collections::HashSet;

use crate::setup::{BY_HEADER, World, post_login, sign_in, who};
use crate::support::app::{Profile, Switches};
use crate::support::browser::{Ask, Browser};
use tenure::store::StateFilter;

fn policy(max: u32, on_limit: &str) -> String {
    format!("[policy]\nmax_concurrent = {max}\non_limit = \"{on_limit}\"\n")
}

async fn world(max: u32, on_limit: &str) -> World {
    World::with(|s| s.identity_headers = true, "", BY_HEADER, &policy(max, on_limit)).await
}

#[tokio::test]
async fn the_oldest_or_the_idlest_goes() {
    for (on_limit, survivors) in [("end-oldest", [false, true, true]), ("end-idlest", [true, false, true])] {
        let world = world(2, on_limit).await;
        let first = world.signed_in("ann").await;
        world.pass(10);
        let second = world.signed_in("ann").await;
        world.pass(10);
        who(&first).await;
        world.pass(10);
        let third = world.signed_in("ann").await;
        let alive = [who(&first).await.is_some(), who(&second).await.is_some(), who(&third).await.is_some()];
        assert_eq!(alive, survivors, "{on_limit}");
    }
}

#[tokio::test]
async fn sixty_four_browsers_signing_in_at_once_leave_three() {
    let world = world(3, "end-oldest").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let browser = world.browser();
        tasks.spawn(async move {
            for _ in 0..4 {
                // Where the sign-in leads to, the session may be over already: somebody else signed in meanwhile.
                let page = post_login(&browser, "ann").await;
                assert!(matches!(page.status, 200 | 401), "{}", page.status);
            }
            browser
        });
    }
    let mut browsers = Vec::new();
    while let Some(browser) = tasks.join_next().await {
        browsers.push(browser.unwrap());
        assert!(world.live_of("ann").len() <= 3, "{} live", world.live_of("ann").len());
    }
    let mut alive = 0;
    for browser in &browsers {
        alive += usize::from(who(browser).await.is_some());
    }
    assert_eq!(alive, 3);
}

async fn held_back(world: &World) -> Browser {
    let browser = world.browser();
    let page = post_login(&browser, "ann").await;
    assert_eq!(page.status, 403, "{}", page.text());
    browser
}

#[tokio::test]
async fn refuse_holds_the_new_session_back_until_there_is_room() {
    let world = world(1, "refuse").await;
    let first = world.signed_in("ann").await;
    let second = held_back(&world).await;
    let token = second.cookie("SID").expect("the browser keeps its cookie");
    world.app.forget_requests();
    let page = second.fetch("/me").await;
    assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("max_concurrent")));
    assert!(!world.app.saw_token(&token), "its cookie is withheld from the app");
    assert_eq!(who(&first).await.as_deref(), Some("ann"));
    first.navigate("/logout").await;
    assert_eq!(second.navigate("/page").await.status, 200);
    assert_eq!(who(&second).await.as_deref(), Some("ann"));
}

#[tokio::test]
async fn a_session_that_is_held_back_is_dropped_after_two_minutes() {
    let world = world(1, "refuse").await;
    let _first = world.signed_in("ann").await;
    let second = held_back(&world).await;
    world.pass(121);
    let page = second.navigate("/page").await;
    assert_eq!(page.status, 401, "{}", page.text());
    assert_eq!(page.header("tenure-session"), Some("ended; reason=max_concurrent"));
}

#[tokio::test]
async fn a_browser_that_tries_again_and_again_has_one_session_held_back() {
    let world = world(1, "refuse").await;
    let first = world.signed_in("ann").await;
    let browser = held_back(&world).await;
    for _ in 0..3 {
        assert_eq!(post_login(&browser, "ann").await.status, 403);
    }
    assert_eq!(world.sessions(StateFilter::Pending).len(), 1);
    assert_eq!(world.ends_of("ann"), ["superseded"; 3]);
    first.navigate("/logout").await;
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
}

#[tokio::test]
async fn ask_lets_the_user_end_one_of_their_own() {
    let world = world(2, "ask").await;
    let first = world.signed_in("ann").await;
    world.pass(5);
    let second = world.signed_in("ann").await;
    let bob = world.signed_in("bob").await;
    let third = held_back(&world).await;
    let page = third.navigate("/page").await;
    let text = page.text();
    let listed: HashSet<String> = world.live_of("ann").iter().map(|view| view.id.to_string()).collect();
    assert!(listed.iter().all(|id| text.contains(id.as_str())), "both are listed");
    let bobs = world.only_session_of("bob").id.to_string();
    assert!(!text.contains(&bobs) && !text.contains("127.0.0.1"), "no one else's, and no address (R13)");
    // Somebody else's session cannot be ended by it, nor anything from another site.
    third.post_form("/.tenure/ask", &[("session", &bobs)]).await;
    assert_eq!(who(&bob).await.as_deref(), Some("bob"));
    let oldest = world.live_of("ann").iter().min_by_key(|v| v.times.signed_in_at).unwrap().id.to_string();
    let cross = Ask::form("/.tenure/ask", &[("session", &oldest)]).with("sec-fetch-site", "cross-site");
    assert_eq!(third.send(cross).await.unwrap().status, 403);
    let page = third.post_form("/.tenure/ask", &[("session", &oldest)]).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(who(&third).await.as_deref(), Some("ann"));
    assert_eq!((who(&first).await, who(&second).await.as_deref()), (None, Some("ann")));
    assert_eq!(world.ends_of("ann"), ["max_concurrent"]);
}

#[tokio::test]
async fn ask_works_where_the_cookie_has_a_path() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.attributes.path = "/page".into();
    };
    let lines = "max_concurrent = 1\non_limit = \"ask\"\n";
    let world = World::with(habits, "", BY_HEADER, &format!("[policy]\n{lines}")).await;
    let first = world.browser();
    post_login(&first, "ann").await;
    let second = world.browser();
    post_login(&second, "ann").await;
    let page = second.navigate("/page").await;
    assert_eq!(page.status, 403, "{}", page.text());
    let text = page.text();
    let (_, rest) = text.split_once("action=\"").expect("a form");
    let action = rest.split('"').next().unwrap();
    let oldest = world.only_session_of("ann").id.to_string();
    let answer = second.post_form(action, &[("session", &oldest)]).await;
    assert_eq!(answer.chain.last().map(|hop| hop.status), Some(303), "{action}");
    assert_eq!(second.navigate("/page").await.status, 200);
    assert_eq!(world.ends_of("ann"), ["max_concurrent"]);
}

#[tokio::test]
async fn signing_in_again_in_the_same_browser_takes_no_second_place() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.profile = Profile::RotateLogin;
        },
        "",
        BY_HEADER,
        &policy(2, "end-oldest"),
    )
    .await;
    let other = world.signed_in("ann").await;
    let browser = world.signed_in("ann").await;
    for _ in 0..3 {
        sign_in(&browser, "ann").await;
    }
    assert_eq!(who(&other).await.as_deref(), Some("ann"), "nobody else was ended");
}

#[tokio::test]
async fn case_makes_no_second_user() {
    let world = world(1, "end-oldest").await;
    let first = world.signed_in("Alice").await;
    world.signed_in("alice").await;
    assert_eq!(who(&first).await, None);
}

#[tokio::test]
async fn case_makes_a_second_user_where_it_is_told_to() {
    let habits = |s: &mut Switches| s.identity_headers = true;
    let world = World::with(habits, "user_case = \"exact\"", BY_HEADER, &policy(1, "end-oldest")).await;
    let first = world.signed_in("Alice").await;
    let second = world.signed_in("alice").await;
    assert_eq!((who(&first).await.as_deref(), who(&second).await.as_deref()), (Some("Alice"), Some("alice")));
    assert_eq!((world.live_of("Alice").len(), world.live_of("alice").len()), (1, 1));
}

#[tokio::test]
async fn layers_of_policy_reach_the_session() {
    let rest = "[policy]\nmax_concurrent = 5\n[[policy.user]]\nname = \"ann\"\ntenant = \"default\"\nmax_concurrent = 1\n\
                [[policy.role]]\nname = \"admin\"\nmax_concurrent = 1\n[roles.admin]\nlearned = true\n";
    let world = World::with(|s| s.identity_headers = true, "", BY_HEADER, rest).await;
    for (user, live) in [("ann", 1), ("bob", 2), ("admin-eve", 1)] {
        world.signed_in(user).await;
        world.signed_in(user).await;
        assert_eq!(world.live_of(user).len(), live, "{user}");
    }
}
