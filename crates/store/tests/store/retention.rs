//! What is kept for how long.

use std::time::Duration;

use oncelet_core::{Outcome, RunId, RunKey};
use oncelet_store::{Claim, Filter, Logs, NewRun, Store};

use crate::support::{at, created, done, key, new_run, open, started};

const KEEP: Duration = Duration::from_secs(100);

/// A run that was made for the object `uid` alone, and ended at 5.
async fn of_object(store: &Store, uid: &str, objects: Option<String>) -> RunId {
    let key = RunKey { token: format!("object={uid} rerun=1"), ..key("always") };
    ended(store, NewRun { objects, ..new_run(key) }).await
}

async fn ended(store: &Store, new: NewRun) -> RunId {
    let Claim::Won(lease) = store.claim(new).await.unwrap() else { panic!("it is held") };
    done(store.advance(&lease, created("e1")).await.unwrap());
    done(store.advance(&lease, started()).await.unwrap());
    store.finish(&lease, at(5), Outcome::Finished { exit_code: 0 }, Logs::default()).await.unwrap();
    lease.run_id()
}

async fn asked(store: &Store, objects: &str, second: i64) -> Vec<(RunId, String, bool)> {
    let runs = store.object_runs(objects, RunId(0), KEEP, at(second), 100).await.unwrap();
    runs.into_iter().map(|run| (run.record.id, run.object, run.server_is_gone)).collect()
}

#[tokio::test]
async fn only_runs_of_one_object_that_have_been_over_for_the_time_are_up_for_being_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let ours = of_object(&store, "a", Some("server 1".into())).await;
    let _of_another_server = of_object(&store, "b", Some("server 2".into())).await;
    let _of_an_earlier_release = of_object(&store, "c", None).await;
    let _once = ended(&store, NewRun { objects: Some("server 1".into()), ..new_run(key("once")) }).await;
    let rerun = RunKey { token: "rerun=object=d".into(), ..key("rerun") };
    let _rerun = ended(&store, NewRun { objects: Some("server 1".into()), ..new_run(rerun) }).await;
    let open_key = RunKey { token: "object=e".into(), ..key("open") };
    let _open = store.claim(NewRun { objects: Some("server 1".into()), ..new_run(open_key) }).await.unwrap();

    assert_eq!(asked(&store, "server 1", 104).await, []);
    assert_eq!(asked(&store, "server 1", 105).await, [(ours, "a".to_owned(), false)]);
    assert_eq!(store.object_runs("server 1", ours, KEEP, at(999), 100).await.unwrap(), []);
    assert_eq!(store.forget_each(&[ours]).await.unwrap(), 1);
    assert_eq!(asked(&store, "server 1", 105).await, []);
    assert_eq!(store.list(Filter::default()).await.unwrap().len(), 5);
}

#[tokio::test]
async fn objects_that_went_with_their_daemon_are_known_to_be_gone_and_those_of_a_living_one_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    let second = open(dir.path()).await;
    let of_first = of_object(&first, "a", first.objects_of_this_daemon()).await;
    let ours = second.objects_of_this_daemon().unwrap();
    assert_eq!(asked(&second, &ours, 999).await, []);
    first.close().await;
    assert_eq!(asked(&second, &ours, 999).await, [(of_first, "a".to_owned(), true)]);
    assert_eq!(asked(&second, "server 1", 999).await, [(of_first, "a".to_owned(), true)]);
}

#[tokio::test]
async fn a_thousand_forgotten_runs_leave_a_store_as_small_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let size = || std::fs::metadata(dir.path().join("runs.db")).unwrap().len();
    let round = async || {
        let ids = (0..1000).map(|number| {
            let store = store.clone();
            async move { of_object(&store, &number.to_string(), Some("server 1".into())).await }
        });
        let ids: Vec<_> = futures::future::join_all(ids).await;
        assert_eq!(store.forget_each(&ids).await.unwrap(), 1000);
    };
    round().await;
    let first = size();
    for _ in 0..3 {
        round().await;
    }
    assert!(size() <= first + first / 4, "{} after {first}", size());
    assert_eq!(store.list(Filter::default()).await.unwrap(), []);
}

#[tokio::test]
async fn the_absence_of_a_container_is_forgotten_with_its_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    ended(&store, new_run(key("seed"))).await;
    let container = "c0ffee".repeat(10);
    store.seen("docker:1", &container, false, at(10)).await.unwrap();
    assert_eq!(store.collect("docker:1", &container).await.unwrap(), 1);
    store.close().await;
    let rows = crate::support::count(&dir.path().join("runs.db"), "SELECT count(*) FROM absence").await;
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn logs_of_runs_that_are_not_in_the_store_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let id = ended(&store, new_run(key("seed"))).await;
    let log = |run: i64| dir.path().join(format!("logs/{run}-1.stdout.zst"));
    for run in [id.0, 77] {
        std::fs::write(log(run), b"x").unwrap();
    }
    assert_eq!(store.sweep_logs().await.unwrap(), 1);
    assert!(log(id.0).exists() && !log(77).exists());
}
