//! `oncelet explain`: why a program ran, or why it did not.

use std::io::Write;

use anyhow::Result;
use kube::ResourceExt;
use oncelet_api::{ContainerExec, ContainerExecStatus, ExecState, OnChange, RERUN_ANNOTATION, condition};
use oncelet_controller::program;
use oncelet_core::{Program, RunId, RunRecord};
use oncelet_store::Store;
use serde_json::Value;

use crate::args::Explain;
use crate::objects::Objects;
use crate::runs::short;

/// Tells the story of one object.
pub(crate) async fn run(args: Explain) -> Result<()> {
    let objects = Objects::new(args.cluster).await?;
    let exec = objects.exec(&args.name).await?;
    let status = exec.status.clone().unwrap_or_default();
    let record = match status.run_id {
        Some(run) => match Store::open_reader(&objects.paths.store()).await {
            Ok(store) => store.run(RunId(run)).await?,
            Err(_) => None,
        },
        None => None,
    };
    let mut out = std::io::stdout().lock();
    for line in tell(&exec, &status, record.as_ref()) {
        writeln!(out, "{line}")?;
    }
    if status.state.is_some_and(|state| !matches!(state, ExecState::Waiting | ExecState::Running)) {
        writeln!(out, "To run it once more: oncelet rerun {}", args.name)?;
    }
    Ok(())
}

/// The story of an object, a sentence a line.
pub(crate) fn tell(exec: &ContainerExec, status: &ContainerExecStatus, record: Option<&RunRecord>) -> Vec<String> {
    let name = exec.name_any();
    let mut lines = vec![what_happened(&name, status)];
    if let Some(message) = status.message.as_ref().filter(|message| !lines[0].contains(*message)) {
        lines.push(message.clone());
    }
    lines.push(remembered(exec, status));
    if let Some(record) = record {
        lines.extend(differences(exec, record));
    }
    for condition in &status.conditions {
        let in_the_way = matches!(condition.type_.as_str(), condition::CONTAINER_READY | condition::STORE_AVAILABLE);
        if in_the_way && condition.status == "False" && !lines.iter().any(|line| line.contains(&condition.message)) {
            lines.push(format!("{} is False ({}): {}", condition.type_, condition.reason, condition.message));
        }
    }
    lines
}

fn what_happened(name: &str, status: &ContainerExecStatus) -> String {
    let container = status.container_name.as_deref().unwrap_or("its container");
    let run = status.run_id.map(|run| format!("run {run}")).unwrap_or_default();
    let at = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>| {
        time.map(|time| format!("{:.0}", time.0)).unwrap_or_default()
    };
    let message = status.message.as_deref().unwrap_or_default();
    match status.state {
        None => format!("{name} has not been looked at yet: does oncelet run?"),
        Some(ExecState::Waiting) => format!("{name} has not run: {message}"),
        Some(ExecState::Claimed | ExecState::Starting) => format!("{name} is being started in {container} ({run})."),
        Some(ExecState::Running) => {
            format!("{name} runs in {container} since {} ({run}).", at(status.startup_timestamp.as_ref()))
        }
        Some(ExecState::FailedToStart) => {
            format!("{name} could not be started in {container}, so it has not run; it is tried again: {message}")
        }
        Some(state) => {
            let ended = match (state, status.exit_code) {
                (ExecState::Finished, Some(code)) => format!("ended with exit code {code}"),
                (ExecState::Interrupted, _) => "was interrupted".to_owned(),
                _ => "ended, and how cannot be known".to_owned(),
            };
            let when = at(status.finish_timestamp.as_ref());
            if status.restored == Some(true) {
                format!(
                    "{name} was not started: {run} ran for an earlier object in {container}, and {ended} at {when}. \
                     That outcome is restored."
                )
            } else {
                format!("{name} ran for this object in {container} ({run}), and {ended} at {when}.")
            }
        }
    }
}

/// By what the run is remembered: what must be another one for the program to run again.
fn remembered(exec: &ContainerExec, status: &ContainerExecStatus) -> String {
    let spec = &exec.spec;
    let by = match (&spec.scope, &spec.container_name, &status.container_id) {
        (Some(oncelet_api::Scope::Name), Some(container), _) => {
            format!("the name of Container {container} (scope Name)")
        }
        (_, _, Some(id)) => format!("container {}", short(id)),
        _ => "its container".to_owned(),
    };
    let mut by = vec![by];
    by.push(match &spec.run_key {
        Some(key) => format!("the run key {key:?}"),
        None => format!("the name {}/{}", exec.namespace().unwrap_or_default(), exec.name_any()),
    });
    if spec.run_policy == Some(oncelet_api::RunPolicy::Always) {
        by.push("this very object (runPolicy Always)".to_owned());
    }
    if spec.on_change == Some(OnChange::Rerun) {
        by.push("the program (onChange Rerun)".to_owned());
    }
    if let Some(value) = exec.annotations().get(RERUN_ANNOTATION) {
        by.push(format!("the rerun {value:?}"));
    }
    format!("It is remembered by {}.", by.join(" and "))
}

/// What is declared now and was not when it ran, field by field.
fn differences(exec: &ContainerExec, record: &RunRecord) -> Vec<String> {
    let declared = program(exec);
    let fields = declared.differences(&record.program);
    if fields.is_empty() {
        return vec!["What is declared now is what ran.".to_owned()];
    }
    let mut lines = vec!["What is declared now is not what ran:".to_owned()];
    let (now, then) = (value_of(&declared), value_of(&record.program));
    for field in fields {
        lines.push(format!("  {field}"));
        lines.push(format!("    ran       {}", then[field]));
        lines.push(format!("    declared  {}", now[field]));
    }
    lines
}

fn value_of(program: &Program) -> Value {
    // A value of plain structs always has a form in JSON.
    serde_json::to_value(program).unwrap_or_default()
}
