//! Daemons that are killed, and stores that are made while others make them.

use std::fs;

use oncelet_core::{Outcome, Ownership, RunState};
use oncelet_store::{Store, Stream};

use crate::children::Process;
use crate::support::{at, done, key, open, record, win};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_killed_daemon_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Process::start("leaves_open_runs", dir.path(), "");
    assert_eq!(child.next().as_deref(), Some("ready"));
    let store = open(dir.path()).await;
    let (running, ownership) = store.lookup(&key("running")).await.unwrap().unwrap();
    assert_eq!(ownership, Ownership::Other);
    assert_eq!(store.take_over(&running, at(9)).await.unwrap(), None);
    child.kill();
    let (found, ownership) = store.lookup(&key("running")).await.unwrap().unwrap();
    assert_eq!((&found, ownership), (&running, Ownership::Gone));
    let lease = store.take_over(&running, at(9)).await.unwrap().unwrap();
    let logs = store.logs(running.id).await.unwrap();
    assert_eq!(logs.stdout.tail, b"before the crash");
    let ended = done(store.finish(&lease, at(9), Outcome::Unknown { message: "killed".into() }, logs).await.unwrap());
    assert!(matches!(ended.state, RunState::Ended { started_at: Some(started), .. } if started == at(2)));
    let mut log = store.read_log(running.id, Stream::Stdout).await.unwrap();
    assert_eq!(log.next_chunk().await.unwrap().unwrap().bytes, "before the crash");

    let claimed = record(&store, "claimed").await;
    let lease = store.take_over(&claimed, at(9)).await.unwrap().unwrap();
    store.release(lease).await.unwrap();
    assert_eq!(store.lookup(&key("claimed")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_claim_that_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let mut child = Process::start("claims_for_ever", dir.path(), &format!("r{round}-"));
        let mut acknowledged: Vec<String> = (0..20 + 7 * round).map_while(|_| child.next()).collect();
        acknowledged.extend(child.kill());
        assert!(acknowledged.len() >= 20);
        let store = open(dir.path()).await;
        for claim in acknowledged {
            let (name, id) = claim.split_once(' ').unwrap();
            let (found, ownership) = store.lookup(&key(name)).await.unwrap().expect("an acknowledged claim is lost");
            assert_eq!((found.id.to_string().as_str(), ownership), (id, Ownership::Gone));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_120_daemons_that_make_the_store_at_once_all_open_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/inside");
    let opens = (0..120).map(|_| {
        let path = path.clone();
        tokio::spawn(async move { Store::open(&path, at(0)).await })
    });
    let stores: Vec<Store> =
        futures::future::join_all(opens).await.into_iter().map(|opened| opened.unwrap().unwrap()).collect();
    win(&stores[0], "seed").await;
    for store in &stores[1..] {
        assert_eq!(store.lookup(&key("seed")).await.unwrap().unwrap().1, Ownership::Other);
    }
}

#[tokio::test]
async fn a_store_whose_making_was_cut_off_is_made_at_the_next_try() {
    let dir = tempfile::tempdir().unwrap();
    // Cut off before the database was in its place.
    fs::write(dir.path().join("store.json"), r#"{"uuid":"8dd0ee42-c53c-4d4b-9b46-cb1a3cc53a8a","creating":true}"#)
        .unwrap();
    fs::write(dir.path().join("runs.db.new"), "half a database").unwrap();
    assert!(
        Store::open_reader(dir.path()).await.is_err_and(|error| error.to_string().starts_with("there is no run store"))
    );
    let store = open(dir.path()).await;
    win(&store, "seed").await;
    store.close().await;
    // Cut off before the last step.
    let sidecar = fs::read_to_string(dir.path().join("store.json")).unwrap();
    assert!(!sidecar.contains("creating"));
    fs::write(dir.path().join("store.json"), sidecar.replace('}', r#", "creating": true}"#)).unwrap();
    let store = open(dir.path()).await;
    assert!(store.lookup(&key("seed")).await.unwrap().is_some());
    assert_eq!(fs::read_to_string(dir.path().join("store.json")).unwrap(), sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_are_gone_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let count = || fs::read_dir(dir.path().join("owners")).unwrap().count();
    let mut child = Process::start("leaves_open_runs", dir.path(), "");
    child.next();
    child.kill();
    assert_eq!(count(), 1);
    let store = open(dir.path()).await;
    assert_eq!(count(), 1, "its own");
    assert_eq!(store.lookup(&key("running")).await.unwrap().unwrap().1, Ownership::Gone);
    store.close().await;
    assert_eq!(count(), 0);
}
