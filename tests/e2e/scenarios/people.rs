//! The commands that take a run as if its program was started here.

use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::process::{eventually, oncelet_path, output};
use crate::world::{World, exec_manifest, sh};

/// `oncelet COMMAND` in the scenario's namespace, with what follows a `--` at its end.
pub(crate) fn oncelet(world: &World, command: &[&str], program: &[&str]) -> (i32, String, String) {
    outcome(oncelet_command(world, command, program).output().unwrap())
}

pub(crate) fn oncelet_command(world: &World, command: &[&str], program: &[&str]) -> Command {
    let mut oncelet = world.oncelet_command();
    oncelet.args(command).args(["--namespace", &world.namespace]);
    if !program.is_empty() {
        oncelet.arg("--").args(program);
    }
    oncelet.stdin(Stdio::null());
    oncelet
}

/// Exit code, stdout and stderr.
pub(crate) fn outcome(output: Output) -> (i32, String, String) {
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

pub(crate) fn exec_runs_a_program_once_and_ends_as_it_did(world: &mut World) {
    world.start();
    let db = world.container("db");
    let script = "echo out $(pwd) $COLOUR; echo err >&2; echo run >> /data/runs.log; exit 3";
    let command = ["exec", "--env", "COLOUR=blue", "--workdir", "/data", &db.name];
    let program = ["/bin/sh", "-c", script];
    let (code, stdout, stderr) = oncelet(world, &command, &program);
    assert_eq!((code, stdout.as_str()), (3, "out /data blue\n"), "{stderr}");
    assert!(stderr.contains("err\n"), "{stderr}");
    let (code, stdout, stderr) = oncelet(world, &command, &program);
    assert_eq!((code, stdout.as_str()), (3, "out /data blue\n"), "{stderr}");
    // Its object is a new one only where somebody has deleted it.
    world.kubectl(&["delete", "cexec", "--all"]).unwrap();
    let (code, stdout, stderr) = oncelet(world, &command, &program);
    assert_eq!((code, stdout.as_str()), (3, "out /data blue\n"), "{stderr}");
    assert!(stderr.contains("it ran before") && stderr.contains("nothing was started"), "{stderr}");
    assert_eq!(db.lines("/data/runs.log"), ["run"]);

    let (code, _, stderr) = oncelet(world, &["exec", &db.name], &["/bin/no-such-program"]);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("no-such-program"), "{stderr}");
    let (code, _, stderr) = oncelet(world, &["exec", &db.name], &["/etc/passwd"]);
    assert!(code == 126 && stderr.contains("/etc/passwd"), "{stderr}");
    let named = ["exec", "--name", "mine", &db.name];
    assert_eq!(oncelet(world, &named, &["/bin/true"]).0, 0);
    let (code, _, stderr) = oncelet(world, &named, &["/bin/false"]);
    assert!(code == 1 && stderr.contains("another program"), "{stderr}");
}

pub(crate) fn wait_and_rerun_follow_a_run_to_its_end(world: &mut World) {
    world.start();
    let db = world.container("db");
    let job = sh("echo begun; while [ ! -e /data/go ]; do sleep 0.1; done; echo run >> /data/runs.log; exit 4");
    world.apply_exec("job", &db, &job);
    let mut command = world.oncelet_command();
    command.args(["wait", "job", "--namespace", &world.namespace]).stdout(Stdio::piped());
    let waiting = command.spawn().unwrap();
    world.wait("job", "Started");
    db.sh("touch /data/go").unwrap();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(4), &b"begun\n"[..]));
    // However late it comes.
    assert_eq!(oncelet(world, &["wait", "job"], &[]).0, 4);
    let (code, stdout, stderr) = oncelet(world, &["rerun", "job", "--wait"], &[]);
    assert_eq!((code, stdout.as_str()), (4, "begun\n"), "{stderr}");
    assert_eq!(db.lines("/data/runs.log").len(), 2);
    let (code, _, stderr) = oncelet(world, &["wait", "missing"], &[]);
    assert!(code == 1 && stderr.contains("missing"), "{stderr}");
}

pub(crate) fn explain_tells_why_and_what_differs(world: &mut World) {
    world.start();
    let db = world.container("db");
    let told = |world: &World| {
        let (code, stdout, stderr) = oncelet(world, &["explain", "seed"], &[]);
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    world.run("seed", &db, &sh("echo one"));
    let text = told(world);
    for part in
        ["ran for this object", "exit code 0", &db.id()[..12], "What is declared now is what ran", "oncelet rerun seed"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    world.delete("seed");
    world.run("seed", &db, &sh("echo two"));
    let text = told(world);
    for part in ["was not started", "restored", "not what ran", "args", r#"["-c","echo one"]"#, r#"["-c","echo two"]"#]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    world.delete("seed");
    let mut never = json!({"command": "/bin/true"});
    never["dependsOn"] = json!(["other"]);
    world.apply(&exec_manifest("seed", &db, &never)).unwrap();
    world.delete("seed");
    db.remove();
    world.apply(&exec_manifest("seed", &db, &never)).unwrap();
    world.condition("cexec", "seed", "ContainerReady", "False", "ContainerNotFound");
    let text = told(world);
    assert!(text.contains("seed has not run") && text.contains(&db.name), "{text}");
}

/// `kubectl once …` is oncelet under another name.
pub(crate) fn kubectl_finds_oncelet_as_a_plugin(world: &mut World) {
    let plugins = world.dir.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::os::unix::fs::symlink(oncelet_path(), plugins.join("kubectl-once")).unwrap();
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo seeded"));
    let mut kubectl = Command::new(std::env::var_os("ONCELET_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into()));
    kubectl.env("PATH", format!("{}:{}", plugins.display(), std::env::var("PATH").unwrap()));
    kubectl.env("ONCELET_DATA_DIR", world.data_dir());
    let shown = output(kubectl.args(["once", "logs", "seed"])).unwrap();
    assert_eq!(shown, "seeded\n");
}

pub(crate) fn describe_reads_like_a_story(world: &mut World) {
    world.start();
    let db = world.container("db");
    let tells = |world: &World, name: &str, parts: &[&str]| {
        eventually(&format!("kubectl describe tells {parts:?}"), || {
            let text = world.kubectl(&["describe", "cexec", name]).unwrap();
            parts.iter().all(|part| text.contains(part)).then_some(())
        });
    };
    world.run("seed", &db, &sh("echo one"));
    let run = world.status("seed")["runId"].to_string();
    let claimed = format!("run {run} in container {} is this object's to start", db.name);
    tells(world, "seed", &["Claimed", &claimed, "Finished", "exit code 0"]);
    world.delete("seed");
    world.run("seed", &db, &sh("echo two"));
    tells(world, "seed", &["Restored", "before, until 20", "nothing was started", "SpecDrifted", "another args"]);
    let mut stopped = sh("echo three");
    stopped["stop"] = true.into();
    world.apply_exec("stopped", &db, &stopped);
    tells(world, "stopped", &["Skipped", "its end is asked for already"]);
}

/// On a terminal, which script(1) makes: what is waited for, and never in the middle of a line of the program's.
pub(crate) fn a_terminal_shows_how_far_a_run_is(world: &mut World) {
    world.start();
    let db = world.container("db");
    let program = "echo begun; printf par; while [ ! -e /data/go ]; do sleep 0.1; done; echo tial; sleep 1";
    let oncelet = format!(
        "stty rows 40 cols 100; {} exec --namespace {} {} -- /bin/sh -c '{program}'",
        oncelet_path().display(),
        world.namespace,
        db.name
    );
    let told = world.dir.path().join("terminal");
    let mut script = Command::new("script");
    let usual = world.oncelet_command();
    script.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // A terminal that can take a line away; what is around this test may have none at all.
    script.env("TERM", "xterm");
    let mut running =
        script.args(["-qefc", &oncelet]).arg(&told).stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    let shown = || String::from_utf8_lossy(&std::fs::read(&told).unwrap_or_default()).into_owned();
    eventually("the line is taken away for the half of a line", || shown().ends_with("par").then_some(()));
    db.sh("touch /data/go").unwrap();
    assert!(running.wait().unwrap().success(), "{}", shown());
    let shown = shown();
    assert!(shown.contains("partial\r\n"), "{shown}");
    assert!(shown.contains("s, 14 B written"), "{shown}");
}
