//! Tells whoever listens of a run: its output from the spool, and its end.

use std::time::{Duration, Instant};

use oncelet_shim::frame::{Frame, Message, head};
use oncelet_shim::{Exit, Place, Stream};

use crate::listener::Listener;
use crate::spool::Reader;
use crate::{disk, limits, process};

/// How much of an output goes into one frame.
const PIECE: usize = 64 * 1024;
/// More than this, left when the program is over, is read from the disk by whoever wants it.
const LONGEST_REST: u64 = 8 * 1024 * 1024;
/// How long nothing is told while a program writes faster than can be told: each byte that goes through an engine takes more of
/// the machine's time than it took to write it. What is left at the end is read from the disk, which is much cheaper.
const BREATH: Duration = Duration::from_millis(50);
/// How many pieces are told before something else has its turn.
const ROUND: u32 = 16;

/// # Guarantees
/// It never waits. Each stream is told in order and without a gap, from an offset on.
pub(crate) struct Teller {
    pub(crate) listener: Listener,
    readers: [Reader; 2],
    piece: Vec<u8>,
    /// Which stream has the next turn.
    turn: usize,
    pieces: u32,
    /// How much was written and not told after the round before.
    was_ahead: u64,
    silent_until: Option<Instant>,
    /// Since when the end is told, as far as this side is concerned.
    told: Option<Instant>,
}

impl Teller {
    pub(crate) fn new(place: &Place, from: [u64; 2]) -> Self {
        Self {
            listener: Listener::new(2 * PIECE),
            readers: Stream::ALL.map(|stream| Reader::new(place, stream, from[stream as usize])),
            piece: limits::touched(PIECE),
            turn: 0,
            pieces: 0,
            was_ahead: 0,
            silent_until: None,
            told: None,
        }
    }

    pub(crate) fn say(&mut self, frame: &Frame) {
        self.listener.say(|outgoing| outgoing.extend_from_slice(&frame.encode()));
    }

    /// When it goes on by itself.
    pub(crate) fn silent_until(&self) -> Option<Instant> {
        self.silent_until
    }

    /// Since when everything is taken, the end included.
    pub(crate) fn told(&self) -> Option<Instant> {
        self.told.filter(|_| self.listener.is_idle())
    }

    /// Tells output that is on the disk, up to `ends`. True where something was told. `urgent` where the disk has no room for more.
    pub(crate) fn tell_output(&mut self, ends: [u64; 2], urgent: bool) -> bool {
        if urgent {
            self.silent_until = None;
        }
        if self.silent_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.silent_until = None;
        let mut told = false;
        while self.pieces < ROUND && self.listener.is_idle() {
            if !self.tell_piece(ends) {
                self.pieces = 0;
                return told;
            }
            told = true;
            self.pieces += 1;
        }
        if self.pieces >= ROUND {
            self.pieces = 0;
            let ahead = self.readers.iter().map(Reader::ahead).fold(0, u64::saturating_add);
            if !urgent && ahead > LONGEST_REST && ahead > self.was_ahead {
                self.silent_until = Some(Instant::now() + BREATH);
            }
            self.was_ahead = ahead;
        }
        told
    }

    fn tell_piece(&mut self, ends: [u64; 2]) -> bool {
        for _ in 0..2 {
            let index = self.turn;
            self.turn = 1 - self.turn;
            let reader = &mut self.readers[index];
            let most = ends[index].saturating_sub(reader.offset());
            let most = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
            let read = if most == 0 { 0 } else { reader.read(&mut self.piece[..most]) };
            if read > 0 {
                say_output(&mut self.listener, Stream::ALL[index], &self.piece[..read]);
                return true;
            }
        }
        false
    }

    /// Tells output that follows what is on the disk, where all of that was told. Gives back how much was taken.
    pub(crate) fn tell_beyond(&mut self, stream: Stream, offset: u64, bytes: &[u8]) -> usize {
        let reader = &mut self.readers[stream as usize];
        if bytes.is_empty() || reader.offset() != offset || !self.listener.is_idle() {
            return 0;
        }
        let piece = &bytes[..bytes.len().min(PIECE)];
        reader.skip(piece.len() as u64);
        say_output(&mut self.listener, stream, piece);
        piece.len()
    }

    /// Tells the end, after what is left of the output, up to `limit`; a long rest is left to be read from the disk.
    pub(crate) fn tell_exit(&mut self, exit: &Exit, limit: u64) {
        let ends = Stream::ALL.map(|stream| exit.written(stream).kept.min(limit));
        let rest = ends.iter().zip(&self.readers).map(|(end, reader)| end.saturating_sub(reader.offset()));
        if rest.fold(0, u64::saturating_add) <= LONGEST_REST {
            while self.listener.is_idle() && self.tell_piece(ends) {}
        }
        if self.listener.is_idle() && self.told.is_none() {
            self.say(&Frame::Exited(exit.clone()));
            self.told = Some(Instant::now());
        }
    }
}

fn say_output(listener: &mut Listener, stream: Stream, bytes: &[u8]) {
    let kind = match stream {
        Stream::Stdout => b'o',
        Stream::Stderr => b'e',
    };
    listener.say(|outgoing| {
        outgoing.extend_from_slice(&head(kind, bytes.len()));
        outgoing.extend_from_slice(bytes);
    });
}

/// The answer where nobody lives to record an end.
pub(crate) fn abandoned(place: &Place) -> Frame {
    let record = disk::read_record(place);
    let boot = record.claim.as_ref().map(|claim| claim.supervisor.boot_id.clone());
    let message = match boot {
        Some(boot) if boot != process::boot_id() => "the machine was restarted while the program ran".to_owned(),
        _ if record.started.is_none() => {
            "its supervisor was killed while it was starting the program, so whether it ran cannot be known".to_owned()
        }
        _ => "its supervisor was killed, so the program's exit code is lost".to_owned(),
    };
    Frame::Abandoned(Message { message })
}
