//! What people see.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{World, sh};

pub(crate) fn runs_and_logs_are_there_for_people_and_for_programs(world: &mut World) {
    world.start();
    let db = world.container("db");
    let status = world.run("seed", &db, &sh("echo out; echo err >&2; exit 4"));

    let table = world.oncelet(&["runs", "list"]).unwrap();
    let row = table.lines().find(|line| line.contains("/seed")).unwrap();
    assert!(table.starts_with("RUN ") && row.contains("Finished") && row.contains(&db.name), "{table}");
    let wide = world.oncelet(&["runs", "list", "-o", "wide"]).unwrap();
    let row = wide.lines().find(|line| line.contains("/seed")).unwrap();
    assert!(row.contains(&db.id()) && row.contains("echo out; echo err >&2; exit 4"), "{wide}");
    let list: Value = serde_json::from_str(&world.oncelet(&["runs", "list", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(list[0]["id"], status["runId"]);

    let shown = world.oncelet(&["runs", "show", "seed"]).unwrap();
    assert!(shown.contains("Exit code:   4") && shown.contains(&db.id()), "{shown}");
    let yaml = world.oncelet(&["runs", "show", "seed", "-o", "yaml"]).unwrap();
    assert!(yaml.contains("exitCode: 4") && yaml.contains("containerId: "), "{yaml}");

    for (args, wanted) in [
        (&["logs", "seed"][..], "out\n"),
        (&["logs", "seed", "--stdout"], "out\n"),
        (&["logs", "seed", "--stderr"], "err\n"),
        (&["logs", &status["runId"].to_string()], "out\n"),
    ] {
        assert_eq!(world.oncelet(args).unwrap(), wanted, "{args:?}");
    }
    let error = world.oncelet(&["logs", "nobody"]).unwrap_err();
    assert!(error.contains("no run of \"nobody\" is recorded"), "{error}");

    let elsewhere = world.dir.path().join("elsewhere");
    let error = world.oncelet(&["runs", "list", "--data-dir", elsewhere.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("elsewhere") && !elsewhere.exists(), "a reader makes no store: {error}");
}

pub(crate) fn logs_follow_a_program_that_runs(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("long", &db, &sh("echo first; while [ ! -e /data/go ]; do sleep 0.1; done; echo last"));
    world.wait("long", "Started");
    let mut command = world.oncelet_command();
    let mut follow = command.args(["logs", "long", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    // It comes while the program runs, which waits for us.
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    db.sh("touch /data/go").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "last");
    assert!(lines.next().is_none(), "it ends with the program");
    assert!(follow.wait().unwrap().success());
}

pub(crate) fn the_log_endpoint_streams_what_is_asked_for(world: &mut World) {
    world.start();
    let db = world.container("db");
    let path = format!("/apis/oncelet.dev/v1alpha1/namespaces/{}/containerexecs/job/log", world.namespace);
    let log = |query: &str| world.kubectl(&["get", "--raw", &format!("{path}{query}")]);
    let missing = log("").unwrap_err();
    assert!(missing.contains("NotFound") && missing.contains("job"), "{missing}");

    world.apply_exec(
        "job",
        &db,
        &sh("seq 1 5; echo oops >&2; while [ ! -e /data/go ]; do sleep 0.05; done; echo last"),
    );
    world.wait("job", "Started");
    let mut command = world.kubectl_command();
    let command = command.args(["get", "--raw", &format!("{path}?follow=true&skip=3")]);
    let mut follow = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["4", "5"]);
    db.sh("touch /data/go").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "last");
    assert!(lines.next().is_none(), "it ends with the program");
    assert!(follow.wait().unwrap().success());

    world.completed("job");
    for (query, wanted) in [
        ("", "1\n2\n3\n4\n5\nlast\n"),
        ("?source=stderr", "oops\n"),
        ("?tail=2", "5\nlast\n"),
        ("?skip=1&limit=2", "2\n3\n"),
        ("?limit=0", ""),
    ] {
        assert_eq!(log(query).unwrap(), wanted, "{query}");
    }
    // Both ways to ask for times give the same ones, from the moment of each line.
    let stamped = log("?timestamps=true&skip=4").unwrap();
    assert_eq!(
        world.oncelet(&["logs", "job", "--stdout", "--timestamps"]).unwrap().lines().skip(4).collect::<Vec<_>>(),
        stamped.lines().collect::<Vec<_>>()
    );
    let stamped: Vec<_> = stamped.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let [(five, "5"), (last, "last")] = stamped[..] else { panic!("{stamped:?}") };
    let status = world.status("job");
    let (started, finished) =
        (status["startupTimestamp"].as_str().unwrap(), status["finishTimestamp"].as_str().unwrap());
    assert!(started < five && five < last && five < finished, "{started} {five} {last} {finished}");
    for (query, wanted) in
        [("?source=both", "stdout or stderr"), ("?tail=many", "number of lines"), ("?lines=3", "no parameter")]
    {
        let refused = log(query).unwrap_err();
        assert!(refused.contains(wanted), "{query}: {refused}");
    }
    let resources = world.kubectl(&["get", "--raw", "/apis/oncelet.dev/v1alpha1"]).unwrap();
    assert!(resources.contains("containerexecs/log"), "{resources}");
}

pub(crate) fn kubectl_tells_the_story(world: &mut World) {
    world.start();
    let db = world.container("db");
    // Watched from before it is there.
    let mut command = world.kubectl_command();
    let mut watch = command.args(["get", "cexec", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    world.apply_exec("seed", &db, &sh("echo seeded; exit 3"));
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let finished = lines.map(Result::unwrap).find(|line| line.contains("Finished")).unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    let cells: Vec<_> = finished.split_whitespace().collect();
    assert_eq!(cells[..5], ["seed", &db.name, "Finished", "3", "false"], "{finished}");

    let table = world.kubectl(&["get", "cexec"]).unwrap();
    let heading: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["NAME", "CONTAINER", "STATE", "EXIT", "RESTORED", "DURATION", "AGE"]);

    // However late the wait comes.
    world.wait("seed", "Complete");
    world.kubectl(&["wait", "cexec/seed", "--for=condition=Succeeded=False", "--timeout=30s"]).unwrap();
    let described = world.kubectl(&["describe", "cexec", "seed"]).unwrap();
    for text in ["Exit Code:", "seeded", "Finished", "exit code 3"] {
        assert!(described.contains(text), "{text:?} is not in\n{described}");
    }
    world.delete("seed");
    let gone = world.kubectl(&["get", "cexec", "seed"]).unwrap_err();
    assert!(gone.contains("NotFound"), "{gone}");
}

pub(crate) fn a_log_limit_keeps_the_beginning_and_counts_the_rest(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo 0123456789; echo the end");
    spec["logLimitBytes"] = 4.into();
    let stdout = world.run("limited", &db, &spec)["stdout"].clone();
    assert_eq!((&stdout["bytes"], &stdout["truncated"]), (&19.into(), &true.into()));
    assert!(stdout["tail"].as_str().unwrap().ends_with("the end\n"), "{stdout}");
    // The end is kept besides, and nothing is missing between.
    assert_eq!(world.oncelet(&["logs", "limited", "--stdout"]).unwrap(), "0123456789\nthe end\n");
    assert_eq!(stdout["missingBytes"], serde_json::Value::Null);

    spec["args"] = sh("yes 0123456789 | head -n 2000; echo the end")["args"].clone();
    let stdout = world.run("longer", &db, &spec)["stdout"].clone();
    assert_eq!((&stdout["bytes"], &stdout["missingBytes"]), (&22_008.into(), &(22_008 - 4 - 8192).into()), "{stdout}");
    let log = world.oncelet(&["logs", "longer", "--stdout"]).unwrap();
    let (head, tail) = log.split_once("\n[oncelet: 13812 bytes are missing here").unwrap();
    assert!(head == "0123" && tail.ends_with("0123456789\nthe end\n"), "{log}");
    let shown = world.oncelet(&["runs", "show", "longer"]).unwrap();
    assert!(shown.contains("22008 bytes, 13812 of them not kept"), "{shown}");
}

pub(crate) fn the_daemon_ends_well_on_both_signals(world: &mut World) {
    for signal in [Signal::INT, Signal::TERM] {
        world.start();
        let db = world.container("db");
        world.run("seed", &db, &sh("echo seeded"));
        let status = world.end(signal);
        assert!(status.success(), "{status} after {signal:?}");
    }
}

pub(crate) fn the_printed_crds_are_taken_by_kubectl(world: &mut World) {
    world.start();
    let crds = world.oncelet(&["crds"]).unwrap();
    let applied = world.apply(&crds).unwrap();
    assert_eq!(applied.matches("customresourcedefinition.apiextensions.k8s.io/").count(), 2, "{applied}");
}

pub(crate) fn the_daemon_keeps_its_files_to_itself(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo seeded"));
    let mut folders = vec![world.data_dir()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let wanted = if entry.path().is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, wanted, "{} is {mode:o}", entry.path().display());
            seen += 1;
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(seen > 3, "only {seen} files were looked at");
}

pub(crate) fn a_forgotten_run_runs_again_and_leaves_nothing_in_the_container(world: &mut World) {
    world.start();
    let db = world.container("db");
    let seed = sh("echo seeded >> /data/seed.log");
    world.run("seed", &db, &seed);
    world.delete("seed");
    let gates = || db.sh(&format!("ls -A /.oncelet/{}", db.id())).unwrap();
    assert!(!gates().is_empty());
    db.stop();
    let refused = world.oncelet(&["runs", "forget", "seed"]).unwrap_err();
    assert!(refused.contains("has to run to forget it"), "{refused}");
    db.start();
    let forgotten = world.oncelet(&["runs", "forget", "seed"]).unwrap();
    assert!(forgotten.contains("is forgotten"), "{forgotten}");
    assert_eq!(gates(), "");
    assert_eq!(world.run("seed", &db, &seed)["restored"], false);
    assert_eq!(db.lines("/data/seed.log").len(), 2);
}

pub(crate) fn a_person_says_how_an_unknown_run_ended(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo started >> /data/starts; while [ ! -e /data/go ]; do sleep 0.05; done");
    spec["capture"] = "Attached".into();
    world.apply_exec("job", &db, &spec);
    world.wait("job", "Started");
    world.kill();
    db.sh("touch /data/go").unwrap();
    world.start();
    world.apply_exec("job", &db, &spec);
    assert_eq!(world.completed("job")["state"], "Unknown");
    let marked = world.oncelet(&["runs", "mark", "job", "--exit-code", "0"]).unwrap();
    assert!(marked.contains("finished with exit code 0"), "{marked}");
    let refused = world.oncelet(&["runs", "mark", "job", "--exit-code", "1"]).unwrap_err();
    assert!(refused.contains("Finished"), "{refused}");
    world.delete("job");
    let status = world.run("job", &db, &spec);
    assert_eq!(
        (&status["state"], &status["exitCode"], &status["restored"]),
        (&"Finished".into(), &0.into(), &true.into())
    );
    assert!(world.oncelet(&["runs", "show", "job"]).unwrap().contains("by a person"));
    assert_eq!(db.lines("/data/starts"), ["started"]);
}

pub(crate) fn garbage_collection_keeps_what_is_not_gone_for_an_hour(world: &mut World) {
    world.start();
    let (here, gone) = (world.container("here"), world.container("gone"));
    world.run("one", &here, &sh("true"));
    world.run("two", &gone, &sh("true"));
    gone.remove();
    let list: serde_json::Value = serde_json::from_str(&world.oncelet(&["runs", "gc", "-o", "json"]).unwrap()).unwrap();
    assert!(
        list[1].is_object()
            && list.as_array().unwrap().iter().all(|one| one["fate"].is_string() && one["runs"].is_u64()),
        "{list}"
    );
    let table = world.oncelet(&["runs", "gc"]).unwrap();
    let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(row(&here.name).contains("the container is there"), "{table}");
    assert!(row(&gone.name).contains("not for an hour yet"), "{table}");
    assert!(world.oncelet(&["runs", "show", "two"]).is_ok());
}

/// `oncelet up --persist`: an object is not created again after a restart, and its program runs no second time for that.
pub(crate) fn kept_objects_are_there_after_a_kill(world: &mut World) {
    world.daemon_args = vec!["--persist".into()];
    world.start();
    let db = world.container("db");
    let first = world.run("seed", &db, &sh("echo seeded >> /data/seed.log; echo out"));
    let slow = sh("sleep 3; echo late >> /data/seed.log; exit 4");
    world.apply_exec("slow", &db, &slow);
    world.wait("slow", "Started");
    let uid = world.object("cexec", "slow")["metadata"]["uid"].clone();
    world.kill();
    world.start();
    assert_eq!(world.status("seed"), first, "not looked at again, and not started again");
    assert_eq!(world.completed("slow")["exitCode"], 4);
    assert_eq!(world.object("cexec", "slow")["metadata"]["uid"], uid);
    assert_eq!(db.lines("/data/seed.log"), ["seeded", "late"]);
    // Without the flag the next one starts with none.
    world.stop();
    world.daemon_args.clear();
    world.start();
    assert_eq!(world.kubectl(&["get", "cexec", "-o", "name"]).unwrap(), "");
}
