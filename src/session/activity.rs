//! Which requests count as the user's activity, and what kind of answer a request expects.

use super::path::Pattern;

/// A rule of `inactive`: requests that it matches are not the user's activity.
#[derive(Clone, Debug)]
pub enum InactiveRule {
    /// `"GET /notifications/**"`; without a method, any.
    Path {
        /// The method, upper case; `None` matches all.
        method: Option<String>,
        /// The pattern over the normalised path.
        path: Pattern,
    },
    /// `"header:X-Background"`: the request carries this header, whatever its value.
    Header(http::HeaderName),
}

/// What the gateway reads of a request to judge its kind. Built once per request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a http::Method,
    /// The normalised path.
    pub path: &'a str,
    /// The headers as they came.
    pub headers: &'a http::HeaderMap,
}

/// What a request wants, as far as answers differ by it (FIELD F13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A page load by the browser itself.
    Navigation,
    /// A WebSocket handshake.
    WebSocket,
    /// Everything else: fetch, XHR, EventSource, images, programs.
    Fetch,
}

impl Asked<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the request wants: `Sec-Fetch-Mode` decides; without it, a GET or HEAD that accepts HTML is a navigation.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.is_websocket() {
            return Kind::WebSocket;
        }
        let navigation = match self.header("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => {
                let reads = matches!(*self.method, http::Method::GET | http::Method::HEAD);
                reads && self.header("accept").is_some_and(|accept| accept.contains("text/html"))
            }
        };
        if navigation { Kind::Navigation } else { Kind::Fetch }
    }

    fn is_websocket(&self) -> bool {
        let upgrade = self.header("upgrade").is_some_and(|up| up.trim().eq_ignore_ascii_case("websocket"));
        upgrade && *self.method == http::Method::GET
    }

    /// Whether the request counts as its user's activity (DESIGN section 6). A client's mark can only make it count
    /// less: prefetches, preflights and requests that an `inactive` rule matches do not count.
    #[must_use]
    pub fn is_activity(&self, inactive: &[InactiveRule]) -> bool {
        let preflight =
            *self.method == http::Method::OPTIONS && self.headers.contains_key("access-control-request-method");
        let prefetch = ["sec-purpose", "purpose", "x-moz"]
            .iter()
            .any(|name| self.header(name).is_some_and(|value| value.contains("prefetch")));
        !preflight && !prefetch && !inactive.iter().any(|rule| self.is_matched_by(rule))
    }

    fn is_matched_by(&self, rule: &InactiveRule) -> bool {
        match rule {
            InactiveRule::Header(name) => self.headers.contains_key(name),
            InactiveRule::Path { method, path } => {
                method.as_deref().is_none_or(|m| m == self.method.as_str()) && path.matches(self.path)
            }
        }
    }
}
