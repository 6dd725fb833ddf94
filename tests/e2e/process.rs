//! The `oncelet` binary under test; what else deals with processes is shared with the other suites.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use oncelet_tests::process::{Process, eventually, output};

/// The `oncelet` binary beside this test's own.
pub(crate) fn oncelet_path() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().and_then(Path::parent).unwrap().join("oncelet")
}

/// Brings the binary up to date: `cargo test` of this crate alone does not. That of the whole workspace does, and says so.
pub(crate) fn build_oncelet() {
    if std::env::var_os("ONCELET_TEST_IS_BUILT").is_some() {
        return;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "oncelet"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "oncelet does not build");
}
