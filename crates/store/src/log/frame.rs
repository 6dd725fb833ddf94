//! Frames: how they are made, and how they are found in a file that may still grow.
//!
//! ```text
//! [ skippable frame: when what follows came ] [ frame: output ]  [ skippable frame ] [ frame ]  …
//! ```
//!
//! A skippable frame ([RFC 8878, 3.1.2](https://www.rfc-editor.org/rfc/rfc8878#section-3.1.2)) is passed over by every
//! decoder, so `zstdcat` prints the output alone. Frames that an earlier release wrote have none before them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use jiff::Timestamp;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter};

use crate::StoreError;

/// How many bytes of output stand in one frame at most.
pub(crate) const FRAME: usize = 256 * 1024;
/// How many bytes are read at a time: most of a frame of text.
const READ: usize = 64 * 1024;

/// How many times stand before one frame at most.
pub(crate) const MARKS: usize = 1024;
/// The magic number of our skippable frames; zstd has sixteen for anybody's use.
const MARKS_MAGIC: u32 = 0x184d_2a5e;
/// A magic number and a length.
const MARKS_HEADER: usize = 8;
/// An offset in the output of the frame, and microseconds since 1970; little endian, as all in a zstd file.
const MARK: usize = 4 + 8;

/// What was written from `offset` on, of the output in a frame, came at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) offset: usize,
    pub(crate) at: Timestamp,
}

/// A piece of output, and when its parts came, in order; nothing of that where an earlier release wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) marks: Vec<Mark>,
}

/// Makes frames.
pub(crate) struct Encoder(Compressor<'static>);

impl Encoder {
    pub(crate) fn new() -> io::Result<Self> {
        let mut compressor = Compressor::new(1)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self(compressor))
    }

    /// A frame as it stands in the file; it holds at most [`FRAME`] bytes and [`MARKS`] marks.
    pub(crate) fn encode(&mut self, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut encoded = encode_marks(&frame.marks);
        encoded.append(&mut self.0.compress(&frame.bytes)?);
        Ok(encoded)
    }
}

fn encode_marks(marks: &[Mark]) -> Vec<u8> {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut encoded = Vec::with_capacity(MARKS_HEADER + marks.len() * MARK);
    encoded.extend(MARKS_MAGIC.to_le_bytes());
    encoded.extend(small(marks.len() * MARK));
    for mark in marks {
        encoded.extend(small(mark.offset));
        encoded.extend(mark.at.as_microsecond().to_le_bytes());
    }
    encoded
}

/// The marks at the beginning of `unread`, and how long they are there: nothing of both where there are none.
/// `None` where they are not whole.
fn decode_marks(unread: &[u8]) -> Option<(Vec<Mark>, usize)> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
    if number(unread.get(..4)?) != MARKS_MAGIC {
        return Some((Vec::new(), 0));
    }
    let length = number(unread.get(4..MARKS_HEADER)?) as usize;
    let end = MARKS_HEADER + length;
    let decode = |mark: &[u8]| {
        let (offset, at) = mark.split_at(4);
        let at = i64::from_le_bytes(at.try_into().unwrap_or_default());
        Some(Mark { offset: number(offset) as usize, at: Timestamp::from_microsecond(at).ok()? })
    };
    Some((unread.get(MARKS_HEADER..end)?.chunks_exact(MARK).filter_map(decode).collect(), end))
}

/// The frames of a file, from its beginning on.
pub(crate) struct Frames {
    path: PathBuf,
    /// Opened when there is a file: a program that wrote nothing has none.
    file: Option<(File, Decompressor<'static>)>,
    /// What was read and not yet understood, in `buffer[begin..]`.
    buffer: Vec<u8>,
    begin: usize,
    /// Where in the file `buffer[begin..]` begins.
    position: u64,
    /// How many bytes of output were given out.
    good: u64,
}

impl Frames {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, buffer: Vec::new(), begin: 0, position: 0, good: 0 }
    }

    /// Where the last whole frame that was given out ends.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes of output were given out.
    pub(crate) fn good(&self) -> u64 {
        self.good
    }

    pub(crate) fn damaged(&self) -> StoreError {
        StoreError::DamagedLog { path: self.path.clone(), good: self.good }
    }

    /// The next whole frame; `None` where there is none (yet).
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, StoreError> {
        loop {
            let unread = &self.buffer[self.begin..];
            if let Some((marks, begin)) = decode_marks(unread)
                && let Ok(size) = zstd_safe::find_frame_compressed_size(&unread[begin..])
                && size > 0
            {
                let Some((_, decoder)) = &mut self.file else { return Ok(None) };
                let end = begin + size;
                let Ok(bytes) = decoder.decompress(&unread[begin..end], FRAME) else { return Err(self.damaged()) };
                self.begin += end;
                self.position += end as u64;
                self.good += bytes.len() as u64;
                return Ok(Some(Frame { bytes, marks }));
            }
            if unread.len() >= MARKS_HEADER + MARKS * MARK + zstd_safe::compress_bound(FRAME) {
                return Err(self.damaged());
            }
            if !self.read_more().map_err(StoreError::file(&self.path))? {
                return Ok(None);
            }
        }
    }

    /// False at the end of the file.
    fn read_more(&mut self) -> io::Result<bool> {
        let (file, _) = match &mut self.file {
            Some(open) => open,
            none => match File::open(&self.path) {
                Ok(file) => none.insert((file, Decompressor::new()?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + READ, 0);
        let read = file.read_at(&mut self.buffer[old..], self.position + old as u64);
        self.buffer.truncate(old + read.as_ref().map_or(0, |read| *read));
        Ok(read? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn marks() -> Vec<Mark> {
        let mark = |offset| Mark { offset, at: Timestamp::from_microsecond(1_700_000_000_123_456).unwrap() };
        vec![mark(0), mark(3)]
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        Encoder::new().unwrap().encode(&Frame { bytes: bytes.to_vec(), marks: marks() }).unwrap()
    }

    #[test]
    fn frames_without_times_are_read_and_others_decoders_pass_over_the_times() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let older = zstd::bulk::compress(b"older", 1).unwrap();
        std::fs::write(&path, [older, frame(b"newer")].concat()).unwrap();
        let mut frames = Frames::new(path.clone());
        let older = Frame { bytes: b"older".to_vec(), marks: Vec::new() };
        assert_eq!(frames.next_frame().unwrap(), Some(older));
        let newer = Frame { bytes: b"newer".to_vec(), marks: marks() };
        assert_eq!(frames.next_frame().unwrap(), Some(newer));
        assert_eq!(zstd::decode_all(File::open(path).unwrap()).unwrap(), b"oldernewer");
    }

    #[test]
    fn an_incomplete_frame_is_not_seen_until_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut frames = Frames::new(path.clone());
        assert_eq!(frames.next_frame().unwrap(), None, "there is no file yet");
        let mut file = File::create(&path).unwrap();
        let (first, second) = (frame(b"first"), frame(&vec![7; FRAME]));
        for part in
            [&first[..], &second[..5], &second[5..40], &second[40..second.len() - 1], &second[second.len() - 1..]]
        {
            file.write_all(part).unwrap();
            if frames.good() == 0 {
                assert_eq!(frames.next_frame().unwrap().unwrap().bytes, b"first");
            } else if file.metadata().unwrap().len() < (first.len() + second.len()) as u64 {
                assert_eq!(frames.next_frame().unwrap(), None);
            }
        }
        assert_eq!(frames.next_frame().unwrap().unwrap().bytes, vec![7; FRAME]);
        assert_eq!(frames.next_frame().unwrap(), None);
        assert_eq!(frames.position(), (first.len() + second.len()) as u64);
    }

    #[test]
    fn a_changed_byte_is_damage_and_is_told_with_what_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut second = frame(b"the second frame, long enough to hold literals");
        let middle = second.len() / 2;
        second[middle] ^= 1;
        std::fs::write(&path, [frame(b"first"), second].concat()).unwrap();
        let mut frames = Frames::new(path);
        assert!(frames.next_frame().unwrap().is_some());
        assert!(matches!(frames.next_frame(), Err(StoreError::DamagedLog { good: 5, .. })));
    }
}
