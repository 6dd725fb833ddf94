//! A store from a backup.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use jiff::Timestamp;
use oncelet_core::RunId;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::{BackupError, Unpacked, read};
use crate::change::Forget;
use crate::connect::{self, SCHEMA};
use crate::dir::StoreDir;
use crate::lock::WriteLock;
use crate::owner;
use crate::row::{StoredRun, select_run};
use crate::sidecar::Sidecar;
use crate::store::Store;
use crate::writer::Change;

/// What tells a directory that is being filled from a store.
const INCOMPLETE: &str = "incomplete";

/// A store that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was made.
    pub made_at: Timestamp,
    /// How many runs are in it.
    pub runs: u64,
    /// How many of them were not over.
    pub open: u64,
    /// Where the store is that was there before.
    pub replaced: Option<PathBuf>,
}

/// Puts the store of the backup `file` into `dir`. A store there that has runs is replaced only where `replace` says so; whatever
/// is there is moved aside, whole.
///
/// # Guarantees
/// - Everything is checked before anything is replaced, and it is replaced in one step.
/// - A store that a daemon uses is never replaced.
pub async fn restore(file: &Path, dir: &Path, replace: bool, now: Timestamp) -> Result<Restored, BackupError> {
    let dir = StoreDir::new(dir).map_err(BackupError::file(dir))?;
    // What can be refused at once.
    refuse_in_use(&dir).await?;
    refuse_runs(&dir, replace).await?;
    let new = Staging::begin(&dir, now)?;
    let unpacked = {
        let (file, new) = (file.to_owned(), new.dir.clone());
        let work = tokio::task::spawn_blocking(move || read::unpack(&file, &new)).await;
        work.map_err(|error| BackupError::file(dir.path())(io::Error::other(error)))??
    };
    let mut restored = check(file, &unpacked).await?;
    let sidecar = Sidecar { uuid: unpacked.header.store, creating: false };
    new.finish(&sidecar)?;
    // Nobody opens the store from here on.
    let lock = match fs::metadata(dir.path()) {
        Ok(_) => Some(WriteLock::acquire(&dir).await?),
        Err(_) => None,
    };
    refuse_in_use(&dir).await?;
    refuse_runs(&dir, replace).await?;
    restored.replaced = new.take_place(&dir, lock.is_some(), now)?;
    drop(lock);
    Ok(restored)
}

/// Refuses a store that somebody alive may write to.
async fn refuse_in_use(dir: &StoreDir) -> Result<(), BackupError> {
    let alive = owner::alive(&dir.owners()).map_err(BackupError::file(&dir.owners()))?;
    let Some(owner) = alive.first() else { return Ok(()) };
    let (mut pid, mut host) = ("unknown".to_owned(), "this machine".to_owned());
    // Only for the words: the store may be one that cannot be read.
    if let Ok(store) = Store::open_reader(dir.path()).await {
        let found: Result<Option<(i64, String)>, _> = sqlx::query_as("SELECT pid, host FROM owner WHERE uuid = ?1")
            .bind(owner.to_string())
            .fetch_optional(store.readers())
            .await;
        if let Ok(Some((number, name))) = found {
            (pid, host) = (number.to_string(), name);
        }
        store.close().await;
    }
    Err(BackupError::InUse { dir: dir.path().to_owned(), pid, host })
}

/// Refuses a store that has runs, or of which that cannot be told, unless it is to be replaced.
async fn refuse_runs(dir: &StoreDir, replace: bool) -> Result<(), BackupError> {
    if replace {
        return Ok(());
    }
    let refuse = |what: String| Err(BackupError::NotEmpty { dir: dir.path().to_owned(), what });
    let is_empty = match fs::read_dir(dir.path()) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(BackupError::file(dir.path())(error)),
    };
    if is_empty {
        return Ok(());
    }
    let store = match Store::open_reader(dir.path()).await {
        Ok(store) => store,
        Err(error) => return refuse(format!("cannot be read ({error})")),
    };
    let runs: Result<i64, _> = sqlx::query_scalar("SELECT count(*) FROM run").fetch_one(store.readers()).await;
    store.close().await;
    match runs {
        Ok(0) => Ok(()),
        Ok(1) => refuse("has a run".to_owned()),
        Ok(runs) => refuse(format!("has {runs} runs")),
        Err(error) => refuse(format!("cannot be read ({error})")),
    }
}

/// A directory beside the store, which is filled and then takes its place.
struct Staging {
    dir: StoreDir,
    /// Held while it is filled.
    _lock: File,
    /// Whether it is a store now that somebody may need.
    keep: bool,
}

impl Staging {
    fn begin(store: &StoreDir, now: Timestamp) -> Result<Self, BackupError> {
        let dir = store.staging();
        let path = dir.path().to_owned();
        let wrong = BackupError::file(&path);
        if let Some(parent) = path.parent() {
            StoreDir::create_private(parent).map_err(BackupError::file(parent))?;
        }
        let begin = || -> io::Result<Option<File>> {
            StoreDir::create_private(&path)?;
            let lock = File::open(&path)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let is_empty = fs::read_dir(&path)?.next().is_none();
            if is_empty || path.join(INCOMPLETE).exists() {
                clear(&path)?;
            } else {
                // Whole: a store that was replaced by a restore which was cut off then, or one that never took its place.
                let aside = aside(store, now);
                fs::rename(&path, &aside)?;
                tracing::warn!("an earlier restore was cut off; the store that it left is in {}", aside.display());
                return Ok(None);
            }
            File::create(path.join(INCOMPLETE))?;
            dir.create()?;
            Ok(Some(lock))
        };
        match begin().map_err(wrong)? {
            Some(lock) => Ok(Self { dir, _lock: lock, keep: false }),
            None if !path.exists() => Self::begin(store, now),
            None => Err(BackupError::Busy { lock: path }),
        }
    }

    /// Makes what was put there a store, on the disk.
    fn finish(&self, sidecar: &Sidecar) -> Result<(), BackupError> {
        let finish = || {
            sidecar.write(&self.dir)?;
            sync(&self.dir)?;
            fs::remove_file(self.dir.path().join(INCOMPLETE))?;
            File::open(self.dir.path())?.sync_all()
        };
        finish().map_err(BackupError::file(self.dir.path()))
    }

    /// Takes the place of the store, and gives back where that is now. Only under its write lock, where there is one.
    fn take_place(mut self, store: &StoreDir, is_there: bool, now: Timestamp) -> Result<Option<PathBuf>, BackupError> {
        let (new, old) = (self.dir.path().to_owned(), store.path().to_owned());
        // In one step: at no time is there no store, for then the next daemon would make an empty one.
        let how = if is_there { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        if let Err(error) = renameat_with(CWD, &new, CWD, &old, how) {
            return Err(match error {
                Errno::INVAL | Errno::NOSYS | Errno::XDEV => BackupError::NoExchange { dir: old, source: error.into() },
                _ => BackupError::file(&old)(error.into()),
            });
        }
        self.keep = true;
        if !is_there {
            crate::dir::sync_ancestors(&old);
            return Ok(None);
        }
        let aside = aside(store, now);
        let moved = fs::rename(&new, &aside);
        crate::dir::sync_ancestors(&old);
        // Where this fails it is still there, under the name of the new one.
        Ok(Some(if moved.is_ok() { aside } else { new }))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(self.dir.path());
        }
    }
}

/// Removes what is in a directory.
fn clear(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A name for the store that is replaced.
fn aside(store: &StoreDir, now: Timestamp) -> PathBuf {
    let name = store.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dated = format!("{name}.replaced-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let mut path = store.path().with_file_name(&dated);
    for number in 2.. {
        if fs::symlink_metadata(&path).is_err() {
            break;
        }
        path = store.path().with_file_name(format!("{dated}-{number}"));
    }
    path
}

/// Makes all files of a directory durable.
fn sync(dir: &StoreDir) -> io::Result<()> {
    for path in [dir.path().to_owned(), dir.logs()] {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Checks the database of a backup, brings it to the schema of this release, and takes out of it what was forgotten.
async fn check(file: &Path, unpacked: &Unpacked) -> Result<Restored, BackupError> {
    let damaged = |why: String| BackupError::Damaged { file: file.to_owned(), why };
    let broken = |error: sqlx::Error| damaged(format!("its database: {error}"));
    let mut conn = connect::alone(&unpacked.database).connect().await.map_err(broken)?;
    let checked = check_database(&mut conn, unpacked).await.map_err(|wrong| match wrong {
        Wrong::Database(error) => broken(error),
        Wrong::Words(why) => damaged(why),
    });
    conn.close().await.map_err(broken)?;
    let (runs, open) = checked?;
    Ok(Restored { made_at: unpacked.header.created_at, runs, open, replaced: None })
}

/// Why a database is none of a backup.
enum Wrong {
    Database(sqlx::Error),
    Words(String),
}

impl From<sqlx::Error> for Wrong {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

async fn check_database(conn: &mut SqliteConnection, unpacked: &Unpacked) -> Result<(u64, u64), Wrong> {
    let words = |why: &str| Err(Wrong::Words(why.to_owned()));
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut *conn).await?;
    if sound != "ok" {
        return Err(Wrong::Words(format!("its database: {sound}")));
    }
    if !connect::is_run_store(conn).await? {
        return words("its database is no run store");
    }
    let schema: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *conn).await?;
    let (uuid, min_writer): (String, i64) =
        sqlx::query_as("SELECT uuid, min_writer FROM store").fetch_one(&mut *conn).await?;
    if schema != unpacked.header.schema || schema.max(min_writer) > SCHEMA {
        return words("its database has another schema than it says");
    }
    if uuid != unpacked.header.store.to_string() {
        return words("its database is that of another store than it says");
    }
    connect::run_migrations(conn).await.map_err(|error| Wrong::Words(format!("its database: {error}")))?;
    // A trigger or a view of somebody else's would do its work in our transactions.
    if connect::schema_of(conn).await? != connect::schema_of_this_release().await? {
        return words("its database has other tables and triggers than a run store has");
    }
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *conn).await?;
    if dangling.is_some() {
        return words("rows of its database belong to no run");
    }
    let forgotten: Vec<RunId> = unpacked.forgotten.iter().copied().collect();
    let mut transaction = conn.begin().await?;
    Forget(forgotten).apply(&mut transaction).await.map_err(|error| Wrong::Words(error.to_string()))?;
    transaction.commit().await?;

    // One that cannot be understood would keep all others from being listed.
    let mut runs = BTreeSet::new();
    let mut open = 0;
    let mut rows = sqlx::query(select_run!("ORDER BY run.id")).fetch(&mut *conn);
    while let Some(row) = rows.try_next().await? {
        let run = StoredRun::decode(&row).map_err(|error| Wrong::Words(error.to_string()))?;
        open += u64::from(run.owner.is_some());
        runs.insert((run.record.id, run.record.attempt));
    }
    drop(rows);
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM run").fetch_one(&mut *conn).await?;
    if i64::try_from(runs.len()) != Ok(all) {
        return words("runs of its database have no program");
    }
    for log in &unpacked.logs {
        // The other log of a forgotten run may have been copied before it was.
        if !runs.contains(&(log.run, log.attempt)) && !unpacked.forgotten.contains(&log.run) {
            return Err(Wrong::Words(format!("logs/{} in it is of no run", log.name())));
        }
    }
    Ok((runs.len() as u64, open))
}
