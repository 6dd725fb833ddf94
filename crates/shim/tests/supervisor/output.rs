//! The way of the output: what the program writes is never its trouble.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use oncelet_shim::frame::Frame;
use oncelet_shim::{End, StopReason, Stream, TAIL, Task, Word};

use crate::support::{Disk, eventually, exit, listen, listen_as_a_daemon, output, spawn, spawn_under, tell};

/// 20 MB whose every byte tells where it is.
const LONG: &str = "seq 1000000 3499999; exit 7";

fn long() -> Vec<u8> {
    let mut text = Vec::new();
    for number in 1_000_000..=3_499_999 {
        writeln!(text, "{number}").unwrap();
    }
    text
}

#[test]
fn output_larger_than_the_disk_goes_to_whoever_listens_byte_for_byte() {
    for acknowledges in [true, false] {
        let Some(disk) = Disk::small("3m") else { return };
        let came = listen_as_a_daemon(spawn(disk.run("a"), &["/bin/sh", "-c", LONG]), acknowledges);
        let exit = came.exit.unwrap();
        assert_eq!((exit.end, exit.stdout.bytes, exit.stdout.kept), (End::Code(7), 20_000_000, 20_000_000));
        assert!(came.output[0] == long(), "acknowledges: {acknowledges}");
        assert_eq!(disk.names(), ["a"], "the spool is removed");
    }
}

#[test]
fn the_spool_leaves_half_of_the_room_to_others() {
    let Some(disk) = Disk::small("4m") else { return };
    let go = disk.0.path().join("go");
    let script = format!("seq 1000000 3499999 & while [ ! -e {} ]; do sleep 0.01; done; wait", go.display());
    let supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", &script]);
    eventually("the spool is at its bound", || (disk.spooled("a") > 1_000_000).then_some(()));
    // The program is far from its end: the pipe, the memory and whoever listens hold less than it writes.
    assert!(disk.spooled("a") <= 2 << 20, "{} bytes", disk.spooled("a"));
    fs::write(disk.0.path().join("c/other"), vec![1; 1_500_000]).expect("others have room");
    fs::write(&go, "").unwrap();
    let came = listen_as_a_daemon(supervisor, true);
    assert!(came.output[0] == long());
}

#[test]
fn without_room_and_without_a_listener_the_program_ends_well_and_the_beginning_is_kept() {
    for is_gone in [false, true] {
        let Some(disk) = Disk::small("2m") else { return };
        let begun = Instant::now();
        let mut supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", LONG]);
        if is_gone {
            drop((supervisor.stdin.take(), supervisor.stdout.take()));
        }
        let exit = eventually("the end is recorded", || disk.exit("a"));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!((exit.end, exit.stdout.bytes), (End::Code(7), 20_000_000));
        assert!(exit.stdout.kept < 2_000_000, "{:?}", exit.stdout);
        assert_eq!(exit.stdout.tail(), long()[20_000_000 - TAIL..]);
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        // Whoever comes later gets a beginning, and learns that it is not all.
        let came = listen_as_a_daemon(spawn(disk.follow("a", [0, 0]), &[]), false);
        assert!(!came.output[0].is_empty() && long().starts_with(&came.output[0]));
        assert!(came.output[0].len() as u64 <= exit.stdout.kept);
    }
}

#[test]
fn what_is_safe_is_removed_while_the_program_runs_by_whoever_listens() {
    let disk = Disk::new();
    let go = disk.0.path().join("go");
    let script = format!("head -c 5000000 /dev/zero; while [ ! -e {} ]; do sleep 0.01; done; echo end", go.display());
    let mut supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", &script]);
    eventually("all is spooled", || (disk.spooled("a") == 5_000_000).then_some(()));
    let say = |child: &mut std::process::Child, safe: [u64; 2]| {
        child.stdin.as_mut().unwrap().write_all(Word::Ack(safe).to_string().as_bytes()).unwrap();
    };
    say(&mut supervisor, [2_500_000, 0]);
    // Whole segments of a mebibyte.
    eventually("what is safe is removed", || (disk.spooled("a") == 5_000_000 - (2 << 20)).then_some(()));
    // The same by one that follows.
    let mut follower = spawn(disk.follow("a", [5_000_000, 0]), &[]);
    say(&mut follower, [5_000_000, 0]);
    eventually("all but the last is removed", || (disk.spooled("a") == 5_000_000 - (4 << 20)).then_some(()));
    fs::write(&go, "").unwrap();
    let came = listen_as_a_daemon(follower, false);
    assert_eq!(came.output[0], b"end\n");
    assert_eq!(came.exit.unwrap().stdout.kept, 5_000_004);
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
}

#[test]
fn what_is_beyond_the_limit_costs_no_disk_and_is_counted() {
    let disk = Disk::new();
    let supervisor = spawn(disk.limited("a", 1000), &["/bin/sh", "-c", &format!("{LONG} 2>&1; echo e >&2")]);
    let (frames, code) = listen(supervisor);
    let written = &exit(&frames).stdout;
    assert_eq!((code, written.bytes, written.kept), (Some(7), 20_000_000, 1000));
    assert_eq!(output(&frames, Stream::Stdout).as_bytes(), &long()[..1000]);
    assert_eq!(written.tail(), long()[20_000_000 - TAIL..]);

    let mut quiet = spawn(disk.limited("b", 1000), &["/bin/sh", "-c", LONG]);
    drop(quiet.stdin.take());
    assert_eq!(quiet.wait().unwrap().code(), Some(7));
    assert_eq!(disk.spooled("b"), 1000);
}

#[test]
fn files_never_become_longer_than_the_limit_of_the_process_allows() {
    let disk = Disk::new();
    // In units of 512 bytes.
    let supervisor = spawn_under("ulimit -f 100", disk.run("a"), &["/bin/sh", "-c", LONG]);
    eventually("something is spooled", || (disk.spooled("a") > 1_000_000).then_some(()));
    let longest = fs::read_dir(disk.place("a").spool()).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).max();
    assert_eq!(longest, Some(51_200));
    let came = listen_as_a_daemon(supervisor, true);
    let rest = listen_as_a_daemon(spawn(disk.follow("a", [0, 0]), &[]), false);
    assert_eq!(came.exit.map(|exit| exit.end), Some(End::Code(7)));
    assert!(rest.output[0].is_empty(), "it was said to be stored");
    // Where not even a record may be written, nothing is started.
    let marker = disk.0.path().join("ran");
    let frames = listen(spawn_under("ulimit -f 20", disk.run("b"), &["/usr/bin/touch", marker.to_str().unwrap()])).0;
    assert!(matches!(&frames[..], [Frame::Unusable(_)]), "{frames:?}");
    assert!(!marker.exists() && !fs::exists(disk.place("b").gate()).unwrap());
}

#[test]
fn a_full_disk_loses_no_outcome_and_starts_nothing_without_a_claim() {
    let Some(disk) = Disk::small("128k") else { return };
    // It fills the disk itself.
    let script =
        format!("head -c 1000000 /dev/zero > {}/c/filler 2>/dev/null; echo said; exit 5", disk.0.path().display());
    let frames = tell(disk.run("a"), &["/bin/sh", "-c", &script]);
    assert_eq!((exit(&frames).end, output(&frames, Stream::Stdout).as_str()), (End::Code(5), "said\n"));
    // Nor does it keep a program from being stopped.
    fs::remove_file(disk.0.path().join("c/filler")).unwrap();
    let dir = disk.0.path().display();
    let script = format!("head -c 1000000 /dev/zero > {dir}/c/filler 2>/dev/null; touch {dir}/full; sleep 1000");
    let supervisor = spawn(disk.run("s"), &["/bin/sh", "-c", &script]);
    eventually("the disk is full", || disk.0.path().join("full").exists().then_some(()));
    let stop = Task::Stop { place: disk.place("s"), by: StopReason::Stop, grace_seconds: 5 };
    assert_eq!(tell(stop, &[]), [Frame::Done]);
    assert_eq!(exit(&listen(supervisor).0).stopped.as_ref().map(|it| it.by), Some(StopReason::Stop));
    let marker = disk.0.path().join("ran");
    for task in [disk.run("b"), disk.probe()] {
        let frames = tell(task, &["/usr/bin/touch", marker.to_str().unwrap()]);
        assert!(matches!(&frames[..], [Frame::Unusable(_)]), "{frames:?}");
    }
    assert!(!marker.exists());
    let mut names = disk.names();
    names.sort();
    assert_eq!(names, ["a", "filler", "s"]);
}
