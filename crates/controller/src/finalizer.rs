//! Objects that stay until something is over: those with `onDelete: Kill` until their program is.

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use oncelet_api::{ContainerExec, KILL_FINALIZER};
use oncelet_core::{Decision, Reason};
use serde_json::json;

use crate::context::Ctx;
use crate::convert;
use crate::exec::Error;
use crate::publish::{Object, STALE};
use crate::work::Action;

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

/// Makes sure that `object` stays until the finalizer `name` is removed.
pub(crate) async fn add<K: Object>(ctx: &Ctx, object: &K, name: &str) -> Result<Action, Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(name.to_owned());
    write(ctx, object, &finalizers).await
}

/// Lets `object` go, as far as the finalizer `name` held it.
pub(crate) async fn remove<K: Object>(ctx: &Ctx, object: &K, name: &str) -> Result<Action, Error> {
    let finalizers: Vec<_> = object.finalizers().iter().filter(|it| *it != name).cloned().collect();
    write(ctx, object, &finalizers).await
}

async fn write<K: Object>(ctx: &Ctx, object: &K, finalizers: &[String]) -> Result<Action, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    // A merge patch replaces the list: the version makes sure that it is the one that was read.
    let patch = json!({"metadata": {"resourceVersion": object.meta().resource_version, "finalizers": finalizers}});
    let api = Api::<K>::namespaced(ctx.client.clone(), &namespace);
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(written) => {
            K::all(ctx).wrote(written);
            Ok(Action::await_change())
        }
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(Action::await_change()),
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(Action::requeue(STALE)),
        Err(source) => Err(Error::Finalizer { object: format!("{namespace}/{name}"), source }),
    }
}
