//! Health checks, for engines that leave them to somebody else.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use oncelet_api::Container;
use oncelet_engine::ContainerId;
use tokio::time::Instant;

use crate::context::{Ctx, one_line};
use crate::convert::check_interval;

/// How long between two looks for checks that are due.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the checks of our containers, each at its interval, until the end; returns at once where the engine makes them by
/// itself. What a check says comes back as an event of the engine.
pub(crate) async fn check_always(ctx: Ctx) {
    let mut due = HashMap::<ContainerId, Instant>::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let containers = ctx.containers.state();
        let checked: HashMap<_, _> = containers.iter().filter_map(|container| checked(container)).collect();
        due.retain(|id, _| checked.contains_key(id));
        let now = Instant::now();
        let mut checks = Vec::new();
        for (id, interval) in checked {
            let next = due.entry(id.clone()).or_insert(now);
            if *next <= now {
                *next = now + interval;
                checks.push(async { ctx.engine.check_health(&id).await.map_err(|error| (id, error)) });
            }
        }
        for result in join_all(checks).await {
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err((id, error)) => tracing::debug!("the health of container {id} is not known: {}", one_line(&error)),
            }
        }
    }
}

/// The engine's container of an object, and how often it is to be checked; `None` where it has no check, or does not run.
fn checked(container: &Container) -> Option<(ContainerId, Duration)> {
    let status = container.status.as_ref().filter(|status| status.health.is_some())?;
    Some((status.container_id.as_ref()?.parse().ok()?, check_interval(container.spec.healthcheck.as_ref())))
}
