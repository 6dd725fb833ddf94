//! The end-to-end suite: real kubectl, real engines, and each scenario three times: with the embedded API server of
//! `oncelet up`, with a real kube-apiserver and `oncelet controller`, and with Podman instead of Docker. The scenarios of
//! `tests/attacks` are a part of it: what an attacker would try.
//!
//! A part that cannot run here says so loudly, and is counted as ignored, never as passed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../attacks/mod.rs"]
mod attacks;
mod browser;
mod docker;
mod process;
mod scenarios;
mod world;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use oncelet_tests::kube_apiserver::KubeApiserver;
use scenarios::Scenario;
use world::{Server, World};

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // They mostly wait, and those with a real kube-apiserver for each other.
    args.test_threads = args.test_threads.or(Some(4));
    if args.list {
        let trials = scenarios::all().flat_map(|scenario| trials_of(scenario, None, true)).collect();
        return libtest_mimic::run(&args, trials).exit_code();
    }
    process::build_oncelet();

    let engine_problem = docker::problem();
    if let Some(problem) = &engine_problem {
        skipped("every end-to-end scenario", problem);
    }
    // Only what runs is started: a filter for the embedded half needs no kube-apiserver.
    let half_of = |name| args.filter.as_deref().is_some_and(|filter| filter.starts_with(name));
    let wants_real = !half_of("embedded") && !half_of("podman");
    let podman_problem = (podman().is_none() && !half_of("embedded") && !half_of("kube-apiserver"))
        .then(|| "ONCELET_TEST_PODMAN is not set to the address of one (hack/podman.sh starts one)".to_owned());
    if let Some(problem) = &podman_problem {
        skipped("the half with Podman", problem);
    }
    let real =
        if engine_problem.is_none() && wants_real { KubeApiserver::start() } else { Err("not asked for".into()) };
    let (real, real_problem) = match real {
        Ok(server) => (Some(Arc::new(server)), None),
        Err(problem) => (None, Some(problem)),
    };
    if let (None, true, Some(problem)) = (&engine_problem, wants_real, &real_problem) {
        skipped("the half against a real kube-apiserver", problem);
    }

    let trials =
        scenarios::all().flat_map(|scenario| trials_of(scenario, real.as_ref(), engine_problem.is_none())).collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if let Some(problem) = engine_problem.or(real_problem.filter(|_| wants_real)).or(podman_problem) {
        skipped("a part of this suite", &problem);
    }
    conclusion.exit_code()
}

fn skipped(what: &str, why: &str) {
    eprintln!("\n*** SKIPPED: {what}\n*** because {why}\n");
}

/// One scenario as three trials: with both API servers, and with Podman; or as fewer, where it is about one of them.
fn trials_of(scenario: &Scenario, real: Option<&Arc<KubeApiserver>>, has_engine: bool) -> Vec<Trial> {
    /// Two controllers with two stores on one cluster would both run an object: one scenario at a time there.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let Scenario { name, run } = *scenario;
    let has_image = |host: Option<&str>| {
        let missing = scenario.image().filter(|image| has_engine && !docker::has_image(host, image));
        if let Some(image) = missing {
            skipped(
                name,
                &format!(
                    "there is no image {image} in the engine (hack/postgres-image.sh and hack/mariadb-image.sh make them)"
                ),
            );
        }
        missing.is_none()
    };
    let no_browser = scenario.needs_browser().then(browser::problem).flatten();
    if let Some(problem) = no_browser.as_ref().filter(|_| has_engine) {
        skipped(name, problem);
    }
    let has_engine = has_engine && no_browser.is_none();
    let here = has_engine && has_image(None) && (!scenario.needs_podman() || podman().is_some());
    let mut trials = vec![
        Trial::test(format!("embedded::{name}"), move || guarded(run, Server::Embedded, None)).with_ignored_flag(!here),
    ];
    if !scenario.is_about_docker() {
        let podman = podman();
        let missing = podman.as_deref().is_none_or(|host| !has_image(Some(host)));
        let trial = Trial::test(format!("podman::{name}"), move || guarded(run, Server::Embedded, podman));
        trials.push(trial.with_ignored_flag(missing));
    }
    if !scenario.is_about_embedded() {
        let real = real.cloned();
        let missing = real.is_none() || !here;
        let trial = Trial::test(format!("kube-apiserver::{name}"), move || {
            let Some(real) = real else { return Err(Failed::without_message()) };
            let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            guarded(run, Server::Real(real), None)
        });
        trials.push(trial.with_ignored_flag(missing));
    }
    trials
}

/// The address of the Podman to test with.
fn podman() -> Option<String> {
    std::env::var("ONCELET_TEST_PODMAN").ok().filter(|url| !url.is_empty())
}

/// Runs a scenario; where it fails, what the daemon logged is shown with it.
fn guarded(run: fn(&mut World), server: Server, engine: Option<String>) -> Result<(), Failed> {
    // Threads are used again.
    docker::use_host(engine.clone());
    let mut world = World::with_engine(server, engine);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut world)));
    result.map_err(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        Failed::from(format!("{message}\n--- the daemon's log ---\n{}", world.daemon_log()))
    })
}
