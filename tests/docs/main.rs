//! The documentation, run: each page as one session of a shell, command for command, its output compared.
//!
//! - A block of `yaml` whose first line is `# NAME.yaml` becomes that file.
//! - In a block of `console`, `$ ` begins a command, `> ` goes on with it, and what follows is what it prints; `…` stands for
//!   anything in a line, and alone in a line for any lines. `(exit code N)` at its end is how it ends, else with 0.
//! - `text` and `json` blocks are of other tools, and are not run.
//!
//! A page has a home of its own. What it cannot have here is pulled images: where the engine has none of these names, ours
//! stand in for them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod page;
mod shell;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use page::{Page, Step};
use shell::Shell;

/// What pages ask for, and what stands in for it (hack/test-image.sh, hack/postgres-image.sh).
const IMAGES: [(&str, &str); 2] = [("busybox:1", "oncelet-demo/busybox:1"), ("postgres:17", "oncelet-demo/postgres:1")];

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let pages: Vec<PathBuf> = pages();
    if args.list {
        let trials = pages.iter().map(|path| Trial::test(name(path), || Ok(()))).collect();
        return libtest_mimic::run(&args, trials).exit_code();
    }
    let problem = problem();
    if let Some(problem) = &problem {
        eprintln!("\n*** SKIPPED: the commands in the documentation\n*** because {problem}\n");
    } else {
        build_oncelet();
    }
    let borrowed = if problem.is_none() { borrow_images() } else { Vec::new() };
    let trials = pages
        .into_iter()
        .map(|path| Trial::test(name(&path), move || run(&path)).with_ignored_flag(problem.is_some()))
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    for image in borrowed {
        docker(&["rmi", "--no-prune", image]);
    }
    conclusion.exit_code()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The pages that have commands.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("docs/tutorial.md")];
    pages.extend(std::fs::read_dir(root().join("docs/how-to")).unwrap().map(|entry| entry.unwrap().path()));
    pages.sort();
    pages
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn docker(args: &[&str]) -> bool {
    Command::new("docker").args(args).output().is_ok_and(|output| output.status.success())
}

fn problem() -> Option<String> {
    if !docker(&["info"]) {
        return Some("no engine answers to the docker command (hack/ensure-engine.sh gets one)".to_owned());
    }
    let missing = IMAGES.iter().find(|(wanted, ours)| ![wanted, ours].iter().any(|name| has_image(name)));
    missing.map(|(wanted, ours)| format!("the engine has neither {wanted} nor {ours}"))
}

fn has_image(name: &str) -> bool {
    docker(&["image", "inspect", name])
}

/// Names our images as the pages do, where nobody has such ones.
fn borrow_images() -> Vec<&'static str> {
    let missing = IMAGES.iter().filter(|(wanted, _)| !has_image(wanted));
    missing.filter(|(wanted, ours)| docker(&["tag", ours, wanted])).map(|(wanted, _)| *wanted).collect()
}

/// `cargo test` of this crate alone does not bring the binary up to date.
fn build_oncelet() {
    if std::env::var_os("ONCELET_TEST_IS_BUILT").is_none() {
        let status = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "oncelet"]).status();
        assert!(status.unwrap().success(), "oncelet cannot be built");
    }
}

fn run(path: &Path) -> Result<(), Failed> {
    /// Pages make containers of the same names.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let page = Page::parse(&std::fs::read_to_string(path).unwrap())?;
    let mut shell = Shell::start();
    let result = page.steps.iter().try_for_each(|step| match step {
        Step::File { name, content } => {
            std::fs::write(shell.home().join(name), content).unwrap();
            Ok(())
        }
        Step::Command { line, command, expected } => {
            shell.run(command, expected).map_err(|problem| Failed::from(format!("line {line}: {command}\n{problem}")))
        }
    });
    shell.end();
    if result.is_err() {
        // What the page would have removed at its end.
        for container in page.containers() {
            docker(&["rm", "-f", &container]);
        }
    }
    result
}
