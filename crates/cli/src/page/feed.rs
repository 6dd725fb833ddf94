//! The objects and their changes, a JSON object a line:
//!
//! - `{"begin": KIND}`: all objects of a kind follow; those that do not are gone.
//! - `{"kind": KIND, "key": "NS/NAME", "it": {…}}`: an object is there, or has changed.
//! - `{"kind": KIND, "key": "NS/NAME"}`: it is gone.
//! - `{"all": KIND}`: these were all.
//! - `{"trouble": "…"}`: the API server does not answer; what is shown may be old.
//! - `{}`: nothing, now and then, which tells that the line is not dead.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use oncelet_api::{Container, ContainerExec};
use oncelet_controller::{Watched, watch_objects};
use serde_json::{Value, json};
use tokio_util::time::FutureExt as _;

use super::Shared;

const BEAT: Duration = Duration::from_secs(15);

pub(super) async fn feed(State(page): Shared) -> Response {
    let execs = changes("exec", watch_objects(&page.client, &page.namespaces), exec);
    let containers = changes("container", watch_objects(&page.client, &page.namespaces), container);
    let changes = Box::pin(stream::select(execs, containers));
    let alive = stream::unfold(changes, |mut changes| async move {
        // A change that comes while the beat is told is kept: the stream is only waited for.
        let next = changes.next().timeout(BEAT).await.unwrap_or_else(|_| Some(json!({})));
        Some((next?, changes))
    });
    super::lines(alive, &page)
}

fn changes<K: Watched>(
    kind: &'static str,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    summary: fn(&K) -> Value,
) -> impl Stream<Item = Value> + Send {
    let key = |object: &K| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    events.map(move |event| match event {
        Ok(Event::Init) => json!({"begin": kind}),
        Ok(Event::InitApply(it) | Event::Apply(it)) => json!({"kind": kind, "key": key(&it), "it": summary(&it)}),
        Ok(Event::Delete(it)) => json!({"kind": kind, "key": key(&it)}),
        Ok(Event::InitDone) => json!({"all": kind}),
        Err(error) => json!({"trouble": crate::output::one_line(&error.into())}),
    })
}

/// What a list shows of an exec.
fn exec(it: &ContainerExec) -> Value {
    let status = it.status.clone().unwrap_or_default();
    json!({
        "created": it.creation_timestamp().map(|time| time.0),
        "container": status.container_name.or_else(|| it.spec.container_name.clone()).or_else(|| it.spec.engine_container.clone()),
        "object": it.spec.container_name,
        "command": it.spec.command,
        "state": status.state,
        "message": status.message,
        "exit": status.exit_code,
        "restored": status.restored,
        "started": time(status.startup_timestamp.as_ref()),
        "finished": time(status.finish_timestamp.as_ref()),
        "run": status.run_id,
        "stopping": it.spec.stop,
    })
}

/// What a list shows of a container.
fn container(it: &Container) -> Value {
    let status = it.status.clone().unwrap_or_default();
    json!({
        "created": it.creation_timestamp().map(|time| time.0),
        "container": status.container_name,
        "image": it.spec.image,
        "mode": it.spec.mode,
        "state": status.state,
        "health": status.health,
        "message": status.message,
        "exit": status.exit_code,
        "started": time(status.startup_timestamp.as_ref()),
        "finished": time(status.finish_timestamp.as_ref()),
    })
}

fn time(time: Option<&MicroTime>) -> Option<jiff::Timestamp> {
    time.map(|time| time.0)
}
