//! The store's directory: what lies where, who may read it, and which file systems can be trusted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oncelet_core::RunId;

use crate::OpenError;
use crate::error::{CORRUPT, FULL, NOTADB, READONLY, sqlite_code};
use crate::log::Stream;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct StoreDir(PathBuf);

impl StoreDir {
    /// The layout under `dir`, which need not exist.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        // Absolute: SQLite takes a name that begins with `file:` for a URI.
        std::path::absolute(dir).map(Self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The database. It is never opened or copied but by SQLite: closing it drops SQLite's own locks on it.
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("runs.db")
    }

    /// The database while it is being made.
    pub(crate) fn new_database(&self) -> PathBuf {
        self.0.join("runs.db.new")
    }

    /// The lock that writers take in turn.
    pub(crate) fn write_lock(&self) -> PathBuf {
        self.0.join("runs.lock")
    }

    /// The lock of those who do the work of this name, one of a few hundred.
    pub(crate) fn work_lock(&self, name: &str) -> PathBuf {
        self.0.join("work").join(format!("{}.lock", name.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31) ^ byte)))
    }

    /// The lock of whoever makes a backup.
    pub(crate) fn backup_lock(&self) -> PathBuf {
        self.0.join("backup.lock")
    }

    /// The copy of the database of which a backup is made.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.0.join("backup.db")
    }

    /// Where a store is put together that is to take the place of this one.
    pub(crate) fn staging(&self) -> Self {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self(self.0.with_file_name(format!("{name}.restoring")))
    }

    /// What tells which store the database must be.
    pub(crate) fn sidecar(&self) -> PathBuf {
        self.0.join("store.json")
    }

    /// Room for outcomes on a full disk.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }

    /// The locks of living daemons.
    pub(crate) fn owners(&self) -> PathBuf {
        self.0.join("owners")
    }

    /// The output of runs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The output of one try. A further try has a file of its own, so that nothing of a failed one is taken for it.
    pub(crate) fn log(&self, run: RunId, attempt: u32, stream: Stream) -> PathBuf {
        self.logs().join(format!("{run}-{attempt}.{stream}.zst"))
    }

    /// Makes the directories that are missing, readable by this user only.
    pub(crate) fn create(&self) -> io::Result<()> {
        [&self.0, &self.owners(), &self.logs()].into_iter().try_for_each(|dir| Self::create_private(dir))
    }

    /// Makes a directory, where it is missing, that only this user may read.
    pub(crate) fn create_private(dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    /// What an error of SQLite means for whoever opens the store.
    pub(crate) fn database_error(&self, source: sqlx::Error) -> OpenError {
        let path = self.database();
        match sqlite_code(&source) {
            Some(CORRUPT | NOTADB) => OpenError::Damaged { path, source },
            Some(READONLY) => OpenError::ReadOnly { dir: self.0.clone() },
            Some(FULL) => OpenError::DiskFull { dir: self.0.clone() },
            _ => OpenError::Database { path, source },
        }
    }

    /// What an error of the file system means for whoever opens the store.
    pub(crate) fn file_error(&self, path: impl Into<PathBuf>, source: io::Error) -> OpenError {
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                OpenError::ReadOnly { dir: self.0.clone() }
            }
            io::ErrorKind::StorageFull => OpenError::DiskFull { dir: self.0.clone() },
            _ => OpenError::File { path: path.into(), source },
        }
    }
}

/// Makes a directory that only this user may read, where it is missing.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Options for a file that only this user may read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Replaces a file, durably and in one step.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = private().write(true).create(true).truncate(true).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_parent(path)
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the entries of `path` and of all directories above it durable, as far as this user may open them: those that
/// were just made it may.
pub(crate) fn sync_ancestors(path: &Path) {
    for ancestor in path.ancestors() {
        let _ = sync_parent(ancestor);
    }
}

/// How many bytes this user may still write to the disk that holds `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The name of the file system that holds `path`, where locks and syncs cannot be trusted on it.
#[cfg(target_os = "linux")]
pub(crate) fn untrusted_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    let magic = rustix::fs::statfs(path)?.f_type;
    // The kernel's constants have 32 bits; the field's width and sign differ between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are the number")]
    Ok(untrusted_magic(magic as u32))
}

/// Other systems have no numbers to go by.
#[cfg(not(target_os = "linux"))]
pub(crate) fn untrusted_filesystem(_path: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

#[cfg(target_os = "linux")]
fn untrusted_magic(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => Some("SMB"),
        // Also virtiofs, which shows itself as FUSE.
        0x6573_5546 => Some("FUSE or virtiofs"),
        0x0102_1997 => Some("9P"),
        0x5346_414F | 0x6B41_4653 => Some("AFS"),
        0x00C3_6400 => Some("Ceph"),
        0x0BD0_0BD0 => Some("Lustre"),
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_named_and_local_ones_are_trusted() {
        assert_eq!(untrusted_magic(0x6969), Some("NFS"));
        assert_eq!(untrusted_magic(0xFF53_4D42), Some("SMB"));
        assert_eq!(untrusted_magic(0x6573_5546), Some("FUSE or virtiofs"));
        // ext4, btrfs, xfs, overlayfs, tmpfs.
        for local in [0xEF53, 0x9123_683E, 0x5846_5342, 0x794C_7630, 0x0102_1994] {
            assert_eq!(untrusted_magic(local), None);
        }
    }
}
