//! What `tenure demo` runs with and what it prints: limits short enough to watch, and the few lines that say where
//! to look.

use std::net::SocketAddr;

use super::routes::COOKIE_NAME;

/// Where the three listeners of the demonstration are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The gateway: where to click.
    pub gateway: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The app behind the gateway.
    pub app: SocketAddr,
}

/// The configuration of the demonstration, as a file would say it; `token_hash` is `sha256:` and hexadecimal digits.
#[must_use]
pub fn configuration(at: &Addresses, token_hash: &str) -> String {
    let Addresses { gateway, admin, app } = at;
    format!(
        r#"[listen]
http = "{gateway}"

[[app]]
name = "demo"
upstream = "http://{app}"
cookie = "{COOKIE_NAME}"
login = "/login"
logout = "/logout"
public = ["/static/**", "/favicon.ico"]
inactive = ["GET /notifications"]

[[app.identity]]
from = "login-form"
path = "/login"
user = "username"

[policy]
idle_timeout = "20s"
force_relogin = "90s"
max_concurrent = 2
on_limit = "end-oldest"

[admin]
listen = "{admin}"
tokens = [{{ name = "demo", hash = "{token_hash}", scopes = ["*"], tenant = "*" }}]

[store]
path = "off"

[drain]
delay = "0s"
timeout = "1s"

[log]
level = "warn"
"#
    )
}

/// What is printed when everything listens. SECURITY: `token` is the demonstration's own, made anew at each start.
#[must_use]
pub fn banner(at: &Addresses, token: &str) -> String {
    let Addresses { gateway, admin, app } = at;
    format!(
        r#"Open http://{gateway}/ and sign in as ann, bob or admin; the password is the name.
The app behind it, at http://{app}/, knows no limits.
The gateway sets three: idle 20 s, sign in again after 90 s, 2 browsers a user.

  idle       leave the page alone for 20 s: its clock is closed with 4401 idle_timeout. The polling does not count.
  re-login   click on for 90 s: you must sign in again all the same.
  limit      sign in as ann, then be two more browsers, and click: the first is told why it is out.
               for i in 1 2; do curl -s -o /dev/null -d 'username=ann&password=ann' http://{gateway}/login; done

  export TENURE_TOKEN={token}
  list       curl -s -H "Authorization: Bearer $TENURE_TOKEN" http://{admin}/v1/sessions
  revoke     curl -s -H "Authorization: Bearer $TENURE_TOKEN" -H "Content-Type: application/json" \
               -d '{{"user":"ann"}}' http://{admin}/v1/sessions/revoke     (watch the clock stop)
  one only   curl -s -H "Authorization: Bearer $TENURE_TOKEN" -X DELETE http://{admin}/v1/sessions/ID
  counts     curl -s http://{admin}/metrics

Ctrl-C ends all of it.
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Addresses { gateway: at(1), admin: at(2), app: at(3) }
    }

    #[test]
    fn the_configuration_is_toml_with_every_address() {
        let text = configuration(&addresses(), "sha256:00");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["listen"]["http"].as_str(), Some("127.0.0.1:1"));
        assert_eq!(table["app"][0]["upstream"].as_str(), Some("http://127.0.0.1:3"));
        assert_eq!(table["admin"]["tokens"][0]["hash"].as_str(), Some("sha256:00"));
    }

    #[test]
    fn the_banner_says_what_the_configuration_sets() {
        let (banner, text) = (banner(&addresses(), "secret"), configuration(&addresses(), "sha256:00"));
        for (said, set) in [
            ("idle 20 s", "idle_timeout = \"20s\""),
            ("sign in again after 90 s", "force_relogin = \"90s\""),
            ("2 browsers a user", "max_concurrent = 2"),
            ("http://127.0.0.1:1/", "http = \"127.0.0.1:1\""),
            ("at http://127.0.0.1:3/", "upstream = \"http://127.0.0.1:3\""),
            ("http://127.0.0.1:2/v1/sessions", "listen = \"127.0.0.1:2\""),
        ] {
            assert!(banner.contains(said), "{said}");
            assert!(text.contains(set), "{set}");
        }
        assert!(banner.lines().all(|line| line.len() <= 120));
    }
}
