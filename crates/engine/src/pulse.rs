//! Whether an engine answers: asked once for all who want to know.
//!
//! Each call has its time, after which it is given up. Where an engine takes connections and says nothing (it is stopped, or its
//! machine is), hundreds of objects would wait for that time with a connection each, again and again. So a call is made only
//! where the engine has answered a moment ago; else one question is put for all, and what comes of it counts for all who waited.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::Error;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(5);
/// How long an engine has for the question.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a silent engine is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// Ordinary calls at once. More only queue in the engine; and an engine may fall silent after it was asked.
const CALLS: usize = 64;

#[derive(Debug)]
pub(crate) struct Pulse {
    state: Mutex<State>,
    asking: tokio::sync::Mutex<()>,
    calls: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    answered: Option<Instant>,
    /// What came of the last question that failed, and when.
    failed: Option<(Instant, Error)>,
    /// Until when nobody asks again.
    silent_until: Option<Instant>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { state: Mutex::default(), asking: tokio::sync::Mutex::default(), calls: Semaphore::new(CALLS) }
    }
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has answered something.
    pub(crate) fn answered(&self) {
        *self.state() = State { answered: Some(Instant::now()), ..State::default() };
    }

    /// A call was given up: it may be silent now.
    pub(crate) fn doubt(&self) {
        self.state().answered = None;
    }

    /// A turn for an ordinary call.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.calls.acquire().await.ok()
    }

    /// Whether it answers. `ask` puts the question, which has an end by itself, and tells whether that was for want of time.
    pub(crate) async fn check<F>(&self, ask: impl FnOnce() -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), (Error, bool)>>,
    {
        let came = Instant::now();
        if let Some(known) = self.state().known(came) {
            return known;
        }
        let _one = self.asking.lock().await;
        // Somebody has asked meanwhile.
        if let Some(known) = self.state().known(came) {
            return known;
        }
        match ask().await {
            Ok(()) => {
                self.answered();
                Ok(())
            }
            Err((error, silent)) => {
                let now = Instant::now();
                *self.state() = State {
                    answered: None,
                    failed: Some((now, error.clone())),
                    silent_until: silent.then_some(now + PAUSE),
                };
                Err(error)
            }
        }
    }
}

impl State {
    /// The answer for somebody who came at `came`, where it is known.
    fn known(&self, came: Instant) -> Option<Result<(), Error>> {
        if self.answered.is_some_and(|at| at.elapsed() < FRESH) {
            return Some(Ok(()));
        }
        let (at, error) = self.failed.as_ref()?;
        let counts = *at >= came || self.silent_until.is_some_and(|until| Instant::now() < until);
        counts.then(|| Err(error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures::future::join_all;

    use super::*;

    fn silence() -> (Error, bool) {
        (Error::unreachable("tcp://box:1", std::io::Error::from(std::io::ErrorKind::TimedOut)), true)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_engine_is_asked_once_for_all_and_then_left_alone_for_a_while() {
        let (pulse, asked) = (Pulse::default(), AtomicUsize::new(0));
        let check = || {
            pulse.check(|| async {
                asked.fetch_add(1, SeqCst);
                tokio::time::sleep(PATIENCE).await;
                Err(silence())
            })
        };
        let begun = Instant::now();
        let all = join_all((0..200).map(|_| check())).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!((asked.load(SeqCst), begun.elapsed()), (1, PATIENCE));
        assert!(check().await.is_err());
        assert_eq!((asked.load(SeqCst), begun.elapsed()), (1, PATIENCE), "told at once");
        tokio::time::advance(PAUSE).await;
        assert!(check().await.is_err());
        assert_eq!(asked.load(SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_answers_is_not_asked_before_every_call_and_is_where_one_was_given_up() {
        let (pulse, asked) = (Pulse::default(), AtomicUsize::new(0));
        let check = || {
            pulse.check(|| async {
                asked.fetch_add(1, SeqCst);
                Ok(())
            })
        };
        for _ in 0..3 {
            check().await.unwrap();
        }
        assert_eq!(asked.load(SeqCst), 1);
        pulse.doubt();
        check().await.unwrap();
        assert_eq!(asked.load(SeqCst), 2);
    }

    /// Nobody waits there, and it may be back at any moment.
    #[tokio::test(start_paused = true)]
    async fn an_engine_that_refuses_is_asked_by_everyone_who_comes_later() {
        let (pulse, asked) = (Pulse::default(), AtomicUsize::new(0));
        let check = || {
            pulse.check(|| async {
                asked.fetch_add(1, SeqCst);
                Err((silence().0, false))
            })
        };
        assert!(check().await.is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(check().await.is_err());
        assert_eq!(asked.load(SeqCst), 2);
    }
}
