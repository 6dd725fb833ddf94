//! Real databases, seeded once, and ports that are waited for.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::docker::{Container, IMAGE, MARIADB, POSTGRES, docker};
use crate::process::eventually;
use crate::world::{World, exec_manifest, list, manifest, sh};

fn apply(world: &World, db: &Container) {
    let container = json!({
        "mode": "persistent",
        "containerName": db.name,
        "image": POSTGRES,
        "env": [{"name": "POSTGRES_PASSWORD", "value": "only-for-me"}],
        "ports": [{"containerPort": 5432}],
        "healthcheck": {"command": ["pg_isready", "-h", "127.0.0.1"], "intervalSeconds": 1},
    });
    let sql = "CREATE TABLE pets (name text); INSERT INTO pets VALUES ('Rex'), ('Mia')";
    let seed = json!({
        "containerName": "db",
        "waitFor": "Healthy",
        "waitForPort": {"port": 5432},
        "command": "psql",
        "args": ["-v", "ON_ERROR_STOP=1", "-c", sql],
    });
    world.apply(&manifest("Container", "db", &container)).unwrap();
    world.apply(&manifest("ContainerExec", "seed", &seed)).unwrap();
}

fn seeded(world: &World, first: Option<&Value>) -> Value {
    let status = world.completed("seed");
    assert_eq!((&status["exitCode"], &status["stderr"]["tail"]), (&0.into(), &"".into()), "{status:#}");
    if let Some(first) = first {
        assert_eq!((&status["runId"], &status["restored"]), (&first["runId"], &true.into()));
    }
    status
}

fn pets(db: &Container) -> Vec<String> {
    let rows = db.sh("psql --tuples-only --no-align -c 'SELECT name FROM pets ORDER BY name'").unwrap();
    rows.lines().map(str::to_owned).collect()
}

/// The story that oncelet is for. The seed is one that would fail, or double the rows, if it ran again.
pub(crate) fn a_database_is_seeded_once_across_restarts_of_everything(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply(world, &db);
    let first = seeded(world, None);
    assert_eq!(pets(&db), ["Mia", "Rex"]);

    // The application ends badly, and comes again.
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();
    world.kill();
    world.start();
    apply(world, &db);
    seeded(world, Some(&first));

    // The database is restarted, once beside the daemon and once without one.
    db.restart();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Healthy", "--timeout=60s"]).unwrap();
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();
    world.stop();
    db.stop();
    world.start();
    apply(world, &db);
    seeded(world, Some(&first));
    world.kubectl(&["wait", "ctr/db", "--for=condition=Healthy", "--timeout=60s"]).unwrap();
    assert_eq!(pets(&db), ["Mia", "Rex"]);
}

/// A database whose image runs a temporary server at its first start.
struct Database {
    image: &'static str,
    password: &'static str,
    port: u16,
    /// A health check over the socket, as many recipes have it.
    over_the_socket: &'static [&'static str],
    /// A seed that takes its time.
    slow: &'static [&'static str],
    seed: &'static [&'static str],
}

pub(crate) fn a_seed_that_waits_for_the_port_lands_in_the_real_postgres(world: &mut World) {
    let postgres = Database {
        image: POSTGRES,
        password: "POSTGRES_PASSWORD",
        port: 5432,
        over_the_socket: &["pg_isready"],
        slow: &["psql", "-c", "CREATE TABLE cut_off ()", "-c", "SELECT pg_sleep(1000)"],
        seed: &["psql", "-v", "ON_ERROR_STOP=1", "-c", "CREATE TABLE whole ()"],
    };
    seeded_in_the_real_server(world, &postgres);
}

pub(crate) fn a_seed_that_waits_for_the_port_lands_in_the_real_mariadb(world: &mut World) {
    let mariadb = Database {
        image: MARIADB,
        password: "MARIADB_ROOT_PASSWORD",
        port: 3306,
        over_the_socket: &["mariadb", "-u", "root", "-ponly-for-me", "-e", "SELECT 1"],
        slow: &["mariadb", "-u", "root", "-ponly-for-me", "-e", "CREATE DATABASE cut_off; DO SLEEP(1000)"],
        seed: &["mariadb", "-u", "root", "-ponly-for-me", "-e", "CREATE DATABASE whole"],
    };
    seeded_in_the_real_server(world, &mariadb);
}

/// The seed that relies on the health over the socket is cut off when the temporary server ends, which proves that there is one;
/// the seed that waits for the port is whole.
fn seeded_in_the_real_server(world: &mut World, database: &Database) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    // The temporary server goes on until it is told not to.
    let scripts = world.dir.path().join("scripts");
    std::fs::create_dir(&scripts).unwrap();
    for path in [world.dir.path(), &scripts] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let wait = "until test -e /docker-entrypoint-initdb.d/go; do sleep 0.1; done\n";
    std::fs::write(scripts.join("wait.sh"), wait).unwrap();
    let container = json!({
        "containerName": db.name,
        "image": database.image,
        "env": [{"name": database.password, "value": "only-for-me"}],
        "volumeMounts": [
            {"type": "bind", "source": scripts, "target": "/docker-entrypoint-initdb.d", "readOnly": true}
        ],
        "healthcheck": {"command": database.over_the_socket, "intervalSeconds": 1},
    });
    world.apply(&manifest("Container", "db", &container)).unwrap();
    let exec = |command: &[&str]| json!({"containerName": "db", "command": command[0], "args": command[1..], "waitFor": "Healthy"});
    world.apply(&manifest("ContainerExec", "slow", &exec(database.slow))).unwrap();
    let mut seed = exec(database.seed);
    seed["waitForPort"] = json!({"port": database.port});
    world.apply(&manifest("ContainerExec", "seed", &seed)).unwrap();

    world.wait("slow", "Started");
    let message = world.condition("cexec", "seed", "ContainerReady", "False", "PortNotReady");
    let wanted = format!("container {} accepts no connection on port {} yet (", db.name, database.port);
    assert!(message.starts_with(&wanted) && message.contains("connection refused"), "{message}");

    std::fs::write(scripts.join("go"), "").unwrap();
    let slow = world.completed("slow");
    assert!(slow["exitCode"] != 0, "the temporary server went on under its client: {slow:#}");
    let seed = world.completed("seed");
    assert_eq!((&seed["exitCode"], &seed["stderr"]["tail"]), (&0.into(), &"".into()), "{seed:#}");
}

const PORT: u16 = 7000;

/// A program that waits for the port of [`listen`] and leaves a file.
fn waits_for_port(container: &Container, name: &str, wanted: &Value) -> String {
    let mut spec = sh(&format!("touch /tmp/{name}"));
    spec["waitForPort"] = wanted.clone();
    spec["waitForPort"]["port"] = PORT.into();
    exec_manifest(name, container, &spec)
}

/// Starts a server in the container that accepts whatever comes, until the container stops.
fn listen(container: &Container) {
    docker(&["exec", "--detach", &container.name, "nc", "-ll", "-p", &PORT.to_string(), "-e", "true"]).unwrap();
}

/// How many supervisors there are in the container.
fn supervisors(container: &Container) -> usize {
    container.sh("ps -o args").unwrap().lines().filter(|line| line.starts_with("/.oncelet/")).count()
}

pub(crate) fn a_port_that_opens_and_closes_again_is_not_ready(world: &mut World) {
    world.start();
    let container = world.container("box");
    world.apply(&waits_for_port(&container, "app", &json!({"stableSeconds": 3}))).unwrap();
    for _ in 0..3 {
        world.condition("cexec", "app", "ContainerReady", "False", "PortNotReady");
        // It ends when it has accepted one connection.
        container.sh(&format!("nc -l -p {PORT} </dev/null")).unwrap();
    }
    world.condition("cexec", "app", "ContainerReady", "False", "PortNotReady");
    assert!(container.sh("test -e /tmp/app").is_err(), "it was started too early");
    listen(&container);
    let begun = Instant::now();
    world.completed("app");
    assert!(begun.elapsed() >= Duration::from_secs(3), "it has been open for less than it must be");
    assert!(world.kubectl(&["describe", "cexec", "app"]).unwrap().contains("accepts no connection on port 7000 yet"));
}

pub(crate) fn a_port_that_does_not_open_is_told_and_waited_for(world: &mut World) {
    world.start();
    let container = world.container("box");
    let lonely = Container::named(&world.container_name("lonely"));
    docker(&["run", "--detach", "--name", &lonely.name, "--network", "none", IMAGE, "sleep", "1000000"]).unwrap();
    let wanted = json!({"timeoutSeconds": 1, "stableSeconds": 0});
    world.apply(&waits_for_port(&container, "app", &wanted)).unwrap();
    world.apply(&waits_for_port(&lonely, "lonely", &json!({}))).unwrap();

    let message = world.condition("cexec", "app", "ContainerReady", "False", "PortTimeout");
    assert!(message.contains("waitForPort.timeoutSeconds (1) is over: the program has not run"), "{message}");
    eventually("an event tells it", || {
        let events = world.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]).unwrap();
        events.contains("timeoutSeconds (1) is over").then_some(())
    });
    assert!(world.oncelet(&["explain", "app", "--namespace", &world.namespace]).unwrap().contains("port 7000"));
    let message = world.condition("cexec", "lonely", "ContainerReady", "False", "PortNotReady");
    assert!(message.contains("has no network address of its own"), "{message}");

    listen(&container);
    assert_eq!(world.completed("app")["exitCode"], 0, "the program was never started before, so nothing is used up");

    let attached = json!({"command": "true", "capture": "Attached", "waitForPort": {"port": PORT}});
    let refused = world.apply(&exec_manifest("attached", &container, &attached)).unwrap_err();
    assert!(refused.contains("waitForPort needs a supervisor"), "{refused}");
    for port in [0, 65_536] {
        let spec = json!({"command": "true", "waitForPort": {"port": port}});
        world.apply(&exec_manifest("wrong", &container, &spec)).unwrap_err();
    }
}

pub(crate) fn what_is_known_of_a_port_ends_with_the_life_of_the_container(world: &mut World) {
    world.start();
    let container = world.container("box");
    world.apply(&waits_for_port(&container, "first", &json!({}))).unwrap();
    world.condition("cexec", "first", "ContainerReady", "False", "PortNotReady");
    container.stop();
    world.condition("cexec", "first", "ContainerReady", "False", "ContainerNotRunning");
    container.start();
    world.condition("cexec", "first", "ContainerReady", "False", "PortNotReady");
    listen(&container);
    world.completed("first");

    // Known in this life, also to those that come later; not in the next.
    world.apply(&waits_for_port(&container, "second", &json!({}))).unwrap();
    world.completed("second");
    container.restart();
    world.apply(&waits_for_port(&container, "third", &json!({}))).unwrap();
    world.condition("cexec", "third", "ContainerReady", "False", "PortNotReady");
    // A daemon that comes meanwhile waits on.
    world.kill();
    world.start();
    world.apply(&waits_for_port(&container, "third", &json!({}))).unwrap();
    world.condition("cexec", "third", "ContainerReady", "False", "PortNotReady");
    listen(&container);
    world.completed("third");
    // What ran is restored although nobody listens.
    container.restart();
    world.delete("third");
    world.apply(&waits_for_port(&container, "third", &json!({}))).unwrap();
    assert_eq!(world.completed("third")["restored"], true);
}

pub(crate) fn many_execs_that_wait_for_a_port_share_one_probe(world: &mut World) {
    world.start();
    let container = world.container("box");
    let names: Vec<_> = (0..20).map(|number| format!("app-{number}")).collect();
    let all = list(names.iter().map(|name| waits_for_port(&container, name, &json!({}))));
    world.apply(&all).unwrap();
    for name in &names {
        world.condition("cexec", name, "ContainerReady", "False", "PortNotReady");
    }
    assert_eq!(supervisors(&container), 1);
    // It ends with the last that waits.
    world.kubectl(&["delete", "cexec", "--all"]).unwrap();
    eventually("nobody waits any more", || (supervisors(&container) == 0).then_some(()));
    world.apply(&all).unwrap();
    listen(&container);
    for name in &names {
        world.completed(name);
    }
}
