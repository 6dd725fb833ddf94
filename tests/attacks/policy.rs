//! Users of a cluster who may make objects in one namespace, and want more.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{World, exec_manifest, manifest, policy_of, sh};

/// A policy of one rule for the namespace of this world.
fn rule(world: &World, mut rule: Value) -> String {
    rule["namespaces"] = json!([world.namespace]);
    policy_of(&json!([rule]))
}

/// The rule that lets a namespace make plain containers.
fn plain(world: &World) -> Value {
    json!({"namespaces": [world.namespace], "containerNames": [world.container_name("*")], "images": [IMAGE], "networks": ["default"]})
}

/// The spec of a plain container.
fn made(world: &World, name: &str) -> Value {
    json!({"image": IMAGE, "command": "/bin/sleep", "args": ["1000000"], "containerName": world.container_name(name)})
}

fn there_is(name: &str) -> bool {
    docker(&["inspect", "--format", "{{.Id}}", name]).is_ok()
}

/// Waits until an object is refused; returns what it is told.
fn refused(world: &World, kind: &str, name: &str) -> String {
    world.condition(kind, name, "Allowed", "False", "NotAllowed")
}

/// Nothing of oncelet was ever in the container, and no program of an object.
fn is_untouched(container: &Container) -> bool {
    container.sh("test ! -e /.oncelet && test ! -e /ran").is_ok()
}

/// A namespace beside the world's own. Its objects are removed with it.
struct Neighbour<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Neighbour<'a> {
    fn of(world: &'a World) -> Self {
        let name = format!("{}-b", world.namespace);
        world.kubectl(&["create", "namespace", &name]).unwrap();
        Self { world, name }
    }

    fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.world.kubectl(&[&["--namespace", &self.name], args].concat())
    }

    fn apply(&self, manifest: &str) {
        let file = self.world.dir.path().join("neighbour.json");
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    }

    fn status(&self, kind: &str, name: &str) -> Value {
        let object = self.kubectl(&["get", kind, name, "-o", "json"]).unwrap();
        serde_json::from_str::<Value>(&object).unwrap()["status"].clone()
    }

    fn completed(&self, name: &str) -> Value {
        eventually("the neighbour's exec is complete", || {
            let status = self.status("cexec", name);
            (status["state"] == "Finished").then_some(status)
        })
    }

    fn refused(&self, kind: &str, name: &str) -> String {
        eventually("the neighbour is refused", || {
            let status = self.status(kind, name);
            let allowed = status["conditions"].as_array()?.iter().find(|it| it["type"] == "Allowed")?;
            (allowed["status"] == "False").then(|| allowed["message"].as_str().unwrap().to_owned())
        })
    }
}

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        for kind in ["cexec", "ctr"] {
            let _ = self.kubectl(&["delete", kind, "--all", "--timeout=20s"]);
        }
    }
}

/// Whoever may make objects, and whose namespace nobody has thought of, gets nothing.
pub(crate) fn nothing_is_allowed_that_no_policy_allows(world: &mut World) {
    // The user of `oncelet up` asks for a policy; a cluster has to have one.
    world.policy = world.is_embedded().then(|| policy_of(&json!([])));
    world.start();
    let reason = if world.is_embedded() { "NotAllowed" } else { "NoPolicy" };
    let db = world.container("db");
    world.apply_exec("seed", &db, &sh("touch /ran"));
    world.apply(&manifest("Container", "made", &made(world, "made"))).unwrap();
    for (kind, name) in [("cexec", "seed"), ("ctr", "made")] {
        let told = world.condition(kind, name, "Allowed", "False", reason);
        assert!(told.contains(if reason == "NoPolicy" { "--policy" } else { "ask whoever runs oncelet" }), "{told}");
        let told = eventually("an event tells of it", || {
            let filter = format!("involvedObject.name={name},type=Warning");
            let events = world.kubectl(&["get", "events", "--field-selector", &filter, "-o", "json"]).ok()?;
            events.contains("polic").then_some(events)
        });
        assert!(told.contains(reason) || told.contains("NotAllowed"), "{told}");
    }
    assert_eq!(world.status("seed")["state"], "Waiting");
    assert!(world.is_embedded() || world.daemon_log().contains("there is no policy, and so nothing is allowed"));
    assert!(is_untouched(&db) && !there_is(&world.container_name("made")));
    // And they go as they came.
    world.delete("seed");
    world.kubectl(&["delete", "ctr", "made", "--timeout=20s"]).unwrap();
}

pub(crate) fn each_field_that_reaches_out_is_refused_without_its_rule(world: &mut World) {
    let mut allowed = plain(world);
    allowed["engineContainers"] = json!([{"name": world.container_name("db")}]);
    world.policy = Some(policy_of(&json!([allowed])));
    world.start();
    let db = world.container("db");
    let other = world.container("other");
    let foreign = |mode: &str| json!({"mode": mode, "containerName": other.name});
    let with = |field: &str, value: Value| {
        let mut spec = made(world, "made");
        spec[field] = value;
        spec
    };
    let bind = |read_only: bool| json!([{"type": "bind", "source": "/etc", "target": "/mnt", "readOnly": read_only}]);
    let table = [
        ("containerNames", with("containerName", json!("oncelet-elsewhere"))),
        ("images", with("image", json!("oncelet-demo/other:1"))),
        ("bindMounts", with("volumeMounts", bind(false))),
        ("bindMounts", with("volumeMounts", bind(true))),
        ("volumes", with("volumeMounts", json!([{"type": "volume", "source": "shared", "target": "/mnt"}]))),
        ("networks", with("networks", json!([{"name": "host"}]))),
        ("networks", with("networks", json!([{"name": "bridge"}]))),
        ("ports", with("ports", json!([{"containerPort": 80}]))),
        ("ports", with("ports", json!([{"containerPort": 80, "hostPort": 8099, "hostIP": ""}]))),
        ("labels", with("labels", json!([{"key": "traefik.enable", "value": "true"}]))),
        ("envFiles", with("envFiles", json!(["/etc/passwd"]))),
        ("engines", with("engine", json!("unix:///var/run/other.sock"))),
        ("engineContainers", foreign("existing")),
        ("removeForeign", json!({"mode": "cleanup", "containerName": db.name})),
        ("stopForeign", json!({"mode": "existing", "stop": true, "containerName": db.name})),
    ];
    for (at, (_, spec)) in table.iter().enumerate() {
        world.apply(&manifest("Container", &format!("c{at}"), spec)).unwrap();
    }
    let execs = [
        ("users", json!({"command": "touch", "args": ["/ran"], "user": "0", "engineContainer": db.name})),
        (
            "envFiles",
            json!({"command": "touch", "args": ["/ran"], "envFiles": ["/etc/passwd"], "engineContainer": db.name}),
        ),
        ("engineContainers", json!({"command": "touch", "args": ["/ran"], "engineContainer": other.name})),
        ("engineContainers", json!({"command": "touch", "args": ["/ran"], "engineContainer": other.id()})),
        (
            "engineContainers",
            json!({"command": "touch", "args": ["/ran"], "engineContainer": "oncelet-nobody-has-this"}),
        ),
        (
            "engines",
            json!({"command": "touch", "args": ["/ran"], "engineContainer": db.name, "engine": "ssh://127.0.0.1"}),
        ),
    ];
    for (at, (_, spec)) in execs.iter().enumerate() {
        world.apply(&manifest("ContainerExec", &format!("e{at}"), spec)).unwrap();
    }
    for (at, (field, _)) in table.iter().enumerate() {
        let told = refused(world, "ctr", &format!("c{at}"));
        assert!(told.contains(&format!(", {field}: ")), "{field}: {told}");
    }
    for (at, (field, _)) in execs.iter().enumerate() {
        let told = refused(world, "cexec", &format!("e{at}"));
        assert!(told.contains(&format!(", {field}: ")), "{field}: {told}");
        assert!(world.status(&format!("e{at}"))["containerId"].is_null(), "it learns nothing");
    }
    assert!(is_untouched(&db) && is_untouched(&other) && db.is_running() && other.is_running());
    assert!(!there_is(&world.container_name("made")) && !there_is("oncelet-elsewhere"));
    // Deleted, those that remove a container leave it.
    world.kubectl(&["delete", "ctr", "--all", "--timeout=30s"]).unwrap();
    assert!(db.is_running() && other.is_running());

    // What is asked for within the rules is there.
    world.apply(&manifest("Container", "fine", &made(world, "fine"))).unwrap();
    world.apply(&manifest("ContainerExec", "fine", &json!({"command": "true", "containerName": "fine"}))).unwrap();
    let status = world.completed("fine");
    assert!(
        status["conditions"].as_array().unwrap().iter().any(|it| it["type"] == "Allowed" && it["status"] == "True")
    );
    assert_eq!(world.run("entered", &db, &sh("true"))["exitCode"], 0);
}

pub(crate) fn a_bind_mount_and_an_env_file_cannot_leave_their_directories(world: &mut World) {
    let dir = world.dir.path().canonicalize().unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for name in ["ours/data", "secret"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    std::fs::write(path("secret/x.env"), "STOLEN=1\n").unwrap();
    std::fs::write(path("ours/y.env"), "OURS=1\n").unwrap();
    std::os::unix::fs::symlink(path("secret"), path("ours/link")).unwrap();
    let mut allowed = plain(world);
    allowed["bindMounts"] = json!([{"path": path("ours")}]);
    allowed["envFiles"] = json!([path("ours")]);
    world.policy = Some(policy_of(&json!([allowed])));
    world.start();
    let mount = |source: &str| {
        let mut spec = made(world, "made");
        spec["volumeMounts"] = json!([{"type": "bind", "source": source, "target": "/mnt"}]);
        spec
    };
    let env_file = |file: &str| {
        let mut spec = made(world, "made");
        spec["envFiles"] = json!([file]);
        spec
    };
    let attacks = [
        mount(&path("ours/../secret")),
        mount(&path("ours/link")),
        mount(&path("ours/link/.")),
        mount(&path("oursecret")),
        mount("/"),
        env_file(&path("ours/../secret/x.env")),
        env_file(&path("ours/link/x.env")),
        env_file("x.env"),
    ];
    for (at, spec) in attacks.iter().enumerate() {
        world.apply(&manifest("Container", &format!("c{at}"), spec)).unwrap();
    }
    for at in 0..attacks.len() {
        refused(world, "ctr", &format!("c{at}"));
    }
    assert!(!there_is(&world.container_name("made")));
    let mut fine = mount(&path("ours/data"));
    fine["envFiles"] = json!([path("ours/y.env")]);
    world.apply(&manifest("Container", "fine", &fine)).unwrap();
    world.kubectl(&["wait", "ctr/fine", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    assert!(docker(&["exec", &world.container_name("made"), "env"]).unwrap().contains("OURS=1"));
}

pub(crate) fn a_run_key_reaches_no_run_of_another_namespace(world: &mut World) {
    world.policy = Some(policy_of(&json!([
        {"namespaces": [format!("{}*", world.namespace)], "engineContainers": [{"name": world.container_name("db")}], "sharedRunKeys": ["open-*"]},
    ])));
    world.start();
    let world = &*world;
    let db = world.container("db");
    let keyed = |key: &str, script: &str| {
        let mut spec = sh(script);
        spec["runKey"] = key.into();
        spec
    };
    let script = "echo ran >> /count; echo secret of $0";
    world.run("named", &db, &sh(script));
    world.run("keyed", &db, &keyed("schema", script));
    world.run("open", &db, &keyed("open-1", script));
    let neighbour = Neighbour::of(world);
    // The first are keys that stand for runs of ours in the store itself.
    let attacks = [
        ("name", format!("{}/named", world.namespace)),
        ("inner", format!("{}/runKey/schema", world.namespace)),
        ("same", "schema".to_owned()),
        ("up", format!("../{}/runKey/schema", world.namespace)),
    ];
    for (name, key) in &attacks {
        neighbour.apply(&exec_manifest(name, &db, &keyed(key, "echo mine >> /count; echo mine")));
    }
    for (name, key) in &attacks[..2] {
        let told = eventually("the neighbour is told", || {
            let status = neighbour.status("cexec", name).to_string();
            status.contains("RunKeyTaken").then_some(status)
        });
        assert!(!told.contains("secret"), "{key}: {told}");
    }
    for (name, key) in &attacks[2..] {
        let status = neighbour.completed(name);
        assert_eq!(
            (&status["restored"], &status["stdout"]["tail"]),
            (&json!(false), &json!("mine\n")),
            "{key}: {status:#}"
        );
    }
    assert_eq!(db.lines("/count").iter().filter(|line| *line == "mine").count(), 2);
    // What is shared on purpose is.
    neighbour.apply(&exec_manifest("open", &db, &keyed("open-1", "echo mine >> /count")));
    assert_eq!(neighbour.completed("open")["restored"], true);
    assert_eq!(db.lines("/count").iter().filter(|line| *line == "ran").count(), 3);
}

pub(crate) fn the_container_of_another_namespace_is_neither_entered_nor_taken(world: &mut World) {
    let mut allowed = plain(world);
    allowed["namespaces"] = json!([format!("{}*", world.namespace)]);
    // By name, as the neighbour may hope.
    allowed["engineContainers"] = json!([{"name": world.container_name("*")}]);
    allowed["stopForeign"] = true.into();
    allowed["removeForeign"] = true.into();
    world.policy = Some(policy_of(&json!([allowed])));
    world.start();
    let world = &*world;
    let mut spec = made(world, "db");
    spec["mode"] = "persistent".into();
    world.apply(&manifest("Container", "db", &spec)).unwrap();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    let db = Container::named(&world.container_name("db"));
    let (id, neighbour) = (db.id(), Neighbour::of(world));
    for (name, target) in [("name", db.name.clone()), ("id", id.clone()), ("short", id[..12].to_owned())] {
        let spec = json!({"command": "touch", "args": ["/ran"], "engineContainer": target});
        neighbour.apply(&manifest("ContainerExec", name, &spec));
        neighbour.refused("cexec", name);
    }
    for mode in ["existing", "cleanup"] {
        for stop in [false, true] {
            let name = format!("{mode}-{stop}");
            let spec = json!({"mode": mode, "containerName": db.name, "stop": stop});
            neighbour.apply(&manifest("Container", &name, &spec));
            neighbour.refused("ctr", &name);
            let through = json!({"command": "touch", "args": ["/ran"], "containerName": name});
            neighbour.apply(&manifest("ContainerExec", &name, &through));
        }
    }
    // The status of an own object is easily written, where a namespace's users may.
    neighbour.apply(&manifest(
        "Container",
        "forged",
        &json!({"mode": "existing", "containerName": "oncelet-nobody-has-this"}),
    ));
    let patch = json!({"status": {"containerId": id, "state": "Running"}}).to_string();
    neighbour.kubectl(&["patch", "ctr", "forged", "--subresource=status", "--type=merge", "-p", &patch]).unwrap();
    neighbour.apply(&manifest(
        "ContainerExec",
        "forged",
        &json!({"command": "touch", "args": ["/ran"], "containerName": "forged"}),
    ));
    neighbour.refused("cexec", "forged");
    neighbour.kubectl(&["delete", "ctr", "--all", "--timeout=30s"]).unwrap();
    assert!(db.is_running() && db.id() == id && is_untouched(&db));
    // Its own namespace enters it, by either name.
    world.apply(&manifest("ContainerExec", "own", &json!({"command": "true", "containerName": "db"}))).unwrap();
    world.completed("own");
    assert_eq!(world.run("by-name", &db, &sh("true"))["exitCode"], 0);
}

pub(crate) fn labels_that_are_forged_open_nothing(world: &mut World) {
    let mut makes = plain(world);
    makes["namespaces"] = json!([format!("{}*", world.namespace)]);
    makes["labels"] = json!(["*"]);
    makes["images"] = json!(["*"]);
    world.policy = Some(policy_of(&json!([
        makes,
        {"namespaces": [world.namespace], "engineContainers": [{"labels": {"team": "a"}}], "honorContainerLabels": true},
    ])));
    world.start();
    let world = &*world;
    let neighbour = Neighbour::of(world);
    // A neighbour's container that passes for one of ours, and is to get our programs with our secrets.
    let mut trap = made(world, "trap");
    trap["labels"] = json!([{"key": "team", "value": "a"}]);
    neighbour.apply(&manifest("Container", "trap", &trap));
    neighbour.kubectl(&["wait", "ctr/trap", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    let trap = Container::named(&world.container_name("trap"));
    world.apply_exec("lured", &trap, &sh("touch /ran"));
    refused(world, "cexec", "lured");
    assert!(is_untouched(&trap));
    // One that passes for a container of ours altogether.
    let mut forged = made(world, "forged");
    forged["labels"] = json!([{"key": "oncelet.dev/container", "value": format!("{}/db", world.namespace)}]);
    let refused_at_once = world.apply(&manifest("Container", "forged", &forged)).unwrap_err();
    assert!(refused_at_once.contains("oncelet's own"), "{refused_at_once}");
    assert!(!there_is(&world.container_name("forged")));

    // An image's labels are not those of whoever runs it.
    let image = format!("oncelet-attacks/{}:1", world.namespace);
    let spec = json!({"image": image}).to_string();
    let owner = format!("oncelet.dev/container={}/db", world.namespace);
    let (spec, invites) = (format!("oncelet.dev/spec={spec}"), "oncelet.dev/allow-namespaces=*");
    let source = world.container("source");
    let changes: Vec<String> = [owner.as_str(), &spec, invites, "team=a"]
        .iter()
        .map(|label| label.split_once('=').unwrap())
        .map(|(key, value)| format!("LABEL {key}={value:?}"))
        .collect();
    let options: Vec<&str> = changes.iter().flat_map(|change| ["--change", change]).collect();
    docker(&[&["commit"], &options[..], &[&source.name, &image]].concat()).unwrap();
    let hostile = Container::named(&world.container_name("hostile"));
    docker(&["run", "--detach", "--name", &hostile.name, &image, "/bin/sleep", "1000000"]).unwrap();
    world.apply_exec("hostile", &hostile, &sh("touch /ran"));
    refused(world, "cexec", "hostile");
    assert!(is_untouched(&hostile));

    // Those of whoever has the engine count.
    let labelled = Container::named(&world.container_name("labelled"));
    labelled.create_with(&["--label", "team=a"]).unwrap();
    assert_eq!(world.run("labelled", &labelled, &sh("true"))["exitCode"], 0);
    let inviting = Container::named(&world.container_name("inviting"));
    let invitation = format!("oncelet.dev/allow-namespaces=x, {}", world.namespace);
    inviting.create_with(&["--label", &invitation]).unwrap();
    assert_eq!(world.run("invited", &inviting, &sh("true"))["exitCode"], 0);
    neighbour.apply(&exec_manifest("uninvited", &inviting, &sh("touch /ran")));
    neighbour.refused("cexec", "uninvited");
    drop(hostile);
    docker(&["rmi", "--force", &image]).unwrap();
}

/// The daemon has ssh keys, and reaches networks that its users do not.
pub(crate) fn an_engine_that_is_not_allowed_is_not_connected_to(world: &mut World) {
    world.policy = Some(rule(world, json!({"engines": ["default"], "engineContainers": [{"name": "*"}]})));
    world.start();
    // An address that nobody had before, so that no client of another test looks for its server here.
    let [_, _, high, low] = world.daemon_pid().to_be_bytes();
    let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 83, high, low), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for (at, engine) in [format!("ssh://{address}"), format!("tcp://{address}")].iter().enumerate() {
        let exec = json!({"command": "true", "engineContainer": "db", "engine": engine});
        world.apply(&manifest("ContainerExec", &format!("e{at}"), &exec)).unwrap();
        let container = json!({"mode": "cleanup", "containerName": "db", "engine": engine});
        world.apply(&manifest("Container", &format!("c{at}"), &container)).unwrap();
        assert!(refused(world, "cexec", &format!("e{at}")).contains("the engine"));
        assert!(refused(world, "ctr", &format!("c{at}")).contains("the engine"));
        // Not for the removal of what it could not have made either, whatever finalizers somebody sets.
        let patch = r#"{"metadata":{"finalizers":["oncelet.dev/remove-container"]}}"#;
        world.kubectl(&["patch", "ctr", &format!("c{at}"), "--type=merge", "-p", patch]).unwrap();
        world.kubectl(&["delete", "ctr", &format!("c{at}"), "--timeout=20s"]).unwrap();
    }
    listener.set_nonblocking(true).unwrap();
    let connected = listener.accept();
    assert!(connected.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{connected:?}");
}

pub(crate) fn a_changed_policy_counts_at_once_and_a_broken_one_never(world: &mut World) {
    let allowed = policy_of(
        &json!([{"namespaces": [world.namespace], "engineContainers": [{"name": world.container_name("db")}]}]),
    );
    world.policy = Some(policy_of(&json!([])));
    world.start();
    let db = world.container("db");
    world.apply_exec("seed", &db, &sh("echo ran >> /count"));
    refused(world, "cexec", "seed");
    assert!(is_untouched(&db));
    // A file that is being edited, and one that grants all but has a word too much.
    let everything = json!({"namespaces": ["*"], "engines": ["*"], "everything": true, "really": true});
    for broken in [policy_of(&json!([everything])), String::new(), "rules: [".to_owned()] {
        let before = world.daemon_log().matches("stays in force").count();
        world.write_policy(&broken);
        eventually("the broken policy is told", || {
            (world.daemon_log().matches("stays in force").count() > before).then_some(())
        });
    }
    world.apply_exec("late", &db, &sh("echo ran >> /count"));
    refused(world, "cexec", "late");
    // What was refused is looked at again by itself.
    world.write_policy(&allowed);
    for name in ["seed", "late"] {
        assert_eq!(world.completed(name)["exitCode"], 0);
        world.condition("cexec", name, "Allowed", "True", "Policy");
    }
    world.write_policy("{");
    eventually("the broken policy is told", || {
        (world.daemon_log().matches("stays in force").count() > 3).then_some(())
    });
    assert_eq!(world.run("after", &db, &sh("echo ran >> /count"))["exitCode"], 0);
    assert_eq!(db.lines("/count").len(), 3);
    // A daemon that finds a broken one at its start does not start.
    world.stop();
    world.policy = Some("{".to_owned());
    let file = world.dir.path().join("broken.yaml");
    std::fs::write(&file, "{").unwrap();
    let (command, file) = (if world.is_embedded() { "up" } else { "controller" }, file.to_str().unwrap().to_owned());
    let told = world.oncelet(&[command, "--policy", &file]).unwrap_err();
    assert!(told.contains("broken.yaml"), "{told}");
}

pub(crate) fn what_goes_on_when_the_policy_changes_goes_on_and_nothing_else_starts(world: &mut World) {
    let allowed =
        json!([{"namespaces": [world.namespace], "engineContainers": [{"name": world.container_name("db")}]}]);
    world.policy = Some(policy_of(&allowed));
    world.start();
    let db = world.container("db");
    world.run("over", &db, &sh("echo secret"));
    world.apply_exec("long", &db, &sh("while [ ! -e /go ]; do sleep 0.1; done; echo ended"));
    world.wait("long", "Started");
    world.write_policy(&policy_of(&json!([])));
    refused(world, "cexec", "long");
    refused(world, "cexec", "over");
    assert_eq!(world.status("long")["state"], "Running");
    // A new object of the same name gets nothing of what was.
    world.delete("over");
    world.apply_exec("over", &db, &sh("echo secret"));
    refused(world, "cexec", "over");
    let status = world.status("over");
    assert!(status["stdout"].is_null() && status["runId"].is_null(), "{status:#}");
    db.sh("touch /go").unwrap();
    let status = world.completed("long");
    assert_eq!((&status["exitCode"], &status["stdout"]["tail"]), (&json!(0), &json!("ended\n")));
    world.write_policy(&policy_of(&allowed));
    assert_eq!(world.completed("over")["restored"], true);
}

/// An upgrade, or another policy, must neither start a program again nor give it to whoever asks.
pub(crate) fn a_run_from_when_keys_were_shared_is_neither_repeated_nor_shown_to_others(world: &mut World) {
    let names = json!([format!("{}*", world.namespace)]);
    let everything = policy_of(&json!([{"namespaces": names, "everything": true}]));
    let own_keys =
        policy_of(&json!([{"namespaces": names, "engineContainers": [{"name": world.container_name("db")}]}]));
    world.policy = Some(everything.clone());
    world.start();
    let world = &*world;
    let db = world.container("db");
    let mut spec = sh("echo ran >> /count; echo secret");
    spec["runKey"] = "schema".into();
    let first = world.run("seed", &db, &spec);
    assert_eq!(first["restored"], false);

    world.write_policy(&own_keys);
    eventually("the policy is read", || world.daemon_log().contains("read again").then_some(()));
    let neighbour = Neighbour::of(world);
    neighbour.apply(&exec_manifest("seed", &db, &spec));
    let told = eventually("the neighbour is told", || {
        let status = neighbour.status("cexec", "seed");
        let started = status["conditions"].as_array()?.iter().find(|it| it["type"] == "Started")?;
        (started["reason"] == "RunKeyTaken").then(|| status.to_string())
    });
    assert!(!told.contains("secret") && told.contains("sharedRunKeys"), "{told}");
    // The object for which it ran shows it, whatever calls for a look; a new one of its name cannot be told from others'.
    world.kubectl(&["annotate", "cexec", "seed", "look=again"]).unwrap();
    assert_eq!(world.completed("seed")["runId"], first["runId"]);
    world.delete("seed");
    world.apply_exec("seed", &db, &spec);
    world.condition("cexec", "seed", "Started", "False", "RunKeyTaken");
    assert_eq!(db.lines("/count").len(), 1);

    // What ran as the namespace's own stays its own when keys are shared again.
    spec["runKey"] = "other".into();
    let own = world.run("own", &db, &spec);
    world.write_policy(&everything);
    assert_eq!(world.completed("seed")["runId"], first["runId"]);
    world.delete("own");
    assert_eq!(world.run("own", &db, &spec)["runId"], own["runId"]);
    assert_eq!(db.lines("/count").len(), 2);
}

pub(crate) fn a_controller_of_some_namespaces_looks_at_no_other(world: &mut World) {
    if world.is_embedded() {
        // Its server is the user's own, and so are all its namespaces.
        assert!(world.oncelet(&["up", "--namespace", "x"]).unwrap_err().contains("--namespace"));
        return;
    }
    let second = format!("{}-c", world.namespace);
    world.daemon_args = vec!["--namespace".to_owned(), format!("{},{second}", world.namespace)];
    // As somebody who has the documented Role there, and no other right.
    let account = format!("{}:oncelet", world.namespace);
    for namespace in [&world.namespace, &second] {
        world.kubectl(&["create", "namespace", namespace]).unwrap();
        let role = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/role.yaml");
        world.kubectl(&["--namespace", namespace, "apply", "-f", role]).unwrap();
        let bind = ["create", "rolebinding", "oncelet", "--role", "oncelet", "--serviceaccount", &account];
        world.kubectl(&[&["--namespace", namespace], &bind[..]].concat()).unwrap();
    }
    world.kubectl(&["create", "serviceaccount", "oncelet"]).unwrap();
    let token = world.kubectl(&["create", "token", "oncelet"]).unwrap();
    let own = world.kubectl(&["config", "view", "--raw", "-o", "json"]).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&own).unwrap();
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    let file = world.dir.path().join("limited.json");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    world.daemon_kubeconfig = Some(file);
    world.start();
    let world = &*world;
    let db = world.container("db");
    let other = Neighbour::of(world);
    other.apply(&exec_manifest("seed", &db, &sh("touch /ran")));
    assert_eq!(world.run("seed", &db, &sh("true"))["exitCode"], 0);
    let neighbour = Neighbour { world, name: second };
    neighbour.apply(&exec_manifest("seed", &db, &sh("true")));
    neighbour.completed("seed");
    eventually("events are written", || {
        let events = world.kubectl(&["get", "events", "--field-selector", "reason=Finished", "-o", "name"]).ok()?;
        (!events.is_empty()).then_some(())
    });
    assert!(other.status("cexec", "seed").is_null() && db.sh("test ! -e /ran").is_ok());
}
