//! Whose is what in the directories of runs: what counts is what nobody but root and this process's user can have made.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oncelet_shim::{LARGEST_PART, Owners, Place};

use crate::disk;

/// Root may do everything in any case.
const ROOT: u32 = 0;
/// Others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The user that this process is.
pub(crate) fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The place of a run among those of this process's user.
pub(crate) fn mine(place: &Place) -> Place {
    place.of(me())
}

/// What is where a gate would be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing, or what belongs to another user, who can have made it up to version 2.
    Open,
    /// A gate that counts.
    Closed,
    /// Something of root's or of this user's that is no gate.
    Unsound(String),
}

/// Makes sure that nobody else can make or remove anything in the directory of this user's runs.
pub(crate) fn check(place: &Place) -> Result<(), String> {
    let mut dirs = vec![place.root.clone(), place.container_dir(), place.home()];
    dirs.dedup();
    for dir in dirs {
        let found = fs::symlink_metadata(&dir).map_err(|error| format!("{dir}: {error}"))?;
        sound(&dir, &found)?;
    }
    Ok(())
}

/// Whether this is a real directory that only root and this user can write to.
fn sound(path: &str, found: &Metadata) -> Result<(), String> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if !found.is_dir() {
        return Err(format!("{path} is {}, not a directory", kind(found)));
    }
    if !is_trusted(owner) {
        return Err(format!("{path} belongs to user {owner}, not to user {} or root", me()));
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("{path} can be written to by other users (mode {mode:04o})"));
    }
    Ok(())
}

fn is_trusted(owner: u32) -> bool {
    owner == ROOT || owner == me()
}

/// What a file is, for people.
fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_file() => "a file",
        () => "a device",
    }
}

/// What is at the place of a gate.
pub(crate) fn look(place: &Place) -> Gate {
    let gate = place.gate();
    let found = match fs::symlink_metadata(&gate) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Gate::Open,
        Err(error) => return Gate::Unsound(format!("{gate}: {error}")),
    };
    if !is_trusted(found.uid()) {
        return Gate::Open;
    }
    match sound(&gate, &found) {
        Ok(()) => Gate::Closed,
        Err(problem) => Gate::Unsound(format!("{problem}, so it is no record of a run")),
    }
}

/// Whether the run was claimed, by this user or by root.
pub(crate) fn gate(place: &Place) -> Gate {
    match look(&place.of(ROOT)) {
        Gate::Open if place.user != ROOT => look(place),
        found => found,
    }
}

/// The place of a run that was claimed, among root's runs or among those of this user.
pub(crate) fn find(place: &Place) -> Result<Option<Place>, String> {
    for place in [place.of(ROOT), mine(place)] {
        match look(&place) {
            Gate::Open => {}
            Gate::Closed => return Ok(Some(place)),
            Gate::Unsound(problem) => return Err(problem),
        }
    }
    Ok(None)
}

/// How many gates of others are listed: their names and numbers fit into [`LARGEST_PART`].
const MOST_OWNERS: usize = 4000;

/// Lists what is not root's in the directory of the container. What cannot be a gate of a version in which everybody could write
/// there, and what is too much, is moved away.
pub(crate) fn survey(place: &Place) -> Result<(), String> {
    check(place)?;
    if place.user != ROOT {
        return Err(format!("user {} is not root, and cannot say what in {} is root's", me(), place.container_dir()));
    }
    let wrong = |error: io::Error| format!("{}: {error}", place.container_dir());
    let mut owners = Owners::new();
    for entry in fs::read_dir(place.container_dir()).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let owner = entry.metadata().map_err(wrong)?.uid();
        let name = entry.file_name().into_string().ok();
        let is_home = name.as_ref().is_some_and(|name| name.parse() == Ok(owner));
        if owner == ROOT || is_home {
            continue;
        }
        match name.filter(|name| owners.len() < MOST_OWNERS && is_of_run(name)) {
            Some(name) => drop(owners.insert(name, owner)),
            None => clear(&entry.path().to_string_lossy()).map_err(wrong)?,
        }
    }
    disk::list(place, &owners).map_err(wrong)
}

/// Moves away what another user has put in the place of a gate, also from the list of what is not root's: the next gate there is.
pub(crate) fn clear_gate(place: &Place) -> Result<(), String> {
    let gate = place.gate();
    clear(&gate).map_err(|error| format!("{gate}: {error}"))?;
    let listed = || serde_json::from_slice::<Owners>(&read(&place.owners())?).ok();
    let is_listed = || listed().is_some_and(|owners| owners.contains_key(&place.run));
    if place.user == ROOT && is_listed() { survey(place) } else { Ok(()) }
}

/// Whether a name is that of a gate or of what lies beside it.
fn is_of_run(name: &str) -> bool {
    name.len() <= 64 && name.split('.').next().is_some_and(|run| run.parse::<u32>().is_err())
}

/// Moves away what another user has put where this user's supervisor is to make something: up to version 2 everybody could.
pub(crate) fn clear(path: &str) -> io::Result<()> {
    let is_foreign = || fs::symlink_metadata(path).is_ok_and(|found| !is_trusted(found.uid()));
    let mut number = 0_u32;
    while is_foreign() {
        let aside = format!("{path}.foreign{number}");
        if Path::new(&aside).symlink_metadata().is_err() {
            fs::rename(path, aside)?;
        }
        number += 1;
    }
    Ok(())
}

/// Reads a part of a record, if it is one: a regular file of root's or of this user, of a bounded size. Never waits.
pub(crate) fn read(path: &str) -> Option<Vec<u8>> {
    let file = open(path)?;
    let mut text = Vec::new();
    file.take(LARGEST_PART + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= LARGEST_PART).then_some(text)
}

/// Opens a regular file of root's or of this user to be read.
pub(crate) fn open(path: &str) -> Option<File> {
    let file = disk::private().read(true).open(path).ok()?;
    let found = file.metadata().ok()?;
    (found.is_file() && is_trusted(found.uid())).then_some(file)
}

/// Removes a directory of runs with the files in it. What else is in it nobody made who was to, and it is not looked into.
pub(crate) fn remove_dir(path: &str) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        let removed = if is_dir { fs::remove_dir(entry.path()) } else { fs::remove_file(entry.path()) };
        disk::ignore_absence(removed).map_err(|error| {
            let what = if is_dir { "the directory " } else { "" };
            io::Error::new(error.kind(), format!("{what}{}: {error}", entry.path().display()))
        })?;
    }
    disk::ignore_absence(fs::remove_dir(path))
}
