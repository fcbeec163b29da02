//! Waiting for a condition, with a deadline in place of a guess.

use std::time::Duration;

/// How long a test waits before it calls a thing lost. Generous: only a failing test ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

const FIRST_NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(40);

/// Polls `condition` until it holds; panics when it does not within `deadline`.
pub async fn eventually(deadline: Duration, condition: impl AsyncFnMut() -> bool) {
    assert!(comes_true(deadline, condition).await, "the condition did not hold within {deadline:?}");
}

/// Polls `condition` until it holds; `false` when it does not within `deadline`.
pub async fn comes_true(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let polling = async {
        let mut nap = FIRST_NAP;
        while !condition().await {
            tokio::time::sleep(nap).await;
            nap = LONGEST_NAP.min(nap * 2);
        }
    };
    tokio::time::timeout(deadline, polling).await.is_ok()
}

/// Awaits `future`; panics, saying `what`, when it takes longer than [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {PATIENCE:?}"),
    }
}
