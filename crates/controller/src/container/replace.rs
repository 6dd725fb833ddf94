//! Making a container anew without losing the old one before the new one runs.
//!
//! ```text
//!  1 rename the old one    db ─▶ db.old-<the beginning of its ID>      a failure, or a crash,
//!  2 create the new one    db, with the old one's ID in a label        up to here: the new one is removed,
//!  3 stop the old one      both may want the same ports and volumes    the old one is started again and
//!  4 start the new one                                                 gets its name back
//!  5 remove the old one                                                from here on: it is removed
//! ```
//!
//! What the engine shows tells how far it got, so that any daemon of the same store can go on: [`settle`] does, before anything else
//! is planned. Of the daemons that share a store one at a time is at it.

use kube::ResourceExt;
use oncelet_api::Container;
use oncelet_engine::{Container as EngineContainer, ContainerId, ContainerState, Engine, Error, NewContainer};
use oncelet_faults::gives_up;

use super::plan::runs;
use super::status::{RECREATE_FAILED, Trouble};
use super::whose::{LABEL_OWNER, LABEL_REPLACES, LABEL_STORE, Us, Whose, label, owner, whose};
use super::{GRACE, engine_name, has_runs_in, look, own_labels, remove};
use crate::context::{Ctx, one_line};

/// Why it came to nothing.
pub(super) enum Failure {
    /// It may be tried again.
    Engine(Error),
    /// The new container cannot be made or started. Each try disturbs the old one, and calls for the next by its own events.
    Refused(Trouble),
    /// A test has it given up.
    GivenUp,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// The name of a container that is about to be replaced.
fn aside(name: &str, id: &ContainerId) -> String {
    format!("{name}.old-{}", &id.as_str()[..12])
}

/// Makes `new` and starts it in the place of `old`, which is removed then. Where that fails, `old` is as it was.
pub(super) async fn replace(
    ctx: &Ctx,
    old: &EngineContainer,
    mut new: NewContainer,
) -> Result<EngineContainer, Failure> {
    new.labels.insert(LABEL_REPLACES.to_owned(), old.id.to_string());
    ctx.engine.rename_container(&old.id, &aside(&new.name, &old.id)).await?;
    pass("container-renamed")?;
    let made = match ctx.engine.create_container(&new).await {
        Ok(made) => made,
        Err(error) => {
            take_back(&ctx.engine, &new.name, old, is_stopped_first(old)).await?;
            return Err(match error {
                error @ Error::Unreachable { .. } => error.into(),
                error => refused(old, "made", &error),
            });
        }
    };
    pass("container-created")?;
    let started = start_instead(&ctx.engine, old, &made).await;
    if let Err(failure) = started {
        if !matches!(failure, Failure::GivenUp) {
            ctx.engine.remove_container(&made, false).await?;
            take_back(&ctx.engine, &new.name, old, is_stopped_first(old)).await?;
        }
        return Err(failure);
    }
    pass("container-started")?;
    remove(&ctx.engine, &old.id).await?;
    Ok(look(ctx, made.as_str()).await?)
}

async fn start_instead(engine: &Engine, old: &EngineContainer, new: &ContainerId) -> Result<(), Failure> {
    if is_stopped_first(old) {
        engine.stop_container(&old.id, GRACE).await?;
    }
    pass("container-stopped")?;
    match engine.start_container(new).await {
        Ok(()) => Ok(()),
        // Whether it was started is not known: the next look tells.
        Err(error @ Error::Unreachable { .. }) => Err(error.into()),
        Err(error) => Err(refused(old, "started", &error)),
    }
}

fn refused(old: &EngineContainer, what: &str, error: &Error) -> Failure {
    let message = format!(
        "the new container {} cannot be {what}, and the old one is kept: {}; change the object, or delete and apply it again, for \
         another try",
        old.name,
        one_line(error)
    );
    Failure::Refused(Trouble { reason: RECREATE_FAILED, message })
}

/// Whether the old container is stopped before the new one is started. A paused one cannot be, and does nothing meanwhile.
fn is_stopped_first(old: &EngineContainer) -> bool {
    matches!(old.state, ContainerState::Running { .. } | ContainerState::Restarting)
}

/// Makes the old container what it was before it was to be replaced.
async fn take_back(engine: &Engine, name: &str, old: &EngineContainer, start: bool) -> Result<(), Error> {
    let started = if start { engine.start_container(&old.id).await } else { Ok(()) };
    // Whatever came of that: under its name it is found.
    engine.rename_container(&old.id, name).await?;
    started
}

fn pass(point: &'static str) -> Result<(), Failure> {
    if gives_up(point) { Err(Failure::GivenUp) } else { Ok(()) }
}

/// Goes on with a replacement that was cut off: to its end where the new container has run, else back. `found` is what has the
/// container's name now.
///
/// Returns the container that another oncelet is about to replace, if there is one: its name is free for a moment only.
pub(super) async fn settle(
    ctx: &Ctx,
    container: &Container,
    us: Us<'_>,
    found: Option<&EngineContainer>,
) -> Result<Option<EngineContainer>, Error> {
    let name = engine_name(container);
    let wanted = container.spec.start.unwrap_or(true) && !container.spec.stop.unwrap_or_default();
    let Some(new) = found else {
        for (id, _) in ctx.engine.labelled(LABEL_OWNER, Some(&owner(container))).await? {
            match set_aside(ctx, container, us, &id).await? {
                Some(Aside::Ours(old)) => {
                    tracing::info!(object = %container.name_any(), "container {} gets its name back", old.name);
                    take_back(&ctx.engine, &name, &old, wanted && !runs(&old.state)).await?;
                    return Ok(None);
                }
                Some(Aside::Theirs(old)) => return Ok(Some(old)),
                None => {}
            }
        }
        return Ok(None);
    };
    let Some(id) = label(new, LABEL_REPLACES).and_then(|id| id.parse().ok()) else { return Ok(None) };
    if whose(container, us, new) != Whose::Ours {
        return Ok(None);
    }
    let Some(Aside::Ours(old)) = set_aside(ctx, container, us, &id).await? else { return Ok(None) };
    if has_run(&new.state) {
        tracing::info!(object = %container.name_any(), "container {} was replaced, and is removed", old.name);
        remove(&ctx.engine, &old.id).await?;
    } else {
        tracing::info!(object = %container.name_any(), "container {} was not replaced, and is kept", old.name);
        // Not by force: should it run by now, it is not to be removed.
        ctx.engine.remove_container(&new.id, false).await?;
        take_back(&ctx.engine, &name, &old, wanted && !runs(&old.state)).await?;
    }
    Ok(None)
}

/// A container that is to be replaced.
enum Aside {
    Ours(EngineContainer),
    Theirs(EngineContainer),
}

/// The container of this ID, where it is about to be replaced for an object of this name.
async fn set_aside(ctx: &Ctx, container: &Container, us: Us<'_>, id: &ContainerId) -> Result<Option<Aside>, Error> {
    let Some(mut old) = ctx.engine.container(id.as_str()).await? else { return Ok(None) };
    own_labels(&ctx.engine, &mut old).await?;
    if old.name != aside(&engine_name(container), &old.id) {
        return Ok(None);
    }
    let us = Us { has_runs: has_runs_in(ctx.store.get().ok().as_ref(), &old).await, ..us };
    Ok(match whose(container, us, &old) {
        Whose::Ours => Some(Aside::Ours(old)),
        // Of an earlier release. Only who knew it to be theirs has set it aside.
        Whose::Usable(_) if label(&old, LABEL_STORE).is_none() => Some(Aside::Ours(old)),
        // Not of this object at all.
        Whose::Strangers(_) if label(&old, LABEL_OWNER) != Some(&owner(container)) => None,
        Whose::Usable(_) | Whose::Strangers(_) => Some(Aside::Theirs(old)),
    })
}

/// Whether a container's main program was ever started.
fn has_run(state: &ContainerState) -> bool {
    match state {
        ContainerState::Created | ContainerState::Removing | ContainerState::Dead => false,
        ContainerState::Running { .. } | ContainerState::Paused | ContainerState::Restarting => true,
        // An engine that could not start it tells no time.
        ContainerState::Exited { finished_at, .. } => finished_at.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_could_not_be_started_has_not_run() {
        let exited = |finished_at| ContainerState::Exited { exit_code: 127, finished_at };
        assert!(!has_run(&ContainerState::Created) && !has_run(&exited(None)));
        assert!(has_run(&exited(Some(jiff::Timestamp::UNIX_EPOCH))) && has_run(&ContainerState::Paused));
    }
}
