//! Torture: real kills, pauses, full disks and lost engines against a real engine, and an oracle that counts.
//!
//! The oracle is a file in the container to which each program appends a line when it starts. It is compared with the status
//! of the object and with the store: at most one line for each run key, exactly one where the status says that it ran, and the
//! program's own exit code and all of its output.
//!
//! `ONCELET_TORTURE=long` runs all of it, anything else a sample; `ONCELET_TORTURE_SEED` repeats the random part. The figures
//! are written into docs/reliability.md by the long form, and into target/torture.md by both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../e2e/docker.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod docker;
mod engine;
mod figures;
mod oracle;
mod points;
#[path = "../e2e/process.rs"]
mod process;
mod random;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod world;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use oncelet_tests::kube_apiserver::KubeApiserver;
use world::{Server, World};

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Quick,
    Long,
}

/// What every trial needs.
#[derive(Clone)]
pub(crate) struct Setup {
    size: Size,
    real: Option<Arc<KubeApiserver>>,
}

impl Setup {
    /// The server whose objects outlive the daemon, where there is one; the embedded one's are applied again.
    pub(crate) fn lasting(&self) -> Server {
        self.real.clone().map_or(Server::Embedded, Server::Real)
    }
}

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // They mostly wait.
    args.test_threads = args.test_threads.or(Some(4));
    let size = if std::env::var("ONCELET_TORTURE").as_deref() == Ok("long") { Size::Long } else { Size::Quick };
    let mut problem = None;
    let mut real = None;
    if !args.list {
        process::build_oncelet();
        problem = docker::problem();
        if let Some(problem) = &problem {
            skipped("all of the torture", problem);
        } else {
            match KubeApiserver::start() {
                Ok(server) => real = Some(Arc::new(server)),
                Err(why) => skipped("the torture against a real kube-apiserver; the embedded one takes its part", &why),
            }
        }
    }
    let setup = Setup { size, real };
    let trials = points::trials(&setup)
        .into_iter()
        .chain(random::trials(&setup))
        .chain(engine::trials(&setup))
        .map(|trial| trial.with_ignored_flag(problem.is_some()))
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list && problem.is_none() && !conclusion.has_failed() {
        figures::write(size);
    }
    conclusion.exit_code()
}

pub(crate) fn skipped(what: &str, why: &str) {
    eprintln!("\n*** SKIPPED: {what}\n*** because {why}\n");
}

/// One trial in a world of its own; where it fails, what the daemon logged is shown with it.
pub(crate) fn trial(name: String, server: Server, run: impl FnOnce(&mut World) + Send + 'static) -> Trial {
    /// Two controllers with two stores on one cluster would both run an object: one trial at a time there.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    Trial::test(name, move || {
        let _turn =
            matches!(server, Server::Real(_)).then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
        let mut world = World::new(server);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut world)));
        docker::use_host(None);
        result.map_err(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_default();
            let log = world.daemon_log();
            let last: Vec<_> = log.lines().rev().take(60).collect();
            let last: Vec<_> = last.into_iter().rev().map(|line| line.chars().take(400).collect::<String>()).collect();
            Failed::from(format!("{message}\n--- the end of the daemon's log ---\n{}", last.join("\n")))
        })
    })
}
