//! Claims a run, starts its program and watches over it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use oncelet_shim::frame::{Frame, Message};
use oncelet_shim::{
    Claim, End, Exit, ORDER_VARIABLE, Place, StartFailure, Started, StdinDigest, StopReason, Stream, VERSION, file,
};
use rustix::process::{WaitOptions, WaitStatus};

use crate::stdin::{self, NotTaken};
use crate::{clock, disk, process, stop, tell};

/// How long the telling may stand still once the program is over.
const STILL: Duration = Duration::from_secs(10);

/// What a run is to be like.
pub(crate) struct Terms {
    pub(crate) nonce: String,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) grace_seconds: u64,
    pub(crate) stdin: Option<StdinDigest>,
    pub(crate) description: serde_json::Value,
}

/// # Guarantees
/// The claim is on the disk before the program is started. Its end is in the record before anybody is told, and on the disk
/// right after: whoever is told puts it on a disk of its own before it tells others, and waiting for two disks in turn makes
/// neither safer.
pub(crate) fn run(place: &Place, terms: &Terms, command: &[OsString]) -> Result<ExitCode, String> {
    let Some((program, args)) = command.split_first() else { return Err("the order names no program".to_owned()) };
    let wrong = |what: &str, error: io::Error| format!("{what} {}: {error}", place.gate());
    let input = match terms.stdin.as_ref().map(|wanted| taken(place, wanted)).transpose()? {
        Some(Taken::Input(input)) => Some(input),
        Some(Taken::Answered) => return Ok(ExitCode::SUCCESS),
        None => None,
    };
    if !disk::make_gate(place).map_err(|error| wrong("the claim cannot be made at", error))? {
        tell::answer(&Frame::Refused);
        return Ok(ExitCode::SUCCESS);
    }
    let begun = match begin(place, terms, program, args, input) {
        Ok(begun) => begun,
        Err(error) => {
            // Nothing was started: the next one may try.
            disk::remove_gate(place).map_err(|error| wrong("the claim cannot be taken back at", error))?;
            return match error {
                NotBegun::Failed(failure) => {
                    tell::answer(&Frame::FailedToStart(failure));
                    Ok(ExitCode::from(127))
                }
                NotBegun::NoPlace(error) => Err(wrong("the record cannot be written at", error)),
            };
        }
    };
    Ok(watch(place, terms, &begun))
}

enum Taken {
    Input(File),
    /// Nothing is to be started, and that was said.
    Answered,
}

/// Takes the program's input before the run is claimed.
fn taken(place: &Place, wanted: &StdinDigest) -> Result<Taken, String> {
    // Whoever comes too late is to hear it before it has sent everything.
    if disk::is_claimed(place) {
        tell::answer(&Frame::Refused);
        return Ok(Taken::Answered);
    }
    match stdin::take(place, wanted) {
        Ok(input) => Ok(Taken::Input(input)),
        Err(NotTaken::Incomplete(message)) => {
            tell::answer(&Frame::StdinIncomplete(Message { message }));
            Ok(Taken::Answered)
        }
        Err(NotTaken::NoPlace(message)) => Err(message),
    }
}

/// A program that runs.
struct Begun {
    started: Started,
    at: Instant,
}

/// Why there is none.
enum NotBegun {
    Failed(StartFailure),
    NoPlace(io::Error),
}

impl From<io::Error> for NotBegun {
    fn from(error: io::Error) -> Self {
        Self::NoPlace(error)
    }
}

fn begin(
    place: &Place,
    terms: &Terms,
    program: &OsString,
    args: &[OsString],
    input: Option<File>,
) -> Result<Begun, NotBegun> {
    let (stdout, stderr) = (disk::make_log(place, Stream::Stdout)?, disk::make_log(place, Stream::Stderr)?);
    disk::reserve_end(place)?;
    let claim = Claim {
        version: VERSION,
        nonce: terms.nonce.clone(),
        at_us: clock::now_us(),
        supervisor: process::myself(),
        description: terms.description.clone(),
    };
    disk::write_claim(place, &claim)?;

    // Orphans of the program come here, where they can be found.
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    let _ = rustix::process::setsid();
    let (at_us, at) = (clock::now_us(), Instant::now());
    let spawned = Command::new(program)
        .args(args)
        .env_remove(ORDER_VARIABLE)
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn();
    match spawned {
        Ok(child) => {
            let started = Started { at_us, program: process::identify(child.id()) };
            // The end tells the start, too; this file helps whoever looks before it.
            let _ = disk::note(place, file::STARTED, &started);
            Ok(Begun { started, at })
        }
        Err(error) => Err(NotBegun::Failed(failure(program, &error))),
    }
}

fn failure(program: &OsString, error: &io::Error) -> StartFailure {
    let name = program.to_string_lossy();
    let is_there = name.contains('/') && std::fs::symlink_metadata(program).is_ok();
    let message = if is_there && error.kind() == io::ErrorKind::NotFound {
        format!("exec: {name:?}: what it needs to run is not there: its interpreter (#!) or dynamic linker")
    } else {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        format!("exec: {name:?}: {text}")
    };
    StartFailure { errno: error.raw_os_error().unwrap_or_default(), message }
}

fn watch(place: &Place, terms: &Terms, begun: &Begun) -> ExitCode {
    let told = Arc::new(AtomicU64::new(0));
    let (done, telling) = mpsc::channel();
    thread::spawn({
        let (place, told, started) = (place.clone(), told.clone(), begun.started.clone());
        move || {
            tell::answer(&Frame::Started(started));
            let heard = matches!(tell::tell(&place, [0, 0], &told), Ok(tell::Told::Exited(_)));
            let _ = done.send(heard);
        }
    });
    let (over, ends) = mpsc::channel::<()>();
    let deadline = terms.timeout_seconds.map(|seconds| {
        let (place, grace) = (place.clone(), Duration::from_secs(terms.grace_seconds));
        thread::spawn(move || {
            if ends.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
                // Ended in any case; who asked for it is told where that can be written.
                let _ = stop::ask(&place, StopReason::Timeout);
                stop::end(&place, grace);
            }
        })
    });
    let status = await_program(&begun.started);
    let finished_us = clock::now_us();
    let elapsed = begun.at.elapsed();
    drop(over);
    let stopped = disk::read_stopped(place);
    if stopped.is_some() {
        stop::end_children(place);
    }
    let exit = Exit {
        started_us: begun.started.at_us,
        finished_us,
        elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        end: status,
        stdout_bytes: disk::length(place, Stream::Stdout),
        stderr_bytes: disk::length(place, Stream::Stderr),
        stopped,
    };
    // Room was kept for it. Where even that does not help, it is tried as long as somebody may make room.
    while disk::note(place, file::EXIT, &exit).is_err() {
        thread::sleep(Duration::from_secs(1));
    }
    disk::sync_end(place, &exit);
    let is_silent = exit.stdout_bytes + exit.stderr_bytes == 0;
    if await_telling(&telling, &told) && (is_silent || tell::await_stored()) {
        // What cannot be removed stays.
        let _ = disk::remove_logs(place);
    }
    if let Some(deadline) = deadline {
        // Where it has come, the program's children may need longer than the program.
        let _ = deadline.join();
    }
    exit_code(status.exit_code())
}

/// Collects every child that ends, orphans too, until the program itself has ended.
fn await_program(started: &Started) -> End {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == started.program.pid => {
                return end(status);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // There is no child that could be waited for.
            Err(_) => return End::Code(255),
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

/// Waits until everything is told, unless nobody takes it. True where the end was taken.
fn await_telling(telling: &mpsc::Receiver<bool>, told: &AtomicU64) -> bool {
    let mut before = told.load(Ordering::Relaxed);
    loop {
        match telling.recv_timeout(STILL) {
            Ok(heard) => return heard,
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                let now = told.load(Ordering::Relaxed);
                if now == before {
                    return false;
                }
                before = now;
            }
        }
    }
}

/// The supervisor ends as the program did.
pub(crate) fn exit_code(code: i64) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}
