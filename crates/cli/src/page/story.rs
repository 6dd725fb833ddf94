//! Everything that there is to say about one object.

use std::path::Path;

use anyhow::Result;
use axum::Json;
use axum::extract::{self, State};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use oncelet_api::{Container, ContainerExecStatus};
use oncelet_core::{RunId, RunRecord};
use oncelet_store::{Filter, Store};
use serde_json::{Value, json};

use super::{Answer, Named, Page, Shared};
use crate::explain;
use crate::runs::{exit_code, message, times};

/// The newest so many runs of a container.
const TIMELINE: u32 = 200;

/// An exec: the object, the explanation of `oncelet explain`, its events, and the runs in its container.
pub(super) async fn exec(State(page): Shared, extract::Path((namespace, name)): Named) -> Answer<Json<Value>> {
    let object = page.execs(&namespace).get(&name).await?;
    let status = object.status.clone().unwrap_or_default();
    let Memory { record, runs } = remembered(&page.store_dir, &status).await.unwrap_or_default();
    Ok(Json(json!({
        "explanation": explain::tell(&object, &status, record.as_ref()),
        "events": events(&page, &namespace, "ContainerExec", &name).await?,
        "runs": runs,
        "object": object,
    })))
}

/// A container: the object, its events, and the runs in it.
pub(super) async fn container(State(page): Shared, extract::Path((namespace, name)): Named) -> Answer<Json<Value>> {
    let object = Api::<Container>::namespaced(page.client.clone(), &namespace).get(&name).await?;
    let container = object.status.as_ref().and_then(|status| status.container_name.clone());
    let runs = match (container, Store::open_reader(&page.store_dir).await) {
        (Some(container), Ok(store)) => {
            let runs = timeline(&store, container).await?;
            store.close().await;
            runs
        }
        // There is no store before the first run.
        _ => Vec::new(),
    };
    let events = events(&page, &namespace, "Container", &name).await?;
    Ok(Json(json!({"object": object, "events": events, "runs": runs})))
}

/// What the store knows for an exec.
#[derive(Default)]
struct Memory {
    record: Option<RunRecord>,
    runs: Vec<Value>,
}

async fn remembered(store_dir: &Path, status: &ContainerExecStatus) -> Result<Memory> {
    let store = Store::open_reader(store_dir).await?;
    let record = match status.run_id {
        Some(run) => store.run(RunId(run)).await?,
        None => None,
    };
    let runs = match status.container_name.clone() {
        Some(container) => timeline(&store, container).await?,
        None => Vec::new(),
    };
    store.close().await;
    Ok(Memory { record, runs })
}

async fn timeline(store: &Store, container: String) -> Result<Vec<Value>> {
    let filter = Filter { container: Some(container), limit: Some(TIMELINE), ..Filter::default() };
    Ok(store.list(filter).await?.iter().map(entry).collect())
}

fn entry(record: &RunRecord) -> Value {
    let (started, finished) = times(&record.state);
    json!({
        "run": record.id,
        "name": record.key.name.as_str(),
        "container": record.container_id,
        "state": record.state.name(),
        "exit": exit_code(&record.state),
        "message": message(&record.state),
        "claimed": record.claimed_at,
        "started": started,
        "finished": finished,
    })
}

/// The newest first.
async fn events(page: &Page, namespace: &str, kind: &str, name: &str) -> Result<Vec<Value>, kube::Error> {
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let api = Api::<Event>::namespaced(page.client.clone(), namespace);
    let mut events: Vec<(Option<Timestamp>, Value)> = api
        .list(&ListParams::default().fields(&fields))
        .await?
        .items
        .into_iter()
        .map(|event| {
            let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref().map(|time| time.0));
            let last = series.or(event.last_timestamp.map(|time| time.0)).or(event.event_time.map(|time| time.0));
            let told = json!({"at": last, "type": event.type_, "reason": event.reason, "message": event.message});
            (last, told)
        })
        .collect();
    events.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(events.into_iter().map(|(_, told)| told).collect())
}
