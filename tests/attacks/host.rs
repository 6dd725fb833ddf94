//! The machine of the daemon: its files, and the engine's API.

use serde_json::json;

use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{World, manifest, sh};

/// A name that becomes a part of a URL must not lead to another one, such as the one that removes unused volumes.
pub(crate) fn a_network_name_cannot_reach_another_part_of_the_engine(world: &mut World) {
    world.start();
    let volume = world.container_name("kept");
    docker(&["volume", "create", &volume]).unwrap();
    let spec = |network: &str| {
        json!({"image": IMAGE, "command": "/bin/sleep", "args": ["1000000"], "containerName": world.container_name("made"),
            "networks": [network]})
    };
    for network in ["x/../../volumes/prune?", "../volumes/prune", "a%2Fb", "..", "a b", "a\nb"] {
        let refused = world.apply(&manifest("Container", "made", &spec(network)));
        assert!(refused.as_ref().is_err_and(|error| error.contains("networks")), "{network:?}: {refused:?}");
    }
    assert_eq!(docker(&["volume", "inspect", "--format", "{{.Name}}", &volume]).as_ref(), Ok(&volume));
    docker(&["volume", "rm", &volume]).unwrap();
}

/// The daemon reads such a file for whoever makes the object: it must neither grow nor wait.
pub(crate) fn an_env_file_without_an_end_is_refused_at_once(world: &mut World) {
    world.start();
    let db: Container = world.container("db");
    let fifo = world.dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for (name, path) in [("device", "/dev/zero"), ("fifo", fifo.to_str().unwrap()), ("directory", "/etc")] {
        let mut spec = sh("echo ran");
        spec["envFiles"] = json!([path]);
        world.apply_exec(name, &db, &spec);
        let told = eventually("the refusal is in the status", || {
            let status = world.status(name);
            let conditions = status["conditions"].as_array()?.iter();
            let mut words = conditions.filter_map(|it| it["message"].as_str());
            words.find(|words| words.contains(path)).map(str::to_owned)
        });
        assert!(told.contains("regular file"), "{told}");
    }
    // And the daemon still does its work.
    assert_eq!(world.run("good", &db, &sh("echo ran"))["exitCode"], 0);
}
