//! The control thread's own work: sweeping, and watching the configuration's content.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::session::Span;
use crate::store::Table;

/// How often the sweeper looks: well within the second that is promised for deadlines (R21).
const SWEEP_EVERY: Span = Span::from_ms(250);

/// How often the configuration's content is compared. Kubernetes swaps symlinks, which watchers of inodes miss
/// (FIELD F25), and a small file is read in no time.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

/// The largest configuration that is read, in bytes.
pub(super) const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// Sweeps for ever.
// CANCEL: a sweep itself has no await; dropping the future stops between two of them.
pub(super) async fn sweep(table: Arc<Table>, clock: Clock) {
    loop {
        table.sweep(clock.now());
        clock.sleep(SWEEP_EVERY).await;
    }
}

/// Calls `changed` whenever the content of the file is another than before.
pub(super) async fn watch(path: PathBuf, mut changed: impl AsyncFnMut()) {
    let mut last = fingerprint(&path).await;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let present = fingerprint(&path).await;
        // A file that cannot be read for a moment (an editor renames it) is no change.
        if present.is_some() && present != last {
            last = present;
            changed().await;
        }
    }
}

async fn fingerprint(path: &PathBuf) -> Option<blake3::Hash> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    if metadata.len() > MAX_CONFIG_BYTES {
        return None;
    }
    tokio::fs::read(path).await.ok().map(|content| blake3::hash(&content))
}
