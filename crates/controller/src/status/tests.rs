use super::*;
use oncelet_core::{Effective, Program, Reason, RunId, RunKey, RunName, Shown as Text};

const NOON: Timestamp = Timestamp::UNIX_EPOCH;
const LATER: Timestamp = Timestamp::constant(60, 0);

fn exec(status: Option<ContainerExecStatus>) -> ContainerExec {
    let mut exec = ContainerExec::new("seed", oncelet_api::ContainerExecSpec::default());
    exec.metadata.generation = Some(1);
    exec.status = status;
    exec
}

pub(crate) fn record(state: RunState) -> Box<RunRecord> {
    let name = RunName::of_object("default", "seed");
    let program = Program::default();
    Box::new(RunRecord {
        id: RunId(7),
        key: RunKey { ident: "c1".into(), name, token: String::new() },
        container_id: "c1".into(),
        container_name: "db".into(),
        engine: "unix:///engine".into(),
        engine_id: None,
        object_uid: "uid-1".into(),
        fingerprint: program.fingerprint(),
        program,
        effective: Effective {
            args: vec![Text { text: "<from secret db/password>".into(), secret_hmac: Some("00".into()) }],
            env: vec![("A".into(), Text { text: "1".into(), secret_hmac: None })],
            stdin: None,
        },
        capture: Capture::Supervised,

        log_limit: None,
        marked_at: None,
        attempt: 1,
        claimed_at: NOON,
        state,
    })
}

fn ended(outcome: Outcome) -> Box<RunRecord> {
    let started_at = (!matches!(outcome, Outcome::FailedToStart { .. })).then_some(NOON);
    record(RunState::Ended { started_at, finished_at: LATER, outcome })
}

fn shows(record: Box<RunRecord>) -> What {
    What::Run { record, restored: true, drift: vec![], logs: Some(Logs::default()), note: None }
}

fn waits(reason: Reason) -> (Observation, What) {
    let blocked = Blocked { reason, message: "what to do".into() };
    let observation = Observation::of_nothing(blocked.clone());
    (observation, What::Waiting { blocked, last_try: None })
}

fn nothing_known() -> Observation {
    waits(Reason::ContainerNotFound).0
}

fn projected(old: Option<ContainerExecStatus>, what: &What) -> ContainerExecStatus {
    project(&exec(old), &nothing_known(), what, false, LATER).unwrap()
}

fn conditions(status: &ContainerExecStatus) -> Vec<String> {
    status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
}

#[test]
fn a_finished_run_shows_all_that_is_restored() {
    let status = projected(None, &shows(ended(Outcome::Finished { exit_code: 3 })));
    assert_eq!((status.state, status.exit_code, status.restored), (Some(ExecState::Finished), Some(3), Some(true)));
    assert_eq!(status.startup_timestamp, Some(MicroTime(NOON)));
    assert_eq!(status.finish_timestamp, Some(MicroTime(LATER)));
    assert_eq!(status.duration.as_deref(), Some("60s"));
    assert_eq!(status.effective_args, Some(vec!["<from secret db/password>".to_owned()]));
    assert!(status.stdout.is_some() && status.stderr.is_some());
    assert_eq!(
        conditions(&status),
        [
            "ContainerReady=False ContainerNotFound",
            "StoreAvailable=True Open",
            "Started=True Started",
            "Complete=True Finished",
            "Succeeded=False ExitCodeNotZero",
            "SpecDrifted=False Same",
        ]
    );
}

#[test]
fn a_server_that_was_left_behind_is_told_of_and_changes_no_outcome() {
    let What::Run { record, .. } = shows(ended(Outcome::Finished { exit_code: 0 })) else { unreachable!() };
    let mut logs = Logs::default();
    logs.stderr.held_open = true;
    let what = What::Run { record, restored: true, drift: vec![], logs: Some(logs), note: None };
    let status = projected(None, &what);
    assert_eq!(status.message.as_deref(), Some(HELD_OPEN));
    assert_eq!([status.stdout, status.stderr].map(|output| output.unwrap().held_open), [false, true]);
    assert!(conditions(&projected(None, &what)).contains(&"Succeeded=True ExitCodeZero".to_owned()));
}

#[test]
fn success_is_not_said_before_the_end() {
    let status = projected(None, &shows(record(RunState::Running { exec_id: "e".into(), started_at: NOON })));
    assert!(conditions(&status).contains(&"Succeeded=Unknown Running".to_owned()), "{:?}", conditions(&status));
    assert_eq!(status.restored, None);
}

#[test]
fn a_failed_start_is_not_complete() {
    let outcome = Outcome::FailedToStart { reason: "CommandNotFound".into(), message: "no such file".into() };
    let status = projected(None, &shows(ended(outcome)));
    assert_eq!(status.message.as_deref(), Some("no such file"));
    let conditions = conditions(&status);
    for wanted in ["Started=False CommandNotFound", "Complete=False FailedToStart"] {
        assert!(conditions.contains(&wanted.to_owned()), "{conditions:?}");
    }
}

#[test]
fn an_outcome_stays_while_its_container_is_away() {
    let before = projected(None, &shows(ended(Outcome::Finished { exit_code: 0 })));
    let (observation, what) = waits(Reason::EngineUnreachable);
    let after = project(&exec(Some(before.clone())), &observation, &what, false, LATER).unwrap();
    assert_eq!((after.state, after.exit_code, after.run_id), (before.state, before.exit_code, before.run_id));
    assert!(conditions(&after).contains(&"ContainerReady=False EngineUnreachable".to_owned()));
    assert!(conditions(&after).contains(&"Complete=True Finished".to_owned()), "{:?}", conditions(&after));
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change() {
    let what = shows(ended(Outcome::Finished { exit_code: 0 }));
    let first = project(&exec(None), &nothing_known(), &what, false, NOON).unwrap();
    let second = project(&exec(Some(first.clone())), &nothing_known(), &what, false, LATER).unwrap();
    assert_eq!(first, second);
}

#[test]
fn a_tail_is_text_whatever_was_written() {
    assert_eq!(tail_text("é".as_bytes()), "é");
    assert_eq!(tail_text(&"é".as_bytes()[1..]), "");
    assert_eq!(tail_text(b"a\0b\xff"), "a\u{fffd}b\u{fffd}");
}

#[test]
fn durations_are_short() {
    let of = |millis| duration(NOON, Timestamp::from_millisecond(millis).unwrap());
    assert_eq!(
        [of(4), of(123), of(7_340), of(59_999), of(125_000), of(11_520_000)],
        ["4ms", "0.12s", "7.3s", "59s", "2m5s", "3h12m"]
    );
    assert_eq!(duration(LATER, NOON), "0ms", "a clock that was set back");
}

#[test]
fn what_is_allowed_shows_only_where_something_may_be_refused() {
    let shown = |observation: &Observation, what: &What, is_guarded| {
        let status = project(&exec(None), observation, what, is_guarded, NOON).unwrap();
        let mut all = status.conditions.into_iter();
        all.find(|it| it.type_ == condition::ALLOWED).map(|it| (it.status, it.reason, it.message))
    };
    let (observation, what) = waits(Reason::ContainerNotFound);
    assert_eq!(shown(&observation, &what, false), None);
    assert_eq!(shown(&observation, &what, true), Some(("True".into(), "Policy".into(), String::new())));
    let blocked = Blocked { reason: Reason::NotAllowed, message: "ask for it".into() };
    let refused = Observation { refused: Some(blocked.clone()), ..Observation::of_nothing(blocked.clone()) };
    let what = What::Waiting { blocked, last_try: None };
    assert_eq!(shown(&refused, &what, true), Some(("False".into(), "NotAllowed".into(), "ask for it".into())));
    let status = project(&exec(None), &refused, &what, true, NOON).unwrap();
    let ready = status.conditions.iter().find(|it| it.type_ == condition::CONTAINER_READY).unwrap();
    assert_eq!(ready.status, "Unknown", "nobody has looked");
    // A run that goes on shows beside the refusal.
    let running = shows(record(RunState::Running { exec_id: "e".into(), started_at: NOON }));
    assert_eq!(shown(&refused, &running, true).unwrap().0, "False");
}
