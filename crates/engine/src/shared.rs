//! One answer for all who ask the same thing while it is being asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::in_use::InUse;

/// Questions, by what they are about.
///
/// # Guarantees
/// Nobody gets the answer to a question that was put before they asked: whoever comes while one is on its way waits for the
/// next, with all the others who came meanwhile. So an answer is as fresh as if it had been asked for alone.
#[derive(Debug)]
pub(crate) struct Shared<T>(InUse<String, Topic<T>>);

#[derive(Debug)]
struct Topic<T> {
    /// Held while a question is on its way.
    turn: tokio::sync::Mutex<()>,
    /// The answer to the next question, which has not been put yet.
    next: Mutex<Arc<OnceCell<T>>>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(InUse::default())
    }
}

impl<T: Clone> Shared<T> {
    /// Puts `question` about `topic`, or waits for somebody who is about to put it. It may be dropped at any time: then
    /// another of those who wait puts it.
    pub(crate) async fn ask<F>(&self, topic: &str, question: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T>,
    {
        let topic = self.0.get(&topic.to_owned(), Topic::default);
        let answer = Arc::clone(&topic.next());
        let put = async {
            let _turn = topic.turn.lock().await;
            topic.close(&answer);
            question().await
        };
        answer.get_or_init(|| put).await.clone()
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self { turn: tokio::sync::Mutex::default(), next: Mutex::default() }
    }
}

impl<T> Topic<T> {
    /// Whoever comes from here on comes too late for this answer.
    fn close(&self, answer: &Arc<OnceCell<T>>) {
        let mut next = self.next();
        if Arc::ptr_eq(&next, answer) {
            *next = Arc::default();
        }
    }

    fn next(&self) -> MutexGuard<'_, Arc<OnceCell<T>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// A question whose answer is how often it was put, and which waits until it is let go.
    #[derive(Default)]
    struct Engine {
        asked: AtomicUsize,
        go: Option<Semaphore>,
    }

    impl Engine {
        async fn answer(&self) -> usize {
            let number = self.asked.fetch_add(1, SeqCst) + 1;
            if let Some(go) = &self.go {
                go.acquire().await.unwrap().forget();
            }
            number
        }
    }

    fn slow() -> (Shared<usize>, Engine) {
        (Shared::default(), Engine { go: Some(Semaphore::new(0)), ..Engine::default() })
    }

    /// What it is for: many objects that look at one container cost its engine two questions, not one each. And what it must
    /// not do: tell anybody what was true before they asked.
    #[tokio::test]
    async fn who_comes_while_a_question_is_on_its_way_shares_the_next_one() {
        let (shared, engine) = slow();
        let mut first = Box::pin(shared.ask("db", || engine.answer()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut others = Box::pin(join_all((0..100).map(|_| shared.ask("db", || engine.answer()))));
        assert!(others.as_mut().now_or_never().is_none());
        assert_eq!(engine.asked.load(SeqCst), 1, "one at a time");
        engine.go.as_ref().unwrap().add_permits(2);
        assert_eq!(first.await, 1);
        assert_eq!(others.await, [2; 100]);
    }

    #[tokio::test]
    async fn what_was_answered_is_asked_again() {
        let (shared, engine) = (Shared::default(), Engine::default());
        assert_eq!((shared.ask("db", || engine.answer()).await, shared.ask("db", || engine.answer()).await), (1, 2));
    }

    /// A reconcile may be dropped at any await, and with it the question that others wait for.
    #[tokio::test]
    async fn a_question_that_is_dropped_is_put_by_another_who_waits() {
        let (shared, engine) = slow();
        let mut first = Box::pin(shared.ask("db", || engine.answer()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(shared.ask("db", || engine.answer()));
        let mut third = Box::pin(shared.ask("db", || engine.answer()));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        engine.go.as_ref().unwrap().add_permits(1);
        assert_eq!(third.await, 3);
    }

    #[tokio::test]
    async fn other_topics_do_not_wait_and_are_forgotten() {
        let (shared, engine) = slow();
        let mut stuck = Box::pin(shared.ask("db", || engine.answer()));
        assert!(stuck.as_mut().now_or_never().is_none());
        assert_eq!(shared.ask("cache", || async { 7 }).await, 7);
        assert_eq!(shared.ask("queue", || async { 8 }).await, 8);
        assert_eq!(shared.0.len(), 2, "the one in use and the last one");
    }
}
