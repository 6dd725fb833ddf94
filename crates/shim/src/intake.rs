//! One output of the program: from its pipe to the disk or, where the disk has no room, to whoever listens.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oncelet_shim::{Stream, TAIL, Written, hex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::limits;
use crate::spool::Spool;

/// How much is kept in memory where the disk has no room.
const MEMORY: usize = 512 * 1024;
/// Less free memory than this is not worth to be read into.
const PIECE: usize = 64 * 1024;

/// What a look at the pipe came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// Bytes; there may be more.
    Something,
    /// Nothing now.
    Nothing,
    /// There is no room for what may be there.
    NoRoom,
}

/// # Guarantees
/// What is kept is always the beginning: after the first byte that is dropped, everything is dropped and counted, but for the
/// last bytes, which the record holds.
pub(crate) struct Intake {
    stream: Stream,
    pipe: Option<OwnedFd>,
    limit: u64,
    /// How many bytes came.
    total: u64,
    /// How many of them are kept: on the disk, with whoever listens, or in memory.
    kept: u64,
    /// What is in no other place: `memory[begin..end]`.
    memory: Vec<u8>,
    begin: usize,
    end: usize,
    dropping: bool,
    tail: Vec<u8>,
    /// How many of the bytes to come still count, once the program is over.
    left: Option<u64>,
}

impl Intake {
    pub(crate) fn new(stream: Stream, pipe: OwnedFd, limit: Option<u64>) -> Self {
        let mut tail = limits::touched(2 * TAIL);
        tail.clear();
        Self {
            stream,
            pipe: Some(pipe),
            limit: limit.unwrap_or(u64::MAX),
            total: 0,
            kept: 0,
            memory: limits::touched(MEMORY),
            begin: 0,
            end: 0,
            dropping: false,
            tail,
            left: None,
        }
    }

    /// The pipe, until its end was read.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is room for what may come.
    pub(crate) fn has_room(&self) -> bool {
        self.dropping || self.kept >= self.limit || self.end < self.memory.len() || self.begin >= PIECE
    }

    /// Up to which byte it is on the disk, or with whoever listens.
    pub(crate) fn settled(&self) -> u64 {
        self.kept - (self.end - self.begin) as u64
    }

    /// What follows those bytes and is in memory alone.
    pub(crate) fn memory(&self) -> &[u8] {
        &self.memory[self.begin..self.end]
    }

    /// Whoever listens has taken so many bytes from memory.
    pub(crate) fn told(&mut self, bytes: usize) {
        self.begin += bytes;
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }

    /// Writes to the disk what is in memory, as far as there is room.
    pub(crate) fn settle(&mut self, spool: &mut Spool) {
        if self.begin < self.end {
            let written = spool.write(self.stream, self.settled(), &self.memory[self.begin..self.end]);
            self.told(written);
        }
    }

    /// Reads a piece from the pipe. `scratch` takes what is dropped.
    pub(crate) fn read(&mut self, spool: &mut Spool, scratch: &mut [u8]) -> Came {
        self.settle(spool);
        let Some(pipe) = &self.pipe else { return Came::Nothing };
        let left = self.left.unwrap_or(u64::MAX);
        let wanted = self.limit.saturating_sub(self.kept).min(left);
        let keeps = wanted > 0 && !self.dropping;
        if keeps && self.end == self.memory.len() {
            if self.begin < PIECE {
                return Came::NoRoom;
            }
            self.memory.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        let most = if keeps {
            wanted
        } else if left > 0 {
            left
        } else {
            u64::MAX
        };
        let space = if keeps { &mut self.memory[self.end..] } else { scratch };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(space.len());
        let read = match rustix::io::read(pipe, &mut space[..most]) {
            Ok(0) => {
                self.close();
                return Came::Nothing;
            }
            Ok(read) => read,
            Err(Errno::INTR) => return Came::Something,
            Err(Errno::AGAIN) => return Came::Nothing,
            Err(_) => {
                self.close();
                return Came::Nothing;
            }
        };
        // What others write once the program is over is not its output.
        if left > 0 {
            self.total += read as u64;
            self.left = self.left.map(|left| left - read as u64);
            remember(&mut self.tail, &space[..read]);
            if keeps {
                self.kept += read as u64;
                self.end += read;
                self.settle(spool);
            }
        }
        Came::Something
    }

    fn close(&mut self) {
        self.pipe = None;
        self.left = Some(0);
    }

    /// From here on everything is dropped.
    pub(crate) fn drop_rest(&mut self) {
        self.dropping = true;
    }

    /// Whether somebody may still write to the pipe.
    pub(crate) fn is_held(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| {
            let mut look = [PollFd::new(pipe, PollFlags::IN)];
            let now = Timespec::default();
            poll(&mut look, Some(&now)).is_err() || !look[0].revents().contains(PollFlags::HUP)
        })
    }

    /// The program is over: only what is in the pipe now still counts.
    pub(crate) fn end(&mut self) {
        let waiting = self.pipe.as_ref().map(|pipe| rustix::io::ioctl_fionread(pipe).unwrap_or_default());
        self.left = Some(waiting.unwrap_or_default());
    }

    /// Whether all that counts was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.left == Some(0)
    }

    /// What the record says. What is in the pipe at the end of the program is taken for kept: where there is no room for it
    /// after all, whoever reads it finds that it is not there.
    pub(crate) fn written(&self, held_open: bool) -> Written {
        let left = self.left.unwrap_or_default();
        let bytes = self.total + left;
        let kept = if self.dropping { self.kept } else { self.limit.min(self.kept + left) };
        let has_tail = kept < bytes && self.limit > 0;
        let tail = if has_tail { hex(&self.tail[self.tail.len().saturating_sub(TAIL)..]) } else { String::new() };
        Written { bytes, kept, held_open, tail }
    }
}

/// Adds to the last bytes of a stream.
fn remember(tail: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() >= TAIL {
        tail.clear();
    } else {
        tail.drain(..(tail.len() + bytes.len()).saturating_sub(TAIL));
    }
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
}
