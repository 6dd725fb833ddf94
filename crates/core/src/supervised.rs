//! What became of a supervised run, by what is on the container's disk.
//!
//! The gate inside the container is the truth: whoever made it had the right to start the program, and nobody else
//! ever has. So, other than for an attached run, an exec that has started nothing may be given up for another one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{DEFAULT_LOG_LIMIT, Effective, EndedBy, ExecHint, Outcome, Program, RunKey, RunRecord, RunState};

/// What lies beside the claim inside the container, so that a store that was lost can be filled again from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// What the run is remembered by.
    pub key: RunKey,
    /// The UID of the object for which it ran.
    pub object_uid: String,
    /// The program as declared.
    pub program: Program,
    /// The environment and arguments it got, secrets masked.
    pub effective: Effective,
    /// How many bytes of each output are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    /// When it was claimed in the store; tells whether the store's run is the one that is described.
    pub claimed_at: Timestamp,
    /// When the container was started, by the engine's clock, in the life in which the run was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_started_at: Option<Timestamp>,
}

impl Description {
    /// How many bytes of each output a store keeps that takes the run back for an object that wants `wanted`. Whoever runs code in
    /// the container may have written the description.
    pub fn log_limit_within(&self, wanted: Option<u64>) -> Option<u64> {
        let most = wanted.unwrap_or_default().max(DEFAULT_LOG_LIMIT);
        Some(self.log_limit.unwrap_or(u64::MAX).min(most))
    }

    /// Whether `record` is the run that is described.
    pub fn is_of(&self, record: &RunRecord) -> bool {
        self.claimed_at == record.claimed_at && self.object_uid == record.object_uid
    }
}

/// What the container's disk says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nobody has claimed it.
    Open,
    /// Somebody has, and no end is recorded.
    Closed {
        /// When it was claimed, where that can be read.
        claimed_at: Option<Timestamp>,
        /// When the program was started, where that is recorded.
        started_at: Option<Timestamp>,
        /// When the container was started in the life in which it was claimed, where that is recorded.
        container_started_at: Option<Timestamp>,
    },
    /// It is over.
    Recorded(Witnessed),
    /// There is no record, but something that only root or the run's own user can have made in its place.
    Unsound {
        /// What.
        message: String,
    },
}

/// An end that the supervisor saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// When the program was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Its exit code; 128 + n for signal n.
    pub exit_code: i64,
    /// Who asked for its end, where somebody did.
    pub ended_by: Option<EndedBy>,
}

impl Witnessed {
    /// The end as an outcome.
    pub fn outcome(&self) -> Outcome {
        let exit_code = self.exit_code;
        let Some(by) = self.ended_by else { return Outcome::Finished { exit_code } };
        let why = match by {
            EndedBy::Stop => "it was stopped, as spec.stop asks",
            EndedBy::Timeout => "it ran longer than spec.timeoutSeconds allows and was stopped",
            EndedBy::Delete => "its object was deleted, with onDelete: Kill, and it was stopped",
            EndedBy::Container => "its container ended",
        };
        Outcome::Interrupted { by, message: format!("{why} (exit code {exit_code})"), exit_code: Some(exit_code) }
    }
}

/// The life of the container, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, or is paused.
    Runs {
        /// Since when, where the engine says so.
        since: Option<Timestamp>,
    },
    /// It does not run.
    Stopped {
        /// Since when, where the engine says so.
        since: Option<Timestamp>,
    },
    /// The engine does not know it any more.
    Gone,
}

/// What follows for the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing was started: the claim goes away, and the run begins afresh.
    Release,
    /// Nothing was started, and the exec can still be: start it.
    StartExec,
    /// Nothing was started, and the exec is of no use any more.
    Withdraw,
    /// The exec is on its way to the gate: look again.
    LookAgain,
    /// The program runs, or its end is about to be recorded: ask its supervisor.
    Follow,
    /// It is over, and its supervisor saw the end.
    Witnessed(Witnessed),
    /// It is over, and nobody saw the end.
    Ended {
        /// When the program was started, where that is recorded.
        started_at: Option<Timestamp>,
        /// When it ended at the latest, where that is known.
        finished_at: Option<Timestamp>,
        /// How.
        outcome: Outcome,
    },
}

impl Finding {
    /// What follows for a run of `program`. What one reads from stdin is at hand only where it is launched afresh: then the
    /// bytes are those whose hash its exec knows. The gate keeps the exec that is given up from starting it a second time.
    #[must_use]
    pub fn of_program(self, program: &Program) -> Self {
        match self {
            Self::StartExec if program.stdin.is_some() => Self::Withdraw,
            other => other,
        }
    }
}

/// Judges an open supervised run. `hint` is what the engine says of its exec, `None` where the state holds none.
///
/// # Guarantees
/// - Nothing may be started but where the gate is open.
/// - An exit code comes from the supervisor alone.
pub fn examine(state: &RunState, gate: &Gate, life: &Life, hint: Option<ExecHint>) -> Finding {
    match (state, gate) {
        (RunState::Claimed, _) => Finding::Release,
        // What became of the run can neither be believed nor be found out.
        (_, Gate::Unsound { message }) => Finding::Ended {
            started_at: match state {
                RunState::Running { started_at, .. } => Some(*started_at),
                _ => None,
            },
            finished_at: None,
            outcome: Outcome::Unknown {
                message: format!("the record of it cannot be believed: {message}. It counts as run and does not start again by itself"),
            },
        },
        (_, Gate::Recorded(witnessed)) => Finding::Witnessed(*witnessed),
        (_, Gate::Closed { .. }) if is_of_earlier_life(gate, life) => restarted(gate, life),
        (_, Gate::Closed { started_at, .. }) => closed(*started_at, life),
        (RunState::Starting { .. }, Gate::Open) => open(life, hint),
        (RunState::Running { started_at, .. } | RunState::Ended { started_at: Some(started_at), .. }, Gate::Open) => {
            match life {
                Life::Gone => interrupted(Some(*started_at), None, "the container was removed while the program ran"),
                _ => Finding::Ended {
                    started_at: Some(*started_at),
                    finished_at: None,
                    outcome: Outcome::Unknown {
                        message: "the record of it, in the directory /.oncelet of the container, was removed while it ran, so \
                                  its exit code is lost. It counts as run and does not start again by itself"
                            .to_owned(),
                    },
                },
            }
        }
        (RunState::Ended { .. }, Gate::Open) => Finding::LookAgain,
    }
}

fn open(life: &Life, hint: Option<ExecHint>) -> Finding {
    match (life, hint) {
        // The disk went with the container, and what was on it.
        (Life::Gone, _) => Finding::Ended {
            started_at: None,
            finished_at: None,
            outcome: Outcome::Unknown {
                message: "the container was removed while the program was being started, so whether it ran cannot be \
                          known. It counts as run"
                    .to_owned(),
            },
        },
        (Life::Runs { .. }, Some(ExecHint::NeverStarted)) => Finding::StartExec,
        (Life::Runs { .. }, Some(ExecHint::Running)) => Finding::LookAgain,
        // A container's stop ends its execs, and drops those that were never started.
        (Life::Stopped { .. }, _) | (Life::Runs { .. }, Some(ExecHint::Exited(_) | ExecHint::Gone) | None) => {
            Finding::Withdraw
        }
    }
}

fn closed(started_at: Option<Timestamp>, life: &Life) -> Finding {
    match life {
        Life::Gone => interrupted(started_at, None, "the container was removed while the program ran"),
        Life::Stopped { since } => interrupted(started_at, *since, "the container stopped while the program ran"),
        Life::Runs { .. } => Finding::Follow,
    }
}

/// Whether the container has begun another life since the run was claimed. In a container that shares the host's processes its
/// program may live on; nobody can tell any more whose it is, and it counts as interrupted.
///
/// Both signs must agree. The start that was seen before the claim may be that of a life that ended meanwhile, and times alone
/// say nothing where a clock was set.
fn is_of_earlier_life(gate: &Gate, life: &Life) -> bool {
    match (gate, life) {
        (
            Gate::Closed { claimed_at: Some(claimed_at), container_started_at: Some(began), .. },
            Life::Runs { since: Some(since) },
        ) => claimed_at < since && began != since,
        _ => false,
    }
}

fn restarted(gate: &Gate, life: &Life) -> Finding {
    let started_at = if let Gate::Closed { started_at, .. } = gate { *started_at } else { None };
    let since = if let Life::Runs { since } = life { *since } else { None };
    interrupted(started_at, since, "the container was restarted while the program ran")
}

/// Judges a run behind a closed gate whose supervisor is known to be gone, together with the program: it was asked for
/// inside the running container.
///
/// Times are compared only for the words: a clock that was set wrong can make no program start.
pub fn abandoned(gate: &Gate, life: &Life, message: &str) -> Finding {
    let Gate::Closed { claimed_at, started_at, .. } = gate else { return Finding::LookAgain };
    match life {
        Life::Runs { since: Some(since) } if claimed_at.is_some_and(|claimed_at| claimed_at < *since) => {
            restarted(gate, life)
        }
        Life::Runs { .. } => Finding::Ended {
            started_at: *started_at,
            finished_at: None,
            outcome: Outcome::Unknown {
                message: format!("{message}. It counts as run and does not start again by itself"),
            },
        },
        Life::Stopped { .. } | Life::Gone => closed(*started_at, life),
    }
}

fn interrupted(started_at: Option<Timestamp>, finished_at: Option<Timestamp>, what: &str) -> Finding {
    let outcome = Outcome::Interrupted { by: EndedBy::Container, message: what.to_owned(), exit_code: None };
    Finding::Ended { started_at, finished_at, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn starting() -> RunState {
        RunState::Starting { exec_id: "e1".into() }
    }

    fn running() -> RunState {
        RunState::Running { exec_id: "e1".into(), started_at: at(10) }
    }

    fn closed_gate() -> Gate {
        Gate::Closed { claimed_at: Some(at(9)), started_at: Some(at(10)), container_started_at: None }
    }

    const HINTS: [Option<ExecHint>; 5] =
        [None, Some(ExecHint::NeverStarted), Some(ExecHint::Running), Some(ExecHint::Exited(0)), Some(ExecHint::Gone)];

    fn lives() -> [Life; 4] {
        [
            Life::Runs { since: Some(at(1)) },
            Life::Runs { since: None },
            Life::Stopped { since: Some(at(20)) },
            Life::Gone,
        ]
    }

    #[test]
    fn a_description_from_a_container_cannot_ask_for_more_than_its_object() {
        let of = |log_limit| Description {
            key: crate::RunKey {
                ident: "c".into(),
                name: crate::RunName::of_object("team", "seed"),
                token: String::new(),
            },
            object_uid: "uid".into(),
            program: Program::default(),
            effective: Effective::default(),
            log_limit,
            claimed_at: at(1),
            container_started_at: None,
        };
        let default = Some(DEFAULT_LOG_LIMIT);
        for (described, wanted, kept) in [
            (Some(1000), Some(5), Some(1000)),
            (Some(0), default, Some(0)),
            (Some(u64::MAX), Some(5), default),
            (Some(u64::MAX), Some(1 << 40), Some(1 << 40)),
            (None, None, default),
        ] {
            assert_eq!(of(described).log_limit_within(wanted), kept, "{described:?} {wanted:?}");
        }
    }

    #[test]
    fn nothing_starts_behind_a_closed_gate() {
        for state in [starting(), running()] {
            for gate in [closed_gate(), Gate::Closed { claimed_at: None, started_at: None, container_started_at: None }]
            {
                for life in lives() {
                    for hint in HINTS {
                        let finding = examine(&state, &gate, &life, hint);
                        assert!(
                            matches!(finding, Finding::Follow | Finding::Ended { .. }),
                            "{state:?} {gate:?} {life:?} {hint:?} gave {finding:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_exec_that_started_nothing_is_given_up_for_another_one() {
        let runs = Life::Runs { since: Some(at(1)) };
        assert_eq!(examine(&starting(), &Gate::Open, &runs, Some(ExecHint::Gone)), Finding::Withdraw);
        assert_eq!(examine(&starting(), &Gate::Open, &runs, Some(ExecHint::Exited(127))), Finding::Withdraw);
        assert_eq!(examine(&starting(), &Gate::Open, &runs, Some(ExecHint::NeverStarted)), Finding::StartExec);
        assert_eq!(examine(&starting(), &Gate::Open, &runs, Some(ExecHint::Running)), Finding::LookAgain);
    }

    #[test]
    fn a_program_with_stdin_is_launched_afresh_where_others_are_started() {
        let fed = Program { stdin: Some(crate::Stdin::Value(crate::StdinDigest::of(b"x"))), ..Program::default() };
        assert_eq!(Finding::StartExec.of_program(&fed), Finding::Withdraw);
        assert_eq!(Finding::StartExec.of_program(&Program::default()), Finding::StartExec);
        for finding in [Finding::Release, Finding::LookAgain, Finding::Follow, Finding::Withdraw] {
            assert_eq!(finding.clone().of_program(&fed), finding);
        }
    }

    #[test]
    fn a_run_that_was_seen_running_never_starts_again_whatever_the_disk_says() {
        for life in lives() {
            for hint in HINTS {
                let finding = examine(&running(), &Gate::Open, &life, hint);
                assert!(matches!(finding, Finding::Ended { .. }), "{life:?} {hint:?} gave {finding:?}");
            }
        }
    }

    #[test]
    fn the_record_counts_whatever_became_of_the_container() {
        let witnessed = Witnessed { started_at: at(10), finished_at: at(12), exit_code: 3, ended_by: None };
        for state in [starting(), running()] {
            for life in lives() {
                let finding = examine(&state, &Gate::Recorded(witnessed), &life, None);
                assert_eq!(finding, Finding::Witnessed(witnessed));
            }
        }
        assert_eq!(witnessed.outcome(), Outcome::Finished { exit_code: 3 });
    }

    #[test]
    fn a_restarted_container_has_interrupted_what_ran_in_its_earlier_life() {
        let restarted = Life::Runs { since: Some(at(30)) };
        assert_eq!(examine(&running(), &closed_gate(), &restarted, None), Finding::Follow);
        let Finding::Ended { started_at, finished_at, outcome } =
            abandoned(&closed_gate(), &restarted, "it was killed")
        else {
            panic!("the supervisor did not survive its container");
        };
        assert_eq!((started_at, finished_at), (Some(at(10)), Some(at(30))));
        assert!(matches!(outcome, Outcome::Interrupted { by: EndedBy::Container, exit_code: None, .. }), "{outcome:?}");
    }

    #[test]
    fn what_is_no_record_is_neither_an_end_nor_a_reason_to_start() {
        let unsound = Gate::Unsound { message: "it is a symbolic link".into() };
        for state in [starting(), running()] {
            for life in lives() {
                for hint in HINTS {
                    let Finding::Ended { outcome: Outcome::Unknown { message }, .. } =
                        examine(&state, &unsound, &life, hint)
                    else {
                        panic!("{state:?} {life:?} {hint:?}");
                    };
                    assert!(message.contains("it is a symbolic link"), "{message}");
                }
            }
        }
    }

    /// With the host's process namespace, a supervisor of an earlier life may seem to live, or really do.
    #[test]
    fn a_run_of_an_earlier_life_is_interrupted_without_asking_anybody() {
        let claimed_in = |began: Option<Timestamp>| Gate::Closed {
            claimed_at: Some(at(9)),
            started_at: Some(at(10)),
            container_started_at: began,
        };
        let life = |since: i64| Life::Runs { since: Some(at(since)) };
        for state in [starting(), running()] {
            let Finding::Ended { started_at, finished_at, outcome } =
                examine(&state, &claimed_in(Some(at(1))), &life(30), None)
            else {
                panic!("it is of an earlier life");
            };
            assert_eq!((started_at, finished_at), (Some(at(10)), Some(at(30))));
            assert!(matches!(outcome, Outcome::Interrupted { exit_code: None, .. }), "{outcome:?}");
            for (gate, now, why) in [
                (claimed_in(Some(at(1))), life(1), "it is the same life"),
                (claimed_in(Some(at(30))), life(30), "it is the same life, and a clock was set back in it"),
                (claimed_in(Some(at(1))), life(5), "the life began between the look and the claim"),
                (claimed_in(None), life(30), "its supervisor knows"),
                (claimed_in(Some(at(1))), Life::Runs { since: None }, "a paused container tells nothing"),
            ] {
                assert_eq!(examine(&state, &gate, &now, None), Finding::Follow, "{why}");
            }
        }
    }

    #[test]
    fn a_supervisor_that_was_killed_alone_leaves_an_unknown_end() {
        let same_life = Life::Runs { since: Some(at(9)) };
        let Finding::Ended { outcome: Outcome::Unknown { message }, .. } =
            abandoned(&closed_gate(), &same_life, "it was killed")
        else {
            panic!("nobody saw the exit code");
        };
        assert!(message.starts_with("it was killed"), "{message}");
    }

    #[test]
    fn an_outcome_says_who_ended_the_program() {
        let witnessed =
            Witnessed { started_at: at(1), finished_at: at(2), exit_code: 143, ended_by: Some(EndedBy::Timeout) };
        let Outcome::Interrupted { by: EndedBy::Timeout, message, exit_code: Some(143) } = witnessed.outcome() else {
            panic!("a timeout is no end of the program's own");
        };
        assert!(message.contains("timeoutSeconds"), "{message}");
    }
}
