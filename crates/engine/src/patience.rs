//! What waits for engines, and what does not: a piece of work that waits for one does not hang, however long that takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

tokio::task_local! {
    static PATIENCE: Patience;
}

/// Whether some work waits for an engine. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Patience(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waits: usize,
    ended: Option<Instant>,
}

impl Patience {
    /// Does `work`, and notes when it waits for an engine; what it spawns is not its own.
    pub async fn during<F: Future>(&self, work: F) -> F::Output {
        PATIENCE.scope(self.clone(), work).await
    }

    /// Since when the work that began at `begun` has not waited for an engine; `None` while it does.
    pub fn busy_since(&self, begun: Instant) -> Option<Instant> {
        let state = self.state();
        (state.waits == 0).then(|| state.ended.map_or(begun, |ended| ended.max(begun)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait, until dropped.
pub(crate) struct Waits(Option<Patience>);

/// The work at hand waits for an engine from here on.
pub(crate) fn wait() -> Waits {
    let patience = PATIENCE.try_with(Clone::clone).ok();
    if let Some(patience) = &patience {
        patience.state().waits += 1;
    }
    Waits(patience)
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(patience) = &self.0 {
            let mut state = patience.state();
            state.waits = state.waits.saturating_sub(1);
            state.ended = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_an_engine_is_told_from_what_hangs() {
        let (patience, begun) = (Patience::default(), Instant::now());
        let mut work = Box::pin(patience.during(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let waits = wait();
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(waits);
            std::future::pending::<()>().await;
        }));
        let mut until = async |seconds: u64| {
            let _ = tokio::time::timeout_at(begun + Duration::from_millis(seconds * 1000 + 500), work.as_mut()).await;
        };
        until(0).await;
        assert_eq!(patience.busy_since(begun), Some(begun));
        until(1).await;
        assert_eq!(patience.busy_since(begun), None);
        until(5).await;
        assert_eq!(patience.busy_since(begun), Some(begun + Duration::from_secs(2)));
        drop(wait());
    }
}
