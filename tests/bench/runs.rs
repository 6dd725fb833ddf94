//! Programs through `oncelet up` beside the bare engine: how soon they start, how soon their end shows, how many a second.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use oncelet_api::{Container, ContainerExec, ContainerExecStatus, ExecState};
use oncelet_tests::process::{Process, eventually, output};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::report::{Figure, Measure, Report, Section};
use crate::store;
use crate::twins::Twins;

const IMAGE: &str = "oncelet-demo/busybox:1";
/// How many programs are started at a time, through us and through the bare engine.
const AT_ONCE: usize = 4;
const MEBIBYTE: u64 = 1 << 20;

/// How much is measured.
pub(crate) struct Size {
    /// Programs one after the other.
    pub(crate) programs: usize,
    /// Programs at once, in each round.
    pub(crate) crowd: usize,
    /// Objects that get an outcome back at once.
    pub(crate) objects: usize,
    /// Output of one program, in mebibytes.
    pub(crate) output: u64,
    /// How often what takes long is measured in turn.
    pub(crate) rounds: usize,
    /// Runs in the store, where that is a lot.
    pub(crate) stored: usize,
}

/// Milliseconds.
#[derive(Default)]
struct Times {
    launch: [Vec<f64>; 2],
    finish: [Vec<f64>; 2],
    restore: [Vec<f64>; 2],
}

struct Bench<'a> {
    runtime: &'a Runtime,
    docker: Docker,
    client: Client,
    execs: Api<ContainerExec>,
    twins: Twins,
    /// Containers, by name.
    containers: Vec<String>,
    /// Lines that programs write into a pipe which they share with this process, and when they came.
    lines: Receiver<(String, Instant)>,
    /// What the watch shows of objects, and when.
    seen: UnboundedReceiver<(String, ContainerExecStatus, Instant)>,
    dir: PathBuf,
    _up: Process,
}

/// Measures everything with a release build of `oncelet`, in `dir`.
pub(crate) fn measure(runtime: &Runtime, binary: &Path, dir: &Path, size: &Size) -> Section {
    let mut bench = Bench::begin(runtime, binary, dir);
    let mut times = Times::default();
    // The first program of a container also puts the supervisor there.
    bench.through_us("warm-up");
    bench.raw("warm-up");
    for number in 0..size.programs {
        let raw = bench.raw(&format!("raw-{number}"));
        let name = format!("job-{number}");
        times.launch[0].push(bench.through_us(&name));
        times.launch[1].push(raw);
        times.finish[0].push(bench.outlives_its_start(&format!("long-{number}")));
        times.finish[1].push(bench.inspect_and_patch());
        times.restore[1].push(bench.two_trips_and_an_inspect());
        times.restore[0].push(bench.restore(&name));
    }
    eprintln!("{} programs one after the other are done", size.programs);
    let mut crowds = [Vec::new(), Vec::new()];
    for round in 0..size.rounds {
        crowds[0].push(bench.crowd_through_us(round, size.crowd));
        crowds[1].push(bench.crowd_raw(size.crowd));
        eprintln!("round {} of {} with {} programs is done", round + 1, size.rounds, size.crowd);
    }
    let mut restores = [Vec::new(), Vec::new()];
    for round in 0..size.rounds {
        let (ours, theirs) = bench.restore_many(round, size.objects);
        restores[0].push(ours);
        restores[1].push(theirs);
        eprintln!("round {} of {} with {} restores is done", round + 1, size.rounds, size.objects);
    }
    let mut outputs = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..size.rounds {
        outputs[0].push(bench.output_through_us(round, size.output));
        outputs[1].push(bench.output_raw(size.output, ""));
        outputs[2].push(bench.output_raw(size.output, "> /tmp/output"));
    }
    let few: Vec<_> = (0..size.programs).map(|number| bench.restore(&format!("job-{number}"))).collect();
    runtime.block_on(store::fill(&dir.join("data/store"), size.stored));
    eprintln!("{} runs are in the store", size.stored);
    let many: Vec<_> = (0..size.programs).map(|number| bench.restore(&format!("job-{number}"))).collect();
    bench.end();

    let mut report = Report::default();
    let [launch, raw_launch] = &times.launch;
    for (name, share, goal) in [("p50", 0.5, 1.15), ("p99", 0.99, 1.5)] {
        let measure = Measure::of("launch", &format!("object created until the program runs, {name}"), "ms");
        report.row(measure, &Figure::at(launch, share), &Figure::at(raw_launch, share), goal);
    }
    let median = Figure::median;
    let [ours, theirs] = times.finish.map(|all| median(&all));
    report.row(Measure::of("finish", "program over until its status is seen", "ms"), &ours, &theirs, 2.0);
    let [ours, theirs] = times.restore.map(|all| median(&all));
    report.row(Measure::of("restore", "object created until the outcome is seen", "ms"), &ours, &theirs, 1.5);
    let [ours, theirs] = crowds.map(|all| median(&all));
    report.rate(Measure::of("saturation", "programs", "/s"), &ours, &theirs, 0.95);
    let [ours, theirs] = restores.map(|all| median(&all));
    report.rate(Measure::of("restore rate", &format!("{} objects", size.objects), "/s"), &ours, &theirs, 0.8);
    let stored = format!("restore with {} stored runs, beside with few", size.stored);
    report.row(Measure::of("growth", &stored, "ms"), &median(&many), &median(&few), 1.5);
    let [ours, attached, in_file] = outputs.map(|all| median(&all));
    let faster = if attached.value > in_file.value { attached } else { in_file };
    report.rate(Measure::of("logs", &format!("{} MiB of output", size.output), "MiB/s"), &ours, &faster, 0.9);
    Section { name: "runs", ours: "oncelet up", theirs: "bare", report }
}

impl<'a> Bench<'a> {
    fn begin(runtime: &'a Runtime, binary: &Path, dir: &Path) -> Self {
        let shared = dir.join("shared");
        std::fs::create_dir(&shared).unwrap();
        let pipe = shared.join("pipe");
        assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status().unwrap().success());
        let (tell, lines) = channel();
        // Open for both, so that it never ends and no program waits for a reader.
        let file = File::options().read(true).write(true).open(&pipe).unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                if tell.send((line, Instant::now())).is_err() {
                    return;
                }
            }
        });
        let containers: Vec<_> =
            (0..4).map(|number| format!("oncelet-bench-{}-{number}", std::process::id())).collect();
        for name in &containers {
            let mount = format!("{}:/shared", shared.display());
            let run = ["run", "-d", "--name", name, "-v", &mount, IMAGE, "/bin/sleep", "1000000"];
            output(Command::new("docker").args(run)).expect("a container can be made (hack/test-image.sh)");
        }
        let kubeconfig = dir.join("kubeconfig");
        let mut command = Command::new(binary);
        command.args(["up", "--listen", "127.0.0.1:0", "--page", "off", "--kubeconfig"]).arg(&kubeconfig);
        command.arg("--data-dir").arg(dir.join("data"));
        let up = Process::spawn("oncelet", command, &dir.join("oncelet.log"));
        eventually("oncelet up takes requests", || {
            output(oncelet_tests::kubectl(&kubeconfig).args(["get", "cexec"])).ok()
        });
        let docker = Docker::connect_with_local_defaults().unwrap();
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(&kubeconfig).unwrap();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            Client::try_from(config).unwrap()
        });
        let execs = Api::<ContainerExec>::namespaced(client.clone(), "default");
        let (tell, seen) = unbounded_channel();
        let watched = execs.clone();
        runtime.spawn(async move {
            let changes = watcher(watched, watcher::Config::default()).default_backoff().applied_objects();
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                // Where there was too much to tell, all is listed again.
                let Ok(exec) = change else { continue };
                let status = exec.status.clone().unwrap_or_default();
                if tell.send((exec.name_any(), status, Instant::now())).is_err() {
                    return;
                }
            }
        });
        let twins = runtime.block_on(Twins::made(client.clone()));
        let dir = dir.to_owned();
        runtime.block_on(twins.create(0));
        Self { runtime, docker, client, execs, twins, containers, lines, seen, dir, _up: up }
    }

    fn end(self) {
        for name in &self.containers {
            let _ = output(Command::new("docker").args(["rm", "-f", name]));
        }
    }

    /// When the program of this name wrote into the pipe.
    fn line(&self, name: &str) -> Instant {
        loop {
            let (line, at) = self.lines.recv_timeout(Duration::from_mins(1)).expect("the program writes into the pipe");
            if line == name {
                return at;
            }
        }
    }

    /// When the watch showed what `wanted` accepts, for each object of these names.
    fn shown(&mut self, mut names: HashSet<String>, wanted: fn(&ContainerExecStatus) -> bool) -> Instant {
        self.runtime.block_on(async {
            loop {
                let (name, status, at) = self.seen.recv().await.unwrap();
                if wanted(&status) && names.remove(&name) && names.is_empty() {
                    return at;
                }
            }
        })
    }

    fn create(&self, exec: &ContainerExec) {
        self.runtime.block_on(self.execs.create(&PostParams::default(), exec)).unwrap();
    }

    /// One program, to its end; how long until it ran.
    fn through_us(&mut self, name: &str) -> f64 {
        let exec = exec(name, &self.containers[0], &tells(name));
        let begun = Instant::now();
        self.create(&exec);
        let ran = self.line(name);
        self.shown(one(name), is_finished);
        milliseconds(ran - begun)
    }

    /// How long until the end was seen of a program that ends when the engine is long through with starting it. Before that no
    /// output comes from Docker, and no inspection of the container is answered.
    fn outlives_its_start(&mut self, name: &str) -> f64 {
        let mut exec = exec(name, &self.containers[0], &tells(name));
        let telling = exec.spec.args.pop().unwrap();
        exec.spec.args.push(format!("/bin/sleep 0.3; {telling}"));
        self.create(&exec);
        let over = self.line(name);
        milliseconds(self.shown(one(name), is_finished) - over)
    }

    /// The same program with nothing between; how long until it ran.
    fn raw(&self, name: &str) -> f64 {
        let begun = Instant::now();
        self.runtime.block_on(run_bare(&self.docker, &self.containers[0], &tells(name)));
        milliseconds(self.line(name) - begun)
    }

    /// What the end of a program takes at least.
    fn inspect_and_patch(&self) -> f64 {
        let begun = Instant::now();
        self.runtime.block_on(async {
            self.docker.inspect_container(&self.containers[0], None).await.unwrap();
            self.twins.patch(0).await;
        });
        milliseconds(begun.elapsed())
    }

    fn two_trips_and_an_inspect(&self) -> f64 {
        let begun = Instant::now();
        self.runtime.block_on(async {
            self.twins.patch(0).await;
            self.docker.inspect_container(&self.containers[0], None).await.unwrap();
            self.twins.patch(0).await;
        });
        milliseconds(begun.elapsed())
    }

    /// An object that ran is deleted and made again.
    fn restore(&mut self, name: &str) -> f64 {
        self.runtime.block_on(self.execs.delete(name, &DeleteParams::default())).unwrap();
        eventually("the object is gone", || {
            self.runtime.block_on(self.execs.get_opt(name)).unwrap().is_none().then_some(())
        });
        let exec = exec(name, &self.containers[0], &tells(name));
        let begun = Instant::now();
        self.create(&exec);
        let seen = self.shown(one(name), is_restored);
        milliseconds(seen - begun)
    }

    /// Programs a second, of many objects that are there at once.
    fn crowd_through_us(&mut self, round: usize, count: usize) -> f64 {
        let names: Vec<_> = (0..count).map(|number| format!("crowd-{round}-{number}")).collect();
        let begun = Instant::now();
        let all: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                exec(name, &self.containers[number % self.containers.len()], &["/bin/true".to_owned()])
            })
            .collect();
        let execs = self.execs.clone();
        self.runtime.block_on(async {
            let create = |exec: &ContainerExec| {
                let (execs, exec) = (execs.clone(), exec.clone());
                async move { execs.create(&PostParams::default(), &exec).await.map(drop) }
            };
            stream::iter(&all).map(create).buffer_unordered(32).try_collect::<()>().await.unwrap();
        });
        let over = self.shown(names.into_iter().collect(), is_finished);
        rate(count, over - begun)
    }

    fn crowd_raw(&self, count: usize) -> f64 {
        let begun = Instant::now();
        self.runtime.block_on(async {
            let command = ["/bin/true".to_owned()];
            let run =
                |number: usize| run_bare(&self.docker, &self.containers[number % self.containers.len()], &command);
            stream::iter(0..count).map(run).buffer_unordered(AT_ONCE).collect::<()>().await;
        });
        rate(count, begun.elapsed())
    }

    /// Restores a second of objects that all wait for a container which appears; and bare patches a second, as many at once.
    fn restore_many(&mut self, round: usize, count: usize) -> (f64, f64) {
        let later = format!("later-{round}");
        let shared = |name: &str| {
            let mut exec = exec(name, "", &["/bin/true".to_owned()]);
            exec.spec.engine_container = None;
            exec.spec.container_name = Some(later.clone());
            exec.spec.run_key = Some("shared".to_owned());
            exec
        };
        let first = format!("first-{round}");
        let mut ran = exec(&first, &self.containers[0], &["/bin/true".to_owned()]);
        ran.spec.run_key = Some("shared".to_owned());
        self.create(&ran);
        self.shown(one(&first), is_finished);
        let names: Vec<_> = (0..count).map(|number| format!("again-{round}-{number}")).collect();
        let (execs, containers) = (self.execs.clone(), Api::<Container>::namespaced(self.client.clone(), "default"));
        self.runtime.block_on(async {
            let create = |name: &String| {
                let (execs, exec) = (execs.clone(), shared(name));
                async move { execs.create(&PostParams::default(), &exec).await.map(drop) }
            };
            stream::iter(&names).map(create).buffer_unordered(32).try_collect::<()>().await.unwrap();
        });
        self.shown(names.iter().cloned().collect(), |status| status.state == Some(ExecState::Waiting));
        let later: Container = serde_json::from_value(json!({
            "apiVersion": "oncelet.dev/v1alpha1", "kind": "Container", "metadata": {"name": later},
            "spec": {"mode": "existing", "containerName": self.containers[0]},
        }))
        .unwrap();
        let begun = Instant::now();
        self.runtime.block_on(containers.create(&PostParams::default(), &later)).unwrap();
        let over = self.shown(names.iter().cloned().collect(), is_restored);
        let restores = rate(count, over - begun);
        let twins = &self.twins;
        if round == 0 {
            let made = stream::iter(1..=count).map(|number| twins.create(number)).buffer_unordered(32);
            self.runtime.block_on(made.collect::<()>());
        }
        let begun = Instant::now();
        let patched = stream::iter(1..=count).map(|number| twins.patch(number)).buffer_unordered(32);
        self.runtime.block_on(patched.collect::<()>());
        let bare = rate(count, begun.elapsed());
        let delete = |name: &String| {
            let (execs, name) = (self.execs.clone(), name.clone());
            async move { execs.delete(&name, &DeleteParams::default()).await.map(drop) }
        };
        let deleted = stream::iter(&names).map(delete).buffer_unordered(32);
        self.runtime.block_on(deleted.try_collect::<()>()).unwrap();
        (restores, bare)
    }

    /// Mebibytes a second, from the object to an end that is seen, with everything kept.
    fn output_through_us(&mut self, round: usize, mebibytes: u64) -> f64 {
        let name = format!("output-{round}");
        let begun = Instant::now();
        self.create(&exec(&name, &self.containers[0], &writes(mebibytes, "")));
        let over = self.shown(one(&name), is_finished);
        let status = self.runtime.block_on(self.execs.get(&name)).unwrap().status.unwrap();
        let kept = status.stdout.unwrap();
        assert_eq!((u64::try_from(kept.bytes).unwrap(), kept.truncated), (mebibytes * MEBIBYTE, false));
        // The store's own checksum is checked where the log is read.
        let mut logs = Command::new(std::env::var_os("ONCELET_BIN").unwrap());
        let logs =
            logs.args(["logs", &name, "--data-dir"]).arg(self.dir.join("data")).stdout(std::process::Stdio::null());
        assert!(logs.status().unwrap().success(), "the log is whole");
        speed(mebibytes, over - begun)
    }

    fn output_raw(&self, mebibytes: u64, to: &str) -> f64 {
        let begun = Instant::now();
        self.runtime.block_on(run_bare(&self.docker, &self.containers[0], &writes(mebibytes, to)));
        speed(mebibytes, begun.elapsed())
    }
}

/// Runs a program and reads what it writes, to its end.
async fn run_bare(docker: &Docker, container: &str, command: &[String]) {
    let config = ExecConfig {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(container, config).await.unwrap();
    let started = docker.start_exec(&exec.id, None::<StartExecOptions>).await.unwrap();
    let StartExecResults::Attached { mut output, .. } = started else { panic!("it is attached") };
    while output.try_next().await.unwrap().is_some() {}
    assert_eq!(docker.inspect_exec(&exec.id).await.unwrap().exit_code, Some(0));
}

fn exec(name: &str, container: &str, command: &[String]) -> ContainerExec {
    serde_json::from_value(json!({
        "apiVersion": "oncelet.dev/v1alpha1", "kind": "ContainerExec", "metadata": {"name": name},
        "spec": {"engineContainer": container, "command": command[0], "args": command[1..].to_vec()},
    }))
    .unwrap()
}

/// A program that tells when it runs.
fn tells(name: &str) -> [String; 3] {
    ["/bin/sh".to_owned(), "-c".to_owned(), format!("echo {name} > /shared/pipe")]
}

/// A program that writes so much text.
fn writes(mebibytes: u64, to: &str) -> [String; 3] {
    let line = "a line of text as programs write them, with a number or two: 17 of 42 rows";
    let script = format!("yes '{line}' | head -c {} {to}", mebibytes * MEBIBYTE);
    ["/bin/sh".to_owned(), "-c".to_owned(), script]
}

fn one(name: &str) -> HashSet<String> {
    HashSet::from([name.to_owned()])
}

fn is_finished(status: &ContainerExecStatus) -> bool {
    status.state == Some(ExecState::Finished)
}

fn is_restored(status: &ContainerExecStatus) -> bool {
    is_finished(status) && status.restored == Some(true)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn speed(mebibytes: u64, time: Duration) -> f64 {
    mebibytes as f64 / time.as_secs_f64()
}
