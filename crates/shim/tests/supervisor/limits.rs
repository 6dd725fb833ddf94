//! The limits of a container.

use std::fs;

use oncelet_shim::frame::Frame;
use oncelet_shim::{End, Stream};

use crate::support::{Disk, exit, listen, output, spawn, spawn_under};

#[test]
fn the_supervisor_has_one_thread_from_beginning_to_end() {
    let disk = Disk::new();
    let mut task = disk.run("a");
    if let oncelet_shim::Task::Run { timeout_seconds, .. } = &mut task {
        *timeout_seconds = Some(60);
    }
    let script = "for n in 1 2 3 4 5; do grep Threads /proc/$PPID/status; sleep 0.05; done";
    let (frames, _) = listen(spawn(task, &["/bin/sh", "-c", script]));
    assert_eq!(output(&frames, Stream::Stdout), "Threads:\t1\n".repeat(5));
}

#[test]
fn few_descriptors_are_enough_or_nothing_is_started() {
    let disk = Disk::new();
    let marker = disk.0.path().join("ran");
    let script = format!("echo ran >> {}; ulimit -n; seq 1 300000; exit 6", marker.display());
    let mut worked = Vec::new();
    for limit in 4..32 {
        let run = format!("r{limit}");
        let limits = format!("ulimit -n {limit}");
        let frames = listen(spawn_under(&limits, disk.run(&run), &["/bin/sh", "-c", &script])).0;
        match frames.last() {
            Some(Frame::Exited(exit)) => {
                assert_eq!((exit.end, exit.stdout.bytes, exit.stdout.kept), (End::Code(6), 1_988_898, 1_988_898));
                assert!(
                    output(&frames, Stream::Stdout).starts_with(&format!("{limit}\n")),
                    "its own limit is as it was"
                );
                worked.push(limit);
            }
            Some(Frame::Unusable(_)) | None => assert!(!fs::exists(disk.place(&run).gate()).unwrap()),
            other => panic!("with {limit} descriptors: {other:?}"),
        }
    }
    assert_eq!(fs::read_to_string(&marker).unwrap().lines().count(), worked.len());
    assert!(worked.contains(&24), "{worked:?}");
}

#[test]
fn little_memory_is_enough() {
    let disk = Disk::new();
    // Of address space, in KiB: a program that needs more than that is told so, as without a supervisor.
    let limits = "ulimit -v 16000";
    let (frames, code) = listen(spawn_under(limits, disk.run("a"), &["/bin/sh", "-c", "seq 1 300000; exit 6"]));
    assert_eq!((exit(&frames).stdout.kept, code), (1_988_895, Some(6)));
}
