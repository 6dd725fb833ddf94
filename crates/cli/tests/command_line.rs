//! What the command line says, without a daemon.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn oncelet(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncelet")).args(args).env_remove("DOCKER_HOST").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_flag_of_the_daemons_can_come_from_the_environment() {
    for (command, flags) in [
        ("up", &["data-dir", "kubeconfig", "listen", "engine", "log-format"][..]),
        ("controller", &["data-dir", "kubeconfig", "engine", "log-format"]),
    ] {
        let help = text(&oncelet(&[command, "--help"]).stdout);
        for flag in flags {
            let variable = format!("[env: ONCELET_{}", flag.replace('-', "_").to_uppercase());
            assert!(help.contains(&format!("--{flag} ")) && help.contains(&variable), "{command} --{flag}: {help}");
        }
    }
}

#[test]
fn the_printed_crds_are_those_of_the_repository() {
    let printed = text(&oncelet(&["crds"]).stdout);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    for file in ["containerexecs.oncelet.dev.yaml", "containers.oncelet.dev.yaml"] {
        let yaml = std::fs::read_to_string(folder.join(file)).unwrap();
        let document =
            yaml.lines().filter(|line| !line.starts_with('#') && *line != "---").collect::<Vec<_>>().join("\n");
        assert!(printed.contains(&document), "{file} is not what oncelet crds prints");
    }
}

#[test]
fn a_store_that_is_not_there_is_named_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("none");
    let output = oncelet(&["runs", "list", "--data-dir", data_dir.to_str().unwrap()]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains(data_dir.to_str().unwrap()), "{error}");
    assert!(!data_dir.exists());
}

#[test]
fn an_engine_that_cannot_be_used_is_refused_before_anything_starts() {
    let output = oncelet(&["up", "--engine", "ftp://elsewhere"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("unknown scheme"), "{error}");
}

/// What is missing is told with what to do, and what is not needed is no problem.
#[test]
fn the_doctor_says_what_is_missing_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}/none.sock", dir.path().display());
    let data_dir = dir.path().join("data");
    let doctor = |more: &[&str]| {
        let args = [&["doctor", "--engine", &socket, "--data-dir", data_dir.to_str().unwrap()], more].concat();
        let output = oncelet(&args);
        assert!(!output.status.success());
        (text(&output.stdout), text(&output.stderr))
    };
    let (told, error) = doctor(&[]);
    assert!(told.contains("PROBLEM") && told.contains(&socket) && told.contains("DOCKER_HOST"), "{told}");
    assert!(told.contains("not made yet"), "{told}");
    assert!(error.contains("problem"), "{error}");
    let (told, _) = doctor(&["-o", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(findings[0]["about"], "oncelet");
    assert!(!data_dir.exists(), "it only looks");
}
