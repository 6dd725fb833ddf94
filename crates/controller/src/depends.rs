//! Execs that wait for others.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use oncelet_api::{ContainerExec, ExecState};
use oncelet_core::{Blocked, Reason};

/// The first of its dependencies that `exec` still waits for.
pub(crate) fn waits_for(
    exec: &ContainerExec,
    get: impl Fn(&ObjectRef<ContainerExec>) -> Option<Arc<ContainerExec>>,
) -> Option<Blocked> {
    let namespace = exec.namespace().unwrap_or_default();
    let get = |name: &str| get(&ObjectRef::new(name).within(&namespace));
    if let Some(circle) = circle(exec, &get) {
        return Some(blocked(format!(
            "it waits for itself: {circle}; delete one of them and apply it without the circle"
        )));
    }
    exec.spec.depends_on.iter().find_map(|name| {
        let Some(other) = get(name) else {
            return Some(blocked(format!("it waits for ContainerExec {name}, which is not there")));
        };
        let status = other.status.as_ref();
        let state = status.and_then(|status| status.state).unwrap_or(ExecState::Waiting);
        let exit_code = status.and_then(|status| status.exit_code);
        match (state, exit_code) {
            (ExecState::Finished, Some(0)) => None,
            (ExecState::Finished, Some(code)) => Some(blocked(format!(
                "it waits for ContainerExec {name} to succeed, which ended with exit code {code}"
            ))),
            (state, _) => Some(blocked(format!("it waits for ContainerExec {name} to succeed, which is {state:?}"))),
        }
    })
}

fn blocked(message: String) -> Blocked {
    Blocked { reason: Reason::DependencyNotReady, message }
}

/// The way from `exec` through its dependencies back to itself, if there is one.
fn circle(exec: &ContainerExec, get: &impl Fn(&str) -> Option<Arc<ContainerExec>>) -> Option<String> {
    let start = exec.name_any();
    let mut ways: Vec<Vec<String>> =
        exec.spec.depends_on.iter().map(|name| vec![start.clone(), name.clone()]).collect();
    let mut seen = std::collections::HashSet::new();
    while let Some(way) = ways.pop() {
        let Some(last) = way.last() else { continue };
        if *last == start {
            return Some(way.join(" → "));
        }
        if !seen.insert(last.clone()) {
            continue;
        }
        let next = get(last).map(|other| other.spec.depends_on.clone()).unwrap_or_default();
        ways.extend(next.into_iter().map(|name| [way.clone(), vec![name]].concat()));
    }
    None
}

#[cfg(test)]
mod tests {
    use oncelet_api::{ContainerExecSpec, ContainerExecStatus};

    use super::*;

    fn exec(name: &str, depends_on: &[&str], ended: Option<(ExecState, i64)>) -> ContainerExec {
        let depends_on = depends_on.iter().map(ToString::to_string).collect();
        let mut exec = ContainerExec::new(name, ContainerExecSpec { depends_on, ..ContainerExecSpec::default() });
        exec.metadata.namespace = Some("ns".into());
        exec.status = ended.map(|(state, code)| ContainerExecStatus {
            state: Some(state),
            exit_code: Some(code),
            ..ContainerExecStatus::default()
        });
        exec
    }

    fn message(of: &str, all: &[ContainerExec]) -> Option<String> {
        let get = |name: &str| all.iter().find(|exec| exec.name_any() == name);
        waits_for(get(of).unwrap(), |it| get(&it.name).cloned().map(Arc::new)).map(|blocked| blocked.message)
    }

    #[test]
    fn an_exec_waits_until_all_it_depends_on_have_succeeded() {
        let schema = exec("schema", &[], Some((ExecState::Finished, 0)));
        let all = |seed| [schema.clone(), exec("seed", &[], seed), exec("app", &["schema", "seed"], None)];
        assert_eq!(message("app", &all(Some((ExecState::Finished, 0)))), None);
        assert!(message("app", &all(None)).unwrap().contains("seed to succeed, which is Waiting"));
        assert!(message("app", &all(Some((ExecState::Finished, 3)))).unwrap().contains("exit code 3"));
        assert!(message("app", &[schema, exec("app", &["seed"], None)]).unwrap().contains("seed, which is not there"));
    }

    #[test]
    fn a_circle_is_told() {
        let all =
            [exec("a", &["b"], None), exec("b", &["c"], None), exec("c", &["d", "a"], None), exec("d", &[], None)];
        assert!(message("a", &all).unwrap().contains("a → b → c → a"));
        let itself = [exec("a", &["a"], None)];
        assert!(message("a", &itself).unwrap().contains("a → a"));
    }
}
