//! What a program reads from stdin.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::docker::Container;
use crate::process::{eventually, output};
use crate::world::{World, sh};

/// Bytes of all kinds, the same ones for the same seed.
fn bytes(count: usize, mut seed: u64) -> Vec<u8> {
    let mut all = Vec::with_capacity(count + 8);
    while all.len() < count {
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        all.extend_from_slice(&seed.to_le_bytes());
    }
    all.truncate(count);
    all
}

fn input(world: &World, name: &str, bytes: &[u8]) -> PathBuf {
    let path = world.dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// As sha256sum(1) prints it.
fn sha256(path: &Path) -> String {
    output(Command::new("sha256sum").arg(path)).unwrap().split(' ').next().unwrap().to_owned()
}

/// `oncelet exec ARGS CONTAINER -- /bin/sh -c SCRIPT`.
fn exec(world: &World, args: &[&str], container: &str, script: &str) -> Command {
    let mut command = world.oncelet_command();
    command.arg("exec").args(args).args(["--namespace", &world.namespace, container, "--", "/bin/sh", "-c", script]);
    command
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn spawned(mut command: Command, stdin: Stdio) -> Child {
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The names of uploaded parts.
fn parts(world: &World) -> Vec<String> {
    let listed = world.kubectl(&["get", "secrets", "--selector", "oncelet.dev/stdin", "-o", "name"]).unwrap();
    listed.lines().map(str::to_owned).collect()
}

fn no_parts_stay(world: &World) {
    eventually("what was uploaded is removed", || parts(world).is_empty().then_some(()));
}

fn execs(world: &World) -> Vec<String> {
    world.kubectl(&["get", "cexec", "-o", "name"]).unwrap().lines().map(str::to_owned).collect()
}

fn stdout(world: &World, name: &str) -> Vec<u8> {
    world.oncelet_command().args(["logs", name, "--stdout"]).output().unwrap().stdout
}

fn reads(stdin: Value, script: &str) -> Value {
    let mut spec = sh(script);
    spec["stdin"] = stdin;
    spec
}

pub(crate) fn stdin_from_text_a_config_map_and_a_secret_arrives_byte_for_byte(world: &mut World) {
    const TEXT: &str = "$(HOME) $$ {{ portFor }} ünï\r\nno newline at the end";
    world.start();
    let db = world.container("db");
    world.run("text", &db, &reads(json!({"value": TEXT}), "cat"));
    assert_eq!(String::from_utf8(stdout(world, "text")).unwrap(), TEXT);

    // It waits for what it refers to.
    let blob = bytes(300_000, 7);
    let by_key = |kind: &str, key: &str| json!({kind: {"name": "input", "key": key}});
    world.apply_exec("map", &db, &reads(by_key("configMapKeyRef", "blob"), "cat"));
    let message = world.condition("cexec", "map", "Started", "False", "ConfigMapNotFound");
    assert!(message.contains("stdin: ConfigMap \"input\" not found"), "{message}");
    let file = input(world, "blob", &blob);
    world.kubectl(&["create", "configmap", "input", &format!("--from-file=blob={}", file.display())]).unwrap();
    world.completed("map");
    assert!(stdout(world, "map") == blob);

    let secret = input(world, "secret", b"hunter2\0\xff-never-shown");
    world.kubectl(&["create", "secret", "generic", "input", &format!("--from-file=key={}", secret.display())]).unwrap();
    let status = world.run("secret", &db, &reads(by_key("secretKeyRef", "key"), "sha256sum | cut -d' ' -f1"));
    assert_eq!(status["stdout"]["tail"], format!("{}\n", sha256(&secret)), "{status:#}");

    // What is optional and not there is empty.
    let optional = json!({"secretKeyRef": {"name": "nobody", "key": "key", "optional": true}});
    assert_eq!(world.run("none", &db, &reads(optional, "wc -c"))["stdout"]["tail"], "0\n");

    // The text is in no record, in neither place; and it is a part of the program.
    world.run("kept", &db, &reads(json!({"value": "never kept"}), "wc -c"));
    let shown = world.oncelet(&["runs", "show", "kept", "-o", "yaml"]).unwrap();
    assert!(shown.contains("sha256") && !shown.contains("never kept"), "{shown}");
    assert!(db.sh("grep -r 'never kept' /.oncelet").is_err());
    world.delete("text");
    let status = world.run("text", &db, &reads(json!({"value": "other"}), "cat"));
    assert_eq!(status["restored"], true);
    assert!(world.condition("cexec", "text", "SpecDrifted", "True", "ProgramChanged").contains("another stdin"));

    let attached =
        json!({"command": "cat", "capture": "Attached", "stdin": {"value": "x"}, "engineContainer": db.name});
    let refused = world.apply(&crate::world::manifest("ContainerExec", "attached", &attached)).unwrap_err();
    assert!(refused.contains("stdin") && refused.contains("supervisor"), "{refused}");
    let both = json!({"command": "cat", "engineContainer": db.name, "stdin": {"value": "x", "upload": {"bytes": 1, "sha256": "0".repeat(64)}}});
    let refused = world.apply(&crate::world::manifest("ContainerExec", "both", &both)).unwrap_err();
    assert!(refused.contains("exactly one of value"), "{refused}");
}

const DIGEST: &str = "sha256sum | cut -d' ' -f1; echo run >> /data/runs";

fn runs(db: &Container) -> usize {
    db.lines("/data/runs").len()
}

pub(crate) fn exec_sends_a_large_stdin_once_and_restores_without_it(world: &mut World) {
    world.start();
    let db = world.container("db");
    let large = input(world, "large", &bytes(100_000_000, 42));
    let wanted = format!("{}\n", sha256(&large));
    let send =
        |file: &Path| ended(exec(world, &["-i"], &db.name, DIGEST).stdin(File::open(file).unwrap()).output().unwrap());
    let (code, stdout, stderr) = send(&large);
    assert_eq!((code, stdout), (0, wanted.clone()), "{stderr}");
    no_parts_stay(world);

    // The same input again needs no upload, with and without the object.
    let mut watch = world.kubectl_command();
    let watch = watch.args(["get", "secrets", "--watch-only", "--selector", "oncelet.dev/stdin", "-o", "name"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    for object_stays in [true, false] {
        if !object_stays {
            world.kubectl(&["delete", "cexec", "--all"]).unwrap();
        }
        let (code, stdout, stderr) = send(&large);
        assert_eq!((code, stdout), (0, wanted.clone()), "{stderr}");
        assert!(stderr.contains("it ran before"), "{stderr}");
    }
    assert_eq!(runs(&db), 1);

    // Other input is another run: an empty one, too.
    let small = input(world, "small", b"\0\n");
    for (number, file) in [small, input(world, "empty", b"")].iter().enumerate() {
        let (code, stdout, stderr) = send(file);
        assert_eq!((code, stdout), (0, format!("{}\n", sha256(file))), "{stderr}");
        assert_eq!(runs(&db), number + 2);
    }
    no_parts_stay(world);
    watch.kill().unwrap();
    let mut seen = String::new();
    watch.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    watch.wait().unwrap();
    let seen: std::collections::BTreeSet<_> = seen.lines().collect();
    assert_eq!(seen.len(), 1, "only the two bytes were uploaded: {seen:?}");

    // Once more, with the input of the same command.
    let exec_of_small = execs(world).into_iter().find(|name| {
        let object = world.object("cexec", name.rsplit('/').next().unwrap());
        object["spec"]["stdin"]["upload"]["bytes"] == 2
    });
    let name = exec_of_small.unwrap();
    let name = name.rsplit('/').next().unwrap();
    let (_, _, stderr) =
        ended(world.oncelet_command().args(["rerun", name, "--namespace", &world.namespace]).output().unwrap());
    assert!(stderr.contains("oncelet exec -i"), "{stderr}");
    let message = world.condition("cexec", name, "Started", "False", "StdinNotUploaded");
    assert!(message.contains("oncelet exec -i") && message.contains("same input"), "{message}");
    let (code, _, stderr) = send(&world.dir.path().join("small"));
    assert_eq!((code, runs(&db)), (0, 4), "{stderr}");
    no_parts_stay(world);
}

pub(crate) fn data_on_stdin_is_never_lost_without_a_word(world: &mut World) {
    const LOST: &str = "stdin has data, which would be lost: pass -i";
    world.start();
    let db = world.container("db");
    let file = input(world, "file", b"select 1;\n");
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"select 1;\n").unwrap();
    for stdin in [Stdio::from(File::open(&file).unwrap()), Stdio::from(reader)] {
        let (code, stdout, stderr) = ended(exec(world, &[], &db.name, DIGEST).stdin(stdin).output().unwrap());
        assert_eq!((code, stdout.as_str()), (125, ""), "{stderr}");
        assert!(stderr.contains(LOST) && stderr.contains("/dev/null"), "{stderr}");
    }
    drop(writer);
    let (code, _, stderr) = ended(exec(world, &["-it"], &db.name, DIGEST).stdin(Stdio::null()).output().unwrap());
    assert!(code == 125 && stderr.contains("docker exec -it"), "{stderr}");
    assert_eq!(execs(world), [""; 0], "nothing was asked for");

    // Nothing there, or nothing that comes: it goes on at once.
    let empty = input(world, "empty", b"");
    let (ended_pipe, _) = std::io::pipe().unwrap();
    let (idle, _open) = std::io::pipe().unwrap();
    for stdin in [Stdio::null(), Stdio::from(File::open(&empty).unwrap()), Stdio::from(ended_pipe), Stdio::from(idle)] {
        let (code, _, stderr) = ended(exec(world, &[], &db.name, DIGEST).stdin(stdin).output().unwrap());
        assert_eq!(code, 0, "{stderr}");
    }
    assert_eq!(runs(&db), 1);

    // Before the start it is refused as well, and the request is taken back.
    let stopped = world.container("stopped");
    stopped.stop();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let waiting = spawned(exec(world, &["--name", "waits"], &stopped.name, DIGEST), Stdio::from(reader));
    world_has(world, "waits");
    world.condition("cexec", "waits", "ContainerReady", "False", "ContainerNotRunning");
    writer.write_all(b"late").unwrap();
    let (code, _, stderr) = ended(waiting.wait_with_output().unwrap());
    assert!(code == 125 && stderr.contains(LOST), "{stderr}");
    assert!(!execs(world).iter().any(|name| name.ends_with("/waits")), "the request is taken back");

    // After it, the run is what it is.
    let script = "echo began > /data/began; while [ ! -e /data/go ]; do sleep 0.05; done; echo done";
    let (reader, mut writer) = std::io::pipe().unwrap();
    let running = spawned(exec(world, &["--name", "runs"], &db.name, script), Stdio::from(reader));
    eventually("the program runs", || (!db.lines("/data/began").is_empty()).then_some(()));
    world.wait("runs", "Started");
    writer.write_all(b"late").unwrap();
    db.sh("touch /data/go").unwrap();
    let (code, stdout, stderr) = ended(running.wait_with_output().unwrap());
    assert_eq!((code, stdout.as_str()), (125, "done\n"), "{stderr}");
    assert!(stderr.contains("data arrived on stdin after"), "{stderr}");
    assert_eq!(world.completed("runs")["exitCode"], 0);
}

fn world_has(world: &World, name: &str) {
    eventually("the object is there", || execs(world).iter().any(|it| it.ends_with(&format!("/{name}"))).then_some(()));
}

pub(crate) fn a_daemon_killed_while_stdin_is_uploaded_or_delivered_starts_the_program_once(world: &mut World) {
    let file = input(world, "file", &bytes(8_000_000, 3));
    let wanted = format!("{}\n", sha256(&file));
    // In the middle of the delivery, which a killed daemon begins again.
    world.daemon_env = vec![("ONCELET_FAULT".into(), "stdin-part:kill:4".into())];
    world.start();
    let db = world.container("db");
    let name = db.name.clone();
    let send = |world: &World, as_name: &str, script: &str| {
        spawned(exec(world, &["-i", "--name", as_name], &name, script), Stdio::from(File::open(&file).unwrap()))
    };
    let child = send(world, "fed", DIGEST);
    world.await_end();
    world.daemon_env.clear();
    assert_eq!(runs(&db), 0);
    world.start();
    let (code, stdout, stderr) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, stdout), (0, wanted.clone()), "{stderr}");
    assert_eq!(runs(&db), 1);
    no_parts_stay(world);

    // In the middle of the upload.
    let child = send(world, "second", &format!("{DIGEST}; true"));
    eventually("a part is there", || (!parts(world).is_empty()).then_some(()));
    world.kill();
    world.start();
    let (code, stdout, stderr) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, stdout), (0, wanted.clone()), "{stderr}");
    assert_eq!(runs(&db), 2);

    // While the program reads: it has all of it already.
    let script = format!("echo began > /data/began; while [ ! -e /data/go ]; do sleep 0.05; done; {DIGEST}");
    let child = send(world, "third", &script);
    eventually("the program runs", || (!db.lines("/data/began").is_empty()).then_some(()));
    world.kill();
    db.sh("touch /data/go").unwrap();
    world.start();
    let (code, stdout, stderr) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, stdout), (0, wanted), "{stderr}");
    assert_eq!(runs(&db), 3);
    no_parts_stay(world);
}
