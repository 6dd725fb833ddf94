//! The way of one `Container`: look at the engine, plan, act, publish.

mod plan;
mod pull;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use oncelet_api::{Container, ContainerMode, REMOVE_FINALIZER};
use oncelet_core::{Program, Resolved, resolve};
use oncelet_engine::{
    Container as EngineContainer, ContainerId, Engine, Error as EngineError, ErrorKind, NewContainer,
};

use crate::context::Ctx;
use crate::events::{event, warnings};
use crate::exec::Error;
use crate::publish::{STALE, write_status};
use crate::work::Action;
use crate::{convert, finalizer, inputs, policy};
use plan::{LABEL_KEY, LABEL_SESSION, LABEL_UID, Plan, lifecycle_key, plan, removes};
pub(crate) use plan::{LABEL_OWNER, LABEL_SPEC};
use pull::Image;
use status::{Trouble, project};

/// The net under every lost event.
const RESYNC: Duration = Duration::from_mins(5);
/// How long to wait for something that announces itself by nothing.
const POLL: Duration = Duration::from_secs(2);
/// How long a container's main program has from SIGTERM to SIGKILL, as with `docker stop`.
const GRACE: Duration = Duration::from_secs(10);

/// The engine's name of the container that `container` is for.
pub(crate) fn engine_name(container: &Container) -> String {
    container.spec.container_name.clone().unwrap_or_else(|| container.name_any())
}

/// Brings one `Container` to where its spec wants it, as far as that goes now.
pub(crate) async fn reconcile(container: Arc<Container>, ctx: Ctx) -> Result<Action, Error> {
    // Before its engine is known: an address that is not allowed is not even connected to.
    if let Err(refused) = policy::container(&ctx, &container).await {
        return refuse(&ctx, &container, refused.into()).await;
    }
    let ctx = match ctx.engines.named(container.spec.engine.as_deref()) {
        Ok(engine) => ctx.on(engine),
        Err(error) => return publish(&ctx, &container, Err(Trouble::engine(&error)), None).await,
    };
    match (container.meta().deletion_timestamp.is_some(), is_held(&container)) {
        (true, true) => return end(&ctx, &container).await,
        (true, false) => return Ok(Action::await_change()),
        // The change comes back through the watch.
        (false, false) if goes_with_its_object(&container) => {
            return finalizer::add(&ctx, container.as_ref(), REMOVE_FINALIZER).await;
        }
        (false, _) => {}
    }
    if let Err(refused) = policy::mounts(&ctx, &container).await {
        return refuse(&ctx, &container, refused.into()).await;
    }
    let found = match ctx.engine.container(&engine_name(&container)).await {
        Ok(found) => found,
        Err(error) => return publish(&ctx, &container, Err(Trouble::engine(&error)), None).await,
    };
    if !plan::makes(&container)
        && let Err(trouble) = policy::adopt(&ctx, &container, found.as_ref()).await
    {
        return refuse(&ctx, &container, trouble).await;
    }
    let plan = plan(&container, ctx.engines.session(), found.as_ref());
    tracing::debug!(object = %container.name_any(), ?plan, "planned");
    let mut container = container;
    if matches!(plan, Plan::Create | Plan::Recreate { .. }) {
        container = match pull::image(&ctx, container.clone()).await {
            Image::Ready(container) => container,
            Image::Missing(trouble) => return publish(&ctx, &container, Err(trouble), None).await,
            Image::GivenUp => return Ok(Action::requeue(STALE)),
        };
    }
    let story = plan.story(&engine_name(&container));
    let result = Box::pin(act(&ctx, &container, found, plan)).await?;
    publish(&ctx, &container, result, story).await
}

/// Whether the object waits for the end of its container.
fn is_held(container: &Container) -> bool {
    container.finalizers().iter().any(|name| name == REMOVE_FINALIZER)
}

/// Does nothing for an object that asks for what is not allowed, and says so. One that is deleted goes without its container.
async fn refuse(ctx: &Ctx, container: &Container, refused: Trouble) -> Result<Action, Error> {
    match (container.meta().deletion_timestamp.is_some(), is_held(container)) {
        (false, _) => publish(ctx, container, Err(refused), None).await,
        (true, false) => Ok(Action::await_change()),
        (true, true) => {
            let note = format!("its container, if there is one, stays as it is: {}", refused.message);
            tracing::warn!(object = %plan::owner(container), "deleted, and {note}");
            ctx.events.tell(container, event(EventType::Warning, "Reconcile", refused.reason, &note));
            finalizer::remove(ctx, container, REMOVE_FINALIZER).await
        }
    }
}

/// Whether the engine's container is removed when the object is deleted.
fn goes_with_its_object(container: &Container) -> bool {
    matches!(container.spec.mode, ContainerMode::Session | ContainerMode::Cleanup)
}

/// Removes what goes with a deleted object, and lets the object go.
async fn end(ctx: &Ctx, container: &Container) -> Result<Action, Error> {
    let found = match ctx.engine.container(&engine_name(container)).await {
        Ok(found) => found.filter(|found| removes(container, ctx.engines.session(), found)),
        Err(error) => return publish(ctx, container, Err(Trouble::engine(&error)), None).await,
    };
    if found.is_some()
        && !plan::makes(container)
        && let Err(trouble) = policy::adopt(ctx, container, found.as_ref()).await
    {
        return if trouble.is_refusal() {
            refuse(ctx, container, trouble).await
        } else {
            publish(ctx, container, Err(trouble), None).await
        };
    }
    let removed = match found {
        Some(found) => remove(&ctx.engine, &found.id).await,
        None => Ok(()),
    };
    match removed {
        Ok(()) => finalizer::remove(ctx, container, REMOVE_FINALIZER).await,
        Err(error) => publish(ctx, container, Err(Trouble::engine(&error)), None).await,
    }
}

/// Stops and removes a container. One that is gone already is as good.
async fn remove(engine: &Engine, id: &ContainerId) -> Result<(), EngineError> {
    match engine.stop_container(id, GRACE).await {
        Err(error @ EngineError::Unreachable { .. }) => return Err(error),
        Err(EngineError::NotFound { .. }) => return Ok(()),
        // What cannot be stopped, a paused one say, is ended by its removal.
        Ok(()) | Err(_) => {}
    }
    match engine.remove_container(id, true).await {
        Err(EngineError::NotFound { .. }) => Ok(()),
        result => result,
    }
}

/// Removes the containers of `sessions`, wherever they are in their lives. Returns how many there were.
///
/// # Errors
/// The first that is in the way; what can be removed is.
pub async fn remove_sessions(engine: &Engine, sessions: &[String]) -> Result<usize, EngineError> {
    let found = engine.labelled(LABEL_SESSION).await?;
    let theirs = found.into_iter().filter(|(_, session)| sessions.contains(session));
    let removed = futures::future::join_all(theirs.map(async |(id, _)| remove(engine, &id).await)).await;
    removed.into_iter().try_fold(0, |count, result| result.map(|()| count + 1))
}

/// Carries out the plan. What stands in the way is a value: it goes into the status.
async fn act(
    ctx: &Ctx,
    container: &Container,
    found: Option<EngineContainer>,
    plan: Plan,
) -> Result<Result<EngineContainer, Trouble>, Error> {
    let result = match (plan, found) {
        (Plan::Leave, Some(found)) => Ok(found),
        (Plan::Refuse(trouble), _) => return Ok(Err(trouble)),
        (Plan::Start, Some(found)) => start(ctx, &found).await,
        (Plan::Stop, Some(found)) => stop(ctx, &found).await,
        (Plan::Recreate { .. }, Some(found)) => match new_container(ctx, container).await? {
            Ok(new) => match remove(&ctx.engine, &found.id).await {
                Ok(()) => create(ctx, &new).await,
                Err(error) => Err(error),
            },
            Err(trouble) => return Ok(Err(trouble)),
        },
        (Plan::Create | Plan::Leave | Plan::Start | Plan::Stop | Plan::Recreate { .. }, _) => {
            match new_container(ctx, container).await? {
                Ok(new) => create(ctx, &new).await,
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
    };
    Ok(result.map_err(|error| Trouble::engine(&error)))
}

async fn create(ctx: &Ctx, new: &NewContainer) -> Result<EngineContainer, EngineError> {
    match ctx.engine.create_container(new).await {
        Ok(_) => start(ctx, &look(ctx, &new.name).await?).await,
        // Somebody was faster, maybe a stranger: it is not ours to start before the next look has planned for it.
        Err(error) if error.kind() == ErrorKind::Conflict => look(ctx, &new.name).await,
        Err(error) => Err(error),
    }
}

async fn start(ctx: &Ctx, found: &EngineContainer) -> Result<EngineContainer, EngineError> {
    ctx.engine.start_container(&found.id).await?;
    look(ctx, found.id.as_str()).await
}

async fn stop(ctx: &Ctx, found: &EngineContainer) -> Result<EngineContainer, EngineError> {
    ctx.engine.stop_container(&found.id, GRACE).await?;
    look(ctx, found.id.as_str()).await
}

async fn look(ctx: &Ctx, name_or_id: &str) -> Result<EngineContainer, EngineError> {
    ctx.engine
        .container(name_or_id)
        .await?
        .ok_or_else(|| EngineError::NotFound { what: format!("container {name_or_id}, which was just made,") })
}

/// The container to make, or what is missing for it.
async fn new_container(ctx: &Ctx, container: &Container) -> Result<Result<NewContainer, Trouble>, Error> {
    let spec = &container.spec;
    let program = Program {
        command: spec.command.clone().unwrap_or_default(),
        args: spec.args.clone(),
        env: convert::env(&spec.env),
        env_files: spec.env_files.clone(),
        ..Program::default()
    };
    let env_file_dirs = ctx.policies.env_file_dirs(&container.namespace().unwrap_or_default(), spec.engine.as_deref());
    let sources = inputs::gather(&ctx.client, &container.metadata, &program, None, env_file_dirs.as_deref()).await?;
    let Resolved { args, env, .. } = match resolve(&program, &sources) {
        Ok(resolved) => resolved,
        Err(missing) => return Ok(Err(Trouble::input(&missing))),
    };
    let mut labels: BTreeMap<_, _> = spec.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect();
    labels.insert(LABEL_OWNER.to_owned(), plan::owner(container));
    labels.insert(LABEL_SPEC.to_owned(), plan::declared(spec));
    labels.insert(LABEL_KEY.to_owned(), lifecycle_key(spec));
    if spec.mode == ContainerMode::Session {
        labels.insert(LABEL_UID.to_owned(), container.uid().unwrap_or_default());
        labels.extend(ctx.engines.session().map(|session| (LABEL_SESSION.to_owned(), session.to_owned())));
    }
    Ok(Ok(convert::new_container(spec, engine_name(container), args, env, labels)))
}

pub(crate) async fn publish(
    ctx: &Ctx,
    container: &Container,
    result: Result<EngineContainer, Trouble>,
    story: Option<(&'static str, String)>,
) -> Result<Action, Error> {
    // A container that is missing or stopped announces itself; an image or a Secret that appears does not.
    let retry = match &result {
        Ok(_) => RESYNC,
        Err(trouble) if trouble.is_wanted() || trouble.is_refusal() => RESYNC,
        Err(trouble) if trouble.reason == pull::FAILED => pull::PAUSE,
        Err(_) => POLL,
    };
    let status = project(container, ctx.engine.endpoint(), &result, ctx.policies.is_in_force(), (ctx.now)());
    if container.status.as_ref() != Some(&status)
        && !write_status(ctx, container, container.status.as_ref(), &status).await?
    {
        return Ok(Action::requeue(STALE));
    }
    let seen = container.status.as_ref().and_then(|old| old.observed_generation);
    for event in warnings(seen, status.observed_generation, || container.spec.warnings()) {
        ctx.events.tell(container, event);
    }
    let trouble = match &result {
        Err(trouble) if !trouble.is_wanted() && !trouble.is_shown_by(container) => {
            Some((trouble.reason, trouble.message.clone()))
        }
        _ => None,
    };
    if let Err(refused) = &result
        && refused.is_refusal()
        && trouble.is_some()
    {
        policy::count_refusal("container", refused.reason);
    }
    let kind = if trouble.is_some() { EventType::Warning } else { EventType::Normal };
    if let Some((reason, note)) = trouble.or_else(|| result.is_ok().then_some(story).flatten()) {
        ctx.events.tell(container, event(kind, "Reconcile", reason, &note));
    }
    Ok(Action::requeue(retry))
}
