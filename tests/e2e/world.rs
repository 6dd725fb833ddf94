//! One scenario's world: an API server, a daemon with its own data directory, a namespace, containers.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oncelet_tests::kube_apiserver::KubeApiserver;
pub(crate) use oncelet_tests::kubectl;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::docker::{self, Container};
use crate::process::{Process, eventually, oncelet_path, output};

/// Which API server.
#[derive(Clone)]
pub(crate) enum Server {
    Embedded,
    Real(Arc<KubeApiserver>),
}

pub(crate) struct World {
    server: Server,
    daemon: Option<Process>,
    /// The data directory of another daemon, which is shared.
    store_of: Option<PathBuf>,
    /// The engine, where it is not the usual one.
    engine_host: Option<String>,
    /// Where the page is served.
    pub page: String,
    /// What the daemon takes beside the usual.
    pub daemon_args: Vec<String>,
    /// What is in its environment beside the usual.
    pub daemon_env: Vec<(String, String)>,
    /// What the daemon's policy says, if it has one: everything with `oncelet controller`.
    pub policy: Option<String>,
    /// The kubeconfig of a daemon that is somebody else in the cluster.
    pub daemon_kubeconfig: Option<PathBuf>,
    /// As many descriptors as the daemon may have, where it is not as many as usual.
    pub descriptors: Option<u32>,
    /// The daemon may fail at once: nothing is asked of it when it starts.
    pub expects_trouble: bool,
    pub dir: TempDir,
    pub namespace: String,
}

impl World {
    /// One whose engine is at `host`, or where the engine usually is.
    pub(crate) fn with_engine(server: Server, host: Option<String>) -> Self {
        let mut world = Self::new(server);
        world.engine_host = host;
        world
    }

    pub(crate) fn new(server: Server) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let everything = serde_json::json!([{"namespaces": ["*"], "engines": ["*"], "everything": true}]);
        Self {
            policy: matches!(server, Server::Real(_)).then(|| policy_of(&everything)),
            server,
            daemon: None,
            store_of: None,
            engine_host: None,
            page: "127.0.0.1:0".to_owned(),
            daemon_args: Vec::new(),
            daemon_env: Vec::new(),
            daemon_kubeconfig: None,
            descriptors: None,
            expects_trouble: false,
            dir: tempfile::Builder::new().prefix("oncelet-e2e-").tempdir().unwrap(),
            namespace: format!("e2e-{}-{number}", std::process::id()),
        }
    }

    /// The engine's address, where it is not the usual one.
    #[allow(dead_code, reason = "one suite has one engine")]
    pub(crate) fn engine_host(&self) -> Option<String> {
        self.engine_host.clone()
    }

    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.server, Server::Embedded)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        match &self.server {
            Server::Embedded => self.dir.path().join("kubeconfig"),
            Server::Real(server) => server.kubeconfig().to_owned(),
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.store_of.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    // --- the daemon ---

    /// Starts the daemon: `oncelet up`, or `oncelet controller` against the real server.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        let mut command = match self.descriptors {
            None => Command::new(oncelet_path()),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh"])
                    .arg(most.to_string())
                    .arg(oncelet_path());
                shell
            }
        };
        match &self.server {
            // A free port at each start: a restart must not depend on the old one being free again.
            Server::Embedded => command
                .args(["up", "--listen", "127.0.0.1:0", "--page", &self.page])
                .arg("--kubeconfig")
                .arg(self.kubeconfig()),
            Server::Real(server) => {
                let kubeconfig = self.daemon_kubeconfig.as_deref().unwrap_or(server.kubeconfig());
                command.args(["controller", "--page", &self.page]).arg("--kubeconfig").arg(kubeconfig)
            }
        };
        if let Some(policy) = &self.policy {
            self.write_policy(policy);
            command.arg("--policy").arg(self.policy_file());
        }
        command.arg("--data-dir").arg(self.data_dir()).args(&self.daemon_args);
        command.env("ONCELET_LOG", "info,oncelet_controller=debug").env_remove("KUBECONFIG");
        command.envs(self.engine_host.iter().map(|host| ("DOCKER_HOST", host)));
        command.envs(self.daemon_env.iter().map(|(name, value)| (name, value)));
        let before = self.daemon_log().len();
        self.daemon = Some(Process::spawn("oncelet", command, &self.log_path()));
        if self.is_embedded() {
            eventually("oncelet up says that it is up", || {
                assert!(self.daemon.as_mut().unwrap().has_ended().is_none(), "oncelet up ended");
                self.daemon_log()[before..].contains("is up").then_some(())
            });
        }
        if self.expects_trouble {
            return;
        }
        let created = self.kubectl(&["create", "namespace", &self.namespace]);
        assert!(created.is_ok() || created.as_ref().unwrap_err().contains("AlreadyExists"), "{created:?}");
    }

    /// Ends the daemon as Ctrl-C's nicer sibling does, and checks that it ends well.
    pub(crate) fn stop(&mut self) {
        let status = self.end(Signal::TERM);
        assert!(status.success(), "oncelet ended with {status} after SIGTERM");
    }

    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Waits until the daemon has ended by itself.
    #[allow(dead_code, reason = "one suite kills it from inside")]
    pub(crate) fn await_end(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        eventually("the daemon has ended", || daemon.has_ended())
    }

    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        self.daemon.take().unwrap().end(signal)
    }

    /// A second daemon on the same store: on the same cluster or, without one, with a server of its own.
    pub(crate) fn start_second(&self) -> World {
        let mut second = World::with_engine(self.server.clone(), self.engine_host.clone());
        second.store_of = Some(self.data_dir());
        second.namespace.clone_from(&self.namespace);
        second.start();
        second
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn daemon_pid(&self) -> i32 {
        self.daemon.as_ref().unwrap().pid()
    }

    fn policy_file(&self) -> PathBuf {
        self.dir.path().join("policy.yaml")
    }

    /// Puts a policy, or anything else, in the place of the file that the daemon reads.
    pub(crate) fn write_policy(&self, text: &str) {
        let new = self.dir.path().join("policy.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.policy_file()).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    pub(crate) fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The command line beside the daemon: `oncelet runs …`, `oncelet logs …`.
    pub(crate) fn oncelet(&self, args: &[&str]) -> Result<String, String> {
        output(self.oncelet_command().args(args))
    }

    /// What opens the page. A controller serves it a moment after it was started.
    #[allow(dead_code, reason = "one suite looks at it")]
    pub(crate) fn page_address(&self) -> String {
        eventually("the page is served", || self.oncelet(&["page"]).ok()).trim().to_owned()
    }

    pub(crate) fn oncelet_command(&self) -> Command {
        let mut command = Command::new(oncelet_path());
        command.env("ONCELET_DATA_DIR", self.data_dir()).env("ONCELET_KUBECONFIG", self.kubeconfig());
        command.envs(self.engine_host.iter().map(|host| ("DOCKER_HOST", host)));
        command
    }

    // --- the API ---

    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        output(self.kubectl_command().args(args))
    }

    pub(crate) fn kubectl_command(&self) -> Command {
        let mut command = kubectl(&self.kubeconfig());
        command.args(["--namespace", &self.namespace]);
        command
    }

    /// `kubectl apply` of a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> Result<String, String> {
        self.apply_within("0", manifest)
    }

    /// The same, which gives up after a time such as `5s`.
    pub(crate) fn apply_within(&self, limit: &str, manifest: &str) -> Result<String, String> {
        let mut command = self.kubectl_command();
        let mut child = command
            .args(["apply", "-f", "-", "--request-timeout", limit])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), manifest.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// Applies a `ContainerExec` whose spec, beside its target, is the JSON object `spec`.
    pub(crate) fn apply_exec(&self, name: &str, container: &Container, spec: &Value) {
        self.apply(&exec_manifest(name, container, spec)).unwrap();
    }

    /// Applies one and waits until it is complete; returns its status.
    pub(crate) fn run(&self, name: &str, container: &Container, spec: &Value) -> Value {
        self.apply_exec(name, container, spec);
        self.completed(name)
    }

    pub(crate) fn delete(&self, name: &str) {
        self.kubectl(&["delete", "cexec", name]).unwrap();
    }

    /// Waits with `kubectl wait`, and returns the status.
    pub(crate) fn completed(&self, name: &str) -> Value {
        self.wait(name, "Complete")
    }

    pub(crate) fn wait(&self, name: &str, condition: &str) -> Value {
        let waited =
            self.kubectl(&["wait", &format!("cexec/{name}"), &format!("--for=condition={condition}"), "--timeout=60s"]);
        assert!(waited.is_ok(), "{name} is not {condition}: {waited:?}\n{:#}", self.status(name));
        self.status(name)
    }

    pub(crate) fn status(&self, name: &str) -> Value {
        self.object("cexec", name)["status"].clone()
    }

    pub(crate) fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"]).unwrap()).unwrap()
    }

    /// Waits until a condition has a status and a reason; returns its message.
    pub(crate) fn condition(&self, kind: &str, name: &str, type_: &str, status: &str, reason: &str) -> String {
        let mut last = Value::Null;
        let wanted = format!("{kind} {name}: condition {type_}={status} with reason {reason}");
        eventually(&wanted, || {
            let object = self.object(kind, name);
            let found =
                object["status"]["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == type_));
            let condition = found.cloned().unwrap_or_default();
            if condition != last {
                eprintln!("{name}: {condition}");
                last.clone_from(&condition);
            }
            (condition["status"] == status && condition["reason"] == reason)
                .then(|| condition["message"].as_str().unwrap_or_default().to_owned())
        })
    }

    // --- containers ---

    /// A container name of this scenario's own.
    pub(crate) fn container_name(&self, name: &str) -> String {
        format!("oncelet-{}-{name}", self.namespace)
    }

    /// A running container of this scenario's own.
    pub(crate) fn container(&self, name: &str) -> Container {
        Container::run(&self.container_name(name))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // First the daemon, which makes persistent containers again, then what it made.
        drop(self.daemon.take());
        if self.engine_host.is_some() {
            // What the daemon has just asked for may still be in the making, and nobody is told when it is done. Podman keeps a
            // container that is removed meanwhile in its list for ever, and then fails every list.
            std::thread::sleep(Duration::from_millis(500));
        }
        docker::remove_all(&self.container_name(""));
        if let Server::Real(_) = &self.server {
            // A real cluster keeps its objects; the next scenario's daemon must not find them.
            for kind in ["cexec", "ctr"] {
                for object in self.kubectl(&["get", kind, "-o", "name"]).unwrap_or_default().lines() {
                    // The daemon that would remove them is gone.
                    let _ =
                        self.kubectl(&["patch", object, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
                }
                let _ = self.kubectl(&["delete", kind, "--all"]);
            }
        }
    }
}

/// The text of a policy of these rules.
pub(crate) fn policy_of(rules: &Value) -> String {
    serde_json::json!({"apiVersion": "oncelet.dev/v1alpha1", "kind": "Policy", "rules": rules}).to_string()
}

/// The manifest of a `ContainerExec` for an engine container.
pub(crate) fn exec_manifest(name: &str, container: &Container, spec: &Value) -> String {
    let mut spec = spec.clone();
    spec["engineContainer"] = container.name.clone().into();
    manifest("ContainerExec", name, &spec)
}

/// Several manifests as one.
pub(crate) fn list(manifests: impl Iterator<Item = String>) -> String {
    let items: Vec<Value> = manifests.map(|manifest| serde_json::from_str(&manifest).unwrap()).collect();
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

pub(crate) fn manifest(kind: &str, name: &str, spec: &Value) -> String {
    serde_json::json!({
        "apiVersion": "oncelet.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
    .to_string()
}

/// The spec of a shell script.
pub(crate) fn sh(script: &str) -> Value {
    serde_json::json!({"command": "/bin/sh", "args": ["-c", script]})
}

/// What is restored, always together.
pub(crate) fn five_things(status: &Value) -> Value {
    let mut things = serde_json::Map::new();
    for field in [
        "startupTimestamp",
        "finishTimestamp",
        "exitCode",
        "stdout",
        "stderr",
        "effectiveEnv",
        "effectiveArgs",
        "runId",
    ] {
        things.insert(field.to_owned(), status[field].clone());
    }
    for field in ["startupTimestamp", "finishTimestamp", "exitCode", "stdout", "effectiveArgs"] {
        assert!(!things[field].is_null(), "status has no {field}: {status:#}");
    }
    things.into()
}
