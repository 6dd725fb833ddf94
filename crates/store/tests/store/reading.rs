//! Lists, and stores opened for reading.

use oncelet_core::{Ownership, RunEvent};
use oncelet_store::{Filter, Logs, Store, StoreError, Stream};

use crate::support::{at, created, key, new_run, open, record, run, win};

async fn names(store: &Store, filter: Filter) -> Vec<String> {
    store.list(filter).await.unwrap().into_iter().map(|run| run.key.name.to_string()).collect()
}

#[tokio::test]
async fn runs_are_listed_oldest_first_by_name_container_and_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let ended = run(&store, "seed").await;
    store.finish(&ended, at(5), oncelet_core::Outcome::Finished { exit_code: 0 }, Logs::default()).await.unwrap();
    win(&store, "seed-2").await;
    let mut elsewhere = new_run(key("migrate"));
    (elsewhere.container_name, elsewhere.container_id) = ("cache".into(), "beef".repeat(16));
    elsewhere.key.ident = elsewhere.container_id.clone();
    store.claim(elsewhere).await.unwrap();

    let all = Filter::default();
    assert_eq!(names(&store, all.clone()).await, ["team/seed", "team/seed-2", "team/migrate"]);
    assert_eq!(names(&store, Filter { limit: Some(2), ..all.clone() }).await, ["team/seed-2", "team/migrate"]);
    assert_eq!(names(&store, Filter { open_only: true, ..all.clone() }).await, ["team/seed-2", "team/migrate"]);
    let named = |name: &str| Filter { name: Some(name.into()), ..Filter::default() };
    assert_eq!(names(&store, named("team/seed")).await, ["team/seed"]);
    assert_eq!(names(&store, named("seed")).await, ["team/seed"]);
    assert_eq!(names(&store, named("eed")).await, [""; 0]);
    assert_eq!(names(&store, named("%")).await, [""; 0]);
    let within = |container: &str| Filter { container: Some(container.into()), ..Filter::default() };
    assert_eq!(names(&store, within("cache")).await, ["team/migrate"]);
    assert_eq!(names(&store, within("beefbeef")).await, ["team/migrate"]);
    assert_eq!(names(&store, within("nothing")).await, [""; 0]);
}

#[tokio::test]
async fn a_reader_sees_everything_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let reader = Store::open_reader(dir.path()).await.unwrap();
    assert_eq!(reader.owner(), None);
    let (seen, ownership) = reader.lookup(&key("seed")).await.unwrap().unwrap();
    assert_eq!((seen, ownership), (record(&store, "seed").await, Ownership::Other));
    let refused = |error: StoreError| assert_eq!(error.to_string(), "the run store was opened for reading only");
    refused(reader.claim(new_run(key("other"))).await.unwrap_err());
    refused(reader.advance(&lease, created("e")).await.unwrap_err());
    refused(reader.take_over(&record(&store, "seed").await, at(9)).await.unwrap_err());
    refused(reader.log_writer(&lease, Stream::Stdout, None).await.err().unwrap());
    store.close().await;
    assert_eq!(reader.lookup(&key("seed")).await.unwrap().unwrap().1, Ownership::Gone);
    reader.close().await;
    // Nobody has it open now.
    let reader = Store::open_reader(dir.path()).await.unwrap();
    assert!(reader.lookup(&key("seed")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    let clone = store.clone();
    store.close().await;
    let event = RunEvent::ExecCreated { exec_id: "e".into() };
    assert_eq!(clone.advance(&lease, event).await.unwrap_err().to_string(), "the run store is closed");
}

#[tokio::test]
async fn an_unknown_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let run = oncelet_core::RunId(7);
    assert_eq!(store.run(run).await.unwrap(), None);
    assert_eq!(store.logs(run).await.unwrap_err().to_string(), "there is no run 7");
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_names_its_table_column_and_run() {
    use sqlx::ConnectOptions;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    win(&store, "seed").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("runs.db"));
    let mut conn = options.connect().await.unwrap();
    sqlx::query("UPDATE run_spec SET program = '{'").execute(&mut conn).await.unwrap();
    let error = store.lookup(&key("seed")).await.unwrap_err().to_string();
    assert_eq!(error, "run 1, table run_spec, column program: the value cannot be understood");
}
