//! Processes of their own: this very test binary, run again with one of the entries below as its only test.
//!
//! A child tells its parent by lines on its standard output that begin with `#> `.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use bytes::Bytes;
use oncelet_store::{Claim, Logs, Store, Stream};

use crate::support::{at, claim, open, run, skipped, win};

const DIR: &str = "ONCELET_TEST_STORE";
const ARG: &str = "ONCELET_TEST_ARG";

/// A running child; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs `children::<entry>` on the store in `dir`.
    pub(crate) fn start(entry: &str, dir: &Path, arg: &str) -> Self {
        let command = Command::new(std::env::current_exe().unwrap());
        Self::spawn(command, entry, dir, arg)
    }

    /// The same, in a process that survives its limit on the size of files.
    pub(crate) fn start_without_xfsz(entry: &str, dir: &Path, arg: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        Self::spawn(command, entry, dir, arg)
    }

    /// The same under strace, which writes every change of a file to `trace`, data included.
    pub(crate) fn start_traced(entry: &str, dir: &Path, trace: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--decode-fds=path", "--string-limit=70000", "--strings-in-hex=all"]);
        command.arg("--trace=pwrite64,write,fsync,fdatasync,ftruncate,unlink,rename");
        command.arg("--output").arg(trace).arg(std::env::current_exe().unwrap());
        Self::spawn(command, entry, dir, "")
    }

    fn spawn(mut command: Command, entry: &str, dir: &Path, arg: &str) -> Self {
        let mut child = command
            .args([&format!("children::{entry}"), "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR, dir)
            .env(ARG, arg)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next thing that the child tells; `None` when it has ended.
    pub(crate) fn next(&mut self) -> Option<String> {
        loop {
            let line = self.lines.next()?.unwrap();
            if let Some(said) = line.strip_prefix("#> ") {
                return Some(said.to_owned());
            }
        }
    }

    /// SIGKILL, and what the child had told until then.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Everything that the child tells until it ends by itself.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.next()).collect();
        assert!(self.child.wait().unwrap().success(), "the child failed: {said:?}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    use std::io::Write;
    // The line of its own is needed: the test harness leaves one begun.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n#> {what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What the parent gave; `None` where there is none.
fn given() -> Option<(PathBuf, String)> {
    let given = std::env::var_os(DIR).map(PathBuf::from).zip(std::env::var(ARG).ok());
    if given.is_none() {
        skipped("this is run by another test, in a process of its own");
    }
    given
}

/// A few daemons after one another, each with runs that it claims, moves on and ends; tells what was acknowledged.
#[tokio::test]
#[ignore = "a child process of other tests"]
async fn works_for_a_while() {
    let Some((dir, _)) = given() else { return };
    for life in 0..3 {
        let store = open(&dir).await;
        for number in 0..10 {
            let name = format!("job-{life}-{number}");
            let lease = win(&store, &name).await;
            say(&format!("claimed {name}"));
            store.advance(&lease, crate::support::created("e")).await.unwrap();
            store.advance(&lease, crate::support::started()).await.unwrap();
            let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
            log.write(at(2), Bytes::from(format!("printed by {name}\n").repeat(20))).await.unwrap();
            let stdout = log.finish().await.unwrap();
            let outcome = oncelet_core::Outcome::Finished { exit_code: number };
            store.finish(&lease, at(3), outcome, Logs { stdout, ..Logs::default() }).await.unwrap();
            say(&format!("ended {name}"));
        }
        store.close().await;
    }
}

/// Claims `<prefix>0`, `<prefix>1`, … without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of other tests"]
async fn claims_for_ever() {
    let Some((dir, prefix)) = given() else { return };
    let store = open(&dir).await;
    for number in 0_u64.. {
        let name = format!("{prefix}{number}");
        let lease = win(&store, &name).await;
        say(&format!("{name} {}", lease.run_id()));
    }
}

/// Claims keys 0 to 199 in the order that `arg` says, and tells which it won.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of other tests"]
async fn races() {
    let Some((dir, arg)) = given() else { return };
    let store = open(&dir).await;
    say("ready");
    let mut numbers: Vec<u32> = (0..200).collect();
    if arg == "down" {
        numbers.reverse();
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    for number in numbers {
        if let Claim::Won(_) = claim(&store, &format!("job{number}")).await {
            say(&format!("won {number}"));
        }
    }
}

/// Has a run in each open state, then waits to be killed.
#[tokio::test]
#[ignore = "a child process of other tests"]
async fn leaves_open_runs() {
    let Some((dir, _)) = given() else { return };
    let store = open(&dir).await;
    let _claimed = win(&store, "claimed").await;
    let running = run(&store, "running").await;
    let mut log = store.log_writer(&running, Stream::Stdout, None).await.unwrap();
    log.write(at(2), Bytes::from_static(b"before the crash")).await.unwrap();
    log.flush().await.unwrap();
    log.write(at(2), Bytes::from_static(b", never flushed")).await.unwrap();
    say("ready");
    std::future::pending::<()>().await;
}

/// Claims while no file may grow, and again when files may.
#[tokio::test]
#[ignore = "a child process of other tests"]
async fn claims_on_a_failing_disk() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Some((dir, _)) = given() else { return };
    let store = open(&dir).await;
    win(&store, "before").await;
    let grown = std::fs::metadata(dir.join("runs.db-wal")).unwrap().len();
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(grown + 20_000), ..limit }).unwrap();
    let mut told = Vec::new();
    for number in 0..20 {
        let name = format!("job{number}");
        match store.claim(crate::support::new_run(crate::support::key(&name))).await {
            Ok(Claim::Won(_)) => told.push(format!("won {name}")),
            Ok(Claim::Held(..)) => told.push(format!("held {name}")),
            Err(_) => told.push(format!("failed {name}")),
        }
    }
    setrlimit(Resource::Fsize, limit).unwrap();
    for line in &told {
        say(line);
    }
    win(&store, "after").await;
    say("won after");
}

/// Writes 100 MB through a log, and tells by how many KiB the process grew.
#[tokio::test]
#[ignore = "a child process of other tests"]
async fn writes_100_megabytes() {
    let Some((dir, _)) = given() else { return };
    let store = open(&dir).await;
    let lease = run(&store, "big").await;
    let before = peak_memory();
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    let mut state = 1_u64;
    for _ in 0..1600 {
        // Half of it does not compress.
        let mut chunk = vec![b'x'; 65_536];
        for byte in &mut chunk[..32_768] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
        log.write(at(2), chunk.into()).await.unwrap();
    }
    let stdout = log.finish().await.unwrap();
    say(&format!("bytes {}", stdout.bytes));
    let outcome = oncelet_core::Outcome::Finished { exit_code: 0 };
    store.finish(&lease, at(3), outcome, Logs { stdout, ..Logs::default() }).await.unwrap();
    let mut reader = store.read_log(lease.run_id(), Stream::Stdout).await.unwrap();
    let mut read = 0;
    while let Some(chunk) = reader.next_chunk().await.unwrap() {
        read += chunk.bytes.len();
    }
    say(&format!("read {read}"));
    say(&format!("grew {}", peak_memory() - before));
}

/// The most memory that this process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes a line whenever the parent says so, and ends the run at the end of its input.
#[tokio::test]
#[ignore = "a child process of other tests"]
async fn writes_lines() {
    let Some((dir, _)) = given() else { return };
    let store: Store = open(&dir).await;
    let lease = run(&store, "lines").await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    say("ready");
    for line in std::io::stdin().lines() {
        log.write(at(2), Bytes::from(line.unwrap() + "\n")).await.unwrap();
        log.flush().await.unwrap();
        say("written");
    }
    let stdout = log.finish().await.unwrap();
    let outcome = oncelet_core::Outcome::Finished { exit_code: 0 };
    store.finish(&lease, at(3), outcome, Logs { stdout, ..Logs::default() }).await.unwrap();
    say("ended");
}

impl Process {
    /// Sends a line to the child's standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends the child's standard input.
    pub(crate) fn hang_up(&mut self) {
        self.child.stdin = None;
    }
}
