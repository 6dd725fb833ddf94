//! Which runs this process is busy with.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use oncelet_core::RunKey;

/// The keys of the runs that a task of this process launches, follows or recovers.
///
/// The store says *whose* a run is; this says whether somebody here really looks after it. A run of ours that nobody
/// looks after (a reconcile was cancelled half-way) is recovered like that of a daemon that is gone.
#[derive(Clone, Default)]
pub(crate) struct Runs(Arc<Mutex<HashSet<RunKey>>>);

/// The care for one run; ends when dropped.
pub(crate) struct Care {
    runs: Runs,
    key: RunKey,
}

impl Runs {
    /// Takes the care for `key`; `None` if somebody in this process has it.
    pub(crate) fn take(&self, key: &RunKey) -> Option<Care> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.clone()).then(|| Care { runs: self.clone(), key: key.clone() })
    }

    /// Whether somebody in this process looks after `key`.
    pub(crate) fn has(&self, key: &RunKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        self.runs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelet_core::RunName;

    #[test]
    fn a_run_is_looked_after_by_one_task_until_it_lets_go() {
        let runs = Runs::default();
        let key = RunKey { ident: "c".into(), name: RunName::of_object("ns", "a"), token: String::new() };
        let care = runs.take(&key);
        assert!(care.is_some() && runs.take(&key).is_none() && runs.has(&key));
        drop(care);
        assert!(!runs.has(&key) && runs.take(&key).is_some());
    }
}
