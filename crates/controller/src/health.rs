//! Health checks, for engines that leave them to somebody else.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use oncelet_api::Container;
use oncelet_engine::ContainerId;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::context::{Ctx, one_line};
use crate::convert::check_interval;

/// How long between two looks for checks that are due.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the checks of our containers, each at its interval, until the end, where the engine does not make them by itself. What
/// a check says comes back as an event of the engine.
pub(crate) async fn check_always(ctx: Ctx) {
    let mut due = HashMap::<ContainerId, Instant>::new();
    // The engines that need no help, by what objects call them.
    let mut able = HashSet::new();
    // A check that takes long holds up no other one.
    let mut checks = JoinSet::new();
    let mut going = HashSet::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms only wait, so either may be dropped.
        tokio::select! {
            Some(checked) = checks.join_next() => {
                let Ok((name, id, checked)) = checked else { continue };
                going.remove(&id);
                match checked {
                    Ok(true) => {}
                    Ok(false) => drop(able.insert(name)),
                    Err(error) => tracing::debug!("the health of container {id} is not known: {}", one_line(&error)),
                }
                continue;
            }
            _ = look.tick() => {}
        }
        let containers = ctx.containers.shown().state();
        able.retain(|name| containers.iter().any(|container| container.spec.engine == *name));
        let mut there = HashSet::new();
        for container in &containers {
            let Some(id) = checked(container).filter(|_| !able.contains(&container.spec.engine)) else { continue };
            there.insert(id.clone());
            let next = due.entry(id.clone()).or_insert_with(Instant::now);
            if *next <= Instant::now() && going.insert(id.clone()) {
                *next = Instant::now() + check_interval(container.spec.healthcheck.as_ref());
                let (ctx, name) = (ctx.clone(), container.spec.engine.clone());
                checks.spawn(async move {
                    let checked = match ctx.engines.named(name.as_deref()) {
                        Ok(engine) => engine.check_health(&id).await,
                        Err(error) => Err(error),
                    };
                    (name, id, checked)
                });
            }
        }
        due.retain(|id, _| there.contains(id));
    }
}

/// The engine's container of an object, where it runs and has a check.
fn checked(container: &Container) -> Option<ContainerId> {
    let status = container.status.as_ref().filter(|status| status.health.is_some())?;
    status.container_id.as_ref()?.parse().ok()
}
