//! The changes that the writer makes, each in one file, and the right to make them.

mod absence;
mod adopt;
mod advance;
mod claim;
mod person;
mod release;
mod take_over;

use oncelet_core::RunId;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::StoreError;
use crate::row::{StoredRun, select_run};

pub(crate) use absence::Sighting;
pub(crate) use adopt::Adopt;
pub(crate) use advance::Move;
pub use claim::NewRun;
pub(crate) use claim::{Claimed, MakeClaim, insert_all};
pub(crate) use person::{Forget, Mark};
pub(crate) use release::GiveBack;
pub(crate) use take_over::TakeOver;

/// The right to move one run. It ends without notice when somebody takes the run over: every use of it can be lost.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
    pub(crate) epoch: i64,
    /// Names this acquisition of the run. Whoever acquires it later changes the nonce in the store.
    pub(crate) nonce: Uuid,
}

impl Lease {
    /// The run.
    pub fn run_id(&self) -> RunId {
        self.run
    }

    /// What names this acquisition of the run.
    pub fn nonce(&self) -> String {
        self.nonce.to_string()
    }

    /// How often somebody acquired the run, this time included.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Another handle for the same acquisition, for a change that may outlive its caller.
    pub(crate) fn share(&self) -> Self {
        Self { ..*self }
    }
}

/// Reads a run inside a transaction.
async fn run_by_id(conn: &mut SqliteConnection, run: RunId) -> Result<Option<StoredRun>, StoreError> {
    let row = sqlx::query(select_run!("WHERE run.id = ?1")).bind(run.0).fetch_optional(conn).await?;
    row.as_ref().map(StoredRun::decode).transpose()
}

/// Checks that a row that was read in this very transaction was indeed written.
fn expect_one(done: &sqlx::sqlite::SqliteQueryResult) -> Result<(), StoreError> {
    expect(1, done)
}

/// The same of several.
fn expect(rows: u64, done: &sqlx::sqlite::SqliteQueryResult) -> Result<(), StoreError> {
    // An error of the database: it breaks the transaction.
    if done.rows_affected() == rows { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
}

/// A commit that reported a failure may have been made, and each change is then made again.
#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use oncelet_core::{Effective, Outcome, Program, RunEvent, RunKey, RunName, RunState};

    use super::claim::Claimed;
    use super::*;
    use crate::Store;
    use crate::connect;
    use crate::dir::StoreDir;
    use crate::sidecar::Sidecar;
    use crate::writer::Change;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    async fn store() -> (tempfile::TempDir, Store, SqliteConnection) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), NOW).await.unwrap();
        let layout = StoreDir::new(dir.path()).unwrap();
        let sidecar = Sidecar::read(&layout).unwrap().unwrap();
        let conn = connect::connect(&layout, &sidecar).await.unwrap();
        (dir, store, conn)
    }

    fn new_run() -> NewRun {
        NewRun {
            engine_id: None,
            capture: oncelet_core::Capture::Supervised,
            key: RunKey { ident: "c".into(), name: RunName::of_object("team", "seed"), token: String::new() },
            container_id: "c".into(),
            container_name: "db".into(),
            engine: "unix:///run/docker.sock".into(),
            object_uid: "u".into(),
            objects: None,
            program: Program::default(),
            effective: Effective::default(),
            log_limit: oncelet_core::DEFAULT_LOG_LIMIT,
            now: NOW,
        }
    }

    fn claim() -> MakeClaim {
        MakeClaim::new(new_run(), 1).unwrap()
    }

    fn move_by(lease: &Lease, event: RunEvent) -> Move {
        Move { lease: lease.share(), event, logs: None }
    }

    fn failed() -> RunEvent {
        let outcome = Outcome::FailedToStart { reason: "CommandNotFound".into(), message: "x".into() };
        RunEvent::Ended { at: NOW, outcome }
    }

    async fn won(claim: &MakeClaim, conn: &mut SqliteConnection) -> Lease {
        match claim.apply(conn).await.unwrap() {
            Claimed::Won(lease) => lease,
            Claimed::Held(run) => panic!("held: {run:?}"),
        }
    }

    #[tokio::test]
    async fn every_change_that_is_made_twice_is_made_once_and_answered_alike() {
        let (_dir, store, mut conn) = store().await;
        let conn = &mut conn;
        let first = claim();
        let lease = won(&first, conn).await;
        assert_eq!(won(&first, conn).await, lease);
        assert!(matches!(claim().apply(conn).await, Ok(Claimed::Held(_))), "another claim is another claim");

        let created = move_by(&lease, RunEvent::ExecCreated { exec_id: "e".into() });
        let record = created.apply(conn).await.unwrap();
        assert!(record.is_some());
        assert_eq!(created.apply(conn).await.unwrap(), record);

        let take_over = TakeOver { run: lease.run, seen: 1, owner: 1, nonce: Uuid::new_v4(), now: NOW };
        let taken = take_over.apply(conn).await.unwrap().unwrap();
        assert_eq!(take_over.apply(conn).await.unwrap().as_ref(), Some(&taken));
        let too_late = TakeOver { nonce: Uuid::new_v4(), ..take_over };
        assert_eq!(too_late.apply(conn).await.unwrap(), None);

        for _ in 0..2 {
            let ended = move_by(&taken, failed()).apply(conn).await.unwrap().unwrap();
            assert!(ended.state.is_ended());
        }
        let again = claim();
        let second = won(&again, conn).await;
        assert_eq!((second.attempt, won(&again, conn).await), (2, second.share()));
        for _ in 0..2 {
            GiveBack(second.share()).apply(conn).await.unwrap();
            let run = store.run(lease.run).await.unwrap().unwrap();
            assert!(matches!((run.attempt, run.state), (1, RunState::Ended { .. })));
        }
    }

    /// Claims that wait for the writer together are made in the same statements. Each must be told of its own run.
    #[tokio::test]
    async fn claims_that_are_made_together_are_as_if_made_one_after_the_other() {
        let (_dir, store, mut conn) = store().await;
        let of = |name: &str| {
            let mut new = new_run();
            new.key.name = RunName::of_object("team", name);
            new.program.command = format!("/bin/{name}");
            MakeClaim::new(new, 1).unwrap()
        };
        won(&of("held"), &mut conn).await;
        let claims = [of("first"), of("held"), of("second"), of("first"), of("third")];
        let leases = insert_all(&claims.iter().collect::<Vec<_>>(), &mut conn).await.unwrap();
        let won: Vec<_> = leases.iter().map(Option::is_some).collect();
        assert_eq!(won, [true, false, true, false, true]);
        for (claim, lease) in claims.iter().zip(leases).filter_map(|(claim, lease)| Some((claim, lease?))) {
            let record = store.run(lease.run).await.unwrap().unwrap();
            assert_eq!((&record.key, &record.program), (&claim.new.key, &claim.new.program));
            assert_eq!(self::won(claim, &mut conn).await, lease, "made again, it finds itself");
        }
    }

    #[tokio::test]
    async fn a_release_that_is_made_twice_does_not_release_what_was_claimed_in_between() {
        let (_dir, store, mut conn) = store().await;
        let release = GiveBack(won(&claim(), &mut conn).await);
        release.apply(&mut conn).await.unwrap();
        let lease = won(&claim(), &mut conn).await;
        release.apply(&mut conn).await.unwrap();
        assert!(store.run(lease.run).await.unwrap().is_some());
    }
}
