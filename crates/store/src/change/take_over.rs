//! Taking over an open run.

use jiff::Timestamp;
use oncelet_core::RunId;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Lease, run_by_id};
use crate::StoreError;
use crate::row::nanos;
use crate::writer::Change;

/// Makes an open run ours, if nobody acquired it since it was seen.
pub(crate) struct TakeOver {
    pub(crate) run: RunId,
    /// The epoch under which it was seen.
    pub(crate) seen: i64,
    pub(crate) owner: i64,
    pub(crate) nonce: Uuid,
    pub(crate) now: Timestamp,
}

impl Change for TakeOver {
    /// `None` where somebody was faster, or the run is over.
    type Answer = Option<Lease>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<Lease>, StoreError> {
        sqlx::query(
            "UPDATE run SET epoch = epoch + 1, nonce = ?3, owner_id = ?4, acquired_at = ?5 \
             WHERE id = ?1 AND epoch = ?2 AND owner_id IS NOT NULL",
        )
        .bind(self.run.0)
        .bind(self.seen)
        .bind(self.nonce.to_string())
        .bind(self.owner)
        .bind(nanos(self.now))
        .execute(&mut *conn)
        .await?;
        // Ours, now or by a commit before that reported a failure.
        let ours = run_by_id(conn, self.run).await?.filter(|run| run.nonce == self.nonce);
        Ok(ours.map(|run| Lease { run: self.run, attempt: run.record.attempt, epoch: run.epoch, nonce: self.nonce }))
    }
}
