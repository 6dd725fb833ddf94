//! What the program reads.

use std::fs;
use std::io::{Read, Write};
use std::process::Child;

use oncelet_shim::frame::{Decoder, Frame};
use oncelet_shim::{End, StdinDigest, Stream, Word};
use sha2::{Digest, Sha256};

use crate::support::{Disk, exit, output, spawn, tell};

fn digest(bytes: &[u8]) -> StdinDigest {
    StdinDigest { bytes: bytes.len() as u64, sha256: format!("{:x}", Sha256::digest(bytes)) }
}

/// Sends `input` to the supervisor and then the word that everything is stored.
fn send_and_listen(mut supervisor: Child, input: Vec<u8>) -> Vec<Frame> {
    let mut stdin = supervisor.stdin.take().unwrap();
    let sending = std::thread::spawn(move || {
        // One that refuses does not read it.
        let _ = stdin.write_all(&input).and_then(|()| stdin.write_all(Word::Stored.to_string().as_bytes()));
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
