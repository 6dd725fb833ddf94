//! What became of a run whose daemon is gone.
//!
//! An attached run has no witness beside its daemon: the engine's word for how an exec ended is known to be false
//! in places (Docker: 126 for a program that wrote output after its client went away; Podman: 125 or 0 for one that
//! still runs), and it forgets execs within minutes, or at once when it restarts. So only what it says of a
//! program that was *never started* or that *still runs* is used; any other end is unknown.

use crate::{Outcome, RunState};

/// What the engine says of an exec, when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecHint {
    /// Created and not started.
    NeverStarted,
    /// Running.
    Running,
    /// Over, with this exit code.
    Exited(i64),
    /// The engine does not know it (any more).
    Gone,
}

/// What follows for the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was started and no exec exists: the claim goes away, and the run begins afresh.
    Release,
    /// Nothing was started: start the run's own exec. The engine runs an exec at most once, so even a start request
    /// of the dead daemon that is still under way can do no harm.
    StartExec,
    /// The program runs, unwatched: look again later.
    StillRunning,
    /// It is over.
    Ended(Outcome),
}

/// Judges an open run whose daemon is gone. `hint` is `None` where the state holds no exec to ask for.
pub fn judge(state: &RunState, hint: Option<ExecHint>) -> Verdict {
    let unknown = |what: &str| {
        Verdict::Ended(Outcome::Unknown {
            message: format!(
                "nobody watched the program to its end, so its exit code and the rest of its output are lost; {what}. It \
                 counts as run and does not start again by itself"
            ),
        })
    };
    match (state, hint) {
        (RunState::Claimed, _) => Verdict::Release,
        (RunState::Starting { .. }, Some(ExecHint::NeverStarted)) => Verdict::StartExec,
        (_, Some(ExecHint::Running)) => Verdict::StillRunning,
        (_, Some(ExecHint::Exited(code))) => {
            unknown(&format!("the engine says exit code {code}, which it is known to get wrong in this case"))
        }
        (_, Some(ExecHint::NeverStarted)) => unknown("the engine says that it never started"),
        (_, Some(ExecHint::Gone) | None) => unknown("the engine no longer knows it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starting() -> RunState {
        RunState::Starting { exec_id: "e1".into() }
    }

    fn running() -> RunState {
        RunState::Running { exec_id: "e1".into(), started_at: jiff::Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_claim_without_an_exec_goes_away() {
        assert_eq!(judge(&RunState::Claimed, None), Verdict::Release);
    }

    #[test]
    fn an_exec_that_never_started_is_started_under_the_same_id() {
        assert_eq!(judge(&starting(), Some(ExecHint::NeverStarted)), Verdict::StartExec);
    }

    #[test]
    fn nothing_but_a_never_started_exec_is_ever_started() {
        for state in [starting(), running()] {
            for hint in [Some(ExecHint::Running), Some(ExecHint::Exited(0)), Some(ExecHint::Gone), None] {
                let verdict = judge(&state, hint);
                assert!(
                    !matches!(verdict, Verdict::Release | Verdict::StartExec),
                    "{state:?} with {hint:?} gave {verdict:?}"
                );
            }
        }
        assert!(matches!(judge(&running(), Some(ExecHint::NeverStarted)), Verdict::Ended(_)));
    }

    #[test]
    fn the_engines_exit_code_is_not_believed() {
        let Verdict::Ended(Outcome::Unknown { message }) = judge(&running(), Some(ExecHint::Exited(126))) else {
            panic!("an exit code seen by nobody is not an outcome");
        };
        assert!(message.contains("126"), "{message}");
    }
}
