//! Changing a file that others change too, as the clients of Kubernetes do: under a lock, and whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

/// How long another program may hold the lock: kubectl takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// What our locks hold, which tells them from those of others.
const MARK: &[u8] = b"oncelet\n";
/// As many links as Linux follows.
const LINKS: usize = 40;
/// A kubeconfig is smaller.
const SIZE: u64 = 16 * 1024 * 1024;

/// Replaces the content of a file by what `change` makes of it, which may be nothing. Returns whether it wanted to.
///
/// Links are followed. The file keeps its owner, and is for that owner alone from then on. Waits for the lock; not for use where
/// nothing may wait.
pub(super) fn edit(path: &Path, change: impl FnOnce(&str) -> Result<Option<String>, String>) -> Result<bool, Error> {
    let fail = |source| Error::Kubeconfig { path: path.to_owned(), source };
    let real = follow(path).map_err(fail)?;
    for place in [path, &real] {
        if let Some(parent) = place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(fail)?;
        }
    }
    if fs::metadata(&real).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(fail(io::Error::other("it is not a regular file")));
    }
    // Others lock the name that they were given.
    let _locks =
        [Some(Lock::take(path).map_err(fail)?), (real != path).then(|| Lock::take(&real)).transpose().map_err(fail)?];
    let old = read(&real).map_err(fail)?;
    let text = old.as_ref().map_or("", |(text, _)| text);
    let new = change(text).map_err(|why| Error::ForeignKubeconfig { path: path.to_owned(), why })?;
    let Some(new) = new else { return Ok(false) };
    if new != text || old.as_ref().is_none_or(|(_, metadata)| metadata.mode() & 0o077 != 0) {
        replace(&real, &new, old.map(|(_, metadata)| metadata)).map_err(fail)?;
    }
    Ok(true)
}

/// What a path leads to in the end, whether that is there or not.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&at) {
            Ok(target) => at = at.parent().unwrap_or(Path::new("")).join(target),
            // It is there and no link, or not there.
            Err(_) => return Ok(at),
        }
    }
    Err(io::Error::other("it is a link that leads to itself"))
}

fn read(path: &Path) -> io::Result<Option<(String, fs::Metadata)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.take(SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE {
        return Err(io::Error::other("it is too large for a kubeconfig"));
    }
    Ok(Some((text, metadata)))
}

fn replace(path: &Path, text: &str, old: Option<fs::Metadata>) -> io::Result<()> {
    let temporary = beside(path, "new")?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        if let Some(old) = old {
            let own = file.metadata()?;
            if own.uid() != old.uid() {
                let changed = fchown(&file, Some(old.uid()), Some(old.gid()));
                changed.map_err(|_| io::Error::other(format!("it belongs to another user (UID {})", old.uid())))?;
            }
            // What others could do with it they cannot any more: there is a token in it.
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o700 | 0o600))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A file of nobody's beside another one.
fn beside(path: &Path, what: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(path.with_file_name(format!(".{}.{}.{what}", name.to_string_lossy(), uuid::Uuid::new_v4().simple())))
}

/// The lock of a kubeconfig: a file that is made by whoever has it, as `kubectl config` does. Ours is locked besides, so that one
/// of a process that was killed is known.
struct Lock {
    path: PathBuf,
    _held: File,
}

impl Lock {
    fn take(path: &Path) -> io::Result<Self> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        // Made under another name: nobody may find it before it is locked.
        let temporary = beside(path, "lock")?;
        let mut held = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let taken = held.lock().and_then(|()| held.write_all(MARK)).and_then(|()| link(&temporary, &lock));
        let _ = fs::remove_file(&temporary);
        taken.map(|()| Self { path: lock, _held: held })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives the file `from` the name `to`, once nobody else has that.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match fs::hard_link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        if clear(to) {
            continue;
        }
        if waited >= PATIENCE {
            let why = format!("another program holds its lock; if none does, remove {}", to.display());
            return Err(io::Error::other(why));
        }
        std::thread::sleep(PAUSE);
        waited = waited.saturating_add(PAUSE);
    }
}

/// Removes a lock of ours whose process was killed. Whether there was one.
fn clear(lock: &Path) -> bool {
    let Ok(mut file) = File::open(lock) else { return false };
    let mut mark = Vec::new();
    let is_ours = Read::by_ref(&mut file).take(64).read_to_end(&mut mark).is_ok() && mark == MARK;
    if !is_ours || file.try_lock().is_err() {
        return false;
    }
    // Whoever was faster has put another one there.
    let is_it =
        fs::metadata(lock).ok().zip(file.metadata().ok()).is_some_and(|(there, this)| there.ino() == this.ino());
    is_it && fs::remove_file(lock).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_a_killed_process_is_cleared_and_another_programs_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lock) = (dir.path().join("config"), dir.path().join("config.lock"));
        fs::write(&lock, MARK).unwrap();
        assert!(edit(&path, |_| Ok(Some("a".to_owned()))).unwrap());
        assert!(!lock.exists());
        // As kubectl makes one.
        OpenOptions::new().write(true).create_new(true).mode(0o000).open(&lock).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || edit(&path, |_| Ok(Some("b".to_owned())))
        });
        assert!(!clear(&lock));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a");
        fs::remove_file(&lock).unwrap();
        assert!(writer.join().unwrap().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
    }
}
