//! The supervisor itself, on this machine, in a directory that stands for a container's disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oncelet_shim::frame::{Decoder, Frame};
use oncelet_shim::{End, Exit, ORDER_VARIABLE, Order, Place, STORED, StdinDigest, StopReason, Stream, Task, file};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A container's disk.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        fs::set_permissions(dir.path().join("c"), fs::Permissions::from_mode(0o1777)).unwrap();
        Self(dir)
    }

    fn place(&self, run: &str) -> Place {
        Place { root: self.0.path().to_str().unwrap().to_owned(), container: "c".into(), run: run.into() }
    }

    fn run(&self, run: &str) -> Task {
        Task::Run {
            place: self.place(run),
            nonce: "n".into(),
            timeout_seconds: None,
            grace_seconds: 1,
            stdin: None,
            description: serde_json::Value::Null,
        }
    }

    fn run_with_input(&self, run: &str, stdin: StdinDigest) -> Task {
        let Task::Run { place, nonce, timeout_seconds, grace_seconds, description, .. } = self.run(run) else {
            unreachable!()
        };
        Task::Run { place, nonce, timeout_seconds, grace_seconds, stdin: Some(stdin), description }
    }

    /// The names of everything that is there of runs.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join("c")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn follow(&self, run: &str, from: [u64; 2]) -> Task {
        Task::Follow { place: self.place(run), stdout_from: from[0], stderr_from: from[1] }
    }

    fn exit(&self, run: &str) -> Option<Exit> {
        let text = fs::read(Path::new(&self.place(run).gate()).join(file::EXIT)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }
}

/// A supervisor with an order, and a program where it is to start one.
fn spawn(task: Task, command: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_oncelet-shim"))
        .arg("--")
        .args(command)
        .env(ORDER_VARIABLE, serde_json::to_string(&Order::new(task)).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything that it says, and its exit code; what it waits for is said as soon as it is over.
fn listen(mut supervisor: Child) -> (Vec<Frame>, Option<i32>) {
    let mut stdin = supervisor.stdin.take().unwrap();
    let _ = stdin.write_all(STORED);
    let mut said = Vec::new();
    supervisor.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    drop(stdin);
    let mut decoder = Decoder::default();
    decoder.push(&said);
    let frames = std::iter::from_fn(|| decoder.next_frame().unwrap()).collect();
    assert!(!decoder.is_in_the_middle(), "it stopped in the middle of a frame");
    (frames, supervisor.wait().unwrap().code())
}

fn tell(task: Task, command: &[&str]) -> Vec<Frame> {
    listen(spawn(task, command)).0
}

fn output(frames: &[Frame], wanted: Stream) -> String {
    let bytes: Vec<u8> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Output(stream, bytes) if *stream == wanted => Some(bytes.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    String::from_utf8(bytes).unwrap()
}

fn exit(frames: &[Frame]) -> &Exit {
    match frames.last() {
        Some(Frame::Exited(exit)) => exit,
        other => panic!("expected an exit, got {other:?}"),
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        // What is waited for here announces itself by nothing.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn of_sixteen_at_once_one_starts_the_program() {
    let disk = Disk::new();
    let runs = disk.0.path().join("runs");
    let script = format!("echo ran >> {}", runs.display());
    let all: Vec<_> = (0..16).map(|_| spawn(disk.run("a"), &["/bin/sh", "-c", &script])).collect();
    let frames: Vec<_> = all.into_iter().map(|one| listen(one).0).collect();
    assert_eq!(frames.iter().filter(|frames| frames[..] == [Frame::Refused]).count(), 15);
    assert_eq!(fs::read_to_string(runs).unwrap(), "ran\n");
}

#[test]
fn a_supervisor_that_is_killed_at_any_moment_never_lets_it_start_twice() {
    let disk = Disk::new();
    for round in 0..60_u32 {
        let run = format!("r{round}");
        let runs = disk.0.path().join(format!("runs{round}"));
        let script = format!("echo ran >> {}; echo out; sleep 0.01; exit 3", runs.display());
        let mut first = spawn(disk.run(&run), &["/bin/sh", "-c", &script]);
        std::thread::sleep(Duration::from_micros(u64::from(round) * 300));
        first.kill().unwrap();
        first.wait().unwrap();
        let second = tell(disk.run(&run), &["/bin/sh", "-c", &script]);
        let followed = tell(disk.follow(&run, [0, 0]), &[]);
        let starts = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
        match (second.first(), followed.last()) {
            // The first had been killed before it claimed, or had come to its end.
            (Some(Frame::Started(_) | Frame::Refused), Some(Frame::Exited(exit))) => {
                assert_eq!(exit.end, End::Code(3));
            }
            (Some(Frame::Refused), Some(Frame::Abandoned(_))) => {}
            other => panic!("round {round}: {other:?}"),
        }
        assert!(starts() <= 1, "round {round}: started {} times", starts());
    }
}

#[test]
fn output_comes_once_from_whatever_offset_while_the_program_writes() {
    let disk = Disk::new();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; echo error $i >&2; i=$((i+1)); done";
    let first = spawn(disk.run("a"), &["/bin/sh", "-c", script]);
    eventually("the run is claimed", || Path::new(&disk.place("a").gate()).join(file::STARTED).exists().then_some(()));
    let second = spawn(disk.follow("a", [7, 0]), &[]);
    let (second, first) = (listen(second).0, listen(first).0);
    let lines: String = (0..3000).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat();
    assert_eq!(output(&first, Stream::Stdout), lines);
    assert_eq!(output(&second, Stream::Stdout), lines[7..]);
    assert_eq!(output(&first, Stream::Stderr), output(&second, Stream::Stderr));
    assert_eq!(exit(&first).stdout_bytes, lines.len() as u64);
}

#[test]
fn a_reader_that_never_reads_holds_up_neither_the_program_nor_its_record() {
    let disk = Disk::new();
    let mut supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", "head -c 3000000 /dev/zero; exit 4"]);
    let exit = eventually("the end is recorded", || disk.exit("a"));
    assert_eq!((exit.end, exit.stdout_bytes), (End::Code(4), 3_000_000));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
}

#[test]
fn logs_stay_until_they_are_said_to_be_stored() {
    let disk = Disk::new();
    let mut supervisor = spawn(disk.run("a"), &["/bin/echo", "out"]);
    drop(supervisor.stdin.take());
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(Path::new(&disk.place("a").log(Stream::Stdout)).exists());
    // Whoever follows later may say so.
    tell(disk.follow("a", [0, 0]), &[]);
    assert!(!Path::new(&disk.place("a").log(Stream::Stdout)).exists());
    assert!(disk.exit("a").is_some(), "the record stays");
}

#[test]
fn the_program_gets_neither_the_order_nor_the_supervisors_stdin() {
    let disk = Disk::new();
    let frames = tell(disk.run("a"), &["/bin/sh", "-c", "env | grep -c ONCELET_ORDER; cat"]);
    assert_eq!(output(&frames, Stream::Stdout), "0\n");
}

fn digest(bytes: &[u8]) -> StdinDigest {
    StdinDigest { bytes: bytes.len() as u64, sha256: format!("{:x}", Sha256::digest(bytes)) }
}

/// Sends `input` to the supervisor and then the word that everything is stored.
fn send_and_listen(mut supervisor: Child, input: Vec<u8>) -> Vec<Frame> {
    let mut stdin = supervisor.stdin.take().unwrap();
    let sending = std::thread::spawn(move || {
        // One that refuses does not read it.
        let _ = stdin.write_all(&input).and_then(|()| stdin.write_all(STORED));
        stdin
    });
    let mut said = Vec::new();
    supervisor.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    drop(sending.join().unwrap());
    supervisor.wait().unwrap();
    let mut decoder = Decoder::default();
    decoder.push(&said);
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

#[test]
fn the_program_reads_all_of_its_input_byte_for_byte() {
    let disk = Disk::new();
    // Every byte, at places that fit no buffer, and nothing at all.
    let some: Vec<u8> = (0..300_001_u32).map(|number| (number % 251) as u8).collect();
    for (run, input) in [("a", some), ("b", Vec::new())] {
        let supervisor = spawn(disk.run_with_input(run, digest(&input)), &["/usr/bin/sha256sum"]);
        let wanted = format!("{}  -\n", digest(&input).sha256);
        let frames = send_and_listen(supervisor, input);
        assert_eq!(output(&frames, Stream::Stdout), wanted);
        assert_eq!(disk.names(), [run], "the input has no name");
        fs::remove_dir_all(disk.place(run).gate()).unwrap();
    }
}

#[test]
fn a_hundred_megabytes_of_input_take_no_memory() {
    let disk = Disk::new();
    let input = vec![b'x'; 100_000_000];
    let supervisor =
        spawn(disk.run_with_input("a", digest(&input)), &["/bin/sh", "-c", "grep VmHWM /proc/$PPID/status; wc -c"]);
    let frames = send_and_listen(supervisor, input);
    let said = output(&frames, Stream::Stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    let [_, peak, "kB", "100000000"] = words[..] else { panic!("{said}") };
    assert!(peak.parse::<u64>().unwrap() < 16 * 1024, "the supervisor took {peak} kB");
}

#[test]
fn input_that_is_cut_off_or_wrong_starts_nothing_and_may_be_sent_again() {
    let disk = Disk::new();
    let whole = b"insert into t values (1);\n".repeat(10_000);
    let mut changed = whole.clone();
    changed[77] ^= 1;
    let marker = disk.0.path().join("ran");
    let command = ["/usr/bin/touch", marker.to_str().unwrap()];
    for (came, words) in [(whole[..whole.len() - 1].to_vec(), "ended after"), (changed, "SHA-256")] {
        let mut supervisor = spawn(disk.run_with_input("a", digest(&whole)), &command);
        // As when the sender is killed: what was sent arrives, and then the end.
        supervisor.stdin.take().unwrap().write_all(&came).unwrap();
        let said = supervisor.wait_with_output().unwrap().stdout;
        let mut decoder = Decoder::default();
        decoder.push(&said);
        let frame = decoder.next_frame().unwrap();
        let Some(Frame::StdinIncomplete(why)) = frame else { panic!("{frame:?}") };
        assert!(why.message.contains(words), "{why:?}");
        assert!(!marker.exists() && disk.names().is_empty(), "{:?}", disk.names());
    }
    let frames = send_and_listen(spawn(disk.run_with_input("a", digest(&whole)), &command), whole);
    assert_eq!(exit(&frames).end, End::Code(0));
    assert!(marker.exists());
}

#[test]
fn a_closed_gate_is_told_before_any_input_is_sent() {
    let disk = Disk::new();
    tell(disk.run("a"), &["/bin/true"]);
    let mut supervisor = spawn(disk.run_with_input("a", digest(b"never sent")), &["/bin/true"]);
    let stdin = supervisor.stdin.take();
    let said = supervisor.wait_with_output().unwrap().stdout;
    drop(stdin);
    assert_eq!(said, Frame::Refused.encode());
}

#[test]
fn input_that_has_no_room_starts_nothing() {
    let disk = Disk::new();
    let wanted = StdinDigest { bytes: 1 << 50, sha256: "0".repeat(64) };
    let frames = tell(disk.run_with_input("a", wanted), &["/bin/true"]);
    let [Frame::Unusable(why)] = &frames[..] else { panic!("{frames:?}") };
    assert!(why.message.contains("no room for the 1125899906842624 bytes of stdin"), "{why:?}");
    assert!(disk.names().is_empty());
}

#[test]
fn the_supervisor_ends_as_the_program_did() {
    let disk = Disk::new();
    assert_eq!(listen(spawn(disk.run("a"), &["/bin/sh", "-c", "exit 42"])).1, Some(42));
    assert_eq!(listen(spawn(disk.run("b"), &["/bin/sh", "-c", "kill -9 $$"])).1, Some(137));
    assert_eq!(disk.exit("b").unwrap().end, End::Signal(9));
}

#[test]
fn a_program_that_cannot_be_started_leaves_the_gate_open() {
    let disk = Disk::new();
    let script = disk.0.path().join("script");
    fs::write(&script, "#!/nowhere/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for (command, errno, words) in [
        ("/nowhere", 2, "no such file"),
        ("nowhere-in-path", 2, "no such file"),
        ("/etc/passwd", 13, "permission denied"),
        (script.to_str().unwrap(), 2, "interpreter"),
    ] {
        let frames = tell(disk.run("a"), &[command]);
        let [Frame::FailedToStart(failure)] = &frames[..] else { panic!("{command}: {frames:?}") };
        assert!(failure.errno == errno && failure.message.contains(words), "{failure:?}");
        assert_eq!(fs::read_dir(disk.0.path().join("c")).unwrap().count(), 0, "{command} leaves something");
    }
}

#[test]
fn a_full_disk_loses_no_outcome_and_starts_nothing_without_a_claim() {
    let disk = Disk::new();
    let root = disk.0.path().join("small");
    fs::create_dir(&root).unwrap();
    let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).arg(&root).status().is_ok_and(|it| it.success());
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
        eprintln!("SKIPPED: the full disk: this user may not mount one");
        return;
    }
    fs::create_dir(root.join("c")).unwrap();
    let place = |run: &str| Place { root: root.to_str().unwrap().into(), container: "c".into(), run: run.into() };
    let run = |run: &str| Task::Run {
        place: place(run),
        nonce: "n".into(),
        timeout_seconds: None,
        grace_seconds: 1,
        stdin: None,
        description: serde_json::Value::Null,
    };
    // It fills the disk with its own output.
    let frames = tell(run("a"), &["/bin/sh", "-c", "head -c 1000000 /dev/zero 2>/dev/null; exit 5"]);
    assert_eq!(exit(&frames).end, End::Code(5));
    fs::write(root.join("filler"), vec![0; 60_000]).unwrap_err();
    let frames = tell(run("b"), &["/bin/touch", disk.0.path().join("ran").to_str().unwrap()]);
    assert!(matches!(&frames[..], [Frame::Unusable(_)]), "{frames:?}");
    assert!(!disk.0.path().join("ran").exists() && !Path::new(&place("b").gate()).exists());
    assert!(mount(&["umount", "--lazy"]));
}

#[test]
fn a_stop_reaches_children_in_other_sessions() {
    let disk = Disk::new();
    let marker = disk.0.path().join("up");
    let script = format!(
        "setsid sh -c 'trap \"\" TERM; touch {marker}; while :; do sleep 0.05; done' & sleep 1000",
        marker = marker.display()
    );
    let supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", &script]);
    eventually("the child is up", || marker.exists().then_some(()));
    let task = Task::Stop { place: disk.place("a"), by: StopReason::Stop, grace_seconds: 5 };
    assert_eq!(tell(task, &[]), [Frame::Done]);
    let (frames, code) = listen(supervisor);
    assert_eq!((exit(&frames).end, code), (End::Signal(15), Some(143)));
    assert_eq!(exit(&frames).stopped.as_ref().map(|it| it.by), Some(StopReason::Stop));
    let left = Command::new("pgrep").args(["-f", marker.to_str().unwrap()]).output().unwrap();
    assert!(left.stdout.is_empty(), "something of it runs: {}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn children_do_not_outlive_a_stopped_program_however_slow_the_one_who_stops_it() {
    let disk = Disk::new();
    let (up, asked) = (disk.0.path().join("up"), disk.0.path().join("asked"));
    let script = format!(
        "setsid sh -c 'trap \"\" TERM; touch {up}; while :; do sleep 0.05; done' & trap 'touch {asked}; sleep 0.5; exit 3' TERM; wait",
        up = up.display(),
        asked = asked.display()
    );
    let supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", &script]);
    eventually("the child is up", || up.exists().then_some(()));
    let stopper = spawn(Task::Stop { place: disk.place("a"), by: StopReason::Stop, grace_seconds: 60 }, &[]);
    let pid = Pid::from_child(&stopper);
    eventually("the program is asked to end", || asked.exists().then_some(()));
    kill_process(pid, Signal::STOP).unwrap();
    // Its outcome is taken, so it goes, and with it what tells whose children they are.
    assert_eq!(exit(&listen(supervisor).0).end, End::Code(3));
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(listen(stopper).0, [Frame::Done]);
    let left = Command::new("pgrep").args(["-f", up.to_str().unwrap()]).output().unwrap();
    assert!(left.stdout.is_empty(), "something of it runs: {}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn a_timeout_ends_the_children_too_before_the_supervisor_goes() {
    let disk = Disk::new();
    let marker = disk.0.path().join("up");
    // Many, that ignore SIGTERM, in sessions of their own.
    let script = format!(
        "for n in 1 2 3 4 5 6 7 8; do setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done; : {marker}' & done; sleep 1000",
        marker = marker.display()
    );
    let Task::Run { place, nonce, grace_seconds, stdin, description, .. } = disk.run("a") else { unreachable!() };
    let task = Task::Run { place, nonce, timeout_seconds: Some(1), grace_seconds, stdin, description };
    let frames = tell(task, &["/bin/sh", "-c", &script]);
    assert_eq!(exit(&frames).stopped.as_ref().map(|it| it.by), Some(StopReason::Timeout));
    let left = Command::new("pgrep").args(["-f", marker.to_str().unwrap()]).output().unwrap();
    assert!(left.stdout.is_empty(), "something of it runs: {}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn what_is_no_order_starts_nothing() {
    for order in ["", "{", r#"{"version":99,"task":{"do":"probe"}}"#] {
        let said = Command::new(env!("CARGO_BIN_EXE_oncelet-shim"))
            .args(["--", "/bin/echo", "ran"])
            .env(ORDER_VARIABLE, order)
            .output()
            .unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&said.stdout);
        assert!(matches!(decoder.next_frame(), Ok(Some(Frame::Unusable(_)))), "{order:?}");
    }
}
