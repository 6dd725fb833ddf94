//! The events of a `ContainerExec`: its story, as `kubectl describe` tells it. Pure.
//!
//! | reason | when |
//! |---|---|
//! | `Waiting` | something stands in the way: what, and what to do |
//! | `NotAllowed` | the policy does not allow it: what to ask for |
//! | `Skipped` | the program is not started, and why |
//! | `Claimed` | the run is this object's: nobody else starts it |
//! | `Started`, `Finished` | the program was started; it ended by itself |
//! | `Restored` | it ran before: when, and how that ended |
//! | `SpecDrifted` | it ran before, and as another program than the one declared now |
//! | `Interrupted`, `FailedToStart`, `OutcomeUnknown` | it did not end by itself, was not started, or nobody can know |

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use oncelet_api::{ContainerExecStatus, ExecState, condition};

use crate::events::event;

/// The events that tell the step from `old` to `new`.
pub(crate) fn story(old: Option<&ContainerExecStatus>, new: &ContainerExecStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let same = old.is_some_and(|old| (old.state, old.run_id, &old.message) == (new.state, new.run_id, &new.message));
    if !same && let Some((type_, reason, note)) = step(old, new) {
        events.push(event(type_, "Run", reason, &note));
    }
    let refused = |status: &ContainerExecStatus| {
        find(status, condition::ALLOWED).filter(|it| it.status == "False").map(|it| it.message.clone())
    };
    // Of a run that goes on, or is over, its own step tells nothing of it.
    if let Some(message) = refused(new).filter(|message| old.and_then(refused).as_ref() != Some(message))
        && !events.iter().any(|event| event.reason == "NotAllowed")
    {
        events.push(event(EventType::Warning, "Allow", "NotAllowed", &message));
    }
    let drift = |status: &ContainerExecStatus| {
        find(status, condition::SPEC_DRIFTED).filter(|it| it.status == "True").map(|it| it.message.clone())
    };
    if let Some(message) = drift(new).filter(|message| old.and_then(drift).as_ref() != Some(message)) {
        // Where it is why nothing is started, that is told already.
        if !events.iter().any(|event| event.reason == "Skipped") {
            events.push(event(EventType::Normal, "Compare", "SpecDrifted", &message));
        }
    }
    events
}

fn find<'a>(status: &'a ContainerExecStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn step(old: Option<&ContainerExecStatus>, new: &ContainerExecStatus) -> Option<(EventType, &'static str, String)> {
    let run = new.run_id.map(|id| format!("run {id}")).unwrap_or_default();
    let container = new.container_name.as_deref().unwrap_or_default();
    let message = new.message.clone().unwrap_or_default();
    let exit = new.exit_code.map(|code| format!("exit code {code}")).unwrap_or_default();
    let by_exit = if new.exit_code == Some(0) { EventType::Normal } else { EventType::Warning };
    Some(match new.state? {
        ExecState::Waiting => waiting(new, message),
        ExecState::Claimed | ExecState::Starting => {
            // Told once, however often its start is tried.
            if old.is_some_and(|old| old.run_id == new.run_id) {
                return None;
            }
            (EventType::Normal, "Claimed", format!("{run} in container {container} is this object's to start"))
        }
        ExecState::Running => (EventType::Normal, "Started", format!("{run} started in container {container}")),
        ExecState::Finished if new.restored == Some(true) => {
            let at = new.finish_timestamp.as_ref().map(|at| format!("{:.0}", at.0)).unwrap_or_default();
            let note = format!("{run} ran in container {container} before, until {at}: {exit}; nothing was started");
            (by_exit, "Restored", note)
        }
        ExecState::Finished => {
            let took = new.duration.as_deref().unwrap_or_default();
            (by_exit, "Finished", format!("{run} finished after {took}: {exit}"))
        }
        ExecState::Interrupted => (EventType::Warning, "Interrupted", format!("{run} was interrupted: {message}")),
        ExecState::FailedToStart => (EventType::Warning, "FailedToStart", message),
        ExecState::Unknown => (EventType::Warning, "OutcomeUnknown", message),
    })
}

fn waiting(new: &ContainerExecStatus, message: String) -> (EventType, &'static str, String) {
    match find(new, condition::STARTED).map(|condition| condition.reason.as_str()) {
        Some("StopRequested") => (EventType::Normal, "Skipped", message),
        Some("ProgramChanged") => (EventType::Warning, "Skipped", message),
        Some("NotAllowed" | "NoPolicy") => (EventType::Warning, "NotAllowed", message),
        // These come by themselves.
        Some(
            "ContainerNotCreated" | "ContainerNotHealthy" | "PortNotReady" | "DependencyNotReady" | "StdinNotUploaded",
        ) => (EventType::Normal, "Waiting", message),
        _ => (EventType::Warning, "Waiting", message),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use oncelet_core::Reason;

    use super::*;

    fn status(state: ExecState, run: Option<i64>, conditions: &[(&str, &str, &str)]) -> ContainerExecStatus {
        let conditions = conditions.iter().map(|(type_, status, reason)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: format!("{reason}: what to do"),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        });
        ContainerExecStatus {
            state: Some(state),
            run_id: run,
            container_name: Some("db".to_owned()),
            conditions: conditions.collect(),
            ..ContainerExecStatus::default()
        }
    }

    fn told(old: Option<&ContainerExecStatus>, new: &ContainerExecStatus) -> Vec<String> {
        story(old, new).iter().map(|event| format!("{:?} {}", event.type_, event.reason)).collect()
    }

    #[test]
    fn a_run_is_told_from_its_claim_to_its_end_and_nothing_twice() {
        let waits = status(ExecState::Waiting, None, &[(condition::STARTED, "False", "ContainerNotCreated")]);
        assert_eq!(told(None, &waits), ["Normal Waiting"]);
        assert!(told(Some(&waits), &waits).is_empty());
        let claimed = status(ExecState::Claimed, Some(4), &[]);
        assert_eq!(told(Some(&waits), &claimed), ["Normal Claimed"]);
        let starting = status(ExecState::Starting, Some(4), &[]);
        assert!(told(Some(&claimed), &starting).is_empty());
        let running = status(ExecState::Running, Some(4), &[]);
        assert_eq!(told(Some(&starting), &running), ["Normal Started"]);
        let mut finished = status(ExecState::Finished, Some(4), &[]);
        finished.exit_code = Some(1);
        assert_eq!(told(Some(&running), &finished), ["Warning Finished"]);
        (finished.exit_code, finished.restored) = (Some(0), Some(true));
        assert_eq!(told(None, &finished), ["Normal Restored"]);
    }

    #[test]
    fn what_is_not_started_is_told_with_the_reason() {
        for (reason, wanted) in [
            (Reason::StopRequested, "Normal Skipped"),
            (Reason::ProgramChanged, "Warning Skipped"),
            (Reason::DependencyNotReady, "Normal Waiting"),
            (Reason::PortNotReady, "Normal Waiting"),
            (Reason::PortTimeout, "Warning Waiting"),
            (Reason::StoreUnavailable, "Warning Waiting"),
            (Reason::NotAllowed, "Warning NotAllowed"),
            (Reason::NoPolicy, "Warning NotAllowed"),
        ] {
            let drift = if reason == Reason::ProgramChanged { "True" } else { "False" };
            let conditions = [
                (condition::STARTED, "False", &*reason.to_string()),
                (condition::SPEC_DRIFTED, drift, "ProgramChanged"),
            ];
            assert_eq!(told(None, &status(ExecState::Waiting, None, &conditions)), [wanted]);
        }
    }

    /// A run that goes on tells nothing of the policy by itself.
    #[test]
    fn a_refusal_beside_a_run_is_told_once() {
        let status = |allowed| {
            let reason = if allowed == "True" { "Policy" } else { "NotAllowed" };
            status(ExecState::Running, Some(4), &[(condition::ALLOWED, allowed, reason)])
        };
        assert_eq!(told(Some(&status("True")), &status("False")), ["Warning NotAllowed"]);
        assert!(told(Some(&status("False")), &status("False")).is_empty());
        assert!(told(Some(&status("False")), &status("True")).is_empty());
    }

    /// An outcome stays as it is when the declared program changes, so its own step tells nothing.
    #[test]
    fn a_change_of_what_is_declared_is_told_once() {
        let same = status(ExecState::Finished, Some(4), &[(condition::SPEC_DRIFTED, "False", "Same")]);
        let drifted = status(ExecState::Finished, Some(4), &[(condition::SPEC_DRIFTED, "True", "ProgramChanged")]);
        assert_eq!(told(Some(&same), &drifted), ["Normal SpecDrifted"]);
        assert!(told(Some(&drifted), &drifted).is_empty());
    }
}
