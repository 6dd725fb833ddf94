//! Objects in memory, the ring of their changes, and the file that they are kept in where somebody asks for it.
//!
//! ```text
//! writers ──▶ tables (now) ──▶ ring (the last changes) ◀── watchers, each a cursor
//!                  └─▶ disk, where objects are to outlast the server
//! ```
//!
//! A writer appends to the ring and never waits for a watcher. A watcher remembers the version it has seen and reads on
//! from there; one that falls behind the ring's tail learns that it has [`Expired`] and starts again from a list.

mod disk;
mod ring;
mod stored;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::meta;
use disk::{Disk, Write};
pub(crate) use disk::{Kept, ObjectFile};
use ring::{Capacity, Ring};
pub(crate) use ring::{Change, Effect, Expired};
pub(crate) use stored::Stored;

/// How far a watcher may lag behind before it has to list again. Each change holds on to one state of an object.
const RING_CAPACITY: Capacity = Capacity { changes: 4096, bytes: 16 * 1024 * 1024 };

/// Where an object lives within its table. Cluster-scoped objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A moment of one table.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    pub(crate) objects: Vec<Arc<Stored>>,
}

/// Why an object was not created.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CreateRefused {
    Exists,
    ParentMissing,
    ParentEnding,
}

/// The stored version is no longer the one that the writer read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// A namespace that must be there, and stay, for the object to be created.
pub(crate) type Parent<'a> = (&'a str, &'a Key);

/// How long a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// A write is not on the disk yet; it may still get there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotKept {
    /// What the disk says.
    pub(crate) why: String,
}

/// All objects of all resources.
pub(crate) struct Store {
    state: Mutex<State>,
    /// The newest version that may be told of.
    head: watch::Sender<u64>,
    disk: Option<Disk>,
}

struct State {
    tables: HashMap<Arc<str>, BTreeMap<Key, Arc<Stored>>>,
    ring: Ring,
    version: u64,
}

impl Store {
    /// An empty store whose versions start above `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            state: Mutex::new(State { tables: HashMap::new(), ring: Ring::new(RING_CAPACITY, first), version: first }),
            head: watch::Sender::new(first),
            disk: None,
        }
    }

    /// A store of what a file holds, whose writes go there. Its versions start above `first` and above all in the file.
    pub(crate) fn kept(first: u64, file: ObjectFile, objects: Kept) -> Self {
        let first = objects.iter().map(|(_, object)| object.version).fold(first, u64::max);
        let mut store = Self::new(first);
        let state = store.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (table, object) in objects {
            state.tables.entry(table).or_default().insert(object.key.clone(), Arc::new(object));
        }
        store.disk = Some(file.keep_writing(store.head.clone()));
        store
    }

    /// Waits until everything that was written so far may be told of.
    pub(crate) async fn settled(&self) -> Result<(), NotKept> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let version = self.version();
        let mut head = self.head.subscribe();
        let waited = tokio::time::timeout(PATIENCE, head.wait_for(|head| *head >= version)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NotKept { why: disk.trouble().unwrap_or_else(|| "it takes too long".to_owned()) }),
        }
    }

    /// Ends the way to the disk, once what was written so far is there.
    pub(crate) async fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
    }

    /// Every object, with its table.
    pub(crate) fn everything(&self) -> Vec<(Arc<str>, Arc<Stored>)> {
        let state = self.state();
        let of_table = |(name, table): (&Arc<str>, &BTreeMap<Key, Arc<Stored>>)| {
            table.values().map(|object| (Arc::clone(name), Arc::clone(object))).collect::<Vec<_>>()
        };
        state.tables.iter().flat_map(of_table).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole before anything in it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// Woken with the newest version that may be told of.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(crate) fn get(&self, table: &str, key: &Key) -> Option<Arc<Stored>> {
        self.state().tables.get(table)?.get(key).cloned()
    }

    /// The table as it is now, in key order; only `namespace` where one is given.
    pub(crate) fn list(&self, table: &str, namespace: Option<&str>) -> Snapshot {
        let state = self.state();
        Snapshot { version: state.version, objects: collect(state.tables.get(table), namespace) }
    }

    /// The table as it was at `version`, rebuilt by undoing the changes since.
    pub(crate) fn list_at(&self, table: &str, namespace: Option<&str>, version: u64) -> Result<Snapshot, Expired> {
        let state = self.state();
        let mut past = state.tables.get(table).cloned().unwrap_or_default();
        for change in state.ring.since(version)?.rev().filter(|change| &*change.table == table) {
            let key = change.object.key.clone();
            match &change.previous {
                Some(previous) => past.insert(key, Arc::clone(previous)),
                None => past.remove(&key),
            };
        }
        Ok(Snapshot { version, objects: collect(Some(&past), namespace) })
    }

    /// The changes to `table` after `cursor` that may be told of, and the cursor to go on from.
    pub(crate) fn changes(&self, table: &str, cursor: u64) -> Result<(Vec<Arc<Change>>, u64), Expired> {
        let state = self.state();
        let head = *self.head.borrow();
        let since = state.ring.since(cursor)?.take_while(|change| change.version <= head);
        let changes = since.filter(|change| &*change.table == table).cloned().collect();
        Ok((changes, cursor.max(head)))
    }

    /// Whether a table holds anything in `namespace`.
    pub(crate) fn tables_with_objects_in(&self, namespace: &str) -> Vec<Arc<str>> {
        let state = self.state();
        let first = Key::new(namespace, "");
        let holds = |table: &BTreeMap<Key, Arc<Stored>>| {
            table.range(&first..).next().is_some_and(|(key, _)| key.namespace == namespace)
        };
        state.tables.iter().filter(|(_, table)| holds(table)).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Everything that names `owner` in its owner references, with its table.
    pub(crate) fn dependents(&self, owner_uid: &str) -> Vec<(Arc<str>, Arc<Stored>)> {
        let state = self.state();
        let owned = |object: &&Arc<Stored>| object.owners.iter().any(|uid| **uid == *owner_uid);
        let in_table = |(name, table): (&Arc<str>, &BTreeMap<Key, Arc<Stored>>)| {
            table.values().filter(owned).map(|object| (Arc::clone(name), Arc::clone(object))).collect::<Vec<_>>()
        };
        state.tables.iter().flat_map(in_table).collect()
    }

    /// Stores a new object, and gives `value` its version.
    pub(crate) fn create(
        &self,
        table: &Arc<str>,
        key: Key,
        value: &mut Value,
        parent: Option<Parent<'_>>,
    ) -> Result<Arc<Stored>, CreateRefused> {
        let mut state = self.state();
        if let Some((parent_table, parent_key)) = parent {
            let found = state.tables.get(parent_table).and_then(|objects| objects.get(parent_key));
            match found {
                None => return Err(CreateRefused::ParentMissing),
                Some(found) if found.is_ending => return Err(CreateRefused::ParentEnding),
                Some(_) => {}
            }
        }
        if state.tables.get(table).is_some_and(|objects| objects.contains_key(&key)) {
            return Err(CreateRefused::Exists);
        }
        Ok(self.commit(&mut state, table, key, value, None, Effect::Added))
    }

    /// Replaces the object, if it still is at the version that the writer read, and gives `value` its version.
    pub(crate) fn replace(&self, table: &Arc<str>, read: &Stored, value: &mut Value) -> Result<Arc<Stored>, Lost> {
        let mut state = self.state();
        let previous = state.current(table, read)?;
        Ok(self.commit(&mut state, table, read.key.clone(), value, Some(previous), Effect::Modified))
    }

    /// Removes the object, if it still is at the version that the writer read; watchers see `last` go, which
    /// gets the version of its going.
    pub(crate) fn remove(&self, table: &Arc<str>, read: &Stored, last: &mut Value) -> Result<Arc<Stored>, Lost> {
        let mut state = self.state();
        let previous = state.current(table, read)?;
        Ok(self.commit(&mut state, table, read.key.clone(), last, Some(previous), Effect::Deleted))
    }

    fn commit(
        &self,
        state: &mut State,
        table: &Arc<str>,
        key: Key,
        value: &mut Value,
        previous: Option<Arc<Stored>>,
        effect: Effect,
    ) -> Arc<Stored> {
        state.version = state.version.saturating_add(1);
        let version = state.version;
        meta::set(value, "resourceVersion", Value::String(version.to_string()));
        let object = Arc::new(Stored::new(key.clone(), version, value));
        let objects = state.tables.entry(Arc::clone(table)).or_default();
        match effect {
            Effect::Added | Effect::Modified => objects.insert(key, Arc::clone(&object)),
            Effect::Deleted => objects.remove(&key),
        };
        let table = Arc::clone(table);
        state.ring.push(Change { version, table: Arc::clone(&table), effect, object: Arc::clone(&object), previous });
        match &self.disk {
            // Under the lock, so that the disk gets them in their order.
            Some(disk) => disk.write(Write { table, object: Arc::clone(&object), gone: effect == Effect::Deleted }),
            None => drop(self.head.send_replace(version)),
        }
        object
    }
}

impl State {
    fn current(&self, table: &str, read: &Stored) -> Result<Arc<Stored>, Lost> {
        let found = self.tables.get(table).and_then(|objects| objects.get(&read.key)).ok_or(Lost)?;
        if found.version == read.version { Ok(Arc::clone(found)) } else { Err(Lost) }
    }
}

fn collect(table: Option<&BTreeMap<Key, Arc<Stored>>>, namespace: Option<&str>) -> Vec<Arc<Stored>> {
    let Some(table) = table else { return Vec::new() };
    match namespace {
        None => table.values().cloned().collect(),
        Some(namespace) => table
            .range((Bound::Included(Key::new(namespace, "")), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Arc<str> {
        Arc::from("things")
    }

    fn put(store: &Store, name: &str) -> Arc<Stored> {
        store.create(&table(), Key::new("default", name), &mut json!({"metadata": {"name": name}}), None).unwrap()
    }

    #[test]
    fn every_write_gets_a_version_of_its_own() {
        let store = Store::new(100);
        let a = put(&store, "a");
        let b = store.replace(&table(), &a, &mut a.value()).unwrap();
        assert_eq!((a.version, b.version), (101, 102));
        assert_eq!(b.value()["metadata"]["resourceVersion"], "102");
    }

    #[test]
    fn a_writer_that_read_an_old_version_loses() {
        let store = Store::new(1);
        let a = put(&store, "a");
        store.replace(&table(), &a, &mut a.value()).unwrap();
        assert_eq!(store.replace(&table(), &a, &mut a.value()).unwrap_err(), Lost);
        assert_eq!(store.remove(&table(), &a, &mut a.value()).unwrap_err(), Lost);
    }

    #[test]
    fn a_deletion_is_a_change_with_a_fresh_version_and_the_last_state() {
        let store = Store::new(1);
        let a = put(&store, "a");
        store.remove(&table(), &a, &mut a.value()).unwrap();
        let (changes, cursor) = store.changes("things", a.version).unwrap();
        assert_eq!(cursor, 3);
        assert_eq!(changes[0].effect, Effect::Deleted);
        assert_eq!(changes[0].object.value()["metadata"]["resourceVersion"], "3");
    }

    #[test]
    fn a_list_at_an_older_version_shows_what_was_there_then() {
        let store = Store::new(1);
        let a = put(&store, "a");
        let b = put(&store, "b");
        store.remove(&table(), &a, &mut a.value()).unwrap();
        put(&store, "c");
        let then = store.list_at("things", Some("default"), b.version).unwrap();
        let names: Vec<_> = then.objects.iter().map(|object| object.key.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_cursor_from_before_the_start_has_expired() {
        let store = Store::new(50);
        assert!(store.changes("things", 49).is_err());
        assert!(store.changes("things", 50).is_ok());
    }

    #[test]
    fn nothing_is_created_under_a_parent_that_is_missing_or_ending() {
        let store = Store::new(1);
        let namespaces: Arc<str> = Arc::from("namespaces");
        let key = Key::new("", "gone");
        let parent = Some((&*namespaces, &key));
        let child = || store.create(&table(), Key::new("gone", "a"), &mut json!({}), parent).unwrap_err();
        assert_eq!(child(), CreateRefused::ParentMissing);
        let mut ending = json!({"metadata": {"deletionTimestamp": "now"}});
        store.create(&namespaces, key.clone(), &mut ending, None).unwrap();
        assert_eq!(child(), CreateRefused::ParentEnding);
    }
}
