//! A dead cookie is deleted with the very attributes that the app set it with (FIELD F10): each combination, in a browser
//! with a true jar, that keeps what was meant for another place.

use crate::setup::{BY_HEADER, POLICY, World, config_text, https_lines, post_login};
use crate::support::app::{Attributes, Profile, Switches};
use crate::support::browser::{Browser, Options, Tls};
use crate::support::tls::Certificate;

/// Every combination that a browser takes.
fn combinations() -> Vec<(String, Attributes)> {
    let mut all = Vec::new();
    for bits in 0..32_u8 {
        let on = |bit: u8| bits & (1 << bit) != 0;
        for same_site in [None, Some("Lax"), Some("Strict"), Some("None")] {
            for name in ["SID", "__Secure-SID", "__Host-SID"] {
                let attributes = Attributes {
                    path: if on(0) { "/page" } else { "/" }.to_owned(),
                    domain: on(1).then(|| "app.example".to_owned()),
                    secure: on(2),
                    http_only: on(3),
                    same_site,
                    partitioned: on(4),
                    max_age: None,
                };
                let needs_secure = attributes.partitioned || same_site == Some("None") || name != "SID";
                let own_host = attributes.domain.is_none() && attributes.path == "/";
                if (attributes.secure || !needs_secure) && (own_host || name != "__Host-SID") {
                    all.push((name.to_owned(), attributes));
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn every_combination_of_attributes_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::of("www.app.example");
    let names = "cookie = [\"SID\", \"__Secure-SID\", \"__Host-SID\"]";
    let text = |upstream: &str| {
        config_text(upstream, "", BY_HEADER, POLICY)
            .replace("cookie = \"SID\"", names)
            .replace("workers = 2\n", &https_lines(&folder, &certificate))
    };
    let world = World::from_text(|s| s.identity_headers = true, text).await;
    let combinations = combinations();
    assert!(combinations.len() > 100, "{}", combinations.len());
    for (name, attributes) in combinations {
        world.app.set(|s: &mut Switches| {
            s.cookie.clone_from(&name);
            s.attributes = attributes.clone();
        });
        let tls = Some(Tls { root: certificate.root.clone(), h2: false });
        let options = Options { host: "www.app.example".into(), tls, ..Options::default() };
        let browser = Browser::with(world.gateway.https.unwrap(), options);
        post_login(&browser, "ann").await;
        assert_eq!(held(&browser), 1, "{name} {attributes:?}");
        world.pass(3600);
        assert_eq!(browser.fetch("/page").await.status, 401, "{name} {attributes:?}");
        assert_eq!(held(&browser), 0, "{name} {attributes:?}");
    }
}

#[tokio::test]
async fn a_cookie_that_has_moved_is_deleted_where_it_was_and_where_it_is() {
    let habits = |s: &mut Switches| {
        s.identity_headers = true;
        s.profile = Profile::RotateEach;
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    world.app.set(|s| s.attributes.path = "/page".to_owned());
    browser.navigate("/page").await;
    assert_eq!(held(&browser), 2);
    world.pass(3600);
    assert_eq!(browser.fetch("/page").await.status, 401);
    assert_eq!(held(&browser), 0);
}

fn held(browser: &Browser) -> usize {
    browser.jar(|jar| jar.all().len())
}
