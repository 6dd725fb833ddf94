//! Metrics, health and traces.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

use crate::process::eventually;
use crate::world::{World, list, manifest, sh};

/// Starts a daemon with metrics; where they are.
pub(crate) fn start_with_metrics(world: &mut World) -> String {
    world.daemon_args = vec!["--metrics".to_owned(), "127.0.0.1:0".to_owned()];
    world.start();
    address(world)
}

/// Where the daemon says that it serves metrics.
fn address(world: &World) -> String {
    eventually("the daemon says where its metrics are", || {
        let log = world.daemon_log();
        let (_, rest) = log.rsplit_once("metrics and health are at http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    })
}

pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a metric with these labels.
fn value(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .find(|line| labels.iter().all(|label| line.contains(label)))
        .and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
        .unwrap_or_default()
}

pub(crate) fn metrics_tell_what_was_done_and_health_whether_it_goes_on(world: &mut World) {
    let address = start_with_metrics(world);
    let db = world.container("db");
    world.run("good", &db, &sh("exit 0"));
    world.run("bad", &db, &sh("exit 1"));
    world.delete("good");
    assert_eq!(world.run("good", &db, &sh("exit 0"))["restored"], true);
    let metrics = eventually("the restore is counted", || {
        let (code, metrics) = get(&address, "/metrics");
        assert_eq!(code, 200);
        (value(&metrics, "oncelet_restores_total", &[]) >= 1.0).then_some(metrics)
    });
    assert!(value(&metrics, "oncelet_runs_total", &["state=\"Finished\"", "succeeded=\"true\""]) >= 1.0, "{metrics}");
    assert!(value(&metrics, "oncelet_runs_total", &["state=\"Finished\"", "succeeded=\"false\""]) >= 1.0, "{metrics}");
    for (name, labels) in [
        ("controller_runtime_reconcile_total", "controller=\"containerexec\",result=\"success\""),
        ("controller_runtime_reconcile_time_seconds_count", "containerexec"),
        ("workqueue_adds_total", "containerexec"),
        ("workqueue_queue_duration_seconds_count", "containerexec"),
        ("oncelet_restore_duration_seconds_count", ""),
        ("oncelet_store_commit_duration_seconds_count", ""),
        ("oncelet_store_commit_changes_count", ""),
        ("oncelet_engine_request_duration_seconds_count", "operation=\"exec_create\""),
    ] {
        assert!(value(&metrics, name, &[labels]) >= 1.0, "{name} {labels}:\n{metrics}");
    }
    // All who waited had their turn.
    eventually("nothing waits", || {
        let metrics = get(&address, "/metrics").1;
        (value(&metrics, "workqueue_depth", &["containerexec"]) == 0.0).then_some(())
    });
    assert_eq!(get(&address, "/livez"), (200, "[+]work ok\nlivez check passed\n".to_owned()));
    let (code, text) = get(&address, "/readyz");
    assert_eq!(code, 200, "{text}");

    // Without its engine it lives, and no program can be started.
    world.stop();
    world.daemon_args.extend(["--engine".to_owned(), "unix:///nonexistent/engine.sock".to_owned()]);
    world.start();
    let address = self::address(world);
    eventually("it is ready but for its engine", || {
        let (code, text) = get(&address, "/readyz");
        assert_eq!(code, 500, "{text}");
        let told = ["[+]api-server ok", "[+]store ok", "[-]engine failed", "/nonexistent/engine.sock"];
        told.iter().all(|part| text.contains(part)).then_some(())
    });
    assert_eq!(get(&address, "/livez").0, 200);
}

/// What makes a restore quick: the engine is asked for a container and not for each object that waits for it, and nothing waits for
/// the disk of the store.
pub(crate) fn many_restores_ask_the_engine_together_and_write_nothing_to_the_store(world: &mut World) {
    const OBJECTS: u32 = 60;
    let address = start_with_metrics(world);
    let db = world.container("db");
    let mut spec = sh("echo ran >> /data/runs.log");
    spec["runKey"] = "seed".into();
    world.run("first", &db, &spec);
    spec["containerName"] = "later".into();
    world
        .apply(&list((0..OBJECTS).map(|number| manifest("ContainerExec", &format!("again-{number}"), &spec))))
        .unwrap();
    let counts = |wanted: &str| {
        let shown = world.kubectl(&["get", "cexec", "-o", "jsonpath={.items[*].status.state}"]).unwrap();
        shown.split_whitespace().filter(|state| *state == wanted).count()
    };
    eventually("all wait", || (counts("Waiting") == OBJECTS as usize).then_some(()));
    let figures = || {
        let metrics = get(&address, "/metrics").1;
        let asked = value(&metrics, "oncelet_engine_request_duration_seconds_count", &["container_inspect"]);
        (asked, value(&metrics, "oncelet_store_commit_duration_seconds_count", &[]))
    };
    let before = figures();
    let later = json!({"mode": "existing", "containerName": db.name});
    world.apply(&manifest("Container", "later", &later)).unwrap();
    eventually("all have the outcome", || (counts("Finished") == 1 + OBJECTS as usize).then_some(()));
    let (asked, commits) = figures();
    assert!(asked - before.0 < f64::from(OBJECTS) / 2.0, "{} questions for {OBJECTS} objects", asked - before.0);
    assert!(commits <= before.1, "{} commits", commits - before.1);
    assert_eq!(db.lines("/data/runs.log").len(), 1);
}

/// A collector of traces: what is sent over OTLP, as protobuf over HTTP.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let taken = spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let taken = taken.clone();
                std::thread::spawn(move || Self::take(stream.unwrap(), &taken));
            }
        });
        Self { url, spans }
    }

    /// Requests of one connection, until it ends.
    fn take(mut stream: TcpStream, spans: &Mutex<Vec<Span>>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap_or_default() > 0 && line != "\r\n" {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            if line.is_empty() {
                return;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            let sent = request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
            spans.lock().unwrap().extend(sent);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    }

    /// The first span of this name.
    fn span(&self, name: &str) -> Span {
        eventually(&format!("the span {name:?} is sent"), || {
            self.spans.lock().unwrap().iter().find(|span| span.name == name).cloned()
        })
    }
}

/// A run is one trace, whoever it was that started it, went on with it, and gave its outcome to a later object.
pub(crate) fn a_run_is_one_trace_across_restarts(world: &mut World) {
    let collector = Collector::start();
    world.daemon_env = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.url.clone())];
    world.start();
    let db = world.container("db");
    let job = sh("while [ ! -e /data/go ]; do sleep 0.1; done; exit 3");
    world.apply_exec("job", &db, &job);
    world.wait("job", "Started");
    world.kill();
    world.start();
    if world.is_embedded() {
        world.apply_exec("job", &db, &job);
    }
    let taken_over = collector.span("taken over");
    db.sh("touch /data/go").unwrap();
    world.completed("job");

    let whole = collector.span(&format!("run {}/job", world.namespace));
    let (start, program) = (collector.span("start"), collector.span("program"));
    for span in [&start, &program, &taken_over] {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&whole.trace_id, &whole.span_id), "{span:?}");
    }
    assert!(whole.parent_span_id.is_empty());
    assert_eq!(
        (start.start_time_unix_nano, start.end_time_unix_nano),
        (whole.start_time_unix_nano, program.start_time_unix_nano)
    );
    assert!(program.end_time_unix_nano <= whole.end_time_unix_nano);
    assert!((program.start_time_unix_nano..whole.end_time_unix_nano).contains(&taken_over.start_time_unix_nano));
    assert!(whole.attributes.iter().any(|it| it.key == "process.exit.code"), "{whole:?}");
    assert_eq!(whole.status.unwrap().message, "exit code 3");

    world.delete("job");
    assert_eq!(world.run("job", &db, &job)["restored"], true);
    let restore = collector.span(&format!("restore {}/job", world.namespace));
    assert_ne!(restore.trace_id, whole.trace_id);
    let [link] = &restore.links[..] else { panic!("{restore:?}") };
    assert_eq!((&link.trace_id, &link.span_id), (&whole.trace_id, &whole.span_id));
}
