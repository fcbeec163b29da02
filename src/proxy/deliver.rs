//! The app's answer on its way to the browser: streamed, or through a tunnel.

use std::rc::Rc;

use http::header::{CONTENT_LENGTH, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::answer;
use super::body::{Body, Bound, Flow, is_event_stream};
use super::forward::Answered;
use super::handle::{Judged, Proxy};
use super::pool::Lease;
use super::upgrade::{Close, tunnel};

impl Proxy {
    /// The app's answer goes to the browser: as it flows, or through a tunnel. `upgrade` is `None` unless the app switches
    /// protocols; then it says whether to WebSocket.
    pub(super) fn pass_on(
        self: &Rc<Self>,
        mut judged: Box<Judged>,
        (head, lease): Answered,
        upgrade: Option<bool>,
        bound: Option<Bound>,
    ) -> Response<Body> {
        let Some(to_websocket) = upgrade else { return stream(judged, head, lease, bound) };
        let Judged { visit, websocket, access, .. } = &mut *judged;
        let browser = websocket.then(|| visit.head.extensions.remove::<OnUpgrade>()).flatten();
        match browser {
            Some(browser) if to_websocket => {
                self.open_tunnel(judged, browser, lease, bound);
                switching(head)
            }
            // Nobody asked to switch, or the app switched to something else: nothing it sends is forwarded (F21).
            Some(_) | None => {
                visit.app.metrics.upstream_error("bad_upgrade");
                access.finish(StatusCode::BAD_GATEWAY, "bad_upgrade");
                answer::problem(StatusCode::BAD_GATEWAY, "Bad gateway", &[])
            }
        }
    }

    fn open_tunnel(
        self: &Rc<Self>,
        judged: Box<Judged>,
        browser: OnUpgrade,
        mut lease: Lease,
        bound: Option<Bound>,
    ) {
        let Judged { visit, mut access, connection, .. } = *judged;
        access.status(StatusCode::SWITCHING_PROTOCOLS, "upgraded");
        let live = visit.session.as_ref().map(|(session, _)| session.live_connection());
        let touches = visit.session.clone().filter(|_| visit.app.config.websocket_activity);
        let proxy = Rc::clone(self);
        // The task ends with either connection, with the session, or with the gateway.
        tokio::task::spawn_local(async move {
            let (_live, _connection) = (live, connection);
            let Some(app) = lease.take_wire() else { return };
            let Ok(browser) = browser.await else { return };
            let mut leaving = proxy.leaving.clone();
            let close = async {
                let cut = async {
                    match &bound {
                        Some(bound) => bound.exchange.ended().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    reason = cut => Close::SessionEnded(reason),
                    _ = leaving.wait_for(|leaving| *leaving) => Close::Restart,
                }
            };
            let on_data = || {
                if let Some((session, _)) = &touches {
                    proxy.shared.table.touch(session, proxy.shared.clock.now());
                }
            };
            let passed = tunnel(browser, app, close, on_data).await;
            access.received(passed.up);
            access.sent(passed.down);
        });
    }
}

/// The app's answer, as it flows.
fn stream(
    mut judged: Box<Judged>,
    head: Parts,
    mut lease: Lease,
    mut bound: Option<Bound>,
) -> Response<Body> {
    let event_stream = is_event_stream(&head.headers);
    if let (true, Some(bound), Some((session, _))) = (event_stream, &mut bound, &judged.visit.session) {
        bound.live = Some(session.live_connection());
    }
    lease.give_back_at_end();
    let app = judged.visit.app;
    judged.access.status(head.status, "forwarded");
    // The rest is dropped where it stands: it is large.
    let flow = Flow { lease, bound, event_stream, access: judged.access, app, last_seconds: None };
    Response::from_parts(head, Body::Upstream(Box::new(flow)))
}

/// Whether the app switches to WebSocket.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|text| text.trim().eq_ignore_ascii_case("websocket"))
}

fn switching(mut head: Parts) -> Response<Body> {
    head.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::empty())
}
