//! Whoever listens: gets frames over stdout, and says words over stdin.

use std::io;

use oncelet_shim::frame::Frame;
use oncelet_shim::{Word, Words};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::stdio::{stdin, stdout};

use crate::limits;

/// Writes a frame, if anybody listens. Waits until it is taken.
pub(crate) fn answer(frame: &Frame) {
    use std::io::Write as _;
    let mut out = io::stdout().lock();
    let _ = out.write_all(&frame.encode()).and_then(|()| out.flush());
}

/// The other end of stdin and stdout, which is never waited for.
pub(crate) struct Listener {
    outgoing: Vec<u8>,
    /// How much of it is taken.
    taken: usize,
    words: Words,
    gone: bool,
    /// How many bytes were taken so far.
    progress: u64,
}

impl Listener {
    /// `room` is the size of the largest frame, to be kept for it.
    pub(crate) fn new(room: usize) -> Self {
        // Writing more than fits would wait otherwise.
        let _ = fcntl_getfl(stdout()).and_then(|flags| fcntl_setfl(stdout(), flags | OFlags::NONBLOCK));
        let mut outgoing = limits::touched(room);
        outgoing.clear();
        Self { outgoing, taken: 0, words: Words::default(), gone: false, progress: 0 }
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether everything said was taken, so that something more may be said.
    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && !self.gone
    }

    /// How many bytes were taken so far.
    pub(crate) fn progress(&self) -> u64 {
        self.progress
    }

    /// Says a frame that is written by `write`.
    pub(crate) fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.outgoing);
        self.flush();
    }

    /// Gives what is taken without waiting.
    pub(crate) fn flush(&mut self) {
        while !self.gone && self.taken < self.outgoing.len() {
            match rustix::io::write(stdout(), &self.outgoing[self.taken..]) {
                Ok(written) => {
                    self.taken += written;
                    self.progress += written as u64;
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
        self.outgoing.clear();
        self.taken = 0;
    }

    /// Whoever listens may be ready to take more, or has gone.
    pub(crate) fn on_writable(&mut self, events: PollFlags) {
        if events.intersects(PollFlags::ERR | PollFlags::NVAL) {
            self.leave();
        } else {
            self.flush();
        }
    }

    fn leave(&mut self) {
        self.gone = true;
        self.outgoing.clear();
        self.taken = 0;
    }

    /// The words that were said. Call it when there is something to read: the end of stdin means that nobody listens.
    pub(crate) fn hear(&mut self) -> Vec<Word> {
        let mut buffer = [0; 256];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(read) if read > 0 => self.words.push(&buffer[..read]),
            Err(Errno::INTR | Errno::AGAIN) => Vec::new(),
            Ok(_) | Err(_) => {
                self.leave();
                Vec::new()
            }
        }
    }

    /// What to wait for, to hear and to be heard.
    pub(crate) fn interest(&self) -> [PollFd<'static>; 2] {
        let out = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        [PollFd::from_borrowed_fd(stdin(), PollFlags::IN), PollFd::from_borrowed_fd(stdout(), out)]
    }
}

/// Lets go of stdin, stdout and stderr: whoever is at their other ends sees their end.
pub(crate) fn close() {
    // Any descriptor will do that is neither: there may be no /dev/null.
    let Ok(root) = std::fs::File::open("/") else { return };
    let _ = rustix::stdio::dup2_stdin(&root);
    let _ = rustix::stdio::dup2_stdout(&root);
    let _ = rustix::stdio::dup2_stderr(&root);
}
