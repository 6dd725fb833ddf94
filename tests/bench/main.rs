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
use report::{Figure, Measure, Report, Section};

const WATCHERS: usize = 100;
/// How long is looked at what is taken while there is nothing to do.
const IDLE: Duration = Duration::from_secs(10);

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
    /// In seconds.
    starts: Vec<f64>,
    /// In mebibytes, at each number of objects.
    memory: Vec<f64>,
    /// In milliseconds of a processor a second, at each number of objects.
    idle: Vec<f64>,
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

    let mut starts = [Vec::new(), Vec::new()];
    let mut both = None;
    let mut of_up = PathBuf::new();
    for round in 0..size.rounds {
        drop(both.take());
        of_up = dir.path().join(format!("up-{round}"));
        std::fs::create_dir(&of_up).unwrap();
        let (up, start) = timed(|| start_up(&binary, &of_up));
        starts[0].push(start.as_secs_f64());
        let (kube, start) = timed(|| KubeApiserver::start().expect("a kube-apiserver can be started"));
        starts[1].push(start.as_secs_f64());
        both = Some((up, kube));
    }
    let (up, kube) = both.expect("they were started");
    let [starts_ours, starts_theirs] = starts;
    let peer = |kubeconfig: &Path, pids, starts| Peer {
        load: Load::new(&runtime, kubeconfig),
        pids,
        starts,
        memory: Vec::new(),
        idle: Vec::new(),
        latencies: Latencies::default(),
    };
    let mut ours = peer(&of_up.join("kubeconfig"), vec![up.pid()], starts_ours);
    let mut theirs = peer(kube.kubeconfig(), kube.pids(), starts_theirs);

    let mut there = 0;
    for &objects in size.objects {
        for peer in [&mut ours, &mut theirs] {
            peer.load.create(there..objects);
            peer.load.settle();
            peer.memory.push(resident(&peer.pids));
            peer.idle.push(idle(&peer.pids));
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
fn start_up(binary: &Path, dir: &Path) -> Process {
    let kubeconfig = dir.join("kubeconfig");
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
    command.arg(&kubeconfig).arg("--data-dir").arg(dir.join("data"));
    let up = Process::spawn("oncelet", command, &dir.join("oncelet.log"));
    eventually("oncelet up takes requests", || {
        let mut kubectl = oncelet_tests::kubectl(&kubeconfig);
        output(kubectl.args(["get", "cexec", "-A"])).ok()
    });
    up
}

/// The resident memory of processes, in mebibytes.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn resident(pids: &[i32]) -> f64 {
    let of = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    pids.iter().map(of).sum::<u64>() as f64 / 1024.0
}

/// How many milliseconds of a processor processes take in a second in which nobody asks anything of them.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn idle(pids: &[i32]) -> f64 {
    let spent = || {
        let of = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // Fields 14 and 15, in hundredths of a second (proc_pid_stat(5)); the name before them may hold spaces.
            let after_name = stat.rsplit_once(") ").unwrap().1;
            after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
        };
        pids.iter().map(of).sum::<u64>()
    };
    let (begun, before) = (Instant::now(), spent());
    std::thread::sleep(IDLE);
    (spent() - before) as f64 * 10.0 / begun.elapsed().as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn report(ours: &Peer, theirs: &Peer, objects: &[usize]) -> Report {
    let mut report = Report::default();
    let start = Measure::of("start", "until our kinds are served", "s");
    report.row(start, &Figure::median(&ours.starts), &Figure::median(&theirs.starts), 0.1);
    for (at, objects) in objects.iter().enumerate() {
        let once = |peer: &Peer| [Figure::once(peer.memory[at]), Figure::once(peer.idle[at])];
        let ([memory, idle], [their_memory, their_idle]) = (once(ours), once(theirs));
        report.row(Measure::of("memory", &format!("{objects} objects"), "MiB"), &memory, &their_memory, 0.125);
        let measure = Measure::of("processor", &format!("nothing to do, {objects} objects"), "ms/s");
        report.row(measure, &idle, &their_idle, 0.125);
    }
    let [.., fewer, most] = objects else { panic!("memory is compared at two numbers of objects") };
    let each = |peer: &Peer| {
        let [.., less, more] = peer.memory[..] else { panic!("memory was looked at each time") };
        Figure::once((more - less).max(0.0) / (most - fewer) as f64 * 1024.0)
    };
    report.row(Measure::of("memory", "each object more", "KiB"), &each(ours), &each(theirs), 1.0);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let write = |peer: &Peer| Figure::at(&peer.latencies.writes, share);
        report.row(
            Measure::of("write", &format!("until it is answered, {name}"), "ms"),
            &write(ours),
            &write(theirs),
            1.0,
        );
        let seen = |peer: &Peer| Figure::at(&peer.latencies.events, share);
        let measure = Measure::of("write", &format!("until a watcher sees it, {name}"), "ms");
        report.row(measure, &seen(ours), &seen(theirs), 1.0);
    }
    report
}
