//! The way of one `ContainerExec`.

use std::sync::Arc;

use kube::ResourceExt;
use oncelet_api::{ContainerExec, KILL_FINALIZER};
use oncelet_core::decide;

use crate::context::Ctx;
use crate::finalizer::{self, Phase};
use crate::publish::STALE;
use crate::work::Action;
use crate::{act, convert, observe, policy, publish};

/// A reconcile that failed for a reason other than the object's own state, which is published instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused or did not answer.
    #[error("the API server did not take the status of {object}")]
    Publish {
        /// `namespace/name`.
        object: String,
        #[source]
        source: kube::Error,
    },
    /// The API server did not take a change of the finalizers.
    #[error("the API server did not take the finalizers of {object}")]
    Finalizer {
        /// `namespace/name`.
        object: String,
        #[source]
        source: kube::Error,
    },
    /// The API server did not give what the program refers to.
    #[error("the API server did not answer for {what}")]
    Inputs {
        /// What was asked for.
        what: String,
        #[source]
        source: kube::Error,
    },
}

/// Brings one object to where its spec wants it, as far as that goes now.
///
/// # Flow
/// observe → decide → act → publish. Launching is a part of act; following the run goes on in a task of its own,
/// which asks for another reconcile whenever the run has moved.
///
/// # Guarantees
/// Level-triggered: it may be called at any time, any number of times, and be dropped at any await.
pub(crate) async fn reconcile(exec: Arc<ContainerExec>, ctx: Ctx) -> Result<Action, Error> {
    // Before its engine is known: an address that is not allowed is not even connected to.
    let allowed = policy::exec(&ctx, &exec).await;
    match finalizer::phase(&exec) {
        Phase::Gone => return Ok(Action::await_change()),
        // The change comes back through the watch.
        Phase::NeedsFinalizer if allowed.is_ok() => return finalizer::add(&ctx, exec.as_ref(), KILL_FINALIZER).await,
        Phase::Lives | Phase::Ends | Phase::NeedsFinalizer => {}
    }
    if observe::is_about_to_be_known(&ctx, &exec) {
        // What is found wakes us.
        return Ok(Action::requeue(STALE));
    }
    let mut spec = convert::exec_spec(&exec);
    let (ctx, observation) = match allowed.map(|()| ctx.for_exec(&exec)) {
        Err(refused) => {
            let observation = observe::refused(&ctx, &exec, &mut spec, refused.into()).await;
            (ctx, observation)
        }
        Ok(Ok(ctx)) => {
            let observation = observe::observe(&ctx, &exec, &mut spec).await?;
            (ctx, observation)
        }
        Ok(Err(error)) => (ctx, observe::Observation::of_nothing(act::blocked_by_engine(&error))),
    };
    let decision = decide(&spec, observation.observed.clone(), (ctx.now)());
    tracing::debug!(object = %exec.name_any(), ?decision, "decided");
    if finalizer::phase(&exec) == Phase::Ends && finalizer::is_over(&decision) {
        return finalizer::remove(&ctx, exec.as_ref(), KILL_FINALIZER).await;
    }
    let shown = Box::pin(act::act(&ctx, &exec, &observation, decision)).await;
    publish::publish(&ctx, &exec, &observation, shown).await
}
