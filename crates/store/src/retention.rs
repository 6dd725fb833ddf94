//! How long runs are kept that nobody can ask for any more.
//!
//! The key of a run with `runPolicy: Always` holds its object's UID. When the object is gone, the key never comes again: the run is
//! history, and is kept for a time. Every other key may come again as long as its container is there, and so its run stays.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use oncelet_core::{RunId, RunRecord};

use crate::StoreError;
use crate::owner::OwnerId;
use crate::row::{StoredRun, nanos, select_run};
use crate::store::Store;

/// What the place of objects begins with that are gone when their daemon is.
const OF_DAEMON: &str = "daemon ";

/// A run that was made for one object alone.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectRun {
    /// The run, which is over.
    pub record: RunRecord,
    /// The UID of the object.
    pub object: String,
    /// Whether the API server that had the object is gone, and so is the object.
    pub server_is_gone: bool,
}

impl Store {
    /// What [`crate::NewRun::objects`] is for objects that are gone when this daemon is. `None` for a reader.
    pub fn objects_of_this_daemon(&self) -> Option<String> {
        self.owner().map(|owner| format!("{OF_DAEMON}{owner}"))
    }

    /// Runs that were made for one object alone, in the order of their numbers: the next `limit` after `after` that have been over
    /// for `keep` at `now`, and whose objects are, or were, in `objects` or in an API server that is gone.
    pub async fn object_runs(
        &self,
        objects: &str,
        after: RunId,
        keep: Duration,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ObjectRun>, StoreError> {
        let since = nanos(now).saturating_sub(i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX));
        let gone: Vec<String> = self.servers_that_are_gone(objects).await?;
        let rows = sqlx::query(select_run!(
            "WHERE run.token LIKE 'object=%' AND run.owner_id IS NULL AND run.id > ?1 AND run.finished_at <= ?2 \
               AND (run.objects = ?3 OR run.objects IN (SELECT value FROM json_each(?4))) \
             ORDER BY run.id LIMIT ?5"
        ))
        .bind(after.0)
        .bind(since)
        .bind(objects)
        .bind(serde_json::to_string(&gone).map_err(|source| StoreError::Encode { what: "list of daemons", source })?)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        let mut runs = Vec::new();
        for row in &rows {
            let record = StoredRun::decode(row)?.record;
            let server: String = sqlx::Row::try_get(row, "objects")?;
            let token = record.key.token.strip_prefix("object=").unwrap_or_default();
            let object = token.split(' ').next().unwrap_or_default().to_owned();
            runs.push(ObjectRun { object, server_is_gone: server != objects, record });
        }
        Ok(runs)
    }

    /// The daemons whose objects went with them.
    async fn servers_that_are_gone(&self, ours: &str) -> Result<Vec<String>, StoreError> {
        let servers: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT objects FROM run WHERE token LIKE 'object=%' AND owner_id IS NULL AND objects LIKE 'daemon %'",
        )
        .fetch_all(self.readers())
        .await?;
        let owners = self.dir().owners();
        let mut gone = Vec::new();
        for server in servers.into_iter().filter(|server| server != ours) {
            let Some(Ok(owner)) = server.strip_prefix(OF_DAEMON).map(str::parse::<OwnerId>) else { continue };
            if !owner.is_alive(&owners).map_err(StoreError::file(&owners))? {
                gone.push(server);
            }
        }
        Ok(gone)
    }

    /// Forgets runs that are over: their keys may be claimed again. Returns how many were there.
    pub async fn forget_each(&self, runs: &[RunId]) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for some in runs.chunks(crate::collect::BATCH) {
            forgotten += self.forget_all(some.to_vec()).await?;
        }
        Ok(forgotten)
    }

    /// Removes log files of runs that are not in the store: whoever forgot them was killed before their logs were removed.
    pub async fn sweep_logs(&self) -> Result<u64, StoreError> {
        self.daemon()?;
        let dir = self.dir().logs();
        // In this order: the row of a run is there before its log is.
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(StoreError::file(&dir))? {
            let entry = entry.map_err(StoreError::file(&dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let run = name.split('-').next().and_then(|run| run.parse::<i64>().ok());
            files.extend(run.map(|run| (run, entry.path())));
        }
        let rows: Vec<i64> = sqlx::query_scalar("SELECT id FROM run").fetch_all(self.readers()).await?;
        let known: BTreeSet<i64> = rows.into_iter().collect();
        let mut removed = 0;
        for (_, path) in files.into_iter().filter(|(run, _)| !known.contains(run)) {
            removed += u64::from(std::fs::remove_file(path).is_ok());
        }
        Ok(removed)
    }
}
