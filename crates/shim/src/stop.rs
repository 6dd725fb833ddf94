//! Ends a program and its children: SIGTERM, a grace, SIGKILL.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use oncelet_shim::frame::Frame;
use oncelet_shim::{Place, StopReason, Stopped, file};
use rustix::process::Signal;

use crate::listener::answer;
use crate::{clock, disk, process};

/// How long between two looks at processes that end by themselves or not at all.
const LOOK: Duration = Duration::from_millis(10);
/// After how long a process that does not end at SIGKILL is left alone.
const HUNG: Duration = Duration::from_secs(5);

/// Ends the program of `place`, if there is one, as somebody outside asks.
pub(crate) fn stop(place: Option<&Place>, by: StopReason, grace_seconds: u64) -> Result<ExitCode, String> {
    if let Some(place) = place
        && disk::read_exit(place).is_none()
    {
        match ask(place, by) {
            // It may have ended meanwhile.
            Err(error) if disk::read_exit(place).is_none() => return Err(format!("{}: {error}", place.gate())),
            _ => {}
        }
        end(place, Duration::from_secs(grace_seconds));
        // Its supervisor has the last word.
        while disk::read_exit(place).is_none()
            && disk::read_claim(place).is_some_and(|claim| process::lives(&claim.supervisor))
        {
            sleep(LOOK);
        }
    }
    answer(&Frame::Done);
    Ok(ExitCode::SUCCESS)
}

/// Records who asked for the end; the first one counts.
pub(crate) fn ask(place: &Place, by: StopReason) -> std::io::Result<()> {
    if disk::read_stopped(place).is_some() {
        return Ok(());
    }
    disk::write(place, file::STOP, &Stopped { by, at_us: clock::now_us() })
}

/// Ends what is left of a program that is over, as its supervisor does before it goes: without it, nobody could tell any
/// more whose children these were. What cannot be killed, in the middle of a hung disk's I/O, keeps no outcome waiting.
pub(crate) fn end_children(place: &Place) {
    let deadline = Instant::now() + HUNG;
    while Instant::now() < deadline {
        let left = process::left_of(&disk::read_record(place));
        if left.is_empty() {
            return;
        }
        for pid in left {
            process::signal(pid, Signal::KILL);
        }
        sleep(LOOK);
    }
}

/// Signals all that is left of a program.
pub(crate) fn signal_left(place: &Place, signal: Signal) {
    for pid in process::left_of(&disk::read_record(place)) {
        process::signal(pid, signal);
    }
}

/// Ends whatever there is, and returns when nothing is left.
pub(crate) fn end(place: &Place, grace: Duration) {
    let deadline = Instant::now() + grace;
    signal_left(place, Signal::TERM);
    loop {
        let record = disk::read_record(place);
        let left = process::left_of(&record);
        let program_lives = record.started.as_ref().is_none_or(|started| process::lives(&started.program));
        // A claim without a start: its supervisor is about to start the program, or to give up.
        let starting = record.started.is_none()
            && record.claim.as_ref().is_some_and(|claim| process::lives(&claim.supervisor))
            && disk::is_claimed(place);
        if left.is_empty() && !starting {
            return;
        }
        // Once the program itself is over, its children get no more time.
        if Instant::now() >= deadline || !program_lives {
            for pid in left {
                process::signal(pid, Signal::KILL);
            }
        }
        sleep(LOOK);
    }
}
