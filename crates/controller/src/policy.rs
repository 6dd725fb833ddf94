//! What objects may use: asks the policy before anything is made, started, stopped, removed or read for an object.
//!
//! A look at an object asks twice: for what the spec says, before any engine is known; and, where it is about a container that is
//! there already, for that container. Decisions are those of [`oncelet_core::policy`].

mod asks;
mod check;
pub(crate) mod places;
mod target;

use std::sync::Arc;

use kube::ResourceExt;
use oncelet_api::{Container, ContainerExec};
use oncelet_core::policy::{Answer, Ask, DEFAULT_ENGINE, Policy, Target, refusal};
use oncelet_core::{Blocked, Reason};
use oncelet_engine::{Container as EngineContainer, Error as EngineError};
use tokio::sync::watch;

use crate::act::blocked_by_engine;
use crate::container::engine_name;
use crate::container::status::Trouble;
use crate::context::Ctx;

use asks::{of_container, of_exec};
pub use check::{Checked, check_container, check_exec};
use target::{Images, Visitor};

/// What the objects of all namespaces may use.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everything: they are those of the daemon's user.
    Everything,
    /// Nothing: whoever runs the daemon has not said what.
    Nothing,
    /// What a policy allows.
    Policy(Arc<Policy>),
}

/// Without a policy nothing is allowed.
const NO_POLICY: &str = "oncelet controller runs without a policy, and so nothing is allowed; whoever runs it starts it with --policy FILE \
     (see docs/policy.md)";

/// The access as it is now. Clones share it.
#[derive(Clone)]
pub(crate) struct Policies {
    access: watch::Receiver<Access>,
    images: Images,
}

/// What is refused, for the conditions of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl From<Refused> for Blocked {
    fn from(Refused { reason, message }: Refused) -> Self {
        Self { reason, message }
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        let reason = if refused.reason == Reason::NoPolicy { Trouble::NO_POLICY } else { Trouble::NOT_ALLOWED };
        Self { reason, message: refused.message }
    }
}

impl Policies {
    pub(crate) fn new(access: watch::Receiver<Access>) -> Self {
        Self { access, images: Images::default() }
    }

    /// One that allows everything, for ever.
    #[cfg(test)]
    pub(crate) fn everything() -> Self {
        Self::new(watch::channel(Access::Everything).1)
    }

    /// Whether there is anything that may be refused.
    pub(crate) fn is_in_force(&self) -> bool {
        !matches!(*self.access.borrow(), Access::Everything)
    }

    fn access(&self) -> Access {
        self.access.borrow().clone()
    }

    /// Waits until the access changes; for ever where it cannot change any more.
    pub(crate) async fn changed(&mut self) {
        if self.access.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a run key of `exec` means the same run in every namespace that has it.
    pub(crate) fn shares_run_key(&self, ctx: &Ctx, exec: &ContainerExec, key: &str) -> bool {
        match self.access() {
            Access::Everything => true,
            Access::Nothing => false,
            Access::Policy(policy) => policy.shares_run_key(&namespace(exec), &engine_of_exec(ctx, exec), key),
        }
    }

    /// The directories that dotenv files may be read from for an object; `None` where they may be anywhere.
    pub(crate) fn env_file_dirs(&self, namespace: &str, engine: Option<&str>) -> Option<Vec<String>> {
        match self.access() {
            Access::Everything => None,
            Access::Nothing => Some(Vec::new()),
            Access::Policy(policy) => policy
                .env_file_dirs(namespace, engine.unwrap_or(DEFAULT_ENGINE))
                .map(|dirs| dirs.into_iter().map(str::to_owned).collect()),
        }
    }

    /// The same for `exec`, which may name its engine by way of a `Container`.
    pub(crate) fn env_file_dirs_of(&self, ctx: &Ctx, exec: &ContainerExec) -> Option<Vec<String>> {
        self.env_file_dirs(&namespace(exec), Some(&engine_of_exec(ctx, exec)))
    }
}

/// Counts an object that is refused, once for each time that it is told.
pub(crate) fn count_refusal(kind: &'static str, reason: &'static str) {
    metrics::counter!("oncelet_policy_refusals_total", "kind" => kind, "reason" => reason).increment(1);
}

fn namespace(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_default()
}

/// The engine of `exec` by the name that objects give it.
fn engine_of_exec(ctx: &Ctx, exec: &ContainerExec) -> String {
    let engine = match ctx.container_of(exec) {
        Some(container) => container.spec.engine.clone(),
        None => exec.spec.engine.clone(),
    };
    engine.unwrap_or_else(|| DEFAULT_ENGINE.to_owned())
}

fn engine_of_container(container: &Container) -> String {
    container.spec.engine.clone().unwrap_or_else(|| DEFAULT_ENGINE.to_owned())
}

fn judge(namespace: &str, answers: &[Answer]) -> Result<(), Refused> {
    match refusal(namespace, answers) {
        None => Ok(()),
        Some(message) => Err(Refused { reason: Reason::NotAllowed, message }),
    }
}

/// The policy; what is to be done without one is an error or nothing.
fn in_force(ctx: &Ctx) -> Result<Option<Arc<Policy>>, Refused> {
    match ctx.policies.access() {
        Access::Everything => Ok(None),
        Access::Nothing => Err(Refused { reason: Reason::NoPolicy, message: NO_POLICY.to_owned() }),
        Access::Policy(policy) => Ok(Some(policy)),
    }
}

/// Whether `exec` may have what its spec says, wherever it is to run.
pub(crate) async fn exec(ctx: &Ctx, exec: &ContainerExec) -> Result<(), Refused> {
    let Some(policy) = in_force(ctx)? else { return Ok(()) };
    let (namespace, engine) = (namespace(exec), engine_of_exec(ctx, exec));
    let mut asks = vec![Ask::Engine(engine.clone())];
    asks.extend(of_exec(&exec.spec));
    judge(&namespace, &policy.answer(&namespace, &engine, asks))?;
    places::env_files(&policy, &namespace, &engine, &exec.spec.env_files).await
}

/// Whether an object may do in a container of the engine at hand what `asks` says. `name` is what it asks for, `found` what has
/// that name.
async fn visit(
    ctx: &Ctx,
    policy: &Policy,
    namespace: &str,
    engine: &str,
    (name, found): (&str, Option<&EngineContainer>),
    asks: impl FnOnce(Target) -> Vec<Ask>,
) -> Result<Result<(), Refused>, EngineError> {
    let store = ctx.store.uuid();
    let visitor = Visitor { policy, namespace, engine, store: store.as_deref() };
    let seen = target::see(&ctx.engine, &ctx.policies.images, visitor, name, found).await?;
    let mut asks = asks(seen.target);
    asks.extend(seen.made_with);
    Ok(judge(namespace, &policy.answer(namespace, engine, asks)))
}

/// Whether `exec` may run programs in `found`, a container of the engine at hand; without one, in whatever has the name that it
/// asks for. Who may not learns nothing of it, not even whether it is there.
pub(crate) async fn enter(
    ctx: &Ctx,
    exec: &ContainerExec,
    name: &str,
    found: Option<&EngineContainer>,
) -> Result<(), Blocked> {
    let Some(policy) = in_force(ctx)? else { return Ok(()) };
    let (namespace, engine) = (namespace(exec), engine_of_exec(ctx, exec));
    let judged = visit(ctx, &policy, &namespace, &engine, (name, found), |target| vec![Ask::Enter(target)]).await;
    Ok(judged.map_err(|error| blocked_by_engine(&error))??)
}

/// Whether `container` may have what its spec says. Where it is deleted only its engine counts: a container that was made for it
/// goes with it all the same, and what else may be removed is asked for then, see [`adopt`].
pub(crate) async fn container(ctx: &Ctx, container: &Container) -> Result<(), Refused> {
    let is_deleted = container.metadata.deletion_timestamp.is_some();
    if is_deleted && container.spec.engine.is_none() {
        return Ok(());
    }
    let Some(policy) = in_force(ctx)? else { return Ok(()) };
    let (namespace, engine) = (namespace(container), engine_of_container(container));
    let mut asks = vec![Ask::Engine(engine.clone())];
    if !is_deleted {
        asks.extend(of_container(&engine_name(container), &container.spec));
    }
    judge(&namespace, &policy.answer(&namespace, &engine, asks))?;
    if is_deleted {
        return Ok(());
    }
    places::env_files(&policy, &namespace, &engine, &container.spec.env_files).await
}

/// Whether what `container` mounts is where it seems to be, as far as that can be known here. `ctx` is of its engine.
pub(crate) async fn mounts(ctx: &Ctx, container: &Container) -> Result<(), Refused> {
    let Some(policy) = in_force(ctx)? else { return Ok(()) };
    // The files of another machine are not seen here.
    if !ctx.engine.endpoint().starts_with("unix://") {
        return Ok(());
    }
    places::mounts(&policy, &namespace(container), &engine_of_container(container), &container.spec.volume_mounts).await
}

/// Whether `container`, which takes somebody else's, may take `found`, stop it where it asks for that, and remove it in the end.
pub(crate) async fn adopt(ctx: &Ctx, container: &Container, found: Option<&EngineContainer>) -> Result<(), Trouble> {
    let Some(policy) = in_force(ctx)? else { return Ok(()) };
    let (namespace, engine) = (namespace(container), engine_of_container(container));
    let name = engine_name(container);
    let of_adoption = |target| asks::of_adoption(&container.spec, &target);
    let judged = visit(ctx, &policy, &namespace, &engine, (&name, found), of_adoption).await;
    Ok(judged.map_err(|error| Trouble::engine(&error))??)
}
