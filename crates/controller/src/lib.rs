//! The controller: watch → observe → decide → act → publish.
//!
//! [`exec`] holds the way of one `ContainerExec` on one screen, [`container`] that of a `Container`. Policy is in
//! `oncelet_core`; this crate asks the world, carries out what was decided, and says what came of it.

mod act;
mod collect;
mod container;
mod context;
mod convert;
mod depends;
mod echo;
mod end;
mod engines;
mod events;
mod exec;
mod finalizer;
#[cfg(test)]
mod flaps;
mod follow;
mod gate;
mod health;
mod index;
mod inputs;
mod launch;
mod lives;
mod names;
mod namespaces;
mod objects;
mod observe;
mod policy;
mod ports;
mod progress;
mod publish;
mod recover;
mod retention;
mod runs;
mod status;
mod steps;
mod story;
mod uploads;
mod watch;
mod work;

pub use collect::{Collected, Fate, collect};
pub use container::remove_sessions;
pub use convert::{program, run_names};
pub use engines::Session;
pub use gate::StoreGate;
pub use namespaces::{Watched, watch as watch_objects};
pub use policy::{Access, Checked, check_container, check_exec};
pub use progress::Progress;
pub use steps::{Step, Steps};
pub use watch::{Config, Error, run};
