//! What the tests share.

use std::path::Path;

use jiff::Timestamp;
use oncelet_core::{Effective, EnvVar, Outcome, Program, RunEvent, RunKey, RunName, RunRecord, Shown, ValueSource};
use oncelet_store::{Advance, Claim, Lease, NewRun, Store};

/// A time, so many seconds and nanoseconds after some beginning.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::new(1_790_000_000 + second, 123_456_789).unwrap()
}

pub(crate) async fn open(dir: &Path) -> Store {
    Store::open(dir, at(0)).await.unwrap()
}

pub(crate) fn key(name: &str) -> RunKey {
    RunKey { ident: "c0ffee".repeat(10), name: RunName::of_object("team", name), token: String::new() }
}

pub(crate) fn new_run(key: RunKey) -> NewRun {
    NewRun {
        engine_id: Some("docker:1".into()),
        capture: oncelet_core::Capture::Supervised,
        key,
        container_id: "c0ffee".repeat(10),
        container_name: "db".into(),
        engine: "unix:///var/run/docker.sock".into(),
        object_uid: "11111111-2222".into(),
        objects: None,
        program: Program {
            command: "psql".into(),
            args: vec!["-c".into(), "select 1; -- ünïcödé".into()],
            env: vec![EnvVar {
                name: "PGPASSWORD".into(),
                source: ValueSource::SecretKeyRef { name: "db".into(), key: "password".into(), optional: false },
            }],
            ..Program::default()
        },
        effective: Effective {
            args: vec![Shown { text: "-c".into(), secret_hmac: None }],
            env: vec![(
                "PGPASSWORD".into(),
                Shown { text: "<from secret db/password>".into(), secret_hmac: Some("ab".repeat(32)) },
            )],
            stdin: None,
        },
        log_limit: 1 << 20,
        now: at(1),
    }
}

pub(crate) async fn claim(store: &Store, name: &str) -> Claim {
    store.claim(new_run(key(name))).await.unwrap()
}

pub(crate) async fn win(store: &Store, name: &str) -> Lease {
    match claim(store, name).await {
        Claim::Won(lease) => lease,
        Claim::Held(record, ownership) => panic!("{name} is held ({ownership:?}): {record:?}"),
    }
}

pub(crate) async fn record(store: &Store, name: &str) -> RunRecord {
    store.lookup(&key(name)).await.unwrap().unwrap().0
}

pub(crate) fn done(advance: Advance) -> RunRecord {
    match advance {
        Advance::Done(record) => record,
        Advance::Lost => panic!("the run is no longer ours"),
    }
}

pub(crate) fn created(exec: &str) -> RunEvent {
    RunEvent::ExecCreated { exec_id: exec.into() }
}

pub(crate) fn started() -> RunEvent {
    RunEvent::Started { at: at(2) }
}

pub(crate) fn failed_to_start() -> Outcome {
    Outcome::FailedToStart { reason: "CommandNotFound".into(), message: "psql: not found".into() }
}

/// A run that has been started.
pub(crate) async fn run(store: &Store, name: &str) -> Lease {
    let lease = win(store, name).await;
    done(store.advance(&lease, created("e1")).await.unwrap());
    done(store.advance(&lease, started()).await.unwrap());
    lease
}

/// An error with its causes, as people see it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Says loudly why something was not tested.
pub(crate) fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Runs statements on a database that nobody else has open.
pub(crate) async fn sql(database: &Path, statements: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).foreign_keys(false);
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(statements).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// A number that a query gives.
pub(crate) async fn count(database: &Path, query: &'static str) -> i64 {
    use sqlx::{ConnectOptions, Connection};
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(database).connect().await.unwrap();
    let count = sqlx::query_scalar(query).fetch_one(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    count
}
