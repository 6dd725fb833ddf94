//! Claiming a run key.

use jiff::Timestamp;
use oncelet_core::{Capture, Effective, Outcome, Program, RunId, RunKey, RunState};
use serde::Serialize;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Lease, expect, expect_one};
use crate::StoreError;
use crate::row::{StoredRun, bytes, capture_reason, nanos, select_run};
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
    /// Where the object is: an API server, as [`crate::Store::object_runs`] is asked for it. Without it the run is kept as long as
    /// its container is there.
    pub objects: Option<String>,
    /// The program as declared.
    pub program: Program,
    /// What it gets, secrets masked.
    pub effective: Effective,
    /// How many bytes of each output are kept.
    pub log_limit: u64,
    /// Who watches over it.
    pub capture: Capture,
    /// The time.
    pub now: Timestamp,
}

/// Inserts the run, or claims a failed try again.
pub(crate) struct MakeClaim {
    pub(crate) new: NewRun,
    program: String,
    effective: String,
    owner: i64,
    nonce: Uuid,
}

pub(crate) enum Claimed {
    Won(Lease),
    Held(Box<StoredRun>),
}

/// What is inserted for a claim, as the statements below read it.
#[derive(Serialize)]
struct Row<'a> {
    ident: &'a str,
    name: &'a str,
    token: &'a str,
    container_id: &'a str,
    container_name: &'a str,
    engine: &'a str,
    engine_id: Option<&'a str>,
    object_uid: &'a str,
    objects: Option<&'a str>,
    nonce: String,
    owner: i64,
    at: i64,
    capture: &'a str,
    capture_reason: &'a str,
    fingerprint: String,
    program: &'a str,
    effective: &'a str,
    log_limit: i64,
}

/// The runs that have the nonces of the claims in `?1`, each with its claim as `new`.
macro_rules! from_claims {
    () => {
        "FROM json_each(?1) AS new JOIN run \
         ON run.ident = new.value ->> 'ident' AND run.name = new.value ->> 'name' AND run.token = new.value ->> 'token' \
         WHERE run.nonce = new.value ->> 'nonce'"
    };
}

/// Inserts the runs of claims whose keys are free; of two with the same key, the first. Gives the right to each, or `None` where
/// somebody else has the key, or this very claim was committed before.
///
/// All in the same few statements: with many callers, what a claim costs is the way to the database's thread and back.
pub(crate) async fn insert_all(
    claims: &[&MakeClaim],
    conn: &mut SqliteConnection,
) -> Result<Vec<Option<Lease>>, StoreError> {
    let rows = rows(claims)?;
    // Never `RETURNING`: the driver then reports success although the commit failed.
    let done = sqlx::query(
        "INSERT INTO run (ident, name, token, container_id, container_name, engine, object_uid, attempt, epoch, \
                          nonce, owner_id, acquired_at, state, claimed_at, engine_id, capture, capture_reason, objects) \
         SELECT value ->> 'ident', value ->> 'name', value ->> 'token', value ->> 'container_id', \
                value ->> 'container_name', value ->> 'engine', value ->> 'object_uid', 1, 1, \
                value ->> 'nonce', value ->> 'owner', value ->> 'at', 'Claimed', value ->> 'at', value ->> 'engine_id', \
                value ->> 'capture', value ->> 'capture_reason', value ->> 'objects' \
         FROM json_each(?1) WHERE true \
         ON CONFLICT (ident, name, token) DO NOTHING",
    )
    .bind(&rows)
    .execute(&mut *conn)
    .await?;
    let mut leases: Vec<_> = claims.iter().map(|_| None).collect();
    let inserted = done.rows_affected();
    if inserted == 0 {
        return Ok(leases);
    }
    let ids = match claims {
        [_] => vec![(0, done.last_insert_rowid())],
        _ => {
            sqlx::query_as::<_, (i64, i64)>(concat!(
                "SELECT new.key, run.id ",
                from_claims!(),
                " AND run.attempt = 1 AND run.epoch = 1"
            ))
            .bind(&rows)
            .fetch_all(&mut *conn)
            .await?
        }
    };
    for (at, run) in ids {
        if let Some((claim, lease)) =
            usize::try_from(at).ok().and_then(|at| Some((claims.get(at)?, leases.get_mut(at)?)))
        {
            *lease = Some(Lease { run: RunId(run), attempt: 1, epoch: 1, nonce: claim.nonce });
        }
    }
    write_specs(&rows, inserted, conn).await?;
    Ok(leases)
}

fn rows(claims: &[&MakeClaim]) -> Result<String, StoreError> {
    let rows: Vec<_> = claims.iter().map(|claim| claim.row()).collect();
    serde_json::to_string(&rows).map_err(|source| StoreError::Encode { what: "claim", source })
}

/// Writes what the runs are for that have the nonces of these claims, of which there must be so many.
async fn write_specs(rows: &str, count: u64, conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let done = sqlx::query(concat!(
        "INSERT INTO run_spec (run_id, fingerprint, program, effective, log_limit) \
         SELECT run.id, new.value ->> 'fingerprint', new.value ->> 'program', new.value ->> 'effective', \
                new.value ->> 'log_limit' ",
        from_claims!(),
        " ON CONFLICT (run_id) DO UPDATE \
         SET fingerprint = excluded.fingerprint, program = excluded.program, effective = excluded.effective, \
             log_limit = excluded.log_limit",
    ))
    .bind(rows)
    .execute(conn)
    .await?;
    expect(count, &done)
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

    fn row(&self) -> Row<'_> {
        let new = &self.new;
        Row {
            ident: &new.key.ident,
            name: new.key.name.as_str(),
            token: &new.key.token,
            container_id: &new.container_id,
            container_name: &new.container_name,
            engine: &new.engine,
            engine_id: new.engine_id.as_deref(),
            object_uid: &new.object_uid,
            objects: new.objects.as_deref(),
            nonce: self.nonce.to_string(),
            owner: self.owner,
            at: nanos(new.now),
            capture: new.capture.name(),
            capture_reason: capture_reason(&new.capture),
            fingerprint: new.program.fingerprint().to_string(),
            program: &self.program,
            effective: &self.effective,
            log_limit: bytes(new.log_limit),
        }
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
                            message = NULL, engine_id = ?10, capture = ?11, capture_reason = ?12, objects = ?13 \
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
        .bind(&self.new.objects)
        .execute(&mut *conn)
        .await?;
        expect_one(&done)?;
        sqlx::query("DELETE FROM log WHERE run_id = ?1").bind(run.0).execute(&mut *conn).await?;
        write_specs(&rows(&[self])?, 1, conn).await?;
        Ok(Lease { run, attempt: failed.record.attempt + 1, epoch: failed.epoch + 1, nonce: self.nonce })
    }
}

impl Change for MakeClaim {
    type Answer = Claimed;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Claimed, StoreError> {
        if let Some(lease) = insert_all(&[self], conn).await?.into_iter().flatten().next() {
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
