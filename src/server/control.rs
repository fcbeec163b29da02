//! The control thread's own work: sweeping, and watching the content of the configuration and the certificates.

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

/// The largest file that is watched, in bytes: what the configuration may be, and any certificate is.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Sweeps for ever.
// CANCEL: a sweep itself has no await; dropping the future stops between two of them.
pub(super) async fn sweep(table: Arc<Table>, clock: Clock) {
    loop {
        table.sweep(clock.now());
        clock.sleep(SWEEP_EVERY).await;
    }
}

/// Calls `changed` whenever the content of one of the files is another than `last`.
pub(super) async fn watch(
    files: impl Fn() -> Vec<PathBuf>,
    mut last: Option<blake3::Hash>,
    mut changed: impl AsyncFnMut(),
) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let present = fingerprint(&files());
        // A file that cannot be read for a moment (an editor renames it) is no change.
        if present.is_some() && present != last {
            last = present;
            changed().await;
        }
    }
}

/// What the files hold together; `None` when one cannot be read. They are small, and read in no time.
pub(super) fn fingerprint(files: &[PathBuf]) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        if std::fs::metadata(path).ok()?.len() > MAX_FILE_BYTES {
            return None;
        }
        let content = std::fs::read(path).ok()?;
        hasher.update(blake3::hash(&content).as_bytes());
    }
    Some(hasher.finalize())
}
