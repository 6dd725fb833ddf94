//! Chores of the workspace: `cargo xtask crds [--check]`, `cargo xtask tidy`.

mod crds;
mod reference;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask crds            write crds/, docs/reference.md and deploy/admission-warnings.yaml from crates/api
       cargo xtask crds --check    fail where one of them differs from the types
       cargo xtask tidy            check the rules between the crates, and the sizes of files";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let (crds, reference) = (workspace_root().join("crds"), workspace_root().join("docs/reference.md"));
    let warnings = workspace_root().join("deploy/admission-warnings.yaml");
    match args {
        ["crds"] => {
            crds::write(&crds)?;
            crds::write_warnings(&warnings)?;
            reference::write(&reference)
        }
        ["crds", "--check"] => {
            crds::check(&crds)?;
            crds::check_warnings(&warnings)?;
            reference::check(&reference)
        }
        ["tidy"] => tidy::run(&workspace_root()),
        _ => bail!("{USAGE}"),
    }
}

fn workspace_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
