//! The demonstration: what its banner promises, walked by a browser.

use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::running::Running;
use crate::support::browser::{Browser, Heard};
use crate::support::wait::{PATIENCE, eventually, soon};
use crate::{command, text};

fn address(banner: &str, before: &str) -> SocketAddr {
    let (_, rest) = banner.split_once(before).unwrap();
    rest.split(['/', ' ', '\n']).next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_tells_the_truth() {
    let mut demo = Running::start(&["demo"]);
    demo.says("Ctrl-C ends all of it.").await;
    let banner = demo.out();
    assert!(banner.lines().count() <= 20, "{banner}");
    let (gateway, admin) = (address(&banner, "Open http://"), address(&banner, "counts     curl -s http://"));
    let app = address(&banner, "The app behind it, at http://");
    let (_, rest) = banner.split_once("TENURE_TOKEN=").unwrap();
    let token = rest.lines().next().unwrap().to_owned();

    let sign_in = async |browser: &Browser| {
        let page = browser.post_form("/login", &[("username", "ann"), ("password", "ann")]).await;
        assert!(page.text().contains("Ann Archer"), "{}", page.text());
    };
    let [first, second, third] = [0, 1, 2].map(|_| Browser::at(gateway));
    sign_in(&first).await;
    let mut clock = first.websocket("/ws").await.expect("the clock opens");
    assert!(matches!(clock.hear().await, Heard::Text(_)));
    sign_in(&second).await;
    sign_in(&third).await;
    let ended =
        async |socket: &mut crate::support::browser::WebSocket| match soon("the close", socket.hear_end())
            .await
        {
            Heard::Closed { code, reason } => (code, reason),
            other => panic!("{other:?}"),
        };
    assert_eq!(ended(&mut clock).await, (4401, "max_concurrent".to_owned()));
    let told = first.navigate("/").await;
    assert_eq!(told.status, 401);
    assert!(told.text().contains("You have been signed out here"), "{}", told.text());

    let mut clock = third.websocket("/ws").await.expect("the clock opens");
    let mut revoke = command(&["revoke", "--user", "ann", "--admin", &format!("http://{admin}")]);
    let done = revoke.env("TENURE_TOKEN", &token).output().unwrap();
    assert_eq!(text(&done.stdout), "2 ended\n", "{}", text(&done.stderr));
    assert_eq!(ended(&mut clock).await, (4401, "revoked".to_owned()));

    let alone = [0, 1, 2].map(|_| Browser::at(app));
    for browser in &alone {
        sign_in(browser).await;
    }
    assert_eq!(alone[0].navigate("/").await.status, 200, "the app without the gateway has a limit");

    demo.signal(Signal::INT);
    assert_eq!(demo.ends().await.code(), Some(0));
    for address in [gateway, admin, app] {
        eventually(PATIENCE, async || TcpStream::connect(address).await.is_err()).await;
    }
    assert!(!demo.err().contains("ERROR") && !demo.err().contains("WARN"), "{}", demo.err());
}
