//! An engine that several share, and an engine that is nobody's friend.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::docker::{Container, IMAGE, docker};
use crate::process::eventually;
use crate::scenarios::telemetry::{get, start_with_metrics};
use crate::world::{Server, World, list, manifest, sh};

/// A container that keeps what is written into it, in itself.
fn persistent(name: &str, greeting: &str) -> Value {
    json!({
        "mode": "persistent", "containerName": name, "image": IMAGE, "command": "/bin/sleep", "args": ["1000000"],
        "env": [{"name": "GREETING", "value": greeting}],
    })
}

fn apply_db(world: &World, spec: &Value) {
    world.apply(&manifest("Container", "db", spec)).unwrap();
}

fn ready(world: &World) {
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=60s"]).unwrap();
}

/// An oncelet of another user: another server, another store, the same engine, and the same names.
fn another_oncelet(world: &World) -> World {
    let mut other = World::with_engine(Server::Embedded, world.engine_host());
    other.namespace.clone_from(&world.namespace);
    other.start();
    other
}

fn seed(world: &World) -> Value {
    let spec = json!({"containerName": "db", "command": "/bin/sh", "args": ["-c", "echo run >> /runs.log"]});
    world.apply(&manifest("ContainerExec", "seed", &spec)).unwrap();
    world.completed("seed")
}

fn inspect(what: &str, format: &str) -> String {
    docker(&["inspect", "--format", format, what]).unwrap()
}

/// All containers whose names begin with that of `db`.
fn names(db: &Container) -> Vec<String> {
    let filter = format!("name=^{}", db.name);
    let names = docker(&["ps", "--all", "--format", "{{.Names}}", "--filter", &filter]).unwrap();
    names.lines().map(str::to_owned).collect()
}

/// Before, it removed the other one's container and made its own in its place.
pub(crate) fn another_oncelet_takes_no_container_of_ours(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &persistent(&db.name, "hello"));
    let first = seed(world);
    let (id, started) = (db.id(), inspect(&db.name, "{{.State.StartedAt}}"));

    let mut other = another_oncelet(world);
    let mut session = persistent(&db.name, "hello");
    session["mode"] = "session".into();
    for spec in [persistent(&db.name, "hello"), persistent(&db.name, "bonjour"), session] {
        apply_db(&other, &spec);
        let message = other.condition("ctr", "db", "Ready", "False", "NameTaken");
        for part in ["another oncelet made it", "mode: existing", &format!("oncelet.dev/adopt={id}")] {
            assert!(message.contains(part), "{message}");
        }
        other.kubectl(&["delete", "ctr/db"]).unwrap();
    }
    other.stop();
    assert_eq!((db.id(), inspect(&db.name, "{{.State.StartedAt}}")), (id.clone(), started));
    assert_eq!(names(&db), [db.name.as_str()]);
    assert_eq!(db.lines("/runs.log"), ["run"]);

    // Whoever lost the store has another one, and says that it was theirs: nothing runs again.
    world.stop();
    let other = another_oncelet(world);
    apply_db(&other, &persistent(&db.name, "hello"));
    let message = other.condition("ctr", "db", "Ready", "False", "NameTaken");
    let (_, told) = message.split_once("kubectl annotate").unwrap();
    let told: Vec<_> = told.split_once(')').unwrap().0.split_whitespace().collect();
    other.kubectl(&[&["annotate"], told.as_slice()].concat()).unwrap();
    ready(&other);
    let again = seed(&other);
    assert_eq!((&again["restored"], &again["containerId"]), (&true.into(), &first["containerId"]));
    assert_eq!((db.id(), db.lines("/runs.log")), (id, vec!["run".to_owned()]));
}

/// Labels go from an image to every container: whoever builds one, or commits one of ours, would have theirs taken or removed.
pub(crate) fn labels_that_came_with_an_image_prove_nothing(world: &mut World) {
    world.start();
    let (ours, db) = (Container::named(&world.container_name("ours")), Container::named(&world.container_name("db")));
    let mut spec = persistent(&ours.name, "hello");
    spec["mode"] = "session".into();
    world.apply(&manifest("Container", "db", &spec)).unwrap();
    ready(world);
    // Of our own container of a session, and one that only claims to be.
    let committed = format!("oncelet-e2e/{}:copied", world.namespace);
    let forged = format!("oncelet-e2e/{}:forged", world.namespace);
    docker(&["commit", &ours.name, &committed]).unwrap();
    let claim = format!("LABEL oncelet.dev/container={}/db oncelet.dev/lifecycle-key=x", world.namespace);
    docker(&["commit", "--change", &claim, &world.container("plain").name, &forged]).unwrap();
    world.kubectl(&["delete", "ctr/db"]).unwrap();

    let run = |image: &str| {
        docker(&["run", "--detach", "--name", &db.name, "--entrypoint", "/bin/sleep", image, "1000000"]).unwrap();
        db.id()
    };
    for image in [&committed, &forged] {
        let id = run(image);
        for spec in [persistent(&db.name, "hello"), json!({"containerName": db.name, "image": IMAGE})] {
            apply_db(world, &spec);
            let message = world.condition("ctr", "db", "Ready", "False", "NameTaken");
            assert!(message.contains("oncelet did not make it"), "{message}");
            world.kubectl(&["delete", "ctr/db"]).unwrap();
        }
        assert!(db.is_running() && db.id() == id);
        db.remove();
    }
    // It is not of the session, either, whatever it says.
    let id = run(&committed);
    world.stop();
    assert!(db.is_running() && db.id() == id);
    db.remove();

    // And what oncelet makes from such an image is its own.
    world.start();
    let mut spec = persistent(&db.name, "hello");
    spec["image"] = committed.as_str().into();
    apply_db(world, &spec);
    ready(world);
    let id = db.id();
    world.kubectl(&["delete", "ctr/db"]).unwrap();
    world.restart();
    apply_db(world, &spec);
    ready(world);
    assert_eq!(db.id(), id);
    db.remove();
    for image in [committed, forged] {
        docker(&["rmi", "--force", &image]).unwrap();
    }
}

/// What tells whose a container is cannot be declared, nor what an engine or a reader of its lists would misread.
pub(crate) fn a_container_cannot_say_that_it_is_somebody_elses(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    let with = |field: &str, value: Value| {
        let mut spec = persistent(&db.name, "hello");
        spec[field] = value;
        spec
    };
    let label = |key: &str, value: &str| with("labels", json!([{"key": key, "value": value}]));
    for (spec, field) in [
        (label("oncelet.dev/store", "another"), "labels"),
        (label("oncelet.dev/session", "another"), "labels"),
        (label("a b", "c"), "labels"),
        (label("a=b", "c"), "labels"),
        (label("a\nb", "c"), "labels"),
        (label("a", "b\u{0}c"), "labels"),
        (label("a", "b\nc"), "labels"),
        (with("lifecycleKey", json!("a\nb")), "lifecycleKey"),
        (with("env", json!([{"name": "A=B", "value": "c"}])), "env"),
        (with("env", json!([{"name": "A\u{0}", "value": "c"}])), "env"),
        (with("networks", json!([{"name": "bridge", "aliases": ["a b"]}])), "aliases"),
        (with("ports", json!([{"containerPort": 80, "hostIP": "0.0.0.0/../x"}])), "hostIP"),
        (with("volumeMounts", json!([{"type": "volume", "target": "/a\u{0}b"}])), "target"),
        (with("volumeMounts", json!([{"type": "volume", "target": "/a/../etc"}])), "target"),
    ] {
        let refused = world.apply(&manifest("Container", "db", &spec));
        assert!(refused.as_ref().is_err_and(|error| error.contains(field)), "{spec}: {refused:?}");
    }
    assert!(names(&db).is_empty());
    let mut fine = label("traefik.http.routers.web.rule", "Host(`a.example`) && PathPrefix(`/b`)");
    fine["networks"] = json!([]);
    apply_db(world, &fine);
    ready(world);
}

/// Whoever can change a `Container` so that it cannot be made anew would have the old one removed for nothing.
pub(crate) fn what_cannot_be_made_anew_stays_as_it_was(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply_db(world, &persistent(&db.name, "hello"));
    ready(world);
    db.sh("echo data > /kept").unwrap();
    let (id, started) = (db.id(), inspect(&db.name, "{{.State.StartedAt}}"));
    let replace_with = |change: &dyn Fn(&mut Value)| {
        world.kubectl(&["delete", "ctr/db"]).unwrap();
        let mut spec = persistent(&db.name, "bonjour");
        change(&mut spec);
        apply_db(world, &spec);
    };
    // It cannot be made: the old one has not even stopped.
    replace_with(&|spec| {
        let mount = json!({"type": "volume", "target": "/mnt"});
        spec["volumeMounts"] = json!([mount, mount]);
    });
    let message = world.condition("ctr", "db", "Ready", "False", "RecreateFailed").to_lowercase();
    assert!(message.contains("duplicate mount"), "{message}");
    assert_eq!(db.id(), id);
    assert_eq!((db.is_running(), inspect(&db.name, "{{.State.StartedAt}}")), (true, started));
    // It cannot be started: the old one runs again, and is not stopped again and again.
    replace_with(&|spec| spec["command"] = "/no/such/program".into());
    let message = world.condition("ctr", "db", "Ready", "False", "RecreateFailed");
    assert!(message.contains("/no/such/program") && message.contains("the old one is kept"), "{message}");
    let started = inspect(&db.name, "{{.State.StartedAt}}");
    assert_eq!((db.id(), db.is_running(), db.lines("/kept")), (id.clone(), true, vec!["data".to_owned()]));
    assert_eq!(names(&db), [db.name.as_str()]);
    world.kubectl(&["label", "ctr/db", "look=again"]).unwrap();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Ready=False", "--timeout=60s"]).unwrap();
    assert_eq!((db.id(), inspect(&db.name, "{{.State.StartedAt}}")), (id.clone(), started));
    // What can be made is made, although both want the same port.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let with_port = |spec: &mut Value| spec["ports"] = json!([{"containerPort": 80, "hostPort": port}]);
    replace_with(&with_port);
    ready(world);
    let second = db.id();
    assert_ne!(second, id);
    replace_with(&|spec| {
        with_port(spec);
        spec["env"][0]["value"] = "salut".into();
    });
    ready(world);
    assert_ne!(db.id(), second);
    assert_eq!(names(&db), [db.name.as_str()]);
}

/// Whatever kills the daemon between the old container and the new one.
pub(crate) fn a_daemon_killed_while_it_makes_a_container_anew_loses_neither(world: &mut World) {
    for point in ["container-renamed", "container-created", "container-stopped", "container-started"] {
        let db = Container::named(&world.container_name(point));
        world.daemon_env.clear();
        world.expects_trouble = false;
        world.start();
        apply_db(world, &persistent(&db.name, "hello"));
        ready(world);
        db.sh("echo data > /kept").unwrap();
        let id = db.id();
        world.kubectl(&["delete", "ctr/db"]).unwrap();
        world.stop();

        world.daemon_env.push(("ONCELET_FAULT".to_owned(), format!("{point}:kill")));
        world.start();
        let _ = world.apply(&manifest("Container", "db", &persistent(&db.name, "bonjour")));
        world.await_end();
        // The old one is there, or the new one has started.
        let kept = inspect(&id, "{{.Name}}");
        assert!(kept.contains(".old-"), "{point}: {kept}");

        // Whether the change is still wanted or not, one container is left, under its name.
        world.daemon_env.clear();
        world.start();
        world.kubectl(&["delete", "ctr/db", "--ignore-not-found"]).unwrap();
        apply_db(world, &persistent(&db.name, if point == "container-created" { "hello" } else { "bonjour" }));
        eventually("one container is left", || {
            let is_ready = world.kubectl(&["wait", "ctr/db", "--for=condition=Ready", "--timeout=1s"]).is_ok();
            (is_ready && names(&db) == [db.name.as_str()] && db.is_running()).then_some(())
        });
        if point == "container-created" && world.is_embedded() {
            assert_eq!((db.id(), db.lines("/kept")), (id, vec!["data".to_owned()]), "it was taken back");
        } else if point != "container-created" {
            assert_ne!(db.id(), id, "{point}");
            assert!(inspect(&db.name, "{{.Config.Env}}").contains("GREETING=bonjour"));
        }
        world.kubectl(&["delete", "ctr/db"]).unwrap();
        world.stop();
    }
    world.start();
}

/// Something that listens where an engine is expected, for as long as the test runs.
struct Impostor {
    port: u16,
    connections: Arc<AtomicUsize>,
    /// Those of them that the daemon has not closed.
    open: Arc<AtomicUsize>,
    /// The most bytes that one connection has taken.
    most: Arc<AtomicUsize>,
}

impl Impostor {
    /// `answer` has the path of a request and what to write to; the connection is closed after it.
    fn start(answer: impl Fn(&str, &mut dyn Write) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let impostor = Self { port, connections: Arc::default(), open: Arc::default(), most: Arc::default() };
        let (connections, open) = (Arc::clone(&impostor.connections), Arc::clone(&impostor.open));
        let (most, answer) = (Arc::clone(&impostor.most), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                connections.fetch_add(1, SeqCst);
                open.fetch_add(1, SeqCst);
                let (answer, most, open) = (Arc::clone(&answer), Arc::clone(&most), Arc::clone(&open));
                std::thread::spawn(move || {
                    if let Some(path) = requested(&stream) {
                        let mut counted = Counted { stream: stream.try_clone().unwrap(), bytes: 0, most };
                        answer(&path, &mut counted);
                        if counted.bytes > 0 {
                            let _ = stream.shutdown(std::net::Shutdown::Write);
                        }
                    }
                    let _ = std::io::copy(&mut &stream, &mut std::io::sink());
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        impostor
    }

    /// One that takes connections and says nothing.
    fn silent() -> Self {
        Self::start(|_, _| ())
    }

    fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

fn requested(mut stream: &TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&piece[..length]);
    }
    String::from_utf8_lossy(&request).split(' ').nth(1).map(str::to_owned)
}

struct Counted {
    stream: TcpStream,
    bytes: usize,
    most: Arc<AtomicUsize>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.bytes += written;
        self.most.fetch_max(self.bytes, SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Two hundred objects of one tenant name an engine that never answers; the others' work goes on, and nobody restarts the daemon.
pub(crate) fn a_silent_engine_is_asked_once_for_all_and_holds_up_nobody(world: &mut World) {
    let address = start_with_metrics(world);
    let silent = Impostor::silent();
    let db = world.container("db");
    let begun = Instant::now();
    let waiting = list((0..200).map(|number| {
        let (engine, container) = (silent.url(), format!("none-{number}"));
        manifest(
            "ContainerExec",
            &format!("waits-{number}"),
            &json!({"engine": engine, "engineContainer": container, "command": "true"}),
        )
    }));
    world.apply(&waiting).unwrap();
    for number in 0..3 {
        assert_eq!(world.run(&format!("good-{number}"), &db, &sh("exit 0"))["exitCode"], 0);
    }
    eventually("all who wait say why", || {
        let shown = world.kubectl(&["get", "cexec", "-o", "jsonpath={.items[*].status.conditions[*].reason}"]).unwrap();
        (shown.matches("EngineUnreachable").count() >= 200).then_some(())
    });
    // Through several rounds of questions.
    while begun.elapsed() < Duration::from_secs(40) {
        assert_eq!(get(&address, "/livez").0, 200);
        assert_eq!(world.run("again", &db, &sh("exit 0"))["exitCode"], 0);
        world.delete("again");
        std::thread::sleep(Duration::from_secs(2));
    }
    // A question for each quarter of a minute, not one for each object.
    let asked = silent.connections.load(SeqCst);
    let most = 4 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    assert!((1..=most).contains(&asked), "{asked} connections, more than {most}");
}

/// Of whatever an engine is asked, it may answer without an end.
pub(crate) fn answers_without_an_end_are_cut_off(world: &mut World) {
    world.start();
    let hostile = Impostor::start(|path, to| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        let body = match path.trim_start_matches("/v1.") {
            path if path.contains("_ping") => "OK",
            path if path.contains("/info") => r#"{"ID":"impostor","SystemTime":"2026-01-01T00:00:00Z"}"#,
            path if path.contains("/version") => r#"{"Version":"20.10.24","ApiVersion":"1.41"}"#,
            path if path.contains("/json") && path.contains("deep") => {
                let _ = write!(to, "{head}{}", "[".repeat(1 << 20));
                return;
            }
            // A document, a list, a stream of lines: a text that goes on and on.
            _ => {
                let _ = write!(to, "{head}{{\"Id\":\"");
                while to.write_all(&[b'a'; 8192]).is_ok() {}
                return;
            }
        };
        let _ = write!(to, "{head}{body}");
    });
    let db = world.container("db");
    assert_eq!(world.run("before", &db, &sh("exit 0"))["exitCode"], 0);
    let before = resident(world);
    for (name, mode) in [("first", "existing"), ("deep", "existing"), ("made", "persistent")] {
        let mut spec = json!({"mode": mode, "engine": hostile.url(), "containerName": name});
        if mode == "persistent" {
            spec["image"] = IMAGE.into();
        }
        world.apply(&manifest("Container", name, &spec)).unwrap();
    }
    let told = |name: &str| {
        eventually("it is told what came of it", || {
            let status = world.object("ctr", name)["status"].clone();
            Some(status["message"].as_str()?.to_owned())
        })
    };
    assert!(told("first").contains("larger than 16 MiB"), "{}", told("first"));
    assert!(told("made").contains("larger than 16 MiB"), "{}", told("made"));
    assert!(!told("deep").is_empty());
    assert_eq!(world.run("after", &db, &sh("exit 0"))["exitCode"], 0);
    // What was sent beyond that is in the sockets between.
    let most = hostile.most.load(SeqCst);
    assert!(most < 48 << 20, "{most} bytes were taken");
    let grown = resident(world).saturating_sub(before);
    assert!(grown < 300 << 20, "the daemon has grown by {} MiB", grown >> 20);
}

/// What the daemon has in memory, in bytes.
fn resident(world: &World) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A tenant names one engine after another: none of them may cost anything for long.
pub(crate) fn engines_that_nothing_names_any_more_cost_nothing(world: &mut World) {
    world.start();
    let silent = Impostor::silent();
    let db = world.container("db");
    assert_eq!(world.run("before", &db, &sh("exit 0"))["exitCode"], 0);
    let engines = |of: std::ops::Range<u16>| {
        let url = |number| format!("tcp://127.0.1.{number}:{}", silent.port);
        list(of.map(|number| {
            let spec = json!({"mode": "existing", "engine": url(number), "containerName": "none"});
            manifest("Container", &format!("on-{number}"), &spec)
        }))
    };
    world.apply(&engines(1..101)).unwrap();
    eventually("no more than so many are taken", || {
        let shown = world.kubectl(&["get", "ctr", "-o", "jsonpath={.items[*].status.message}"]).unwrap();
        shown.contains("64 other engines are named already").then_some(())
    });
    // One question each.
    let most = silent.open.load(SeqCst);
    assert!(most <= 64, "{most} connections");
    world.kubectl(&["delete", "ctr", "--all"]).unwrap();
    // Longer than the time between two questions.
    let mut quiet = Instant::now();
    let mut asked = 0;
    eventually("nothing is asked any more, and no connection is left", || {
        let now = silent.connections.load(SeqCst);
        if now != asked || silent.open.load(SeqCst) > 0 {
            (asked, quiet) = (now, Instant::now());
        }
        (quiet.elapsed() > Duration::from_secs(10)).then_some(())
    });
    assert_eq!(world.run("after", &db, &sh("exit 0"))["exitCode"], 0);
}
