//! What a tab asks for, and the headers that a browser puts to it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::jar::From;
use super::url::Url;

/// Who in the browser asks: it shows in `Accept` and `Sec-Fetch-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The address bar, a link, a form.
    Navigate,
    /// `fetch()` or `XMLHttpRequest`.
    Fetch,
    /// An `EventSource`.
    EventSource,
    /// A WebSocket's handshake.
    WebSocket,
}

/// A request to be.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// A path, or an absolute URL.
    pub reference: String,
    /// Further headers; they replace the browser's own of the same name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Who asks.
    pub mode: Mode,
    /// Redirects are followed.
    pub follow: bool,
    /// A page of another site asks (a link there, a form, a script).
    pub initiator: Option<Url>,
}

impl Ask {
    /// A GET.
    pub fn get(mode: Mode, reference: &str) -> Self {
        Self {
            method: Method::GET,
            reference: reference.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            mode,
            follow: mode != Mode::WebSocket,
            initiator: None,
        }
    }

    /// A POST.
    pub fn post(mode: Mode, reference: &str, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut ask = Self::get(mode, reference).with("content-type", content_type);
        ask.method = Method::POST;
        ask.body = body.into();
        ask
    }

    /// A form as browsers send it by default.
    pub fn form(reference: &str, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Self::post(Mode::Navigate, reference, "application/x-www-form-urlencoded", body)
    }

    /// A form with `enctype="multipart/form-data"`.
    pub fn multipart(reference: &str, fields: &[(&str, &str)]) -> Self {
        let boundary = "----FixtureFormBoundary7MA4YWxk";
        let parts = fields.iter().map(|(name, value)| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        });
        let body = parts.chain([format!("--{boundary}--\r\n")]).collect::<String>();
        Self::post(Mode::Navigate, reference, &format!("multipart/form-data; boundary={boundary}"), body)
    }

    /// A script's JSON.
    pub fn json(reference: &str, value: &serde_json::Value) -> Self {
        Self::post(Mode::Fetch, reference, "application/json", value.to_string())
    }

    /// With another method.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// With one more header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The first answer counts, also when it is a redirect.
    pub fn no_follow(mut self) -> Self {
        self.follow = false;
        self
    }

    /// Asked by a page of another site.
    pub fn initiated_by(mut self, page: &Url) -> Self {
        self.initiator = Some(page.clone());
        self
    }

    /// How the cookie rules see it.
    pub fn site(&self, url: &Url, page: Option<&Url>) -> From {
        match self.initiator.as_ref().or(page) {
            Some(from) if !from.same_site(url) => {
                let safe = matches!(self.method, Method::GET | Method::HEAD);
                if self.mode == Mode::Navigate && safe { From::CrossSiteNavigation } else { From::CrossSite }
            }
            Some(_) | None => From::SameSite,
        }
    }

    /// What becomes of the request when it is answered by a redirect (the Fetch standard's rule).
    pub fn redirected(&mut self, status: u16) {
        let post = self.method == Method::POST && matches!(status, 301 | 302);
        let other = status == 303 && !matches!(self.method, Method::GET | Method::HEAD);
        if post || other {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("content-"));
        }
    }

    /// The request's headers but for `Cookie`.
    pub fn headers(&self, url: &Url, page: Option<&Url>, agent: &Agent) -> HeaderMap {
        let from = self.initiator.as_ref().or(page);
        let mut map = HeaderMap::new();
        put(&mut map, "host", &url.authority());
        put(&mut map, "user-agent", &agent.name);
        put(&mut map, "accept", self.accept());
        put(&mut map, "accept-language", "en-GB,en;q=0.9");
        if self.mode == Mode::Navigate {
            put(&mut map, "upgrade-insecure-requests", "1");
        }
        if matches!(self.mode, Mode::EventSource | Mode::WebSocket) {
            put(&mut map, "cache-control", "no-cache");
        }
        if let Some(from) = from {
            let unsafe_method = !matches!(self.method, Method::GET | Method::HEAD);
            if unsafe_method || self.mode == Mode::WebSocket || from.origin() != url.origin() {
                put(&mut map, "origin", &from.origin());
            }
            if self.mode != Mode::WebSocket {
                let referrer =
                    if from.origin() == url.origin() { from.to_string() } else { from.origin() + "/" };
                put(&mut map, "referer", &referrer);
            }
        }
        if self.mode == Mode::Navigate && self.method == Method::GET {
            map.remove(header::ORIGIN);
        }
        if agent.sec_fetch && url.is_trustworthy() {
            self.sec_fetch(&mut map, url, from);
        }
        for (name, value) in &self.headers {
            put(&mut map, name, value);
        }
        map
    }

    fn accept(&self) -> &'static str {
        match self.mode {
            Mode::Navigate => "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            Mode::EventSource => "text/event-stream",
            Mode::Fetch | Mode::WebSocket => "*/*",
        }
    }

    fn sec_fetch(&self, map: &mut HeaderMap, url: &Url, from: Option<&Url>) {
        let site = match from {
            None if self.mode == Mode::Navigate => "none",
            None => "same-origin",
            Some(from) if from.origin() == url.origin() => "same-origin",
            Some(from) if from.same_site(url) => "same-site",
            Some(_) => "cross-site",
        };
        put(map, "sec-fetch-site", site);
        let (mode, dest) = match self.mode {
            Mode::Navigate => ("navigate", "document"),
            Mode::Fetch | Mode::EventSource => ("cors", "empty"),
            Mode::WebSocket => ("websocket", "empty"),
        };
        put(map, "sec-fetch-mode", mode);
        put(map, "sec-fetch-dest", dest);
        if self.mode == Mode::Navigate {
            put(map, "sec-fetch-user", "?1");
        }
    }
}

/// What the browser calls itself, and how modern it is.
#[derive(Clone, Debug)]
pub struct Agent {
    /// `User-Agent`.
    pub name: String,
    /// It sends `Sec-Fetch-*`.
    pub sec_fetch: bool,
}

fn put(map: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("a test names a valid header");
    map.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a test gives a valid value"));
}
