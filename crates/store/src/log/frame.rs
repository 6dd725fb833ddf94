//! Frames: how they are made, and how they are found in a file that may still grow.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter};

use crate::StoreError;

/// How many bytes of output stand in one frame at most.
pub(crate) const FRAME: usize = 256 * 1024;
/// How many bytes are read at a time: most of a frame of text.
const READ: usize = 64 * 1024;

/// Makes frames.
pub(crate) struct Encoder(Compressor<'static>);

impl Encoder {
    pub(crate) fn new() -> io::Result<Self> {
        let mut compressor = Compressor::new(1)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self(compressor))
    }

    /// One frame of `bytes`, at most [`FRAME`] of them.
    pub(crate) fn encode(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.compress(bytes)
    }
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

    /// The output in the next whole frame; `None` where there is none (yet).
    pub(crate) fn next_frame(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        loop {
            let unread = &self.buffer[self.begin..];
            if let Ok(size) = zstd_safe::find_frame_compressed_size(unread)
                && size > 0
            {
                let Some((_, decoder)) = &mut self.file else { return Ok(None) };
                let Ok(bytes) = decoder.decompress(&unread[..size], FRAME) else { return Err(self.damaged()) };
                self.begin += size;
                self.position += size as u64;
                self.good += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            if unread.len() >= zstd_safe::compress_bound(FRAME) {
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

    fn frame(bytes: &[u8]) -> Vec<u8> {
        Encoder::new().unwrap().encode(bytes).unwrap()
    }

    #[test]
    fn an_incomplete_frame_is_not_seen_until_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut frames = Frames::new(path.clone());
        assert_eq!(frames.next_frame().unwrap(), None, "there is no file yet");
        let mut file = File::create(&path).unwrap();
        let (first, second) = (frame(b"first"), frame(&vec![7; FRAME]));
        for part in [&first[..], &second[..5], &second[5..second.len() - 1], &second[second.len() - 1..]] {
            file.write_all(part).unwrap();
            if frames.good() == 0 {
                assert_eq!(frames.next_frame().unwrap().unwrap(), b"first");
            } else if file.metadata().unwrap().len() < (first.len() + second.len()) as u64 {
                assert_eq!(frames.next_frame().unwrap(), None);
            }
        }
        assert_eq!(frames.next_frame().unwrap().unwrap(), vec![7; FRAME]);
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
