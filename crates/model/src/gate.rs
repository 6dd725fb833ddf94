//! The protocol of supervised runs, with the gate inside the container, over all states of a small world.
//!
//! One run key, daemons on one store, one engine, one container that may stop and start again. Anything may happen between any
//! two steps: a daemon or the supervisor is killed, a start request is late or its answer lost, the engine forgets its
//! execs, the power fails, the store is lost as a whole.
//!
//! ```text
//!  Idle ─▶ (claim) CreateExec ─▶ RecordExec ─▶ Start ─▶ RecordStart ─▶ Listen ─▶ Finish
//!   │                                            │ refused, no answer    │ stream lost
//!   └─ owner gone: (take over) ──▶ Examine ◀─────┴───────────────────────┘
//!                                     └─▶ Start · Withdraw ─▶ GiveBack · Listen · Finish
//! ```
//!
//! `Examine` is **`oncelet_core::examine`** and **`abandoned`** themselves, every change of the row goes through
//! **`RunState::next`**. Failed starts are left to the model of attached runs, output to the tests.

mod checked;

use jiff::Timestamp;
use oncelet_core::{
    EndedBy, ExecHint, Finding, Gate, Life, Outcome, RunEvent, RunState, Witnessed, abandoned, examine,
};

/// More execs than this are not made.
const EXECS: usize = 6;
/// The program's true exit code.
const TRUE_CODE: i64 = 7;
/// What the engine says instead, of a program whose client went away.
const FALSE_CODE: i64 = 126;

/// A protocol that looks right and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateMutant {
    /// The supervisor starts the program whether or not somebody has made the gate.
    NoGate,
    /// The claim in the container is not synced before the program is started.
    ClaimNotSynced,
    /// A start that was not confirmed is given up although the gate is closed, and the gate is removed for the next one.
    ReopenedGate,
    /// The engine's exit code is taken for the program's.
    BelievedExitCode,
    /// Whatever is recorded beside an open run is believed to be another program's: it is run again beside the gate.
    AttachedBesideTheGate,
}

/// The protocol, as the code has it or with one mutation.
#[derive(Clone, Debug)]
pub struct GateProtocol {
    daemons: usize,
    mutant: Option<GateMutant>,
}

impl GateProtocol {
    /// The protocol with so many daemons.
    pub fn new(daemons: usize) -> Self {
        Self { daemons, mutant: None }
    }

    /// The same with a mutation.
    #[must_use]
    pub fn mutated(self, mutant: GateMutant) -> Self {
        Self { mutant: Some(mutant), ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Claimed,
    Starting(usize),
    Running(usize),
    Ended(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Finished(i64),
    Interrupted,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Nobody,
    Daemon(usize),
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Row {
    at: At,
    owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Exec {
    Unmade,
    /// `stray`: a start request that nobody waits for may still reach it.
    Created {
        stray: bool,
    },
    Runs,
    Over,
    /// Not known to the engine any more; `stray` as above, for what had got through before.
    Forgotten {
        stray: bool,
    },
}

/// What is on the container's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Disk {
    Open,
    Claimed { synced: bool },
    Recorded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Dead,
    Idle,
    CreateExec,
    RecordExec(usize),
    Start(usize),
    RecordStart,
    Listen,
    Examine,
    Withdraw,
    GiveBack,
    Finish(End),
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each says of one thing whether it is so")]
pub struct GateWorld {
    row: Option<Row>,
    execs: [Exec; EXECS],
    disk: Disk,
    supervisor_lives: bool,
    program_lives: bool,
    /// The program ended by itself.
    exited: bool,
    container_runs: bool,
    /// It was started again after the claim.
    restarted: bool,
    daemons: Vec<Phase>,
    /// The oracle.
    starts: u8,
    store_lost: bool,
    ended: Option<End>,
}

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateAction {
    /// A daemon makes the step of its phase.
    Step(usize),
    /// Its start request is carried out, and the answer is lost.
    LoseAnswer(usize),
    /// Its start request is late.
    LateRequest(usize),
    /// A late request arrives.
    Stray(usize),
    /// The stream that it listens to breaks.
    LoseStream(usize),
    /// A daemon is killed.
    Kill(usize),
    /// It is booted again.
    Boot(usize),
    /// The program ends by itself.
    ProgramEnds,
    /// The supervisor is killed alone.
    SupervisorDies,
    /// The container stops, or starts again.
    StopOrStart,
    /// The engine forgets its execs; the programs go on.
    EngineRestarts,
    /// All daemons die, the container stops, and what was not synced is gone.
    PowerLoss,
    /// The store is lost as a whole, while no daemon lives.
    StoreLost,
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or_default()
}

impl GateWorld {
    fn state(at: At) -> RunState {
        match at {
            At::Claimed => RunState::Claimed,
            At::Starting(exec) => RunState::Starting { exec_id: exec.to_string() },
            At::Running(exec) => RunState::Running { exec_id: exec.to_string(), started_at: time(2) },
            At::Ended(end) => {
                RunState::Ended { started_at: Some(time(2)), finished_at: time(3), outcome: Self::outcome(end) }
            }
        }
    }

    fn outcome(end: End) -> Outcome {
        match end {
            End::Finished(exit_code) => Outcome::Finished { exit_code },
            End::Interrupted => {
                Outcome::Interrupted { by: EndedBy::Container, message: String::new(), exit_code: None }
            }
            End::Unknown => Outcome::Unknown { message: String::new() },
        }
    }

    fn end_of(outcome: &Outcome) -> End {
        match outcome {
            Outcome::Finished { exit_code } => End::Finished(*exit_code),
            Outcome::Interrupted { .. } => End::Interrupted,
            Outcome::Unknown { .. } | Outcome::FailedToStart { .. } => End::Unknown,
        }
    }

    /// The row of `me`, where it is his.
    fn mine(&self, me: usize) -> Option<At> {
        self.row.filter(|row| row.owner == Owner::Daemon(me)).map(|row| row.at)
    }

    /// Moves the row of `me` by an event that the code would write.
    fn write(&mut self, me: usize, event: RunEvent, then: Phase) {
        let Some(at) = self.mine(me) else {
            self.daemons[me] = Phase::Idle;
            return;
        };
        let next = match Self::state(at).next(event) {
            Ok(RunState::Claimed) => At::Claimed,
            Ok(RunState::Starting { exec_id }) => At::Starting(exec_id.parse().unwrap_or_default()),
            Ok(RunState::Running { exec_id, .. }) => At::Running(exec_id.parse().unwrap_or_default()),
            Ok(RunState::Ended { outcome, .. }) => At::Ended(Self::end_of(&outcome)),
            // Shown by a property.
            Err(_) => return,
        };
        let owner = if matches!(next, At::Ended(_)) { Owner::Nobody } else { Owner::Daemon(me) };
        self.row = Some(Row { at: next, owner });
        if let At::Ended(end) = next {
            self.ended = Some(end);
        }
        self.daemons[me] = then;
    }

    /// A start request reaches the container. True where this very exec has started the program.
    fn carry_out(&mut self, exec: usize, mutant: Option<GateMutant>) -> bool {
        let fresh = matches!(self.execs[exec], Exec::Created { .. } | Exec::Forgotten { stray: true });
        if !(self.container_runs && fresh) {
            if let Exec::Forgotten { .. } = self.execs[exec] {
                self.execs[exec] = Exec::Forgotten { stray: false };
            }
            return false;
        }
        let known = matches!(self.execs[exec], Exec::Created { .. });
        let passes = self.disk == Disk::Open || mutant == Some(GateMutant::NoGate);
        if passes {
            self.disk = Disk::Claimed { synced: mutant != Some(GateMutant::ClaimNotSynced) };
            (self.supervisor_lives, self.program_lives, self.exited, self.restarted) = (true, true, false, false);
            self.starts += 1;
        }
        self.execs[exec] = match (known, passes) {
            (true, true) => Exec::Runs,
            (true, false) => Exec::Over,
            (false, _) => Exec::Forgotten { stray: false },
        };
        passes
    }

    fn hint(&self, at: At) -> Option<ExecHint> {
        let (At::Starting(exec) | At::Running(exec)) = at else { return None };
        Some(match self.execs[exec] {
            Exec::Created { .. } => ExecHint::NeverStarted,
            Exec::Runs => ExecHint::Running,
            Exec::Over => ExecHint::Exited(FALSE_CODE),
            Exec::Unmade | Exec::Forgotten { .. } => ExecHint::Gone,
        })
    }

    fn gate(&self) -> Gate {
        match self.disk {
            Disk::Open => Gate::Open,
            Disk::Claimed { .. } => Gate::Closed {
                claimed_at: Some(time(1)),
                started_at: Some(time(2)),
                container_started_at: Some(time(0)),
            },
            Disk::Recorded => Gate::Recorded(Witnessed {
                started_at: time(2),
                finished_at: time(3),
                exit_code: TRUE_CODE,
                ended_by: None,
            }),
        }
    }

    fn life(&self) -> Life {
        match (self.container_runs, self.restarted) {
            (false, _) => Life::Stopped { since: Some(time(4)) },
            (true, false) => Life::Runs { since: Some(time(0)) },
            (true, true) => Life::Runs { since: Some(time(5)) },
        }
    }

    fn examine(&self, at: At, mutant: Option<GateMutant>) -> Phase {
        let hint = self.hint(at);
        if let (Some(GateMutant::BelievedExitCode), Some(ExecHint::Exited(code)), At::Running(_)) = (mutant, hint, at) {
            return Phase::Finish(End::Finished(code));
        }
        let closed = matches!(self.disk, Disk::Claimed { .. });
        if mutant == Some(GateMutant::ReopenedGate) && closed && matches!(at, At::Starting(_)) {
            return Phase::Withdraw;
        }
        self.follow_finding(&examine(&Self::state(at), &self.gate(), &self.life(), hint), at)
    }

    fn follow_finding(&self, finding: &Finding, at: At) -> Phase {
        match finding {
            Finding::Release => Phase::GiveBack,
            Finding::StartExec => match at {
                At::Starting(exec) => Phase::Start(exec),
                _ => Phase::Examine,
            },
            Finding::Withdraw => Phase::Withdraw,
            Finding::LookAgain => Phase::Examine,
            // The supervisor is asked inside: it waits for the program, tells its end, or is gone.
            Finding::Follow if self.supervisor_lives || self.program_lives => Phase::Listen,
            Finding::Follow => match abandoned(&self.gate(), &self.life(), "it was killed") {
                Finding::Ended { outcome, .. } => Phase::Finish(Self::end_of(&outcome)),
                _ => Phase::Examine,
            },
            Finding::Witnessed(witnessed) => Phase::Finish(Self::end_of(&witnessed.outcome())),
            Finding::Ended { outcome, .. } => Phase::Finish(Self::end_of(outcome)),
        }
    }

    fn step(&mut self, me: usize, mutant: Option<GateMutant>) {
        match self.daemons[me] {
            Phase::Dead => {}
            Phase::Idle => match self.row {
                None => {
                    self.row = Some(Row { at: At::Claimed, owner: Owner::Daemon(me) });
                    self.daemons[me] = Phase::CreateExec;
                }
                // A task that was dropped: its run is taken over like that of a dead daemon.
                Some(Row { at, owner }) if owner == Owner::Gone || owner == Owner::Daemon(me) => {
                    self.row = Some(Row { at, owner: Owner::Daemon(me) });
                    self.daemons[me] = Phase::Examine;
                }
                Some(_) => {}
            },
            Phase::CreateExec => {
                let free = self.execs.iter().position(|exec| *exec == Exec::Unmade);
                self.daemons[me] = match free.filter(|_| self.container_runs) {
                    Some(exec) => {
                        self.execs[exec] = Exec::Created { stray: false };
                        Phase::RecordExec(exec)
                    }
                    None => Phase::GiveBack,
                };
            }
            Phase::RecordExec(exec) => {
                self.write(me, RunEvent::ExecCreated { exec_id: exec.to_string() }, Phase::Start(exec));
            }
            Phase::Start(exec) => {
                let beside = mutant == Some(GateMutant::AttachedBesideTheGate) && self.disk != Disk::Open;
                let started = if beside {
                    self.starts += 1;
                    false
                } else {
                    self.carry_out(exec, mutant)
                };
                self.daemons[me] = if started { Phase::RecordStart } else { Phase::Examine };
            }
            Phase::RecordStart => self.write(me, RunEvent::Started { at: time(2) }, Phase::Listen),
            Phase::Listen => {
                if self.disk == Disk::Recorded {
                    self.daemons[me] = Phase::Finish(End::Finished(TRUE_CODE));
                } else if !(self.container_runs && self.supervisor_lives) {
                    self.daemons[me] = Phase::Examine;
                }
            }
            Phase::Examine => {
                self.daemons[me] = match self.mine(me) {
                    Some(at) => self.examine(at, mutant),
                    None => Phase::Idle,
                };
            }
            Phase::Withdraw => {
                if mutant == Some(GateMutant::ReopenedGate) {
                    self.disk = Disk::Open;
                }
                self.write(me, RunEvent::Withdrawn, Phase::GiveBack);
            }
            Phase::GiveBack => {
                if self.mine(me) == Some(At::Claimed) {
                    self.row = None;
                }
                self.daemons[me] = Phase::Idle;
            }
            Phase::Finish(end) => {
                if matches!((self.mine(me), end), (Some(At::Starting(_)), End::Finished(_))) {
                    self.write(me, RunEvent::Started { at: time(2) }, Phase::Finish(end));
                } else {
                    self.write(me, RunEvent::Ended { at: time(3), outcome: Self::outcome(end) }, Phase::Idle);
                }
            }
        }
    }

    fn kill(&mut self, daemon: usize) {
        // A request that it had sent may still arrive.
        if let Phase::Start(exec) = self.daemons[daemon]
            && let Exec::Created { stray } = &mut self.execs[exec]
        {
            *stray = true;
        }
        self.daemons[daemon] = Phase::Dead;
        if let Some(row) = self.row.as_mut().filter(|row| row.owner == Owner::Daemon(daemon)) {
            row.owner = Owner::Gone;
        }
    }

    fn container_stops(&mut self) {
        self.container_runs = false;
        (self.supervisor_lives, self.program_lives) = (false, false);
        for exec in &mut self.execs {
            *exec = match *exec {
                Exec::Runs => Exec::Over,
                Exec::Created { .. } | Exec::Forgotten { .. } => Exec::Forgotten { stray: false },
                other => other,
            };
        }
    }
}

/// The promise.
pub const STARTS_ONCE: &str = "the program starts at most once, whatever becomes of the store";
/// Of exit codes.
pub const TRUE_EXIT_CODE: &str = "an exit code in the store is that of the program";
/// Of the record in the container.
pub const RECORD_COUNTS: &str = "where the end is recorded in the container, the store has no other";
/// Of ends.
pub const END_STAYS: &str = "an end stays as it is";
