//! Taking back what the container remembers of a run that the store has lost.

use oncelet_core::{Description, RunRecord, RunState};
use sqlx::SqliteConnection;

use super::{Lease, expect_one, run_by_id};
use crate::StoreError;
use crate::row::{bytes, nanos};
use crate::writer::Change;

/// Gives a run that is about to start the program and the object of the run that the container holds instead.
pub(crate) struct Adopt {
    pub(crate) lease: Lease,
    pub(crate) description: Description,
    pub(crate) program: String,
    pub(crate) effective: String,
}

impl Adopt {
    pub(crate) fn new(lease: &Lease, description: &Description) -> Result<Self, StoreError> {
        let encode = |what| move |source| StoreError::Encode { what, source };
        Ok(Self {
            lease: lease.share(),
            program: serde_json::to_string(&description.program).map_err(encode("program"))?,
            effective: serde_json::to_string(&description.effective).map_err(encode("effective values"))?,
            description: description.clone(),
        })
    }
}

impl Change for Adopt {
    /// `None` where the run is no longer ours.
    type Answer = Option<RunRecord>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<RunRecord>, StoreError> {
        let run = self.lease.run;
        let ours = run_by_id(conn, run).await?.filter(|stored| {
            stored.nonce == self.lease.nonce
                && stored.record.key == self.description.key
                && matches!(stored.record.state, RunState::Starting { .. })
        });
        if ours.is_none() {
            return Ok(None);
        }
        let done = sqlx::query("UPDATE run SET object_uid = ?3, claimed_at = ?4 WHERE id = ?1 AND nonce = ?2")
            .bind(run.0)
            .bind(self.lease.nonce.to_string())
            .bind(&self.description.object_uid)
            .bind(nanos(self.description.claimed_at))
            .execute(&mut *conn)
            .await?;
        expect_one(&done)?;
        let done = sqlx::query(
            "UPDATE run_spec SET fingerprint = ?2, program = ?3, effective = ?4, log_limit = ?5 WHERE run_id = ?1",
        )
        .bind(run.0)
        .bind(self.description.program.fingerprint().to_string())
        .bind(&self.program)
        .bind(&self.effective)
        .bind(self.description.log_limit.map(bytes))
        .execute(&mut *conn)
        .await?;
        expect_one(&done)?;
        Ok(run_by_id(conn, run).await?.map(|stored| stored.record))
    }
}
