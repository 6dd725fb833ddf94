//! Moving a run on.

use oncelet_core::{RunEvent, RunRecord, RunState};
use sqlx::SqliteConnection;

use super::{Lease, expect_one, run_by_id};
use crate::StoreError;
use crate::log::Logs;
use crate::row::StateColumns;
use crate::writer::Change;

/// Moves a run by one event, and keeps the summaries of its logs with its end.
pub(crate) struct Move {
    pub(crate) lease: Lease,
    pub(crate) event: RunEvent,
    pub(crate) logs: Option<Logs>,
}

impl Change for Move {
    /// `None` where the run is no longer ours.
    type Answer = Option<RunRecord>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<RunRecord>, StoreError> {
        let run = self.lease.run;
        let Some(stored) = run_by_id(conn, run).await?.filter(|stored| stored.nonce == self.lease.nonce) else {
            return Ok(None);
        };
        let mut record = stored.record;
        if is_done(&record.state, &self.event) {
            return Ok(Some(record));
        }
        let left = record.state.name();
        record.state = record.state.next(self.event.clone()).map_err(|source| StoreError::Illegal { run, source })?;
        let to = StateColumns::from(&record.state);
        let done = sqlx::query(
            // A claim has no exec; whatever comes after keeps the one it has.
            "UPDATE run SET state = ?4, exec_id = CASE WHEN ?4 <> 'Claimed' THEN coalesce(?5, exec_id) END, \
                            started_at = ?6, finished_at = ?7, exit_code = ?8, reason = ?9, message = ?10, ended_by = ?11, \
                            owner_id = CASE WHEN ?7 IS NULL THEN owner_id END \
             WHERE id = ?1 AND nonce = ?2 AND state = ?3",
        )
        .bind(run.0)
        .bind(self.lease.nonce.to_string())
        .bind(left)
        .bind(to.state)
        .bind(to.exec_id)
        .bind(to.started_at)
        .bind(to.finished_at)
        .bind(to.exit_code)
        .bind(to.reason)
        .bind(to.message)
        .bind(to.ended_by)
        .execute(&mut *conn)
        .await?;
        expect_one(&done)?;
        if let Some(logs) = &self.logs {
            logs.insert(conn, run).await?;
        }
        Ok(Some(record))
    }
}

/// Whether the run is where `event` leads: the same event was stored before, and its caller was not told.
fn is_done(state: &RunState, event: &RunEvent) -> bool {
    match (state, event) {
        (RunState::Starting { exec_id }, RunEvent::ExecCreated { exec_id: created }) => exec_id == created,
        (RunState::Claimed, RunEvent::Withdrawn) => true,
        (RunState::Running { started_at, .. }, RunEvent::Started { at }) => started_at == at,
        (RunState::Ended { finished_at, outcome, .. }, RunEvent::Ended { at, outcome: ended }) => {
            finished_at == at && outcome == ended
        }
        _ => false,
    }
}
