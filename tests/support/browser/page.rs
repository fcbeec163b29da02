//! Answers: one whose body is still coming, and one that has arrived.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::super::wait::PATIENCE;
use super::net::{Body, Net, NetError};
use super::url::Url;

/// A test that wants more reads piece by piece.
const MOST_BODY_BYTES: usize = 256 << 20;

/// A redirect that was followed.
#[derive(Clone, Debug)]
pub struct Hop {
    /// What was asked.
    pub url: Url,
    /// The status of its answer.
    pub status: u16,
    /// The headers of its answer.
    pub headers: HeaderMap,
}

/// An answer whose body is still to be read.
pub struct Opened {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Url,
    /// The redirects on the way.
    pub chain: Vec<Hop>,
    pub(super) body: Incoming,
    pub(super) freed: Option<(Arc<Net>, SendRequest<Body>)>,
}

impl Opened {
    /// The next piece of the body; `None` at its proper end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame()).await.map_err(|_| NetError::Patience)?;
            match frame
                .transpose()
                .map_err(|error| NetError::Body(error.into()))?
                .map(|frame| frame.into_data())
            {
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Reads the rest.
    pub async fn page(self) -> Result<Page, NetError> {
        let whole = timeout(6 * PATIENCE, Limited::new(self.body, MOST_BODY_BYTES).collect());
        let whole = whole.await.map_err(|_| NetError::Patience)?.map_err(NetError::Body)?;
        let trailers = whole.trailers().cloned();
        if let Some((net, mut sender)) = self.freed {
            // The connection is free a moment after its answer's last byte; one that is not is left to close.
            if matches!(timeout(Duration::from_secs(1), sender.ready()).await, Ok(Ok(()))) {
                net.give_back(&self.url, sender);
            }
        }
        let (status, headers, url, chain) = (self.status, self.headers, self.url, self.chain);
        Ok(Page { status, headers, url, chain, body: whole.to_bytes(), trailers })
    }
}

/// An answer that has arrived whole.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Url,
    /// The redirects on the way.
    pub chain: Vec<Hop>,
    /// The body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
}

impl Page {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the answer ({}) is no JSON: {error}", self.status),
        }
    }

    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    /// The statuses on the way and at the end, as `[302, 200]`.
    pub fn statuses(&self) -> Vec<u16> {
        self.chain.iter().map(|hop| hop.status).chain([self.status]).collect()
    }
}
