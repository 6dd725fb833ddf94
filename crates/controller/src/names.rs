//! Under which name the run of an object with a run key is remembered.
//!
//! A run key is its namespace's own, or shared by all that may share it: as the policy says, which may change, and which there was
//! none of once. A run that is remembered under the other name is the object's all the same, as long as it cannot be another
//! namespace's: it is never started again only because the policy has changed.

use kube::ResourceExt;
use oncelet_api::ContainerExec;
use oncelet_core::{Blocked, ExecSpec, Reason, RunKey, RunName};
use oncelet_store::{Store, StoreError};

use crate::context::Ctx;
use crate::convert;

/// The names for a run key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The one that counts now.
    pub(crate) now: RunName,
    /// The one that an earlier run may have.
    pub(crate) before: RunName,
    /// Whether it is the one that all namespaces share.
    is_shared: bool,
}

impl Names {
    /// Those of `exec`; `None` where it has no run key.
    pub(crate) fn of(ctx: &Ctx, exec: &ContainerExec) -> Option<Self> {
        let key = exec.spec.run_key.as_ref()?;
        let (shared, own) = convert::run_key_names(exec)?;
        let is_shared = ctx.policies.shares_run_key(ctx, exec, key);
        let (now, before) = if is_shared { (shared, own) } else { (own, shared) };
        Some(Self { now, before, is_shared })
    }

    /// The key that an earlier run may have, instead of `key`.
    pub(crate) fn key_before(&self, key: &RunKey) -> RunKey {
        RunKey { name: self.before.clone(), ..key.clone() }
    }

    /// What becomes of a run that is found under the name of before, for an object with `uid`: it is the object's, or somebody's
    /// who cannot be told.
    pub(crate) fn judge(&self, ran_for: &str, uid: &str) -> Result<RunName, Blocked> {
        // That of its own namespace is nobody else's.
        if self.is_shared || ran_for == uid {
            return Ok(self.before.clone());
        }
        Err(Blocked {
            reason: Reason::RunKeyTaken,
            message: format!(
                "a run is recorded here under the name {:?}: another namespace's, or one from when run keys were shared by all \
                 namespaces; it is neither shown nor repeated. To have it back, ask whoever runs oncelet for a rule with \
                 sharedRunKeys; to run the program, set another runKey",
                self.before.as_str()
            ),
        })
    }
}

/// Settles the name in `spec`, by what is remembered of the container with `id`. The answer is why nothing may be started.
pub(crate) async fn settle(
    ctx: &Ctx,
    store: &Store,
    exec: &ContainerExec,
    spec: &mut ExecSpec,
    id: &str,
) -> Result<Result<(), Blocked>, StoreError> {
    let Some(names) = Names::of(ctx, exec) else { return Ok(Ok(())) };
    spec.name = names.now.clone();
    let key = spec.key(id);
    if store.lookup(&key).await?.is_some() {
        return Ok(Ok(()));
    }
    let Some((before, _)) = store.lookup(&names.key_before(&key)).await? else { return Ok(Ok(())) };
    Ok(names.judge(&before.object_uid, &exec.uid().unwrap_or_default()).map(|name| spec.name = name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(is_shared: bool) -> Names {
        let (shared, own) = (RunName::try_from("key".to_owned()).unwrap(), RunName::of_run_key("a", "key"));
        let (now, before) = if is_shared { (shared, own) } else { (own, shared) };
        Names { now, before, is_shared }
    }

    #[test]
    fn a_run_of_before_is_its_objects_and_nobody_elses() {
        // Keys were shared, and are not any more.
        let not_shared = names(false);
        assert_eq!(not_shared.judge("uid-1", "uid-1").unwrap().as_str(), "key");
        assert_eq!(not_shared.judge("uid-2", "uid-1").unwrap_err().reason, Reason::RunKeyTaken);
        // They were not, and are now: it is its own namespace's in any case.
        let shared = names(true);
        assert_eq!(shared.judge("uid-2", "uid-1").unwrap().as_str(), "a/runKey/key");
    }
}
