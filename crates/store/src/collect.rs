//! Forgetting the runs of containers that are gone.
//!
//! Age forgets nothing. A container's runs go only where the engine that had it answers twice, an hour apart, that it
//! does not know it; an engine of another identity behind the same address is another engine. Runs that are open, and those
//! that are remembered by name across recreates of a container, stay.

use std::time::Duration;

use jiff::Timestamp;
use oncelet_core::RunId;

use crate::StoreError;
use crate::change::{Forget, Sighting};
use crate::store::Store;

/// How long a container must have been absent.
pub const ABSENT_FOR: Duration = Duration::from_hours(1);
/// How many runs one commit forgets: others wait for it.
pub(crate) const BATCH: usize = 50;

/// A container that has runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownContainer {
    /// Its full ID.
    pub container_id: String,
    /// The name that it had when its last run was claimed.
    pub name: String,
    /// How many runs would be forgotten with it.
    pub runs: u64,
    /// Since when its engine does not know it, if so.
    pub absent_since: Option<Timestamp>,
}

impl KnownContainer {
    /// Whether it has been absent for long enough.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        let absent_for = |since| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        self.absent_since.is_some_and(|since| absent_for(since) >= ABSENT_FOR)
    }
}

impl Store {
    /// The containers of an engine that have runs which could be forgotten with them.
    pub async fn containers(&self, engine_id: &str) -> Result<Vec<KnownContainer>, StoreError> {
        let rows: Vec<(String, String, i64, Option<i64>)> = sqlx::query_as(
            "SELECT run.container_id, max(run.container_name), count(*), absence.first_seen \
             FROM run LEFT JOIN absence USING (engine_id, container_id) \
             WHERE run.engine_id = ?1 AND run.owner_id IS NULL AND run.ident = run.container_id \
             GROUP BY run.container_id",
        )
        .bind(engine_id)
        .fetch_all(self.readers())
        .await?;
        let known = |(container_id, name, runs, since): (String, String, i64, Option<i64>)| KnownContainer {
            container_id,
            name,
            runs: runs.unsigned_abs(),
            absent_since: since.map(crate::row::timestamp),
        };
        Ok(rows.into_iter().map(known).collect())
    }

    /// Notes whether an engine knows a container, as it says at `now`.
    pub async fn seen(
        &self,
        engine_id: &str,
        container_id: &str,
        present: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (engine_id, container_id) = (engine_id.to_owned(), container_id.to_owned());
        self.daemon()?.writer.submit(Sighting { engine_id, container_id, present, now }).await
    }

    /// Forgets the runs of a container that is gone; returns how many.
    ///
    /// # Assumptions
    /// The engine says just now that it does not know the container, and [`KnownContainer::is_gone`].
    pub async fn collect(&self, engine_id: &str, container_id: &str) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let runs: Vec<i64> = sqlx::query_scalar(
                "SELECT id FROM run \
                 WHERE engine_id = ?1 AND container_id = ?2 AND ident = container_id AND owner_id IS NULL LIMIT ?3",
            )
            .bind(engine_id)
            .bind(container_id)
            .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
            .fetch_all(self.readers())
            .await?;
            if runs.is_empty() {
                break;
            }
            forgotten += self.forget_all(runs.into_iter().map(RunId).collect()).await?;
        }
        // An absence is of no use without runs that wait for it.
        self.seen(engine_id, container_id, true, Timestamp::UNIX_EPOCH).await?;
        self.compact().await?;
        Ok(forgotten)
    }

    /// Gives some of the room that was freed back to the disk.
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.daemon()?.writer.submit(Compact).await
    }

    /// Forgets a run that is over: its key may be claimed again.
    pub async fn forget(&self, run: RunId) -> Result<(), StoreError> {
        match self.forget_all(vec![run]).await? {
            0 => Err(StoreError::NoSuchRun(run)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn forget_all(&self, runs: Vec<RunId>) -> Result<u64, StoreError> {
        let gone = self.daemon()?.writer.submit(Forget(runs)).await?;
        for (run, attempt) in &gone {
            self.drop_logs(*run, *attempt);
        }
        Ok(gone.len() as u64)
    }
}

/// Gives some of the room that was freed back to the disk.
struct Compact;

impl crate::writer::Change for Compact {
    type Answer = ();

    async fn apply(&self, conn: &mut sqlx::SqliteConnection) -> Result<(), StoreError> {
        // A step of it, so that nobody waits for long.
        sqlx::query("PRAGMA incremental_vacuum(64)").execute(conn).await?;
        Ok(())
    }
}
