//! The ports of the daemon: who holds connections and sends nothing, who floods, and bodies that are small and would grow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::process::eventually;
use crate::world::{World, sh};

/// More than a daemon takes that is well: most of what it had is given back, but not all of it.
const MEMORY: usize = 1024 * 1024 * 1024;

/// Where the daemon listens.
struct Ports {
    api: String,
    page: String,
    metrics: String,
}

impl Ports {
    fn of(world: &World) -> Self {
        let after = |text: &str| {
            eventually("the daemon says where it listens", || {
                let log = world.daemon_log();
                let (_, rest) = log.rsplit_once(text)?;
                Some(rest.split(['/', ' ', ';', '\n']).next()?.to_owned())
            })
        };
        let kubeconfig = std::fs::read_to_string(world.kubeconfig()).unwrap();
        let api = kubeconfig.split("https://").nth(1).unwrap().split(['\n', '"', '\'', '/']).next().unwrap().trim();
        Self {
            api: api.to_owned(),
            page: after("the page is at http://"),
            metrics: after("metrics and health are at http://"),
        }
    }

    fn all(&self) -> [&str; 3] {
        [&self.api, &self.page, &self.metrics]
    }
}

fn start(world: &mut World) -> Ports {
    world.daemon_args = vec!["--metrics".to_owned(), "127.0.0.1:0".to_owned()];
    world.start();
    Ports::of(world)
}

/// The same daemon does its work as before.
fn is_well(world: &World, pid: i32, name: &str) {
    assert_eq!(world.daemon_pid(), pid);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the daemon is no zombie");
    let resident = line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024;
    assert!(resident < MEMORY, "after {name} the daemon has {resident} bytes");
    world.kubectl(&["get", "namespaces"]).unwrap_or_else(|error| panic!("after {name}: {error}"));
}

/// What a request to a plain port is answered with, the head of it.
fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// A client of the API, as everybody has it who has the kubeconfig.
struct Api {
    runtime: Runtime,
    client: kube::Client,
    roots: RootCertStore,
}

impl Api {
    fn of(world: &World) -> Self {
        let runtime = Runtime::new().unwrap();
        let kubeconfig = Kubeconfig::read_from(world.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = runtime.block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &options)).unwrap();
        config.read_timeout = Some(Duration::from_mins(5));
        let mut roots = RootCertStore::empty();
        for der in config.root_cert.clone().unwrap_or_default() {
            roots.add(CertificateDer::from(der)).unwrap();
        }
        let _entered = runtime.enter();
        let client = kube::Client::try_from(config).unwrap();
        Self { runtime, client, roots }
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: String) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(path).header("content-type", media_type);
        let request = request.body(Body::from(body.into_bytes())).unwrap();
        self.runtime.block_on(async {
            let answer = self.client.send(request).await.unwrap();
            let code = answer.status().as_u16();
            (code, String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes()).into_owned())
        })
    }

    /// A connection over TLS, on which nothing has been said.
    fn connect(&self, address: &str, protocol: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
        let provider = rustls::crypto::ring::default_provider().into();
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(config.into(), name).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream.set_write_timeout(Some(Duration::from_mins(1))).unwrap();
        StreamOwned::new(session, stream)
    }
}

/// With as few descriptors as a shell may give. None of these clients knows the token.
pub(crate) fn silent_clients_on_every_port_keep_nobody_out_and_leave_descriptors_for_the_work(world: &mut World) {
    world.descriptors = Some(256);
    let ports = start(world);
    let (pid, api) = (world.daemon_pid(), Api::of(world));
    let db = world.container("db");
    let mut held = Vec::new();
    let mut held_over_tls = Vec::new();
    for address in ports.all() {
        for number in 0..400 {
            let mut stream = TcpStream::connect(address).unwrap();
            // Nothing at all, half of the headers, half of a body. The daemon may have hung up already.
            let beginning: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET / HTTP/1.1\r\nHost: 127.0",
                _ => b"POST /data/runs/1/forget HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{\"half",
            };
            let _ = stream.write_all(beginning);
            held.push(stream);
        }
    }
    for number in 0..100 {
        let mut stream = api.connect(&ports.api, b"http/1.1");
        let beginning: &[u8] = match number % 2 {
            0 => b"GET /api HTTP/1.1\r\nHost: 127.0",
            _ => b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"half",
        };
        let _ = stream.write_all(beginning);
        held_over_tls.push(stream);
    }
    is_well(world, pid, "1300 silent clients");
    assert!(ask(&ports.metrics, "/livez").contains("200"));
    assert!(ask(&ports.page, "/").contains("200"));
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 200, "{open} descriptors of 256 are open");
    // Containers, streams and files of logs need descriptors, too.
    for number in 0..5 {
        assert_eq!(world.run(&format!("run-{number}"), &db, &sh("echo ran"))["exitCode"], 0);
    }
    drop((held, held_over_tls));
    is_well(world, pid, "the end of all silent clients");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET https://x/`, in the static table.
const REQUEST: &[u8] = b"\x82\x87\x84\x41\x01x";

/// What it is called, and the frames of each step.
type Flood<'a> = (&'a str, Box<dyn Fn(u32) -> Vec<u8> + 'a>);

/// Each flood goes on until the server hangs up, or for so many frames.
pub(crate) fn http2_floods_end_their_connection_and_nothing_else(world: &mut World) {
    let ports = start(world);
    let (pid, api) = (world.daemon_pid(), Api::of(world));
    let db = world.container("db");
    let odd = |number: u32| number * 2 + 1;
    let floods: [Flood<'_>; 6] = [
        (
            "requests that are taken back at once",
            Box::new(|n| [frame(1, 5, odd(n), REQUEST), frame(3, 0, odd(n), &[0, 0, 0, 8])].concat()),
        ),
        ("requests without an end", Box::new(|n| frame(1, 4, odd(n), REQUEST))),
        ("pings", Box::new(|_| frame(6, 0, 0, b"pingping"))),
        ("settings", Box::new(|_| frame(4, 0, 0, &[]))),
        (
            "headers that go on and on",
            Box::new(
                |n| if n == 0 { frame(1, 0, 1, REQUEST) } else { frame(9, 0, 1, &b"\x40\x01a\x01b".repeat(1000)) },
            ),
        ),
        ("priorities", Box::new(|n| frame(2, 0, odd(n), &[0, 0, 0, 0, 1]))),
    ];
    for (name, flood) in &floods {
        let mut stream = api.connect(&ports.api, b"h2");
        stream.write_all(PREFACE).unwrap();
        for chunk in 0..400 {
            let frames: Vec<u8> = (0..100).flat_map(|at| flood(chunk * 100 + at)).collect();
            // What the server answers is not read: its own memory must not hold it for ever.
            if stream.write_all(&frames).is_err() {
                break;
            }
        }
        is_well(world, pid, name);
    }
    assert_eq!(world.run("after", &db, &sh("echo ran"))["exitCode"], 0);
}

/// Whoever has the token may do everything, but not end the daemon with one small request.
pub(crate) fn small_bodies_that_would_grow_are_refused(world: &mut World) {
    let _ports = start(world);
    let (pid, api) = (world.daemon_pid(), Api::of(world));
    let db = world.container("db");
    let maps = format!("/api/v1/namespaces/{}/configmaps", world.namespace);
    let one = format!("{maps}/a");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (json_type, patch) = ("application/json", "application/json-patch+json");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    assert_eq!(api.send("POST", &maps, json_type, object.to_string()).0, 201);

    let deeper =
        (0..500).map(|depth| json!({"op": "add", "path": format!("/data{}", "/d".repeat(depth)), "value": {}}));
    let doubled = (0..40).map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/c{at}")}));
    let moved = (0..200).flat_map(|_| {
        [
            json!({"op": "move", "from": "/data", "path": "/x"}),
            json!({"op": "add", "path": "/data", "value": {}}),
            json!({"op": "move", "from": "/x", "path": "/data/x"}),
        ]
    });
    let laughs: Vec<_> = (1..40).map(|level| format!("l{level}: &l{level} [*l{0}, *l{0}]\n", level - 1)).collect();
    let fields = (0..100_000).map(|at| format!("\"u{at}\":0")).collect::<Vec<_>>().join(",");
    let rule = |rule: String| {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "busies.example.dev"}, "spec": {"group": "example.dev", "scope": "Namespaced",
            "names": {"plural": "busies", "kind": "Busy"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
        .to_string()
    };
    let long = "n".repeat(1_000_000);
    let tried = [
        ("additions within additions", "PATCH", &*one, patch, json!(deeper.collect::<Vec<_>>()).to_string()),
        ("copies of copies", "PATCH", &one, patch, json!(doubled.collect::<Vec<_>>()).to_string()),
        ("moves into what was moved", "PATCH", &one, patch, json!(moved.collect::<Vec<_>>()).to_string()),
        ("deep lists", "POST", &maps, json_type, "[".repeat(3_000_000)),
        ("deep YAML", "POST", &maps, "application/yaml", "[".repeat(3_000_000)),
        ("a billion laughs", "POST", &maps, "application/yaml", format!("l0: &l0 [a, a]\n{}", laughs.concat())),
        ("unknown fields", "POST", &maps, json_type, format!("{{{fields}}}")),
        ("fields below a long name", "POST", &maps, json_type, format!("{{\"{long}\":{{{fields}}}}}")),
        ("a rule in parentheses", "POST", definitions, json_type, rule("(".repeat(1_000_000))),
        (
            "a rule in some parentheses",
            "POST",
            definitions,
            json_type,
            rule("(".repeat(4000) + "1" + &")".repeat(4000)),
        ),
        ("a long sum", "POST", definitions, json_type, rule(format!("1{}", "+1".repeat(1_000_000)))),
    ];
    for (name, method, path, media_type, body) in tried {
        let (code, answer) = api.send(method, path, media_type, body);
        assert!((400..500).contains(&code), "{name}: {code} {answer:.300}");
        assert!(answer.len() < 1_000_000, "{name}: the answer has {} bytes", answer.len());
        is_well(world, pid, name);
    }
    assert_eq!(world.run("after", &db, &sh("echo ran"))["exitCode"], 0);
}
