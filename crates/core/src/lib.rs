//! The run state machine and the decision what to do about one `ContainerExec`.
//!
//! Everything here is pure: no async, no clock, no I/O. The controller gathers an [`Observed`], calls
//! [`decide`], and carries out the one [`Decision`] it gets; policy lives nowhere else.
//!
//! ```text
//!             claim              create exec            start exec             exit seen
//!  (no row) ────────▶ Claimed ────────────▶ Starting ────────────▶ Running ────────────▶ Finished
//!                        │                     │  │                   ├────────────────▶ Interrupted
//!                        │                     │  └───────────────────┴────────────────▶ Unknown
//!                        │                     └────────▶ FailedToStart ─(claim again)─▶ Claimed
//!                        └─(released: provably never started, the row goes away)
//! ```

mod decide;
pub mod dotenv;
mod key;
pub mod policy;
mod port;
mod program;
mod recovery;
mod resolve;
mod run;
mod spec;
mod supervised;

pub use decide::{Blocked, Decision, Inputs, Memory, Observed, Ownership, Reason, decide};
pub use key::{InvalidName, RunKey, RunName};
pub use port::{SeenPort, WantedPort, port_ready};
pub use program::{EnvVar, Fingerprint, Program, Stdin, StdinDigest, ValueSource};
pub use recovery::{ExecHint, Verdict, judge};
pub use resolve::{Effective, Input, MissingInput, Resolved, SecretHash, Shown, ShownStdin, Sources, resolve};
pub use run::{Capture, DEFAULT_LOG_LIMIT, EndedBy, IllegalEvent, Outcome, RunEvent, RunId, RunRecord, RunState};
pub use spec::{ExecSpec, OnChange, RunPolicy, Scope};
pub use supervised::{Description, Finding, Gate, Life, Witnessed, abandoned, examine};
