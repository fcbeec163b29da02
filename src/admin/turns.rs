//! Calls that look at every session, which takes seconds where there are millions: aside from the thread that serves the API,
//! answers probes and keeps house, and one after the other, as each copies a pointer to every session.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Admin;
use super::problem::Problem;

/// How long a call waits for its turn. It keeps one of the listener's connections meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose turn it is. Whoever ends sessions does not wait for those who look.
#[derive(Clone, Default)]
pub struct Turns {
    pub(super) look: Turn,
    pub(super) end: Turn,
}

/// See [`Turns`].
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

impl Turn {
    async fn within(&self, patience: Duration) -> Result<OwnedMutexGuard<()>, Problem> {
        let turn = tokio::time::timeout(patience, Arc::clone(&self.0).lock_owned()).await;
        turn.map_err(|_| {
            Problem::unavailable("others are looking at every session now; ask again in a moment".to_owned())
        })
    }
}

impl Admin {
    /// Does `act`: at once where it has no `turn`, because it looks at few sessions; otherwise when its turn has come.
    ///
    /// # Errors
    /// 503 where its turn does not come in time: nothing is done then. 500, with `broken`, where it broke off.
    // CANCEL: before its turn it does nothing; later it goes on to its end.
    pub(super) async fn take_turn<T: Send + 'static>(
        &self,
        turn: Option<&Turn>,
        act: impl FnOnce(&Self) -> T + Send + 'static,
        broken: &'static str,
    ) -> Result<T, Problem> {
        let Some(turn) = turn else { return Ok(act(self)) };
        let (turn, admin) = (turn.within(PATIENCE).await?, self.clone());
        let acting = move || {
            let _turn = turn;
            act(&admin)
        };
        let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, broken);
        tokio::task::spawn_blocking(acting).await.map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_comes_when_the_one_before_is_over_and_is_not_awaited_for_ever() {
        let turns = Turns::default();
        let patience = Duration::from_millis(20);
        let first = turns.look.within(patience).await.unwrap();
        assert!(turns.look.clone().within(patience).await.is_err(), "one at a time");
        assert!(turns.end.within(patience).await.is_ok(), "who ends waits for nobody who looks");
        drop(first);
        assert!(turns.look.within(patience).await.is_ok());
    }
}
