//! One run per key, and who may move it.

use std::collections::HashSet;

use oncelet_core::{Outcome, Ownership, RunEvent, RunState};
use oncelet_store::{Advance, Claim, Logs, StoreError};

use crate::children::Process;
use crate::support::{at, chain, claim, created, done, failed_to_start, key, new_run, open, record, run, started, win};

#[tokio::test]
async fn a_run_is_remembered_with_all_that_is_known_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.lookup(&key("seed")).await.unwrap(), None);
    let lease = run(&store, "seed").await;
    let (running, ownership) = store.lookup(&key("seed")).await.unwrap().unwrap();
    assert_eq!(ownership, Ownership::Mine);
    assert_eq!(running.state, RunState::Running { exec_id: "e1".into(), started_at: at(2) });
    let outcome = Outcome::Finished { exit_code: 3 };
    let ended = done(store.finish(&lease, at(5), outcome.clone(), Logs::default()).await.unwrap());
    store.close().await;

    let store = open(dir.path()).await;
    let found = store.lookup(&key("seed")).await.unwrap();
    assert_eq!(found, Some((ended.clone(), Ownership::Nobody)));
    assert_eq!(store.run(lease.run_id()).await.unwrap(), Some(ended.clone()));
    let new = new_run(key("seed"));
    assert_eq!(ended.state, RunState::Ended { started_at: Some(at(2)), finished_at: at(5), outcome });
    assert_eq!((&ended.program, &ended.effective), (&new.program, &new.effective));
    assert_eq!(ended.fingerprint, new.program.fingerprint());
    assert_eq!((ended.attempt, ended.claimed_at, ended.key), (1, at(1), new.key));
}

#[tokio::test]
async fn every_outcome_comes_back_as_it_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let outcomes = [
        Outcome::Finished { exit_code: -1 },
        Outcome::Interrupted {
            by: oncelet_core::EndedBy::Container,
            message: "the container stopped".into(),
            exit_code: Some(137),
        },
        Outcome::Interrupted { by: oncelet_core::EndedBy::Container, message: String::new(), exit_code: None },
        Outcome::Unknown { message: "killed".into() },
        failed_to_start(),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let name = format!("job{number}");
        let lease = run(&store, &name).await;
        let ended = done(store.finish(&lease, at(5), outcome.clone(), Logs::default()).await.unwrap());
        assert_eq!(record(&store, &name).await, ended);
        assert!(matches!(ended.state, RunState::Ended { outcome: stored, .. } if stored == outcome));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_claims_of_one_key_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let claims = (0..64).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { claim(&store, "seed").await })
    });
    let claims = futures::future::join_all(claims).await;
    let won = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Won(_)))).count();
    let held = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Held(_, Ownership::Mine)))).count();
    assert_eq!((won, held), (1, 63));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_four_daemons_one_wins_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut wins = Vec::new();
    for _ in 0..4 {
        let store = open(dir.path()).await;
        wins.push(tokio::spawn(async move {
            let mut won = Vec::new();
            for number in 0..50 {
                match claim(&store, &format!("job{number}")).await {
                    Claim::Won(_) => won.push(number),
                    Claim::Held(_, ownership) => assert_eq!(ownership, Ownership::Other),
                }
            }
            // Alive until all are done: else the last ones would find its runs abandoned.
            (store, won)
        }));
    }
    let wins = futures::future::join_all(wins).await;
    let mut all: Vec<i32> = wins.into_iter().flat_map(|done| done.unwrap().1).collect();
    all.sort_unstable();
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}

#[test]
fn of_two_processes_one_wins_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut racers = ["up", "down"].map(|order| Process::start("races", dir.path(), order));
    for racer in &mut racers {
        assert_eq!(racer.next().as_deref(), Some("ready"));
    }
    for racer in &mut racers {
        racer.tell("go");
    }
    let wins = racers.map(Process::finish);
    assert!(wins.iter().all(|won| !won.is_empty()), "one process did all: nothing was raced for");
    let all = wins.concat();
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (200, 200));
}

#[tokio::test]
async fn a_claim_that_is_held_says_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (open(dir.path()).await, open(dir.path()).await);
    let lease = win(&ours, "seed").await;
    assert!(matches!(claim(&ours, "seed").await, Claim::Held(record, Ownership::Mine) if record.id == lease.run_id()));
    assert!(matches!(claim(&theirs, "seed").await, Claim::Held(_, Ownership::Other)));
    ours.close().await;
    assert!(matches!(claim(&theirs, "seed").await, Claim::Held(_, Ownership::Gone)));
}

#[tokio::test]
async fn the_engines_address_is_no_part_of_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    win(&store, "seed").await;
    let mut new = new_run(key("seed"));
    new.engine = "tcp://127.0.0.1:2375".into();
    assert!(matches!(store.claim(new).await.unwrap(), Claim::Held(..)));
    let mut token = new_run(key("seed"));
    token.key.token = "again".into();
    assert!(matches!(store.claim(token).await.unwrap(), Claim::Won(_)));
}

#[tokio::test]
async fn a_released_claim_leaves_nothing_and_its_number_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    let first = lease.run_id();
    store.release(lease).await.unwrap();
    assert_eq!(store.lookup(&key("seed")).await.unwrap(), None);
    let second = win(&store, "other").await.run_id();
    assert!(second > first, "{second} > {first}");
}

#[tokio::test]
async fn a_run_that_may_have_started_is_not_released() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    done(store.advance(&lease, created("e1")).await.unwrap());
    let error = store.release(lease).await.unwrap_err();
    assert_eq!(error.to_string(), "run 1 is Starting and cannot be released: its program may have started");
}

#[tokio::test]
async fn what_failed_to_start_is_claimed_again_with_new_values() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    done(store.advance(&lease, created("e1")).await.unwrap());
    done(store.finish(&lease, at(3), failed_to_start(), Logs::default()).await.unwrap());

    let mut corrected = new_run(key("seed"));
    corrected.program.command = "/usr/bin/psql".into();
    corrected.now = at(10);
    let Claim::Won(second) = store.claim(corrected.clone()).await.unwrap() else { panic!("held") };
    assert_eq!(second.run_id(), lease.run_id());
    let again = record(&store, "seed").await;
    assert_eq!((again.attempt, again.claimed_at, again.program), (2, at(10), corrected.program));
    assert_eq!(again.state, RunState::Claimed);
    assert_eq!(store.advance(&lease, created("e2")).await.unwrap(), Advance::Lost);

    // Released, it shows its failure again, and can be claimed once more.
    store.release(second).await.unwrap();
    let failed = record(&store, "seed").await;
    assert_eq!(failed.attempt, 1);
    let outcome = failed_to_start();
    assert_eq!(failed.state, RunState::Ended { started_at: None, finished_at: at(3), outcome });
    let third = win(&store, "seed").await;
    assert_eq!(record(&store, "seed").await.attempt, 2);
    done(store.advance(&third, created("e3")).await.unwrap());
}

#[tokio::test]
async fn an_event_that_the_state_does_not_allow_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    let error = store.advance(&lease, started()).await.unwrap_err();
    assert!(matches!(error, StoreError::Illegal { .. }), "{error:?}");
    assert!(chain(&error).starts_with("run 1 refuses an event: a run that is Claimed cannot take"), "{error}");
    assert_eq!(record(&store, "seed").await.state, RunState::Claimed);
}

#[tokio::test]
async fn one_illegal_event_does_not_fail_what_is_committed_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    // All are queued before the writer sees the first: one transaction.
    let (before, illegal, after) = futures::join!(
        store.claim(new_run(key("before"))),
        store.advance(&lease, started()),
        store.claim(new_run(key("after")))
    );
    assert!(matches!((before, after), (Ok(Claim::Won(_)), Ok(Claim::Won(_)))));
    assert!(matches!(illegal, Err(StoreError::Illegal { .. })));
    assert_eq!(record(&store, "after").await.state, RunState::Claimed);
}

#[tokio::test]
async fn the_same_event_twice_is_done_once_and_acknowledged_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = win(&store, "seed").await;
    let outcome = Outcome::Finished { exit_code: 0 };
    for event in [created("e1"), started(), RunEvent::Ended { at: at(5), outcome }] {
        let first = store.advance(&lease, event.clone()).await.unwrap();
        assert_eq!(store.advance(&lease, event).await.unwrap(), first);
    }
    let other = RunEvent::Ended { at: at(5), outcome: Outcome::Finished { exit_code: 1 } };
    assert!(matches!(store.advance(&lease, other).await, Err(StoreError::Illegal { .. })));
}

#[tokio::test]
async fn only_an_open_run_of_a_daemon_that_is_gone_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (open(dir.path()).await, open(dir.path()).await);
    let lease = run(&theirs, "seed").await;
    let seen = record(&ours, "seed").await;
    assert_eq!(ours.take_over(&seen, at(9)).await.unwrap(), None, "its daemon lives");
    theirs.close().await;
    let mut stale = seen.clone();
    stale.state = RunState::Claimed;
    assert_eq!(ours.take_over(&stale, at(9)).await.unwrap(), None, "it has moved on since");
    let taken = ours.take_over(&seen, at(9)).await.unwrap().unwrap();
    assert_eq!((taken.run_id(), taken.epoch()), (lease.run_id(), lease.epoch() + 1));
    assert_eq!(record(&ours, "seed").await, seen, "whoever owns it, it is the same run");
    done(ours.finish(&taken, at(9), Outcome::Unknown { message: "x".into() }, Logs::default()).await.unwrap());
    assert_eq!(ours.take_over(&record(&ours, "seed").await, at(9)).await.unwrap(), None, "it is over");
}

#[tokio::test]
async fn of_many_who_take_over_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let gone = open(dir.path()).await;
    run(&gone, "seed").await;
    gone.close().await;
    let heirs = [open(dir.path()).await, open(dir.path()).await];
    let seen = record(&heirs[0], "seed").await;
    let tries = (0..16).map(|number| heirs[number % 2].take_over(&seen, at(9)));
    let leases: Vec<_> = futures::future::join_all(tries).await.into_iter().filter_map(Result::unwrap).collect();
    // Whoever has it may take it from itself again; each acquisition is another epoch, and only the last one counts.
    let mut epochs: Vec<_> = leases.iter().map(oncelet_store::Lease::epoch).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (2..2 + i64::try_from(leases.len()).unwrap()).collect::<Vec<_>>());
    let mut moved = 0;
    for heir in &heirs {
        for lease in &leases {
            let outcome = Outcome::Unknown { message: "x".into() };
            let ended = heir.advance(lease, RunEvent::Ended { at: at(9), outcome }).await.unwrap();
            moved += usize::from(heir.owner() == heirs[0].owner() && ended != Advance::Lost);
        }
    }
    assert_eq!(moved, 1);
}

#[tokio::test]
async fn an_old_owner_learns_that_its_run_is_no_longer_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (open(dir.path()).await, open(dir.path()).await);
    let lease = run(&old, "seed").await;
    // A person removes the sign of life of a daemon that lives.
    std::fs::remove_file(dir.path().join(format!("owners/{}.lock", old.owner().unwrap()))).unwrap();
    let taken = new.take_over(&record(&new, "seed").await, at(9)).await.unwrap().unwrap();
    let end = Outcome::Finished { exit_code: 0 };
    assert_eq!(old.finish(&lease, at(9), end.clone(), Logs::default()).await.unwrap(), Advance::Lost);
    done(new.finish(&taken, at(9), end, Logs::default()).await.unwrap());
}
