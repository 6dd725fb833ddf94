//! What a supervisor in the container makes possible: no outcome is lost, and a program can be ended.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::docker::{Container, docker};
use crate::process::eventually;
use crate::world::{World, five_things, sh};

/// Appends a line for its start, prints a line, waits for the file `/data/go`, prints another and exits with 5.
const WAITS: &str = "echo started >> /data/starts; echo before; echo oops >&2; \
                     while [ ! -e /data/go ]; do sleep 0.05; done; echo after; exit 5";

fn started(container: &Container) {
    eventually("the program has started", || (!container.lines("/data/starts").is_empty()).then_some(()));
}

fn ended_well(status: &Value, container: &Container) {
    assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &5.into()), "{status:#}");
    assert_eq!(status["capture"], "Supervised");
    assert_eq!(status["stdout"]["tail"], "before\nafter\n", "{status:#}");
    assert_eq!(status["stderr"]["tail"], "oops\n");
    assert_eq!(container.lines("/data/starts"), ["started"]);
}

pub(crate) fn a_killed_daemon_follows_its_program_again(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("job", &db, &sh(WAITS));
    started(&db);
    world.kill();
    world.start();
    world.apply_exec("job", &db, &sh(WAITS));
    world.wait("job", "Started");
    db.sh("touch /data/go").unwrap();
    let status = world.completed("job");
    ended_well(&status, &db);
    assert_eq!(world.oncelet(&["logs", "job", "--stdout"]).unwrap(), "before\nafter\n");
}

pub(crate) fn a_program_that_ends_while_no_daemon_lives_keeps_its_outcome(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("job", &db, &sh(WAITS));
    started(&db);
    world.kill();
    db.sh("touch /data/go").unwrap();
    eventually("its supervisor has recorded the end", || {
        (!db.sh("ls /.oncelet/*/*/exit.json").unwrap_or_default().is_empty()).then_some(())
    });
    // Not even the container has to run.
    db.stop();
    world.start();
    world.apply_exec("job", &db, &sh(WAITS));
    let status = world.completed("job");
    db.start();
    ended_well(&status, &db);
}

pub(crate) fn a_lost_store_starts_nothing_twice_and_is_filled_again(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo started >> /data/starts; echo \"$GREETING\"; exit 5");
    spec["env"] = json!([{"name": "GREETING", "value": "hello"}]);
    let before = world.run("job", &db, &spec);
    world.delete("job");
    world.stop();
    std::fs::remove_dir_all(world.data_dir().join("store")).unwrap();
    world.start();
    let after = world.run("job", &db, &spec);
    assert_eq!(db.lines("/data/starts"), ["started"]);
    assert_eq!(after["restored"], true, "{after:#}");
    for field in ["exitCode", "startupTimestamp", "finishTimestamp", "effectiveEnv", "effectiveArgs", "state"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // With another program, too: what ran is what counts.
    world.delete("job");
    spec["args"][1] = "echo started >> /data/starts; exit 6".into();
    let kept = world.run("job", &db, &spec);
    assert_eq!((&kept["exitCode"], &kept["effectiveArgs"]), (&5.into(), &before["effectiveArgs"]));
}

pub(crate) fn nothing_but_the_record_stays_in_the_container(world: &mut World) {
    world.start();
    let db = world.container("db");
    let before = docker(&["diff", &db.name]).unwrap();
    world.run("job", &db, &sh("echo out; echo err >&2"));
    eventually("the logs are gone from the container", || {
        let files = db.sh(&format!("ls -A /.oncelet/{}", db.id())).unwrap();
        (files.lines().count() == 1).then_some(())
    });
    let changed = docker(&["diff", &db.name]).unwrap();
    let ours = |line: &&str| line.contains("/.oncelet") || before.lines().any(|it| it == *line);
    let strange: Vec<_> = changed.lines().filter(|line| !ours(line)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

pub(crate) fn another_daemon_takes_over_when_the_owner_dies(world: &mut World) {
    world.start();
    let second = world.start_second();
    let db = world.container("db");
    world.apply_exec("job", &db, &sh(WAITS));
    started(&db);
    if world.is_embedded() {
        second.apply_exec("job", &db, &sh(WAITS));
    }
    second.wait("job", "Started");
    world.kill();
    db.sh("touch /data/go").unwrap();
    ended_well(&second.completed("job"), &db);
}

pub(crate) fn a_paused_owner_that_wakes_up_does_no_harm(world: &mut World) {
    world.start();
    let second = world.start_second();
    let db = world.container("db");
    world.apply_exec("job", &db, &sh(WAITS));
    started(&db);
    world.wait("job", "Started");
    let owner = Pid::from_raw(world.daemon_pid()).unwrap();
    kill_process(owner, Signal::STOP).unwrap();
    if world.is_embedded() {
        second.apply_exec("job", &db, &sh(WAITS));
    }
    // It lives: its run is mirrored, not taken, whatever becomes of the program.
    assert_eq!(second.wait("job", "Started")["state"], "Running");
    db.sh("touch /data/go").unwrap();
    eventually("the end is recorded in the container", || {
        (!db.sh("ls /.oncelet/*/*/exit.json").unwrap_or_default().is_empty()).then_some(())
    });
    kill_process(owner, Signal::CONT).unwrap();
    let (one, two) = (world.completed("job"), second.completed("job"));
    ended_well(&one, &db);
    assert_eq!(five_things(&one), five_things(&two));
}

pub(crate) fn stop_ends_a_program_and_its_children(world: &mut World) {
    world.start();
    let db = world.container("db");
    // A child in a session of its own that ignores SIGTERM.
    let script = "echo started >> /data/starts; setsid sh -c 'trap \"\" TERM; sleep 7777' & sleep 7778";
    let mut spec = sh(script);
    spec["stopGracePeriodSeconds"] = 1.into();
    world.apply_exec("job", &db, &spec);
    started(&db);
    world.wait("job", "Started");
    world.kubectl(&["patch", "cexec", "job", "--type=merge", "-p", r#"{"spec":{"stop":true}}"#]).unwrap();
    let status = world.completed("job");
    assert_eq!((&status["state"], &status["exitCode"]), (&"Interrupted".into(), &143.into()), "{status:#}");
    let message = world.condition("cexec", "job", "Succeeded", "False", "Stopped");
    assert!(message.contains("spec.stop"), "{message}");
    // Its supervisor names the program in its arguments, and may not have ended yet.
    let left = db.sh("ps | grep -v /.oncelet/").unwrap();
    assert!(!left.contains("sleep 7777") && !left.contains("sleep 7778"), "{left}");
    // It counts as run.
    world.delete("job");
    spec["stop"] = false.into();
    assert_eq!(world.run("job", &db, &spec)["restored"], true);
    assert_eq!(db.lines("/data/starts"), ["started"]);
}

pub(crate) fn what_is_to_be_stopped_is_not_started(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo started >> /data/starts");
    spec["stop"] = true.into();
    world.apply_exec("job", &db, &spec);
    world.condition("cexec", "job", "Started", "False", "StopRequested");
    world.kubectl(&["patch", "cexec", "job", "--type=merge", "-p", r#"{"spec":{"stop":false}}"#]).unwrap();
    assert_eq!(world.completed("job")["exitCode"], 0);
    assert_eq!(db.lines("/data/starts"), ["started"]);
}

pub(crate) fn a_timeout_ends_a_program_even_without_a_daemon(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo started >> /data/starts; trap '' TERM; while true; do sleep 0.1; done");
    spec["timeoutSeconds"] = 2.into();
    spec["stopGracePeriodSeconds"] = 1.into();
    world.apply_exec("job", &db, &spec);
    started(&db);
    world.kill();
    eventually("its supervisor has recorded the end", || {
        (!db.sh("ls /.oncelet/*/*/exit.json").unwrap_or_default().is_empty()).then_some(())
    });
    world.start();
    world.apply_exec("job", &db, &spec);
    let status = world.completed("job");
    // It did not listen to SIGTERM.
    assert_eq!((&status["state"], &status["exitCode"]), (&"Interrupted".into(), &137.into()), "{status:#}");
    let message = world.condition("cexec", "job", "Succeeded", "False", "DeadlineExceeded");
    assert!(message.contains("timeoutSeconds"), "{message}");
}

pub(crate) fn on_delete_kill_ends_the_program_before_the_object_goes(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo started >> /data/starts; sleep 7777");
    spec["onDelete"] = "Kill".into();
    world.apply_exec("job", &db, &spec);
    started(&db);
    // Waits for the finalizer.
    world.delete("job");
    // Its supervisor names the program in its arguments, and may not have ended yet.
    let left = db.sh("ps | grep -v /.oncelet/").unwrap();
    assert!(!left.contains("sleep 7777"), "{left}");
    let again = world.run("job", &db, &spec);
    assert_eq!((&again["restored"], &again["state"]), (&true.into(), &"Interrupted".into()), "{again:#}");
    world.condition("cexec", "job", "Succeeded", "False", "Deleted");
    world.delete("job");
    assert_eq!(db.lines("/data/starts"), ["started"]);
}

pub(crate) fn a_container_that_ends_interrupts_what_runs_in_it(world: &mut World) {
    world.start();
    let interrupted = |world: &World, name: &str, end: fn(&Container)| {
        let container = world.container(name);
        world.apply_exec(name, &container, &sh("echo started >> /data/starts; echo before; sleep 1000"));
        started(&container);
        world.wait(name, "Started");
        end(&container);
        let status = eventually(&format!("{name} is over"), || {
            let status = world.status(name);
            (status["state"] != "Running").then_some(status)
        });
        assert_eq!(status["state"], "Interrupted", "{status:#}");
        assert!(status["exitCode"] == Value::Null || status["exitCode"] == 137, "a false exit code: {status:#}");
        assert_eq!(status["stdout"]["tail"], "before\n", "{status:#}");
        container
    };
    interrupted(world, "stopped", Container::stop);
    interrupted(world, "killed", |it| {
        docker(&["kill", &it.name]).unwrap();
    });
    let restarted = interrupted(world, "restarted", Container::restart);
    assert_eq!(restarted.lines("/data/starts"), ["started"]);
}

pub(crate) fn a_removed_container_interrupts_what_ran_in_it(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("job", &db, &sh("echo started >> /data/starts; sleep 1000"));
    started(&db);
    let run = world.wait("job", "Started")["runId"].to_string();
    db.remove();
    let shown = eventually("the store has its end", || {
        let shown = world.oncelet(&["runs", "show", &run]).unwrap();
        (!shown.contains("Running")).then_some(shown)
    });
    assert!(shown.contains("Interrupted"), "{shown}");
    // A removal stops the container first, and Podman lets everybody see that for a moment.
    let may_stop_first = docker(&["version"]).unwrap().contains("Podman");
    let says = |what: &str| shown.contains(&format!("the container {what} while the program ran"));
    assert!(says("was removed") || (may_stop_first && says("stopped")), "{shown}");
    // The object does not go on showing it as running, although its container is gone for good.
    let status = world.completed("job");
    assert_eq!(status["state"], "Interrupted", "{status:#}");
    world.condition("cexec", "job", "ContainerReady", "False", "ContainerNotFound");
}

pub(crate) fn a_pause_of_the_container_is_no_end(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("job", &db, &sh(WAITS));
    started(&db);
    world.wait("job", "Started");
    db.sh("touch /data/go-later").unwrap();
    docker(&["pause", &db.name]).unwrap();
    world.kill();
    world.start();
    world.apply_exec("job", &db, &sh(WAITS));
    world.condition("cexec", "job", "ContainerReady", "False", "ContainerNotRunning");
    docker(&["unpause", &db.name]).unwrap();
    db.sh("touch /data/go").unwrap();
    ended_well(&world.completed("job"), &db);
}

pub(crate) fn where_no_supervisor_can_be_the_status_says_why(world: &mut World) {
    world.start();
    let name = world.container_name("readonly");
    docker(&["run", "--detach", "--read-only", "--name", &name, crate::docker::IMAGE, "/bin/sleep", "1000000"])
        .unwrap();
    let db = Container::named(&name);
    let status = world.run("job", &db, &sh("echo ran"));
    assert_eq!((&status["capture"], &status["stdout"]["tail"]), (&"Attached".into(), &"ran\n".into()), "{status:#}");
    let reason = status["captureReason"].as_str().unwrap();
    assert!(reason.contains("read-only"), "{reason}");

    let mut spec = sh("echo ran");
    spec["capture"] = "Supervised".into();
    world.apply_exec("strict", &db, &spec);
    let message = world.condition("cexec", "strict", "Started", "False", "NotSupervisable");
    assert!(message.contains("read-only") && message.contains("spec.capture"), "{message}");
    let mut spec = sh("echo ran");
    spec["timeoutSeconds"] = 5.into();
    world.apply_exec("timed", &db, &spec);
    world.condition("cexec", "timed", "Started", "False", "NotSupervisable");
}

pub(crate) fn a_container_without_rights_is_supervised_like_any_other(world: &mut World) {
    world.start();
    let name = world.container_name("poor");
    let run =
        ["run", "--detach", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1234:77", "--name", &name];
    docker(&[&run[..], &[crate::docker::IMAGE, "/bin/sleep", "1000000"]].concat()).unwrap();
    let db = Container::named(&name);
    let spec = sh("id -u; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo after; exit 5");
    world.apply_exec("job", &db, &spec);
    world.wait("job", "Started");
    world.kill();
    world.start();
    world.apply_exec("job", &db, &spec);
    world.wait("job", "Started");
    db.sh("touch /tmp/go").unwrap();
    let status = world.completed("job");
    assert_eq!((&status["capture"], &status["exitCode"]), (&"Supervised".into(), &5.into()), "{status:#}");
    assert_eq!(status["stdout"]["tail"], "1234\nafter\n");
}

pub(crate) fn capture_attached_uses_no_supervisor(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo ran; exit 3");
    spec["capture"] = "Attached".into();
    let status = world.run("job", &db, &spec);
    assert_eq!((&status["capture"], &status["exitCode"]), (&"Attached".into(), &3.into()), "{status:#}");
    assert!(db.sh("ls /.oncelet").is_err(), "a supervisor was put into the container");
    spec["timeoutSeconds"] = 5.into();
    let rejected = world.apply(&crate::world::exec_manifest("timed", &db, &spec)).unwrap_err();
    assert!(rejected.contains("need a supervisor"), "{rejected}");
}
