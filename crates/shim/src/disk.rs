//! What lies on the container's disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};

use oncelet_shim::{Claim, Exit, Place, ROOM, Record, Started, Stopped, file};
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{limits, process, spool};

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
    spool::remove(place)?;
    ignore_absence(fs::remove_dir_all(place.gate()))?;
    sync(&place.container_dir())
}

pub(crate) fn ignore_absence(result: io::Result<()>) -> io::Result<()> {
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

/// More than [`Stopped`] ever takes.
const STOP_ROOM: usize = 256;

/// The file of the end, with [`ROOM`] that is kept for it before the program is started, so that a program which fills the disk
/// cannot lose its own outcome.
pub(crate) struct ReservedEnd {
    file: File,
    text: Vec<u8>,
}

impl ReservedEnd {
    /// The room is taken as soon as it is written, synced or not.
    pub(crate) fn make(place: &Place) -> io::Result<Self> {
        limits::check_size(ROOM)?;
        let mut file = private().write(true).create(true).truncate(true).open(unfinished(place, file::EXIT))?;
        let text = limits::touched(ROOM);
        file.write_all(&text)?;
        // So that a program which has filled the disk can be stopped.
        fs::write(unfinished(place, file::STOP), [b' '; STOP_ROOM])?;
        Ok(Self { file, text })
    }

    /// Records the end. It is not on the disk yet: a power failure may take it, or leave it empty.
    pub(crate) fn write(&mut self, place: &Place, exit: &Exit) -> io::Result<()> {
        self.text.clear();
        serde_json::to_writer(&mut self.text, exit)?;
        self.text.push(b'\n');
        let length = self.text.len();
        // What was reserved is overwritten in place. Should it not be possible to cut it off after, spaces change nothing.
        self.text.resize(length.max(ROOM), b' ');
        self.file.write_all_at(&self.text, 0)?;
        let _ = self.file.set_len(length as u64);
        fs::rename(unfinished(place, file::EXIT), format!("{}/{}", place.gate(), file::EXIT))?;
        let _ = fs::remove_file(unfinished(place, file::STOP));
        Ok(())
    }
}

/// Proves that a record can be written where those of runs are.
pub(crate) fn prove_room(place: &Place) -> io::Result<()> {
    let path = format!("{}/.probe-{}", place.container_dir(), std::process::id());
    let proof = limits::check_size(ROOM).and_then(|()| {
        let mut file = private().write(true).create_new(true).open(&path)?;
        // The claim, and what is kept for the end.
        let written = file.write_all(&[b' '; ROOM]);
        written.and_then(|()| match limits::free_space(&path) {
            Some(free) if free < ROOM as u64 => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        })
    });
    ignore_absence(fs::remove_file(&path))?;
    proof
}

fn unfinished(place: &Place, name: &str) -> String {
    format!("{}/.{name}", place.gate())
}

/// Writes the claim. When this returns the disk has it, and the gate.
///
/// All is synced at the end: most filesystems write everything that was changed with the first sync, and the others cost nothing then.
pub(crate) fn write_claim(place: &Place, claim: &Claim) -> io::Result<()> {
    write(place, file::CLAIM, claim)?;
    sync(&place.container_dir())
}

/// Writes a part of the record: whole or not at all, and on the disk when this returns.
pub(crate) fn write<T: Serialize>(place: &Place, name: &str, value: &T) -> io::Result<()> {
    note(place, name, value)?;
    sync(&format!("{}/{name}", place.gate()))?;
    sync(&place.gate())
}

/// The same, but not on the disk yet: a power failure may take it, or leave it empty.
pub(crate) fn note<T: Serialize>(place: &Place, name: &str, value: &T) -> io::Result<()> {
    let path = unfinished(place, name);
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    limits::check_size(text.len())?;
    // Not truncated: what was reserved is overwritten in place, and cut off after.
    let mut file = private().write(true).create(true).truncate(false).open(&path)?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    fs::rename(&path, format!("{}/{name}", place.gate()))
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

/// Waits until the disk has a file or a directory.
pub(crate) fn sync(path: &str) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes the output of ended runs.
pub(crate) fn clean(places: &[Place]) -> Result<(), String> {
    for place in places.iter().filter(|place| read_exit(place).is_some()) {
        spool::remove(place).map_err(|error| format!("{}: {error}", place.gate()))?;
    }
    Ok(())
}

/// Removes all of runs that are over. One that cannot be removed keeps no other; the first of them is told.
pub(crate) fn forget(places: &[Place]) -> Result<(), String> {
    places.iter().map(forget_one).fold(Ok(()), Result::and)
}

fn forget_one(place: &Place) -> Result<(), String> {
    let record = read_record(place);
    if is_claimed(place) && record.exit.is_none() && process::somebody_lives(&record) {
        return Err("the program still runs; stop it first".to_owned());
    }
    remove_gate(place).map_err(|error| format!("{}: {error}", place.gate()))
}
