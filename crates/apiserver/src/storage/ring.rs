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
    changes: VecDeque<Arc<Change>>,
    capacity: usize,
    /// Every change after this version is in `changes`.
    floor: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize, floor: u64) -> Self {
        Self { changes: VecDeque::new(), capacity, floor }
    }

    pub(super) fn push(&mut self, change: Change) {
        if self.changes.len() == self.capacity
            && let Some(dropped) = self.changes.pop_front()
        {
            self.floor = dropped.version;
        }
        self.changes.push_back(Arc::new(change));
    }

    /// The changes after `version`, oldest first.
    pub(super) fn since(&self, version: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Change>>, Expired> {
        if version < self.floor {
            return Err(Expired { oldest: self.floor });
        }
        let start = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(start..))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::Key;
    use super::*;

    fn change(version: u64) -> Change {
        let object = Arc::new(Stored { key: Key::new("", "x"), version, value: Value::Null });
        Change { version, table: Arc::from("t"), effect: Effect::Modified, object, previous: None }
    }

    #[test]
    fn a_lapped_cursor_has_expired_and_the_others_go_on() {
        let mut ring = Ring::new(2, 0);
        (1..=3).for_each(|version| ring.push(change(version)));
        assert_eq!(ring.since(0).err(), Some(Expired { oldest: 1 }));
        let versions: Vec<_> = ring.since(1).unwrap().map(|change| change.version).collect();
        assert_eq!(versions, [2, 3]);
    }
}
