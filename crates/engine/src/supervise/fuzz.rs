//! Archives that a container's own programs had their hands in.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use oncelet_shim::{LONGEST_SEGMENT, Record};
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::archive::{PARTS, Segments, part, take};
use super::whose::Owners;
use crate::OutputStream;

const ROOT: Owners = Owners { told: true, number: Some(0) };

/// An archive that goes on with zeros for ever, as that of a file with a hole does, and counts what is read.
struct Endless {
    bytes: Vec<u8>,
    at: usize,
    read: Arc<AtomicU64>,
}

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let rest = &self.bytes[self.at..];
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        let zeros = buffer.remaining();
        buffer.put_slice(&vec![0; zeros]);
        self.at += taken;
        self.read.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    kind: u8,
    contents: Vec<u8>,
    /// What the header claims, where that is not the truth.
    size: Option<u64>,
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![
        4 => ("(stdout|stderr)", 0..3000_u64).prop_map(|(stream, offset)| format!("x.output/{stream}.{offset:020}")),
        1 => "(x.output/)?(claim.json|exit.json|stdout|stderr\\.|\\.\\.|[a-z./]{0,20})",
        1 => "(stdout|stderr)".prop_map(|stream| format!("x.output/{stream}.{}", u64::MAX)),
    ];
    let kind = prop_oneof![6 => Just(b'0'), 1 => prop::sample::select(b"123456LKSgx\0".to_vec())];
    let size = prop_oneof![6 => Just(None), 1 => (0..1_u64 << 43).prop_map(Some)];
    let contents = prop::collection::vec(any::<u8>(), 0..1500);
    (name, kind, contents, size).prop_map(|(name, kind, contents, size)| Entry { name, kind, contents, size })
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let name = entry.name.as_bytes();
        header.as_old_mut().name[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header.set_entry_type(tar::EntryType::new(entry.kind));
        header.set_size(entry.size.unwrap_or(entry.contents.len() as u64));
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(&entry.contents);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive
}

fn archives() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let mutated = (prop::collection::vec(entry(), 0..8), changes).prop_map(|(entries, changes)| {
        let mut bytes = archive(&entries);
        for (at, byte) in changes.into_iter().filter(|_| !entries.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![5 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..3000)]
}

/// All that is read, and how many bytes of the archive that takes. It never waits.
fn read(bytes: Vec<u8>, from: [u64; 2], to: [u64; 2]) -> (Vec<(OutputStream, u64, usize)>, std::io::Result<()>, u64) {
    let count = Arc::new(AtomicU64::new(0));
    let source = Endless { bytes, at: 0, read: count.clone() };
    let mut pieces = Vec::new();
    let end = async {
        let mut segments = Segments::new(source, ROOT, from, to)?;
        while let Some((stream, offset, bytes)) = segments.next().await? {
            pieces.push((stream, offset, bytes.len()));
        }
        Ok(())
    };
    let end = end.now_or_never().expect("nothing is waited for");
    (pieces, end, count.load(Ordering::Relaxed))
}

proptest! {
    #![proptest_config(oncelet_fuzz::cases("archives"))]

    #[test]
    fn any_archive_is_read_within_its_bounds(bytes in archives(), from in [0..500_u64, 0..500], more in [0..3000_u64, 0..3000]) {
        let to = [from[0] + more[0], from[1] + more[1]];
        let length = bytes.len() as u64;
        let (pieces, _, read) = read(bytes, from, to);
        let mut at = from;
        for (stream, offset, length) in pieces {
            prop_assert_eq!(offset, at[stream as usize], "no gap, and nothing twice");
            at[stream as usize] += length as u64;
        }
        prop_assert!(at[0] <= to[0] && at[1] <= to[1]);
        prop_assert!(read <= length + to[0] + to[1] + 3 * LONGEST_SEGMENT, "{} bytes of {} were read", read, length);
    }

    #[test]
    fn any_record_is_taken_or_refused(bytes in archives()) {
        let mut record = Record::default();
        for name in PARTS {
            take(&mut record, name, part(&bytes, name, &ROOT));
        }
    }
}

fn segment(name: &str, size: u64) -> Entry {
    Entry { name: format!("x.output/{name}"), kind: b'0', contents: b"begin\n".to_vec(), size: Some(size) }
}

#[test]
fn a_segment_with_a_hole_is_refused_by_its_head() {
    let first = segment("stderr.00000000000000000000", 6);
    for (size, kind) in [(LONGEST_SEGMENT + 1, b'0'), (1 << 40, b'0'), (6, b'S')] {
        let hole = Entry { kind, ..segment("stdout.00000000000000000000", size) };
        let (pieces, end, read) = read(archive(&[first.clone(), hole]), [0, 0], [u64::MAX; 2]);
        assert_eq!(pieces, [(OutputStream::Stderr, 0, 6)]);
        assert!(end.is_err() && read < 1 << 20, "{size}: {end:?} after {read} bytes");
    }
}

#[test]
fn what_is_read_is_bounded_by_what_is_wanted() {
    // Segments of zeros, which take no room on the disk.
    let many: Vec<_> = (0..64)
        .map(|it| Entry {
            size: None,
            contents: vec![0; LONGEST_SEGMENT.try_into().unwrap()],
            ..segment(&format!("stdout.{:020}", it * LONGEST_SEGMENT), 0)
        })
        .collect();
    let limit = 5 * LONGEST_SEGMENT / 2;
    let (pieces, end, read) = read(archive(&many), [0, 0], [limit, 0]);
    assert_eq!(pieces.iter().map(|(_, _, length)| *length as u64).sum::<u64>(), limit);
    assert!(end.is_err() && read <= limit + 4 * LONGEST_SEGMENT, "{end:?} after {read} bytes");
}
