//! One container has one memory, and a follower follows one run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use super::people::{oncelet, oncelet_command, outcome};
use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{Server, World, exec_manifest, manifest, sh};

fn execs(world: &World) -> Vec<String> {
    world.kubectl(&["get", "cexec", "-o", "name"]).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn every_spelling_of_a_container_is_one_run_and_one_object(world: &mut World) {
    world.start();
    let db = world.container("db");
    let id = db.id();
    let program = ["/bin/sh", "-c", "echo run >> /data/runs.log; echo out; exit 3"];
    let ask = |world: &World, container: &str| {
        let (code, stdout, stderr) = oncelet(world, &["exec", container], &program);
        assert_eq!((code, stdout.as_str()), (3, "out\n"), "{container}: {stderr}");
    };
    for spelling in [&db.name, &id, &id[..12], &id[..20], &format!("/{}", db.name)] {
        ask(world, spelling);
    }
    assert_eq!(execs(world).len(), 1);
    // Beside an object of the container.
    let spec = json!({"mode": "existing", "containerName": db.name});
    world.apply(&manifest("Container", "ours", &spec)).unwrap();
    world.kubectl(&["wait", "ctr/ours", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    ask(world, "ours");
    ask(world, &id);
    assert_eq!(execs(world).len(), 1);
    world.kubectl(&["delete", "cexec", "--all"]).unwrap();
    ask(world, "ours");
    ask(world, &db.name);
    assert_eq!(execs(world).len(), 1);
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
    // Another container that takes the name is another one.
    world.kubectl(&["delete", "ctr", "ours"]).unwrap();
    let old = Container::named(&format!("{}-old", db.name));
    docker(&["rename", &db.name, &old.name]).unwrap();
    db.create_again();
    ask(world, &db.name);
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
    // And the old one is still known, although the object that asked for it named it as the new one is named.
    ask(world, &old.name);
    ask(world, &id);
    assert_eq!(old.lines("/data/runs.log"), ["run"]);
}

/// The container's name goes to another one while a program runs in it.
pub(crate) fn a_follower_ends_with_its_run_when_the_container_is_replaced(world: &mut World) {
    world.start();
    for is_renamed in [true, false] {
        let db = world.container(&format!("db-{is_renamed}"));
        let old = Container::named(&format!("{}-old", db.name));
        db.sh("echo first > /data/generation").unwrap();
        let name = format!("job-{is_renamed}");
        let script = "echo $(cat /data/generation) begins; while [ ! -e /data/go ]; do sleep 0.05; done; \
                      echo $(cat /data/generation) ends; exit 6";
        let client = |command: &[&str], program: &[&str]| {
            let mut client = oncelet_command(world, command, program);
            client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let exec = client(&["exec", "--name", &name, &db.name], &["/bin/sh", "-c", script]);
        eventually("there is an object", || execs(world).iter().any(|it| it.ends_with(&name)).then_some(()));
        world.wait(&name, "Started");
        let mut waiting = client(&["wait", &name], &[]);
        let mut line = String::new();
        let mut stdout = BufReader::new(waiting.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "first begins\n", "it follows the first run");
        let run = world.status(&name)["runId"].clone();
        if is_renamed {
            docker(&["rename", &db.name, &old.name]).unwrap();
            db.create_again();
            old.remove();
        } else {
            db.remove();
            db.create_again();
        }
        eventually("the object goes over to the new container", || {
            let status = world.status(&name);
            (status["state"] == "Running" && status["runId"] != run).then_some(())
        });
        for (client, output) in [(exec, "first begins\n"), (waiting, "")] {
            let (code, stdout, stderr) = outcome(client.wait_with_output().unwrap());
            assert_eq!((code, stdout.as_str()), (125, output), "{stderr}");
            // Between a removal and the next container the end of the run may be seen.
            if !is_renamed && stderr.contains("while the program ran") {
                continue;
            }
            for part in [
                format!("{} was replaced", db.name),
                format!("oncelet runs show {run}"),
                format!("oncelet wait {name}"),
            ] {
                assert!(stderr.contains(&part), "{part:?} is not in {stderr}");
            }
        }
        assert_eq!(stdout.lines().count(), 0, "nothing of the second run");
        // The second run, with its own code.
        db.sh("echo second > /data/generation; touch /data/go").unwrap();
        let (code, stdout, stderr) = oncelet(world, &["wait", &name], &[]);
        assert!(code == 6 && stdout.ends_with("second ends\n") && !stdout.contains("first"), "{stdout}{stderr}");
    }
}

/// The container goes, and no other one comes in its place.
pub(crate) fn a_follower_ends_when_the_container_is_removed(world: &mut World) {
    world.start();
    let db = world.container("db");
    let script = "echo begins; sleep 1000";
    let exec = oncelet_command(world, &["exec", "--name", "job", &db.name], &["/bin/sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("there is an object", || execs(world).iter().any(|it| it.ends_with("job")).then_some(()));
    world.wait("job", "Started");
    let wait =
        oncelet_command(world, &["wait", "job"], &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    db.remove();
    for client in [exec, wait] {
        let (code, stdout, stderr) = outcome(client.wait_with_output().unwrap());
        assert_eq!((code, stdout.as_str()), (125, "begins\n"), "{stderr}");
        assert!(stderr.contains("while the program ran"), "{stderr}");
    }
    // The object that is still there says so, and the program runs once more where the container is made again.
    assert_eq!(world.completed("job")["state"], "Interrupted");
    db.create_again();
    eventually("it runs in the new container", || (world.status("job")["state"] == "Running").then_some(()));
}

pub(crate) fn the_log_endpoint_stays_with_the_run_that_it_opened(world: &mut World) {
    world.start();
    let db = world.container("db");
    let path = |name: &str, query: &str| {
        format!("/apis/oncelet.dev/v1alpha1/namespaces/{}/containerexecs/{name}/log?{query}", world.namespace)
    };
    let job = sh("echo one $(hostname); while [ ! -e /data/go ]; do sleep 0.05; done; echo end; exit 2");
    world.apply_exec("job", &db, &job);
    let first = world.wait("job", "Started")["runId"].clone();
    let mut follow = world.kubectl_command();
    let mut follow = follow.args(["get", "--raw", &path("job", "follow=true")]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let begun = lines.next().unwrap().unwrap();
    db.remove();
    db.create_again();
    eventually("the object has gone over to another run", || {
        let status = world.status("job");
        (status["state"] == "Running" && status["runId"] != first).then_some(())
    });
    assert!(lines.next().is_none(), "it ends with the first run");
    assert!(follow.wait().unwrap().success());
    let log = |name: &str, query: &str| world.kubectl(&["get", "--raw", &path(name, query)]);
    assert_eq!(log("job", &format!("run={first}")).unwrap(), format!("{begun}\n"));
    assert_eq!(log("job", &format!("run={first}&offset=4")).unwrap(), format!("{}\n", &begun[4..]));
    db.sh("touch /data/go").unwrap();
    world.completed("job");
    assert!(log("job", "").unwrap().ends_with("end\n"));
    // A run is shown by the objects that it is remembered for.
    world.run("other", &db, &sh("echo other"));
    let refused = log("other", &format!("run={first}")).unwrap_err();
    assert!(refused.contains(&format!("no run {first} of ContainerExec other")), "{refused}");
}

pub(crate) fn a_name_goes_with_the_container_that_is_meant_now(world: &mut World) {
    world.start();
    let db = world.container("db");
    let program = ["/bin/sh", "-c", "echo run >> /data/runs.log; hostname"];
    let ask = |world: &World, container: &str| oncelet(world, &["exec", "--name", "job", container], &program);
    let (code, first, stderr) = ask(world, &db.id());
    assert_eq!(code, 0, "{stderr}");
    // Another spelling is the same request.
    let (code, stdout, stderr) = ask(world, &db.name);
    assert!(code == 0 && stdout == first && !stderr.contains("replaced"), "{stderr}");
    db.remove();
    db.create_again();
    let (code, second, stderr) = ask(world, &db.id());
    assert!(code == 0 && second != first && stderr.contains("it is replaced"), "{stderr}");
    let other = world.container("other");
    let (code, third, stderr) = ask(world, &other.name);
    assert!(code == 0 && third != second && stderr.contains("it is replaced"), "{stderr}");
    let (code, again, stderr) = ask(world, &db.name);
    assert!(code == 0 && again == second && stderr.contains("it ran before"), "{stderr}");
    assert_eq!((db.lines("/data/runs.log").len(), other.lines("/data/runs.log").len()), (1, 1));
    let (code, _, stderr) = oncelet(world, &["exec", "--name", "job", &db.name], &["/bin/true"]);
    assert!(code == 1 && stderr.contains("another program"), "{stderr}");
}

pub(crate) fn a_container_that_cannot_be_meant_is_refused_before_anything_is_made(world: &mut World) {
    world.start();
    let missing = world.container_name("missing");
    for (container, told) in [
        ("", "the container is empty"),
        ("  ", "the container is empty"),
        (&missing, "has no container"),
        ("a b", "is not a container"),
    ] {
        let (code, _, stderr) = oncelet(world, &["exec", container], &["/bin/true"]);
        assert!(code == 1 && stderr.contains(told), "{container:?}: {stderr}");
    }
    // Of seventeen IDs two begin with the same digit.
    let made: Vec<_> =
        (0..17).map(|number| Container::named(&world.container_name(&format!("many-{number}")))).collect();
    let ids: Vec<_> =
        made.iter().map(|it| docker(&["create", "--name", &it.name, IMAGE, "/bin/true"]).unwrap()).collect();
    let twice = ids.iter().find(|id| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1).unwrap();
    let (code, _, stderr) = oncelet(world, &["exec", &twice[..1]], &["/bin/true"]);
    assert!(code == 1 && stderr.contains("several containers"), "{stderr}");
    assert!(execs(world).is_empty());
}

pub(crate) fn output_is_there_with_nothing_but_a_kubeconfig(world: &mut World) {
    world.start();
    let db = world.container("db");
    // A store of somebody else, whose runs have the same numbers.
    let mut decoy = World::with_engine(Server::Embedded, world.engine_host());
    decoy.start();
    let theirs = decoy.container("db");
    for name in ["one", "two", "three"] {
        decoy.run(name, &theirs, &sh("echo of somebody else"));
    }
    let ask = |data_dir: &Path, command: &[&str], program: &[&str]| {
        let mut oncelet = oncelet_command(world, command, program);
        oncelet.env_remove("ONCELET_KUBECONFIG").env("KUBECONFIG", world.kubeconfig());
        outcome(oncelet.env("ONCELET_DATA_DIR", data_dir).output().unwrap())
    };
    let program = ["/bin/sh", "-c", "printf 'a\\000\\n'; echo err >&2; exit 3"];
    let none = world.dir.path().join("none");
    for (data_dir, told) in [(none, "there is no run store"), (decoy.data_dir(), "is not the daemon's")] {
        for (command, program) in [
            (&["exec", "--name", "job", &db.name][..], &program[..]),
            (&["exec", "--name", "job", &db.name], &program),
            (&["wait", "job"], &[]),
            (&["rerun", "--wait", "job"], &[]),
        ] {
            let (code, stdout, stderr) = ask(&data_dir, command, program);
            assert_eq!(code, 3, "{command:?}: {stderr}");
            if world.is_embedded() {
                assert_eq!(stdout, "a\0\n", "{command:?}: {stderr}");
                assert!(stderr.contains("err\n"), "{command:?}: {stderr}");
            } else {
                assert_eq!(stdout, "", "{command:?}");
                assert!(stderr.contains(told) && stderr.contains("oncelet logs "), "{command:?}: {stderr}");
            }
        }
        let (code, stdout, stderr) = ask(&data_dir, &["logs", "job"], &[]);
        if world.is_embedded() {
            assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "a\0\n", "err\n"));
            assert_eq!(ask(&data_dir, &["logs", "job", "--stderr"], &[]).1, "err\n");
            let (_, stamped, _) = ask(&data_dir, &["logs", "job", "--stdout", "--timestamps"], &[]);
            assert!(stamped.starts_with("20") && stamped.ends_with(" a\0\n"), "{stamped:?}");
        } else {
            assert!(code == 1 && stdout.is_empty() && stderr.contains(told), "{stderr}");
        }
        // A number is one of the store.
        let (code, _, stderr) = ask(&data_dir, &["logs", "1"], &[]);
        assert_eq!(code == 0, told == "is not the daemon's", "{stderr}");
    }
}

pub(crate) fn the_command_line_arrives_as_written(world: &mut World) {
    world.start();
    let db = world.container("db");
    let text = "DO $$ BEGIN $(X) $$(X) ${X} $ $$$$ {{ portFor }}";
    let command = ["exec", "--env", "X=1", "--env", &format!("VALUE={text}"), &db.name];
    let program = ["/bin/sh", "-c", r#"printf '%s|%s|%s' "$1" "$VALUE" "$X""#, "sh", text];
    let (code, stdout, stderr) = oncelet(world, &command, &program);
    assert_eq!((code, stdout), (0, format!("{text}|{text}|1")), "{stderr}");
    // In a manifest Kubernetes' rule stays.
    let spec = json!({"command": "/bin/echo", "args": ["$$(X) $(X) $(Y)"], "env": [{"name": "X", "value": "1"}]});
    world.apply(&exec_manifest("manifest", &db, &spec)).unwrap();
    assert_eq!(world.completed("manifest")["effectiveArgs"], json!(["$(X) 1 $(Y)"]));
}
