//! Real engines for tests: Docker at `DOCKER_HOST` or its usual socket, Podman at `ONCELET_TEST_PODMAN`.

pub(crate) mod proxy;

use std::{path::Path, time::Duration};

use bollard::{
    Docker, body_full,
    query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder},
};
use futures::TryStreamExt;
use oncelet_engine::{
    ContainerId, Endpoint, Engine, ExecEnd, ExecEvent, ExecId, NewContainer, NewExec, OutputStream, RunningExec,
};
use tokio::sync::OnceCell;

pub(crate) const IMAGE: &str = "oncelet-test/busybox:1";
const BUSYBOX: &str = "/bin/busybox";

pub(crate) async fn docker() -> Option<Engine> {
    static READY: OnceCell<()> = OnceCell::const_new();
    let url = std::env::var("DOCKER_HOST")
        .ok()
        .filter(|url| !url.is_empty())
        .or_else(|| Path::new("/var/run/docker.sock").exists().then(|| "unix:///var/run/docker.sock".to_owned()));
    let Some(url) = url else {
        eprintln!("SKIPPED: no Docker here (DOCKER_HOST is not set, and there is no /var/run/docker.sock)");
        return None;
    };
    READY.get_or_init(|| make_image(&url)).await;
    Some(Engine::connect(&Endpoint::Url(url)).unwrap())
}

pub(crate) async fn podman() -> Option<Engine> {
    static READY: OnceCell<()> = OnceCell::const_new();
    let Ok(url) = std::env::var("ONCELET_TEST_PODMAN") else {
        eprintln!("SKIPPED: no Podman here (ONCELET_TEST_PODMAN is not set to its unix:// URL)");
        return None;
    };
    READY.get_or_init(|| make_image(&url)).await;
    Some(Engine::connect(&Endpoint::Url(url)).unwrap())
}

/// Imports a static busybox as an image of its own, where that is not there yet.
async fn make_image(url: &str) {
    let docker = match url.strip_prefix("unix://") {
        Some(path) => Docker::connect_with_unix(path, 120, bollard::API_DEFAULT_VERSION).unwrap(),
        None => Docker::connect_with_http(url, 120, bollard::API_DEFAULT_VERSION).unwrap(),
    };
    if docker.inspect_image(IMAGE).await.is_ok() {
        return;
    }
    let (repository, tag) = IMAGE.split_once(':').unwrap();
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(repository).tag(tag).build();
    let layer = body_full(busybox_layer().into());
    docker.create_image(Some(options), Some(layer), None).try_collect::<Vec<_>>().await.unwrap();
    if docker.inspect_image(IMAGE).await.is_err() {
        // Podman 4.3 ignores the tag.
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        docker.tag_image(&format!("{repository}:latest"), Some(options)).await.unwrap();
    }
}

fn busybox_layer() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_entry_type(if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        layer.append_data(&mut header, path, content).unwrap();
    };
    let busybox = std::fs::read(BUSYBOX).expect("a static busybox at /bin/busybox (package busybox-static)");
    add("bin/", 0o755, &[]);
    add("bin/busybox", 0o755, &busybox);
    add("bin/text", 0o644, b"not a program\n");
    add("tmp/", 0o1777, &[]);
    add("etc/", 0o755, &[]);
    add("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\napp:x:1234:77::/tmp:/bin/sh\n");
    layer.into_inner().unwrap()
}

/// A container that waits, and is removed with this value, also when a test fails.
pub(crate) struct Waiting {
    pub(crate) engine: Engine,
    pub(crate) id: ContainerId,
    pub(crate) name: String,
}

pub(crate) fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("oncelet-test-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn waiting(name: &str) -> NewContainer {
    NewContainer {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        command: Some(BUSYBOX.to_owned()),
        args: vec!["sleep".to_owned(), "100000".to_owned()],
        ..NewContainer::default()
    }
}

impl Waiting {
    pub(crate) async fn start(engine: Engine, new: &NewContainer) -> Self {
        let container = Self::create(engine, new).await;
        container.engine.start_container(&container.id).await.unwrap();
        container
    }

    pub(crate) async fn create(engine: Engine, new: &NewContainer) -> Self {
        let id = engine.create_container(new).await.unwrap();
        Self { engine, id, name: new.name.clone() }
    }

    pub(crate) async fn named(engine: Engine, what: &str) -> Self {
        Self::start(engine, &waiting(&unique(what))).await
    }

    pub(crate) async fn prepare(&self, script: &str) -> ExecId {
        self.engine.create_exec(&self.id, &sh(script)).await.unwrap()
    }

    pub(crate) async fn run(&self, new: &NewExec) -> Outcome {
        let exec = self.engine.create_exec(&self.id, new).await.unwrap();
        finish(self.engine.start_exec(&exec).await.unwrap()).await
    }

    pub(crate) async fn sh(&self, script: &str) -> Outcome {
        self.run(&sh(script)).await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // It may be gone already; that is one of the tests.
            let _ = runtime.block_on(engine.remove_container(&id, true));
        };
        let _ = std::thread::spawn(remove).join();
    }
}

pub(crate) fn command(words: &[&str]) -> NewExec {
    NewExec { command: words.iter().map(|&word| word.to_owned()).collect(), ..NewExec::default() }
}

pub(crate) fn sh(script: &str) -> NewExec {
    command(&[BUSYBOX, "sh", "-c", script])
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) end: ExecEnd,
}

impl Outcome {
    pub(crate) fn exit_code(&self) -> i64 {
        match self.end {
            ExecEnd::Exited { exit_code } => exit_code,
            ref other => panic!("expected an exit code, got {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Reads to the end, which must be the last event.
pub(crate) async fn finish(mut running: RunningExec) -> Outcome {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match next(&mut running).await {
            ExecEvent::Output { stream: OutputStream::Stdout, bytes } => stdout.extend_from_slice(&bytes),
            ExecEvent::Output { stream: OutputStream::Stderr, bytes } => stderr.extend_from_slice(&bytes),
            ExecEvent::Ended(end) => {
                assert_eq!(running.next().await, None, "nothing follows the end");
                return Outcome { stdout, stderr, end };
            }
        }
    }
}

pub(crate) async fn next(running: &mut RunningExec) -> ExecEvent {
    tokio::time::timeout(Duration::from_mins(1), running.next()).await.expect("an event in time").expect("an event")
}

/// Makes each test twice, for Docker and for Podman.
#[macro_export]
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod docker { $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
            if let Some(engine) = super::support::docker().await { super::$test(engine).await; }
        })+ }
        mod podman { $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
            if let Some(engine) = super::support::podman().await { super::$test(engine).await; }
        })+ }
    };
}
