//! Builds the supervisor, which this crate carries: a static program for the containers of this machine.

// A build script has nobody to report to.
#![allow(clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let embedded = out.join("supervisor");
    let target = variable("TARGET");
    let shim = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../shim");
    for input in ["src", "Cargo.toml", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", shim.join(input).display());
    }
    if target.ends_with("-linux-gnu") {
        build(&shim, &target, &out.join("target"));
        let built = out.join("target").join(&target).join("shim/oncelet-shim");
        // Never into the file that is there: it may have other names, in other working trees.
        let _ = fs::remove_file(&embedded);
        fs::copy(&built, &embedded).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    } else {
        // Containers are Linux. Whoever builds elsewhere runs everything attached, and status says so.
        fs::write(&embedded, []).unwrap_or_else(|error| panic!("{}: {error}", embedded.display()));
    }
}

fn build(shim: &Path, target: &str, target_dir: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--quiet", "--bin", "oncelet-shim", "--profile", "shim", "--target", target])
        .arg("--manifest-path")
        .arg(shim.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        // What the outer build is wrapped in, clippy above all, is not for this one.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    assert!(status.success(), "the supervisor does not build: {cargo:?}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
