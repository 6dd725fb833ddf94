//! Claims a run, starts its program and watches over it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use oncelet_shim::frame::{Frame, Message};
use oncelet_shim::{Claim, ORDER_VARIABLE, Place, StartFailure, Started, StdinDigest, Stream, VERSION, file};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::children::Children;
use crate::intake::Intake;
use crate::listener::answer;
use crate::spool::Spool;
use crate::stdin::{self, NotTaken};
use crate::teller::Teller;
use crate::watch::{Prepared, watch};
use crate::{clock, disk, home, limits, process};

/// How many descriptors are kept free for what is opened while the program runs: segments of the spool, and what tells who is
/// left of it.
const SPARE: usize = 6;

/// What a run is to be like.
pub(crate) struct Terms {
    pub(crate) nonce: String,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) grace_seconds: u64,
    pub(crate) stdin: Option<StdinDigest>,
    pub(crate) log_limit: Option<u64>,
    pub(crate) description: serde_json::Value,
}

/// # Guarantees
/// The claim is on the disk before the program is started. Its end is in the record before anybody is told, and on the disk
/// right after: whoever is told puts it on a disk of its own before it tells others, and waiting for two disks in turn makes
/// neither safer.
pub(crate) fn run(place: &Place, terms: &Terms, command: &[OsString]) -> Result<ExitCode, String> {
    let Some((program, args)) = command.split_first() else { return Err("the order names no program".to_owned()) };
    home::check(place)?;
    if is_refused(place)? {
        return Ok(ExitCode::SUCCESS);
    }
    home::clear_gate(place)?;
    let wrong = |what: &str, error: io::Error| format!("{what} {}: {error}", place.gate());
    let input = match terms.stdin.as_ref().map(|wanted| taken(place, wanted)).transpose()? {
        Some(Taken::Input(input)) => Some(input),
        Some(Taken::Answered) => return Ok(ExitCode::SUCCESS),
        None => None,
    };
    if !disk::make_gate(place).map_err(|error| wrong("the claim cannot be made at", error))? {
        // Made just now: it is a gate, or nothing is started.
        return if is_refused(place)? {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(format!("{} comes and goes", place.gate()))
        };
    }
    let begun = match begin(place, terms, program, args, input) {
        Ok(begun) => begun,
        Err(error) => {
            // Nothing was started: the next one may try.
            disk::remove_gate(place).map_err(|error| wrong("the claim cannot be taken back at", error))?;
            return match error {
                NotBegun::Failed(failure) => {
                    answer(&Frame::FailedToStart(failure));
                    Ok(ExitCode::from(127))
                }
                NotBegun::NoPlace(error) => Err(wrong("the record cannot be written at", error)),
            };
        }
    };
    Ok(watch(place, terms, begun.started, begun.at, begun.prepared))
}

/// Whether the run was claimed, which is said then: before whoever comes too late has sent the program's stdin.
fn is_refused(place: &Place) -> Result<bool, String> {
    match home::gate(place) {
        home::Gate::Open => Ok(false),
        home::Gate::Closed => {
            answer(&Frame::Refused);
            Ok(true)
        }
        home::Gate::Unsound(problem) => {
            Err(format!("{problem}, and nothing was started. Whoever made it has to remove it"))
        }
    }
}

enum Taken {
    Input(File),
    /// Nothing is to be started, and that was said.
    Answered,
}

/// Takes the program's input before the run is claimed.
fn taken(place: &Place, wanted: &StdinDigest) -> Result<Taken, String> {
    match stdin::take(place, wanted) {
        Ok(input) => Ok(Taken::Input(input)),
        Err(NotTaken::Incomplete(message)) => {
            answer(&Frame::StdinIncomplete(Message { message }));
            Ok(Taken::Answered)
        }
        Err(NotTaken::NoPlace(message)) => Err(message),
    }
}

/// A program that runs.
struct Begun {
    started: Started,
    at: Instant,
    prepared: Prepared,
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
    let (prepared, outputs) = prepare(place, terms)?;
    let spare = limits::reserve_descriptors(SPARE)?;
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
    limits::warm_heap();
    let [stdout, stderr] = outputs;
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
            drop(spare);
            limits::raise_descriptors();
            let started = Started { at_us, program: process::identify(child.id()) };
            // The end tells the start, too; this file helps whoever looks before it.
            let _ = disk::note(place, file::STARTED, &started);
            Ok(Begun { started, at, prepared })
        }
        Err(error) => Err(NotBegun::Failed(failure(program, &error))),
    }
}

/// Has all in place that is needed once the program runs. Gives back also where the program is to write.
fn prepare(place: &Place, terms: &Terms) -> io::Result<(Prepared, [OwnedFd; 2])> {
    let spool = Spool::make(place)?;
    let end = disk::ReservedEnd::make(place)?;
    let (stdout, stdout_writer) = output_pipe()?;
    let (stderr, stderr_writer) = output_pipe()?;
    let prepared = Prepared {
        children: Children::watch()?,
        intakes: [
            Intake::new(Stream::Stdout, stdout, terms.log_limit),
            Intake::new(Stream::Stderr, stderr, terms.log_limit),
        ],
        spool,
        teller: Teller::new(place, [0, 0]),
        end,
        scratch: Prepared::scratch(),
    };
    Ok((prepared, [stdout_writer, stderr_writer]))
}

/// A pipe that is read without waiting.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
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

/// The supervisor ends as the program did.
pub(crate) fn exit_code(code: i64) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}
