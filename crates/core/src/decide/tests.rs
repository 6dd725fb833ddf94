//! A table of single decisions. Sequences of events are in `tests/sequences.rs`.

use super::*;
use crate::{Capture, Effective, Program, RunId, RunName, RunPolicy, Scope};

const ID: &str = "c0ffee";
const NOON: Timestamp = Timestamp::UNIX_EPOCH;

fn spec() -> ExecSpec {
    ExecSpec {
        uid: "uid-1".into(),
        name: RunName::of_object("default", "seed"),
        program: program("seed.sh"),
        run_policy: RunPolicy::Once,
        on_change: OnChange::Keep,
        scope: Scope::Container,
        rerun: None,
        retry: None,
        shown: None,
        end: None,
    }
}

fn program(command: &str) -> Program {
    Program { command: command.into(), ..Program::default() }
}

fn record(state: RunState) -> Box<RunRecord> {
    let spec = spec();
    Box::new(RunRecord {
        id: RunId(7),
        key: spec.key(ID),
        container_id: ID.into(),
        container_name: "db".into(),
        engine: "unix:///run/docker.sock".into(),
        engine_id: None,
        object_uid: spec.uid,
        fingerprint: spec.program.fingerprint(),
        program: spec.program,
        effective: Effective::default(),
        capture: Capture::Supervised,

        log_limit: None,
        marked_at: None,
        attempt: 1,
        claimed_at: NOON,
        state,
    })
}

fn ended(outcome: Outcome) -> Box<RunRecord> {
    record(RunState::Ended { started_at: Some(NOON), finished_at: NOON, outcome })
}

fn finished(exit_code: i64) -> Box<RunRecord> {
    ended(Outcome::Finished { exit_code })
}

fn failed_to_start(attempt: u32) -> Box<RunRecord> {
    let outcome = Outcome::FailedToStart { reason: "CommandNotFound".into(), message: "no such file".into() };
    Box::new(RunRecord { attempt, ..*ended(outcome) })
}

#[expect(clippy::unnecessary_wraps, reason = "inputs may be missing, in other tests")]
fn inputs() -> Inputs {
    Ok(Box::new(Resolved { args: vec![], env: vec![], stdin: None, effective: Effective::default() }))
}

fn stopped() -> Result<(), Blocked> {
    Err(Blocked { reason: Reason::ContainerNotRunning, message: "it is stopped".into() })
}

fn container(ready: Result<(), Blocked>, memory: Memory) -> Observed {
    Observed::Container { id: ID.into(), ready, memory }
}

fn ran(record: Box<RunRecord>, ownership: Ownership) -> Memory {
    Memory::Ran { record, ownership }
}

fn waits_for(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Wait { blocked, .. } => Some(blocked.reason),
        _ => None,
    }
}

fn seconds_later(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[test]
fn what_nobody_has_run_is_launched_under_its_key() {
    let decision = decide(&spec(), container(Ok(()), Memory::NeverRan { inputs: inputs() }), NOON);
    let Decision::Launch { key, container_id, .. } = decision else { panic!("got {decision:?}") };
    assert_eq!((key, container_id), (spec().key(ID), ID.to_owned()));
}

#[test]
fn nothing_starts_while_the_store_cannot_be_asked() {
    let memory = Memory::Unavailable { message: "disk full".into() };
    let decision = decide(&spec(), container(Ok(()), memory), NOON);
    assert_eq!(waits_for(&decision), Some(Reason::StoreUnavailable));
}

#[test]
fn nothing_starts_in_a_stopped_container() {
    let decision = decide(&spec(), container(stopped(), Memory::NeverRan { inputs: inputs() }), NOON);
    assert_eq!(waits_for(&decision), Some(Reason::ContainerNotRunning));
}

#[test]
fn nothing_starts_without_its_inputs_and_the_reason_says_which() {
    for (missing, reason) in [
        (MissingInput::Secret { field: "A".into(), what: "gone".into() }, Reason::SecretNotFound),
        (MissingInput::ConfigMap { field: "A".into(), what: "gone".into() }, Reason::ConfigMapNotFound),
        (MissingInput::Field { variable: "A".into(), what: "gone".into() }, Reason::FieldNotFound),
        (MissingInput::EnvFile { path: "/e".into(), what: "gone".into() }, Reason::EnvFileNotUsable),
    ] {
        let memory = Memory::NeverRan { inputs: Err(Blocked::from(&missing)) };
        assert_eq!(waits_for(&decide(&spec(), container(Ok(()), memory), NOON)), Some(reason));
    }
}

#[test]
fn an_outcome_is_restored_for_a_new_object_even_in_a_stopped_container() {
    let again = ExecSpec { uid: "uid-2".into(), ..spec() };
    let decision = decide(&again, container(stopped(), ran(finished(3), Ownership::Nobody)), NOON);
    assert!(matches!(decision, Decision::Show { restored: true, .. }), "got {decision:?}");
}

#[test]
fn the_object_that_ran_shows_its_outcome_as_its_own() {
    let decision = decide(&spec(), container(Ok(()), ran(finished(0), Ownership::Nobody)), NOON);
    assert!(matches!(decision, Decision::Show { restored: false, .. }), "got {decision:?}");
}

#[test]
fn every_end_but_a_failed_start_counts_as_run() {
    for outcome in [
        Outcome::Finished { exit_code: 1 },
        Outcome::Interrupted { by: EndedBy::Container, message: String::new(), exit_code: Some(137) },
        Outcome::Unknown { message: String::new() },
    ] {
        let record = ended(outcome);
        assert!(!record.may_be_claimed_again());
        let decision = decide(&spec(), container(Ok(()), ran(record, Ownership::Nobody)), NOON);
        assert!(matches!(decision, Decision::Show { .. }), "got {decision:?}");
    }
}

#[test]
fn an_open_run_is_mirrored_while_its_owner_lives_and_recovered_after() {
    let open = || record(RunState::Running { exec_id: "e".into(), started_at: NOON });
    let decide = |ownership| decide(&spec(), container(Ok(()), ran(open(), ownership)), NOON);
    assert!(matches!(decide(Ownership::Mine), Decision::Mirror { retry: SAFETY_NET, .. }));
    assert!(matches!(decide(Ownership::Other), Decision::Mirror { retry: POLL, .. }));
    assert!(matches!(decide(Ownership::Gone), Decision::Recover { .. }));
}

#[test]
fn a_program_whose_end_is_wanted_is_ended_where_it_runs_and_started_nowhere() {
    let stopping = ExecSpec { end: Some(EndedBy::Stop), ..spec() };
    let decide = |memory| decide(&stopping, container(Ok(()), memory), seconds_later(86_400));
    assert_eq!(waits_for(&decide(Memory::NeverRan { inputs: inputs() })), Some(Reason::StopRequested));
    let failed = Memory::FailedToStart { record: failed_to_start(1), inputs: inputs() };
    assert_eq!(waits_for(&decide(failed)), Some(Reason::StopRequested));
    let open = || record(RunState::Running { exec_id: "e".into(), started_at: NOON });
    for ownership in [Ownership::Mine, Ownership::Other] {
        assert!(matches!(decide(ran(open(), ownership)), Decision::End { by: EndedBy::Stop, .. }));
    }
    assert!(matches!(decide(ran(open(), Ownership::Gone)), Decision::Recover { .. }));
    assert!(matches!(decide(ran(finished(0), Ownership::Nobody)), Decision::Show { .. }));
}

#[test]
fn a_changed_program_is_told_run_again_or_refused_as_asked() {
    let changed = |on_change| ExecSpec { program: program("other.sh"), on_change, ..spec() };
    let keep = decide(&changed(OnChange::Keep), container(Ok(()), ran(finished(0), Ownership::Nobody)), NOON);
    assert!(matches!(&keep, Decision::Show { drift, .. } if drift == &["command"]), "got {keep:?}");

    let fail = decide(&changed(OnChange::Fail), container(Ok(()), ran(finished(0), Ownership::Nobody)), NOON);
    assert_eq!(waits_for(&fail), Some(Reason::ProgramChanged));

    assert_ne!(changed(OnChange::Rerun).key(ID), ExecSpec { on_change: OnChange::Rerun, ..spec() }.key(ID));
}

#[test]
fn tokens_of_different_policies_never_meet() {
    let keys = [
        spec(),
        ExecSpec { run_policy: RunPolicy::Always, ..spec() },
        ExecSpec { on_change: OnChange::Rerun, ..spec() },
        ExecSpec { rerun: Some("1".into()), ..spec() },
        ExecSpec { rerun: Some("2".into()), ..spec() },
        ExecSpec { rerun: Some("uid-1".into()), ..spec() },
        ExecSpec { rerun: Some("1".into()), run_policy: RunPolicy::Always, ..spec() },
        ExecSpec { scope: Scope::Name("default/db".into()), ..spec() },
    ]
    .map(|spec| spec.key(ID));
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{key:?} stands for two policies");
    }
}

#[test]
fn a_name_scope_keeps_its_key_across_containers() {
    let scoped = ExecSpec { scope: Scope::Name("default/db".into()), ..spec() };
    assert_eq!(scoped.key("one"), scoped.key("two"));
    assert_ne!(spec().key("one"), spec().key("two"));
}

#[test]
fn a_failed_start_is_tried_again_after_a_growing_pause() {
    let memory = |attempt| Memory::FailedToStart { record: failed_to_start(attempt), inputs: inputs() };
    for (attempt, pause) in [(1, 1), (2, 2), (5, 16), (9, 256), (40, 256)] {
        let early = decide(&spec(), container(Ok(()), memory(attempt)), NOON);
        let Decision::RetryStart { retry, .. } = early else { panic!("got {early:?}") };
        assert_eq!(retry, Duration::from_secs(pause));
        let due = decide(&spec(), container(Ok(()), memory(attempt)), seconds_later(pause.cast_signed()));
        assert!(matches!(due, Decision::Launch { .. }), "got {due:?}");
    }
}

#[test]
fn a_clock_set_back_does_not_lengthen_the_pause() {
    let memory = Memory::FailedToStart { record: failed_to_start(1), inputs: inputs() };
    let decision = decide(&spec(), container(Ok(()), memory), seconds_later(-86_400));
    let Decision::RetryStart { retry, .. } = decision else { panic!("got {decision:?}") };
    assert_eq!(retry, Duration::from_secs(1));
}

#[test]
fn a_corrected_object_need_not_wait() {
    let memory = || Memory::FailedToStart { record: failed_to_start(9), inputs: inputs() };
    for corrected in [ExecSpec { program: program("right.sh"), ..spec() }, ExecSpec { uid: "uid-2".into(), ..spec() }] {
        let decision = decide(&corrected, container(Ok(()), memory()), NOON);
        assert!(matches!(decision, Decision::Launch { .. }), "got {decision:?}");
    }
}

/// Whoever asks gets a try at once, and one only: the try that is made ends after the moment that was named.
#[test]
fn a_retry_that_is_asked_for_is_made_at_once_and_once() {
    let decide = |retry: i64, now| {
        let asked = ExecSpec { retry: Some(seconds_later(retry)), ..spec() };
        let memory = Memory::FailedToStart { record: failed_to_start(9), inputs: inputs() };
        decide(&asked, container(Ok(()), memory), seconds_later(now))
    };
    // The failed try ended at 0.
    for (retry, now, is_made) in [(1, 1, true), (1, 5, true), (0, 5, false), (-5, 5, false), (60, 5, false)] {
        let decision = decide(retry, now);
        let launched = matches!(decision, Decision::Launch { .. });
        assert_eq!(launched, is_made, "retry {retry} at {now}: {decision:?}");
    }
}

/// Two objects of one run key, each of which takes the other's failure for an old one, would start it without a pause.
#[test]
fn objects_that_share_a_run_do_not_try_in_turns() {
    let other = |shown| ExecSpec { uid: "uid-2".into(), shown, ..spec() };
    let decide = |spec: &ExecSpec| {
        decide(spec, container(Ok(()), Memory::FailedToStart { record: failed_to_start(3), inputs: inputs() }), NOON)
    };
    assert!(matches!(decide(&other(None)), Decision::Launch { .. }));
    assert!(matches!(decide(&other(Some(RunId(3)))), Decision::Launch { .. }));
    assert!(matches!(decide(&other(Some(RunId(7)))), Decision::RetryStart { .. }));
}

/// A new object that cannot start yet must not look as if its own start had failed.
#[test]
fn a_failed_start_of_an_earlier_object_is_not_shown_as_that_of_a_new_one() {
    let last_try = |spec: &ExecSpec| {
        let memory = Memory::FailedToStart { record: failed_to_start(9), inputs: inputs() };
        match decide(spec, container(stopped(), memory), seconds_later(86_400)) {
            Decision::Wait { last_try, .. } => last_try.is_some(),
            other => panic!("got {other:?}"),
        }
    };
    assert!(last_try(&spec()));
    let new = ExecSpec { uid: "uid-2".into(), ..spec() };
    assert!(!last_try(&new));
    assert!(!last_try(&ExecSpec { end: Some(EndedBy::Stop), ..new.clone() }));
    assert!(last_try(&ExecSpec { shown: Some(RunId(7)), ..new }));
}
