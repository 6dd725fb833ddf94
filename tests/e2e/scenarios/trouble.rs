//! What stands in the way is told, and gone when its cause is.

use jiff::Timestamp;
use serde_json::json;

use crate::docker::{Container, docker};
use crate::process::eventually;
use crate::world::{World, sh};

pub(crate) fn a_container_that_appears_gets_its_run_at_once(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    world.apply_exec("seed", &db, &sh("echo seeded"));
    let message = world.condition("cexec", "seed", "ContainerReady", "False", "ContainerNotFound");
    assert!(message.contains(&db.name), "{message}");

    db.create_again();
    let status = world.completed("seed");
    assert_eq!(status["exitCode"], 0);
    let started: Timestamp =
        docker(&["inspect", "--format", "{{.State.StartedAt}}", &db.name]).unwrap().parse().unwrap();
    let ran: Timestamp = status["startupTimestamp"].as_str().unwrap().parse().unwrap();
    let waited = ran.duration_since(started);
    eprintln!("the program started {waited:#} after its container");
    // The net under the engine's events is 30 s wide: so it was an event.
    assert!(waited.as_secs() < 10, "it took {waited:#}");
}

pub(crate) fn a_stopped_container_is_waited_for(world: &mut World) {
    world.start();
    let db = world.container("db");
    db.stop();
    world.apply_exec("seed", &db, &sh("echo seeded"));
    let message = world.condition("cexec", "seed", "ContainerReady", "False", "ContainerNotRunning");
    assert!(message.contains("has stopped"), "{message}");
    db.start();
    assert_eq!(world.completed("seed")["exitCode"], 0);
    // Restored from a container that is stopped again.
    world.delete("seed");
    db.stop();
    assert_eq!(world.run("seed", &db, &sh("echo seeded"))["restored"], true);
}

pub(crate) fn an_unreachable_engine_is_waited_for(world: &mut World) {
    let real = docker(&["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]).unwrap();
    let real = real.strip_prefix("unix://").expect("the tests' engine has a unix socket").to_owned();
    let socket = world.dir.path().join("engine.sock");
    world.daemon_args = vec!["--engine".into(), format!("unix://{}", socket.display())];
    world.start();
    let db = world.container("db");
    world.apply_exec("seed", &db, &sh("echo seeded"));
    let message = world.condition("cexec", "seed", "ContainerReady", "False", "EngineUnreachable");
    assert!(message.contains("engine.sock"), "{message}");
    std::os::unix::fs::symlink(real, socket).unwrap();
    assert_eq!(world.completed("seed")["exitCode"], 0);
}

pub(crate) fn a_missing_command_is_told_and_tried_again(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("seed", &db, &json!({"command": "/data/migrate"}));
    let message = world.condition("cexec", "seed", "Started", "False", "CommandNotFound");
    assert!(message.contains("/data/migrate") && message.contains("no such file"), "{message}");
    let described = world.kubectl(&["describe", "cexec", "seed"]).unwrap();
    assert!(described.contains("no such file"), "{described}");
    // It is tried again and again: between two attempts the state says how the last one went.
    world.kubectl(&["wait", "--for=jsonpath={.status.state}=FailedToStart", "cexec/seed", "--timeout=60s"]).unwrap();

    db.install("/data/migrate", "#!/bin/sh\necho migrated >> /data/runs.log\n");
    assert_eq!(world.completed("seed")["exitCode"], 0);
    assert_eq!(db.lines("/data/runs.log"), ["migrated"]);
}

pub(crate) fn a_bad_directory_and_a_bad_user_are_told_in_the_engines_words(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("dir", &db, &json!({"command": "/bin/true", "workingDirectory": "/nowhere"}));
    let message = world.condition("cexec", "dir", "Started", "False", "BadWorkingDirectory");
    assert!(message.contains("/nowhere"), "{message}");
    world.apply_exec("user", &db, &json!({"command": "/bin/true", "user": "nobody-here"}));
    let message = world.condition("cexec", "user", "Started", "False", "BadUser");
    assert!(message.contains("nobody-here"), "{message}");
}

pub(crate) fn missing_inputs_are_told_and_waited_for(world: &mut World) {
    world.start();
    let db = world.container("db");
    let spec = json!({
        "command": "/bin/sh",
        "args": ["-c", "echo $PASSWORD"],
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "later", "key": "password"}}}],
    });
    world.apply_exec("secret", &db, &spec);
    let message = world.condition("cexec", "secret", "Started", "False", "SecretNotFound");
    assert!(message.contains("Secret \"later\" not found"), "{message}");

    let env_file = world.dir.path().join("later.env");
    world.apply_exec("file", &db, &json!({"command": "/bin/true", "envFiles": [env_file]}));
    let message = world.condition("cexec", "file", "Started", "False", "EnvFileNotUsable");
    assert!(message.contains("later.env") && message.contains("No such file"), "{message}");

    world.kubectl(&["create", "secret", "generic", "later", "--from-literal=password=x"]).unwrap();
    std::fs::write(env_file, "A=1\n").unwrap();
    assert_eq!(world.completed("secret")["stdout"]["tail"], "x\n");
    assert_eq!(world.completed("file")["exitCode"], 0);
}

pub(crate) fn nothing_starts_while_the_store_is_unreadable(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.run("before", &db, &sh("echo before >> /data/runs.log"));
    world.stop();

    let file = world.data_dir().join("store/runs.db");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![b'x'; good.len()]).unwrap();
    world.start();
    world.apply_exec("before", &db, &sh("echo before >> /data/runs.log"));
    world.apply_exec("after", &db, &sh("echo after >> /data/runs.log"));
    let message = world.condition("cexec", "after", "StoreAvailable", "False", "StoreUnavailable");
    assert!(message.contains("runs.db"), "{message}");
    world.condition("cexec", "before", "StoreAvailable", "False", "StoreUnavailable");
    assert_eq!(db.lines("/data/runs.log"), ["before"]);

    std::fs::write(&file, good).unwrap();
    world.condition("cexec", "before", "StoreAvailable", "True", "Open");
    assert_eq!(world.completed("before")["exitCode"], 0);
    assert_eq!(world.completed("after")["exitCode"], 0);
    eventually("each has run once", || (db.lines("/data/runs.log") == ["before", "after"]).then_some(()));
}
