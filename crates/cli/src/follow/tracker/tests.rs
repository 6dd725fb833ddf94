use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use oncelet_api::ContainerExecSpec;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What an object shows of a run in the container `c<container>`.
fn status(state: ExecState, run: i64, container: u8) -> ContainerExecStatus {
    let is_started = !matches!(state, ExecState::Claimed | ExecState::Starting | ExecState::FailedToStart);
    ContainerExecStatus {
        state: Some(state),
        run_id: Some(run),
        container_id: Some(format!("c{container}")),
        container_name: Some("db".into()),
        startup_timestamp: is_started.then(|| MicroTime(at(100 * run))),
        ..ContainerExecStatus::default()
    }
}

fn ended(run: i64, container: u8, code: i64) -> ContainerExecStatus {
    ContainerExecStatus { exit_code: Some(code), ..status(ExecState::Finished, run, container) }
}

fn waiting(container: Option<u8>, reason: &str) -> ContainerExecStatus {
    ContainerExecStatus {
        state: Some(ExecState::Waiting),
        message: Some("it waits".into()),
        container_id: container.map(|container| format!("c{container}")),
        conditions: vec![said(condition::CONTAINER_READY, reason)],
        ..ContainerExecStatus::default()
    }
}

fn failed(run: i64, second: i64, reason: &str) -> ContainerExecStatus {
    ContainerExecStatus {
        message: Some("no such file".into()),
        finish_timestamp: Some(MicroTime(at(second))),
        conditions: vec![said(condition::STARTED, reason)],
        ..status(ExecState::FailedToStart, run, 1)
    }
}

fn said(type_: &str, reason: &str) -> Condition {
    Condition {
        type_: type_.into(),
        status: "False".into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: Time(at(0)),
        observed_generation: None,
    }
}

fn object(status: ContainerExecStatus) -> ContainerExec {
    let mut object = ContainerExec::new("seed", ContainerExecSpec::default());
    object.status = Some(status);
    object
}

fn code(look: &Look) -> Option<u8> {
    match look {
        Look::Over { code, .. } => *code,
        other => panic!("it is not over: {other:?}"),
    }
}

fn replaced(look: Look) -> (i64, Option<i64>, String) {
    match look {
        Look::Replaced { run, by, why } => (run.id, by, why),
        other => panic!("it was not replaced: {other:?}"),
    }
}

#[test]
fn a_run_is_followed_to_its_end() {
    let mut tracker = Tracker::default();
    assert_eq!(tracker.look(&ContainerExecStatus::default()), Look::Nothing);
    assert!(matches!(tracker.look(&waiting(None, "ContainerNotFound")), Look::Waits { .. }));
    assert_eq!(tracker.look(&status(ExecState::Starting, 1, 1)), Look::Starts);
    assert!(tracker.run().is_none(), "it may still never start");
    assert!(matches!(tracker.look(&status(ExecState::Running, 1, 1)), Look::Runs { .. }));
    assert_eq!(code(&tracker.look(&ended(1, 1, 6))), Some(6));
}

#[test]
fn an_object_that_goes_over_to_another_container_is_not_followed_there() {
    for next in [status(ExecState::Starting, 2, 2), status(ExecState::Running, 2, 2), ended(2, 2, 0)] {
        let mut tracker = Tracker::default();
        tracker.look(&status(ExecState::Running, 1, 1));
        let (run, by, why) = replaced(tracker.look(&next));
        assert_eq!((run, by), (1, Some(2)));
        assert!(why.contains("db was replaced"), "{why}");
    }
    // Before anything runs in the new one.
    let mut tracker = Tracker::default();
    tracker.look(&status(ExecState::Running, 1, 1));
    assert_eq!(replaced(tracker.look(&waiting(Some(2), "ContainerNotRunning"))).1, None);
}

#[test]
fn an_object_that_is_asked_for_one_more_run_is_not_followed_there() {
    let mut tracker = Tracker::default();
    tracker.look(&status(ExecState::Running, 1, 1));
    let (_, by, why) = replaced(tracker.look(&ended(2, 1, 0)));
    assert!(by == Some(2) && why.contains("one more run"), "{why}");
}

#[test]
fn a_run_that_was_never_seen_started_is_no_reason_to_end() {
    let mut tracker = Tracker::default();
    tracker.look(&status(ExecState::Claimed, 1, 1));
    tracker.look(&waiting(Some(2), "ContainerNotRunning"));
    assert_eq!(code(&tracker.look(&ended(2, 2, 5))), Some(5));
}

#[test]
fn a_daemon_that_is_started_again_shows_the_same_run() {
    let mut tracker = Tracker::default();
    tracker.look(&status(ExecState::Running, 1, 1));
    // A new object, which is being looked at, and an engine that does not answer yet.
    assert_eq!(tracker.look(&ContainerExecStatus::default()), Look::Nothing);
    assert!(matches!(tracker.look(&waiting(None, "EngineUnreachable")), Look::Waits { .. }));
    assert_eq!(code(&tracker.look(&ended(1, 1, 7))), Some(7));
}

/// Its run has another number, and is known by its container and its start.
#[test]
fn a_store_that_was_lost_changes_no_run() {
    let mut tracker = Tracker::default();
    tracker.look(&status(ExecState::Running, 5, 1));
    let again = ContainerExecStatus { run_id: Some(1), ..ended(5, 1, 7) };
    assert_eq!(code(&tracker.look(&again)), Some(7));
}

#[test]
fn a_container_that_is_gone_is_not_waited_for() {
    let mut tracker = Tracker::default();
    tracker.look(&status(ExecState::Running, 1, 1));
    let (_, _, why) = replaced(tracker.look(&waiting(None, "ContainerNotFound")));
    assert!(why.contains("is gone"), "{why}");
}

#[test]
fn only_a_start_that_fails_after_it_was_asked_for_is_an_answer() {
    let earlier = failed(1, 50, "CommandNotFound");
    let mut tracker = Tracker::default();
    assert_eq!(tracker.found(&object(earlier.clone())), None);
    assert!(matches!(tracker.look(&earlier), Look::EarlierFailure { .. }));
    assert_eq!(tracker.look(&status(ExecState::Starting, 1, 1)), Look::Starts);
    let answer = tracker.look(&failed(1, 51, "CommandNotFound"));
    assert!(matches!(answer, Look::FailedToStart { code: 127, .. }), "{answer:?}");

    // One that was on its way, too.
    let mut tracker = Tracker::default();
    tracker.found(&object(status(ExecState::Starting, 1, 1)));
    assert!(matches!(tracker.look(&failed(1, 52, "BadUser")), Look::EarlierFailure { .. }));
    assert!(matches!(tracker.look(&failed(1, 52, "BadUser")), Look::EarlierFailure { .. }));
    assert!(matches!(tracker.look(&failed(1, 53, "BadUser")), Look::FailedToStart { code: 126, .. }));

    // Of a new object every one is.
    let mut tracker = Tracker::default();
    assert!(matches!(tracker.look(&failed(1, 53, "NotExecutable")), Look::FailedToStart { code: 126, .. }));
}

#[test]
fn an_answer_that_was_there_before_is_known() {
    assert_eq!(Tracker::default().found(&object(ended(1, 1, 0))), Some(RAN_BEFORE));
    assert_eq!(Tracker::default().found(&object(status(ExecState::Running, 1, 1))), Some(RUNS_ALREADY));
    assert_eq!(Tracker::default().found(&object(waiting(None, "ContainerNotFound"))), None);
}

#[test]
fn what_an_object_shows_of_another_container_than_the_one_that_is_meant_is_no_answer() {
    let mut tracker = Tracker { container: Some("c2".into()), ..Tracker::default() };
    assert_eq!(tracker.found(&object(ended(1, 1, 0))), None);
    assert!(matches!(tracker.look(&ended(1, 1, 0)), Look::Waits { .. }));
    assert_eq!(code(&tracker.look(&ended(2, 2, 3))), Some(3));
}

#[test]
fn one_more_run_is_not_mistaken_for_the_one_before() {
    let mut tracker = Tracker { after: Some(1), ..Tracker::default() };
    assert_eq!(tracker.look(&ended(1, 1, 0)), Look::Nothing);
    assert!(matches!(tracker.look(&status(ExecState::Running, 2, 1)), Look::Runs { .. }));
    assert_eq!(code(&tracker.look(&ended(2, 1, 4))), Some(4));
}
