//! What the command line says, without a daemon.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

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

/// Colours are for eyes: on a terminal, where `NO_COLOR` does not ask for none; never in what another program reads.
#[test]
fn failures_are_coloured_on_a_terminal_alone() {
    let on_terminal = |line: &str, no_color: Option<&str>| {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        script.env_remove("NO_COLOR").env_remove("CLICOLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
        script.output()
    };
    if !on_terminal("true", None).is_ok_and(|output| output.status.success()) {
        eprintln!("\n*** SKIPPED: colours on a terminal\n*** because script(1) makes none here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["doctor", "--engine", "unix:///nowhere.sock", "--data-dir", dir.path().to_str().unwrap()];
    let line = format!("{} {}", env!("CARGO_BIN_EXE_oncelet"), arguments.join(" "));
    let coloured = text(&on_terminal(&line, None).unwrap().stdout);
    assert!(coloured.contains("PROBLEM") && coloured.contains("\u{1b}[31m"), "{coloured}");
    assert!(coloured.lines().any(|line| line.contains("oncelet") && !line.contains('\u{1b}')), "{coloured}");
    let plain = text(&on_terminal(&line, Some("1")).unwrap().stdout);
    assert!(plain.contains("PROBLEM") && !plain.contains('\u{1b}'), "{plain}");
    let piped = oncelet(&arguments);
    assert!(!text(&[piped.stdout, piped.stderr].concat()).contains('\u{1b}'));
}
