//! `Container` objects.

use serde_json::{Value, json};

use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{World, manifest};

fn persistent(name: &str) -> Value {
    json!({
        "mode": "persistent",
        "containerName": name,
        "image": IMAGE,
        "command": "/bin/sh",
        "args": ["-c", "echo $GREETING > /data/greeting; sleep 1000000"],
        "env": [{"name": "GREETING", "value": "hello"}],
        "ports": [{"containerPort": 5432}],
        "labels": [{"key": "team", "value": "a"}],
    })
}

/// An exec in the container of the object `db`.
fn seed(world: &World, scope: Option<&str>) {
    let mut spec = json!({
        "containerName": "db",
        "command": "/bin/sh",
        "args": ["-c", "echo $PORT >> /data/runs.log"],
        "env": [{"name": "PORT", "valueFrom": {"containerFieldRef": {"fieldPath": "ports['5432']"}}}],
    });
    if let Some(scope) = scope {
        spec["scope"] = scope.into();
    }
    world.apply(&manifest("ContainerExec", "seed", &spec)).unwrap();
}

fn apply_db(world: &World, spec: &Value) {
    world.apply(&manifest("Container", "db", spec)).unwrap();
}

pub(crate) fn a_persistent_container_is_made_and_reused(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    // The exec may come first.
    seed(world, None);
    world.condition("cexec", "seed", "ContainerReady", "False", "ContainerNotFound");
    apply_db(world, &persistent(&db.name));
    let first = world.completed("seed");
    let status = world.object("ctr", "db")["status"].clone();
    assert_eq!((&status["state"], &status["containerId"]), (&"Running".into(), &db.id().into()));
    assert_eq!(docker(&["inspect", "--format", "{{.Config.Labels.team}}", &db.name]).unwrap(), "a");
    assert_eq!(db.lines("/data/greeting"), ["hello"]);
    let port = status["ports"][0]["hostPort"].to_string();
    assert_eq!(db.lines("/data/runs.log"), [port.as_str()], "the program saw the published port");

    let id = db.id();
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();
    assert!(db.is_running(), "a persistent container outlives its object");
    db.stop();
    world.restart();
    apply_db(world, &persistent(&db.name));
    seed(world, None);
    let again = world.completed("seed");
    assert_eq!((&again["restored"], &again["runId"]), (&true.into(), &first["runId"]));
    eventually("the stopped container is started again", || db.is_running().then_some(()));
    assert_eq!(db.id(), id);

    // Who stops it now means it.
    db.stop();
    world.condition("ctr", "db", "Ready", "False", "Exited");
    assert!(!db.is_running());
}

pub(crate) fn a_changed_container_is_made_anew_and_says_why(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &persistent(&db.name));
    seed(world, None);
    let first = world.completed("seed");
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();

    let mut changed = persistent(&db.name);
    changed["env"][0]["value"] = "bonjour".into();
    apply_db(world, &changed);
    seed(world, None);
    let second = eventually("the run in the new container is complete", || {
        let status = world.status("seed");
        (status["state"] == "Finished" && status["runId"] != first["runId"]).then_some(status)
    });
    assert_eq!(second["restored"], false);
    assert_eq!(db.lines("/data/greeting"), ["bonjour"]);
    let described = eventually("an event tells why", || {
        let described = world.kubectl(&["describe", "ctr", "db"]).unwrap();
        described.contains("Recreated").then_some(described)
    });
    assert!(described.contains("env changed"), "{described}");
}

pub(crate) fn a_strangers_container_is_not_taken(world: &mut World) {
    world.start();
    let db = world.container("db");
    let id = db.id();
    apply_db(world, &persistent(&db.name));
    let message = world.condition("ctr", "db", "Ready", "False", "NameTaken");
    assert!(message.contains("mode: existing"), "{message}");
    assert_eq!(db.id(), id);
    // The cause goes away.
    db.remove();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    assert_ne!(db.id(), id);
}

pub(crate) fn an_existing_container_is_adopted_and_left_alone(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &json!({"mode": "existing", "containerName": db.name}));
    world.condition("ctr", "db", "Ready", "False", "ContainerNotFound");
    db.create_again();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    let id = db.id();
    db.stop();
    world.condition("ctr", "db", "Ready", "False", "Exited");
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    world.restart();
    assert_eq!((db.id(), db.is_running()), (id, false));
}

pub(crate) fn scope_name_remembers_across_recreates(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &persistent(&db.name));
    seed(world, Some("Name"));
    let first = world.completed("seed");
    world.kubectl(&["delete", "cexec/seed"]).unwrap();
    let old = db.id();
    db.remove();
    eventually("the container is made anew", || {
        let id = docker(&["inspect", "--format", "{{.Id}}", &db.name]).ok()?;
        (id != old && db.is_running()).then_some(())
    });
    seed(world, Some("Name"));
    let again = world.completed("seed");
    assert_eq!((&again["restored"], &again["runId"]), (&true.into(), &first["runId"]));
    assert!(db.lines("/data/runs.log").is_empty());
}
