//! Making a backup, also while daemons use the store.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use oncelet_core::RunId;
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use uuid::Uuid;

use super::{Backup, BackupError, DATABASE, FORGOTTEN, FORMAT, HEADER, Header, LogFile, SHA256};
use crate::connect;
use crate::dir::{self, StoreDir};
use crate::log::Stream;
use crate::open::MIN_FREE;
use crate::store::Store;

/// How hard the archive is compressed. Its logs are compressed already.
const LEVEL: i32 = 3;

impl Store {
    /// Writes a copy of the store to `file`: the state of one moment, also while daemons go on. An existing file is replaced
    /// only where `replace` says so, and only by a whole backup.
    ///
    /// # Guarantees
    /// The output that a run of the backup says it has is in the backup.
    pub async fn backup(&self, file: &Path, replace: bool, now: Timestamp) -> Result<Backup, BackupError> {
        refuse_existing(file, replace)?;
        let dir = self.dir().clone();
        let lock_path = dir.backup_lock();
        let lock = dir::private().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(BackupError::file(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy { lock: lock_path }),
            Err(TryLockError::Error(error)) => return Err(BackupError::file(&lock_path)(error)),
        }
        let snapshot = Snapshot::take(self, &dir).await?;
        let (header, logs) = snapshot.describe(now).await?;
        let runs = logs.iter().map(|(log, _)| log.run).collect::<BTreeSet<_>>().len() as u64;

        let new = Partial::create(file)?;
        let mut archive = Archive::new(new.file.try_clone().map_err(BackupError::file(file))?, now)?;
        let database = snapshot.0.clone();
        let logs_dir = dir.logs();
        let work = move || {
            let text = serde_json::to_vec_pretty(&header)?;
            archive.bytes(HEADER, &text)?;
            archive.file(DATABASE, &File::open(&database)?)?;
            let mut missing = Vec::new();
            for (log, expected) in logs {
                match File::open(logs_dir.join(log.name())) {
                    Ok(file) => archive.file(&format!("logs/{}", log.name()), &file)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound && expected => missing.push(log),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok((archive, missing))
        };
        let (mut archive, missing) = blocking(work).await.map_err(BackupError::file(file))?;
        let mut forgotten = BTreeSet::new();
        for log in missing {
            // A file that is missing for another reason is missing in the backup, too.
            if self.run(log.run).await?.is_none_or(|run| run.attempt != log.attempt) {
                forgotten.insert(log.run);
            }
        }
        let work = move || {
            archive.bytes(FORGOTTEN, &serde_json::to_vec(&forgotten)?)?;
            archive.end()?;
            Ok(forgotten.len() as u64)
        };
        let forgotten = blocking(work).await.map_err(BackupError::file(file))?;
        drop(snapshot);
        refuse_existing(file, replace)?;
        let bytes = new.commit().map_err(BackupError::file(file))?;
        Ok(Backup { runs: runs - forgotten, bytes })
    }
}

fn refuse_existing(file: &Path, replace: bool) -> Result<(), BackupError> {
    match fs::symlink_metadata(file) {
        Ok(_) if !replace => Err(BackupError::Exists { file: file.to_owned() }),
        Ok(found) if !found.is_file() => {
            Err(BackupError::file(file)(io::Error::other("it is there and is no regular file")))
        }
        _ => Ok(()),
    }
}

/// Runs file work where it does not hold up the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A copy of the database, gone when dropped. Only under the lock of backups.
struct Snapshot(PathBuf);

impl Snapshot {
    async fn take(store: &Store, dir: &StoreDir) -> Result<Self, BackupError> {
        let size = fs::metadata(dir.database()).map_err(BackupError::file(&dir.database()))?.len();
        let free = dir::free_bytes(dir.path()).map_err(BackupError::file(dir.path()))?;
        let needed = size.saturating_add(MIN_FREE);
        if free < needed {
            let mib = |bytes: u64| bytes / (1024 * 1024);
            let (needed_mib, free_mib) = (mib(needed), mib(free));
            return Err(BackupError::NoRoom { dir: dir.path().to_owned(), needed_mib, free_mib });
        }
        let snapshot = Self(dir.snapshot());
        // What a backup left that was killed.
        snapshot.remove();
        // Made here for its mode. SQLite takes an empty file for a new one.
        let made = dir::private().write(true).create_new(true).open(&snapshot.0);
        made.map_err(BackupError::file(&snapshot.0))?;
        // One read transaction: writers go on, and nothing of theirs is in it.
        sqlx::query("VACUUM INTO ?1").bind(snapshot.0.to_string_lossy()).execute(store.readers()).await?;
        Ok(snapshot)
    }

    /// What it is of, and the logs of its runs; with each, whether its file must be there.
    async fn describe(&self, now: Timestamp) -> Result<(Header, Vec<(LogFile, bool)>), BackupError> {
        let mut conn = connect::alone(&self.0).read_only(true).connect().await?;
        let described = describe(&mut conn, now).await;
        conn.close().await?;
        described
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.remove();
    }
}

async fn describe(conn: &mut SqliteConnection, now: Timestamp) -> Result<(Header, Vec<(LogFile, bool)>), BackupError> {
    let schema = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *conn).await?;
    let uuid: String = sqlx::query_scalar("SELECT uuid FROM store").fetch_one(&mut *conn).await?;
    let store = uuid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let rows: Vec<(i64, u32, Option<i64>, Option<i64>)> = sqlx::query_as(
        "SELECT run.id, run.attempt, out.kept, err.kept FROM run \
         LEFT JOIN log AS out ON out.run_id = run.id AND out.stream = 'stdout' \
         LEFT JOIN log AS err ON err.run_id = run.id AND err.stream = 'stderr' ORDER BY run.id",
    )
    .fetch_all(&mut *conn)
    .await?;
    let logs = rows.into_iter().flat_map(|(run, attempt, stdout, stderr)| {
        let log = move |stream, kept: Option<i64>| (LogFile { run: RunId(run), attempt, stream }, kept > Some(0));
        [log(Stream::Stdout, stdout), log(Stream::Stderr, stderr)]
    });
    let header =
        Header { format: FORMAT, oncelet: env!("CARGO_PKG_VERSION").to_owned(), schema, store, created_at: now };
    Ok((header, logs.collect()))
}

/// A file that takes its name when it is whole, and goes away if it never is.
struct Partial {
    file: File,
    path: PathBuf,
    name: PathBuf,
    whole: bool,
}

impl Partial {
    fn create(name: &Path) -> Result<Self, BackupError> {
        let Some(last) = name.file_name() else {
            return Err(BackupError::file(name)(io::Error::other("it names no file")));
        };
        // Its own each time: in a directory that others may write to, nothing of theirs is opened.
        let path = name.with_file_name(format!(".{}.{}.partial", last.to_string_lossy(), Uuid::new_v4().simple()));
        let file = dir::private().write(true).create_new(true).open(&path).map_err(BackupError::file(&path))?;
        Ok(Self { file, path, name: name.to_owned(), whole: false })
    }

    fn commit(mut self) -> io::Result<u64> {
        self.file.sync_all()?;
        let bytes = self.file.metadata()?.len();
        fs::rename(&self.path, &self.name)?;
        self.whole = true;
        dir::sync_parent(&std::path::absolute(&self.name)?)?;
        Ok(bytes)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The archive while it is written.
struct Archive {
    tar: tar::Builder<Hashed<zstd::Encoder<'static, File>>>,
    mtime: u64,
}

impl Archive {
    fn new(file: File, now: Timestamp) -> Result<Self, BackupError> {
        let encoder = || {
            let mut encoder = zstd::Encoder::new(file, LEVEL)?;
            encoder.include_checksum(true)?;
            Ok(encoder)
        };
        let encoder = encoder().map_err(BackupError::file(Path::new("zstd")))?;
        let mtime = u64::try_from(now.as_second()).unwrap_or_default();
        Ok(Self { tar: tar::Builder::new(Hashed { inner: encoder, hash: Sha256::new() }), mtime })
    }

    fn header(&self, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(size);
        header.set_mtime(self.mtime);
        header
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = self.header(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes)
    }

    /// Appends what a file has now. It may become longer meanwhile.
    fn file(&mut self, name: &str, file: &File) -> io::Result<()> {
        let size = file.metadata()?.len();
        if size == 0 {
            return Ok(());
        }
        let mut header = self.header(size);
        self.tar.append_data(&mut header, name, Exactly { inner: file, left: size })
    }

    fn end(mut self) -> io::Result<()> {
        let sum = self.tar.get_ref().hash.clone().finalize();
        self.bytes(SHA256, format!("{sum:x}\n").as_bytes())?;
        self.tar.into_inner()?.inner.finish()?.flush()
    }
}

/// Hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// So many bytes of a file, or an error: the archive says before them how many they are.
struct Exactly<'a> {
    inner: &'a File,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..room])?;
        self.left -= read as u64;
        if read == 0 && self.left > 0 && room > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was copied"));
        }
        Ok(read)
    }
}
