//! Asking for a run with `oncelet exec`: again, and taking it back.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::people::{oncelet, oncelet_command};
use crate::docker::Container;
use crate::process::eventually;
use crate::world::{World, sh};

/// A command of oncelet's that goes on.
struct Client {
    process: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Client {
    fn spawn(world: &World, name: &str, command: &[&str], program: &[&str]) -> Self {
        let [stdout, stderr] = ["out", "err"].map(|kind| world.dir.path().join(format!("client-{name}.{kind}")));
        let mut oncelet = oncelet_command(world, command, program);
        oncelet.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap()).stdin(Stdio::null());
        Self { process: oncelet.spawn().unwrap(), stdout, stderr }
    }

    fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    fn says(&self, text: &str) {
        eventually(&format!("the client says {text:?}"), || self.stderr().contains(text).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end: exit code, stdout and stderr.
    fn outcome(mut self) -> (i32, String, String) {
        let status = eventually("the client has ended", || self.process.try_wait().unwrap());
        (status.code().unwrap(), self.stdout(), self.stderr())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn execs(world: &World) -> String {
    world.kubectl(&["get", "cexec", "-o", "name"]).unwrap()
}

/// The only exec there is.
fn only_exec(world: &World) -> String {
    let names = execs(world);
    assert_eq!(names.lines().count(), 1, "{names}");
    names.trim().split_once('/').unwrap().1.to_owned()
}

pub(crate) fn a_start_that_failed_is_tried_again_for_whoever_asks(world: &mut World) {
    world.start();
    let db = world.container("db");
    let ask = |world: &World| oncelet(world, &["exec", &db.name], &["/data/tool"]);
    for _ in 0..2 {
        let (code, _, stderr) = ask(world);
        assert!(code == 127 && stderr.contains("/data/tool"), "{code}: {stderr}");
        // Nobody waits for it any more, so it must not be started by itself.
        assert_eq!(execs(world), "");
    }
    db.install("/data/tool", "#!/bin/sh\necho run >> /data/runs.log; echo out; exit 3\n");
    let (code, stdout, stderr) = ask(world);
    assert_eq!((code, stdout.as_str()), (3, "out\n"), "{stderr}");
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
}

/// How often the latest run of `name` was tried.
fn attempts(world: &World, name: &str) -> u64 {
    let shown = world.oncelet(&["runs", "show", &format!("{}/{name}", world.namespace), "-o", "json"]);
    shown.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok()?["attempt"].as_u64()).unwrap_or_default()
}

/// An object that stays, with a pause that grows.
pub(crate) fn a_failed_start_is_not_repeated_to_whoever_asks_next(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("job", &db, &json!({"command": "/data/job"}));
    // The next try is 8 seconds away then.
    let before = eventually("it was tried four times, and in vain", || {
        let shown = world.oncelet(&["runs", "show", &format!("{}/job", world.namespace), "-o", "json"]).ok()?;
        let shown: Value = serde_json::from_str(&shown).ok()?;
        let has_failed = !shown["state"]["finishedAt"].is_null() && world.status("job")["state"] == "FailedToStart";
        shown["attempt"].as_u64().filter(|tries| *tries >= 4 && has_failed)
    });
    let ask = |world: &World| oncelet(world, &["exec", "--name", "job", &db.name], &["/data/job"]);
    let (code, _, stderr) = ask(world);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("an earlier start failed") && stderr.contains("was not made by oncelet exec"), "{stderr}");
    assert_eq!(attempts(world, "job"), before + 1, "it was tried for this request, and once");
    db.install("/data/job", "#!/bin/sh\necho out; exit 3\n");
    let (code, stdout, stderr) = ask(world);
    assert_eq!((code, stdout.as_str()), (3, "out\n"), "{stderr}");
}

/// A container that is there and does not run.
fn stopped(world: &World, name: &str) -> Container {
    let container = world.container(name);
    container.stop();
    container
}

pub(crate) fn ctrl_c_before_the_start_withdraws_the_request(world: &mut World) {
    world.start();
    let db = stopped(world, "db");
    for (signal, wanted) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let program = ["/bin/sh", "-c", "echo run >> /data/runs.log"];
        let client = Client::spawn(world, &format!("{wanted}"), &["exec", &db.name], &program);
        client.says("has stopped");
        client.signal(signal);
        let (code, _, stderr) = client.outcome();
        assert_eq!(code, wanted, "{stderr}");
        assert!(stderr.contains("withdrawn") && stderr.contains("was not started"), "{stderr}");
        assert_eq!(execs(world), "");
    }
    // What somebody else has declared is not taken away.
    world.apply_exec("theirs", &db, &json!({"command": "/bin/true"}));
    let client = Client::spawn(world, "theirs", &["exec", "--name", "theirs", &db.name], &["/bin/true"]);
    client.says("has stopped");
    client.signal(Signal::INT);
    let (code, _, stderr) = client.outcome();
    assert!(code == 130 && stderr.contains("was not made by oncelet exec"), "{stderr}");
    assert_eq!(only_exec(world), "theirs");
    db.start();
    world.completed("theirs");
    assert!(db.lines("/data/runs.log").is_empty());
}

pub(crate) fn ctrl_c_after_the_start_says_how_to_go_on_watching(world: &mut World) {
    world.start();
    let db = world.container("db");
    let program = "echo begun; while [ ! -e /data/go ]; do sleep 0.05; done; echo end; exit 4";
    let client = Client::spawn(world, "first", &["exec", &db.name], &["/bin/sh", "-c", program]);
    eventually("it has begun", || (client.stdout() == "begun\n").then_some(()));
    let name = only_exec(world);
    let run = world.status(&name)["runId"].to_string();
    client.signal(Signal::INT);
    let (code, _, stderr) = client.outcome();
    assert_eq!(code, 130, "{stderr}");
    for part in ["the program continues", &format!("oncelet logs {run} -f"), &format!("oncelet wait {name}")] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    db.sh("touch /data/go").unwrap();
    let (code, stdout, _) = oncelet(world, &["wait", &name], &[]);
    assert_eq!((code, stdout.as_str()), (4, "begun\nend\n"));
}

pub(crate) fn a_request_is_withdrawn_after_its_timeout(world: &mut World) {
    world.start();
    let db = stopped(world, "db");
    let program = ["/bin/sh", "-c", "echo run >> /data/runs.log"];
    let (code, _, stderr) = oncelet(world, &["exec", "--timeout", "2s", &db.name], &program);
    assert_eq!(code, 125, "{stderr}");
    assert!(stderr.contains("has stopped") && stderr.contains("after 2s") && stderr.contains("withdrawn"), "{stderr}");
    assert_eq!(execs(world), "");
    let (code, _, stderr) = oncelet(world, &["exec", "--timeout", "soon", &db.name], &program);
    assert!(code == 2 && stderr.contains("30s"), "{stderr}");
    db.start();
    assert!(db.lines("/data/runs.log").is_empty());

    // A wait that ends changes nothing.
    world.apply_exec("long", &db, &sh("while [ ! -e /data/go ]; do sleep 0.05; done; exit 5"));
    let (code, _, stderr) = oncelet(world, &["wait", "long", "--timeout", "1s"], &[]);
    assert!(code == 125 && stderr.contains("after 1s"), "{stderr}");
    db.sh("touch /data/go").unwrap();
    assert_eq!(oncelet(world, &["wait", "long", "--timeout", "60s"], &[]).0, 5);
    // What has started in time may take longer than that.
    let slow = ["/bin/sh", "-c", "sleep 12; exit 6"];
    let (code, _, stderr) = oncelet(world, &["exec", "--timeout", "10s", &db.name], &slow);
    assert_eq!(code, 6, "{stderr}");
}

/// Objects of `oncelet up` are gone after a restart, and its address is another one.
pub(crate) fn a_waiting_client_outlives_the_daemon(world: &mut World) {
    world.start();
    let db = world.container("db");
    let program = "echo run >> /data/runs.log; echo begun; echo trouble >&2; \
                   while [ ! -e /data/go ]; do sleep 0.05; done; echo end; exit 7";
    let client = Client::spawn(world, "runs", &["exec", &db.name], &["/bin/sh", "-c", program]);
    eventually("it has begun", || (client.stdout() == "begun\n").then_some(()));
    let other = stopped(world, "other");
    let waits = Client::spawn(world, "waits", &["exec", &other.name], &["/bin/sh", "-c", "echo there; exit 8"]);
    waits.says("has stopped");
    for _ in 0..2 {
        world.kill();
        world.start();
    }
    db.sh("touch /data/go").unwrap();
    other.start();
    let (code, stdout, stderr) = client.outcome();
    assert_eq!((code, stdout.as_str()), (7, "begun\nend\n"), "{stderr}");
    assert_eq!(stderr.matches("trouble\n").count(), 1, "{stderr}");
    assert!(!stderr.contains("it ran before"), "it was this client's: {stderr}");
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
    let (code, stdout, stderr) = waits.outcome();
    assert_eq!((code, stdout.as_str()), (8, "there\n"), "{stderr}");
}

pub(crate) fn what_another_client_withdraws_is_asked_for_again(world: &mut World) {
    world.start();
    let db = stopped(world, "db");
    let program = ["/bin/sh", "-c", "echo run >> /data/runs.log; echo out; exit 3"];
    let [one, two] = ["one", "two"].map(|name| Client::spawn(world, name, &["exec", &db.name], &program));
    one.says("has stopped");
    two.says("has stopped");
    one.signal(Signal::INT);
    assert_eq!(one.outcome().0, 130);
    two.says("asked for again");
    db.start();
    let (code, stdout, stderr) = two.outcome();
    assert_eq!((code, stdout.as_str()), (3, "out\n"), "{stderr}");
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
    // With kubectl, under somebody who only looks on.
    db.stop();
    world.apply_exec("job", &db, &sh("true"));
    let waits = Client::spawn(world, "waits", &["wait", "job"], &[]);
    waits.says("has stopped");
    world.delete("job");
    let (code, _, stderr) = waits.outcome();
    assert!(code == 1 && stderr.contains("ContainerExec job was deleted"), "{stderr}");
}

pub(crate) fn an_answer_from_memory_says_so(world: &mut World) {
    world.start();
    let db = world.container("db");
    let script = "echo run >> /data/runs.log; while [ ! -e /data/go ]; do sleep 0.05; done; echo out";
    let program = ["/bin/sh", "-c", script];
    let first = Client::spawn(world, "first", &["exec", &db.name], &program);
    let name = eventually("it runs", || {
        let names = execs(world);
        let name = names.trim().split_once('/')?.1;
        (world.status(name)["state"] == "Running").then(|| name.to_owned())
    });
    let second = Client::spawn(world, "second", &["exec", &db.name], &program);
    second.says("it runs already; nothing was started");
    db.sh("touch /data/go").unwrap();
    for client in [first, second] {
        let (code, stdout, stderr) = client.outcome();
        assert_eq!((code, stdout.as_str()), (0, "out\n"), "{stderr}");
        assert!(!stderr.contains("ran before"), "{stderr}");
    }
    let status = world.status(&name);
    let [from, to] = ["startupTimestamp", "finishTimestamp"]
        .map(|time| status[time].as_str().unwrap().split('T').nth(1).unwrap()[..5].to_owned());
    for _ in 0..2 {
        let (code, stdout, stderr) = oncelet(world, &["exec", &db.name], &program);
        assert_eq!((code, stdout.as_str()), (0, "out\n"), "{stderr}");
        assert!(stderr.contains("it ran before, from ") && stderr.contains("; nothing was started"), "{stderr}");
        assert!(stderr.contains(&from) && stderr.contains(&to), "{from} or {to} is not in {stderr}");
        // The second time for a new object.
        world.kubectl(&["delete", "cexec", "--all"]).unwrap();
    }
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
}
