//! What a person decides about a run that is over.

use jiff::Timestamp;
use oncelet_core::{Outcome, RunId, RunRecord, RunState};
use sqlx::SqliteConnection;

use super::{expect_one, run_by_id};
use crate::StoreError;
use crate::row::nanos;
use crate::writer::Change;

/// Says how a run ended, where nobody else could: an unknown or interrupted run becomes a finished one.
pub(crate) struct Mark {
    pub(crate) run: RunId,
    pub(crate) exit_code: i64,
    pub(crate) now: Timestamp,
}

impl Change for Mark {
    type Answer = RunRecord;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<RunRecord, StoreError> {
        let run = self.run;
        let stored = run_by_id(conn, run).await?.ok_or(StoreError::NoSuchRun(run))?;
        match &stored.record.state {
            RunState::Ended { outcome: Outcome::Interrupted { .. } | Outcome::Unknown { .. }, .. } => {}
            // Marked so before, by a commit that reported a failure, or by somebody who thinks the same.
            RunState::Ended { outcome: Outcome::Finished { exit_code }, .. } if *exit_code == self.exit_code => {
                return Ok(stored.record);
            }
            state => return Err(StoreError::NotMarkable { run, state: state.name() }),
        }
        let done = sqlx::query(
            "UPDATE run SET state = 'Finished', exit_code = ?2, started_at = coalesce(started_at, finished_at), \
                            message = NULL, ended_by = NULL, marked_at = ?3 \
             WHERE id = ?1 AND state IN ('Interrupted', 'Unknown')",
        )
        .bind(run.0)
        .bind(self.exit_code)
        .bind(nanos(self.now))
        .execute(&mut *conn)
        .await?;
        expect_one(&done)?;
        run_by_id(conn, run).await?.map(|stored| stored.record).ok_or(StoreError::NoSuchRun(run))
    }
}

/// Forgets runs that are over. Their logs are removed by the caller, after the commit.
pub(crate) struct Forget(pub(crate) Vec<RunId>);

impl Change for Forget {
    /// The runs that are gone now, each with its attempt.
    type Answer = Vec<(RunId, u32)>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Vec<(RunId, u32)>, StoreError> {
        let mut gone = Vec::new();
        for run in &self.0 {
            // Forgotten before, by a commit that reported a failure.
            let Some(stored) = run_by_id(conn, *run).await? else { continue };
            if !stored.record.state.is_ended() {
                return Err(StoreError::StillOpen { run: *run, state: stored.record.state.name() });
            }
            for statement in [
                "INSERT INTO forgetting (run_id) VALUES (?1)",
                "DELETE FROM run WHERE id = ?1",
                "DELETE FROM forgetting WHERE run_id = ?1",
            ] {
                expect_one(&sqlx::query(statement).bind(run.0).execute(&mut *conn).await?)?;
            }
            gone.push((*run, stored.record.attempt));
        }
        Ok(gone)
    }
}
