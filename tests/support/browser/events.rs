//! An `EventSource`, without its reconnecting.

use super::net::NetError;
use super::page::Opened;

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `event:`, empty for a plain message.
    pub event: String,
    /// `id:`.
    pub id: String,
    /// The `data:` lines, joined.
    pub data: String,
}

/// An open event stream.
pub struct EventStream {
    /// The answer's head, and the body still coming.
    pub opened: Opened,
    unread: Vec<u8>,
}

impl EventStream {
    pub(super) fn new(opened: Opened) -> Self {
        Self { opened, unread: Vec::new() }
    }

    /// The next event; `None` at the stream's proper end, an error when it broke off.
    pub async fn next(&mut self) -> Result<Option<Event>, NetError> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(Some(parsed(&String::from_utf8_lossy(&block))));
            }
            match self.opened.piece().await? {
                Some(piece) => self.unread.extend(piece.iter().filter(|byte| **byte != b'\r')),
                None => return Ok(None),
            }
        }
    }
}

fn parsed(block: &str) -> Event {
    let mut event = Event::default();
    let mut data = Vec::new();
    for (field, value) in block.lines().filter_map(|line| line.split_once(':')) {
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.event = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    event
}
