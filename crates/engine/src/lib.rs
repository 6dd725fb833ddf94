//! Docker and Podman, through the Docker-compatible API that both serve.
//!
//! [`Engine`] is a cheap handle; everything it returns is in this crate's own types. The crate knows nothing of
//! Kubernetes or of the run store, and has no policy: it reports what the engine says, and where the engine is known
//! to say something false it reports that the truth is not known ([`ExecEnd::Lost`]).
//!
//! # Flow
//!
//! [`Engine::create_exec`] → (the caller stores the [`ExecId`]) → [`Engine::start_exec`] → [`RunningExec::next`] until
//! [`ExecEvent::Ended`].
//!
//! # Guarantees
//!
//! - One exec ID runs at most once: both engines refuse a second start, and [`Engine::start_exec`] refuses it as
//!   [`Error::AlreadyStarted`].
//! - The engine's own error text is never delivered as the program's output (see [`ExecEnd::FailedToStart`]).
//! - An exit code is reported only after the stream ended cleanly and the engine named a code for it.
//! - Memory per run is bounded, whatever the program prints.
//! - Ordinary calls end after 30 seconds (creating and stopping: 2 minutes) as [`Error::Unreachable`]; a run and an
//!   event stream may last for ever.
//!
//! # Caveats
//!
//! - What a program does after its starter has gone is not observable: dropping a [`RunningExec`] does not end the
//!   program, and nobody can attach to it again.
//! - A reader that stops reading blocks the program, and may lose the last bytes: see [`RunningExec::output_may_be_incomplete`].
//! - The HTTP client logs request bodies, and with them environment values, at level DEBUG under the target `bollard`.
//!   Whoever installs a log subscriber must keep that target off.

mod container;
mod endpoint;
mod engine;
mod error;
mod events;
mod exec;
mod follow;
mod image;
mod in_use;
mod inspect;
mod limits;
mod pace;
mod patience;
mod pulse;
mod remote;
mod shared;
mod start_failure;
mod starts;
pub mod supervise;
mod wire;
mod words;

pub use container::{
    Container, ContainerId, ContainerState, Health, Healthcheck, InvalidContainerId, Mount, MountKind, NetworkRequest,
    NewContainer, Port, PortRequest, Protocol, RestartPolicy,
};
pub use endpoint::Endpoint;
pub use engine::{Engine, Info, Product};
pub use error::{Error, ErrorKind};
pub use events::{ContainerAction, EngineEvent};
pub use exec::{ExecEnd, ExecEvent, ExecId, ExecState, FailureReason, LostReason, NewExec, OutputStream, RunningExec};
pub use image::Progress;
pub use patience::Patience;
