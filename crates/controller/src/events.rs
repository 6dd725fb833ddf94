//! Writes Kubernetes events, beside the work that they tell of.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use oncelet_api::Warning;
use tokio::sync::{mpsc, oneshot};

use crate::context::one_line;

/// Where events are told. They are written one after the other, in the order in which they are told; nobody waits for it.
///
/// The story is for people: where it cannot be written, the work goes on.
#[derive(Clone)]
pub(crate) struct Events(mpsc::UnboundedSender<Told>);

enum Told {
    Event(Box<(Event, ObjectReference)>),
    /// Whoever wants to know that all before it is written.
    Mark(oneshot::Sender<()>),
}

impl Events {
    /// Events that are written through `client`, until nobody is left to tell one.
    pub(crate) fn through(client: Client) -> Self {
        let (tell, mut told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let recorder = Recorder::new(client, Reporter { controller: "oncelet".into(), instance: None });
            while let Some(next) = told.recv().await {
                match next {
                    Told::Event(told) => {
                        if let Err(error) = recorder.publish(&told.0, &told.1).await {
                            tracing::debug!("an event was not written: {}", one_line(&error));
                        }
                    }
                    Told::Mark(mark) => drop(mark.send(())),
                }
            }
        });
        Self(tell)
    }

    /// Tells `event` about `object`.
    pub(crate) fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, event: Event) {
        // It ends only with the runtime.
        let _ = self.0.send(Told::Event(Box::new((event, object.object_ref(&())))));
    }

    /// Waits until all that was told before is written.
    pub(crate) async fn written(&self) {
        let (mark, reached) = oneshot::channel();
        if self.0.send(Told::Mark(mark)).is_ok() {
            let _ = reached.await;
        }
    }
}

/// The events for what is hardly meant in a spec, where it has just been looked at for the first time in this generation:
/// `seen` is the generation that the object's status was about before.
pub(crate) fn warnings(
    seen: Option<i64>,
    generation: Option<i64>,
    warnings: impl FnOnce() -> Vec<Warning>,
) -> Vec<Event> {
    if seen == generation {
        return Vec::new();
    }
    warnings().iter().map(|it| event(EventType::Warning, "Validate", it.reason, &it.text())).collect()
}

/// An event about the object that it is told of.
pub(crate) fn event(type_: EventType, action: &str, reason: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        // Kubernetes takes notes of up to 1 KiB.
        note: Some(note.chars().take(900).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}
