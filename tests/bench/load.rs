//! The client of both servers.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const WIDGETS: &str = include_str!("../../crates/apiserver/tests/common/widgets.yaml");
const PATH: &str = "/apis/example.dev/v1/namespaces/default/widgets";
/// Requests at a time while objects are made.
const AT_ONCE: usize = 32;
/// Writes in one round, and the time between two: far from what either server can take, so that latency is not a queue.
const WRITES: usize = 200;
const PACE: Duration = Duration::from_millis(20);
/// How long a server may have for what it does after the writes, before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) struct Load {
    runtime: Handle,
    client: kube::Client,
}

/// Milliseconds.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) writes: Vec<f64>,
    /// From before a write to its event, at every watcher.
    pub(crate) events: Vec<f64>,
}

impl Latencies {
    pub(crate) fn add(&mut self, more: Self) {
        self.writes.extend(more.writes);
        self.events.extend(more.events);
    }
}

/// Watchers, and what they see: the number of the write, and when.
pub(crate) struct Watchers {
    seen: Mutex<mpsc::UnboundedReceiver<(usize, Instant)>>,
    count: usize,
    /// Numbers of writes go on from round to round.
    next: Mutex<usize>,
    _tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn new(runtime: &tokio::runtime::Runtime, kubeconfig: &Path) -> Self {
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            kube::Client::try_from(config).unwrap()
        });
        let this = Self { runtime: runtime.handle().clone(), client };
        let definition: Value = serde_saphyr::from_str(WIDGETS).unwrap();
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        assert_eq!(this.runtime.block_on(send(&this.client, "POST", definitions, &definition)), 201);
        oncelet_tests::process::eventually("widgets are served", || {
            (this.runtime.block_on(send(&this.client, "GET", PATH, &Value::Null)) == 200).then_some(())
        });
        this
    }

    /// Makes objects of about a kilobyte.
    pub(crate) fn create(&self, numbers: Range<usize>) {
        self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for number in numbers {
                if running.len() == AT_ONCE {
                    running.join_next().await.unwrap().unwrap();
                }
                let client = self.client.clone();
                running.spawn(async move { assert_eq!(send(&client, "POST", PATH, &widget(number)).await, 201) });
            }
            running.join_all().await;
        });
    }

    /// Waits until a server has done what it does later.
    pub(crate) fn settle(&self) {
        self.runtime.block_on(async { tokio::time::sleep(SETTLE).await });
    }

    pub(crate) fn watch(&self, count: usize) -> Watchers {
        let (saw, seen) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        self.runtime.block_on(async {
            let list: Value =
                self.client.request(request("GET", &format!("{PATH}?limit=1"), &Value::Null)).await.unwrap();
            let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            for _ in 0..count {
                let request = Request::get(format!("{PATH}?watch=true&resourceVersion={version}"));
                let response = self.client.send(request.body(Body::empty()).unwrap()).await.unwrap();
                tasks.spawn(look(response.into_body(), saw.clone()));
            }
        });
        Watchers { seen: Mutex::new(seen), count, next: Mutex::new(0), _tasks: tasks }
    }

    /// One round of writes to `objects` objects, one after the other at a steady pace.
    pub(crate) fn change(&self, watchers: &Watchers, objects: usize) -> Latencies {
        let mut next = watchers.next.lock().unwrap();
        let first = *next;
        *next += WRITES;
        let mut seen = watchers.seen.lock().unwrap();
        self.runtime.block_on(async {
            let mut pace = tokio::time::interval(PACE);
            let mut latencies = Latencies::default();
            let mut begun = Vec::with_capacity(WRITES);
            for number in first..first + WRITES {
                pace.tick().await;
                // Spread over all objects, the same for both servers.
                let path = format!("{PATH}/w-{}", number * 7919 % objects);
                let change = json!({"metadata": {"annotations": {"write": format!("#{number}#")}}});
                let start = Instant::now();
                begun.push(start);
                assert_eq!(send(&self.client, "PATCH", &path, &change).await, 200);
                latencies.writes.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            for _ in 0..WRITES * watchers.count {
                let (number, at) = seen.recv().await.unwrap();
                latencies.events.push((at - begun[number - first]).as_secs_f64() * 1000.0);
            }
            latencies
        })
    }
}

/// Tells of every write that a watch shows.
async fn look(mut body: Body, saw: mpsc::UnboundedSender<(usize, Instant)>) {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let at = Instant::now();
        text.extend(frame.into_data().unwrap_or_default());
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(text.drain(..=end).collect()).unwrap();
            let number = line.split('#').nth(1).and_then(|number| number.parse().ok());
            let _ = saw.send((number.unwrap_or_else(|| panic!("no write in {line}")), at));
        }
    }
}

fn widget(number: usize) -> Value {
    let args: Vec<_> = (0..16).map(|at| format!("--option-{at}=a-value-that-is-somewhat-long")).collect();
    json!({
        "apiVersion": "example.dev/v1", "kind": "Widget",
        "metadata": {"name": format!("w-{number}"), "labels": {"app": "bench", "number": number.to_string()}},
        "spec": {"file": "/f", "image": "img:1", "args": args},
    })
}

fn request(method: &str, path: &str, body: &Value) -> Request<Vec<u8>> {
    let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Request::builder().method(method).uri(path).header("content-type", media_type).body(body).unwrap()
}

/// The status of an answer that was read to its end.
async fn send(client: &kube::Client, method: &str, path: &str, body: &Value) -> u16 {
    let response = client.send(request(method, path, body).map(Body::from)).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}
