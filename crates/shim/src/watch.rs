//! Watches over a program that runs: one loop that never waits for anything but the next event.
//!
//! ```text
//!   program ──pipes──▶ intake ──▶ spool (disk) ──▶ teller ──▶ whoever listens
//!                         └──────── memory ──────────┘            │
//!            spool ◀── removed as far as it is safe ◀── words ────┘
//! ```
//!
//! There is no thread, and nothing that the outcome needs is taken from the system once the program runs: at its container's
//! limits that could fail.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use oncelet_shim::frame::Frame;
use oncelet_shim::{End, Exit, Place, Started, StopReason, Stopped, Stream, Word, file};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::children::Children;
use crate::disk::ReservedEnd;
use crate::intake::{Came, Intake};
use crate::run::{Terms, exit_code};
use crate::spool::Spool;
use crate::teller::Teller;
use crate::{clock, disk, limits, listener, spool, stop};

/// How long the telling may stand still once the program is over.
pub(crate) const STILL: Duration = Duration::from_secs(10);
/// How long whoever listens has to say that it has stored everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long the program waits at most while nobody takes its output and there is no room for it.
const NO_ROOM: Duration = Duration::from_secs(5);
/// How long processes that the program leaves behind may still write: those that end with it, as in `cmd > >(tee log)`, are
/// through by then.
const LEFT_BEHIND: Duration = Duration::from_millis(200);
/// How often something is tried again that tells nobody when it would work.
const AGAIN: Duration = Duration::from_millis(100);
/// How many pieces are read before something else has its turn.
const ROUND: u32 = 16;
/// As much as a pipe holds, usually.
const PIECE: usize = 64 * 1024;

/// What is in place before the program is started.
pub(crate) struct Prepared {
    pub(crate) children: Children,
    pub(crate) intakes: [Intake; 2],
    pub(crate) spool: Spool,
    pub(crate) teller: Teller,
    pub(crate) end: ReservedEnd,
    pub(crate) scratch: Vec<u8>,
}

impl Prepared {
    /// What is dropped goes there.
    pub(crate) fn scratch() -> Vec<u8> {
        limits::touched(PIECE)
    }
}

/// A program that is over.
struct Over {
    end: End,
    finished_us: i64,
    elapsed: Duration,
    at: Instant,
}

struct Watch<'a> {
    place: &'a Place,
    started: Started,
    begun: Instant,
    prepared: Prepared,
    /// When it is to be ended, and how long it has then.
    deadline: Option<Instant>,
    grace: Duration,
    /// When what is left of it is killed, once it was asked to end.
    kill_at: Option<Instant>,
    timed_out: Option<Stopped>,
    over: Option<Over>,
    /// When the record of the end is tried again.
    retry_at: Option<Instant>,
    exit: Option<Exit>,
    /// What is not known to be on the disk yet.
    unsynced: VecDeque<String>,
    syncs: bool,
    stored: bool,
    /// Since when there is no room for what the program writes, and what had been taken by then.
    stalled: Option<(Instant, u64)>,
    /// What the listener had taken when it was looked at last, and when that changed.
    progress: (u64, Instant),
}

/// Watches over the program to its end and tells of it.
pub(crate) fn watch(place: &Place, terms: &Terms, started: Started, begun: Instant, prepared: Prepared) -> ExitCode {
    let mut watch = Watch {
        place,
        started,
        begun,
        prepared,
        deadline: terms.timeout_seconds.and_then(|seconds| begun.checked_add(Duration::from_secs(seconds))),
        grace: Duration::from_secs(terms.grace_seconds),
        kill_at: None,
        timed_out: None,
        over: None,
        retry_at: None,
        exit: None,
        unsynced: VecDeque::new(),
        syncs: false,
        stored: false,
        stalled: None,
        progress: (0, begun),
    };
    watch.prepared.teller.say(&Frame::Started(watch.started.clone()));
    let code = watch.run();
    if watch.stored || watch.prepared.spool.is_empty() {
        // What cannot be removed stays.
        let _ = spool::remove(place);
    }
    drain(watch);
    code
}

impl Watch<'_> {
    fn run(&mut self) -> ExitCode {
        loop {
            self.collect();
            self.end_in_time();
            let more = self.read();
            self.record();
            let told = self.tell();
            let synced = self.sync();
            if let Some(exit) = &self.exit
                && self.is_done(exit)
            {
                return exit_code(exit.end.exit_code());
            }
            self.wait(more || told || synced);
        }
    }

    fn collect(&mut self) {
        let ended = self.prepared.children.collect(self.started.program.pid);
        if self.over.is_none()
            && let Some(end) = ended
        {
            let (finished_us, elapsed, at) = (clock::now_us(), self.begun.elapsed(), Instant::now());
            self.over = Some(Over { end, finished_us, elapsed, at });
        }
    }

    /// Ends the program when its time has come: SIGTERM, the grace, SIGKILL.
    fn end_in_time(&mut self) {
        let now = Instant::now();
        if self.over.is_some() {
            return;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            // Ended in any case; who asked for it is told where that can be written.
            let _ = stop::ask(self.place, StopReason::Timeout);
            self.timed_out = Some(Stopped { by: StopReason::Timeout, at_us: clock::now_us() });
            stop::signal_left(self.place, Signal::TERM);
            self.kill_at = now.checked_add(self.grace);
        } else if self.kill_at.is_some_and(|kill_at| kill_at <= now) {
            stop::signal_left(self.place, Signal::KILL);
            self.kill_at = Some(now + AGAIN);
        }
    }

    /// Reads what the program has written. True where there may be more.
    fn read(&mut self) -> bool {
        let Prepared { intakes, spool, scratch, teller, .. } = &mut self.prepared;
        let (mut more, mut no_room) = (false, false);
        for intake in intakes.iter_mut() {
            let mut came = Came::Something;
            for _ in 0..ROUND {
                came = intake.read(spool, scratch);
                if came != Came::Something {
                    break;
                }
            }
            more |= came == Came::Something;
            no_room |= came == Came::NoRoom;
        }
        let taken = teller.listener.progress() + spool.removed();
        match self.stalled {
            _ if !no_room => self.stalled = None,
            Some((since, before)) if before == taken => {
                if since.elapsed() >= NO_ROOM {
                    self.stalled = None;
                    intakes.iter_mut().filter(|intake| !intake.memory().is_empty()).for_each(Intake::drop_rest);
                }
            }
            _ => self.stalled = Some((Instant::now(), taken)),
        }
        more
    }

    /// Records the end, once the program is over.
    fn record(&mut self) {
        let Some(over) = &self.over else { return };
        let now = Instant::now();
        if self.exit.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let stopped = disk::read_stopped(self.place).or_else(|| self.timed_out.clone());
        if stopped.is_some() {
            stop::end_children(self.place);
        }
        let intakes = &mut self.prepared.intakes;
        let held = [intakes[0].is_held(), intakes[1].is_held()];
        if held != [false; 2] && now < over.at + LEFT_BEHIND {
            return;
        }
        intakes.iter_mut().for_each(Intake::end);
        let exit = Exit {
            started_us: self.started.at_us,
            finished_us: over.finished_us,
            elapsed_us: u64::try_from(over.elapsed.as_micros()).unwrap_or(u64::MAX),
            end: over.end,
            stdout: intakes[0].written(held[0]),
            stderr: intakes[1].written(held[1]),
            stopped,
        };
        // Room was kept for it. Where even that does not help, it is tried as long as somebody may make room.
        match self.prepared.end.write(self.place, &exit) {
            // Whoever listens is still told of it.
            Err(error) if disk::is_spoilt(&error) => {}
            Err(_) => {
                self.retry_at = Some(now + Duration::from_secs(1));
                return;
            }
            Ok(()) => {}
        }
        self.exit = Some(exit);
        self.progress.1 = now;
    }

    /// Tells of output and of the end. True where there may be more to tell.
    fn tell(&mut self) -> bool {
        let Prepared { intakes, spool, teller, .. } = &mut self.prepared;
        teller.listener.flush();
        if teller.listener.progress() != self.progress.0 {
            self.progress = (teller.listener.progress(), Instant::now());
        }
        if teller.listener.is_gone() || teller.told().is_some() {
            return false;
        }
        let ends = [intakes[0].settled(), intakes[1].settled()];
        let is_whole = intakes.iter().all(|intake| intake.is_whole() && intake.memory().is_empty());
        if let Some(exit) = self.exit.as_ref().filter(|_| is_whole) {
            teller.tell_exit(exit, u64::MAX);
            return false;
        }
        let mut told = teller.tell_output(ends, spool.is_full() || self.exit.is_some());
        for (stream, intake) in Stream::ALL.into_iter().zip(intakes) {
            let taken = teller.tell_beyond(stream, intake.settled(), intake.memory());
            intake.told(taken);
            told |= taken > 0;
        }
        told && teller.listener.is_idle()
    }

    /// Waits for the disk, a file at a time, once everything is told: the output first, and then the record of the end. True where
    /// there is more of it.
    fn sync(&mut self) -> bool {
        let Some(exit) = &self.exit else { return false };
        let teller = &self.prepared.teller;
        let is_told = teller.told().is_some() || teller.listener.is_gone() || self.progress.1.elapsed() > AGAIN;
        if !self.syncs && is_told {
            self.syncs = true;
            self.prepared.spool.finish();
            let output = exit.stdout.bytes + exit.stderr.bytes > 0;
            self.unsynced.extend(if output { self.prepared.spool.files() } else { Vec::new() });
            self.unsynced.extend([format!("{}/{}", self.place.gate(), file::EXIT), self.place.gate()]);
        }
        if self.stored {
            // What is removed needs no disk.
            let gate = self.place.gate();
            self.unsynced.retain(|path| path.starts_with(&gate) && !path.starts_with(&self.place.spool()));
        }
        if let Some(path) = self.unsynced.pop_front() {
            // Where the disk does not take it, whoever listens may still.
            let _ = disk::sync(&path);
        }
        !self.unsynced.is_empty()
    }

    fn is_done(&self, exit: &Exit) -> bool {
        if !self.syncs || !self.unsynced.is_empty() {
            return false;
        }
        let teller = &self.prepared.teller;
        let is_silent = exit.stdout.bytes + exit.stderr.bytes == 0;
        match teller.told() {
            // Somebody else may be making room.
            _ if teller.listener.is_gone() => !self.has_memory() || self.progress.1.elapsed() >= NO_ROOM,
            Some(at) => is_silent || self.stored || at.elapsed() >= PATIENCE,
            None => self.progress.1.elapsed() >= STILL,
        }
    }

    fn has_memory(&self) -> bool {
        self.prepared.intakes.iter().any(|intake| !intake.memory().is_empty())
    }

    /// Waits until something happens; does not wait where there is more to do.
    fn wait(&mut self, more: bool) {
        let limit = if more { Some(Duration::ZERO) } else { self.pause() };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let Prepared { children, intakes, teller, .. } = &mut self.prepared;
        let listens = !teller.listener.is_gone();
        let revents = {
            let mut fds = Vec::with_capacity(5);
            fds.push(PollFd::from_borrowed_fd(children.ended(), PollFlags::IN));
            if listens {
                fds.extend(teller.listener.interest());
            }
            let readable = intakes.iter().filter(|intake| intake.has_room()).filter_map(Intake::pipe);
            fds.extend(readable.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
            if poll(&mut fds, limit.as_ref()).is_err() {
                return;
            }
            [fds.get(1), fds.get(2)].map(|fd| fd.filter(|_| listens).map_or(PollFlags::empty(), PollFd::revents))
        };
        if !revents[1].is_empty() {
            teller.listener.on_writable(revents[1]);
        }
        if !revents[0].is_empty() {
            for word in teller.listener.hear() {
                match word {
                    Word::Ack(safe) => self.prepared.spool.remove_until(safe),
                    Word::Stored => self.stored = true,
                }
            }
        }
    }

    /// How long there is nothing to do, if nothing happens.
    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let left_behind = self.over.as_ref().filter(|_| self.exit.is_none()).map(|over| over.at + LEFT_BEHIND);
        let goodbye = self.exit.as_ref().map(|_| now + Duration::from_secs(1));
        let moments = [
            self.deadline.filter(|_| self.over.is_none()),
            self.kill_at.filter(|_| self.over.is_none()),
            self.retry_at.filter(|_| self.exit.is_none()).or(left_behind),
            self.prepared.teller.silent_until().filter(|_| self.exit.is_none()),
            self.has_memory().then(|| now + AGAIN),
            goodbye,
        ];
        moments.into_iter().flatten().min().map(|at| at.saturating_duration_since(now))
    }
}

/// Stays as long as processes that the program left behind hold its output, reads what they write and drops it: they neither die
/// of a broken pipe nor cost any disk. Nobody is kept waiting for that: whoever listened has heard everything.
fn drain(watch: Watch<'_>) {
    let Watch { prepared, started, .. } = watch;
    let Prepared { children, mut intakes, mut spool, mut scratch, teller, end } = prepared;
    // A file that was removed takes room as long as it is open.
    drop((end, teller));
    let mut look = |intakes: &mut [Intake; 2]| {
        for intake in &mut *intakes {
            let _ = (0..ROUND).any(|_| intake.read(&mut spool, &mut scratch) != Came::Something);
        }
        intakes.iter().any(|intake| intake.pipe().is_some())
    };
    intakes.iter_mut().for_each(Intake::drop_rest);
    if !look(&mut intakes) {
        return;
    }
    listener::close();
    while look(&mut intakes) {
        let mut fds = vec![PollFd::from_borrowed_fd(children.ended(), PollFlags::IN)];
        fds.extend(intakes.iter().filter_map(Intake::pipe).map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
        let _ = poll(&mut fds, None);
        children.collect(started.program.pid);
    }
}
