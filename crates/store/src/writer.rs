//! The one task that writes.
//!
//! # Flow
//! Changes queue up; whatever waits goes into one transaction: `runs.lock`, `BEGIN IMMEDIATE`, each change, `COMMIT`.
//! A caller that goes away does not stop its change.
//!
//! # Guarantees
//! - A change is answered only after its commit succeeded.
//! - A failed commit says nothing: the row may be there or not, and SQLite's connection is of no more use. So the
//!   connection is thrown away and each change is made again, alone, on a new one. That is safe because every
//!   [`Change`] finds out by its nonce whether it was made already.

use std::any::Any;
use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::change::{Claimed, MakeClaim, insert_all};
use crate::dir::StoreDir;
use crate::error::{FULL, sqlite_code};
use crate::lock::WriteLock;
use crate::owner::SignOfLife;
use crate::reserve::Reserve;
use crate::sidecar::Sidecar;
use crate::{OpenError, StoreError, connect};

/// How many changes share a commit at most.
const BATCH: usize = 256;
/// After how long without a change the log of the database is written back.
const IDLE: Duration = Duration::from_secs(5);

/// One change of the store.
pub(crate) trait Change: Send + Sync + 'static {
    /// What its caller learns.
    type Answer: Send + 'static;

    /// Makes the change, or finds that it was made already. Every error but [`StoreError::Database`] must come before
    /// the first write: the other changes of the transaction are still committed.
    fn apply(&self, conn: &mut SqliteConnection) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// The way to the writer's task.
#[derive(Clone, Debug)]
pub(crate) struct Writer(mpsc::Sender<Message>);

enum Message {
    Change(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

impl Writer {
    /// Starts the task.
    pub(crate) fn spawn(
        dir: StoreDir,
        sidecar: Sidecar,
        conn: SqliteConnection,
        min_free: u64,
        life: SignOfLife,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(4 * BATCH);
        let inode = inode(&dir);
        let mut reserve = Reserve::new(&dir);
        reserve.fill(min_free);
        let task = Task { dir, sidecar, conn: Some(conn), inode, reserve, min_free, dirty: true, life };
        tokio::spawn(task.run(receiver));
        Self(sender)
    }

    /// Makes a change and waits for its commit.
    pub(crate) async fn submit<C: Change>(&self, change: C) -> Result<C::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending { change, answer: None, reply });
        self.0.send(Message::Change(job)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Makes what waits, and ends the task.
    pub(crate) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.0.send(Message::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// A [`Change`] of any kind, on its way.
trait Job: Any + Send {
    /// Makes the change. An error breaks the transaction.
    fn apply<'a>(&'a mut self, conn: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), StoreError>>;
    /// The transaction was committed: tells the caller.
    fn committed(self: Box<Self>);
    /// The transaction was not committed, or nobody knows: tells the caller.
    fn failed(self: Box<Self>, error: StoreError);
}

struct Pending<C: Change> {
    change: C,
    answer: Option<Result<C::Answer, StoreError>>,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl<C: Change> Job for Pending<C> {
    fn apply<'a>(&'a mut self, conn: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match self.change.apply(conn).await {
                Err(error @ StoreError::Database(_)) => return Err(error),
                answer => self.answer = Some(answer),
            }
            Ok(())
        })
    }

    fn committed(self: Box<Self>) {
        // A caller that went away does not want to know.
        let _ = self.reply.send(self.answer.unwrap_or(Err(StoreError::Closed)));
    }

    fn failed(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

struct Task {
    dir: StoreDir,
    sidecar: Sidecar,
    /// `None` after an error, until the next change.
    conn: Option<SqliteConnection>,
    /// The database file that was opened.
    inode: Option<(u64, u64)>,
    reserve: Reserve,
    min_free: u64,
    /// Whether the log of the database may hold something.
    dirty: bool,
    /// The daemon lives for others until its last change is made.
    life: SignOfLife,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut batch = VecDeque::new();
        loop {
            let first = tokio::select! {
                // Cancel-safe: a message that is not received stays in the queue.
                message = queue.recv() => message,
                // Cancel-safe: a pause that is not over begins anew.
                () = tokio::time::sleep(IDLE), if self.dirty => {
                    self.tidy().await;
                    continue;
                }
            };
            let mut next = first;
            let mut end = next.is_none();
            let mut closing = None;
            while let Some(message) = next {
                match message {
                    Message::Change(job) => batch.push_back(job),
                    Message::Close(reply) => closing = Some(reply),
                }
                next = if batch.len() < BATCH && closing.is_none() { queue.try_recv().ok() } else { None };
            }
            if !batch.is_empty() {
                self.commit(&mut batch).await;
            }
            end |= closing.is_some();
            if end {
                // What still comes is refused: `submit` sees its reply dropped.
                queue.close();
                self.end().await;
                if let Some(reply) = closing {
                    let _ = reply.send(());
                }
                return;
            }
        }
    }

    /// Commits the whole batch, or, where that fails, each change alone.
    async fn commit(&mut self, batch: &mut VecDeque<Box<dyn Job>>) {
        let begun = Instant::now();
        metrics::histogram!("oncelet_store_commit_changes").record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        self.commit_all(batch).await;
        metrics::histogram!("oncelet_store_commit_duration_seconds").record(begun.elapsed());
    }

    async fn commit_all(&mut self, batch: &mut VecDeque<Box<dyn Job>>) {
        let result = match self.lock().await {
            Ok(lock) => self.try_commit(batch.make_contiguous()).await.map_err(|error| (error, Some(lock))),
            Err(error) => Err((error, None)),
        };
        match result {
            Ok(()) => batch.drain(..).for_each(Job::committed),
            Err((StoreError::Unavailable(why), _)) => {
                batch.drain(..).for_each(|job| job.failed(StoreError::Unavailable(why.clone())));
            }
            Err((error, _lock)) => {
                tracing::warn!(changes = batch.len(), "a commit failed, each change is made again: {error}");
                self.make_room(&error);
                for mut job in batch.drain(..) {
                    match self.try_commit(std::slice::from_mut(&mut job)).await {
                        Ok(()) => job.committed(),
                        Err(error) => {
                            self.make_room(&error);
                            job.failed(error);
                        }
                    }
                }
            }
        }
    }

    /// Commits some changes in one transaction. Only under the write lock.
    async fn try_commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        // A commit into a file that nobody will find again would be forgotten.
        if self.inode != inode(&self.dir) {
            return Err(unavailable(OpenError::Replaced { path: self.dir.database() }));
        }
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => connect::connect(&self.dir, &self.sidecar).await.map_err(unavailable)?,
        };
        self.dirty = true;
        match transact(&mut conn, jobs).await {
            Ok(()) => {
                self.conn = Some(conn);
                Ok(())
            }
            Err(error) => {
                // Waits for the end of the connection, so that it holds no lock when the next one begins.
                let _ = conn.close().await;
                Err(error)
            }
        }
    }

    /// On a full disk, gives up the reserve.
    fn make_room(&mut self, error: &StoreError) {
        if matches!(error, StoreError::Database(error) if sqlite_code(error) == Some(FULL)) {
            self.reserve.spend();
        }
    }

    /// What is done when nothing is to do.
    async fn tidy(&mut self) {
        self.dirty = false;
        self.reserve.fill(self.min_free);
        let Ok(_lock) = self.lock().await else { return };
        if let Some(conn) = &mut self.conn
            && let Err(error) = checkpoint(conn).await
        {
            tracing::debug!("the log of the run database is not written back yet: {error}");
        }
    }

    async fn end(mut self) {
        self.tidy().await;
        if let Some(conn) = self.conn.take()
            && let Err(error) = conn.close().await
        {
            tracing::warn!("the run database did not close cleanly: {error}");
        }
        drop(self.life);
    }

    async fn lock(&self) -> Result<WriteLock, StoreError> {
        WriteLock::acquire(&self.dir).await.map_err(unavailable)
    }
}

fn unavailable(error: OpenError) -> StoreError {
    StoreError::Unavailable(Arc::new(error))
}

/// Makes the changes in one transaction. After an error the connection must be thrown away.
async fn transact(conn: &mut SqliteConnection, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    // IMMEDIATE: a transaction that first reads and then writes fails at once when another wrote in between.
    let mut transaction = conn.begin_with("BEGIN IMMEDIATE").await?;
    fault("store-begun")?;
    let mut rest = jobs;
    while !rest.is_empty() {
        let claims = rest.iter_mut().map_while(as_claim).count();
        let (now, later) = rest.split_at_mut(claims.max(1));
        if claims > 1 {
            claim_all(now.iter_mut().filter_map(as_claim).collect(), &mut transaction).await?;
        } else {
            now[0].apply(&mut transaction).await?;
        }
        rest = later;
    }
    fault("store-written")?;
    transaction.commit().await?;
    // An error from here on is one of a commit that was made: the caller cannot know.
    fault("store-committed")
}

fn as_claim(job: &mut Box<dyn Job>) -> Option<&mut Pending<MakeClaim>> {
    let job: &mut dyn Any = &mut **job;
    job.downcast_mut()
}

/// Makes claims that follow one another, at once; those that are not simply won, one by one after the others.
async fn claim_all(mut claims: Vec<&mut Pending<MakeClaim>>, conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let changes: Vec<_> = claims.iter().map(|claim| &claim.change).collect();
    let leases = insert_all(&changes, conn).await?;
    for (claim, lease) in claims.iter_mut().zip(leases) {
        match lease {
            Some(lease) => claim.answer = Some(Ok(Claimed::Won(lease))),
            None => claim.apply(conn).await?,
        }
    }
    Ok(())
}

/// Where a test makes the store fail.
fn fault(point: &str) -> Result<(), StoreError> {
    if oncelet_faults::gives_up(point) { Err(sqlx::Error::WorkerCrashed.into()) } else { Ok(()) }
}

/// Writes the log of the database back and empties it. Does not wait for readers.
async fn checkpoint(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *conn).await?;
    let done = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *conn).await;
    sqlx::query("PRAGMA busy_timeout = 5000").execute(&mut *conn).await?;
    done.map(drop)
}

/// Which file the database is.
fn inode(dir: &StoreDir) -> Option<(u64, u64)> {
    std::fs::metadata(dir.database()).ok().map(|file| (file.dev(), file.ino()))
}
