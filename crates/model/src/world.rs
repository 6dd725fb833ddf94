//! The state of the model: one run key, its row, the engine's execs, the daemons, and the truth about the program.

use oncelet_core::{ExecHint, Ownership};

/// More daemons than this no check has.
pub(crate) const MAX_DAEMONS: usize = 3;
/// More execs than this never matter at one time; a property of the model says so.
pub(crate) const MAX_EXECS: usize = 5;

/// The number of a daemon. It dies and boots again under the same number; its former life then is [`Owner::Gone`].
pub(crate) type DaemonNo = usize;
/// The number of an exec. It is given to another one when nobody can speak of the former any more.
pub(crate) type ExecNo = u8;
/// An exit code.
pub(crate) type Code = u8;

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The committed row.
    pub(crate) row: Option<Row>,
    pub(crate) disk: Disk,
    pub(crate) execs: [Exec; MAX_EXECS],
    pub(crate) daemons: [Daemon; MAX_DAEMONS],
    pub(crate) program: Program,
    /// The oracle: how often the program really started.
    pub(crate) starts: u8,
    /// Somebody was told that the claim is his, and nobody gave it back.
    pub(crate) acknowledged: bool,
    /// The final end that the row once had.
    pub(crate) ended: Option<End>,
    /// The code refused an event that its own executor wrote.
    pub(crate) illegal: bool,
}

/// The row of the run, as in the table `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) at: At,
    pub(crate) attempt: u8,
    /// Stands for owner, epoch and nonce: a lease is good as long as its daemon is the owner, for a daemon has one task
    /// for a key at most, and each acquisition makes another one the owner.
    pub(crate) owner: Owner,
}

/// What a power loss would leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Disk {
    /// The committed row.
    Synced,
    /// An earlier row: the last commits are not synced.
    Behind(Option<Row>),
}

/// `RunState`, without texts and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    Claimed,
    Starting(ExecNo),
    Running(ExecNo),
    Ended(End),
}

/// `Outcome`, without texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    Finished(Code),
    Interrupted,
    FailedToStart,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    Nobody,
    Daemon(DaemonNo),
    Gone,
}

/// An exec in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Exec {
    /// Not known, any more or yet.
    Gone,
    /// Not started. `stray`: a start request that nobody waits for may still reach the engine.
    Created { stray: bool },
    /// The program was started under it.
    Started,
    /// Over, and the program never ran.
    Spent,
}

/// The truth about the program, of its first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    NotStarted,
    Runs,
    Exited(Code),
    Killed,
}

/// A process: what its one task for the key does next, and a change that a dropped task left in the writer's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Daemon {
    pub(crate) phase: Phase,
    pub(crate) queued: Option<Queued>,
}

/// Where a daemon is: each phase stands *before* the step it is named for, so that "killed here" and "paused here for as
/// long as you like" come by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Dead,
    /// Looks at the object, now and then.
    Idle,
    Claim,
    CreateExec,
    RecordExec {
        exec: ExecNo,
    },
    Start {
        exec: ExecNo,
        earlier: Earlier,
    },
    /// The start request is under way.
    AwaitAnswer {
        exec: ExecNo,
        earlier: Earlier,
    },
    /// The request got no `RunningExec`: asks what became of the exec.
    AskAfterStart {
        exec: ExecNo,
        earlier: Earlier,
        refused: bool,
    },
    RecordStart {
        exec: ExecNo,
        earlier: Earlier,
        stream: Stream,
    },
    Follow {
        exec: ExecNo,
        earlier: Earlier,
        stream: Stream,
    },
    /// Polls the engine until a program that nobody listens to is over.
    AwaitEnd {
        exec: ExecNo,
    },
    RecordEnd {
        end: End,
    },
    /// Recovery: asks the engine about the run that it saw.
    Examine {
        seen: Seen,
    },
    /// Recovery: takes over, if the row is still as seen.
    CheckSeen {
        seen: Seen,
        todo: Todo,
    },
    /// Recovery: the change itself. `fresh`: nobody has acquired the run since the check.
    TakeOver {
        seen: Seen,
        todo: Todo,
        fresh: bool,
    },
    Release,
}

/// Start requests of the same exec before this one, which may still be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Earlier {
    None,
    /// Our own, unanswered.
    Ours,
    /// Of a daemon that is gone.
    Theirs,
}

/// What an attached stream will bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    /// The program's output and end.
    Program,
    /// The engine's explanation why nothing started; the exec is spent.
    Failure,
    /// The engine's explanation why nothing started; the exec is as it was before.
    Refusal,
}

/// The part of a record that recovery compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    pub(crate) at: At,
    pub(crate) attempt: u8,
}

/// `Verdict`, without texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Todo {
    Release,
    StartExec,
    StillRunning,
    End(End),
}

/// A change whose caller was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Queued {
    Claim,
    ExecCreated(ExecNo),
    TakeOver { fresh: bool },
    Release,
}

impl World {
    /// Daemons up, nothing run.
    pub(crate) fn new(daemons: usize) -> Self {
        let daemon = |number| Daemon { phase: if number < daemons { Phase::Idle } else { Phase::Dead }, queued: None };
        Self {
            row: None,
            disk: Disk::Synced,
            execs: [Exec::Gone; MAX_EXECS],
            daemons: std::array::from_fn(daemon),
            program: Program::NotStarted,
            starts: 0,
            acknowledged: false,
            ended: None,
            illegal: false,
        }
    }

    /// Whose the row is, as `Store::lookup` and `observe` tell daemon `me`, which has no task for it.
    pub(crate) fn ownership(row: &Row, me: DaemonNo) -> Ownership {
        match row.owner {
            _ if matches!(row.at, At::Ended(_)) => Ownership::Nobody,
            Owner::Nobody => Ownership::Nobody,
            Owner::Daemon(owner) if owner != me => Ownership::Other,
            // Its own without a task was abandoned.
            Owner::Daemon(_) | Owner::Gone => Ownership::Gone,
        }
    }

    pub(crate) fn exec(&self, exec: ExecNo) -> Exec {
        self.execs[usize::from(exec)]
    }

    pub(crate) fn set_exec(&mut self, exec: ExecNo, to: Exec) {
        self.execs[usize::from(exec)] = to;
    }

    /// Whether a living daemon will see the program's own end.
    pub(crate) fn has_witness(&self) -> bool {
        self.daemons.iter().any(|daemon| match daemon.phase {
            Phase::RecordStart { exec, stream: Stream::Program, .. }
            | Phase::Follow { exec, stream: Stream::Program, .. } => self.exec(exec) == Exec::Started,
            Phase::RecordEnd { end } => matches!(end, End::Finished(_)),
            _ => false,
        })
    }

    /// What the engine may say of an exec when asked, the truth first.
    pub(crate) fn hints(&self, exec: ExecNo) -> &'static [ExecHint] {
        use ExecHint::{Exited, Gone, NeverStarted, Running};
        match (self.exec(exec), self.program) {
            (Exec::Created { .. }, _) => &[NeverStarted],
            (Exec::Spent, _) => &[Exited(126), Gone],
            (Exec::Started, Program::Runs) if self.has_witness() => &[Running],
            // The client is gone: Docker says 126, Podman may say 0 and name no pid.
            (Exec::Started, Program::Runs) => &[Running, Exited(126), NeverStarted],
            (Exec::Started, Program::Exited(0)) => &[Exited(0), Exited(126), Running, NeverStarted, Gone],
            (Exec::Started, Program::Exited(_)) => &[Exited(1), Exited(126), Running, NeverStarted, Gone],
            (Exec::Gone, _) | (Exec::Started, Program::NotStarted | Program::Killed) => &[Gone],
        }
    }

    /// The numbers of the execs that somebody may still speak of.
    pub(crate) fn mentioned(&self) -> [bool; MAX_EXECS] {
        let mut mentioned = [false; MAX_EXECS];
        let mut mention = |exec: ExecNo| mentioned[usize::from(exec)] = true;
        for row in [self.row, self.disk.behind()].into_iter().flatten() {
            row.at.exec().into_iter().for_each(&mut mention);
        }
        for daemon in &self.daemons {
            daemon.phase.exec().into_iter().for_each(&mut mention);
            if let Some(Queued::ExecCreated(exec)) = daemon.queued {
                mention(exec);
            }
        }
        mentioned
    }

    /// Forgets execs that can have no effect any more, so that their numbers are free.
    pub(crate) fn tidy(mut self) -> Self {
        let mentioned = self.mentioned();
        for (exec, mentioned) in self.execs.iter_mut().zip(mentioned) {
            if !mentioned && *exec != (Exec::Created { stray: true }) {
                *exec = Exec::Gone;
            }
        }
        self
    }

    /// The same world with its daemons in order: they are alike, so only their number of each kind matters.
    pub(crate) fn sorted(mut self) -> Self {
        let owner_of = |row: Option<Row>, number| row.is_some_and(|row| row.owner == Owner::Daemon(number));
        let mut order: [DaemonNo; MAX_DAEMONS] = std::array::from_fn(|number| number);
        let rank = |&number: &DaemonNo| {
            (self.daemons[number], owner_of(self.row, number), owner_of(self.disk.behind(), number))
        };
        order.sort_by_key(|number| std::cmp::Reverse(rank(number)));
        self.daemons = order.map(|number| self.daemons[number]);
        for row in self.row.iter_mut().chain(self.disk.behind_mut()) {
            if let Owner::Daemon(owner) = &mut row.owner {
                *owner = order.iter().position(|number| number == owner).unwrap_or(*owner);
            }
        }
        self
    }

    /// A number that no exec has.
    pub(crate) fn free_exec(&self) -> Option<ExecNo> {
        let mentioned = self.mentioned();
        let free = |exec: &ExecNo| self.exec(*exec) == Exec::Gone && !mentioned[usize::from(*exec)];
        (0..).take(MAX_EXECS).find(free)
    }
}

impl Disk {
    fn behind(self) -> Option<Row> {
        if let Self::Behind(row) = self { row } else { None }
    }

    pub(crate) fn behind_mut(&mut self) -> Option<&mut Row> {
        if let Self::Behind(row) = self { row.as_mut() } else { None }
    }
}

impl At {
    /// The exec of an open run: `recover::exec_id`.
    pub(crate) fn exec(self) -> Option<ExecNo> {
        match self {
            Self::Starting(exec) | Self::Running(exec) => Some(exec),
            Self::Claimed | Self::Ended(_) => None,
        }
    }
}

impl Phase {
    fn exec(self) -> Option<ExecNo> {
        match self {
            Self::RecordExec { exec }
            | Self::Start { exec, .. }
            | Self::AwaitAnswer { exec, .. }
            | Self::AskAfterStart { exec, .. }
            | Self::RecordStart { exec, .. }
            | Self::Follow { exec, .. }
            | Self::AwaitEnd { exec } => Some(exec),
            Self::Examine { seen } | Self::CheckSeen { seen, .. } | Self::TakeOver { seen, .. } => seen.at.exec(),
            Self::Dead | Self::Idle | Self::Claim | Self::CreateExec | Self::RecordEnd { .. } | Self::Release => None,
        }
    }
}
