//! The objects of a kind, each as new as this process can know it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store as Reflector};

/// What the watch has shown, and what this process has written that the watch has not shown yet. Clones share it.
///
/// A decision about writing must not be based on what the watch shows alone: after a write of ours it shows what was before
/// for as long as the news takes. Who compares with that finds no difference when the world goes back to what it was, and
/// the write that is still on its way stays.
pub(crate) struct Objects<K: Resource<DynamicType = ()> + 'static> {
    shown: Reflector<K>,
    written: Arc<Mutex<HashMap<ObjectRef<K>, Arc<K>>>>,
}

impl<K: Resource<DynamicType = ()> + 'static> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Self { shown: self.shown.clone(), written: Arc::clone(&self.written) }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Objects<K> {
    pub(crate) fn new(shown: Reflector<K>) -> Self {
        Self { shown, written: Arc::default() }
    }

    /// The newest known version of an object that the watch shows.
    pub(crate) fn get(&self, name: &ObjectRef<K>) -> Option<Arc<K>> {
        let shown = self.shown.get(name)?;
        let written = self.written(|all| all.get(name).cloned());
        Some(written.filter(|written| is_later(&**written, &*shown)).unwrap_or(shown))
    }

    /// All objects, as the watch shows them.
    pub(crate) fn shown(&self) -> &Reflector<K> {
        &self.shown
    }

    /// The API server has answered a write of ours with `object`.
    pub(crate) fn wrote(&self, object: K) {
        let name = ObjectRef::from_obj(&object);
        let object = Arc::new(object);
        self.written(|all| {
            let newest = all.entry(name.clone()).or_insert_with(|| Arc::clone(&object));
            if !is_earlier(&*object, &**newest) {
                *newest = object;
            }
        });
        // The watch may have been faster than the answer.
        match self.shown.get(&name) {
            Some(shown) => self.saw(&name, Some(&*shown)),
            None => self.saw(&name, None),
        }
    }

    /// The watch shows `object`, or that there is none of this name any more.
    pub(crate) fn saw(&self, name: &ObjectRef<K>, object: Option<&K>) {
        self.written(|all| {
            let is_news = |written: &Arc<K>| object.is_some_and(|shown| is_later(&**written, shown));
            if all.get(name).is_some_and(|written| !is_news(written)) {
                all.remove(name);
            }
        });
    }

    fn written<T>(&self, work: impl FnOnce(&mut HashMap<ObjectRef<K>, Arc<K>>) -> T) -> T {
        work(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether `one` is a later version of the object that `other` is. Versions of one object are numbers that grow (the
/// Kubernetes API's rule since 1.35, etcd's since ever); of what is none nothing is known.
fn is_later<K: Resource>(one: &K, other: &K) -> bool {
    one.meta().uid == other.meta().uid && version(one).zip(version(other)).is_some_and(|(one, other)| one > other)
}

fn is_earlier<K: Resource>(one: &K, other: &K) -> bool {
    is_later(other, one)
}

fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use oncelet_api::{ContainerExec, ContainerExecSpec};

    use super::*;

    fn version_of(object: Option<Arc<ContainerExec>>) -> Option<String> {
        object?.metadata.resource_version.clone()
    }

    fn exec(uid: &str, version: &str) -> ContainerExec {
        let mut exec = ContainerExec::new("seed", ContainerExecSpec::default());
        exec.metadata.uid = Some(uid.to_owned());
        exec.metadata.resource_version = Some(version.to_owned());
        exec
    }

    #[test]
    fn the_later_of_what_was_written_and_what_is_shown_counts() {
        let (shown, mut watch) = reflector::store();
        let objects = Objects::new(shown);
        let name = ObjectRef::from_obj(&exec("u", "9"));
        let mut show = |object: ContainerExec| {
            watch.apply_watcher_event(&Event::Apply(object.clone()));
            objects.saw(&name, Some(&object));
        };
        assert_eq!(version_of(objects.get(&name)), None);
        show(exec("u", "9"));
        objects.wrote(exec("u", "10"));
        assert_eq!(version_of(objects.get(&name)).as_deref(), Some("10"), "versions are numbers and not text");
        objects.wrote(exec("u", "12"));
        show(exec("u", "10"));
        assert_eq!(version_of(objects.get(&name)).as_deref(), Some("12"));
        show(exec("u", "13"));
        assert_eq!(version_of(objects.get(&name)).as_deref(), Some("13"), "somebody else has written after us");
        show(exec("other", "2"));
        objects.wrote(exec("u", "14"));
        assert_eq!(version_of(objects.get(&name)).as_deref(), Some("2"), "another object of this name");
        objects.wrote(exec("other", "2"));
        assert!(objects.written(|all| all.is_empty()), "what the watch shows is not kept twice");
    }
}
