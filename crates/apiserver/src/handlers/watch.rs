//! GET with `watch=true`: a cursor into the ring of changes, as a stream of events.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Call;
use super::read::{LIST_OPTIONS, version};
use crate::meta;
use crate::negotiate::Form;
use crate::selectors::Selector;
use crate::status::{ApiError, Cause};
use crate::storage::{Change, Effect, Expired, Stored};

/// How often a watcher that allows bookmarks learns how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);

struct Watcher {
    call: Call,
    selector: Selector,
    form: Form,
    /// Everything up to here has been sent, or is in `pending`.
    cursor: u64,
    pending: VecDeque<Bytes>,
    changed: watch::Receiver<u64>,
    bookmarks: Option<Instant>,
    /// When to end: the client said so. Without, the watch lasts as long as the connection.
    deadline: Option<Instant>,
    first: bool,
    ended: bool,
}

pub(super) fn watch(call: Call) -> Result<Response<Body>, ApiError> {
    let form = Form::of(&call.headers, &call.query)?;
    let selector = call.selector()?;
    let initial_events = initial_events(&call)?;
    // A time beyond what can be told is none.
    let after = |seconds| Instant::now().checked_add(Duration::from_secs(seconds));
    let allows_bookmarks = call.query.flag("allowWatchBookmarks");
    let mut watcher = Watcher {
        changed: call.app.store.subscribe(),
        deadline: call.query.number("timeoutSeconds").filter(|&seconds| seconds > 0).and_then(after),
        bookmarks: allows_bookmarks.then(next_bookmark),
        cursor: 0,
        pending: VecDeque::new(),
        first: true,
        ended: false,
        call,
        selector,
        form,
    };
    match watcher.call.query.text("resourceVersion") {
        "" | "0" if initial_events != Some(false) => watcher.replay(initial_events == Some(true)),
        "" | "0" => watcher.cursor = watcher.call.app.store.version(),
        _ if initial_events == Some(true) => watcher.replay(true),
        text => {
            watcher.cursor = version(text)?;
            // A cursor from another server's life, or from before this one's ring: the client must list again.
            if watcher.cursor > watcher.call.app.store.version() {
                watcher.expire(watcher.call.app.store.version());
            }
        }
    }
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(event), watcher))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// `sendInitialEvents`, which comes only together with its match rule.
fn initial_events(call: &Call) -> Result<Option<bool>, ApiError> {
    let text = call.query.text("sendInitialEvents");
    let matching = call.query.text("resourceVersionMatch");
    let refuse = |field: &str, why: &str| {
        let mut causes = vec![Cause::forbidden(field, why)];
        if !["", "NotOlderThan"].contains(&matching) {
            let message = format!("Unsupported value: {}: supported values: \"NotOlderThan\"", json!(matching));
            causes.push(Cause { reason: "FieldValueNotSupported", message, field: field.to_owned() });
        }
        Err(ApiError::invalid(LIST_OPTIONS, "", causes))
    };
    match (text, matching) {
        ("", "") => Ok(None),
        ("", _) => refuse(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (_, "NotOlderThan") => Ok(Some(call.query.flag("sendInitialEvents"))),
        _ => refuse("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    }
}

impl Watcher {
    /// Starts with an ADDED for everything that is there now.
    fn replay(&mut self, mark_end: bool) {
        let snapshot = self.call.app.store.list(&self.call.resource.table, self.call.namespace.as_deref());
        for object in &snapshot.objects {
            if self.call.selects(&self.selector, object) {
                self.show("ADDED", object);
            }
        }
        self.cursor = snapshot.version;
        if mark_end && self.bookmarks.is_some() {
            self.bookmark(Some(json!({"k8s.io/initial-events-end": "true"})));
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            self.changed.mark_unchanged();
            match self.call.app.store.changes(&self.call.resource.table, self.cursor) {
                Ok((changes, cursor)) => {
                    for change in &changes {
                        self.change(change);
                    }
                    self.cursor = cursor;
                }
                Err(Expired { oldest }) => self.expire(oldest),
            }
            if !self.pending.is_empty() || self.ended {
                continue;
            }
            let shutdown = self.call.app.shutdown.clone();
            // Each arm only waits: nothing is lost when another one wins.
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = at(self.bookmarks) => {
                    self.bookmarks = Some(next_bookmark());
                    self.bookmark(None);
                }
                () = at(self.deadline) => {
                    // The last thing it learns is where to go on.
                    if self.bookmarks.is_some() {
                        self.bookmark(None);
                    }
                    self.ended = true;
                }
                () = shutdown.cancelled() => return None,
            }
        }
    }

    /// What the change is to this watcher, who may see only some objects.
    fn change(&mut self, change: &Change) {
        if self.call.namespace.as_ref().is_some_and(|namespace| *namespace != change.object.key.namespace) {
            return;
        }
        let was_selected = change.previous.as_ref().is_some_and(|object| self.call.selects(&self.selector, object));
        let now_selected = change.effect != Effect::Deleted && self.call.selects(&self.selector, &change.object);
        let event = match (was_selected, now_selected, &change.previous) {
            (false, true, _) => "ADDED",
            (true, true, _) => "MODIFIED",
            (true, false, _) if change.effect == Effect::Deleted => "DELETED",
            // It left the selection: as it was when it was last was_selected, at the version of its leaving.
            (true, false, Some(previous)) => {
                let mut gone = self.call.present(previous.value());
                meta::set(&mut gone, "resourceVersion", json!(change.version.to_string()));
                return self.send("DELETED", gone);
            }
            _ => return,
        };
        self.show(event, &change.object);
    }

    fn show(&mut self, event: &str, object: &Stored) {
        if self.call.takes_as_stored(self.form) {
            return self.push_json(event, &object.json);
        }
        self.send(event, self.call.present(object.value()));
    }

    fn send(&mut self, event: &str, object: Value) {
        let object = self.form.event(&self.call.resource, object, self.first, self.call.now());
        self.first = false;
        self.push(event, &object);
    }

    fn bookmark(&mut self, annotations: Option<Value>) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string()});
        if let Some(annotations) = annotations {
            meta::put(&mut metadata, "annotations", annotations);
        }
        let resource = &self.call.resource;
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
        self.send("BOOKMARK", object);
    }

    /// An error within the stream: kube-rs would try a refused watch again for ever.
    fn expire(&mut self, oldest: u64) {
        let error = ApiError::expired(format!("too old resource version: {} ({oldest})", self.cursor));
        self.push("ERROR", &error.to_json());
        self.ended = true;
    }

    fn push(&mut self, event: &str, object: &Value) {
        self.push_json(event, object.to_string().as_bytes());
    }

    fn push_json(&mut self, event: &str, object: &[u8]) {
        let mut line = Vec::with_capacity(object.len().saturating_add(40));
        for part in [b"{\"type\":\"", event.as_bytes(), b"\",\"object\":", object, b"}\n"] {
            line.extend_from_slice(part);
        }
        self.pending.push_back(Bytes::from(line));
    }
}

#[allow(clippy::arithmetic_side_effects, reason = "a minute from now is a moment that there is")]
fn next_bookmark() -> Instant {
    Instant::now() + BOOKMARK_EVERY
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
