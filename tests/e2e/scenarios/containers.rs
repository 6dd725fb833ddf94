//! `Container` objects. A scenario that has a counterpart among the tests of DCP's container controller names it.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::remote::socket_of_the_engine;
use crate::docker::{self, Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{World, manifest};

/// A shell that waits, and ends with 3 when it is told to.
pub(super) const WAITS: &str = "trap 'exit 3' TERM; sleep 1000000 & wait";

pub(super) fn persistent(name: &str) -> Value {
    json!({
        "mode": "persistent",
        "containerName": name,
        "image": IMAGE,
        "command": "/bin/sh",
        "args": ["-c", format!("echo $GREETING > /data/greeting; {WAITS}")],
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

pub(super) fn apply_db(world: &World, spec: &Value) {
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

fn session(name: &str) -> Value {
    let mut spec = persistent(name);
    spec["mode"] = "session".into();
    spec
}

pub(super) fn ready(world: &World) {
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=60s"]).unwrap();
}

pub(super) fn patch(world: &World, spec: &Value) {
    world.kubectl(&["patch", "ctr", "db", "--type=merge", "-p", &json!({"spec": spec}).to_string()]).unwrap();
}

fn exists(name: &str) -> bool {
    docker(&["inspect", name]).is_ok()
}

/// DCP: `TestContainerDeletion`, `TestContainerInstanceStarts`.
pub(crate) fn a_session_container_goes_with_its_object(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    // The mode is the default one.
    let mut spec = session(&db.name);
    spec.as_object_mut().unwrap().remove("mode");
    apply_db(world, &spec);
    seed(world, None);
    let first = world.completed("seed");
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();
    assert!(!exists(&db.name), "the object is gone only after its container");
    // Another container is another identity.
    apply_db(world, &spec);
    seed(world, None);
    let second = world.completed("seed");
    assert_eq!((&first["restored"], &second["restored"]), (&false.into(), &false.into()));
    assert_ne!(first["containerId"], second["containerId"]);
}

pub(crate) fn session_containers_go_when_up_ends_however_it_ends(world: &mut World) {
    world.start();
    let (db, kept) = (Container::named(&world.container_name("db")), Container::named(&world.container_name("kept")));
    apply_db(world, &session(&db.name));
    world.apply(&manifest("Container", "kept", &persistent(&kept.name))).unwrap();
    ready(world);
    world.kubectl(&["wait", "ctr/kept", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    world.stop();
    assert!(!exists(&db.name) && kept.is_running());

    world.start();
    apply_db(world, &session(&db.name));
    ready(world);
    // Another session, beside it and in its place, touches nothing of it while it lives.
    let mut second = world.start_second();
    assert!(db.is_running());
    second.stop();
    assert!(db.is_running());
    world.kill();
    assert!(db.is_running());
    let old = db.id();
    // What is asked for at once waits until the old one is gone.
    world.start();
    apply_db(world, &session(&db.name));
    ready(world);
    assert_ne!(db.id(), old);
    assert!(kept.is_running());
}

/// DCP: `TestContainerCleanupModeDoesNotCreateMissingContainer`, `TestContainerCleanupModeRemovesExistingContainerOnDelete`,
/// `TestContainerExistingModeDoesNotCreateMissingContainer`, `TestContainerExistingModeIgnoresLifecycleMismatch`,
/// `TestPersistentContainerDeletion`.
pub(crate) fn a_cleanup_container_is_never_made_and_goes_with_its_object(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let adopted = |mode: &str| json!({"mode": mode, "containerName": db.name});
    apply_db(world, &adopted("cleanup"));
    world.condition("ctr", "db", "Ready", "False", "ContainerNotFound");
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    // One that another object made, with whatever key.
    apply_db(world, &persistent(&db.name));
    ready(world);
    let id = db.id();
    for mode in ["existing", "cleanup"] {
        world.kubectl(&["delete", "ctr/db"]).unwrap();
        assert_eq!(db.id(), id);
        apply_db(world, &adopted(mode));
        ready(world);
        assert_eq!(world.object("ctr", "db")["status"]["containerId"], id);
    }
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    assert!(!exists(&db.name));
}

/// DCP: `TestContainerCleanupModeDeletedBeforeAdoptionRemovesExistingContainer`.
pub(crate) fn a_cleanup_container_goes_even_if_its_object_was_deleted_before_the_engine_answered(world: &mut World) {
    let engine = away(world);
    world.start();
    let db = world.container("db");
    apply_db(world, &json!({"mode": "cleanup", "containerName": db.name}));
    world.condition("ctr", "db", "Ready", "False", "EngineUnreachable");
    world.kubectl(&["delete", "ctr/db", "--wait=false"]).unwrap();
    assert!(exists(&db.name));
    engine.comes();
    world.kubectl(&["wait", "ctr/db", "--for=delete", "--timeout=60s"]).unwrap();
    assert!(!exists(&db.name));
}

/// The way of the daemon to the engine, which can be taken away.
struct Way {
    socket: std::path::PathBuf,
    engine: String,
}

/// Gives the daemon a way to its engine that leads nowhere yet.
fn away(world: &mut World) -> Way {
    let socket = world.dir.path().join("engine.sock");
    let engine = socket_of_the_engine(world);
    world.daemon_env.push(("DOCKER_HOST".to_owned(), format!("unix://{}", socket.display())));
    Way { socket, engine }
}

impl Way {
    fn comes(&self) {
        symlink(&self.engine, &self.socket).unwrap();
    }

    fn goes(&self) {
        std::fs::remove_file(&self.socket).unwrap();
    }
}

/// DCP: `TestContainerRuntimeUnhealthy`.
pub(crate) fn the_engine_goes_and_comes_back(world: &mut World) {
    let engine = away(world);
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &persistent(&db.name));
    world.condition("ctr", "db", "Ready", "False", "EngineUnreachable");
    engine.comes();
    ready(world);
    let id = db.id();
    engine.goes();
    // Only what has to be looked at shows it.
    patch(world, &json!({"stop": true}));
    world.condition("ctr", "db", "Ready", "False", "EngineUnreachable");
    patch(world, &json!({"stop": null}));
    engine.comes();
    ready(world);
    assert_eq!(db.id(), id);
}

/// DCP: `TestContainerDelayStart`, `TestNoExistingPersistentContainerDelayStart`, `TestContainerStop`,
/// `TestContainerStopReportsExitCode`, `TestExistingPersistentContainerDelayStart`, `TestContainerRestart`.
pub(crate) fn a_start_may_be_delayed_and_a_stop_taken_back(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let mut spec = persistent(&db.name);
    spec["start"] = false.into();
    apply_db(world, &spec);
    world.condition("ctr", "db", "Ready", "False", "StartDelayed");
    assert!(!exists(&db.name));
    seed(world, None);
    patch(world, &json!({"start": true}));
    let first = world.completed("seed");
    let id = db.id();

    patch(world, &json!({"stop": true}));
    world.condition("ctr", "db", "Ready", "False", "StopRequested");
    let status = world.object("ctr", "db")["status"].clone();
    assert_eq!((&status["state"], &status["exitCode"]), (&"Exited".into(), &3.into()));
    patch(world, &json!({"stop": false}));
    ready(world);
    assert_eq!(db.id(), id, "a stop and a start make no other container of it");
    assert_eq!(world.status("seed")["runId"], first["runId"]);
    assert_eq!(db.lines("/data/runs.log").len(), 1);

    // What runs already is taken as it is, and what does not is left so.
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    apply_db(world, &spec);
    ready(world);
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    db.stop();
    apply_db(world, &spec);
    world.condition("ctr", "db", "Ready", "False", "Exited");
    assert!(!db.is_running());
    patch(world, &json!({"start": true}));
    ready(world);
}

/// DCP: `TestNoExistingPersistentContainerStopWithoutStart`, `TestExistingPersistentContainerStopWithoutStart`,
/// `TestExistingPersistentContainerStopWithStartAllowed`, `TestExistingPersistentContainerStopWithUnresolvedTemplate`,
/// `TestExitedPersistentContainerStopWithoutStart`.
pub(crate) fn what_is_to_be_stopped_is_not_made_and_nothing_else_is_stopped(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let mut spec = persistent(&db.name);
    // Nothing is resolved to stop something.
    spec["env"][0] = json!({"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "greetings", "key": "en"}}});
    let mut stopping = spec.clone();
    stopping["stop"] = true.into();
    apply_db(world, &stopping);
    world.condition("ctr", "db", "Ready", "False", "StopRequested");
    assert!(!exists(&db.name));
    world.kubectl(&["delete", "ctr/db"]).unwrap();

    world.kubectl(&["create", "configmap", "greetings", "--from-literal=en=hello"]).unwrap();
    apply_db(world, &spec);
    ready(world);
    world.kubectl(&["delete", "ctr/db", "cm/greetings"]).unwrap();
    for _ in 0..2 {
        apply_db(world, &stopping);
        world.condition("ctr", "db", "Ready", "False", "StopRequested");
        eventually("the container is stopped", || (!db.is_running()).then_some(()));
        world.kubectl(&["delete", "ctr/db"]).unwrap();
    }
    // A stranger's is in the way, and stays as it is.
    db.remove();
    db.create_again();
    apply_db(world, &stopping);
    world.condition("ctr", "db", "Ready", "False", "NameTaken");
    assert!(db.is_running());
}

/// DCP: `TestPersistentContainerStartTime`, `TestPersistentContainerAlreadyExists`.
pub(crate) fn an_adopted_container_keeps_its_start_time(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &persistent(&db.name));
    ready(world);
    let started = |world: &World| world.object("ctr", "db")["status"]["startupTimestamp"].clone();
    let first = started(world);
    let engine = docker(&["inspect", "--format", "{{.State.StartedAt}}", &db.name]).unwrap();
    assert!(engine.starts_with(first.as_str().unwrap().trim_end_matches('Z')), "{engine} {first}");
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    world.restart();
    apply_db(world, &persistent(&db.name));
    ready(world);
    assert_eq!(started(world), first);
}

/// DCP: `TestContainerLifecycleKey`, `TestPersistentContainerAlreadyExistsSameLifecycleKey`,
/// `TestPersistentContainerAlreadyExistsDifferentLifecycleKey`.
pub(crate) fn a_lifecycle_key_decides_alone(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let again = |key: &str, greeting: &str| {
        let mut spec = persistent(&db.name);
        spec["lifecycleKey"] = key.into();
        spec["env"][0]["value"] = greeting.into();
        world.kubectl(&["delete", "ctr/db", "--ignore-not-found"]).unwrap();
        apply_db(world, &spec);
        ready(world);
        (db.id(), world.object("ctr", "db")["status"]["lifecycleKey"].clone())
    };
    let (first, key) = again("one", "hello");
    assert_eq!(key, "one");
    assert_eq!(again("one", "bonjour"), (first.clone(), key));
    let (second, key) = again("two", "bonjour");
    assert_eq!(key, "two");
    assert_ne!(second, first);
}

pub(crate) fn two_daemons_that_make_the_same_container_end_with_one(world: &mut World) {
    world.start();
    let second = world.start_second();
    let db = Container::named(&world.container_name("db"));
    // With two servers both have an object; at once, so that one of them is too late.
    let both: Vec<&World> = if world.is_embedded() { vec![world, &second] } else { vec![world] };
    std::thread::scope(|scope| {
        for world in &both {
            let (name, host) = (db.name.clone(), world.engine_host());
            scope.spawn(move || {
                docker::use_host(host);
                apply_db(world, &persistent(&name));
            });
        }
    });
    for world in both {
        ready(world);
        assert_eq!(world.object("ctr", "db")["status"]["containerId"], db.id());
    }
    assert_eq!(
        docker(&["ps", "--all", "--quiet", "--filter", &format!("name=^{}", db.name)]).unwrap().lines().count(),
        1
    );
}
