//! Containers that are made as their objects say.

use oncelet_tests::registry::{CREDENTIALS, Registry};
use serde_json::json;

use super::containers::{WAITS, apply_db, patch, persistent, ready};
use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{World, manifest};

pub(crate) fn volumes_networks_env_files_and_the_restart_policy_are_as_asked(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let (volume, network) = (world.container_name("volume"), world.container_name("net"));
    let removed = Removed(vec![["volume".into(), volume.clone()], ["network".into(), network.clone()]]);
    std::fs::write(world.dir.path().join("db.env"), "GREETING=from-file\nMOOD=good\n").unwrap();
    std::fs::write(world.dir.path().join("shown"), "shown\n").unwrap();
    let mut spec = persistent(&db.name);
    spec["args"][1] = format!("echo $GREETING $MOOD > /data/greeting; cat /shown >> /data/greeting; {WAITS}").into();
    spec["envFiles"] = json!([world.dir.path().join("db.env")]);
    spec["volumeMounts"] = json!([
        {"type": "volume", "source": volume, "target": "/data"},
        {"type": "bind", "source": world.dir.path().join("shown"), "target": "/shown", "readOnly": true},
    ]);
    spec["networks"] = json!([{"name": network, "aliases": ["database"]}]);
    spec["restartPolicy"] = "unless-stopped".into();
    apply_db(world, &spec);
    // A network is not made, and its lack is told.
    let message = world.condition("ctr", "db", "Ready", "False", "NotFound");
    assert!(message.contains(&network), "{message}");
    docker(&["network", "create", &network]).unwrap();
    ready(world);
    eventually("the program has written it", || (db.lines("/data/greeting").len() == 2).then_some(()));
    assert_eq!(db.lines("/data/greeting"), ["hello good", "shown"], "env wins over envFiles");
    assert!(db.sh("echo x > /shown").is_err(), "it is read-only");
    let inspected = |format: &str| docker(&["inspect", "--format", format, &db.name]).unwrap();
    assert_eq!(inspected("{{.HostConfig.RestartPolicy.Name}}"), "unless-stopped");
    let networks = inspected("{{json .NetworkSettings.Networks}}");
    assert!(networks.contains(&network) && networks.contains("database"), "{networks}");
    assert!(world.object("ctr", "db")["status"]["address"].is_string());

    // The volume outlives the container.
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    db.remove();
    spec["args"][1] = WAITS.into();
    apply_db(world, &spec);
    ready(world);
    assert_eq!(db.lines("/data/greeting").len(), 2);
    db.remove();
    drop(removed);
}

/// Things of the engine that are removed in any case.
struct Removed(Vec<[String; 2]>);

impl Drop for Removed {
    fn drop(&mut self) {
        for [kind, name] in &self.0 {
            let _ = docker(&[kind, "rm", "--force", name]);
            let _ = docker(&[kind, "rm", name]);
        }
    }
}

/// DCP: `TestContainerHealthBasic`, `TestContainerHealthSingleProbe`.
pub(crate) fn an_exec_waits_for_a_healthy_container(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let mut spec = persistent(&db.name);
    spec["healthcheck"] =
        json!({"command": ["/bin/test", "-e", "/data/well"], "intervalSeconds": 1, "retries": 1, "timeoutSeconds": 5});
    apply_db(world, &spec);
    ready(world);
    let exec = json!({
        "containerName": "db",
        "command": "/bin/sh",
        "args": ["-c", "echo run >> /data/runs.log"],
        "waitFor": "Healthy",
    });
    world.apply(&manifest("ContainerExec", "seed", &exec)).unwrap();
    world.condition("cexec", "seed", "ContainerReady", "False", "ContainerNotHealthy");
    world.condition("ctr", "db", "Healthy", "False", "Unhealthy");
    assert!(db.lines("/data/runs.log").is_empty());
    db.sh("touch /data/well").unwrap();
    world.completed("seed");
    world.kubectl(&["wait", "ctr/db", "--for=condition=Healthy", "--timeout=60s"]).unwrap();
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
    // An outcome is there whatever the health.
    db.sh("rm /data/well").unwrap();
    world.condition("ctr", "db", "Healthy", "False", "Unhealthy");
    assert_eq!(world.status("seed")["state"], "Finished");
}

pub(crate) fn an_image_is_pulled_and_its_progress_shown(world: &mut World) {
    let registry = Registry::serve(&new_image(world));
    let image = format!("{}/{}:1", registry.address(), world.namespace);
    let config = json!({"auths": {registry.address().to_string(): {"auth": CREDENTIALS}}});
    std::fs::write(world.dir.path().join("config.json"), config.to_string()).unwrap();
    world.daemon_env.push(("DOCKER_CONFIG".to_owned(), world.dir.path().display().to_string()));
    world.start();
    let db = Container::named(&world.container_name("db"));
    let mut spec = persistent(&db.name);
    spec["image"] = image.clone().into();
    spec["pullPolicy"] = "never".into();
    apply_db(world, &spec);
    let message = world.condition("ctr", "db", "Ready", "False", "ImageNotFound");
    assert!(message.contains(&image), "{message}");
    patch(world, &json!({"pullPolicy": "missing"}));
    let pulling = eventually("the progress is shown", || {
        let status = world.object("ctr", "db")["status"].clone();
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        (status["state"] == "Pulling" && message.contains("MB")).then_some(message)
    });
    assert!(pulling.contains(&image) && pulling.contains("1 of 2 layers"), "{pulling}");
    registry.go_on();
    ready(world);
    let events = world.kubectl(&["describe", "ctr", "db"]).unwrap();
    assert!(events.contains("Pulling") && events.contains("Pulled") && events.contains("Created"), "{events}");
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    db.remove();
    docker(&["rmi", &image]).unwrap();

    // What cannot be had is told in the registry's words.
    spec["image"] = format!("{}/nothing:1", registry.address()).into();
    spec["pullPolicy"] = "always".into();
    apply_db(world, &spec);
    let message = world.condition("ctr", "db", "Ready", "False", "ImagePullFailed");
    assert!(message.contains("nothing:1"), "{message}");
}

/// An image that no engine has yet, as files.
fn new_image(world: &World) -> std::path::PathBuf {
    let (archive, files) = (world.dir.path().join("image.tar"), world.dir.path().join("image"));
    let (maker, image) = (Container::named(&world.container_name("maker")), format!("{}:new", world.namespace));
    let script = "head -c 8000000 /dev/urandom > /data/noise";
    docker(&["run", "--name", &maker.name, IMAGE, "/bin/sh", "-c", script]).unwrap();
    docker(&["commit", &maker.name, &image]).unwrap();
    docker(&["save", "--output", archive.to_str().unwrap(), &image]).unwrap();
    docker(&["rmi", &image]).unwrap();
    std::fs::create_dir(&files).unwrap();
    let unpacked = std::process::Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&files).status().unwrap();
    assert!(unpacked.success());
    files
}
