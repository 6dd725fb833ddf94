//! What lies on the container's disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};

use oncelet_shim::{Claim, Exit, Owners, Place, ROOM, Record, Started, Stopped, file};
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{home, limits, process, spool};

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
    home::remove_dir(&place.gate())?;
    sync(&place.home())
}

pub(crate) fn ignore_absence(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    // The program may write where its record is: its links are not followed, and its FIFOs not waited for.
    options.mode(0o600).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
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
        let mut file = private().write(true).create_new(true).open(unfinished(place, file::EXIT))?;
        let text = limits::touched(ROOM);
        file.write_all(&text)?;
        // So that a program which has filled the disk can be stopped.
        let mut stop = private().write(true).create_new(true).open(unfinished(place, file::STOP))?;
        stop.write_all(&[b' '; STOP_ROOM])?;
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
        self.put_in_place(place)?;
        let _ = fs::remove_file(unfinished(place, file::STOP));
        Ok(())
    }

    /// Gives the file its name.
    fn put_in_place(&self, place: &Place) -> io::Result<()> {
        let (unfinished, path) = (unfinished(place, file::EXIT), format!("{}/{}", place.gate(), file::EXIT));
        let (named, ours) = (fs::symlink_metadata(&unfinished)?, self.file.metadata()?);
        if (named.dev(), named.ino()) != (ours.dev(), ours.ino()) {
            return Err(ErrorKind::NotFound.into());
        }
        match fs::rename(&unfinished, &path) {
            // A directory that the program has made there.
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                fs::rename(&path, format!("{path}.foreign"))?;
                fs::rename(&unfinished, &path)
            }
            renamed => renamed,
        }
    }
}

/// Whether the program has made a mess of its record, so that there is no place for its end and there will be none.
pub(crate) fn is_spoilt(error: &io::Error) -> bool {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(
        error.kind(),
        AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory | NotFound | PermissionDenied
    )
}

/// Proves that a record can be written where those of runs are.
pub(crate) fn prove_room(place: &Place) -> io::Result<()> {
    let path = format!("{}/.probe-{}", place.home(), std::process::id());
    let proof = limits::check_size(ROOM).and_then(|()| {
        let mut file = private().write(true).create_new(true).open(&path)?;
        // The claim, and what is kept for the end.
        let written = file.write_all(&vec![b' '; ROOM]);
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
    sync(&place.home())
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
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{path} is no regular file")));
    }
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    fs::rename(&path, format!("{}/{name}", place.gate()))
}

fn read<T: DeserializeOwned>(place: &Place, name: &str) -> Option<T> {
    let text = home::read(&format!("{}/{name}", place.gate()))?;
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

/// Whether the gate is there.
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
        ..Record::default()
    }
}

/// Waits until the disk has a file or a directory.
pub(crate) fn sync(path: &str) -> io::Result<()> {
    private().read(true).open(path)?.sync_all()
}

/// Writes the list of what is not root's in the directory of the container.
pub(crate) fn list(place: &Place, owners: &Owners) -> io::Result<()> {
    let unfinished = format!("{}.new", place.owners());
    let mut file = private().write(true).create(true).truncate(true).open(&unfinished)?;
    file.write_all(&serde_json::to_vec(owners)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, place.owners())?;
    sync(&place.root)
}

/// Removes the output of ended runs.
pub(crate) fn clean(places: &[Place]) -> Result<(), String> {
    for place in places {
        let Some(place) = home::find(place)? else { continue };
        if read_exit(&place).is_some() {
            spool::remove(&place).map_err(|error| format!("{}: {error}", place.gate()))?;
        }
    }
    Ok(())
}

/// Removes all of runs that are over. One that cannot be removed keeps no other; the first of them is told.
pub(crate) fn forget(places: &[Place]) -> Result<(), String> {
    places.iter().map(forget_one).fold(Ok(()), Result::and)
}

/// Removes all of a run that is over: of this user, and what other users made in root's place.
fn forget_one(place: &Place) -> Result<(), String> {
    for place in [place.of(0), home::mine(place)] {
        if home::look(&place) == home::Gate::Open {
            if home::me() == place.user {
                home::clear_gate(&place)?;
            }
            continue;
        }
        let record = read_record(&place);
        if record.exit.is_none() && process::somebody_lives(&record) {
            return Err("the program still runs; stop it first".to_owned());
        }
        match remove_gate(&place) {
            // What is left is for root's supervisor to move away.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && place != home::mine(&place) => {}
            removed => removed.map_err(|error| format!("{}: {error}", place.gate()))?,
        }
    }
    Ok(())
}
