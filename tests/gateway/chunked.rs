//! Chunked cookies, where the base cookie is the same for everybody: base and chunks are one token (FIELD F2).

use crate::setup::{BY_HEADER, POLICY, World, config_text, who};
use crate::support::app::Profile;

const NAME: &str = ".AspNetCore.Cookies";

async fn world() -> World {
    world_where(|text| text).await
}

async fn world_where(change: impl FnOnce(String) -> String) -> World {
    let habits = |s: &mut crate::support::app::Switches| {
        s.identity_headers = true;
        s.profile = Profile::Chunked;
        s.cookie = NAME.to_owned();
    };
    let cookie = "preset = \"aspnetcore\"\ncustody = \"track\"\ni_accept_replay = true";
    World::from_text(habits, |upstream| {
        change(config_text(upstream, "", BY_HEADER, POLICY).replace("cookie = \"SID\"", cookie))
    })
    .await
}

#[tokio::test]
async fn the_end_of_one_session_is_not_the_end_of_all() {
    let world = world().await;
    let (ann, bob) = (world.signed_in("ann").await, world.signed_in("bob").await);
    let value = |number: usize| ann.cookie(&format!("{NAME}C{number}")).expect("a chunk");
    assert_eq!(ann.cookie(NAME), bob.cookie(NAME), "as ASP.NET Core does");
    let copy = format!("{NAME}=chunks-2; {NAME}C1={}; {NAME}C2={}", value(1), value(2));
    world.revoke("ann").await;
    assert_eq!(who(&bob).await.as_deref(), Some("bob"));
    world.app.forget_requests();
    let chunks = [value(1), value(2)];
    let request =
        format!("GET /me HTTP/1.1\r\nHost: app.localhost\r\nCookie: {copy}\r\nConnection: close\r\n\r\n");
    world.browser().raw(request).await;
    assert_eq!(who(&ann).await, None);
    assert!(
        chunks.iter().all(|chunk| !world.app.saw_token(chunk)),
        "no chunk of a dead token reaches the app"
    );
}

#[tokio::test]
async fn left_over_chunks_are_stripped_and_change_nothing() {
    let world = world().await;
    let ann = world.signed_in("ann").await;
    let pairs: Vec<_> = [NAME.to_owned(), format!("{NAME}C2"), format!("{NAME}C1")]
        .into_iter()
        .map(|name| format!("{name}={}", ann.cookie(&name).expect("set")))
        .collect();
    let request = format!(
        "GET /me HTTP/1.1\r\nHost: app.localhost\r\nCookie: {NAME}C3=leftover; {}\r\nConnection: close\r\n\r\n",
        pairs.join("; ")
    );
    let answer = String::from_utf8_lossy(&ann.raw(request).await).into_owned();
    assert!(answer.contains("\"ann\""), "{answer}");
    assert!(!world.app.saw_token("leftover"));
    assert_eq!(world.count("tenure_cookies_dropped_total"), 0);
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn every_chunk_that_the_browser_brings_is_deleted_at_an_end() {
    for login in ["", "login = \"/login\"\n"] {
        let world = world_where(|text| text.replace("login = \"/login\"\n", login)).await;
        let ann = world.signed_in("ann").await;
        let url = ann.url("/");
        let leftover = format!("{NAME}C3=leftover; Path=/");
        ann.jar(|jar| jar.learn(&url, leftover.as_bytes(), ann.now()));
        world.pass(3600);
        ann.navigate("/page").await;
        let held: Vec<_> = ann.jar(|jar| jar.all().iter().map(|cookie| cookie.name.clone()).collect());
        assert_eq!(held, Vec::<String>::new(), "{login}");
        assert_eq!(world.ends_of("ann"), ["idle_timeout"]);
    }
}

#[tokio::test]
async fn a_logout_is_learned_from_the_deletion_of_the_base() {
    let world = world().await;
    let ann = world.signed_in("ann").await;
    ann.post_form("/logout", &[]).await;
    assert_eq!(world.ends_of("ann"), ["logout"]);
}
