//! Bounds how many programs an engine is starting at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ContainerId;
use crate::in_use::InUse;

/// More starts at once than this only queue inside the engine, each slower than the one before.
const AT_ONCE: usize = 4;

/// Turns to start something: so many in an engine, and one in a container, which Docker locks for the whole of a start. What
/// waits for that lock inside Docker would only take a turn from another container.
#[derive(Debug)]
pub(crate) struct Starts {
    engine: Arc<Semaphore>,
    containers: InUse<ContainerId, Semaphore>,
}

/// A turn, until dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Turn([Option<OwnedSemaphorePermit>; 2]);

impl Default for Starts {
    fn default() -> Self {
        Self { engine: Arc::new(Semaphore::new(AT_ONCE)), containers: InUse::default() }
    }
}

impl Starts {
    /// Waits for a turn in `container`.
    pub(crate) async fn turn(&self, container: &ContainerId) -> Turn {
        let of_container = self.containers.get(container, || Semaphore::new(1));
        // Never closed, so that this cannot fail. In this order: who waits for a container is not in the way of others.
        let first = of_container.acquire_owned().await.ok();
        Turn([first, Arc::clone(&self.engine).acquire_owned().await.ok()])
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn id(digit: char) -> ContainerId {
        digit.to_string().repeat(64).parse().unwrap()
    }

    /// A container with much to start takes no turn from the others.
    #[tokio::test]
    async fn each_container_has_one_turn_and_all_together_have_four() {
        let starts = Starts::default();
        let busy = id('a');
        let first = starts.turn(&busy).await;
        let mut second = Box::pin(starts.turn(&busy));
        assert!(second.as_mut().now_or_never().is_none());
        let others: Vec<_> = ['b', 'c', 'd'].map(|digit| starts.turn(&id(digit)).now_or_never().unwrap()).into();
        assert!(starts.turn(&id('e')).now_or_never().is_none(), "four are enough for an engine");
        drop(first);
        assert!(second.now_or_never().is_some());
        drop(others);
        assert!(starts.turn(&id('e')).now_or_never().is_some());
        assert_eq!(starts.containers.len(), 1, "what is not in use is forgotten");
    }
}
