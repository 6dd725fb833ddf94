//! Gathers everything about one object into one `Observed`.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use oncelet_api::{ContainerExec, ExecState, WaitFor, condition};
use oncelet_core::{Blocked, ExecSpec, Inputs, Memory, Observed, Ownership, Reason, RunRecord, resolve};
use oncelet_engine::{Container, ContainerState, Health};
use oncelet_store::Logs;
use tokio::time::Instant;

use crate::context::{Ctx, one_line};
use crate::exec::Error;
use crate::{convert, depends, inputs, names, policy, ports, uploads};

/// How long the first look at a new `Container` is given: most take milliseconds.
const AT_FIRST: SignedDuration = SignedDuration::from_secs(2);

/// What was seen of one object's world.
pub(crate) struct Observation {
    /// When the look began.
    pub(crate) since: Instant,
    /// The engine's container, where it is known.
    pub(crate) container: Option<Container>,
    /// What the decision needs.
    pub(crate) observed: Observed,
    /// What a run that is over wrote, where the store has it at hand.
    pub(crate) logs: Option<Logs>,
    /// What is not allowed.
    pub(crate) refused: Option<Blocked>,
}

impl Observation {
    /// Where there is no container to look at.
    pub(crate) fn of_nothing(blocked: Blocked) -> Self {
        let observed = Observed::NoContainer(blocked);
        Self { since: Instant::now(), container: None, observed, logs: None, refused: None }
    }

    /// Whether it tells of a container that is still to be looked at.
    pub(crate) fn is_partial(&self) -> bool {
        self.container.is_none() && matches!(self.observed, Observed::Container { ready: Ok(()), .. })
    }

    /// Why no program can start in the container now.
    pub(crate) fn not_ready(&self) -> Option<&Blocked> {
        match &self.observed {
            Observed::NoContainer(blocked) => Some(blocked),
            Observed::Container { ready, .. } => ready.as_ref().err(),
        }
    }

    /// Why the store cannot be used, where it was asked.
    pub(crate) fn store_problem(&self) -> Option<&str> {
        match &self.observed {
            Observed::Container { memory: Memory::Unavailable { message }, .. } => Some(message),
            _ => None,
        }
    }
}

/// Looks at the container, the store and, where the program may start, its inputs.
pub(crate) async fn observe(ctx: &Ctx, exec: &ContainerExec, spec: &mut ExecSpec) -> Result<Observation, Error> {
    let since = Instant::now();
    if let Some((observed, logs)) = awaited(ctx, exec, spec).await {
        return Ok(Observation { since, container: None, observed, logs, refused: None });
    }
    let container = match target(ctx, exec).await {
        Ok(container) => container,
        Err(blocked) if blocked.reason.is_refusal() => return Ok(refused(ctx, exec, spec, blocked).await),
        Err(blocked) => return Ok(without_container(ctx, exec, spec, blocked).await),
    };
    let (memory, logs) = memory(ctx, exec, spec, &container).await?;
    let ready = match ready(&container, exec.spec.wait_for.unwrap_or_default()) {
        Ok(()) if may_start(&memory) && !convert::is_to_end(exec) => ports::ready(ctx, exec, &container).await,
        Err(blocked) => {
            if !matches!(container.state, ContainerState::Running { .. } | ContainerState::Paused) {
                ctx.ports.forget(&container.id);
            }
            Err(blocked)
        }
        Ok(()) => Ok(()),
    };
    let observed = Observed::Container { id: container.id.to_string(), ready, memory };
    Ok(Observation { since, container: Some(container), observed, logs, refused: None })
}

/// Of an object that asks for what is not allowed. It keeps the run that was started for it, which goes on; nobody ends that, starts
/// it again or has another run's outcome through this object.
pub(crate) async fn refused(ctx: &Ctx, exec: &ContainerExec, spec: &mut ExecSpec, blocked: Blocked) -> Observation {
    spec.end = None;
    let known = without_container(ctx, exec, spec, blocked.clone()).await;
    let (observed, logs) = match known.observed {
        Observed::Container { id, ready, memory: Memory::Ran { record, ownership } }
            if record.object_uid == spec.uid =>
        {
            let ownership = if ownership == Ownership::Gone { Ownership::Other } else { ownership };
            (Observed::Container { id, ready, memory: Memory::Ran { record, ownership } }, known.logs)
        }
        _ => (Observed::NoContainer(blocked.clone()), None),
    };
    Observation { since: known.since, container: None, observed, logs, refused: Some(blocked) }
}

/// Where the container is not to be had. The run that the object shows is still known, and its end is not to be missed because
/// the container is gone.
async fn without_container(ctx: &Ctx, exec: &ContainerExec, spec: &mut ExecSpec, blocked: Blocked) -> Observation {
    let since = Instant::now();
    let shown = exec.status.as_ref().filter(|status| status.run_id.is_some());
    let Some(id) = shown.and_then(|status| status.container_id.clone()) else {
        return Observation::of_nothing(blocked);
    };
    let found = match ctx.store.get() {
        Ok(store) => match names::settle(ctx, &store, exec, spec, &id).await {
            Ok(Ok(())) => store.recall(&spec.key(&id)).await.ok().flatten(),
            Ok(Err(_)) | Err(_) => None,
        },
        Err(_) => None,
    };
    match found {
        Some((record, ownership, logs)) if !record.may_be_claimed_again() => {
            let memory = ran(ctx, record, ownership);
            Observation {
                since,
                container: None,
                observed: Observed::Container { id, ready: Err(blocked), memory },
                logs,
                refused: None,
            }
        }
        _ => Observation::of_nothing(blocked),
    }
}

/// The outcome of a run that the object shows going on in a container that runs. It shows without a look at the engine, which
/// takes longer than all else there is to do; the container is looked at after.
async fn awaited(ctx: &Ctx, exec: &ContainerExec, spec: &mut ExecSpec) -> Option<(Observed, Option<Logs>)> {
    let status = exec.status.as_ref()?;
    let is_awaited = matches!(status.state, Some(ExecState::Starting | ExecState::Running));
    let is_well = |it: &Condition| it.type_ == condition::CONTAINER_READY && it.status == "True";
    if !is_awaited || !status.conditions.iter().any(is_well) {
        return None;
    }
    let id = status.container_id.clone()?;
    let store = ctx.store.get().ok()?;
    names::settle(ctx, &store, exec, spec, &id).await.ok()?.ok()?;
    let (record, ownership, logs) = store.recall(&spec.key(&id)).await.ok()??;
    let is_over = ownership == Ownership::Nobody && !record.may_be_claimed_again();
    (is_over && status.run_id == Some(record.id.0)).then(|| {
        let memory = Memory::Ran { record: Box::new(record), ownership };
        (Observed::Container { id, ready: Ok(()), memory }, logs)
    })
}

/// Whether the `Container` of `exec` has just been made, and nobody has looked yet what there is of it: to say so would be a
/// status that is wrong as soon as it is written.
pub(crate) fn is_about_to_be_known(ctx: &Ctx, exec: &ContainerExec) -> bool {
    let Some(container) = ctx.container_of(exec).filter(|container| container.status.is_none()) else {
        return false;
    };
    let age = container.creation_timestamp().map(|created| (ctx.now)().duration_since(created.0));
    age.is_some_and(|age| age.abs() < AT_FIRST)
}

/// The engine's container that `exec` is for.
async fn target(ctx: &Ctx, exec: &ContainerExec) -> Result<Container, Blocked> {
    let (name_or_id, missing) = match (&exec.spec.container_name, &exec.spec.engine_container) {
        (Some(name), _) => {
            let namespace = exec.namespace().unwrap_or_default();
            let Some(object) = ctx.container_of(exec) else {
                return Err(Blocked {
                    reason: Reason::ContainerNotFound,
                    message: format!("there is no Container {namespace}/{name}; apply one, or set engineContainer"),
                });
            };
            let status = object.status.as_ref();
            let not_created = |what: &str| Blocked {
                reason: Reason::ContainerNotCreated,
                message: format!("Container {namespace}/{name} has no container yet: {what}"),
            };
            let Some(id) = status.and_then(|status| status.container_id.clone()) else {
                let message = status.and_then(|status| status.message.as_deref());
                return Err(not_created(message.unwrap_or("it is being looked at")));
            };
            (id, not_created("it was removed from the engine"))
        }
        (None, Some(name_or_id)) => {
            let message = format!("the engine at {} has no container {name_or_id:?}", ctx.engine.endpoint());
            (name_or_id.clone(), Blocked { reason: Reason::ContainerNotFound, message })
        }
        (None, None) => {
            let message = "neither containerName nor engineContainer is set".to_owned();
            return Err(Blocked { reason: Reason::ContainerNotFound, message });
        }
    };
    let found = ctx.engine.container(&name_or_id).await;
    let found = found.map_err(|error| Blocked { reason: Reason::EngineUnreachable, message: one_line(&error) })?;
    policy::enter(ctx, exec, &name_or_id, found.as_ref()).await?;
    found.ok_or(missing)
}

/// Whether it depends on the container alone that the program starts.
fn may_start(memory: &Memory) -> bool {
    matches!(memory, Memory::NeverRan { inputs: Ok(_) } | Memory::FailedToStart { inputs: Ok(_), .. })
}

fn ready(container: &Container, wait_for: WaitFor) -> Result<(), Blocked> {
    let what = match &container.state {
        ContainerState::Running { .. } => return well(container, wait_for),
        ContainerState::Created => "was never started".to_owned(),
        ContainerState::Paused => "is paused".to_owned(),
        ContainerState::Restarting => "is being restarted".to_owned(),
        ContainerState::Exited { exit_code, .. } => format!("has stopped (exit code {exit_code})"),
        ContainerState::Removing => "is being removed".to_owned(),
        ContainerState::Dead => "is dead".to_owned(),
    };
    Err(Blocked { reason: Reason::ContainerNotRunning, message: format!("container {} {what}", container.name) })
}

/// Whether a container that runs is as far as `wait_for` wants it.
fn well(container: &Container, wait_for: WaitFor) -> Result<(), Blocked> {
    let what = match (wait_for, container.health) {
        (WaitFor::Running, _) | (WaitFor::Healthy, Some(Health::Healthy)) => return Ok(()),
        (WaitFor::Healthy, None) => "has no health check, and waitFor is Healthy: give it one, or leave waitFor out",
        (WaitFor::Healthy, Some(Health::Starting)) => "is not healthy yet",
        (WaitFor::Healthy, Some(Health::Unhealthy)) => "is unhealthy",
    };
    Err(Blocked { reason: Reason::ContainerNotHealthy, message: format!("container {} {what}", container.name) })
}

async fn memory(
    ctx: &Ctx,
    exec: &ContainerExec,
    spec: &mut ExecSpec,
    container: &Container,
) -> Result<(Memory, Option<Logs>), Error> {
    let store = match ctx.store.get() {
        Ok(store) => store,
        Err(message) => return Ok((Memory::Unavailable { message }, None)),
    };
    match names::settle(ctx, &store, exec, spec, container.id.as_str()).await {
        Ok(Ok(())) => {}
        Ok(Err(blocked)) => return Ok((Memory::NeverRan { inputs: Err(blocked) }, None)),
        Err(error) => return Ok((Memory::Unavailable { message: one_line(&error) }, None)),
    }
    let found = match store.recall(&spec.key(container.id.as_str())).await {
        Ok(found) => found,
        Err(error) => return Ok((Memory::Unavailable { message: one_line(&error) }, None)),
    };
    Ok(match found {
        None => (Memory::NeverRan { inputs: inputs_of(ctx, exec, spec, container).await? }, None),
        Some((record, _, _)) if record.may_be_claimed_again() => {
            let inputs = inputs_of(ctx, exec, spec, container).await?;
            (Memory::FailedToStart { record: Box::new(record), inputs }, None)
        }
        Some((record, ownership, logs)) => (ran(ctx, record, ownership), logs),
    })
}

/// A run of ours that nobody looks after counts as that of a daemon that is gone.
fn ran(ctx: &Ctx, record: RunRecord, ownership: Ownership) -> Memory {
    let abandoned = ownership == Ownership::Mine && !ctx.runs.has(&record.key);
    let ownership = if abandoned { Ownership::Gone } else { ownership };
    Memory::Ran { record: Box::new(record), ownership }
}

async fn inputs_of(ctx: &Ctx, exec: &ContainerExec, spec: &ExecSpec, container: &Container) -> Result<Inputs, Error> {
    if let Some(blocked) = depends::waits_for(exec, |of| ctx.execs.get(of)) {
        return Ok(Err(blocked));
    }
    if let Some(blocked) = uploads::missing(&ctx.client, exec).await? {
        return Ok(Err(blocked));
    }
    let env_file_dirs = ctx.policies.env_file_dirs_of(ctx, exec);
    let mut sources =
        inputs::gather(&ctx.client, &exec.metadata, &spec.program, Some(container), env_file_dirs.as_deref()).await?;
    sources.stdin = exec.spec.stdin.as_ref().and_then(|stdin| stdin.value.clone());
    Ok(resolve(&spec.program, &sources).map(Box::new).map_err(|missing| Blocked::from(&missing)))
}
