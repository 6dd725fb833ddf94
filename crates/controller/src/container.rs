//! The way of one `Container`: look at the engine, plan, act, publish.

mod plan;
mod pull;
mod replace;
pub(crate) mod status;
mod whose;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use oncelet_api::{ALLOW_NAMESPACES_LABEL, Container, ContainerMode, REMOVE_FINALIZER};
use oncelet_core::{Program, Resolved, resolve};
use oncelet_engine::{
    Container as EngineContainer, ContainerId, Engine, Error as EngineError, ErrorKind, NewContainer,
};
use oncelet_store::{Filter, Store};
use uuid::Uuid;

use crate::context::Ctx;
use crate::events::{event, warnings};
use crate::exec::Error;
use crate::publish::{STALE, write_status};
use crate::work::Action;
use crate::{convert, finalizer, inputs, policy};
use plan::{Plan, lifecycle_key, plan, removes};
use pull::Image;
use replace::{Failure, replace};
use status::{RECREATE_FAILED, Trouble, project};
use whose::{LABEL_KEY, LABEL_REPLACES, LABEL_SESSION, LABEL_UID, LABELS, Us, label, owner};
pub(crate) use whose::{LABEL_MADE, LABEL_OWNER, LABEL_SPEC, LABEL_STORE};

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
    let known = match known(&ctx, &container).await {
        Ok(Some(known)) => known,
        // Another daemon of this store is making it anew.
        Ok(None) => return Ok(Action::requeue(STALE)),
        Err(error) => return publish(&ctx, &container, Err(Trouble::engine(&error)), None).await,
    };
    // One that another oncelet made may be taken over, too: see the adopt annotation.
    let is_theirs = known.found.as_ref().is_some_and(|found| !is_labelled(found, known.store_uuid.as_deref()));
    if (!plan::makes(&container) || is_theirs)
        && let Err(trouble) = policy::adopt(&ctx, &container, known.found.as_ref()).await
    {
        return refuse(&ctx, &container, trouble).await;
    }
    let plan = plan(&container, known.us(&ctx), known.found.as_ref());
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
    match Box::pin(act(&ctx, &container, known.found, known.store_uuid, plan)).await? {
        Some(result) => publish(&ctx, &container, result, story).await,
        None => Ok(Action::requeue(STALE)),
    }
}

/// What has to be known for a plan.
struct Known {
    /// The engine's container of the object's name, with the labels that are its own.
    found: Option<EngineContainer>,
    /// The UUID of the store, where it can be opened.
    store_uuid: Option<String>,
    /// Whether the store has runs in the container.
    has_runs: bool,
}

impl Known {
    /// Who asks whose it is.
    fn us<'a>(&'a self, ctx: &'a Ctx) -> Us<'a> {
        Us { store: self.store_uuid.as_deref(), session: ctx.engines.session(), has_runs: self.has_runs }
    }
}

/// Whether the labels of `found` say that an oncelet with this store made it.
fn is_labelled(found: &EngineContainer, store: Option<&str>) -> bool {
    label(found, LABEL_STORE) == store
}

/// Looks. A replacement that was cut off is settled before; `None` where that is another daemon's work now.
async fn known(ctx: &Ctx, container: &Container) -> Result<Option<Known>, EngineError> {
    let open = ctx.store.get().ok();
    let store_uuid = ctx.store.uuid();
    let mut found = named(ctx, container).await?;
    let makes = plan::makes(container);
    let may_be_unsettled = found.as_ref().is_none_or(|found| label(found, LABEL_REPLACES).is_some());
    if let Some(open) = open.as_ref().filter(|_| makes && may_be_unsettled) {
        let Ok(Some(_right)) = open.exclusive(&owner(container)) else { return Ok(None) };
        // Looked at again: somebody may have settled it before it was our turn.
        found = named(ctx, container).await?;
        let us = Us { store: store_uuid.as_deref(), session: ctx.engines.session(), has_runs: false };
        found = match replace::settle(ctx, container, us, found.as_ref()).await? {
            Some(theirs) => Some(theirs),
            None => named(ctx, container).await?,
        };
    }
    // Where the labels say that it is ours, the store need not be asked.
    let is_plain = |found: &EngineContainer| is_labelled(found, store_uuid.as_deref());
    let has_runs = match found.as_ref().filter(|found| makes && label(found, LABEL_OWNER).is_some() && !is_plain(found))
    {
        Some(found) => has_runs_in(open.as_ref(), found).await,
        None => false,
    };
    Ok(Some(Known { found, store_uuid, has_runs }))
}

/// The engine's container of the object's name.
async fn named(ctx: &Ctx, container: &Container) -> Result<Option<EngineContainer>, EngineError> {
    let mut found = ctx.engine.container(&engine_name(container)).await?;
    if let Some(found) = found.as_mut().filter(|_| plan::makes(container)) {
        own_labels(&ctx.engine, found).await?;
    }
    Ok(found)
}

/// Whether the store knows of runs in `found`.
async fn has_runs_in(store: Option<&Store>, found: &EngineContainer) -> bool {
    let Some(store) = store else { return false };
    let filter = Filter { container: Some(found.id.to_string()), limit: Some(1), ..Filter::default() };
    store.list(filter).await.is_ok_and(|runs| !runs.is_empty())
}

/// Leaves `found` those labels that are its own: see [`whose::forget_inherited`].
async fn own_labels(engine: &Engine, found: &mut EngineContainer) -> Result<(), EngineError> {
    if found.labels.keys().any(|key| key.starts_with(LABELS)) {
        let image = engine.image_labels(found.image_id.as_deref().unwrap_or(&found.image)).await?.unwrap_or_default();
        whose::forget_inherited(&mut found.labels, &image);
    }
    Ok(())
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
            tracing::warn!(object = %owner(container), "deleted, and {note}");
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
    let known = match known(ctx, container).await {
        Ok(Some(known)) => known,
        Ok(None) => return Ok(Action::requeue(STALE)),
        Err(error) => return publish(ctx, container, Err(Trouble::engine(&error)), None).await,
    };
    let found = known.found.as_ref().filter(|found| removes(container, known.us(ctx), found));
    if found.is_some()
        && !plan::makes(container)
        && let Err(trouble) = policy::adopt(ctx, container, found).await
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
    let found = engine.labelled(LABEL_SESSION, None).await?;
    let theirs = found.into_iter().filter(|(_, session)| sessions.contains(session));
    let removed = futures::future::join_all(theirs.map(async |(id, session)| {
        let Some(mut found) = engine.container(id.as_str()).await? else { return Ok(0) };
        own_labels(engine, &mut found).await?;
        // Not one that somebody has made from an image of ours.
        if label(&found, LABEL_SESSION) != Some(&session) {
            return Ok(0);
        }
        remove(engine, &id).await.map(|()| 1)
    }));
    removed.await.into_iter().try_fold(0, |count, result| result.map(|more: usize| count + more))
}

/// Carries out the plan. What stands in the way is a value: it goes into the status. `None` asks for another look soon.
async fn act(
    ctx: &Ctx,
    container: &Container,
    found: Option<EngineContainer>,
    store: Option<String>,
    plan: Plan,
) -> Result<Option<Result<EngineContainer, Trouble>>, Error> {
    let result = match (plan, found) {
        (Plan::Leave, Some(found)) => Ok(found),
        (Plan::Refuse(trouble), _) => return Ok(Some(Err(trouble))),
        (Plan::Start, Some(found)) => start(ctx, &found).await,
        (Plan::Stop, Some(found)) => stop(ctx, &found).await,
        (plan, found) => {
            let new = match new_container(ctx, container, store.unwrap_or_default()).await? {
                Ok(new) => new,
                Err(trouble) => return Ok(Some(Err(trouble))),
            };
            match (plan, found) {
                (Plan::Recreate { .. }, Some(old)) => return Ok(recreate(ctx, container, &old, new).await),
                _ => create(ctx, &new).await,
            }
        }
    };
    Ok(Some(result.map_err(|error| Trouble::engine(&error))))
}

/// `None` where another daemon is at it, or has to look first.
async fn recreate(
    ctx: &Ctx,
    container: &Container,
    old: &EngineContainer,
    new: NewContainer,
) -> Option<Result<EngineContainer, Trouble>> {
    let right = ctx.store.get().and_then(|store| store.exclusive(&owner(container)).map_err(|error| error.to_string()));
    let Ok(Some(_right)) = right else { return None };
    match replace(ctx, old, new).await {
        Ok(made) => Some(Ok(made)),
        // Another daemon was faster.
        Err(Failure::Engine(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
            let is_there = ctx.engine.container(old.id.as_str()).await.is_ok_and(|found| found.is_some());
            is_there.then(|| Err(Trouble::engine(&error)))
        }
        Err(Failure::Engine(error)) => Some(Err(Trouble::engine(&error))),
        Err(Failure::Refused(trouble)) => Some(Err(trouble)),
        Err(Failure::GivenUp) => None,
    }
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
async fn new_container(
    ctx: &Ctx,
    container: &Container,
    store: String,
) -> Result<Result<NewContainer, Trouble>, Error> {
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
    if let Some(key) = labels.keys().find(|key| key.starts_with(LABELS) && *key != ALLOW_NAMESPACES_LABEL) {
        let message = format!("the label {key} cannot be set: those that begin with {LABELS} are oncelet's own");
        return Ok(Err(Trouble { reason: "LabelReserved", message }));
    }
    let session = spec.mode == ContainerMode::Session;
    let (uid, in_session) = (container.uid().filter(|_| session), ctx.engines.session().filter(|_| session));
    // Each of them, always: what is not set is the image's to say.
    labels.extend(
        [
            (LABEL_OWNER, owner(container)),
            (LABEL_STORE, store),
            (LABEL_MADE, Uuid::new_v4().to_string()),
            (LABEL_REPLACES, String::new()),
            (LABEL_SPEC, plan::declared(spec)),
            (LABEL_KEY, lifecycle_key(spec)),
            (LABEL_UID, uid.unwrap_or_default()),
            (LABEL_SESSION, in_session.unwrap_or_default().to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
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
        // Nothing that helps announces itself.
        Err(trouble) if trouble.reason == RECREATE_FAILED => RESYNC,
        // Each try renames the old container and back.
        Err(_) if story.as_ref().is_some_and(|(reason, _)| *reason == plan::RECREATED) => pull::PAUSE,
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
