//! The embedded API server beside a real kube-apiserver: each scenario's requests and kubectl commands go to both, and
//! the answers must be the same but for what differs from one run to the next.
//!
//! Differences that stay are in `differences.yaml`, each with its reason. One that no longer shows up fails the suite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod allowed;
mod compare;
mod normalise;
mod scenario;
mod side;

use std::process::ExitCode;
use std::sync::Arc;

use allowed::Allowed;
use libtest_mimic::{Arguments, Failed, Trial};
use oncelet_tests::kube_apiserver::KubeApiserver;
use scenario::Scenario;
use serde_json::Value;
use side::{Embedded, Side};

/// What every trial needs.
struct Both {
    embedded: Side,
    real: Side,
    allowed: Allowed,
}

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let scenarios = scenario::all();
    if args.list {
        let trials = scenarios.into_iter().map(|one| Trial::test(one.name, || Ok(()))).collect();
        return libtest_mimic::run(&args, trials).exit_code();
    }
    let apiserver = match KubeApiserver::start() {
        Ok(apiserver) => apiserver,
        Err(problem) => {
            let skipped = || eprintln!("\n*** SKIPPED: the differential suite\n*** because {problem}\n");
            skipped();
            let ignored = |one: Scenario| Trial::test(one.name, || Ok(())).with_ignored_flag(true);
            let conclusion = libtest_mimic::run(&args, scenarios.into_iter().map(ignored).collect());
            skipped();
            return conclusion.exit_code();
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Embedded::start(&runtime);
    let both = Arc::new(Both {
        embedded: Side::new(&runtime, server.kubeconfig()),
        real: Side::new(&runtime, apiserver.kubeconfig().to_owned()),
        allowed: Allowed::read(),
    });
    both.in_parallel(Side::install_widgets);
    let trials = scenarios.into_iter().map(|scenario| {
        let both = Arc::clone(&both);
        Trial::test(scenario.name.clone(), move || both.run(&scenario))
    });
    let conclusion = libtest_mimic::run(&args, trials.collect());
    let all_ran = args.filter.is_none() && args.skip.is_empty() && !conclusion.has_failed();
    let stale = if all_ran { both.allowed.stale() } else { Vec::new() };
    for pattern in &stale {
        eprintln!("differences.yaml lists a difference that no longer shows up: {pattern}");
    }
    if stale.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

impl Both {
    /// The same on both sides at once; the embedded one's result first.
    fn in_parallel<T: Send>(&self, work: impl Fn(&Side) -> T + Sync) -> [T; 2] {
        std::thread::scope(|scope| {
            let embedded = scope.spawn(|| work(&self.embedded));
            let real = work(&self.real);
            [embedded.join().unwrap(), real]
        })
    }

    fn run(&self, scenario: &Scenario) -> Result<(), Failed> {
        let [embedded, real] = self.in_parallel(|side| scenario.run(side));
        let mut report = Vec::new();
        for ((step, embedded), real) in scenario.steps.iter().zip(embedded).zip(real) {
            let mut found = compare::differences(&embedded, &real);
            found.retain(|one| !self.allowed.covers(&format!("{} | {} | {}", scenario.name, step.title(), one.path)));
            if !found.is_empty() {
                report.push(format!("\n{}\n", step.title()));
            }
            report.extend(found.iter().map(ToString::to_string));
        }
        if report.is_empty() { Ok(()) } else { Err(Failed::from(report.concat())) }
    }
}

/// What one side said to one step, as one document.
type Answer = Value;
