//! Writes what there is to show into the object's status, and tells the story in events.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use oncelet_api::{Container, ContainerExec, condition};
use oncelet_core::{Blocked, Reason};
use oncelet_faults::gives_up;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::act::{SOON, Shown, What};
use crate::context::{Context, Ctx};
use crate::events::warnings;
use crate::exec::Error;
use crate::objects::Objects;
use crate::observe::Observation;
use crate::policy;
use crate::status::project;
use crate::steps::Step;
use crate::story::story;
use crate::work::Action;

/// The net under every lost event.
const RESYNC: Duration = Duration::from_mins(5);

/// How long the watch may take to tell of a change that stood in the way.
pub(crate) const STALE: Duration = Duration::from_secs(1);

/// Publishes `shown` where it differs from what stands there.
pub(crate) async fn publish(
    ctx: &Ctx,
    exec: &ContainerExec,
    observation: &Observation,
    shown: Shown,
) -> Result<Action, Error> {
    let status = project(exec, observation, &shown.what, ctx.policies.is_in_force(), (ctx.now)());
    if let Some(status) = &status {
        // Before it is written: it may come back sooner than the answer. And where it stands there already, for an earlier one
        // must not be taken for it.
        ctx.echoes.expect(exec, status);
    }
    if let Some(status) = status.filter(|status| exec.status.as_ref() != Some(status)) {
        if !write_status(ctx, exec, exec.status.as_ref(), &status).await? {
            // What stood in the way may have come before it was looked for.
            let now = ctx.execs.get(&ObjectRef::from_obj(exec));
            let is_known = now.is_some_and(|now| now.metadata.resource_version != exec.metadata.resource_version);
            return Ok(Action::requeue(if is_known { Duration::ZERO } else { STALE }));
        }
        if gives_up("status-written") {
            return Ok(Action::requeue(STALE));
        }
        let was_restored = exec.status.as_ref().is_some_and(|old| old.restored == Some(true));
        if status.restored == Some(true) && !was_restored {
            metrics::counter!("oncelet_restores_total").increment(1);
            let took = observation.since.elapsed();
            metrics::histogram!("oncelet_restore_duration_seconds").record(took);
            if let What::Run { record, .. } = &shown.what {
                let to = (ctx.now)();
                ctx.steps.tell(|| Step::Restored { run: record.clone(), from: to - took, to });
            }
        }
        if let Some(refused) = observation.refused.as_ref().filter(|refused| !is_told(exec, refused)) {
            policy::count_refusal(
                "containerexec",
                if refused.reason == Reason::NoPolicy { "NoPolicy" } else { "NotAllowed" },
            );
        }
        let seen = exec.status.as_ref().and_then(|old| old.observed_generation);
        let warnings = warnings(seen, status.observed_generation, || exec.spec.warnings());
        for event in warnings.into_iter().chain(story(exec.status.as_ref(), &status)) {
            ctx.events.tell(exec, event);
        }
    }
    let retry = shown.retry.unwrap_or(RESYNC);
    Ok(Action::requeue(if observation.is_partial() { retry.min(SOON) } else { retry }))
}

/// Whether the status of `exec` says so already.
fn is_told(exec: &ContainerExec, refused: &Blocked) -> bool {
    let conditions = exec.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|it| it.type_ == condition::ALLOWED && it.status == "False" && it.message == refused.message)
}

/// What can be patched: one of our kinds.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug + 'static
{
    /// All of its kind.
    fn all(ctx: &Context) -> &Objects<Self>;
}

impl Object for ContainerExec {
    fn all(ctx: &Context) -> &Objects<Self> {
        &ctx.execs
    }
}

impl Object for Container {
    fn all(ctx: &Context) -> &Objects<Self> {
        &ctx.containers
    }
}

/// Writes the status of `object`, which was `old`. False where the object has changed meanwhile, or is gone: then the watch
/// says so, and the next look starts from what is true.
pub(crate) async fn write_status<K, S>(ctx: &Ctx, object: &K, old: Option<&S>, new: &S) -> Result<bool, Error>
where
    K: Object,
    S: Serialize,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api = Api::<K>::namespaced(ctx.client.clone(), &namespace);
    // The version is a precondition: what is removed, and what event is told, is computed from the old status; and a new
    // object of the same name must not get the old one's.
    let patch = json!({
        "metadata": {"resourceVersion": object.meta().resource_version},
        "status": replacing(old, new),
    });
    match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(written) => {
            K::all(ctx).wrote(written);
            Ok(true)
        }
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(false),
        Err(source) => Err(Error::Publish { object: format!("{namespace}/{name}"), source }),
    }
}

/// `new` as a JSON merge patch on `old`: what is absent in `new` is removed.
fn replacing<S: Serialize>(old: Option<&S>, new: &S) -> Value {
    let object = |status: &S| match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let mut patch = object(new);
    for field in old.map(object).unwrap_or_default().keys() {
        patch.entry(field.clone()).or_insert(Value::Null);
    }
    Value::Object(patch)
}
