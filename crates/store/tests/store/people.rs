//! What a person, a lost store and a container that is gone change about runs that never change by themselves.

use oncelet_core::{Capture, Description, EndedBy, Outcome, RunEvent, RunKey, RunName, RunState};
use oncelet_store::{Advance, Claim, Logs, Store, StoreError, Stream};

use crate::support::{at, claim, created, done, key, new_run, open, record, run, started, win};

fn unknown() -> Outcome {
    Outcome::Unknown { message: "nobody watched".into() }
}

#[tokio::test]
async fn a_person_says_once_how_an_unknown_run_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "lost").await;
    store.finish(&lease, at(5), unknown(), Logs::default()).await.unwrap();
    let marked = store.mark(lease.run_id(), 0, at(9)).await.unwrap();
    assert!(matches!(marked.state, RunState::Ended { outcome: Outcome::Finished { exit_code: 0 }, .. }));
    assert_eq!(marked.marked_at, Some(at(9)));
    assert_eq!(record(&store, "lost").await, marked);
    let again = store.mark(lease.run_id(), 1, at(10)).await.unwrap_err();
    assert!(matches!(again, StoreError::NotMarkable { .. }), "{again}");
}

#[tokio::test]
async fn what_somebody_saw_and_what_still_runs_is_not_marked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let seen = run(&store, "seen").await;
    store.finish(&seen, at(5), Outcome::Finished { exit_code: 3 }, Logs::default()).await.unwrap();
    let open_run = run(&store, "open").await;
    for run in [seen.run_id(), open_run.run_id()] {
        assert!(matches!(store.mark(run, 0, at(9)).await, Err(StoreError::NotMarkable { .. })), "{run}");
    }
}

#[tokio::test]
async fn a_forgotten_run_may_be_claimed_again_and_its_logs_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    log.write(at(2), bytes::Bytes::from_static(b"seeded")).await.unwrap();
    let logs = Logs { stdout: log.finish().await.unwrap(), ..Logs::default() };
    let still_open = store.forget(lease.run_id()).await.unwrap_err();
    assert!(matches!(still_open, StoreError::StillOpen { state: "Running", .. }), "{still_open}");
    store.finish(&lease, at(5), Outcome::Finished { exit_code: 0 }, logs).await.unwrap();
    let files = || std::fs::read_dir(dir.path().join("logs")).unwrap().count();
    assert_eq!(files(), 1);

    store.forget(lease.run_id()).await.unwrap();
    assert_eq!(store.lookup(&key("seed")).await.unwrap(), None);
    assert_eq!(files(), 0);
    assert!(matches!(store.forget(lease.run_id()).await, Err(StoreError::NoSuchRun(_))));
    assert!(matches!(claim(&store, "seed").await, Claim::Won(_)));
}

#[tokio::test]
async fn a_supervised_start_that_started_nothing_goes_back_to_a_claim() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    done(store.advance(&lease, created("e1")).await.unwrap());
    let record = done(store.advance(&lease, RunEvent::Withdrawn).await.unwrap());
    assert_eq!(record.state, RunState::Claimed);
    // Said again, as after a commit that reported a failure.
    done(store.advance(&lease, RunEvent::Withdrawn).await.unwrap());
    let other = done(store.advance(&lease, created("e2")).await.unwrap());
    assert_eq!(other.state, RunState::Starting { exec_id: "e2".into() });
    done(store.advance(&lease, RunEvent::Withdrawn).await.unwrap());
    store.release(lease).await.unwrap();
    assert_eq!(store.lookup(&key("seed")).await.unwrap(), None);
}

#[tokio::test]
async fn an_attached_start_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut new = new_run(key("seed"));
    new.capture = Capture::Attached { reason: "read-only".into() };
    let Claim::Won(lease) = store.claim(new).await.unwrap() else { panic!("it is free") };
    done(store.advance(&lease, created("e1")).await.unwrap());
    let refused = store.advance(&lease, RunEvent::Withdrawn).await.unwrap_err();
    assert!(refused.to_string().contains("database"), "{refused}");
    assert_eq!(record(&store, "seed").await.capture, Capture::Attached { reason: "read-only".into() });
}

#[tokio::test]
async fn who_ended_a_run_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for by in [EndedBy::Container, EndedBy::Stop, EndedBy::Timeout, EndedBy::Delete] {
        let name = format!("{by:?}");
        let lease = run(&store, &name).await;
        let outcome = Outcome::Interrupted { by, message: "x".into(), exit_code: Some(143) };
        store.finish(&lease, at(5), outcome.clone(), Logs::default()).await.unwrap();
        let RunState::Ended { outcome: stored, .. } = record(&store, &name).await.state else { panic!("it is over") };
        assert_eq!(stored, outcome);
    }
}

#[tokio::test]
async fn a_lost_run_is_taken_back_from_its_container() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    done(store.advance(&lease, created("e1")).await.unwrap());
    let mut program = new_run(key("seed")).program;
    program.command = "older".into();
    let description = Description {
        key: key("seed"),
        object_uid: "an-older-object".into(),
        program: program.clone(),
        effective: oncelet_core::Effective::default(),
        log_limit: Some(1000),
        claimed_at: at(-100),
        container_started_at: None,
    };
    let adopted = done(store.adopt(&lease, &description).await.unwrap());
    assert_eq!((adopted.object_uid.as_str(), &adopted.program), ("an-older-object", &program));
    assert_eq!((adopted.claimed_at, adopted.fingerprint), (at(-100), program.fingerprint()));
    assert_eq!(adopted.log_limit, Some(1000));
    done(store.advance(&lease, started()).await.unwrap());
    // Only what has not been seen running yet, and only under its own key.
    assert_eq!(store.adopt(&lease, &description).await.unwrap(), Advance::Lost);
    let other = win(&store, "other").await;
    done(store.advance(&other, created("e2")).await.unwrap());
    assert_eq!(store.adopt(&other, &description).await.unwrap(), Advance::Lost);
}

async fn ended(store: &Store, key: RunKey, engine: Option<&str>) {
    let mut new = new_run(key);
    new.engine_id = engine.map(str::to_owned);
    let Claim::Won(lease) = store.claim(new).await.unwrap() else { panic!("it is free") };
    done(store.advance(&lease, created("e1")).await.unwrap());
    done(store.advance(&lease, started()).await.unwrap());
    store.finish(&lease, at(5), Outcome::Finished { exit_code: 0 }, Logs::default()).await.unwrap();
}

#[tokio::test]
async fn only_a_container_that_its_own_engine_misses_for_an_hour_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let container = new_run(key("a")).container_id;
    for number in 0..120 {
        ended(&store, key(&format!("run-{number}")), Some("docker:1")).await;
    }
    ended(&store, key("other-engine"), Some("docker:2")).await;
    ended(&store, key("no-engine"), None).await;
    let by_name =
        RunKey { ident: "name:team/db".into(), name: RunName::of_object("team", "by-name"), token: String::new() };
    ended(&store, by_name.clone(), Some("docker:1")).await;
    run(&store, "open").await;

    let known = || async { store.containers("docker:1").await.unwrap().remove(0) };
    assert_eq!((known().await.runs, known().await.absent_since), (120, None));
    let hour = 3600;
    store.seen("docker:1", &container, false, at(0)).await.unwrap();
    assert!(!known().await.is_gone(at(hour - 1)));
    // It comes back: the time begins anew.
    store.seen("docker:1", &container, true, at(hour)).await.unwrap();
    store.seen("docker:1", &container, false, at(hour)).await.unwrap();
    assert!(!known().await.is_gone(at(hour + 1)));
    // A clock that was set back makes no absence that never ends.
    store.seen("docker:1", &container, false, at(-hour)).await.unwrap();
    assert!(known().await.is_gone(at(0)) && !known().await.is_gone(at(-hour)));

    assert_eq!(store.collect("docker:1", &container).await.unwrap(), 120);
    assert_eq!(store.containers("docker:1").await.unwrap(), []);
    let left = store.list(oncelet_store::Filter::default()).await.unwrap();
    let left: Vec<_> = left.iter().map(|record| record.key.name.as_str()).collect();
    assert_eq!(left, ["team/other-engine", "team/no-engine", "team/by-name", "team/open"]);
}

#[tokio::test]
async fn room_that_is_freed_goes_back_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let container = new_run(key("a")).container_id;
    for number in 0..200 {
        let mut new = new_run(key(&format!("run-{number}")));
        new.program.args = vec!["x".repeat(10_000)];
        let Claim::Won(lease) = store.claim(new).await.unwrap() else { panic!("it is free") };
        done(store.advance(&lease, created("e1")).await.unwrap());
        store.finish(&lease, at(5), unknown(), Logs::default()).await.unwrap();
    }
    store.close().await;
    let size = || std::fs::metadata(dir.path().join("runs.db")).unwrap().len();
    let before = size();
    let store = open(dir.path()).await;
    assert_eq!(store.collect("docker:1", &container).await.unwrap(), 200);
    store.close().await;
    assert!(size() + 64 * 4096 <= before, "{before} bytes became {}", size());
}
