//! A model of the protocol of attached runs, checked over all of its states (that of supervised runs is in [`gate`]): the code's tests show that it does what it should, this
//! shows that what it should is enough.
//!
//! One run key, a few daemons on one store, one engine. Anything may happen between any two steps:
//!
//! ```text
//!  a daemon                                                        the store          the engine
//!
//!  Idle ──look: decide──▶ Claim ─────────────────────────────────▶ one row            execs, each started once
//!   ▲ │                   CreateExec ───────────────────────────────────────────────▶ at most; forgotten by a
//!   │ │                   RecordExec ────────────────────────────▶ Starting           restart of the engine or
//!   │ │             ┌───▶ Start ─ AwaitAnswer ──────────────────────────────────────▶ the container
//!   │ │             │      │  └▶ no answer, or refused: AskAfterStart ◀────────────── false words of programs
//!   │ │             │      │        ├▶ never started: Start again, or FailedToStart   whose client is gone
//!   │ │             │      │        └▶ AwaitEnd
//!   │ │             │     RecordStart ───────────────────────────▶ Running            start requests under way,
//!   │ │             │     Follow ◀─────────────────────────────────────────────────── also of dead daemons
//!   │ │             │      │  └▶ stream lost: AwaitEnd ◀─────────────────────────────
//!   │ │             │     RecordEnd ─────────────────────────────▶ an end             the program: runs, ends,
//!   │ │             │      │                                                          is killed; its starts are
//!   │ └─owner gone─▶│ Examine: judge ─▶ CheckSeen ─ TakeOver ────▶ owner              counted: the oracle
//!   │               └───── StartExec ◀───────────────┤
//!   │                      AwaitEnd, RecordEnd ◀─────┤ StillRunning, Ended
//!   └───────────────────── Release ◀─────────────────┘ ──────────▶ no row
//! ```
//!
//! | what is modelled | stands for |
//! |---|---|
//! | `Idle` | `observe::memory`, then **`oncelet_core::decide`** and **`may_be_claimed_again`** themselves |
//! | `Claim`, `CreateExec`, `RecordExec`, `Release` | `launch::launch`; any of them may fail, or be dropped by its caller, with its change made, still queued, or neither |
//! | `Start` … `RecordEnd` | `follow::attached::start`: `AskAfterStart` is its `inspect`, `Follow` its `drain` |
//! | `AwaitEnd` | `follow::attached::await_end`, with **`oncelet_core::judge`** itself |
//! | `Examine`, `CheckSeen`, `TakeOver` | `recover::verdict` with **`judge`**, `Store::take_over`'s look and its change, `recover::carry_out` |
//! | `World::claim`, `advance`, `take_over`, `give_back`, `flush` | `MakeClaim`, `Move` with **`RunState::next`**, `TakeOver`, `GiveBack`, the writer's queue |
//! | `Owner::Gone` | a lock file that the kernel has freed |
//! | `Disk::Behind` | what `synchronous=FULL` makes impossible: a commit that a power loss takes back |
//! | `World::hints` | `Engine::inspect_exec`, with the falsehoods that were measured |
//! | `World::answer` | `Engine::start_exec`: `Explain` is a refusal that comes as a text, and leaves the exec as it was |
//!
//! A paused daemon (SIGSTOP) needs no step of its own: every daemon may stand still between two steps for as long as the
//! others like. What is said in the names of [`properties`] is checked in `tests/protocol.rs`; `tests/mutants.rs` shows
//! that each [`Mutant`] breaks one.
//!
//! Not modelled: logs, several keys, several objects of one key in one daemon, what several power losses could reorder
//! inside a file, a person with `sqlite3`.

mod action;
mod code;
mod daemon;
mod engine;
pub mod gate;
pub mod properties;
mod store;
mod world;

pub use action::Action;
pub use engine::Answer;
pub use world::World;

use code::Code;

/// The protocol, as the code has it or with one mutation.
#[derive(Clone, Debug)]
pub struct Protocol {
    daemons: usize,
    tries: u8,
    peace: bool,
    sorted: bool,
    mutant: Option<Mutant>,
    code: Code,
}

/// A protocol that looks right and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The store commits without syncing: `synchronous=NORMAL`.
    SyncNormal,
    /// The program is started first, and the run is claimed when it runs.
    StartBeforeClaim,
    /// The exec is started first, and its ID is recorded when it runs.
    StartBeforeExecRecorded,
    /// An owner that has been silent for long is taken for dead, though it may only have been paused.
    ClockLease,
    /// The same, and a daemon that has lost its lease goes on: no nonce in the UPDATE.
    ClockLeaseUnfenced,
    /// Recovery makes a new exec where the recorded one never started.
    NewExecInRecovery,
    /// Recovery takes the engine's exit code of a program that nobody watched for the outcome.
    BelievedExitCode,
    /// A refused start is taken for proof that nothing will start, though an earlier request for the same exec, of a
    /// dead daemon or without an answer, may still be under way.
    RefusalSettlesEarlierRequests,
}

impl Protocol {
    /// The protocol with so many daemons (3 at most) and so many tries of a program that fails to start.
    pub fn new(daemons: usize, tries: u8) -> Self {
        Self {
            daemons: daemons.min(world::MAX_DAEMONS),
            tries,
            peace: false,
            sorted: false,
            mutant: None,
            code: Code::new(),
        }
    }

    /// Takes states that differ only in the numbers of daemons for one. In a trace a daemon's number then is its place
    /// at that moment.
    #[must_use]
    pub fn sorted(self) -> Self {
        Self { sorted: true, ..self }
    }

    /// Also checks that every state leads to an end when nothing more goes wrong. Costs a few times as much.
    #[must_use]
    pub fn with_peace(self) -> Self {
        Self { peace: true, ..self }
    }

    /// The same with a mutation.
    #[must_use]
    pub fn mutated(self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self }
    }
}
