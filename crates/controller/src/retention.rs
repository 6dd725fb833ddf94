//! Forgets, after a time, runs that were made for one object alone (`runPolicy: Always`) and whose object is gone.
//!
//! # Order
//! The record in the container goes first, then the row: whoever is killed in between leaves a row, and the next look finds it. No
//! order can make a program start again: the key holds the UID of an object that never comes back.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};
use oncelet_api::ContainerExec;
use oncelet_core::{Capture, RunId, RunRecord};
use oncelet_engine::{ContainerId, ContainerState, Engine};
use oncelet_store::{ObjectRun, Store};

use crate::context::{Ctx, one_line};

/// How many runs are looked at together: they fit into one order to a supervisor.
const TOGETHER: u32 = 64;
/// How many objects are listed at a time.
const PAGE: u32 = 500;

/// Where the objects are that this daemon looks after, and so which runs it may say that their object is gone.
#[derive(Clone, Debug)]
pub(crate) enum Objects {
    /// In an API server that ends with this daemon.
    OfThisDaemon,
    /// In the API server with this identity; `None` where that cannot be known, and then no run of theirs is pruned.
    Server(Option<String>),
}

impl Objects {
    /// Those of the API server behind `client`, which outlives this daemon.
    pub(crate) async fn of_server(client: &Client) -> Self {
        // The namespace cannot be deleted, and so its UID is that of the server for ever.
        match Api::<Namespace>::all(client.clone()).get("default").await {
            Ok(namespace) => Self::Server(namespace.metadata.uid.map(|uid| format!("server {uid}"))),
            Err(error) => {
                tracing::warn!(
                    "runs with runPolicy: Always are kept as long as their containers: the namespace default, by which the API \
                     server is known again, cannot be read: {error}"
                );
                Self::Server(None)
            }
        }
    }

    /// How the store knows them.
    pub(crate) fn in_store(&self, store: &Store) -> Option<String> {
        match self {
            Self::OfThisDaemon => store.objects_of_this_daemon(),
            Self::Server(id) => id.clone(),
        }
    }
}

/// Forgets the runs that have been over for `keep` and whose objects are gone; returns how many. Those whose container does not run
/// wait until it does, or is gone.
pub(crate) async fn prune(ctx: &Ctx, store: &Store, keep: Duration) -> Result<u64, String> {
    let Some(objects) = ctx.objects.in_store(store) else { return Ok(0) };
    let (mut last, mut forgotten, mut living) = (RunId(0), 0, None);
    loop {
        let runs = store.object_runs(&objects, last, keep, (ctx.now)(), TOGETHER).await;
        let runs = runs.map_err(|error| one_line(&error))?;
        let Some(newest) = runs.last() else { return Ok(forgotten) };
        last = newest.record.id;
        // After the runs were read: an object that is gone then never comes back. The watch may be behind, and is not asked.
        let living = match &mut living {
            Some(living) => living,
            none => none.insert(living_objects(&ctx.client).await?),
        };
        let is_history = |run: &ObjectRun| run.server_is_gone || !living.contains(&run.object);
        let records = runs.into_iter().filter(is_history).map(|run| run.record).collect();
        let gone = forget_in_containers(ctx, records).await;
        forgotten += store.forget_each(&gone).await.map_err(|error| one_line(&error))?;
        store.compact().await.map_err(|error| one_line(&error))?;
    }
}

/// The UIDs of all objects, by the API server.
async fn living_objects(client: &Client) -> Result<HashSet<String>, String> {
    let api = Api::<ContainerExec>::all(client.clone());
    let (mut all, mut page) = (HashSet::new(), ListParams::default().limit(PAGE));
    loop {
        let list = api.list_metadata(&page).await.map_err(|error| one_line(&error))?;
        all.extend(list.items.into_iter().filter_map(|object| object.metadata.uid));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Removes the records of runs from their containers; returns the runs that have none there any more.
async fn forget_in_containers(ctx: &Ctx, records: Vec<RunRecord>) -> Vec<RunId> {
    let mut gone = Vec::new();
    let mut by_container = BTreeMap::<_, Vec<RunRecord>>::new();
    for record in records {
        if record.capture == Capture::Supervised {
            let container = (record.engine_id.clone(), record.container_id.clone());
            by_container.entry(container).or_default().push(record);
        } else {
            gone.push(record.id);
        }
    }
    for ((_, container), records) in by_container {
        match forget_in(ctx, &container, &records).await {
            Ok(ids) => gone.extend(ids),
            Err(error) => tracing::debug!(%container, "its records stay for now: {}", one_line(&error)),
        }
    }
    gone
}

async fn forget_in(ctx: &Ctx, container: &str, records: &[RunRecord]) -> Result<Vec<RunId>, oncelet_engine::Error> {
    let Some(first) = records.first() else { return Ok(Vec::new()) };
    let Some(engine) = ctx.engines.of_record(first).await? else { return Ok(Vec::new()) };
    let Some(found) = engine.container(container).await? else {
        // The records went with it.
        return Ok(records.iter().map(|record| record.id).collect());
    };
    if !matches!(found.state, ContainerState::Running { .. }) {
        return Ok(Vec::new());
    }
    let mut by_user = BTreeMap::<_, Vec<&RunRecord>>::new();
    for record in records {
        by_user.entry(record.program.user.as_deref()).or_default().push(record);
    }
    let mut gone = Vec::new();
    for (user, records) in by_user {
        if forget(&engine, &found.id, &records, user).await.is_ok() {
            gone.extend(records.iter().map(|record| record.id));
            continue;
        }
        // Of a run whose program goes on, the others know nothing.
        for record in records {
            match forget(&engine, &found.id, &[record], user).await {
                Ok(()) => gone.push(record.id),
                Err(error) => tracing::debug!(run = %record.id, "its record stays for now: {}", one_line(&error)),
            }
        }
    }
    Ok(gone)
}

async fn forget(
    engine: &Engine,
    container: &ContainerId,
    records: &[&RunRecord],
    user: Option<&str>,
) -> Result<(), oncelet_engine::Error> {
    let runs: Vec<_> = records.iter().map(|record| record.key.digest()).collect();
    engine.forget_runs(container, &runs, user).await
}
