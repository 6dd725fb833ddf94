//! What a program gets.

use serde_json::{Value, json};

use crate::process::eventually;
use crate::world::{World, exec_manifest, sh};

fn variables(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let variables = status["effectiveEnv"].as_array().unwrap();
    variables.iter().map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

pub(crate) fn the_effective_environment_and_arguments_are_what_the_program_got(world: &mut World) {
    world.start();
    let db = world.container("db");
    let env_file = world.dir.path().join("app.env");
    std::fs::write(&env_file, "# settings\nREGION='eu west'\nLEVEL=file\n").unwrap();
    world
        .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"host": "db.local"}}).to_string())
        .unwrap();
    let spec = json!({
        "command": "/bin/sh",
        "args": ["-c", "env; echo \"args=$*\"", "sh", "$(URL)", "$$(URL)", "$(NOBODY)"],
        "envFiles": [env_file],
        "envFilesVisible": true,
        "env": [
            {"name": "LEVEL", "value": "manifest"},
            {"name": "HOST", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "host"}}},
            {"name": "SELF", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "INSIDE", "valueFrom": {"containerFieldRef": {"fieldPath": "id"}}},
            {"name": "OPTIONAL", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "none", "optional": true}}},
            {"name": "URL", "value": "pg://$(HOST)/$(LEVEL)"},
        ],
    });
    let status = world.run("env", &db, &spec);
    let id = db.id();
    let wanted = [
        ("REGION", "eu west"),
        ("LEVEL", "manifest"),
        ("HOST", "db.local"),
        ("SELF", "env"),
        ("INSIDE", &id),
        ("URL", "pg://db.local/manifest"),
    ];
    assert_eq!(variables(&status), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(
        status["effectiveArgs"],
        json!(["-c", "env; echo \"args=$*\"", "sh", "pg://db.local/manifest", "$(URL)", "$(NOBODY)"])
    );

    let printed = world.oncelet(&["logs", "env", "--stdout"]).unwrap();
    for (name, value) in wanted {
        assert!(printed.lines().any(|line| line == format!("{name}={value}")), "{name} is not in {printed}");
    }
    assert!(printed.contains("args=pg://db.local/manifest $(URL) $(NOBODY)"), "{printed}");
}

pub(crate) fn a_secret_reaches_the_program_and_is_shown_nowhere(world: &mut World) {
    const PASSWORD: &str = "hunter2-never-shown";
    world.start();
    let db = world.container("db");
    world.kubectl(&["create", "secret", "generic", "db", &format!("--from-literal=password={PASSWORD}")]).unwrap();
    let spec = json!({
        "command": "/bin/sh",
        "args": ["-c", "[ \"$PASSWORD\" = hunter2-never-shown ] && [ \"$1\" = pw=hunter2-never-shown ]", "sh", "pw=$(PASSWORD)"],
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}],
    });
    // The script itself names the password: only what was resolved counts.
    let spec =
        serde_json::from_str(&spec.to_string().replace(PASSWORD, "hunter2\"\"-never-shown").replace("\"\"", "''"))
            .unwrap();
    let status = world.run("secret", &db, &spec);
    assert_eq!(status["exitCode"], 0, "{status:#}");
    assert_eq!(variables(&status), [("PASSWORD".to_owned(), "<from secret db/password>".to_owned())]);
    assert_eq!(status["effectiveArgs"][3], "pw=<from secret db/password>");

    let shown = world.oncelet(&["runs", "show", "secret", "-o", "json"]).unwrap();
    assert!(!shown.contains(PASSWORD), "oncelet runs show: {shown}");
    assert!(!world.daemon_log().contains(PASSWORD), "the daemon's log has the secret");
    for entry in std::fs::read_dir(world.data_dir().join("store")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { continue };
        assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()), "{}", path.display());
    }
}

pub(crate) fn the_working_directory_and_the_user_are_as_asked(world: &mut World) {
    world.start();
    let db = world.container("db");
    let spec = json!({"command": "/bin/sh", "args": ["-c", "pwd; id -u"], "workingDirectory": "/tmp", "user": "app"});
    world.apply(&exec_manifest("who", &db, &spec)).unwrap();
    assert_eq!(world.completed("who")["stdout"]["tail"], "/tmp\n1000\n");
}

pub(crate) fn an_exec_waits_for_those_it_depends_on(world: &mut World) {
    world.start();
    let db = world.container("db");
    let after = |names: &[&str], script: &str| {
        let mut spec = sh(script);
        spec["dependsOn"] = names.into();
        spec
    };
    world.apply_exec("app", &db, &after(&["schema", "seed"], "echo app >> /data/order"));
    let message = world.condition("cexec", "app", "Started", "False", "DependencyNotReady");
    assert!(message.contains("schema") && message.contains("not there"), "{message}");
    world.apply_exec("seed", &db, &after(&["schema"], "echo seed >> /data/order"));
    world.apply_exec("schema", &db, &sh("echo schema >> /data/order"));
    assert_eq!(world.completed("app")["exitCode"], 0);
    assert_eq!(db.lines("/data/order"), ["schema", "seed", "app"]);

    world.apply_exec("bad", &db, &sh("exit 3"));
    world.apply_exec("never", &db, &after(&["bad"], "echo never >> /data/order"));
    world.completed("bad");
    let message = eventually("it says why it waits", || {
        let message = world.status("never")["message"].as_str().unwrap_or_default().to_owned();
        message.contains("exit code 3").then_some(message)
    });
    assert!(message.contains("bad"), "{message}");
    // What has run before needs nobody.
    for name in ["app", "schema", "seed"] {
        world.delete(name);
    }
    assert_eq!(world.run("app", &db, &after(&["schema", "seed"], "echo app >> /data/order"))["restored"], true);
    assert_eq!(db.lines("/data/order").len(), 3);
}
