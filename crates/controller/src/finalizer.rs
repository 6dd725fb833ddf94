//! Objects with `onDelete: Kill` stay until their program is over.

use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use oncelet_api::{ContainerExec, KILL_FINALIZER};
use oncelet_core::{Decision, Reason};
use serde_json::json;

use crate::context::Ctx;
use crate::convert;
use crate::exec::Error;
use crate::publish::STALE;

/// Where an object is between its creation and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is there to stay.
    Lives,
    /// It must not go before its program is over, and nothing makes sure of that yet.
    NeedsFinalizer,
    /// It is deleted, and waits for the end of its program.
    Ends,
    /// It is deleted, and nothing is to be done for it.
    Gone,
}

pub(crate) fn phase(exec: &ContainerExec) -> Phase {
    let has_finalizer = exec.finalizers().iter().any(|finalizer| finalizer == KILL_FINALIZER);
    match (exec.metadata.deletion_timestamp.is_some(), has_finalizer) {
        (true, true) => Phase::Ends,
        (true, false) => Phase::Gone,
        (false, false) if convert::kills_on_delete(exec) => Phase::NeedsFinalizer,
        (false, _) => Phase::Lives,
    }
}

/// Whether nothing of the program runs that the deletion has to wait for.
///
/// What cannot be known now is waited for; a person who knows better removes the finalizer.
pub(crate) fn is_over(decision: &Decision) -> bool {
    match decision {
        Decision::Show { .. } => true,
        // The container is gone, or nothing was started in it.
        Decision::Wait { blocked, .. } => {
            !matches!(blocked.reason, Reason::EngineUnreachable | Reason::StoreUnavailable)
        }
        Decision::Launch { .. }
        | Decision::Mirror { .. }
        | Decision::End { .. }
        | Decision::Recover { .. }
        | Decision::RetryStart { .. } => false,
    }
}

pub(crate) async fn add(ctx: &Ctx, exec: &ContainerExec) -> Result<Action, Error> {
    let mut finalizers = exec.finalizers().to_vec();
    finalizers.push(KILL_FINALIZER.to_owned());
    write(ctx, exec, &finalizers).await
}

pub(crate) async fn remove(ctx: &Ctx, exec: &ContainerExec) -> Result<Action, Error> {
    let finalizers: Vec<_> = exec.finalizers().iter().filter(|it| *it != KILL_FINALIZER).cloned().collect();
    write(ctx, exec, &finalizers).await
}

async fn write(ctx: &Ctx, exec: &ContainerExec, finalizers: &[String]) -> Result<Action, Error> {
    let (namespace, name) = (exec.namespace().unwrap_or_default(), exec.name_any());
    // A merge patch replaces the list: the version makes sure that it is the one that was read.
    let patch = json!({"metadata": {"resourceVersion": exec.metadata.resource_version, "finalizers": finalizers}});
    let api = Api::<ContainerExec>::namespaced(ctx.client.clone(), &namespace);
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(Action::await_change()),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(Action::await_change()),
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(Action::requeue(STALE)),
        Err(source) => Err(Error::Finalizer { object: format!("{namespace}/{name}"), source }),
    }
}
