//! At most once, and never lost.

use std::process::Stdio;

use sha2::{Digest, Sha256};

use crate::process::eventually;
use crate::world::{World, exec_manifest, five_things, list, sh};

const SEED: &str = "echo seeded >> /data/seed.log; echo to-stdout; echo to-stderr >&2; exit 3";

pub(crate) fn a_program_runs_once_across_restarts_of_everything(world: &mut World) {
    world.start();
    let db = world.container("db");
    let first = world.run("seed", &db, &sh(SEED));
    assert_eq!(first["restored"], false);
    assert_eq!(first["exitCode"], 3);
    assert_eq!(first["stdout"]["tail"], "to-stdout\n");
    assert_eq!(first["stderr"]["tail"], "to-stderr\n");
    let first = five_things(&first);

    let again = |world: &World, what: &str| {
        let status = world.run("seed", &db, &sh(SEED));
        assert_eq!(status["restored"], true, "{what}");
        assert_eq!(five_things(&status), first, "{what}");
        assert_eq!(db.lines("/data/seed.log"), ["seeded"], "{what}");
    };

    world.delete("seed");
    again(world, "after the object was deleted");
    world.delete("seed");
    world.restart();
    again(world, "after oncelet was restarted");
    db.restart();
    world.delete("seed");
    again(world, "after the container was restarted");
}

pub(crate) fn a_recreated_container_gets_one_more_run(world: &mut World) {
    world.start();
    let db = world.container("db");
    let first = world.run("seed", &db, &sh(SEED));
    world.delete("seed");

    db.remove();
    db.create_again();
    let second = world.run("seed", &db, &sh(SEED));
    assert_eq!(second["restored"], false);
    assert_ne!(second["runId"], first["runId"]);
    assert_eq!(second["containerId"], db.id().as_str());
    world.delete("seed");
    assert_eq!(world.run("seed", &db, &sh(SEED))["restored"], true);
    assert_eq!(db.lines("/data/seed.log"), ["seeded"]);
}

pub(crate) fn a_recreated_container_gets_one_more_run_without_a_new_object(world: &mut World) {
    world.start();
    let db = world.container("db");
    let first = world.run("seed", &db, &sh(SEED));

    db.remove();
    world.condition("cexec", "seed", "ContainerReady", "False", "ContainerNotFound");
    assert_eq!(
        five_things(&world.status("seed")),
        five_things(&first),
        "the outcome stays while the container is away"
    );

    db.create_again();
    let second = eventually("the run in the new container is complete", || {
        let status = world.status("seed");
        (status["containerId"] == db.id().as_str() && status["state"] == "Finished").then_some(status)
    });
    assert_ne!(second["runId"], first["runId"]);
    assert_eq!(db.lines("/data/seed.log"), ["seeded"]);
}

pub(crate) fn a_kill_right_after_the_start_makes_no_second_run(world: &mut World) {
    world.start();
    let db = world.container("db");
    let long = sh("echo started >> /data/long.log; sleep 8; echo ended >> /data/long.log");
    world.apply_exec("long", &db, &long);
    eventually("the program has started", || (!db.lines("/data/long.log").is_empty()).then_some(()));
    world.kill();
    world.start();
    // A real cluster still has the object; the embedded server gets it again.
    world.apply_exec("long", &db, &long);
    let status = world.completed("long");
    assert!(["Finished", "Unknown"].contains(&status["state"].as_str().unwrap()), "{status:#}");
    assert_eq!(db.lines("/data/long.log"), ["started", "ended"]);
    world.delete("long");
    assert_eq!(world.run("long", &db, &long)["restored"], true);
    assert_eq!(db.lines("/data/long.log"), ["started", "ended"]);
}

pub(crate) fn a_kill_while_execs_pour_in_makes_no_second_run(world: &mut World) {
    world.start();
    let db = world.container("db");
    let names: Vec<_> = (0..24).map(|number| format!("job-{number}")).collect();
    let manifest =
        || list(names.iter().map(|name| exec_manifest(name, &db, &sh(&format!("echo {name} >> /data/jobs.log")))));
    world.apply(&manifest()).unwrap();
    for wanted in [3, 9, 15] {
        eventually("some have run", || (db.lines("/data/jobs.log").len() >= wanted).then_some(()));
        world.kill();
        world.start();
        world.apply(&manifest()).unwrap();
    }
    for name in &names {
        let status = world.completed(name);
        let lines = db.lines("/data/jobs.log").iter().filter(|line| *line == name).count();
        assert!(lines <= 1, "{name} ran {lines} times");
        match status["state"].as_str().unwrap() {
            "Finished" => assert_eq!((lines, &status["exitCode"]), (1, &0.into()), "{name}"),
            state => assert_eq!(state, "Unknown", "{name}"),
        }
    }
}

pub(crate) fn an_end_of_the_daemon_waits_for_a_program_that_is_about_to_end(world: &mut World) {
    world.start();
    let db = world.container("db");
    let short = sh("echo started >> /data/short.log; sleep 2; echo the end; exit 5");
    world.apply_exec("short", &db, &short);
    eventually("the program has started", || (!db.lines("/data/short.log").is_empty()).then_some(()));
    world.restart();
    world.apply_exec("short", &db, &short);
    let status = world.completed("short");
    assert_eq!((&status["exitCode"], &status["stdout"]["tail"]), (&5.into(), &"the end\n".into()), "{status:#}");
    assert_eq!(db.lines("/data/short.log").len(), 1);
}

pub(crate) fn two_daemons_on_one_store_run_each_program_once(world: &mut World) {
    world.start();
    let second = world.start_second();
    let db = world.container("db");
    let names: Vec<_> = (0..20).map(|number| format!("job-{number}")).collect();
    let script = |name: &str| sh(&format!("echo {name} >> /data/jobs.log; sleep 0.2; echo {name}"));
    let manifest = list(names.iter().map(|name| exec_manifest(name, &db, &script(name))));
    // Both see each object: on a cluster it is the same one, without it each has its own.
    std::thread::scope(|scope| {
        if world.is_embedded() {
            scope.spawn(|| second.apply(&manifest).unwrap());
        }
        world.apply(&manifest).unwrap();
    });
    for name in &names {
        let (one, two) = (world.completed(name), second.completed(name));
        assert_eq!(five_things(&one), five_things(&two), "{name}");
        assert_eq!(one["stdout"]["tail"], format!("{name}\n"));
    }
    let mut lines = db.lines("/data/jobs.log");
    lines.sort();
    let mut wanted = names.clone();
    wanted.sort();
    assert_eq!(lines, wanted);
}

pub(crate) fn a_non_zero_exit_counts_as_run(world: &mut World) {
    world.start();
    let db = world.container("db");
    let failing = sh("echo tried >> /data/tries.log; exit 7");
    world.apply_exec("failing", &db, &failing);
    world.completed("failing");
    assert_eq!(world.condition("cexec", "failing", "Succeeded", "False", "ExitCodeNotZero"), "exit code 7");
    world.delete("failing");
    assert_eq!(world.run("failing", &db, &failing)["exitCode"], 7);
    assert_eq!(db.lines("/data/tries.log").len(), 1);
}

pub(crate) fn binary_output_comes_back_byte_for_byte(world: &mut World) {
    world.start();
    let db = world.container("db");
    // Every byte there is, many times over.
    db.install(
        "/data/bytes.sh",
        "#!/bin/sh\ni=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done\n",
    );
    let status = world.run("bytes", &db, &sh("for n in 1 2 3; do /data/bytes.sh; done"));
    assert_eq!(status["stdout"]["bytes"], 768);
    let logs = world.oncelet_command().args(["logs", "bytes", "--stdout"]).stderr(Stdio::inherit()).output().unwrap();
    let wanted: Vec<u8> = (0..3).flat_map(|_| 0..=255).collect();
    assert_eq!(Sha256::digest(&logs.stdout), Sha256::digest(wanted), "{:?}", logs.stdout);
}
