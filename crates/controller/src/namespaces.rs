//! The watch of a kind: of all namespaces, or of some, each watched on its own so that a Role in each is enough.

use std::collections::HashMap;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// What can be watched here.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// The objects of a kind: in `namespaces`, or everywhere where there are none.
pub(crate) fn apis<K: Watched>(client: &Client, namespaces: &[String]) -> Vec<Api<K>> {
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

/// One watch of the objects of a kind: in `namespaces`, or everywhere where there are none.
pub fn watch<K: Watched>(
    client: &Client,
    namespaces: &[String],
) -> BoxStream<'static, Result<Event<K>, watcher::Error>> {
    let mut apis = apis(client, namespaces);
    let steps = |api| watcher(api, watcher::Config::default()).default_backoff().boxed();
    match (apis.pop(), apis.is_empty()) {
        (Some(api), true) => steps(api),
        (last, _) => merged(apis.into_iter().chain(last).map(steps).collect()).boxed(),
    }
}

/// Several watches as one. A list of one of them must not have what others show taken for gone: the first list is that of all
/// together, and what a later one brings or lacks is told object by object.
fn merged<K: Watched>(
    watches: Vec<BoxStream<'static, Result<Event<K>, watcher::Error>>>,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static {
    let mut state = Merged { parts: watches.iter().map(|_| Part::default()).collect(), has_begun: false };
    let numbered = watches.into_iter().enumerate().map(|(part, watch)| watch.map(move |step| (part, step)));
    stream::select_all(numbered.map(StreamExt::boxed)).flat_map(move |(part, step)| {
        stream::iter(match step {
            Ok(event) => state.take(part, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
}

struct Merged<K: Watched> {
    parts: Vec<Part<K>>,
    /// Whether the list of all has been told.
    has_begun: bool,
}

struct Part<K: Watched> {
    /// What its watch shows.
    shown: HashMap<ObjectRef<K>, K>,
    /// What a list that goes on has told so far.
    list: Option<HashMap<ObjectRef<K>, K>>,
    is_listed: bool,
}

impl<K: Watched> Default for Part<K> {
    fn default() -> Self {
        Self { shown: HashMap::new(), list: None, is_listed: false }
    }
}

impl<K: Watched> Merged<K> {
    fn take(&mut self, part: usize, event: Event<K>) -> Vec<Event<K>> {
        let Some(it) = self.parts.get_mut(part) else { return Vec::new() };
        let told = match event {
            Event::Init => {
                it.list = Some(HashMap::new());
                return Vec::new();
            }
            Event::InitApply(object) => {
                it.list.get_or_insert_default().insert(ObjectRef::from_obj(&object), object);
                return Vec::new();
            }
            Event::InitDone => {
                let now = it.list.take().unwrap_or_default();
                it.is_listed = true;
                let gone = it.shown.iter().filter(|(name, _)| !now.contains_key(*name));
                let mut told: Vec<_> = gone.map(|(_, object)| Event::Delete(object.clone())).collect();
                told.extend(now.values().cloned().map(Event::Apply));
                it.shown = now;
                told
            }
            Event::Apply(object) => {
                it.shown.insert(ObjectRef::from_obj(&object), object.clone());
                vec![Event::Apply(object)]
            }
            Event::Delete(object) => {
                it.shown.remove(&ObjectRef::from_obj(&object));
                vec![Event::Delete(object)]
            }
        };
        if self.has_begun {
            return told;
        }
        self.has_begun = self.parts.iter().all(|part| part.is_listed);
        if !self.has_begun {
            return Vec::new();
        }
        let all = self.parts.iter().flat_map(|part| part.shown.values().cloned().map(Event::InitApply));
        std::iter::once(Event::Init).chain(all).chain([Event::InitDone]).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.name = Some(name.to_owned());
        object
    }

    fn told(state: &mut Merged<ConfigMap>, part: usize, event: Event<ConfigMap>) -> Vec<String> {
        let name = |object: &ConfigMap| object.metadata.name.clone().unwrap_or_default();
        let mut told: Vec<_> = state
            .take(part, event)
            .iter()
            .map(|event| match event {
                Event::Init => "init".to_owned(),
                Event::InitApply(object) => format!("init {}", name(object)),
                Event::InitDone => "done".to_owned(),
                Event::Apply(object) => format!("apply {}", name(object)),
                Event::Delete(object) => format!("delete {}", name(object)),
            })
            .collect();
        if told.len() > 2 && told[0] == "init" {
            let last = told.len() - 1;
            told[1..last].sort();
        } else {
            told.sort();
        }
        told
    }

    #[test]
    fn the_list_of_one_namespace_takes_nothing_from_another() {
        let mut state = Merged { parts: vec![Part::default(), Part::default()], has_begun: false };
        let nothing = Vec::<String>::new();
        for event in [Event::Init, Event::InitApply(object("a", "a1")), Event::InitDone] {
            assert_eq!(told(&mut state, 0, event), nothing, "before all are listed");
        }
        assert_eq!(told(&mut state, 0, Event::Apply(object("a", "a2"))), nothing);
        for event in [Event::Init, Event::InitApply(object("b", "b1"))] {
            assert_eq!(told(&mut state, 1, event), nothing);
        }
        assert_eq!(told(&mut state, 1, Event::InitDone), ["init", "init a1", "init a2", "init b1", "done"]);
        assert_eq!(told(&mut state, 1, Event::Apply(object("b", "b2"))), ["apply b2"]);
        // The watch of one was too old.
        for event in [Event::Init, Event::InitApply(object("a", "a2")), Event::InitApply(object("a", "a3"))] {
            assert_eq!(told(&mut state, 0, event), nothing);
        }
        assert_eq!(told(&mut state, 0, Event::InitDone), ["apply a2", "apply a3", "delete a1"]);
        assert_eq!(told(&mut state, 1, Event::Delete(object("b", "b1"))), ["delete b1"]);
    }
}
