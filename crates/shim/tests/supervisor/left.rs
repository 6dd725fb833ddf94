//! Processes that the program leaves behind.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use oncelet_shim::frame::{Decoder, Frame};
use oncelet_shim::{End, Exit, Stream, Task, Word};

use crate::support::{Disk, eventually, exit, output, spawn, tell};

/// Listens until the supervisor lets go of its stdout, and says then that everything is stored.
fn let_go(supervisor: &mut std::process::Child) -> (Vec<u8>, Exit) {
    let mut stdout = supervisor.stdout.take().unwrap();
    let (mut decoder, mut buffer, mut output, mut exit) = (Decoder::default(), vec![0; 65536], Vec::new(), None);
    loop {
        let read = stdout.read(&mut buffer).unwrap();
        if read == 0 {
            return (output, exit.unwrap());
        }
        decoder.push(&buffer[..read]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Output(Stream::Stdout, bytes) => output.extend(bytes),
                Frame::Exited(end) => {
                    exit = Some(end);
                    supervisor.stdin.as_mut().unwrap().write_all(Word::Stored.to_string().as_bytes()).unwrap();
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_server_that_is_left_behind_keeps_nobody_waiting_and_costs_no_disk() {
    let disk = Disk::new();
    let (stop, wrote) = (disk.0.path().join("stop"), disk.0.path().join("wrote"));
    // It is seen to have written much, and to have got no error.
    let server = format!(
        "n=0; while [ ! -e {stop} ]; do head -c 1000000 /dev/zero || exit; n=$((n+1)); echo $n > {wrote}; done; touch {stop}ped",
        stop = stop.display(),
        wrote = wrote.display()
    );
    let script = format!("({server}) & echo started");
    let mut supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", &script]);
    let (output, exit) = let_go(&mut supervisor);
    assert!(output.windows(8).any(|window| window == b"started\n"));
    assert_eq!((exit.end, exit.stdout.held_open), (End::Code(0), true));
    let count = || fs::read_to_string(&wrote).ok()?.trim().parse::<u64>().ok();
    let before = count().unwrap_or_default();
    eventually("the server writes on", || (count()? > before + 50).then_some(()));
    assert!(!Path::new(&disk.place("a").spool()).exists(), "nothing of it is on the disk");
    assert!(supervisor.try_wait().unwrap().is_none(), "it is there for the server");
    let holds = |fd: u32| fs::read_link(format!("/proc/{}/fd/{fd}", supervisor.id())).unwrap();
    assert_eq!([holds(0), holds(1), holds(2)], ["/"; 3].map(std::path::PathBuf::from), "and for nobody else");
    let open = fs::read_dir(format!("/proc/{}/fd", supervisor.id())).unwrap();
    let files: Vec<_> = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).collect();
    let ours = disk.0.path().to_str().unwrap();
    assert!(!files.iter().any(|file| file.to_str().unwrap().contains(ours)), "no file holds room: {files:?}");
    fs::write(&stop, "").unwrap();
    assert_eq!(supervisor.wait().unwrap().code(), Some(0), "it goes with the server");
    assert!(disk.0.path().join("stopped").exists(), "which had no error");
}

#[test]
fn the_output_of_those_that_end_with_the_program_is_its_output() {
    let disk = Disk::new();
    let frames = tell(disk.run("a"), &["/bin/sh", "-c", "(sleep 0.05; echo late) & echo early; exit 3"]);
    assert_eq!(output(&frames, Stream::Stdout), "early\nlate\n");
    let exit = exit(&frames);
    assert_eq!((exit.end, exit.stdout.held_open), (End::Code(3), false));
    assert!(exit.elapsed_us < 50_000 || exit.finished_us - exit.started_us < 200_000, "the program's own end counts");
}

#[test]
fn one_that_keeps_the_output_open_and_writes_nothing_is_told_of_and_its_run_can_be_forgotten() {
    let disk = Disk::new();
    let stop = disk.0.path().join("stop");
    let script = format!("(while [ ! -e {} ]; do sleep 0.02; done) 2>&- & echo started", stop.display());
    let mut supervisor = spawn(disk.run("a"), &["/bin/sh", "-c", &script]);
    let (_, exit) = let_go(&mut supervisor);
    assert_eq!([exit.stdout.held_open, exit.stderr.held_open], [true, false]);
    assert_eq!(tell(Task::Forget { places: vec![disk.place("a")] }, &[]), [Frame::Done]);
    assert!(disk.names().is_empty());
    fs::write(&stop, "").unwrap();
    supervisor.wait().unwrap();
}

#[test]
fn orphans_are_collected_as_soon_as_they_end() {
    let disk = Disk::new();
    // Each inner shell is an orphan when it ends. What is left of those would be zombies of the supervisor.
    let script = "n=0; while [ $n -lt 20 ]; do (sh -c 'sleep 0.01' &); n=$((n+1)); done; sleep 0.5; \
                  cat /proc/[0-9]*/stat 2>/dev/null | grep -c \") Z $PPID \"";
    let frames = tell(disk.run("a"), &["/bin/sh", "-c", script]);
    assert_eq!(output(&frames, Stream::Stdout), "0\n");
}
