//! Habits: what people type after `docker exec`, given to `docker exec` and to `oncelet exec` side by side, each in a container of
//! its own. The exit code, stdout and stderr must be the same, or differ as the row says, and why.
//!
//! A row is added in `table.rs`. A difference that is gone fails, too: then the row is to say [`row::Expect::Same`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../e2e/docker.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod docker;
#[path = "../e2e/process.rs"]
mod process;
mod row;
mod table;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use row::Pair;
use world::{Server, World};

/// Rows whose right value is in the table and that are known to fail.
const PENDING: &[&str] = &[];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // They mostly wait.
    args.test_threads = args.test_threads.or(Some(4));
    let rows = table::rows();
    for (number, row) in rows.iter().enumerate() {
        assert!(rows[..number].iter().all(|other| other.name != row.name), "two rows are called {}", row.name);
    }
    for name in PENDING {
        assert!(rows.iter().any(|row| row.name == *name), "no row is called {name}");
    }
    if args.list {
        let trials = rows.into_iter().map(|row| Trial::test(row.name, || Ok(()))).collect();
        return libtest_mimic::run(&args, trials).exit_code();
    }
    let problem = docker::problem();
    let (mut world, mut pairs) = (None, None);
    if let Some(problem) = &problem {
        eprintln!("\n*** SKIPPED: the comparison with docker exec\n*** because {problem}\n");
    } else {
        process::build_oncelet();
        let mut begun = World::new(Server::Embedded);
        begun.start();
        pairs = Some(Arc::new(Pair::all(&begun)));
        world = Some(Arc::new(begun));
    }
    let trials = rows.into_iter().map(|row| {
        let ignored = problem.is_some() || PENDING.contains(&row.name);
        let (world, pairs) = (world.clone(), pairs.clone());
        Trial::test(row.name, move || row.check(&world.unwrap(), &pairs.unwrap())).with_ignored_flag(ignored)
    });
    let conclusion = libtest_mimic::run(&args, trials.collect());
    drop(pairs);
    drop(world);
    if !PENDING.is_empty() {
        eprintln!("\n*** PENDING: rows that are known to fail: {}\n", PENDING.join(", "));
    }
    conclusion.exit_code()
}
