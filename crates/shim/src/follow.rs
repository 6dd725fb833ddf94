//! Tells of a run that somebody else supervises, or supervised.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use oncelet_shim::frame::Frame;
use oncelet_shim::{Place, Word};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::listener::Listener;
use crate::teller::{self, Teller};
use crate::watch::{PATIENCE, STILL};
use crate::{disk, process, run, spool};

/// How long a run may be silent before it is asked whether anybody still lives to write something.
const SILENCE: Duration = Duration::from_secs(1);

pub(crate) fn follow(place: &Place, from: [u64; 2], limit: u64) -> Result<ExitCode, String> {
    let changes = Changes::of(place).map_err(|error| format!("{}: {error}", place.gate()))?;
    let mut teller = Teller::new(place, from);
    if let Some(started) = disk::read_started(place) {
        teller.say(&Frame::Started(started));
    }
    // At first at once: nobody may live to say anything.
    let mut looked: Option<Instant> = None;
    let mut stored = false;
    let mut progress = (teller.listener.progress(), Instant::now());
    while !teller.listener.is_gone() {
        // In this order: what was written before the end is there when the end is.
        let exit = disk::read_exit(place);
        let told = match &exit {
            Some(exit) => {
                teller.tell_exit(exit, limit);
                false
            }
            None => teller.tell_output([limit; 2], false),
        };
        if exit.is_none() && !told && looked.is_none_or(|at| at.elapsed() >= SILENCE) {
            looked = Some(Instant::now());
            let record = disk::read_record(place);
            // It may have ended between the two looks.
            if record.exit.is_none() && !process::somebody_lives(&record) && disk::read_exit(place).is_none() {
                return Ok(abandoned(place, teller, limit));
            }
        }
        if teller.listener.progress() != progress.0 || teller.listener.is_idle() {
            progress = (teller.listener.progress(), Instant::now());
        }
        if let Some(exit) = &exit
            && (teller.told().is_some_and(|at| at.elapsed() >= PATIENCE) || progress.1.elapsed() >= STILL)
        {
            return Ok(run::exit_code(exit.end.exit_code()));
        }
        if let Some(exit) = exit.filter(|_| stored && teller.told().is_some()) {
            // What cannot be removed stays.
            let _ = spool::remove(place);
            return Ok(run::exit_code(exit.end.exit_code()));
        }
        let pause = if told { Duration::ZERO } else { teller.silent_until().map_or(SILENCE, |_| SILENCE / 20) };
        for word in wait(&changes, &mut teller.listener, pause) {
            match word {
                Word::Ack(safe) => spool::remove_until(place, safe),
                Word::Stored => stored = true,
            }
        }
    }
    Ok(ExitCode::FAILURE)
}

fn abandoned(place: &Place, mut teller: Teller, limit: u64) -> ExitCode {
    // What the supervisor could still write, it had written when it was looked for.
    let mut said = false;
    while !teller.listener.is_gone() {
        if teller.listener.is_idle() {
            if said {
                return ExitCode::SUCCESS;
            }
            if !teller.tell_output([limit; 2], true) && teller.listener.is_idle() {
                teller.say(&teller::abandoned(place));
                said = true;
            }
        } else {
            let mut fds = teller.listener.interest();
            let _ = poll(&mut fds[1..], None);
            let events = fds[1].revents();
            teller.listener.on_writable(events);
        }
    }
    ExitCode::FAILURE
}

/// Waits until something changes, or somebody says something, or takes what was said.
fn wait(changes: &Changes, listener: &mut Listener, limit: Duration) -> Vec<Word> {
    let limit = Timespec::try_from(limit).ok();
    let [stdin, stdout] = listener.interest();
    let mut fds = [PollFd::new(&changes.0, PollFlags::IN), stdin, stdout];
    if poll(&mut fds, limit.as_ref()).is_err() {
        return Vec::new();
    }
    let [files, stdin, stdout] = fds.map(|fd| fd.revents());
    if !files.is_empty() {
        changes.forget();
    }
    if !stdout.is_empty() {
        listener.on_writable(stdout);
    }
    if stdin.is_empty() { Vec::new() } else { listener.hear() }
}

/// Tells when something changes in the files of a run.
struct Changes(OwnedFd);

impl Changes {
    fn of(place: &Place) -> std::io::Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&changes, place.gate(), WatchFlags::MOVED_TO | WatchFlags::CREATE)?;
        // A spool that is not there any more does not change.
        let _ = inotify::add_watch(&changes, place.spool(), WatchFlags::MODIFY | WatchFlags::CREATE);
        Ok(Self(changes))
    }

    fn forget(&self) {
        let mut events = [0; 4096];
        while rustix::io::read(&self.0, &mut events).is_ok_and(|read| read > 0) {}
    }
}
