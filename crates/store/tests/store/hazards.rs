//! What SQLite, its driver and disks are known to do.

use std::fs;
use std::path::Path;
use std::process::Command;

use oncelet_core::{Outcome, Ownership};
use oncelet_store::{Claim, Logs, Store};
use sqlx::{ConnectOptions, SqliteConnection};

use crate::children::Process;
use crate::support::{at, chain, claim, failed_to_start, key, new_run, open, run, skipped, win};

/// The driver reports success for an `INSERT … RETURNING` whose commit failed, and goes on inside a broken
/// transaction afterwards; a commit that failed may still be there later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_claim_is_acknowledged_whose_commit_failed_and_the_store_works_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let told = Process::start_without_xfsz("claims_on_a_failing_disk", dir.path(), "").finish();
    let failed = told.iter().filter(|line| line.starts_with("failed")).count();
    assert!(failed > 0, "the disk did not fail: {told:?}");
    let store = open(dir.path()).await;
    for name in told.iter().filter_map(|line| line.strip_prefix("won ")) {
        assert!(store.lookup(&key(name)).await.unwrap().is_some(), "the acknowledged claim {name} is lost: {told:?}");
    }
    assert!(told.iter().any(|line| line == "won after"));
    assert!(!told.iter().any(|line| line.starts_with("held")));
}

#[tokio::test]
async fn a_claim_whose_caller_goes_away_is_made_once_and_can_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    {
        let mut caller = Box::pin(store.claim(new_run(key("seed"))));
        assert!(futures::poll!(&mut caller).is_pending());
    }
    // Behind the first in the queue.
    let Claim::Held(record, Ownership::Mine) = claim(&store, "seed").await else { panic!("claimed twice") };
    let lease = store.take_over(&record, at(9)).await.unwrap().unwrap();
    store.release(lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn daemons_that_read_and_write_at_once_never_see_a_busy_database() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = (0..4).map(|daemon| {
        let dir = dir.path().to_owned();
        tokio::spawn(async move {
            let store = open(&dir).await;
            for number in 0..50 {
                let name = format!("{daemon}-{number}");
                let lease = win(&store, &name).await;
                assert!(store.lookup(&key(&name)).await.unwrap().is_some(), "a claim is not seen by its own daemon");
                store.release(lease).await.unwrap();
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
}

#[tokio::test]
async fn no_program_is_started_when_the_disk_is_almost_full() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_keeping(dir.path(), at(0), 1 << 60).await.unwrap();
    let error = store.claim(new_run(key("seed"))).await.unwrap_err().to_string();
    assert!(error.contains("MiB are free on the disk that holds the run store in"), "{error}");
    assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    assert_eq!(store.lookup(&key("seed")).await.unwrap(), None);
}

/// A small disk of its own; unmounted when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(dir: &'a Path, options: &str) -> Option<Self> {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(dir).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(dir));
        }
        skipped("a small disk cannot be mounted here: this needs root");
        None
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn an_outcome_is_stored_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path(), "size=24m,mode=700") else { return };
    let store = Store::open_keeping(dir.path(), at(0), 0).await.unwrap();
    let lease = run(&store, "seed").await;
    let mut filler = fs::File::create(dir.path().join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    // The WAL keeps the pages that it has, so it takes several changes to need a new one.
    let mut message = String::new();
    while message.len() < 100_000 {
        message += "the disk is full, and that must not be forgotten. ";
    }
    let outcome = Outcome::Interrupted { by: oncelet_core::EndedBy::Container, message, exit_code: None };
    let ended = store.finish(&lease, at(5), outcome.clone(), Logs::default()).await.unwrap();
    assert!(!dir.path().join("reserve").exists(), "the reserve was not needed, so nothing was tested");
    store.close().await;
    let store = Store::open_keeping(dir.path(), at(0), 0).await.unwrap();
    assert_eq!(oncelet_store::Advance::Done(store.run(lease.run_id()).await.unwrap().unwrap()), ended);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path(), "size=24m,mode=700") else { return };
    let store = Store::open_keeping(dir.path(), at(0), 0).await.unwrap();
    win(&store, "seed").await;
    store.close().await;
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(dir.path()).status().unwrap().success());
    let error = chain(&Store::open(dir.path(), at(0)).await.err().unwrap());
    let expected =
        format!("the run store in {} cannot be written: it is read-only for this user", dir.path().display());
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_database_that_is_removed_under_a_running_daemon_takes_no_more_claims() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    win(&store, "seed").await;
    fs::rename(dir.path().join("runs.db"), dir.path().join("gone")).unwrap();
    let error = chain(&store.claim(new_run(key("other"))).await.unwrap_err());
    let expected =
        format!("the run database {}/runs.db was removed or replaced while oncelet used it", dir.path().display());
    assert!(error.contains(&expected), "{error}");
    fs::rename(dir.path().join("gone"), dir.path().join("runs.db")).unwrap();
    win(&store, "other").await;
}

async fn raw(dir: &Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("runs.db"));
    options.connect().await.unwrap()
}

/// A defect or a person with another tool cannot do what would forget a run or let it happen twice.
#[tokio::test]
async fn the_database_itself_refuses_what_must_never_happen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let ended = run(&store, "ended").await;
    let end = Outcome::Finished { exit_code: 0 };
    store.finish(&ended, at(5), end, Logs::default()).await.unwrap();
    let failed = run(&store, "failed").await;
    store.finish(&failed, at(5), failed_to_start(), Logs::default()).await.unwrap();
    win(&store, "claimed").await;
    run(&store, "running").await;
    let mut conn = raw(dir.path()).await;
    for (statement, refusal) in [
        (
            "UPDATE run SET state = 'Unknown', exit_code = NULL, message = 'x' WHERE name = 'team/ended'",
            "one that is over never moves",
        ),
        ("UPDATE run SET exit_code = 1 WHERE name = 'team/ended'", "one that is over never moves"),
        ("DELETE FROM run WHERE name = 'team/ended'", "is deleted only where that was asked for"),
        ("DELETE FROM run WHERE name = 'team/running'", "is deleted only where that was asked for"),
        ("DELETE FROM run WHERE name = 'team/failed'", "is deleted only where that was asked for"),
        (
            "UPDATE run SET state = 'Running', started_at = 1, exec_id = 'x' WHERE name = 'team/claimed'",
            "along its arrows",
        ),
        ("UPDATE run SET state = 'Starting' WHERE name = 'team/running'", "along its arrows"),
        ("UPDATE run SET exec_id = 'other' WHERE name = 'team/running'", "the exec of a run never changes"),
        ("UPDATE run SET started_at = 7 WHERE name = 'team/running'", "the start of a run never changes"),
        ("UPDATE run SET name = 'x' WHERE name = 'team/running'", "the key of a run never changes"),
        ("UPDATE run SET ident = 'x' WHERE name = 'team/running'", "the key of a run never changes"),
        ("UPDATE run SET epoch = epoch - 1 WHERE name = 'team/running'", "only with a new epoch and a new nonce"),
        ("UPDATE run SET epoch = epoch + 1 WHERE name = 'team/running'", "only with a new epoch and a new nonce"),
        ("UPDATE run SET nonce = 'x' WHERE name = 'team/running'", "only with a new epoch and a new nonce"),
        ("UPDATE run SET attempt = 9 WHERE name = 'team/running'", "the attempt counts the claims"),
        ("UPDATE run SET owner_id = NULL WHERE name = 'team/running'", "CHECK constraint failed"),
        ("UPDATE log SET bytes = 9", "the log of a run never changes"),
        ("DELETE FROM log", "the log of a run is kept with it"),
        ("DELETE FROM owner", "FOREIGN KEY constraint failed"),
        ("UPDATE run SET attempt = 'two' WHERE name = 'team/running'", ""),
    ] {
        let error = sqlx::query(statement).execute(&mut conn).await.unwrap_err().to_string();
        assert!(error.contains(refusal), "{statement}: {error}");
    }
    let insert = "INSERT INTO run (ident, name, token, container_id, container_name, engine, object_uid, attempt, epoch, \
                  nonce, owner_id, acquired_at, state, claimed_at) \
                  SELECT ident, 'new', token, container_id, container_name, engine, object_uid, 1, epoch + 1, nonce, \
                  owner_id, acquired_at, state, claimed_at FROM run WHERE name = 'team/claimed'";
    let error = sqlx::query(insert).execute(&mut conn).await.unwrap_err().to_string();
    assert!(error.contains("a run begins as a claim"), "{error}");
}

#[tokio::test]
async fn the_database_is_set_up_to_survive_a_power_failure() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.close().await;
    assert!(!dir.path().join("runs.db-wal").exists(), "a closed store is one file");
    let mut conn = raw(dir.path()).await;
    let pragma = |name: &'static str| sqlx::query_scalar::<_, String>(name);
    assert_eq!(pragma("PRAGMA journal_mode").fetch_one(&mut conn).await.unwrap(), "wal");
    let auto_vacuum: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut conn).await.unwrap();
    assert_eq!(auto_vacuum, 2, "incremental");
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as("EXPLAIN QUERY PLAN SELECT id FROM run WHERE owner_id IS NOT NULL")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert!(plan[0].3.contains("run_open"), "{plan:?}");
}
