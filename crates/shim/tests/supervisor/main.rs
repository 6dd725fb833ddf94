//! The supervisor itself, on this machine, in a directory that stands for a container's disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod home;
mod left;
mod limits;
mod output;
mod stdin;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oncelet_shim::frame::{Decoder, Frame};
use oncelet_shim::{End, ORDER_VARIABLE, StopReason, Stream, Task, file};
use rustix::process::{Pid, Signal, kill_process};

use support::{Disk, eventually, exit, listen, output, spawn, tell};

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
    assert_eq!(exit(&first).stdout.bytes, lines.len() as u64);
}

#[test]
fn a_reader_that_never_reads_holds_up_neither_the_program_nor_its_record() {
    let disk = Disk::new();
    let mut supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", "head -c 3000000 /dev/zero; exit 4"]);
    let exit = eventually("the end is recorded", || disk.exit("a"));
    assert_eq!((exit.end, exit.stdout.bytes), (End::Code(4), 3_000_000));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
}

#[test]
fn logs_stay_until_they_are_said_to_be_stored() {
    let disk = Disk::new();
    let mut supervisor = spawn(disk.run("a"), &["/bin/echo", "out"]);
    drop(supervisor.stdin.take());
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(Path::new(&disk.place("a").segment(Stream::Stdout, 0)).exists());
    // Whoever follows later may say so.
    tell(disk.follow("a", [0, 0]), &[]);
    assert!(!Path::new(&disk.place("a").segment(Stream::Stdout, 0)).exists());
    assert!(disk.exit("a").is_some(), "the record stays");
}

#[test]
fn the_program_gets_neither_the_order_nor_the_supervisors_stdin() {
    let disk = Disk::new();
    let frames = tell(disk.run("a"), &["/bin/sh", "-c", "env | grep -c ONCELET_ORDER; cat"]);
    assert_eq!(output(&frames, Stream::Stdout), "0\n");
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
    let mut task = disk.run("a");
    if let Task::Run { timeout_seconds, .. } = &mut task {
        *timeout_seconds = Some(1);
    }
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
