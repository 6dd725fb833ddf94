//! A store that an older release wrote.

use oncelet_core::{Capture, EndedBy, Outcome, RunState};
use oncelet_store::{Filter, Store};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::support::{at, open, win};

/// Turns the store in `dir` back into one of schema 1, with a run in each state.
async fn make_old(dir: &std::path::Path) {
    open(dir).await.close().await;
    let path = dir.join("runs.db");
    let uuid: String = {
        let mut conn = connect(&path).await;
        sqlx::query_scalar("SELECT uuid FROM store").fetch_one(&mut conn).await.unwrap()
    };
    std::fs::remove_file(&path).unwrap();
    let mut conn = connect(&path).await;
    conn.execute(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, \
         execution_time BIGINT NOT NULL)",
    )
    .await
    .unwrap();
    let first = include_str!("../../migrations/0001_runs.sql");
    conn.execute(first).await.unwrap();
    let all = sqlx::migrate!("./migrations");
    let checksum = all.iter().next().unwrap().checksum.to_vec();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (1, 'runs', CURRENT_TIMESTAMP, TRUE, ?1, 1)")
        .bind(checksum)
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query("INSERT INTO store VALUES (1, ?1, 1, 0)").bind(uuid).execute(&mut conn).await.unwrap();
    conn.execute("INSERT INTO owner VALUES (1, '00000000-0000-4000-8000-000000000000', 'h', 1, '0.1.0', 0)")
        .await
        .unwrap();
    for (id, then) in [
        (1, ""),
        (2, "state = 'Starting', exec_id = 'e'"),
        (3, "state = 'Starting', exec_id = 'e'; state = 'Running', started_at = 2"),
        (
            4,
            "state = 'Starting', exec_id = 'e'; state = 'Running', started_at = 2; \
             state = 'Finished', exit_code = 3, finished_at = 4, owner_id = NULL",
        ),
        (
            5,
            "state = 'Starting', exec_id = 'e'; state = 'Running', started_at = 2; \
             state = 'Interrupted', message = 'stopped', exit_code = 137, finished_at = 4, owner_id = NULL",
        ),
        (
            6,
            "state = 'Starting', exec_id = 'e'; \
             state = 'FailedToStart', reason = 'BadUser', message = 'x', finished_at = 4, owner_id = NULL",
        ),
    ] {
        sqlx::query(
            "INSERT INTO run (id, ident, name, token, container_id, container_name, engine, object_uid, attempt, epoch, \
             nonce, owner_id, acquired_at, state, claimed_at) \
             VALUES (?1, 'c', 'team/' || ?1, '', 'c', 'db', 'unix:///x', 'uid', 1, 1, \
             '00000000-0000-4000-8000-000000000001', 1, 0, 'Claimed', 1)",
        )
        .bind(id)
        .execute(&mut conn)
        .await
        .unwrap();
        sqlx::query("INSERT INTO run_spec VALUES (?1, 'f', '{\"command\":\"true\"}', ?2)")
            .bind(id)
            .bind(if id == 4 { SECRET } else { r#"{"args":[],"env":[]}"# })
            .execute(&mut conn)
            .await
            .unwrap();
        for step in then.split("; ").filter(|step| !step.is_empty()) {
            let statement = format!("UPDATE run SET {step} WHERE id = {id}");
            conn.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
    }
    conn.close().await.unwrap();
}

async fn connect(path: &std::path::Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// What a run got, as older releases kept it: the hashes need no key.
const SECRET: &str = r#"{"args":[{"text":"-c"},{"text":"pw=<from secret db/pw>","secret_sha256":"00aa"},{"text":"last"}],
    "env":[["A",{"text":"1"}],["PW",{"text":"<from secret db/pw>","secret_sha256":"11bb"}]],
    "stdin":{"bytes":7,"secretSha256":"22cc"}}"#;

#[tokio::test]
async fn hashes_of_secrets_that_need_no_key_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    make_old(dir.path()).await;
    let store = Store::open(dir.path(), at(0)).await.unwrap();
    let record = store.list(Filter::default()).await.unwrap().remove(3);
    let args: Vec<_> = record.effective.args.iter().map(|arg| arg.text.as_str()).collect();
    assert_eq!(args, ["-c", "pw=<from secret db/pw>", "last"]);
    assert_eq!(record.effective.env[1].1.text, "<from secret db/pw>");
    assert_eq!(record.effective.stdin.unwrap().bytes, 7);
    store.close().await;
    let bytes = std::fs::read(dir.path().join("runs.db")).unwrap();
    for hash in ["00aa", "11bb", "22cc"] {
        assert!(!bytes.windows(4).any(|window| window == hash.as_bytes()), "{hash}");
    }
}

#[tokio::test]
async fn a_store_has_one_key_for_the_hashes_of_secrets_and_keeps_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_old(dir.path()).await;
    let mut hashes = Vec::new();
    for dir in [dir.path(), dir.path(), other.path()] {
        let store = Store::open(dir, at(0)).await.unwrap();
        hashes.push(store.secret_hash().unwrap()("PW", b"hunter2"));
        store.close().await;
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    let reader = Store::open_reader(dir.path()).await.unwrap();
    assert!(reader.secret_hash().is_err(), "whoever only reads needs no key");
}

#[tokio::test]
async fn a_store_of_the_first_schema_keeps_every_run() {
    let dir = tempfile::tempdir().unwrap();
    make_old(dir.path()).await;
    let store = Store::open(dir.path(), at(0)).await.unwrap();
    let runs = store.list(Filter::default()).await.unwrap();
    let states: Vec<_> = runs.iter().map(|record| record.state.name()).collect();
    assert_eq!(states, ["Claimed", "Starting", "Running", "Finished", "Interrupted", "FailedToStart"]);
    for record in &runs {
        let Capture::Attached { reason } = &record.capture else { panic!("{record:?}") };
        assert!(reason.contains("before there were supervisors"), "{reason}");
        assert_eq!((record.claimed_at.as_nanosecond(), record.marked_at, record.log_limit), (1, None, None));
    }
    let RunState::Ended { outcome, .. } = &runs[4].state else { panic!("{:?}", runs[4]) };
    let stopped = Outcome::Interrupted { by: EndedBy::Container, message: "stopped".into(), exit_code: Some(137) };
    assert_eq!(*outcome, stopped);
    // It can be written to.
    win(&store, "new").await;
    store.close().await;
    let reopened = Store::open(dir.path(), at(1)).await.unwrap();
    assert_eq!(reopened.list(Filter::default()).await.unwrap().len(), 7);
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_brought_to_this_one() {
    let dir = tempfile::tempdir().unwrap();
    make_old(dir.path()).await;
    let file = dir.path().join("backup.tar.zst");
    let old = Store::open_reader(dir.path()).await.unwrap();
    old.backup(&file, false, at(0)).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let restored = oncelet_store::restore(&file, &other.path().join("store"), false, at(1)).await.unwrap();
    assert_eq!((restored.runs, restored.open), (6, 3));
    let store = open(&other.path().join("store")).await;
    win(&store, "new").await;
}

#[tokio::test]
async fn a_release_of_the_first_schema_may_not_write_any_more() {
    let dir = tempfile::tempdir().unwrap();
    make_old(dir.path()).await;
    Store::open(dir.path(), at(0)).await.unwrap().close().await;
    let mut conn = connect(&dir.path().join("runs.db")).await;
    let (min_writer, schema): (i64, i64) =
        sqlx::query_as("SELECT min_writer, (SELECT user_version FROM pragma_user_version) FROM store")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!((min_writer, schema), (2, 5));
}
