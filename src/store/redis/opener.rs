//! What passes between whoever opens the store and the thread that follows it, until all is read.

use std::collections::HashMap;
use std::sync::Arc;

use super::replica::Replica;

/// Facts that are other ones than those that the book follows from. The follower goes on once the sender is dropped.
pub(super) type Newer = (HashMap<String, Vec<u8>>, std::sync::mpsc::Sender<()>);

/// Whoever opens the store, as the follower knows them: until it is dropped the opener waits, and the follower waits with
/// every change of the facts until the book follows from them. No session is read under another one.
pub(super) struct Opener(Arc<Replica>);

impl Opener {
    /// With what tells whoever opens of other facts.
    pub(super) fn waiting(replica: &Arc<Replica>) -> (Self, std::sync::mpsc::Receiver<Newer>) {
        let (tell, told) = std::sync::mpsc::channel();
        let hear = move |facts| {
            let (taking, taken) = std::sync::mpsc::channel();
            if tell.send((facts, taking)).is_ok() {
                let _dropped = taken.recv();
            }
        };
        replica.facts.on_change(Some(Box::new(hear)));
        (Self(Arc::clone(replica)), told)
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.facts.on_change(None);
    }
}
