//! A store that lost its memory opens for nobody: every program would run again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use oncelet_core::{Outcome, Ownership};
use oncelet_store::{Logs, Store};
use sqlx::ConnectOptions;

use crate::support::{at, chain, key, open, run};

const RESTORE: &str = "restore it from a backup with oncelet store restore --force FILE, or move its directory away to \
                       begin anew: what the containers remember is taken back, the rest runs once more";

/// A closed store that remembers one run.
async fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    store.finish(&lease, at(5), Outcome::Finished { exit_code: 0 }, Logs::default()).await.unwrap();
    store.close().await;
    dir
}

/// The content of each file that a store is made of. An empty one is as good as none.
fn content(dir: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    ["runs.db", "store.json", "runs.db-wal"]
        .into_iter()
        .map(|name| (name, fs::read(dir.join(name)).unwrap_or_default()))
        .collect()
}

/// The refusal of a daemon; that of a reader must be the same, and nothing may have changed.
async fn refusal(dir: &Path) -> String {
    let before = content(dir);
    let daemon = chain(&Store::open(dir, at(0)).await.err().expect("the daemon was not refused"));
    let reader = chain(&Store::open_reader(dir).await.err().expect("the reader was not refused"));
    assert_eq!(daemon, reader);
    assert!(content(dir) == before, "the refused store was changed");
    daemon
}

async fn sql(dir: &Path, statement: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("runs.db"));
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(statement).execute(&mut conn).await.unwrap();
    sqlx::Connection::close(conn).await.unwrap();
}

#[tokio::test]
async fn an_empty_database_is_refused() {
    let dir = store().await;
    fs::write(dir.path().join("runs.db"), "").unwrap();
    let path = dir.path().display();
    let expected = format!("the run database {path}/runs.db is empty (0 bytes): what it remembered is lost; {RESTORE}");
    assert_eq!(refusal(dir.path()).await, expected);
}

#[tokio::test]
async fn a_missing_database_is_refused() {
    let dir = store().await;
    fs::remove_file(dir.path().join("runs.db")).unwrap();
    let path = dir.path().display();
    let expected =
        format!("the run database {path}/runs.db is missing, but the store it belongs to is there; {RESTORE}");
    assert_eq!(refusal(dir.path()).await, expected);
}

#[tokio::test]
async fn a_missing_sidecar_is_refused() {
    let dir = store().await;
    fs::remove_file(dir.path().join("store.json")).unwrap();
    let path = dir.path().display();
    let expected = format!(
        "{path}/store.json is missing, so it cannot be told whether the run database beside it is the right one; {RESTORE}"
    );
    assert_eq!(refusal(dir.path()).await, expected);
}

#[tokio::test]
async fn a_damaged_sidecar_is_refused() {
    let dir = store().await;
    fs::write(dir.path().join("store.json"), "{").unwrap();
    let expected = format!("{}/store.json is damaged; {RESTORE}: EOF while parsing", dir.path().display());
    let error = refusal(dir.path()).await;
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_database_of_garbage_is_refused() {
    let dir = store().await;
    fs::write(dir.path().join("runs.db"), vec![0x5a; 40_960]).unwrap();
    let expected = format!("the run database {}/runs.db is damaged; {RESTORE}: ", dir.path().display());
    let error = refusal(dir.path()).await;
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_database_that_was_cut_off_is_refused() {
    let dir = store().await;
    let whole = fs::read(dir.path().join("runs.db")).unwrap();
    for length in [100, 4096, whole.len() / 2] {
        fs::write(dir.path().join("runs.db"), &whole[..length]).unwrap();
        let error = refusal(dir.path()).await;
        assert!(error.contains("runs.db is damaged"), "{length} bytes: {error}");
    }
}

#[tokio::test]
async fn the_database_of_another_store_is_refused() {
    let (dir, other) = (store().await, store().await);
    fs::copy(other.path().join("runs.db"), dir.path().join("runs.db")).unwrap();
    let error = refusal(dir.path()).await;
    let expected = format!("the run database {}/runs.db is that of another store (", dir.path().display());
    assert!(error.starts_with(&expected) && error.ends_with(RESTORE), "{error}");
}

#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    let dir = store().await;
    sql(dir.path(), "PRAGMA application_id = 7; PRAGMA journal_mode = DELETE").await;
    let expected = format!("{}/runs.db is a database, but not a run store of oncelet; {RESTORE}", dir.path().display());
    assert_eq!(refusal(dir.path()).await, expected);
}

#[tokio::test]
async fn a_store_of_a_newer_release_is_refused_at_once() {
    let dir = store().await;
    sql(dir.path(), "UPDATE store SET min_writer = 99; PRAGMA user_version = 99").await;
    let expected = format!(
        "the run database {}/runs.db was written by a newer release of oncelet (it asks for schema 99, this release \
         knows 5); use that release or a later one",
        dir.path().display()
    );
    assert_eq!(refusal(dir.path()).await, expected);
}

#[tokio::test]
async fn a_newer_schema_that_older_releases_may_write_is_used() {
    let dir = store().await;
    sql(dir.path(), "ALTER TABLE run ADD COLUMN novelty TEXT; PRAGMA user_version = 99").await;
    let store = open(dir.path()).await;
    assert_eq!(store.lookup(&key("seed")).await.unwrap().unwrap().1, Ownership::Nobody);
    run(&store, "other").await;
}

#[tokio::test]
async fn an_absent_store_is_made_by_a_daemon_and_reported_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("none");
    let error = Store::open_reader(&absent).await.err().unwrap();
    assert!(matches!(error, oncelet_store::OpenError::NotFound { .. }));
    let expected =
        format!("there is no run store in {}; has the daemon run with this data directory?", absent.display());
    assert_eq!(error.to_string(), expected);
    assert!(!absent.exists());
    open(&absent).await;
    Store::open_reader(&absent).await.unwrap();
}

#[tokio::test]
async fn a_file_in_the_place_of_the_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = chain(&Store::open(&path, at(0)).await.err().unwrap());
    assert!(error.starts_with(&format!("{} cannot be used for the run store: ", path.display())), "{error}");
}
