//! An endless body of server-sent events: three prices that wander, one event a second.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::Interval;

const PERIOD: Duration = Duration::from_secs(1);

/// The body; it ends only when its connection does.
pub(super) struct Ticker {
    interval: Interval,
    count: u32,
}

impl Ticker {
    pub(super) fn new() -> Self {
        Self { interval: tokio::time::interval(PERIOD), count: 0 }
    }
}

impl Body for Ticker {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.interval.poll_tick(cx));
        self.count = self.count.wrapping_add(1);
        Poll::Ready(Some(Ok(Frame::data(event(self.count).into()))))
    }
}

/// The event with this number.
fn event(count: u32) -> String {
    let price = |base: u32, pace: u32| {
        let cents = base + (count.wrapping_mul(pace) % 97) + (count.wrapping_mul(pace * 7) % 31);
        format!("{}.{:02}", cents / 100, cents % 100)
    };
    let (bolts, cable, paint) = (price(410, 13), price(1_890, 29), price(2_250, 41));
    format!("id: {count}\ndata: {{\"bolts\":\"{bolts}\",\"cable\":\"{cable}\",\"paint\":\"{paint}\"}}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_block_of_json() {
        let event = event(7);
        let data = event.strip_prefix("id: 7\ndata: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(data).unwrap().is_object());
    }
}
