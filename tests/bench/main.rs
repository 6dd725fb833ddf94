//! Programs through `oncelet up` beside the bare engine, and its API server beside a real kube-apiserver with its etcd: start,
//! memory, and latencies with 10,000 objects and 100 watchers.
//!
//! Both are measured in the same run, in turn, by the same client, and what is told is a ratio. Nothing here is a test: a slow
//! machine makes other figures, never a failure. `hack/bench.sh` builds what it needs and writes `docs/benchmarks.md`.
//! `ONCELET_BENCH=quick` takes a few minutes and says less.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod load;
mod report;
mod runs;
mod store;
mod twins;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use load::{Latencies, Load};
use oncelet_tests::kube_apiserver::KubeApiserver;
use oncelet_tests::process::{Process, eventually, output};
use report::{Measure, Report, Section};
use tempfile::TempDir;

const WATCHERS: usize = 100;

/// How much is measured.
struct Size {
    /// How often the two are asked in turn.
    rounds: usize,
    /// Numbers of objects at which memory is looked at; the last one is that of the latencies.
    objects: &'static [usize],
    runs: runs::Size,
}

const LONG: Size = Size {
    rounds: 5,
    objects: &[0, 1_000, 10_000],
    runs: runs::Size { programs: 100, crowd: 200, objects: 10_000, output: 1024, rounds: 5, stored: 1_000_000 },
};
const QUICK: Size = Size {
    rounds: 2,
    objects: &[0, 1_000],
    runs: runs::Size { programs: 30, crowd: 60, objects: 1_000, output: 128, rounds: 3, stored: 20_000 },
};

/// One of the two, with what was measured of it.
struct Peer {
    load: Load,
    /// The processes that it takes.
    pids: Vec<i32>,
    start: Duration,
    /// In bytes, at each number of objects.
    memory: Vec<u64>,
    latencies: Latencies,
}

fn main() {
    let size = if std::env::var_os("ONCELET_BENCH").is_some_and(|value| value == "quick") { QUICK } else { LONG };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let binary = std::env::var_os("ONCELET_BIN").map(PathBuf::from).expect("ONCELET_BIN names the oncelet to measure");
    let dir = tempfile::Builder::new().prefix("oncelet-bench-").tempdir().unwrap();
    let of_runs = dir.path().join("runs");
    std::fs::create_dir(&of_runs).unwrap();
    let store = store::measure(&runtime, dir.path(), size.rounds);
    println!("{store}");
    store.write();
    let runs = runs::measure(&runtime, &binary, &of_runs, &size.runs);
    println!("{runs}");
    runs.write();

    let (up, start_ours) = timed(|| start_up(&binary, &dir));
    let (kube, start_theirs) = timed(|| KubeApiserver::start().expect("a kube-apiserver can be started"));
    let peer = |kubeconfig: &Path, pids, start| Peer {
        load: Load::new(&runtime, kubeconfig),
        pids,
        start,
        memory: Vec::new(),
        latencies: Latencies::default(),
    };
    let mut ours = peer(&dir.path().join("kubeconfig"), vec![up.pid()], start_ours);
    let mut theirs = peer(kube.kubeconfig(), kube.pids(), start_theirs);

    let mut there = 0;
    for &objects in size.objects {
        for peer in [&mut ours, &mut theirs] {
            peer.load.create(there..objects);
            peer.load.settle();
            peer.memory.push(resident(&peer.pids));
        }
        there = objects;
        eprintln!("{objects} objects are there");
    }
    let watching = [ours.load.watch(WATCHERS), theirs.load.watch(WATCHERS)];
    for round in 0..size.rounds {
        for (peer, watchers) in [&mut ours, &mut theirs].into_iter().zip(&watching) {
            peer.latencies.add(peer.load.change(watchers, there));
        }
        eprintln!("round {} of {} is done", round + 1, size.rounds);
    }
    let report = report(&ours, &theirs, size.objects);
    let api = Section { name: "the API server", ours: "oncelet up", theirs: "kube-apiserver + etcd", report };
    print!("{api}");
    api.write();
    drop((up, kube, watching));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// `oncelet up` without an engine: ready as soon as an object of ours is taken.
fn start_up(binary: &Path, dir: &TempDir) -> Process {
    let kubeconfig = dir.path().join("kubeconfig");
    let mut command = Command::new(binary);
    command.args([
        "up",
        "--listen",
        "127.0.0.1:0",
        "--page",
        "127.0.0.1:0",
        "--engine",
        "unix:///nonexistent/engine.sock",
        "--kubeconfig",
    ]);
    command.arg(&kubeconfig).arg("--data-dir").arg(dir.path().join("data"));
    let up = Process::spawn("oncelet", command, &dir.path().join("oncelet.log"));
    eventually("oncelet up takes requests", || {
        let mut kubectl = oncelet_tests::kubectl(&kubeconfig);
        output(kubectl.args(["get", "cexec", "-A"])).ok()
    });
    up
}

/// The resident memory of processes, in bytes.
fn resident(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    pids.iter().map(of).sum()
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn report(ours: &Peer, theirs: &Peer, objects: &[usize]) -> Report {
    let mut report = Report::default();
    let seconds = |peer: &Peer| peer.start.as_secs_f64();
    report.row(Measure::seconds("start, until our kinds are served"), seconds(ours), seconds(theirs), 0.1);
    for (at, objects) in objects.iter().enumerate() {
        let mib = |peer: &Peer| peer.memory[at] as f64 / f64::from(1 << 20);
        report.row(Measure::mebibytes(&format!("memory with {objects} objects")), mib(ours), mib(theirs), 0.125);
    }
    let [.., fewer, most] = objects else { panic!("memory is compared at two numbers of objects") };
    let each = |peer: &Peer| {
        let [.., less, more] = peer.memory[..] else { panic!("memory was looked at each time") };
        more.saturating_sub(less) as f64 / (most - fewer) as f64 / 1024.0
    };
    report.row(Measure::kibibytes("memory for each object more"), each(ours), each(theirs), 1.0);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let write = |peer: &Peer| Latencies::at(&peer.latencies.writes, share);
        report.row(Measure::milliseconds(&format!("write, {name}")), write(ours), write(theirs), 1.0);
        let seen = |peer: &Peer| Latencies::at(&peer.latencies.events, share);
        report.row(
            Measure::milliseconds(&format!("write until a watcher sees it, {name}")),
            seen(ours),
            seen(theirs),
            1.0,
        );
    }
    report
}
