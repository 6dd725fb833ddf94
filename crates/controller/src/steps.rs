//! What happens to runs, for whoever wants to know: traces.

use jiff::Timestamp;
use oncelet_core::RunRecord;
use tokio::sync::mpsc;

/// Something that has happened to a run.
#[derive(Debug)]
pub enum Step {
    /// Another daemon is gone, and this one looks after the run from here on.
    TakenOver {
        /// The run as it was left.
        run: Box<RunRecord>,
        /// When.
        at: Timestamp,
    },
    /// It is over.
    Ended {
        /// The run, with its outcome.
        run: Box<RunRecord>,
    },
    /// Its outcome was given to an object that asked for it again.
    Restored {
        /// The run.
        run: Box<RunRecord>,
        /// When the object was looked at.
        from: Timestamp,
        /// When its status had the outcome.
        to: Timestamp,
    },
}

/// Where steps are told, if anywhere.
#[derive(Clone, Default)]
pub struct Steps(Option<mpsc::UnboundedSender<Step>>);

impl Steps {
    /// Steps, and where they come out.
    pub fn told() -> (Self, mpsc::UnboundedReceiver<Step>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    /// Tells `step`, which is made only where somebody listens.
    pub(crate) fn tell(&self, step: impl FnOnce() -> Step) {
        if let Some(sender) = &self.0 {
            // Whoever listened may have ended first.
            let _ = sender.send(step());
        }
    }
}
