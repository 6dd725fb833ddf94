//! The server as kubectl meets it: the one on `PATH`, and those that `ONCELET_TEST_KUBECTLS` lists, separated by colons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::TestServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const WIDGET: &str = r"
apiVersion: example.dev/v1
kind: Widget
metadata: {name: a, labels: {app: x}}
spec: {file: /f, image: 'img:1'}
";

/// What a command answered.
#[derive(Debug)]
struct Said {
    ok: bool,
    out: String,
    err: String,
}

struct Kubectl<'a> {
    program: String,
    server: &'a TestServer,
}

/// Every kubectl there is; none is said aloud.
async fn kubectls() -> Vec<String> {
    let more = std::env::var("ONCELET_TEST_KUBECTLS").unwrap_or_default();
    let all = std::iter::once("kubectl").chain(more.split(':').filter(|program| !program.is_empty()));
    let mut found = Vec::new();
    for program in all {
        let mut version = Command::new(program);
        version.args(["version", "--client"]).stdout(Stdio::null()).stderr(Stdio::null());
        match version.status().await {
            Ok(status) if status.success() => found.push(program.to_owned()),
            _ => eprintln!("SKIPPED: {program} cannot be run"),
        }
    }
    if found.is_empty() {
        eprintln!("SKIPPED: there is no kubectl on PATH, so nothing of this test was run");
    }
    found
}

impl Kubectl<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        // A home of its own: the cache of discovery is there.
        command.env("KUBECONFIG", self.server.kubeconfig()).env("HOME", self.server.dir.path());
        command.args(line.split_whitespace()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, line: &str, stdin: &str) -> Said {
        let mut child = self.command(line).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(Duration::from_mins(1), child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{} {line} hangs", self.program)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The output of a command that must succeed.
    async fn ok(&self, line: &str, stdin: &str) -> String {
        let said = self.run(line, stdin).await;
        assert!(said.ok, "{} {line}: {said:?}", self.program);
        said.out
    }

    /// What a command that must fail complains about.
    async fn refused(&self, line: &str, stdin: &str) -> String {
        let said = self.run(line, stdin).await;
        assert!(!said.ok, "{} {line}: {said:?}", self.program);
        said.err
    }
}

/// Runs a story with every kubectl, each against a server of its own.
async fn with_each(story: impl AsyncFn(&Kubectl<'_>)) {
    for program in kubectls().await {
        let server = TestServer::start().await;
        story(&Kubectl { program, server: &server }).await;
        server.stop().await;
    }
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in:\n{text}");
}

#[tokio::test]
async fn an_object_is_applied_changed_and_left_alone() {
    with_each(async |kubectl| {
        assert_eq!(kubectl.ok("apply -f -", WIDGET).await, "widget.example.dev/a created\n");
        assert_eq!(kubectl.ok("apply -f -", WIDGET).await, "widget.example.dev/a unchanged\n");
        let changed = WIDGET.replace("/f", "/g");
        assert_eq!(kubectl.ok("apply -f -", &changed).await, "widget.example.dev/a configured\n");
        assert_eq!(kubectl.ok("get wd a -o jsonpath={.spec.file},{.metadata.generation}", "").await, "/g,2");
        kubectl.ok("delete -f -", WIDGET).await;
        assert_eq!(kubectl.ok("apply --server-side -f -", WIDGET).await, "widget.example.dev/a serverside-applied\n");
        let conflict = kubectl.refused("apply --server-side --field-manager=other -f -", &changed).await;
        contains(&conflict, "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.file");
        kubectl.ok("apply --server-side --field-manager=other --force-conflicts -f -", &changed).await;
        let kinds = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1'}\n";
        assert_eq!(kubectl.ok("apply -f -", kinds).await, "configmap/c created\n");
        assert_eq!(kubectl.ok("apply -f -", &kinds.replace("'1'", "'2'")).await, "configmap/c configured\n");
    })
    .await;
}

#[tokio::test]
async fn objects_are_shown_as_tables() {
    with_each(async |kubectl| {
        kubectl.ok("apply -f -", WIDGET).await;
        let narrow = kubectl.ok("get widgets", "").await;
        assert_eq!(
            narrow.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["NAME", "SIZE", "READY", "AGE"]
        );
        assert_eq!(narrow.lines().nth(1).unwrap().split_whitespace().take(2).collect::<Vec<_>>(), ["a", "Small"]);
        contains(&kubectl.ok("get wd -o wide", "").await, "img:1");
        contains(&kubectl.ok("get toys", "").await, "Small");
        contains(&kubectl.ok("get wd -A -l app=x", "").await, "default");
        assert_eq!(kubectl.ok("get wd -l app=y -o name", "").await, "");
        contains(&kubectl.refused("get wd b", "").await, "widgets.example.dev \"b\" not found");
        contains(&kubectl.refused("get pods", "").await, "the server doesn't have a resource type \"pods\"");
        contains(&kubectl.ok("get crd", "").await, "widgets.example.dev");
    })
    .await;
}

#[tokio::test]
async fn a_watch_prints_every_change() {
    with_each(async |kubectl| {
        kubectl.ok("apply -f -", WIDGET).await;
        let mut child = kubectl.command("get wd -w").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next =
            async || tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap();
        contains(&next().await, "NAME");
        contains(&next().await, "Small");
        kubectl.ok("patch wd a --type=merge -p {\"spec\":{\"size\":\"Large\"}}", "").await;
        contains(&next().await, "Large");
        child.kill().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn conditions_and_deletions_are_waited_for() {
    with_each(async |kubectl| {
        kubectl.ok("apply -f -", WIDGET).await;
        let wait = "wait wd/a --for=condition=Ready --timeout=30s";
        let waiting = kubectl.command(wait).spawn().unwrap();
        let status = "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}";
        kubectl.ok(&format!("patch wd a --subresource=status --type=merge -p {status}"), "").await;
        assert!(waiting.wait_with_output().await.unwrap().status.success(), "it begins to hold while waited for");
        contains(&kubectl.ok(wait, "").await, "condition met");
        contains(&kubectl.refused("wait wd/a --for=condition=Other --timeout=1s", "").await, "timed out");
        let waiting = kubectl.command("wait wd/a --for=delete --timeout=30s").spawn().unwrap();
        kubectl.ok("delete wd a", "").await;
        assert!(waiting.wait_with_output().await.unwrap().status.success());
        kubectl.ok("wait crd/widgets.example.dev --for=condition=Established --timeout=30s", "").await;
    })
    .await;
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_away() {
    with_each(async |kubectl| {
        kubectl.ok("apply -f -", &WIDGET.replace("labels:", "finalizers: [example.dev/hold], labels:")).await;
        kubectl.ok("delete wd a --wait=false", "").await;
        contains(&kubectl.ok("get wd a -o yaml", "").await, "deletionTimestamp");
        let deleting = kubectl.command("delete wd a --timeout=30s").spawn().unwrap();
        kubectl.ok("patch wd a --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/finalizers\"}]", "").await;
        let said = deleting.wait_with_output().await.unwrap();
        // It may be gone before the second deletion asks for it.
        let gone = String::from_utf8_lossy(&said.stderr).contains("not found");
        assert!(said.status.success() || gone, "{said:?}");
        assert_eq!(kubectl.ok("get wd -o name", "").await, "");
    })
    .await;
}

#[tokio::test]
async fn an_object_is_described_with_its_events_and_explained() {
    with_each(async |kubectl| {
        kubectl.ok("apply -f -", WIDGET).await;
        let uid = kubectl.ok("get wd a -o jsonpath={.metadata.uid}", "").await;
        let event = format!(
            "apiVersion: v1\nkind: Event\nmetadata: {{name: a.1}}\nreason: Started\nmessage: it runs\ntype: Normal\n\
             involvedObject: {{apiVersion: example.dev/v1, kind: Widget, name: a, namespace: default, uid: {uid}}}\n\
             firstTimestamp: '2026-01-01T00:00:00Z'\nlastTimestamp: '2026-01-01T00:00:00Z'\ncount: 1\n\
             source: {{component: c}}\n"
        );
        kubectl.ok("create -f -", &event).await;
        let described = kubectl.ok("describe widget a", "").await;
        contains(&described, "Image:     img:1");
        contains(&described, "it runs");
        contains(&kubectl.ok("get events", "").await, "widget/a");
        contains(&kubectl.ok("get events.events.k8s.io", "").await, "it runs");
        contains(&kubectl.ok("explain widget.spec.image", "").await, "Cannot change.");
        contains(&kubectl.ok("explain secret.type", "").await, "Used to facilitate programmatic handling");
    })
    .await;
}

#[tokio::test]
async fn bad_objects_are_refused_in_the_words_of_kubernetes() {
    with_each(async |kubectl| {
        let unknown = WIDGET.replace("file:", "nope: 1, file:");
        contains(&kubectl.refused("apply -f -", &unknown).await, "strict decoding error: unknown field \"spec.nope\"");
        kubectl.ok("apply -f - --validate=ignore", &unknown).await;
        let immutable = kubectl.refused("apply -f -", &WIDGET.replace("img:1", "img:2")).await;
        contains(&immutable, "The Widget \"a\" is invalid: spec.image: Invalid value: \"img:2\": image is immutable");
        let both = WIDGET.replace("file:", "url: u, file:").replace("name: a", "name: b");
        let both = kubectl.refused("apply -f -", &both).await;
        contains(&both, "The Widget \"b\" is invalid: spec: Invalid value: exactly one of file and url must be set");
        let size = kubectl.refused("patch wd a --type=merge -p {\"spec\":{\"size\":\"Tiny\"}}", "").await;
        contains(&size, "spec.size: Unsupported value: \"Tiny\": supported values: \"Small\", \"Large\"");
        let strategic = kubectl.refused("patch wd a --type=strategic -p {}", "").await;
        contains(&strategic, "application/merge-patch+json");
    })
    .await;
}

#[tokio::test]
async fn core_objects_are_created_labelled_and_deleted() {
    with_each(async |kubectl| {
        assert_eq!(kubectl.ok("create namespace n", "").await, "namespace/n created\n");
        kubectl.ok("create configmap c -n n --from-literal=a=1", "").await;
        kubectl.ok("create secret generic s -n n --from-literal=p=q", "").await;
        assert_eq!(kubectl.ok("get secret s -n n -o jsonpath={.type},{.data.p}", "").await, "Opaque,cQ==");
        kubectl.ok("label cm c -n n x=y", "").await;
        kubectl.ok("annotate cm c -n n note=z", "").await;
        assert_eq!(kubectl.ok("get cm -n n -l x=y -o name", "").await, "configmap/c\n");
        assert_eq!(kubectl.ok("auth can-i create widgets", "").await, "yes\n");
        let who = kubectl.ok("auth whoami", "").await;
        assert!(who.contains("oncelet:admin") && who.contains("system:masters"), "{who}");
        kubectl.ok("delete namespace n", "").await;
        assert_eq!(kubectl.ok("get cm,secret -n n -o name", "").await, "");
        contains(&kubectl.refused("create configmap c -n n", "").await, "namespaces \"n\" not found");
        contains(
            &kubectl.refused("create secret generic Bad --from-literal=a=b", "").await,
            "a lowercase RFC 1123 subdomain",
        );
        kubectl.ok("delete wd --all", "").await;
    })
    .await;
}

#[tokio::test]
async fn definitions_are_applied_updated_and_taken_away_again() {
    with_each(async |kubectl| {
        let definition = include_str!("common/widgets.yaml").replace("idget", "adget");
        let definition = definition.replace("shortNames: [wd]", "shortNames: [gd]");
        contains(&kubectl.ok("apply -f -", &definition).await, "created");
        contains(&kubectl.ok("apply -f -", &definition).await, "unchanged");
        let gadget = WIDGET.replace("idget", "adget");
        kubectl.ok("wait crd/wadgets.example.dev --for=condition=Established --timeout=30s", "").await;
        kubectl.ok("apply -f -", &gadget).await;
        kubectl.ok("apply -f -", &definition.replace("maximum: 10", "maximum: 20")).await;
        kubectl.ok("patch wadget a --type=merge -p {\"spec\":{\"replicas\":20}}", "").await;
        kubectl.ok("delete crd wadgets.example.dev", "").await;
        contains(&kubectl.refused("get --raw /apis/example.dev/v1/wadgets", "").await, "not find");
    })
    .await;
}
