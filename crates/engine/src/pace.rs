//! Whether a reader kept up with the engine.

use std::time::{Duration, Instant};

/// After a program's end both engines go on for about this long to deliver its output, and then cut it off.
const DRAIN: Duration = Duration::from_secs(2);
/// More than an engine and the pipes around it can hold of what a program has written.
const BACKLOG: usize = 4 << 20;

/// Watches how long the deliverer of output had to wait for its reader.
///
/// A cut loses something only if, between the program's end and the cut, less than the backlog was taken: so the
/// last [`BACKLOG`] bytes must have taken as long as [`DRAIN`], for the reader's sake, until shortly before the end.
#[derive(Debug)]
pub(crate) struct Pace {
    older: Mark,
    newer: Mark,
    since_newer: usize,
    waited: Duration,
    last_wait: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    waited: Duration,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        let mark = Mark { at: now, waited: Duration::ZERO };
        Self { older: mark, newer: mark, since_newer: 0, waited: Duration::ZERO, last_wait: None }
    }

    /// `bytes` were handed over, offered at `offered` and taken at `taken`.
    pub(crate) fn delivered(&mut self, bytes: usize, offered: Instant, taken: Instant) {
        let wait = taken.duration_since(offered);
        if wait >= Duration::from_millis(1) {
            self.waited += wait;
            self.last_wait = Some(taken);
        }
        self.since_newer += bytes;
        if self.since_newer >= BACKLOG {
            self.older = self.newer;
            self.newer = Mark { at: taken, waited: self.waited };
            self.since_newer = 0;
        }
    }

    /// Whether output may be missing, if the stream has ended at `end`.
    pub(crate) fn fell_behind(&self, end: Instant) -> bool {
        let waited_late = self.last_wait.is_some_and(|last| end.duration_since(last) < DRAIN * 2);
        let slow = end.duration_since(self.older.at) >= DRAIN;
        waited_late && slow && self.waited.saturating_sub(self.older.waited) >= DRAIN / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 32 << 10;

    /// Delivers `frames`, each taken after `wait`, and says whether the reader had fallen behind at the end.
    fn fell_behind(frames: usize, wait: Duration, then: Duration) -> bool {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..frames {
            pace.delivered(FRAME, now, now + wait);
            now += wait;
        }
        pace.fell_behind(now + then)
    }

    #[test]
    fn a_reader_that_never_lets_wait_keeps_up() {
        assert!(!fell_behind(10_000, Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn a_steady_reader_of_big_output_keeps_up_although_the_engine_waits_for_it() {
        assert!(!fell_behind(10_000, Duration::from_millis(2), Duration::ZERO));
    }

    #[test]
    fn a_reader_that_trickles_to_the_end_falls_behind() {
        assert!(fell_behind(100, Duration::from_millis(60), Duration::ZERO));
    }

    #[test]
    fn a_reader_that_paused_long_before_the_end_has_caught_up() {
        assert!(!fell_behind(1, Duration::from_secs(30), Duration::from_secs(10)));
    }
}
