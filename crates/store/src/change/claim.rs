//! Claiming a run key.

use jiff::Timestamp;
use oncelet_core::{Capture, Effective, Outcome, Program, RunKey, RunState};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Lease, expect_one};
use crate::StoreError;
use crate::row::{StoredRun, capture_reason, nanos, select_run};
use crate::writer::Change;

/// What to claim, and what would run.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// What the run is remembered by.
    pub key: RunKey,
    /// The engine's full ID of the container.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// The engine's address, for people.
    pub engine: String,
    /// What tells the engine from another one behind the same address. Without it the run is never collected.
    pub engine_id: Option<String>,
    /// The UID of the object for which it runs.
    pub object_uid: String,
    /// The program as declared.
    pub program: Program,
    /// What it gets, secrets masked.
    pub effective: Effective,
    /// Who watches over it.
    pub capture: Capture,
    /// The time.
    pub now: Timestamp,
}

/// Inserts the run, or claims a failed try again.
pub(crate) struct MakeClaim {
    new: NewRun,
    program: String,
    effective: String,
    owner: i64,
    nonce: Uuid,
}

pub(crate) enum Claimed {
    Won(Lease),
    Held(Box<StoredRun>),
}

impl MakeClaim {
    pub(crate) fn new(new: NewRun, owner: i64) -> Result<Self, StoreError> {
        let encode = |what| move |source| StoreError::Encode { what, source };
        Ok(Self {
            program: serde_json::to_string(&new.program).map_err(encode("program"))?,
            effective: serde_json::to_string(&new.effective).map_err(encode("effective values"))?,
            owner,
            nonce: Uuid::new_v4(),
            new,
        })
    }

    async fn insert(&self, conn: &mut SqliteConnection) -> Result<Option<Lease>, StoreError> {
        // Never `RETURNING`: the driver then reports success although the commit failed.
        let done = sqlx::query(
            "INSERT INTO run (ident, name, token, container_id, container_name, engine, object_uid, attempt, epoch, \
                              nonce, owner_id, acquired_at, state, claimed_at, engine_id, capture, capture_reason) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, 1, ?8, ?9, ?10, 'Claimed', ?10, ?11, ?12, ?13) \
             ON CONFLICT (ident, name, token) DO NOTHING",
        )
        .bind(&self.new.key.ident)
        .bind(self.new.key.name.as_str())
        .bind(&self.new.key.token)
        .bind(&self.new.container_id)
        .bind(&self.new.container_name)
        .bind(&self.new.engine)
        .bind(&self.new.object_uid)
        .bind(self.nonce.to_string())
        .bind(self.owner)
        .bind(nanos(self.new.now))
        .bind(&self.new.engine_id)
        .bind(self.new.capture.name())
        .bind(capture_reason(&self.new.capture))
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        let run = done.last_insert_rowid();
        self.write_spec(conn, run).await?;
        Ok(Some(Lease { run: oncelet_core::RunId(run), attempt: 1, epoch: 1, nonce: self.nonce }))
    }

    async fn write_spec(&self, conn: &mut SqliteConnection, run: i64) -> Result<(), StoreError> {
        let done = sqlx::query(
            "INSERT INTO run_spec (run_id, fingerprint, program, effective) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (run_id) DO UPDATE SET fingerprint = ?2, program = ?3, effective = ?4",
        )
        .bind(run)
        .bind(self.new.program.fingerprint().to_string())
        .bind(&self.program)
        .bind(&self.effective)
        .execute(conn)
        .await?;
        expect_one(&done)
    }

    async fn holder(&self, conn: &mut SqliteConnection) -> Result<StoredRun, StoreError> {
        let row = sqlx::query(select_run!("WHERE run.ident = ?1 AND run.name = ?2 AND run.token = ?3"))
            .bind(&self.new.key.ident)
            .bind(self.new.key.name.as_str())
            .bind(&self.new.key.token)
            .fetch_one(conn)
            .await?;
        StoredRun::decode(&row)
    }

    /// Claims again what failed to start.
    async fn claim_again(&self, conn: &mut SqliteConnection, failed: &StoredRun) -> Result<Lease, StoreError> {
        let run = failed.record.id;
        sqlx::query(
            "INSERT OR REPLACE INTO failed_try \
                 (run_id, claimed_at, exec_id, finished_at, reason, message, capture, capture_reason) \
             SELECT id, claimed_at, exec_id, finished_at, reason, message, capture, capture_reason FROM run WHERE id = ?1",
        )
        .bind(run.0)
        .execute(&mut *conn)
        .await?;
        let done = sqlx::query(
            "UPDATE run SET container_id = ?3, container_name = ?4, engine = ?5, object_uid = ?6, \
                            attempt = attempt + 1, epoch = epoch + 1, nonce = ?7, owner_id = ?8, \
                            acquired_at = ?9, state = 'Claimed', claimed_at = ?9, exec_id = NULL, started_at = NULL, finished_at = NULL, reason = NULL, \
                            message = NULL, engine_id = ?10, capture = ?11, capture_reason = ?12 \
             WHERE id = ?1 AND epoch = ?2 AND state = 'FailedToStart'",
        )
        .bind(run.0)
        .bind(failed.epoch)
        .bind(&self.new.container_id)
        .bind(&self.new.container_name)
        .bind(&self.new.engine)
        .bind(&self.new.object_uid)
        .bind(self.nonce.to_string())
        .bind(self.owner)
        .bind(nanos(self.new.now))
        .bind(&self.new.engine_id)
        .bind(self.new.capture.name())
        .bind(capture_reason(&self.new.capture))
        .execute(&mut *conn)
        .await?;
        expect_one(&done)?;
        sqlx::query("DELETE FROM log WHERE run_id = ?1").bind(run.0).execute(&mut *conn).await?;
        self.write_spec(conn, run.0).await?;
        Ok(Lease { run, attempt: failed.record.attempt + 1, epoch: failed.epoch + 1, nonce: self.nonce })
    }
}

impl Change for MakeClaim {
    type Answer = Claimed;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Claimed, StoreError> {
        if let Some(lease) = self.insert(conn).await? {
            return Ok(Claimed::Won(lease));
        }
        let holder = self.holder(conn).await?;
        let record = &holder.record;
        if holder.nonce == self.nonce {
            // This very claim was committed before, and its commit reported a failure.
            return Ok(Claimed::Won(Lease {
                run: record.id,
                attempt: record.attempt,
                epoch: holder.epoch,
                nonce: self.nonce,
            }));
        }
        if matches!(record.state, RunState::Ended { outcome: Outcome::FailedToStart { .. }, .. }) {
            return self.claim_again(conn, &holder).await.map(Claimed::Won);
        }
        Ok(Claimed::Held(Box::new(holder)))
    }
}
