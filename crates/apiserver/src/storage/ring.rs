//! The last changes, oldest first, in a bounded ring.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Stored;

/// What a change did to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Added,
    Modified,
    Deleted,
}

/// One committed write.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) table: Arc<str>,
    pub(crate) effect: Effect,
    /// The object after the write; for a deletion its last state, at the deletion's version.
    pub(crate) object: Arc<Stored>,
    pub(crate) previous: Option<Arc<Stored>>,
}

/// The changes after this version are no longer all there: list again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The oldest version that can still be resumed from.
    pub(crate) oldest: u64,
}

pub(super) struct Ring {
    /// Each with its size.
    changes: VecDeque<(Arc<Change>, usize)>,
    capacity: Capacity,
    held: usize,
    /// Every change after this version is in `changes`.
    floor: u64,
}

impl Ring {
    pub(super) fn new(capacity: Capacity, floor: u64) -> Self {
        Self { changes: VecDeque::new(), capacity, held: 0, floor }
    }

    pub(super) fn push(&mut self, change: Change) {
        let weight = change.object.json.len();
        self.held = self.held.saturating_add(weight);
        self.changes.push_back((Arc::new(change), weight));
        // The newest stays, however large: a watcher that is up to date must not be lapped by one write.
        while self.changes.len() > self.capacity.changes || (self.held > self.capacity.bytes && self.changes.len() > 1)
        {
            let Some((dropped, weight)) = self.changes.pop_front() else { break };
            self.held = self.held.saturating_sub(weight);
            self.floor = dropped.version;
        }
    }

    /// The changes after `version`, oldest first.
    pub(super) fn since(&self, version: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Change>>, Expired> {
        if version < self.floor {
            return Err(Expired { oldest: self.floor });
        }
        let start = self.changes.partition_point(|(change, _)| change.version <= version);
        Ok(self.changes.range(start..).map(|(change, _)| change))
    }
}

/// How much a ring holds: so many changes, and so many bytes of JSON.
#[derive(Clone, Copy)]
pub(super) struct Capacity {
    pub(super) changes: usize,
    pub(super) bytes: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::Key;
    use super::*;

    fn change(version: u64) -> Change {
        let object = Arc::new(Stored::new(Key::new("", "x"), version, &Value::Null));
        Change { version, table: Arc::from("t"), effect: Effect::Modified, object, previous: None }
    }

    fn large(version: u64, bytes: usize) -> Change {
        let object = Arc::new(Stored::new(Key::new("", "x"), version, &Value::String("x".repeat(bytes))));
        Change { object, ..change(version) }
    }

    #[test]
    fn a_lapped_cursor_has_expired_and_the_others_go_on() {
        let mut ring = Ring::new(Capacity { changes: 2, bytes: usize::MAX }, 0);
        (1..=3).for_each(|version| ring.push(change(version)));
        assert_eq!(ring.since(0).err(), Some(Expired { oldest: 1 }));
        let versions: Vec<_> = ring.since(1).unwrap().map(|change| change.version).collect();
        assert_eq!(versions, [2, 3]);
    }

    /// Thousands of changes to objects of megabytes would fill the memory of the machine.
    #[test]
    fn large_objects_leave_room_for_fewer_changes_and_always_for_the_newest() {
        let mut ring = Ring::new(Capacity { changes: 100, bytes: 10_000 }, 0);
        (1..=50).for_each(|version| ring.push(large(version, 1000)));
        assert!(ring.held <= 10_000);
        assert_eq!(ring.since(45).unwrap().count(), 5);
        assert!(ring.since(30).is_err());
        ring.push(large(51, 1_000_000));
        assert_eq!(ring.since(50).unwrap().count(), 1);
        ring.push(large(52, 10));
        assert_eq!(ring.since(51).unwrap().count(), 1);
        assert!(ring.since(50).is_err());
    }
}
