//! One thing for each name, shared by all who use it, and forgotten when nobody does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

#[derive(Debug)]
pub(crate) struct InUse<K, T>(Mutex<HashMap<K, Weak<T>>>);

impl<K, T> Default for InUse<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, T> InUse<K, T> {
    /// What others use under this name, or a new one.
    pub(crate) fn get(&self, name: &K, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(name).and_then(Weak::upgrade) {
            return found;
        }
        all.retain(|_, one| one.strong_count() > 0);
        let new = Arc::new(make());
        all.insert(name.clone(), Arc::downgrade(&new));
        new
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
