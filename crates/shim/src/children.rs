//! Ended children: the program, and orphans that it leaves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oncelet_shim::End;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, WaitStatus};

/// SIGCHLD. On Linux it has this number wherever there is a supervisor.
const CHILD_ENDED: i32 = 17;

/// Becomes readable when a child ends, so that a wait for other things ends, too. A program that is started gets SIGCHLD's default
/// back: handlers are not inherited.
pub(crate) struct Children(OwnedFd);

impl Children {
    pub(crate) fn watch() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        signal_hook::low_level::pipe::register(CHILD_ENDED, write)?;
        Ok(Self(read))
    }

    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Collects every child that has ended, orphans too. Gives back how the program ended, where it did.
    pub(crate) fn collect(&self, program: u32) -> Option<End> {
        let mut buffer = [0; 64];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|read| read == buffer.len()) {}
        let mut ended = None;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if pid.as_raw_nonzero().get().cast_unsigned() == program {
                        ended = Some(end(status));
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return ended,
                // There is no child that could be waited for.
                Err(_) => return ended.or(Some(End::Code(255))),
            }
        }
    }
}

fn end(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Code(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Code(255),
    }
}
