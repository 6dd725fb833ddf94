//! When a repeat is asked for, and when not.

use serde_json::{Value, json};

use crate::docker::Container;
use crate::process::eventually;
use crate::world::{World, sh};

fn with(mut spec: Value, field: &str, value: &str) -> Value {
    spec[field] = value.into();
    spec
}

/// Deletes the object and applies it with another spec.
fn replace(world: &World, db: &Container, spec: &Value) {
    world.delete("seed");
    world.apply_exec("seed", db, spec);
}

pub(crate) fn another_program_under_the_same_name_keeps_the_outcome_and_says_what_differs(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo one >> /data/runs.log"));
    replace(world, &db, &with(sh("echo two >> /data/runs.log"), "user", "root"));
    let message = world.condition("cexec", "seed", "SpecDrifted", "True", "ProgramChanged");
    assert!(message.contains("args, user"), "{message}");
    assert_eq!(world.completed("seed")["restored"], true);
    assert_eq!(db.lines("/data/runs.log"), ["one"]);
}

pub(crate) fn on_change_rerun_runs_each_program_once(world: &mut World) {
    world.start();
    let db = world.container("db");
    let program = |word: &str| with(sh(&format!("echo {word} >> /data/runs.log")), "onChange", "Rerun");
    world.run("seed", &db, &program("one"));
    for word in ["two", "one", "two"] {
        replace(world, &db, &program(word));
        world.completed("seed");
    }
    assert_eq!(db.lines("/data/runs.log"), ["one", "two"]);
}

pub(crate) fn on_change_fail_restores_nothing(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo one >> /data/runs.log"));
    replace(world, &db, &with(sh("echo two >> /data/runs.log"), "onChange", "Fail"));
    let message = world.condition("cexec", "seed", "Complete", "False", "Waiting");
    assert!(message.contains("args differs"), "{message}");
    assert_eq!(world.status("seed")["exitCode"], Value::Null);
    assert_eq!(db.lines("/data/runs.log"), ["one"]);
}

pub(crate) fn run_policy_always_runs_once_for_each_object(world: &mut World) {
    world.start();
    let db = world.container("db");
    let spec = with(sh("echo ran >> /data/runs.log"), "runPolicy", "Always");
    world.run("seed", &db, &spec);
    replace(world, &db, &spec);
    assert_eq!(world.completed("seed")["restored"], false);
    assert_eq!(db.lines("/data/runs.log").len(), 2);
}

pub(crate) fn the_rerun_annotation_runs_once_for_each_value(world: &mut World) {
    world.start();
    let db = world.container("db");
    let first = world.run("seed", &db, &sh("echo ran >> /data/runs.log"));
    world.kubectl(&["annotate", "cexec", "seed", "oncelet.dev/rerun=1"]).unwrap();
    let second = eventually("the second run is complete", || {
        let status = world.status("seed");
        (status["runId"] != first["runId"] && status["state"] == "Finished").then_some(status)
    });
    assert_eq!(second["restored"], false);
    world.kubectl(&["annotate", "cexec", "seed", "--overwrite", "oncelet.dev/rerun=1", "note=touched"]).unwrap();
    world.delete("seed");
    let spec = sh("echo ran >> /data/runs.log");
    let mut manifest: Value = serde_json::from_str(&crate::world::exec_manifest("seed", &db, &spec)).unwrap();
    manifest["metadata"]["annotations"] = json!({"oncelet.dev/rerun": "1"});
    world.apply(&manifest.to_string()).unwrap();
    assert_eq!(world.completed("seed")["runId"], second["runId"]);
    assert_eq!(db.lines("/data/runs.log").len(), 2);
}

pub(crate) fn a_run_key_is_shared_by_objects(world: &mut World) {
    world.start();
    let db = world.container("db");
    let spec = with(sh("echo ran >> /data/runs.log"), "runKey", "schema v1");
    let first = world.run("one", &db, &spec);
    let second = world.run("two", &db, &spec);
    assert_eq!((&second["runId"], &second["restored"]), (&first["runId"], &true.into()));
    assert_eq!(db.lines("/data/runs.log").len(), 1);
}
