//! One of the two servers, and how it is asked.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use oncelet_apiserver::{Config, Server};
use oncelet_tests::process::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// How long any answer may take on a slow, shared machine.
const PATIENCE: Duration = Duration::from_secs(30);

const WIDGETS: &str = include_str!("../../crates/apiserver/tests/common/widgets.yaml");

/// The embedded server, with our definitions.
pub(crate) struct Embedded {
    dir: TempDir,
}

impl Embedded {
    #[allow(clippy::disallowed_methods, reason = "a test has the real clock")]
    pub(crate) fn start(runtime: &Runtime) -> Self {
        let dir = tempfile::Builder::new().prefix("oncelet-differential-").tempdir().unwrap();
        let config = Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            state_dir: dir.path().join("state"),
            kubeconfig: dir.path().join("kubeconfig"),
            crds: oncelet_api::crds(),
            parts: Vec::new(),
            advice: Vec::new(),
            persist: false,
            extensions: Vec::new(),
            now: jiff::Timestamp::now,
        };
        let server = runtime.block_on(Server::bind(config)).unwrap();
        runtime.spawn(server.serve(CancellationToken::new()));
        Self { dir }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }
}

pub(crate) struct Side {
    runtime: Handle,
    client: kube::Client,
    kubeconfig: PathBuf,
    /// kubectl's: its discovery cache must be this server's own.
    home: TempDir,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) warnings: Vec<String>,
    /// A document, a list of watch events, or text.
    pub(crate) body: Value,
}

pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Side {
    pub(crate) fn new(runtime: &Runtime, kubeconfig: PathBuf) -> Self {
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let kubeconfig = Kubeconfig::read_from(&kubeconfig).unwrap();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
            kube::Client::try_from(config).unwrap()
        });
        let home = tempfile::Builder::new().prefix("oncelet-differential-home-").tempdir().unwrap();
        Self { runtime: runtime.handle().clone(), client, kubeconfig, home }
    }

    /// Creates the definition of the test's own resource, and waits until it is served.
    pub(crate) fn install_widgets(&self) {
        let definition: Value = serde_saphyr::from_str(WIDGETS).unwrap();
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let created = self.request("POST", path, &BTreeMap::new(), Some(definition.to_string()), None);
        assert_eq!(created.status, 201, "{}", created.body);
        let get = |path| self.request("GET", path, &BTreeMap::new(), None, None);
        eventually("widgets are served", || {
            let documents = get("/openapi/v3").body;
            let served = get("/apis/example.dev/v1/widgets").status == 200;
            let listed = get("/apis/example.dev/v1").status == 200;
            let described = ["apis/example.dev/v1", "apis/oncelet.dev/v1alpha1"].map(|one| &documents["paths"][one]);
            (served && listed && described.iter().all(|one| one.is_object())).then_some(())
        });
        eventually("the default namespace is there", || {
            (get("/api/v1/namespaces/default").status == 200).then_some(())
        });
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &BTreeMap<String, String>,
        body: Option<String>,
        events: Option<usize>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("user-agent", "differential/1");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body.unwrap_or_default().into_bytes())).unwrap();
        let answered = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                let response = self.client.send(request).await.unwrap();
                let (parts, mut body) = response.into_parts();
                let mut received = Vec::new();
                let complete = |received: &[u8]| {
                    events.is_some_and(|events| received.split(|byte| *byte == b'\n').count() > events)
                };
                while !complete(&received)
                    && let Some(frame) = body.frame().await
                {
                    received.extend(frame.unwrap().into_data().unwrap_or_default());
                }
                (parts, received)
            })
            .await
        });
        let (parts, received) = answered
            .unwrap_or_else(|_| panic!("no complete answer to {method} {path} of {}", self.kubeconfig.display()));
        let text = |name: &str| -> Vec<String> {
            let values = parts.headers.get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
        };
        let received = String::from_utf8_lossy(&received);
        let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        let body = match events {
            Some(_) => received.lines().map(parse).collect(),
            None => parse(&received),
        };
        Reply {
            status: parts.status.as_u16(),
            content_type: text("content-type").concat(),
            warnings: text("warning"),
            body,
        }
    }

    pub(crate) fn kubectl(&self, namespace: &str, words: &[String], stdin: Option<String>) -> Output {
        let mut command = oncelet_tests::kubectl(&self.kubeconfig);
        command
            .env("HOME", self.home.path())
            .env("KUBE_EDITOR", "sed -i s/Small/Large/")
            .args(["--namespace", namespace])
            .args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Dropped at once: kubectl reads to the end.
        child.stdin.take().unwrap().write_all(stdin.unwrap_or_default().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}
