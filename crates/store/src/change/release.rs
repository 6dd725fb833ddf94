//! Giving a claim back.

use oncelet_core::RunState;
use sqlx::SqliteConnection;

use super::{Lease, expect_one, run_by_id};
use crate::StoreError;
use crate::writer::Change;

/// Undoes a claim under which provably nothing was started.
pub(crate) struct GiveBack(pub(crate) Lease);

impl Change for GiveBack {
    type Answer = ();

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        let run = self.0.run;
        let Some(stored) = run_by_id(conn, run).await?.filter(|stored| stored.nonce == self.0.nonce) else {
            return Ok(());
        };
        let attempt = stored.record.attempt;
        match stored.record.state {
            RunState::Claimed if attempt == 1 => {
                let done =
                    sqlx::query("DELETE FROM run WHERE id = ?1 AND nonce = ?2 AND state = 'Claimed' AND attempt = 1")
                        .bind(run.0)
                        .bind(self.0.nonce.to_string())
                        .execute(conn)
                        .await?;
                expect_one(&done)
            }
            // What failed before has failed still.
            RunState::Claimed => {
                let done = sqlx::query(
                    "UPDATE run SET state = 'FailedToStart', attempt = run.attempt - 1, owner_id = NULL, \
                                    claimed_at = failed.claimed_at, exec_id = failed.exec_id, \
                                    finished_at = failed.finished_at, reason = failed.reason, message = failed.message, \
                                    capture = failed.capture, capture_reason = failed.capture_reason \
                     FROM failed_try AS failed \
                     WHERE failed.run_id = run.id AND run.id = ?1 AND run.nonce = ?2 AND run.state = 'Claimed'",
                )
                .bind(run.0)
                .bind(self.0.nonce.to_string())
                .execute(conn)
                .await?;
                expect_one(&done)
            }
            // Released before, by a commit that reported a failure.
            _ if attempt + 1 == self.0.attempt => Ok(()),
            state => Err(StoreError::NotReleasable { run, state: state.name() }),
        }
    }
}
