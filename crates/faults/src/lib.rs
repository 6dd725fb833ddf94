//! Named points at which a test can make a process fail.
//!
//! In builds without debug assertions there are none. In others the variable `ONCELET_FAULT` chooses one:
//!
//! | `ONCELET_FAULT` | at the n-th pass (the first by default) |
//! |---|---|
//! | `claimed:kill[:n]` | the process is killed with SIGKILL |
//! | `claimed:pause[:n]` | it is stopped with SIGSTOP, and goes on after SIGCONT |
//! | `claimed:error[:n]` | whoever gets there gives up, as if its task had been dropped |
//! | `claimed:full[:n]` | the disk of the file `ONCELET_FAULT_FILLER` is filled up by that file |
//!
//! The name of the point is appended to the file `ONCELET_FAULT_LOG` before anything else happens.

/// The points, each with what is durable when it is passed.
pub const POINTS: &[(&str, &str)] = &[
    ("claimed", "the claim"),
    ("exec-created", "the claim; the engine has an exec that the store does not know"),
    ("exec-recorded", "the claim and the exec's ID; nothing was started"),
    ("start-asked", "the same; the start was asked for and not answered"),
    (
        "stdin-part",
        "the claim and the exec's ID; a part of what the program is to read is being fetched, nothing was started",
    ),
    ("started", "the claim in the container; the program runs, and the store does not know"),
    ("start-recorded", "that the program runs"),
    ("output", "that the program runs; some output is in memory"),
    ("ended", "the end in the container; not in the store"),
    ("logs-written", "the end in the container and the logs; not the outcome"),
    ("finished", "the outcome; the container still has the logs, and status does not know"),
    ("status-written", "everything"),
    ("taken-over", "the claim of a dead daemon's run by this one"),
    ("container-renamed", "everything; the container that is to be made anew has another name"),
    ("container-created", "the same; the new container is there and was not started"),
    ("container-stopped", "the same; the old container is stopped"),
    ("container-started", "the same; the new container runs, and both are there"),
    ("store-begun", "what was committed before; a transaction has begun"),
    ("store-written", "what was committed before; a transaction is written and not committed"),
    ("store-committed", "the change; whoever asked for it does not know"),
];

#[cfg(debug_assertions)]
mod active;

/// Passes a point. True where whoever passes it is to give up there.
#[cfg(debug_assertions)]
pub fn gives_up(point: &str) -> bool {
    active::gives_up(point)
}

/// Passes a point. True where whoever passes it is to give up there: never, in this build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn gives_up(_point: &str) -> bool {
    false
}
