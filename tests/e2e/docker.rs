//! Containers, made and looked into as a user would: with the `docker` command. It is the oracle, and shares no code with
//! what is tested.

use std::cell::RefCell;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::output;

/// The image that `hack/test-image.sh` makes.
pub(crate) const IMAGE: &str = "oncelet-demo/busybox:1";

/// The image that `hack/postgres-image.sh` makes, where it can.
#[allow(dead_code, reason = "one suite needs it")]
pub(crate) const POSTGRES: &str = "oncelet-demo/postgres:1";

/// The image that `hack/mariadb-image.sh` makes, where it can.
#[allow(dead_code, reason = "one suite needs it")]
pub(crate) const MARIADB: &str = "oncelet-demo/mariadb:1";

/// Whether the engine at `host`, or the usual one, has an image.
#[allow(dead_code, reason = "one suite asks for it")]
pub(crate) fn has_image(host: Option<&str>, image: &str) -> bool {
    let mut command = Command::new("docker");
    command.envs(host.map(|host| ("DOCKER_HOST", host))).args(["image", "inspect", image]);
    output(&mut command).is_ok()
}

/// Why no scenario can run here, if none can.
pub(crate) fn problem() -> Option<String> {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    PROBLEM
        .get_or_init(|| {
            if let Err(error) = docker(&["version"]) {
                return Some(format!("no Docker engine answers (hack/ensure-engine.sh installs one): {error}"));
            }
            docker(&["image", "inspect", IMAGE])
                .err()
                .map(|_| format!("there is no image {IMAGE} (hack/test-image.sh makes it)"))
        })
        .clone()
}

thread_local! {
    /// The engine that this thread's scenario is about, where it is not the usual one.
    static HOST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes `host` the engine of this thread's scenario.
#[allow(dead_code, reason = "one of the suites has an engine of its own")]
pub(crate) fn use_host(host: Option<String>) {
    HOST.set(host);
}

fn command() -> Command {
    let mut command = Command::new("docker");
    if let Some(host) = HOST.with_borrow(Clone::clone) {
        command.env("DOCKER_HOST", host);
    }
    command
}

/// Runs a docker command.
pub(crate) fn docker(args: &[&str]) -> Result<String, String> {
    match command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => output(command().args(args)).map(|out| out.trim_end().to_owned()),
        Err(error) => Err(format!("the docker command: {error}")),
    }
}

/// Removes the containers whose names begin so.
pub(crate) fn remove_all(prefix: &str) {
    let ids = docker(&["ps", "--all", "--quiet", "--filter", &format!("name=^{prefix}")]).unwrap_or_default();
    for id in ids.lines() {
        let _ = docker(&["rm", "--force", id]);
    }
}

/// A container; removed when dropped.
pub(crate) struct Container {
    pub name: String,
}

impl Container {
    /// Runs a container that waits for ever.
    pub(crate) fn run(name: &str) -> Self {
        let container = Self { name: name.to_owned() };
        container.create_again();
        container
    }

    /// A name whose container may come later, and is removed in any case.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Makes the container, under the same name as before.
    pub(crate) fn create_again(&self) {
        self.create_with(&[]).unwrap();
    }

    /// Makes the container, with more options of `docker run`.
    pub(crate) fn create_with(&self, options: &[&str]) -> Result<(), String> {
        let run = ["run", "--detach", "--name", &self.name];
        docker(&[&run, options, &[IMAGE, "/bin/sleep", "1000000"]].concat()).map(drop)
    }

    pub(crate) fn id(&self) -> String {
        docker(&["inspect", "--format", "{{.Id}}", &self.name]).unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        docker(&["inspect", "--format", "{{.State.Running}}", &self.name]).as_deref() == Ok("true")
    }

    /// Runs a shell script in the container, beside oncelet.
    pub(crate) fn sh(&self, script: &str) -> Result<String, String> {
        docker(&["exec", &self.name, "/bin/sh", "-c", script])
    }

    /// The lines of a file in the container; none where there is no such file.
    pub(crate) fn lines(&self, path: &str) -> Vec<String> {
        self.sh(&format!("cat {path} 2>/dev/null || true")).unwrap().lines().map(str::to_owned).collect()
    }

    /// Puts an executable file into the container.
    pub(crate) fn install(&self, path: &str, script: &str) {
        let mut child = command()
            .args(["exec", "--interactive", &self.name, "/bin/sh", "-c"])
            .arg(format!("cat > {path}.new && chmod 755 {path}.new && mv {path}.new {path}"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub(crate) fn stop(&self) {
        docker(&["stop", "--time", "1", &self.name]).unwrap();
    }

    pub(crate) fn start(&self) {
        docker(&["start", &self.name]).unwrap();
    }

    pub(crate) fn restart(&self) {
        docker(&["restart", "--time", "1", &self.name]).unwrap();
    }

    pub(crate) fn remove(&self) {
        docker(&["rm", "--force", &self.name]).unwrap();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.name]);
    }
}
