//! The engine's daemon dies: one of the suite's own, killed in the middle of a run.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::docker::{self, Container, docker};
use crate::oracle::{self, program};
use crate::process::{Process, eventually, output};
use crate::world::{Server, World};
use crate::{Setup, figures, trial};

pub(crate) fn trials(_: &Setup) -> Vec<Trial> {
    let podman = trial("engine::a_killed_podman_service_loses_nothing".to_owned(), Server::Embedded, kill_podman);
    // Where the podman of the other tests is not to be had, nor is this one's.
    let podman = podman.with_ignored_flag(std::env::var_os("ONCELET_TEST_PODMAN").is_none());
    let dockerds = [
        ("engine::a_killed_dockerd_with_live_restore_loses_nothing", true),
        ("engine::a_killed_dockerd_without_live_restore_interrupts", false),
    ]
    .map(|(name, live_restore)| trial(name.to_owned(), Server::Embedded, move |world| kill(world, live_restore)));
    dockerds.into_iter().chain([podman]).collect()
}

/// Podman has no daemon beside its containers: its service may come and go.
fn kill_podman(world: &mut World) {
    let dir = tempfile::Builder::new().prefix("oncelet-podman-").tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("hack/podman.sh");
    let run = |what: &str| output(Command::new(&script).arg(what).arg(dir.path())).unwrap().trim().to_owned();
    let url = run("start");
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("hack/test-image.sh");
    output(Command::new(image).arg(&url)).unwrap();
    docker::use_host(Some(url.clone()));
    world.daemon_args = vec!["--engine".into(), url];
    world.start();
    let name = world.container_name("db");
    docker(&["run", "--detach", "--network=none", "--name", &name, docker::IMAGE, "/bin/sleep", "1000000"]).unwrap();
    let container = Container::named(&name);
    let spec = program("job", true);
    world.apply_exec("job", &container, &spec);
    world.wait("job", "Started");
    let pid: i32 = std::fs::read_to_string(dir.path().join("podman.pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    figures::add("kills of a podman service", 1);
    run("start");
    container.sh("touch /data/go").unwrap();
    oracle::check(world, &container, "job");
    oracle::check_restored(world, &container, "job", &spec);
    world.stop();
    drop(container);
    run("stop");
}

/// A dockerd of this trial's own.
struct Dockerd {
    dir: TempDir,
    live_restore: bool,
    daemon: Option<Process>,
}

impl Dockerd {
    fn new(live_restore: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("oncelet-dockerd-").tempdir().unwrap();
        Self { dir, live_restore, daemon: None }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn start(&mut self) {
        let dir = self.dir.path();
        // In a network of its own: a second dockerd would take the first one's bridge away.
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd", "--bridge=none", "--iptables=false", "--host"]).arg(self.url());
        command.arg("--data-root").arg(dir.join("root")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("dockerd.pid"));
        if self.live_restore {
            command.arg("--live-restore");
        }
        self.daemon = Some(Process::spawn("dockerd", command, &dir.join("dockerd.log")));
        let url = self.url();
        eventually("the dockerd of this test answers", || {
            output(Command::new("docker").env("DOCKER_HOST", &url).arg("version")).ok()
        });
    }

    fn kill(&mut self) {
        self.daemon.take().unwrap().end(Signal::KILL);
        // Its containerd dies with it. Pidfiles that stay would be believed where nobody has collected the dead, as in a
        // container without an init.
        for pidfile in ["dockerd.pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.dir.path().join(pidfile));
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            self.start();
        }
        let url = self.url();
        let run =
            |args: &[&str]| output(Command::new("docker").env("DOCKER_HOST", &url).args(args)).unwrap_or_default();
        for id in run(&["ps", "--all", "--quiet"]).lines() {
            run(&["rm", "--force", id]);
        }
        if let Some(daemon) = self.daemon.take() {
            daemon.end(Signal::TERM);
        }
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path().join("root"))
            .stderr(std::process::Stdio::null())
            .status();
    }
}

fn kill(world: &mut World, live_restore: bool) {
    let mut dockerd = Dockerd::new(live_restore);
    dockerd.start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    output(Command::new(root.join("hack/test-image.sh")).arg(dockerd.url())).unwrap();
    docker::use_host(Some(dockerd.url()));
    world.daemon_args = vec!["--engine".into(), dockerd.url()];
    world.start();
    let name = world.container_name("db");
    docker(&["run", "--detach", "--network=none", "--name", &name, docker::IMAGE, "/bin/sleep", "1000000"]).unwrap();
    let container = Container::named(&name);
    let spec = program("job", true);
    world.apply_exec("job", &container, &spec);
    world.wait("job", "Started");
    dockerd.kill();
    figures::add("kills of a dockerd", 1);
    dockerd.start();
    if live_restore {
        // The program went on all the while, and nobody could listen.
        container.sh("touch /data/go").unwrap();
        oracle::check(world, &container, "job");
        oracle::check_restored(world, &container, "job", &spec);
    } else {
        let status = world.completed("job");
        assert_eq!(
            (&status["state"], &status["exitCode"]),
            (&"Interrupted".into(), &serde_json::Value::Null),
            "{status:#}"
        );
        assert!(status["message"].as_str().unwrap().contains("the container stopped"), "{status:#}");
        container.start();
        assert_eq!(oracle::starts(&container, "job"), 1);
        world.delete("job");
        assert_eq!(world.run("job", &container, &spec)["restored"], true);
        assert_eq!(oracle::starts(&container, "job"), 1);
    }
    world.stop();
    drop(container);
}
