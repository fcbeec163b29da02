//! Which cookies reach the app: dead tokens never, in any spelling (R3, R4, F11).

use crate::setup::{BY_HEADER, POLICY, World, config_text, who};
use crate::support::app::PASSWORD;

async fn raw(world: &World, target: &str, headers: &str) -> String {
    let browser = world.browser();
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: app.localhost\r\n{headers}Connection: close\r\n\r\n");
    String::from_utf8_lossy(&browser.raw(request).await).into_owned()
}

#[tokio::test]
async fn a_dead_token_never_reaches_the_app_in_any_spelling() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.url_ids = true;
            s.last_duplicate = true;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    let token = browser.cookie("SID").unwrap();
    let bob = world.signed_in("bob").await;
    let live = bob.cookie("SID").unwrap();
    world.revoke("ann").await;
    world.app.forget_requests();
    let headers = [
        format!("Cookie: SID={token}\r\n"),
        format!("Cookie: SID=\"{token}\"\r\n"),
        format!("Cookie: a=b; SID={token}; SID={token}\r\n"),
        format!("Cookie: SID={token}\r\nCookie: SID={token}\r\n"),
        format!("Cookie: SID={token}; SID={live}\r\n"),
        format!("Cookie: SID={live}; SID={token}\r\n"),
        format!("Cookie: SID={live}\r\nCookie: SID={token}\r\n"),
        format!("Cookie: sid={token}\r\n"),
        format!("Cookie: $Version=1; SID={token}; $Path=/\r\n"),
        format!("Cookie: a=\"b; SID={token}; c\"\r\n"),
        format!("Cookie: a=b, SID={token}\r\n"),
        format!("Cookie: %53ID={token}\r\n"),
        format!("Cookie: SID%00x={token}\r\n"),
        format!("Cookie: a=b SID={token}\r\n"),
        format!("Cookie: a=\"b\" SID = {token}\r\n"),
        format!("Cookie:   SID  =  {token}  \r\n"),
        format!("Cookie: SID={token};\r\n"),
    ];
    for header in &headers {
        for target in ["/me", "/login", "/static/app.css", "/.tenure/status"] {
            raw(&world, target, header).await;
        }
    }
    for target in [
        format!("/me;SID={token}"),
        format!("/me;sid={token}"),
        format!("/me%3bSID={token}"),
        format!("/me;jsessionid={token}"),
        format!("/me?SID={token}"),
        format!("/me?a=b&sid={token}"),
        format!("/me?%53ID={token}"),
        format!("/me?SID%00x={token}"),
        format!("/(S({token}))/me"),
    ] {
        raw(&world, &target, "").await;
    }
    assert!(!world.app.requests().is_empty());
    assert!(!world.app.saw_token(&token), "{:?}", world.app.requests());
    assert!(world.count("tenure_cookies_dropped_total") > 0, "pairs that an app could misread are counted");
    assert_eq!(who(&bob).await.as_deref(), Some("bob"), "the live one counts beside dead ones");
}

#[tokio::test]
async fn no_spelling_of_a_dead_value_is_taken_for_a_cookie_from_before() {
    // While cookies that nobody saw being issued are adopted, whatever is not known to be dead would be alive.
    let habits = |s: &mut crate::support::app::Switches| {
        s.identity_headers = true;
        s.decodes_cookies = true;
    };
    for issued in
        ["s:ann-0123456789", "s%3Aann-0123456789", "\"s:ann-0123456789\"", "\"s\\072ann-0123456789\""]
    {
        let world = World::with(habits, "enforce = false", BY_HEADER, POLICY).await;
        world.app.set(|s| s.extra_headers = vec![("Set-Cookie".into(), format!("SID={issued}; Path=/"))]);
        world.app.hand_out("s:ann-0123456789");
        let browser = world.browser();
        crate::setup::post_login(&browser, "ann").await;
        world.app.set(|s| s.extra_headers.clear());
        assert_eq!(browser.cookie("SID").as_deref(), Some(issued));
        assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{issued}");
        world.revoke("ann").await;
        world.app.forget_requests();
        for spelled in [
            "s:ann-0123456789",
            "s%3Aann-0123456789",
            "s%3aann-0123456789",
            "%73:ann-0123456789",
            "\"s:ann-0123456789\"",
            "\"s:\\141nn-0123456789\"",
            "\"s:\\ann-0123456789\"",
        ] {
            let page = browser.fetch_with_cookie("/me", &format!("SID={spelled}")).await;
            assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")), "{spelled}");
        }
        assert!(world.app.requests().is_empty());
    }
}

#[tokio::test]
async fn no_session_id_leaves_in_a_redirect() {
    let world = World::new().await;
    let next = "/page;jsessionid=secret.n1?SID=secret&x=1";
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("username", "ann"), ("password", PASSWORD), ("next", next)])
        .finish();
    let head = "POST /login HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let request = format!("{head}{form}Content-Length: {}\r\n\r\n{body}", body.len());
    let answer = String::from_utf8_lossy(&world.browser().raw(request).await).to_lowercase();
    assert!(answer.contains("\r\nlocation: /page?x=1\r\n"), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
}

#[tokio::test]
async fn a_parameter_that_no_framework_takes_for_an_id_is_the_apps_own() {
    for (preset, cookie, forwarded) in [
        ("flask", "session", "/talks;session=2?session=5"),
        ("spring", "SESSION", "/talks?session=5"),
        ("php", "PHPSESSID", "/talks;session=2?session=5"),
    ] {
        let text = |upstream: &str| {
            let preset = format!("preset = \"{preset}\"");
            config_text(upstream, "", BY_HEADER, POLICY).replace("cookie = \"SID\"", &preset)
        };
        let world = World::from_text(|s| s.cookie = cookie.to_owned(), text).await;
        raw(&world, "/talks;session=2;jsessionid=x?session=5&jsessionid=x", "").await;
        assert_eq!(world.app.last_request().target, forwarded, "{preset}");
        raw(&world, "/talks?PHPSESSID=x", "").await;
        let expected = if preset == "php" { "/talks?" } else { "/talks?PHPSESSID=x" };
        assert_eq!(world.app.last_request().target, expected, "{preset}");
    }
}

#[tokio::test]
async fn headers_without_tokens_pass_byte_for_byte() {
    let world = World::new().await;
    for cookie in ["theme=dark; lang=\"de en\"", "a=1;b=2;;c", "x=\u{e4}\u{f6}", "flag"] {
        raw(&world, "/echo", &format!("Cookie: {cookie}\r\n")).await;
        assert_eq!(world.app.last_request().header("cookie").as_deref(), Some(cookie));
    }
}

#[tokio::test]
async fn tokens_of_different_sessions_never_travel_together() {
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
    let ann = world.signed_in("ann").await;
    let bob = world.signed_in("bob").await;
    let (sid, companion) = (ann.cookie("SID").unwrap(), bob.cookie("remember").unwrap());
    world.app.forget_requests();
    let page = ann.fetch_with_cookie("/me", &format!("remember={companion}; SID={sid}")).await;
    assert_eq!(page.json()["user"], "ann");
    assert!(!world.app.saw_token(&companion));
}

#[tokio::test]
async fn the_path_that_was_judged_is_the_path_that_is_forwarded() {
    let world =
        World::with(|s| s.identity_headers = true, "public = [\"/static/**\"]", BY_HEADER, POLICY).await;
    for (sent, forwarded) in [
        ("/a/./b/../c", "/a/c"),
        ("/static/../me", "/me"),
        ("/%61bc", "/abc"),
        ("/a//b", "/a//b"),
        ("/a%2fb?x=%2F", "/a%2Fb?x=%2F"),
        ("http://app.localhost/abs", "/abs"),
    ] {
        raw(&world, sent, "").await;
        assert_eq!(world.app.last_request().target, forwarded, "{sent}");
    }
    assert!(raw(&world, "/%zz", "").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn an_ambiguous_path_is_never_public() {
    let world =
        World::with(|s| s.identity_headers = true, "public = [\"/static/**\"]", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    let cookie = format!("Cookie: SID={}\r\nSec-Fetch-Mode: cors\r\n", browser.cookie("SID").unwrap());
    world.pass(3600);
    for target in ["/static/..%2fme", "/static/%2e%2e%2fme", "/static/..%5cme", "/static/x;a=b"] {
        let answer = raw(&world, target, &cookie).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{target}: {answer}");
    }
    assert!(raw(&world, "/static/app.css", &cookie).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_deletion_carries_the_attributes_that_the_cookie_was_set_with() {
    let world = World::with(
        |s| {
            s.identity_headers = true;
            s.attributes.path = "/".into();
            s.attributes.same_site = Some("Strict");
            s.attributes.secure = true;
        },
        "",
        BY_HEADER,
        POLICY,
    )
    .await;
    let browser = world.signed_in("ann").await;
    world.revoke("ann").await;
    let page = browser.navigate("/page").await;
    let deletion = page.header("set-cookie").unwrap();
    for part in ["SID=;", "Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=0"] {
        assert!(deletion.contains(part), "{part} not in {deletion}");
    }
    assert_eq!(browser.cookie("SID"), None);
}

#[tokio::test]
async fn a_value_beyond_ascii_is_followed_like_any_other() {
    let world = World::new().await;
    world.app.set(|s| s.extra_headers = vec![("Set-Cookie".into(), "nameless".into())]);
    let raw_token = "caf\u{e9}-0123456789";
    world.app.hand_out(raw_token);
    let browser = world.browser();
    crate::setup::post_login(&browser, "ann").await;
    assert_eq!(world.live_of("ann").len(), 1);
    let cookie = format!("Cookie: SID={raw_token}\r\n");
    assert!(raw(&world, "/me", &cookie).await.contains("\"ann\""));
    let text = world.gateway.handle().metrics_text();
    assert!(!text.contains("tenure_set_cookies_unreadable_total{app=\"app\"} 0\n"), "{text}");
}
