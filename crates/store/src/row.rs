//! Between rows and [`RunRecord`]s.

use jiff::Timestamp;
use oncelet_core::{Capture, EndedBy, Fingerprint, Outcome, Program, RunId, RunKey, RunName, RunRecord, RunState};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::StoreError;
use crate::owner::OwnerId;

/// A `SELECT` of whole runs, for [`StoredRun::decode`], with what follows its `FROM`.
macro_rules! select_run {
    ($tail:literal) => {
        concat!(
            "SELECT run.*, owner.uuid AS owner, spec.fingerprint, spec.program, spec.effective, spec.log_limit \
             FROM run JOIN run_spec AS spec ON spec.run_id = run.id LEFT JOIN owner ON owner.id = run.owner_id ",
            $tail
        )
    };
}
pub(crate) use select_run;

/// A run with what fences it.
#[derive(Debug)]
pub(crate) struct StoredRun {
    pub(crate) record: RunRecord,
    pub(crate) epoch: i64,
    pub(crate) nonce: Uuid,
    /// `None` exactly when the run is over.
    pub(crate) owner: Option<OwnerId>,
}

/// The columns of [`select_run`], before they are understood.
#[derive(FromRow)]
struct Columns {
    id: i64,
    ident: String,
    name: String,
    token: String,
    container_id: String,
    container_name: String,
    engine: String,
    engine_id: Option<String>,
    object_uid: String,
    attempt: u32,
    capture: String,
    capture_reason: String,
    marked_at: Option<i64>,
    epoch: i64,
    nonce: String,
    owner: Option<String>,
    claimed_at: i64,
    fingerprint: String,
    program: String,
    effective: String,
    log_limit: Option<i64>,
}

impl StoredRun {
    /// Understands one row of [`select_run`].
    pub(crate) fn decode(row: &SqliteRow) -> Result<Self, StoreError> {
        let state = decode_state(row)?;
        let columns = Columns::from_row(row)?;
        let id = columns.id;
        let record = RunRecord {
            id: RunId(id),
            key: RunKey {
                ident: columns.ident,
                name: RunName::try_from(columns.name).map_err(wrong(id, "run", "name"))?,
                token: columns.token,
            },
            container_id: columns.container_id,
            container_name: columns.container_name,
            engine: columns.engine,
            engine_id: columns.engine_id,
            object_uid: columns.object_uid,
            program: json::<Program>(&columns.program).map_err(wrong(id, "run_spec", "program"))?,
            // Kept as it was computed when it was stored, not computed again from the program.
            fingerprint: serde_json::from_value::<Fingerprint>(columns.fingerprint.into()).map_err(wrong(
                id,
                "run_spec",
                "fingerprint",
            ))?,
            effective: json(&columns.effective).map_err(wrong(id, "run_spec", "effective"))?,
            capture: match columns.capture.as_str() {
                "Supervised" => Capture::Supervised,
                "Attached" => Capture::Attached { reason: columns.capture_reason },
                other => return Err(wrong(id, "run", "capture")(format!("no capture is named {other:?}"))),
            },
            log_limit: columns.log_limit.and_then(|limit| u64::try_from(limit).ok()),
            marked_at: columns.marked_at.map(timestamp),
            attempt: columns.attempt,
            claimed_at: timestamp(columns.claimed_at),
            state,
        };
        let nonce = columns.nonce.parse().map_err(wrong(id, "run", "nonce"))?;
        let owner = columns.owner.map(|uuid| uuid.parse()).transpose().map_err(wrong(id, "owner", "uuid"))?;
        Ok(Self { record, epoch: columns.epoch, nonce, owner })
    }
}

fn decode_state(row: &SqliteRow) -> Result<RunState, StoreError> {
    let id: i64 = row.try_get("id")?;
    let time = |column: &str| row.try_get::<i64, _>(column).map(timestamp);
    let text = |column: &str| row.try_get::<String, _>(column);
    let outcome = match row.try_get::<&str, _>("state")? {
        "Claimed" => return Ok(RunState::Claimed),
        "Starting" => return Ok(RunState::Starting { exec_id: text("exec_id")? }),
        "Running" => return Ok(RunState::Running { exec_id: text("exec_id")?, started_at: time("started_at")? }),
        "Finished" => Outcome::Finished { exit_code: row.try_get("exit_code")? },
        "Interrupted" => Outcome::Interrupted {
            by: match row.try_get::<Option<&str>, _>("ended_by")? {
                None | Some("Container") => EndedBy::Container,
                Some("Stop") => EndedBy::Stop,
                Some("Timeout") => EndedBy::Timeout,
                Some("Delete") => EndedBy::Delete,
                Some(other) => return Err(wrong(id, "run", "ended_by")(format!("nobody is named {other:?}"))),
            },
            message: text("message")?,
            exit_code: row.try_get("exit_code")?,
        },
        "FailedToStart" => Outcome::FailedToStart { reason: text("reason")?, message: text("message")? },
        "Unknown" => Outcome::Unknown { message: text("message")? },
        other => return Err(wrong(id, "run", "state")(format!("no state is named {other:?}"))),
    };
    let started_at = row.try_get::<Option<i64>, _>("started_at")?.map(timestamp);
    Ok(RunState::Ended { started_at, finished_at: time("finished_at")?, outcome })
}

/// The columns that hold a [`RunState`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StateColumns {
    pub(crate) state: &'static str,
    /// `None` once the run is over: the row keeps the one it has.
    pub(crate) exec_id: Option<String>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) ended_by: Option<&'static str>,
}

impl From<&RunState> for StateColumns {
    fn from(state: &RunState) -> Self {
        let mut columns = Self { state: state.name(), ..Self::default() };
        match state {
            RunState::Claimed => {}
            RunState::Starting { exec_id } => columns.exec_id = Some(exec_id.clone()),
            RunState::Running { exec_id, started_at } => {
                columns.exec_id = Some(exec_id.clone());
                columns.started_at = Some(nanos(*started_at));
            }
            RunState::Ended { started_at, finished_at, outcome } => {
                columns.started_at = started_at.map(nanos);
                columns.finished_at = Some(nanos(*finished_at));
                columns.exit_code = outcome.exit_code();
                match outcome {
                    Outcome::Finished { .. } => {}
                    Outcome::Interrupted { by, message, .. } => {
                        columns.message = Some(message.clone());
                        columns.ended_by = Some(match by {
                            EndedBy::Container => "Container",
                            EndedBy::Stop => "Stop",
                            EndedBy::Timeout => "Timeout",
                            EndedBy::Delete => "Delete",
                        });
                    }
                    Outcome::Unknown { message } => columns.message = Some(message.clone()),
                    Outcome::FailedToStart { reason, message } => {
                        columns.reason = Some(reason.clone());
                        columns.message = Some(message.clone());
                    }
                }
            }
        }
        columns
    }
}

/// Why nobody watches inside the container; nothing where somebody does.
pub(crate) fn capture_reason(capture: &Capture) -> &str {
    match capture {
        Capture::Supervised => "",
        Capture::Attached { reason } => reason,
    }
}

/// A number of bytes as a column. None is as large as one that does not fit.
pub(crate) fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn wrong<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    run: i64,
    table: &'static str,
    column: &'static str,
) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Decode { run, table, column, source: source.into() }
}

fn json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

/// Nanoseconds since the epoch. Times that do not fit (before 1677, after 2262) become the nearest that does.
pub(crate) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

pub(crate) fn timestamp(nanos: i64) -> Timestamp {
    // Every i64 of nanoseconds is a time that jiff can hold.
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_to_the_nanosecond() {
        for nanos_in in [0, 1, -1, 1_790_000_000_123_456_789, i64::MIN, i64::MAX] {
            assert_eq!(nanos(timestamp(nanos_in)), nanos_in);
        }
        assert_eq!(nanos(Timestamp::MAX), i64::MAX);
        assert_eq!(nanos(Timestamp::MIN), i64::MIN);
    }
}
