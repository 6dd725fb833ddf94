//! Tells of a run, from its files: as it goes on, and of its end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oncelet_shim::frame::{Frame, Message, head};
use oncelet_shim::{Place, STORED, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::{disk, process};

/// How much of an output goes into one frame.
const PIECE: usize = 64 * 1024;
/// More than this, left when the program is over, is read from the file by whoever wants it.
const LONGEST_REST: u64 = 8 * 1024 * 1024;
/// How long nothing is told while a program writes faster than can be told: each byte that goes through an engine takes more of
/// the machine's time than it took to write it. What is left at the end is read from the file, which is much cheaper.
const BREATH: Duration = Duration::from_millis(50);
/// How long a log may be silent before it is asked whether anybody still lives to write it.
const SILENCE: Duration = Duration::from_secs(1);
/// How long whoever listens has to say that it has stored everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes a frame, if anybody listens.
pub(crate) fn answer(frame: &Frame) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(&frame.encode()).and_then(|()| out.flush());
}

/// What became of the telling.
pub(crate) enum Told {
    /// All of it, to the exit with this code.
    Exited(i64),
    /// Nobody lives to write an end.
    Abandoned,
    /// Nobody listens any more.
    Unheard,
}

/// Tells of the output of `place` from the given offsets on, and of the end. Counts in `told` what went through.
pub(crate) fn tell(place: &Place, from: [u64; 2], told: &AtomicU64) -> io::Result<Told> {
    let changes = Changes::of(place)?;
    let mut outputs = Stream::ALL.map(|stream| Output { stream, file: None, offset: from[stream as usize] });
    let mut out = io::stdout().lock();
    let mut silent_since = Instant::now();
    let mut looked = false;
    // How much was written and not told after the round before.
    let mut was_ahead = 0;
    loop {
        // In this order: what was written before the end is there when the end is.
        let exit = disk::read_exit(place);
        let totals = exit.as_ref().map_or([u64::MAX; 2], |exit| [exit.stdout_bytes, exit.stderr_bytes]);
        let rest = outputs.iter().zip(totals).map(|(output, total)| total.saturating_sub(output.offset));
        let rest = rest.fold(0_u64, u64::saturating_add);
        let mut sent = 0;
        if exit.is_none() || rest <= LONGEST_REST {
            for (output, total) in outputs.iter_mut().zip(totals) {
                match output.send(place, total, &mut out, told) {
                    Ok(bytes) => sent += bytes,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Told::Unheard),
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(exit) = exit {
            let code = exit.end.exit_code();
            let frame = Frame::Exited(exit).encode();
            return Ok(match out.write_all(&frame).and_then(|()| out.flush()) {
                Ok(()) => Told::Exited(code),
                Err(_) => Told::Unheard,
            });
        }
        if sent > 0 {
            silent_since = Instant::now();
            let ahead = outputs.iter().map(Output::ahead).sum();
            if ahead > LONGEST_REST && ahead > was_ahead {
                std::thread::sleep(BREATH);
            }
            was_ahead = ahead;
            continue;
        }
        // At first at once: nobody may live to say anything.
        if looked {
            changes.wait(SILENCE);
        }
        if !looked || silent_since.elapsed() >= SILENCE {
            looked = true;
            silent_since = Instant::now();
            let record = disk::read_record(place);
            if record.exit.is_none() && !process::somebody_lives(&record) {
                // It may have ended between the two looks.
                if disk::read_exit(place).is_some() {
                    continue;
                }
                return Ok(Told::Abandoned);
            }
        }
    }
}

/// One output, as far as it was sent.
struct Output {
    stream: Stream,
    file: Option<File>,
    offset: u64,
}

impl Output {
    /// How much there is that was not sent.
    fn ahead(&self) -> u64 {
        let size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        size.saturating_sub(self.offset)
    }

    /// Sends what is there, up to `total`.
    fn send(&mut self, place: &Place, total: u64, out: &mut impl Write, told: &AtomicU64) -> io::Result<u64> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match disk::open_log(place, self.stream) {
                Ok(file) => none.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error),
            },
        };
        let kind = match self.stream {
            Stream::Stdout => b'o',
            Stream::Stderr => b'e',
        };
        let mut buffer = vec![0; PIECE];
        let mut sent = 0;
        // Not for ever: the other output has its turn, too.
        while sent < 16 * PIECE as u64 {
            let wanted = usize::try_from(total.saturating_sub(self.offset)).unwrap_or(PIECE).min(PIECE);
            let read = file.read_at(&mut buffer[..wanted], self.offset)?;
            if read == 0 {
                break;
            }
            out.write_all(&head(kind, read))?;
            out.write_all(&buffer[..read])?;
            out.flush()?;
            self.offset += read as u64;
            sent += read as u64;
            told.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(sent)
    }
}

/// Tells when something changes in the files of a run.
struct Changes(OwnedFd);

impl Changes {
    fn of(place: &Place) -> io::Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&changes, place.gate(), WatchFlags::MOVED_TO | WatchFlags::CREATE)?;
        for stream in Stream::ALL {
            // A log that is not there any more does not change.
            let _ = inotify::add_watch(&changes, place.log(stream), WatchFlags::MODIFY);
        }
        Ok(Self(changes))
    }

    fn wait(&self, limit: Duration) {
        if wait_readable(&self.0, limit) {
            let mut events = [0; 4096];
            while rustix::io::read(&self.0, &mut events).is_ok_and(|read| read > 0) {}
        }
    }
}

fn wait_readable(fd: &impl std::os::fd::AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, limit.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Waits until whoever listens says that everything is stored. False at the end of stdin.
pub(crate) fn await_stored() -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut heard = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !wait_readable(&io::stdin(), left) {
            return false;
        }
        match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
        }
        if heard.windows(STORED.len()).any(|window| window == STORED) {
            return true;
        }
    }
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
