//! The way of one `Container`: look at the engine, plan, act, publish.

mod plan;
mod status;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use oncelet_api::{Container, ContainerMode, PortProtocol};
use oncelet_core::{Program, Resolved, resolve};
use oncelet_engine::{
    Container as EngineContainer, Error as EngineError, ErrorKind, NewContainer, PortRequest, Protocol,
};

use crate::context::Ctx;
use crate::exec::Error;
use crate::publish::{STALE, tell, write_status};
use crate::{convert, inputs};
use plan::{LABEL_OWNER, LABEL_SPEC, Plan, lifecycle_key, plan};
use status::{Trouble, project};

/// The net under every lost event.
const RESYNC: Duration = Duration::from_mins(5);
/// How long to wait for something that announces itself by nothing.
const POLL: Duration = Duration::from_secs(2);

/// The engine's name of the container that `container` is for.
pub(crate) fn engine_name(container: &Container) -> String {
    container.spec.container_name.clone().unwrap_or_else(|| container.name_any())
}

/// Brings one `Container` to where its spec wants it, as far as that goes now.
pub(crate) async fn reconcile(container: Arc<Container>, ctx: Ctx) -> Result<Action, Error> {
    if container.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let found = match ctx.engine.container(&engine_name(&container)).await {
        Ok(found) => found,
        Err(error) => return publish(&ctx, &container, Err(Trouble::engine(&error)), None).await,
    };
    let plan = plan(&container, found.as_ref());
    tracing::debug!(object = %container.name_any(), ?plan, "planned");
    let story = plan.story(&engine_name(&container));
    let result = Box::pin(act(&ctx, &container, found, plan)).await?;
    publish(&ctx, &container, result, story).await
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
        (Plan::Recreate { .. }, Some(found)) => match new_container(ctx, container).await? {
            Ok(new) => match ctx.engine.remove_container(&found.id, true).await {
                Ok(()) => create(ctx, &new).await,
                Err(error) => Err(error),
            },
            Err(trouble) => return Ok(Err(trouble)),
        },
        (Plan::Create | Plan::Leave | Plan::Start | Plan::Recreate { .. }, _) => {
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
        ..Program::default()
    };
    let sources = inputs::gather(&ctx.client, &container.metadata, &program, None).await?;
    let Resolved { args, env, .. } = match resolve(&program, &sources) {
        Ok(resolved) => resolved,
        Err(missing) => return Ok(Err(Trouble::input(&missing))),
    };
    let mut labels: std::collections::BTreeMap<_, _> =
        spec.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect();
    labels.insert(LABEL_OWNER.to_owned(), plan::owner(container));
    labels.insert(LABEL_SPEC.to_owned(), plan::declared(spec));
    labels.insert(plan::LABEL_KEY.to_owned(), lifecycle_key(spec));
    Ok(Ok(NewContainer {
        name: engine_name(container),
        image: spec.image.clone().unwrap_or_default(),
        command: spec.command.clone(),
        args,
        env,
        ports: spec.ports.iter().map(port).collect(),
        labels,
    }))
}

fn port(port: &oncelet_api::ContainerPort) -> PortRequest {
    // The schema keeps ports within 1 to 65535.
    let number = |port: i32| u16::try_from(port).unwrap_or_default();
    PortRequest {
        container_port: number(port.container_port),
        host_port: port.host_port.map(number),
        host_ip: Some(port.host_ip.clone().unwrap_or_else(|| "127.0.0.1".to_owned())),
        protocol: match port.protocol.unwrap_or_default() {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
        },
    }
}

async fn publish(
    ctx: &Ctx,
    container: &Container,
    result: Result<EngineContainer, Trouble>,
    story: Option<(&'static str, String)>,
) -> Result<Action, Error> {
    // A container that is missing or stopped announces itself; an image or a Secret that appears does not.
    let retry = if result.is_err() { POLL } else { RESYNC };
    let status = project(container, ctx.engine.endpoint(), &result, (ctx.now)());
    if container.status.as_ref() != Some(&status)
        && !write_status(ctx, container, container.status.as_ref(), &status).await?
    {
        return Ok(Action::requeue(STALE));
    }
    let trouble = match &result {
        Err(trouble) if !trouble.is_shown_by(container) => Some((trouble.reason, trouble.message.clone())),
        _ => None,
    };
    let kind = if trouble.is_some() { EventType::Warning } else { EventType::Normal };
    if let Some((reason, note)) = trouble.or_else(|| result.is_ok().then_some(story).flatten()) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        tell(ctx, container, &event).await;
    }
    Ok(Action::requeue(retry))
}

/// Whether oncelet makes the container, or takes somebody else's.
fn is_ours_to_make(container: &Container) -> bool {
    container.spec.mode == ContainerMode::Persistent
}
