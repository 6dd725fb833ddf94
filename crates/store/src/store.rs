//! The store, as its users see it.

use std::fs::{File, TryLockError};
use std::sync::Arc;

use jiff::Timestamp;
use oncelet_core::{Description, Outcome, Ownership, RunEvent, RunId, RunKey, RunRecord, SecretHash};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqlitePool};
use uuid::Uuid;

use crate::StoreError;
use crate::change::{Adopt, Claimed, GiveBack, Lease, MakeClaim, Mark, Move, NewRun, TakeOver};
use crate::dir::{self, StoreDir};
use crate::log::{self, LogReader, LogSummary, LogWriter, Logs, Stream};
use crate::owner::OwnerId;
use crate::row::{StoredRun, select_run};
use crate::secrets::SecretKey;
use crate::writer::Writer;

/// The memory of runs. Clones share one store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dir: StoreDir,
    uuid: Uuid,
    readers: SqlitePool,
    daemon: Option<Daemon>,
}

/// The sole right to some work, until dropped. From [`Store::exclusive`].
#[derive(Debug)]
pub struct Exclusive(#[expect(dead_code, reason = "closing the file is what unlocks it")] File);

/// What a store has that may write.
pub(crate) struct Daemon {
    pub(crate) id: OwnerId,
    /// The owner's row.
    pub(crate) row: i64,
    /// How many bytes must be free on the disk for a claim.
    pub(crate) min_free: u64,
    pub(crate) secret_key: SecretKey,
    pub(crate) writer: Writer,
}

/// What became of a claim.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made")]
pub enum Claim {
    /// The key was free, or its last try had failed to start: the run is ours.
    Won(Lease),
    /// Somebody else has it, or had it.
    Held(RunRecord, Ownership),
}

/// What became of a move.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made")]
pub enum Advance {
    /// It is stored.
    Done(RunRecord),
    /// The run is no longer ours: somebody took it over, or it was released.
    Lost,
}

/// Which runs to list; by default all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Runs of this name, or of this name in any namespace.
    pub name: Option<String>,
    /// Runs in the container of this name, or of an ID that begins so.
    pub container: Option<String>,
    /// Runs that are not over.
    pub open_only: bool,
    /// The newest so many.
    pub limit: Option<u32>,
}

impl Store {
    pub(crate) fn assemble(readers: SqlitePool, dir: StoreDir, uuid: Uuid, daemon: Option<Daemon>) -> Self {
        Self(Arc::new(Inner { dir, uuid, readers, daemon }))
    }

    /// What tells this store from every other one. It stays the same as long as the store lives, and a copy of the store has the
    /// same.
    pub fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    /// The sole right, among all daemons that share this store, to the work of this name, until dropped; `None` while somebody has
    /// it. It ends with the process, however that ends. Other names may share a right: who is refused tries again later.
    ///
    /// # Errors
    /// The file of the lock cannot be made.
    pub fn exclusive(&self, name: &str) -> Result<Option<Exclusive>, StoreError> {
        let path = self.0.dir.work_lock(name);
        let open = || {
            path.parent().map_or(Ok(()), dir::make_private)?;
            let file = dir::private().read(true).write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(Exclusive(file))),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        open().map_err(StoreError::file(&path))
    }

    /// Who this daemon is to the store; `None` for a reader.
    pub fn owner(&self) -> Option<&OwnerId> {
        self.0.daemon.as_ref().map(|daemon| &daemon.id)
    }

    /// What hashes secrets under this store's key.
    pub fn secret_hash(&self) -> Result<SecretHash, StoreError> {
        let key = self.daemon()?.secret_key.clone();
        Ok(Arc::new(move |what, secret| key.hash(what, secret)))
    }

    /// The run of a key, and whose it is.
    pub async fn lookup(&self, key: &RunKey) -> Result<Option<(RunRecord, Ownership)>, StoreError> {
        Ok(self.recall(key).await?.map(|(record, ownership, _)| (record, ownership)))
    }

    /// The same with the summaries of its logs, where they are stored: those of a run that is over.
    pub async fn recall(&self, key: &RunKey) -> Result<Option<(RunRecord, Ownership, Option<Logs>)>, StoreError> {
        // Both in one question: each costs more to ask than to answer.
        let rows = sqlx::query(concat!(
            select_run!("WHERE run.ident = ?1 AND run.name = ?2 AND run.token = ?3"),
            "; SELECT log.* FROM run JOIN log ON log.run_id = run.id \
             WHERE run.ident = ?1 AND run.name = ?2 AND run.token = ?3",
        ))
        .bind(&key.ident)
        .bind(key.name.as_str())
        .bind(&key.token)
        .fetch_all(&self.0.readers)
        .await?;
        let Some((run, logs)) = rows.split_first() else { return Ok(None) };
        let stored = StoredRun::decode(run)?;
        let ownership = self.ownership(&stored)?;
        let logs = match summaries(logs)? {
            [Some(stdout), Some(stderr)] if ownership == Ownership::Nobody => Some(Logs { stdout, stderr }),
            _ => None,
        };
        Ok(Some((stored.record, ownership, logs)))
    }

    /// Claims the right to run. Losing it to somebody else is no error.
    ///
    /// A key whose last try failed to start is claimed again, as a further attempt: what it would run is replaced, and
    /// the logs of the failed try are dropped.
    ///
    /// # Guarantees
    /// After [`Claim::Won`] the claim is on the disk. After an error it may be there; then it is this daemon's, and
    /// nobody holds its lease: [`Store::lookup`] and [`Store::take_over`] find it.
    pub async fn claim(&self, new: NewRun) -> Result<Claim, StoreError> {
        let daemon = self.daemon()?;
        let dir = self.0.dir.path();
        let free = dir::free_bytes(dir).map_err(StoreError::file(dir))?;
        if free < daemon.min_free {
            let mib = |bytes: u64| bytes / (1024 * 1024);
            let (free_mib, needed_mib) = (mib(free), mib(daemon.min_free));
            return Err(StoreError::DiskAlmostFull { dir: dir.to_owned(), free_mib, needed_mib });
        }
        match daemon.writer.submit(MakeClaim::new(new, daemon.row)?).await? {
            Claimed::Won(lease) => {
                if lease.attempt > 1 {
                    self.drop_logs(lease.run, lease.attempt - 1);
                }
                Ok(Claim::Won(lease))
            }
            Claimed::Held(stored) => {
                let ownership = self.ownership(&stored)?;
                Ok(Claim::Held(stored.record, ownership))
            }
        }
    }

    /// Takes over an open run whose daemon is gone, or one of this daemon's own of which the lease was lost. `None`
    /// where its daemon lives, or the run is no longer as in `record`.
    pub async fn take_over(&self, record: &RunRecord, now: Timestamp) -> Result<Option<Lease>, StoreError> {
        let daemon = self.daemon()?;
        let Some(stored) = self.stored(record.id).await? else { return Ok(None) };
        let as_seen = stored.record.state == record.state && stored.record.attempt == record.attempt;
        if !as_seen || !matches!(self.ownership(&stored)?, Ownership::Mine | Ownership::Gone) {
            return Ok(None);
        }
        // Between this look and the change the owner can only be replaced, never come back; the epoch tells.
        let change = TakeOver { run: record.id, seen: stored.epoch, owner: daemon.row, nonce: Uuid::new_v4(), now };
        daemon.writer.submit(change).await
    }

    /// Moves a run on. A repeated event is no error: after one that failed, call again.
    pub async fn advance(&self, lease: &Lease, event: RunEvent) -> Result<Advance, StoreError> {
        self.make_move(Move { lease: lease.share(), event, logs: None }).await
    }

    /// Takes back what the container remembers of a run that this store has lost: the run that is about to start becomes that
    /// one, with its object, program and time of claim.
    pub async fn adopt(&self, lease: &Lease, description: &Description) -> Result<Advance, StoreError> {
        let adopted = self.daemon()?.writer.submit(Adopt::new(lease, description)?).await?;
        Ok(adopted.map_or(Advance::Lost, Advance::Done))
    }

    /// Ends a run: its output is made durable, then the outcome and the summaries of its logs, in one step.
    pub async fn finish(
        &self,
        lease: &Lease,
        at: Timestamp,
        outcome: Outcome,
        logs: Logs,
    ) -> Result<Advance, StoreError> {
        for stream in Stream::ALL.into_iter().filter(|stream| logs.get(*stream).kept > 0) {
            if let Err(error) = log::sync(self.0.dir.log(lease.run, lease.attempt, stream)).await {
                // The outcome is worth more than its output.
                tracing::error!(run = %lease.run, "the log may not survive a power failure: {error}");
            }
        }
        let (state, succeeded) = (outcome.name(), outcome == Outcome::Finished { exit_code: 0 });
        let event = RunEvent::Ended { at, outcome };
        let advance = self.make_move(Move { lease: lease.share(), event, logs: Some(logs) }).await?;
        if matches!(advance, Advance::Done(_)) {
            metrics::counter!("oncelet_runs_total", "state" => state, "succeeded" => succeeded.to_string())
                .increment(1);
        }
        Ok(advance)
    }

    async fn make_move(&self, change: Move) -> Result<Advance, StoreError> {
        Ok(self.daemon()?.writer.submit(change).await?.map_or(Advance::Lost, Advance::Done))
    }

    /// Gives a claim back: the run goes away or, where an earlier try failed to start, shows that failure again.
    pub async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.daemon()?.writer.submit(GiveBack(lease)).await
    }

    /// Begins to write, or goes on writing, a log of a run. At most `limit` bytes are kept.
    pub async fn log_writer(&self, lease: &Lease, stream: Stream, limit: Option<u64>) -> Result<LogWriter, StoreError> {
        self.daemon()?;
        LogWriter::open(self.0.dir.log(lease.run, lease.attempt, stream), limit).await
    }

    /// The summaries of a run's logs; of a run that has none stored, of what is there so far.
    pub async fn logs(&self, run: RunId) -> Result<Logs, StoreError> {
        let (attempt, stored) = self.stored_logs(run).await?;
        let mut logs = Logs::default();
        for (stream, stored) in Stream::ALL.into_iter().zip(stored) {
            *logs.get_mut(stream) = match stored {
                Some(summary) => summary,
                None => log::summarize(self.0.dir.log(run, attempt, stream)).await?,
            };
        }
        Ok(logs)
    }

    /// Reads a log from its beginning on, also while it is written, by whichever process.
    pub async fn read_log(&self, run: RunId, stream: Stream) -> Result<LogReader, StoreError> {
        // In this order: the summary is stored after the last byte was written.
        let (attempt, stored) = self.stored_logs(run).await?;
        let expected = Stream::ALL.into_iter().zip(stored).find_map(|(it, stored)| stored.filter(|_| it == stream));
        Ok(LogReader::new(self.0.dir.log(run, attempt, stream), expected))
    }

    /// The runs that pass `filter`, newest last.
    pub async fn list(&self, filter: Filter) -> Result<Vec<RunRecord>, StoreError> {
        let rows = sqlx::query(select_run!(
            "WHERE (?1 IS NULL OR run.name = ?1 OR substr(run.name, -length(?1) - 1) = '/' || ?1) \
               AND (?2 IS NULL OR run.container_name = ?2 OR substr(run.container_id, 1, length(?2)) = ?2) \
               AND (NOT ?3 OR run.owner_id IS NOT NULL) \
             ORDER BY run.id DESC LIMIT ?4"
        ))
        .bind(filter.name)
        .bind(filter.container)
        .bind(filter.open_only)
        .bind(filter.limit.map_or(-1, i64::from))
        .fetch_all(&self.0.readers)
        .await?;
        rows.iter().rev().map(|row| StoredRun::decode(row).map(|stored| stored.record)).collect()
    }

    /// One run.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.stored(run).await?.map(|stored| stored.record))
    }

    /// Closes the store, for all clones: pending changes are made, the database is written back, and open runs of
    /// this daemon can be taken over.
    pub async fn close(&self) {
        if let Some(daemon) = &self.0.daemon {
            daemon.writer.close().await;
        }
        self.0.readers.close().await;
    }

    /// Says how a run ended that is unknown or interrupted: it becomes a finished one with this exit code. For a person who
    /// knows.
    pub async fn mark(&self, run: RunId, exit_code: i64, now: Timestamp) -> Result<RunRecord, StoreError> {
        self.daemon()?.writer.submit(Mark { run, exit_code, now }).await
    }

    pub(crate) fn dir(&self) -> &StoreDir {
        &self.0.dir
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.0.readers
    }

    pub(crate) fn daemon(&self) -> Result<&Daemon, StoreError> {
        self.0.daemon.as_ref().ok_or(StoreError::Reader)
    }

    fn ownership(&self, stored: &StoredRun) -> Result<Ownership, StoreError> {
        let Some(owner) = stored.owner else { return Ok(Ownership::Nobody) };
        if Some(&owner) == self.owner() {
            return Ok(Ownership::Mine);
        }
        let owners = self.0.dir.owners();
        let alive = owner.is_alive(&owners).map_err(StoreError::file(&owners))?;
        Ok(if alive { Ownership::Other } else { Ownership::Gone })
    }

    async fn stored(&self, run: RunId) -> Result<Option<StoredRun>, StoreError> {
        let row = sqlx::query(select_run!("WHERE run.id = ?1")).bind(run.0).fetch_optional(&self.0.readers).await?;
        row.as_ref().map(StoredRun::decode).transpose()
    }

    /// The last try of a run, and what is stored of its logs, in the order of [`Stream::ALL`].
    async fn stored_logs(&self, run: RunId) -> Result<(u32, [Option<LogSummary>; 2]), StoreError> {
        // One question: each costs more to ask than to answer.
        let rows = sqlx::query(
            "SELECT run.attempt, log.stream, log.bytes, log.kept, log.truncated, log.held_open, log.tail, log.crc32c \
             FROM run LEFT JOIN log ON log.run_id = run.id WHERE run.id = ?1",
        )
        .bind(run.0)
        .fetch_all(&self.0.readers)
        .await?;
        let attempt = rows.first().ok_or(StoreError::NoSuchRun(run))?.try_get("attempt")?;
        Ok((attempt, summaries(&rows)?))
    }

    /// Removes what failed tries wrote. Nothing reads these files any more, so one that stays does no harm.
    pub(crate) fn drop_logs(&self, run: RunId, attempt: u32) {
        for stream in Stream::ALL {
            let _ = std::fs::remove_file(self.0.dir.log(run, attempt, stream));
        }
    }
}

/// The summaries in rows of logs, in the order of [`Stream::ALL`].
fn summaries(rows: &[SqliteRow]) -> Result<[Option<LogSummary>; 2], StoreError> {
    let mut summaries = [const { None }; 2];
    for (stream, summary) in Stream::ALL.into_iter().zip(&mut summaries) {
        for row in rows {
            if row.try_get::<Option<&str>, _>("stream")? == Some(stream.as_str()) {
                *summary = Some(LogSummary::from_row(row)?);
            }
        }
    }
    Ok(summaries)
}
