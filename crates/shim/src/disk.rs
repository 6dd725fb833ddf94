//! What lies on the container's disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use oncelet_shim::{Claim, Exit, Place, Record, Started, Stopped, Stream, file};
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::process;

/// Room that is kept for the record of the end before the program is started, so that a program which fills the disk cannot
/// lose its own outcome.
const ROOM: usize = 4096;

/// Makes the gate. False where somebody else has. It is not on the disk yet: see [`write_claim`].
pub(crate) fn make_gate(place: &Place) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(place.gate()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the gate again: nothing was started behind it.
pub(crate) fn remove_gate(place: &Place) -> io::Result<()> {
    for stream in Stream::ALL {
        ignore_absence(fs::remove_file(place.log(stream)))?;
    }
    ignore_absence(fs::remove_dir_all(place.gate()))?;
    sync_dir(&place.container_dir())
}

fn ignore_absence(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Others may write in the container's directory: a link of theirs is not followed.
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Makes an empty log for the program to write to.
pub(crate) fn make_log(place: &Place, stream: Stream) -> io::Result<File> {
    private().append(true).create_new(true).open(place.log(stream))
}

/// Opens a log to read.
pub(crate) fn open_log(place: &Place, stream: Stream) -> io::Result<File> {
    private().read(true).open(place.log(stream))
}

/// Keeps [`ROOM`] for the end. The room is taken as soon as it is written, synced or not.
pub(crate) fn reserve_end(place: &Place) -> io::Result<()> {
    let mut reserved = private().write(true).create(true).truncate(true).open(unfinished(place, file::EXIT))?;
    reserved.write_all(&[b' '; ROOM])
}

fn unfinished(place: &Place, name: &str) -> String {
    format!("{}/.{name}", place.gate())
}

/// Writes the claim. When this returns the disk has it, and the gate.
///
/// All is synced at the end: most filesystems write everything that was changed with the first sync, and the others cost nothing then.
pub(crate) fn write_claim(place: &Place, claim: &Claim) -> io::Result<()> {
    write(place, file::CLAIM, claim)?;
    sync_dir(&place.container_dir())
}

/// Writes a part of the record: whole or not at all, and on the disk when this returns.
pub(crate) fn write<T: Serialize>(place: &Place, name: &str, value: &T) -> io::Result<()> {
    note(place, name, value)?;
    sync_file(place, name)?;
    sync_dir(&place.gate())
}

/// The same, but not on the disk yet: a power failure may take it, or leave it empty.
pub(crate) fn note<T: Serialize>(place: &Place, name: &str, value: &T) -> io::Result<()> {
    let path = unfinished(place, name);
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    // Not truncated: what was reserved is overwritten in place, and cut off after.
    let mut file = private().write(true).create(true).truncate(false).open(&path)?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    fs::rename(&path, format!("{}/{name}", place.gate()))
}

/// Waits until the disk has the end, and the output before it.
pub(crate) fn sync_end(place: &Place, exit: &Exit) {
    for (stream, bytes) in [(Stream::Stdout, exit.stdout_bytes), (Stream::Stderr, exit.stderr_bytes)] {
        if bytes > 0
            && let Ok(log) = open_log(place, stream)
        {
            let _ = log.sync_all();
        }
    }
    // Where the disk does not take it, whoever listens may still.
    let _ = sync_file(place, file::EXIT);
    let _ = sync_dir(&place.gate());
}

fn read<T: DeserializeOwned>(place: &Place, name: &str) -> Option<T> {
    let text = fs::read(format!("{}/{name}", place.gate())).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The end, once it is recorded.
pub(crate) fn read_exit(place: &Place) -> Option<Exit> {
    read(place, file::EXIT)
}

/// The start.
pub(crate) fn read_started(place: &Place) -> Option<Started> {
    read(place, file::STARTED)
}

/// Who asked for the end.
pub(crate) fn read_stopped(place: &Place) -> Option<Stopped> {
    read(place, file::STOP)
}

/// The claim.
pub(crate) fn read_claim(place: &Place) -> Option<Claim> {
    read(place, file::CLAIM)
}

/// Whether the run was claimed.
pub(crate) fn is_claimed(place: &Place) -> bool {
    fs::symlink_metadata(place.gate()).is_ok()
}

/// All that is recorded.
pub(crate) fn read_record(place: &Place) -> Record {
    Record {
        claim: read_claim(place),
        started: read_started(place),
        stopped: read_stopped(place),
        exit: read_exit(place),
    }
}

fn sync_file(place: &Place, name: &str) -> io::Result<()> {
    File::open(format!("{}/{name}", place.gate()))?.sync_all()
}

fn sync_dir(path: &str) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// How many bytes a log has.
pub(crate) fn length(place: &Place, stream: Stream) -> u64 {
    fs::symlink_metadata(place.log(stream)).map_or(0, |log| log.len())
}

/// Removes the logs of a run.
pub(crate) fn remove_logs(place: &Place) -> io::Result<()> {
    Stream::ALL.into_iter().try_for_each(|stream| ignore_absence(fs::remove_file(place.log(stream))))
}

/// Removes the logs of ended runs.
pub(crate) fn clean(places: &[Place]) -> Result<(), String> {
    for place in places.iter().filter(|place| read_exit(place).is_some()) {
        remove_logs(place).map_err(|error| format!("{}: {error}", place.gate()))?;
    }
    Ok(())
}

/// Removes all of a run that is over.
pub(crate) fn forget(place: &Place) -> Result<(), String> {
    let record = read_record(place);
    if is_claimed(place) && record.exit.is_none() && process::somebody_lives(&record) {
        return Err("the program still runs; stop it first".to_owned());
    }
    remove_gate(place).map_err(|error| format!("{}: {error}", place.gate()))
}
