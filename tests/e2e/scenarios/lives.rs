//! Containers that end, pause or change under a program, whatever the engine's streams do.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::world::{World, exec_manifest, list, manifest, sh};

/// What a test allows between what an engine says of one moment in two places.
const ABOUT: SignedDuration = SignedDuration::from_millis(1500);
/// Less than what the nets under lost events are wide.
const SOON: Duration = Duration::from_secs(20);

const WAITS: &str = "echo started >> /data/starts; echo before; exec sleep 1000";

/// A container that sees the processes of its host: the engine's stream of an exec does not end with it.
fn with_the_hosts_processes(world: &World, name: &str) -> Container {
    let name = world.container_name(name);
    docker(&["run", "--detach", "--pid=host", "--name", &name, IMAGE, "/bin/sleep", "1000000"]).unwrap();
    Container::named(&name)
}

fn attached(script: &str) -> Value {
    let mut spec = sh(script);
    spec["capture"] = "Attached".into();
    spec
}

/// The run of `key` once it is over, as the store has it.
fn ended(world: &World, key: &str) -> Value {
    eventually(&format!("the run of {key} is over"), || {
        let shown: Value = serde_json::from_str(&world.oncelet(&["runs", "show", key, "-o", "json"]).ok()?).unwrap();
        (!finished_at(&shown).is_null()).then_some(shown)
    })
}

fn finished_at(shown: &Value) -> &Value {
    &shown["state"]["finishedAt"]
}

fn is_about(shown: &Value, at: Timestamp) {
    let finished: Timestamp = finished_at(shown).as_str().unwrap().parse().unwrap();
    let off = finished.duration_since(at).abs();
    assert!(off < ABOUT, "it is dated {finished}, {off:#} from {at}: {shown:#}");
}

fn is_interrupted(shown: &Value) {
    assert!(shown.to_string().contains("Interrupted"), "{shown:#}");
}

fn is_running(world: &World, name: &str) {
    eventually(&format!("{name} runs"), || {
        let state = world.kubectl(&["get", "cexec", name, "-o", "jsonpath={.status.state}"]);
        (state.as_deref() == Ok("Running")).then_some(())
    });
}

fn inspected(container: &Container, field: &str) -> Timestamp {
    docker(&["inspect", "--format", &format!("{{{{.State.{field}}}}}"), &container.name]).unwrap().parse().unwrap()
}

/// By the engine's clock.
fn now() -> Timestamp {
    docker(&["info", "--format", "{{.SystemTime}}"]).unwrap().parse().unwrap()
}

/// A client of the command line that waits for the end of a program.
fn client(world: &World, container: &Container, name: &str) -> Child {
    let args = ["exec", "--namespace", &world.namespace, "--name", name, &container.name, "--", "/bin/sh", "-c", WAITS];
    world.oncelet_command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub(crate) fn a_container_with_the_hosts_processes_interrupts_what_ran_in_it_when_it_ends(world: &mut World) {
    world.start();
    for end in ["restart", "stop", "kill", "rm"] {
        let container = with_the_hosts_processes(world, end);
        let (supervised, witness) = (format!("{end}-supervised"), format!("{end}-attached"));
        let mut client = client(world, &container, &supervised);
        is_running(world, &supervised);
        world.apply_exec(&witness, &container, &attached(WAITS));
        is_running(world, &witness);
        let run = |name: &str| world.status(name)["runId"].to_string();
        let runs = [run(&supervised), run(&witness)];
        let before = now();
        match end {
            "restart" => container.restart(),
            // Podman stops it, and then complains about the execs that it has ended.
            "stop" => drop(docker(&["stop", "--time", "1", &container.name])),
            "kill" => drop(docker(&["kill", &container.name]).unwrap()),
            _ => container.remove(),
        }
        let after = now();
        for run in &runs {
            let shown = ended(world, run);
            is_interrupted(&shown);
            let finished: Timestamp = finished_at(&shown).as_str().unwrap().parse().unwrap();
            assert!((before..=after).contains(&finished), "{end}: {before} to {after}: {shown:#}");
            if end != "rm" {
                is_about(&shown, inspected(&container, "FinishedAt"));
            }
        }
        if end == "restart" {
            assert_eq!(container.lines("/data/starts").len(), 2, "each was started once");
        }
        assert_eq!(client.wait().unwrap().code(), Some(125), "{end}");
    }
}

pub(crate) fn a_removal_that_no_daemon_saw_is_dated_by_the_engine(world: &mut World) {
    world.start();
    let plain = world.container("plain");
    let shared = with_the_hosts_processes(world, "shared");
    for container in [&plain, &shared] {
        let name = if container.name == plain.name { "plain" } else { "shared" };
        world.apply_exec(name, container, &sh(WAITS));
        is_running(world, name);
    }
    let runs = ["plain", "shared"].map(|name| world.status(name)["runId"].to_string());
    world.kill();
    let before = now();
    plain.remove();
    shared.remove();
    let after = now();
    // Long enough that a date of when it was noticed is another one.
    eventually("some time has gone by", || (now() > after + SignedDuration::from_secs(3)).then_some(()));
    world.start();
    for run in runs {
        let shown = ended(world, &run);
        is_interrupted(&shown);
        let finished: Timestamp = finished_at(&shown).as_str().unwrap().parse().unwrap();
        assert!((before..=after).contains(&finished), "{before} to {after}: {shown:#}");
    }
}

/// The event of the end arrives while the container runs again.
pub(crate) fn a_container_that_its_engine_restarts_at_once_interrupts_what_ran_in_it(world: &mut World) {
    const MAIN: &str = "while [ ! -e /data/die ]; do sleep 0.05; done; rm /data/die; exit 1";
    world.start();
    for (name, more) in [("own", None), ("hosts", Some("--pid=host"))] {
        let container = Container::named(&world.container_name(name));
        let run = ["run", "--detach", "--restart=always", "--name", &container.name];
        docker(&[&run[..], more.as_slice(), &[IMAGE, "/bin/sh", "-c", MAIN]].concat()).unwrap();
        let witness = format!("{name}-attached");
        world.apply_exec(name, &container, &sh(WAITS));
        world.apply_exec(&witness, &container, &attached(WAITS));
        is_running(world, name);
        is_running(world, &witness);
        let began = inspected(&container, "StartedAt");
        // The container may end before the answer.
        // Not waited for: the container ends, and with the host's processes the engine may never tell the end of an exec in it.
        docker(&["exec", "--detach", &container.name, "touch", "/data/die"]).unwrap();
        let runs = [name, &witness].map(|name| world.status(name)["runId"].to_string());
        for run in runs {
            let shown = ended(world, &run);
            is_interrupted(&shown);
            let again =
                eventually("it runs again", || Some(inspected(&container, "StartedAt")).filter(|at| *at != began));
            is_about(&shown, again);
        }
        assert_eq!(container.lines("/data/starts").len(), 2, "each was started once");
        world.wait(name, "ContainerReady");
    }
}

fn are_all_ready(world: &World, kind: &str, condition: &str, how_many: usize) -> bool {
    let shown = world.kubectl(&[
        "get",
        kind,
        "-o",
        &format!("jsonpath={{.items[*].status.conditions[?(@.type==\"{condition}\")].status}}"),
    ]);
    shown.unwrap().split_whitespace().filter(|status| *status == "True").count() == how_many
}

/// `docker commit` pauses a container for some milliseconds.
pub(crate) fn conditions_come_back_after_a_pause_of_a_moment(world: &mut World) {
    const OBJECTS: usize = 24;
    world.start();
    let container = Container::named(&world.container_name("db"));
    container.create_again();
    world.apply(&manifest("Container", "db", &json!({"mode": "existing", "containerName": container.name}))).unwrap();
    let spec = sh("echo ran >> /data/runs.log");
    world.apply(&list((0..OBJECTS).map(|n| exec_manifest(&format!("job-{n}"), &container, &spec)))).unwrap();
    eventually("all are complete", || are_all_ready(world, "cexec", "Complete", OBJECTS).then_some(()));
    let is_ready =
        || are_all_ready(world, "cexec", "ContainerReady", OBJECTS) && are_all_ready(world, "ctr", "Ready", 1);
    eventually("all are ready", || is_ready().then_some(()));
    for pauses in [1, 1, 1, 5, 20] {
        for _ in 0..pauses {
            docker(&["pause", &container.name]).unwrap();
            docker(&["unpause", &container.name]).unwrap();
        }
        let since = Instant::now();
        eventually("all are ready again", || is_ready().then_some(()));
        assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
        // What comes late must not turn it back.
        sleep(Duration::from_millis(300));
        eventually("all stay ready", || is_ready().then_some(()));
    }
    // Made anew, as often as goes: the last one counts.
    for _ in 0..3 {
        container.remove();
        container.create_again();
    }
    let id = container.id();
    let since = Instant::now();
    eventually("all tell of the new container", || {
        let shown = world.kubectl(&["get", "cexec", "-o", "jsonpath={.items[*].status.containerId}"]).unwrap();
        let all_tell = shown.split_whitespace().filter(|shown| *shown == id).count() == OBJECTS;
        (all_tell && is_ready() && are_all_ready(world, "cexec", "Complete", OBJECTS)).then_some(())
    });
    eprintln!("it took {:?}", since.elapsed());
    assert_eq!(container.lines("/data/runs.log").len(), OBJECTS);
}

pub(crate) fn conditions_follow_a_health_check_that_goes_back_and_forth(world: &mut World) {
    const OBJECTS: usize = 20;
    world.start();
    let container = Container::named(&world.container_name("db"));
    let spec = json!({
        "mode": "persistent",
        "containerName": container.name,
        "image": IMAGE,
        "command": "/bin/sleep",
        "args": ["1000000"],
        "healthcheck": {"command": ["/bin/test", "-e", "/data/well"], "intervalSeconds": 1, "retries": 1},
    });
    world.apply(&manifest("Container", "db", &spec)).unwrap();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    let mut exec = sh("echo ran");
    exec["containerName"] = "db".into();
    exec["waitFor"] = "Healthy".into();
    container.sh("touch /data/well").unwrap();
    world.apply(&list((0..OBJECTS).map(|n| manifest("ContainerExec", &format!("job-{n}"), &exec)))).unwrap();
    eventually("all are complete", || are_all_ready(world, "cexec", "Complete", OBJECTS).then_some(()));
    for _ in 0..2 {
        for (how, wanted) in [("rm", 0), ("touch", OBJECTS)] {
            container.sh(&format!("{how} /data/well")).unwrap();
            let since = Instant::now();
            eventually("all tell of the health", || {
                are_all_ready(world, "cexec", "ContainerReady", wanted).then_some(())
            });
            assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
        }
    }
}
