//! Knows the controller's own writes when they come back through the watch.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use oncelet_api::{ContainerExec, ContainerExecStatus};

/// What each object looks like once the last status that was computed for it is there. An object that comes back just so
/// needs no look: what led to that status has been seen, and whatever moved since then asks for a look itself.
#[derive(Clone, Default)]
pub(crate) struct Echoes(Arc<Mutex<HashMap<String, u64>>>);

impl Echoes {
    /// `status` is about to be written into `exec`.
    pub(crate) fn expect(&self, exec: &ContainerExec, status: &ContainerExecStatus) {
        let print = print(exec, Some(status));
        self.all().insert(exec.uid().unwrap_or_default(), print);
    }

    /// Whether this is what was written last, and nothing else.
    pub(crate) fn is_one(&self, exec: &ContainerExec) -> bool {
        let expected = exec.metadata.uid.as_ref().and_then(|uid| self.all().get(uid).copied());
        expected.is_some_and(|expected| expected == print(exec, exec.status.as_ref()))
    }

    /// The object is gone.
    pub(crate) fn forget(&self, exec: &ContainerExec) {
        self.all().remove(exec.metadata.uid.as_deref().unwrap_or_default());
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of an object but what each write changes.
fn print(exec: &ContainerExec, status: Option<&ContainerExecStatus>) -> u64 {
    let mut metadata = exec.metadata.clone();
    metadata.resource_version = None;
    metadata.managed_fields = None;
    let mut hasher = DefaultHasher::new();
    // Plain structs always have a form in JSON.
    serde_json::to_string(&(metadata, &exec.spec, status)).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use oncelet_api::{ContainerExecSpec, ExecState};

    use super::*;

    fn seen(version: &str, state: Option<ExecState>) -> ContainerExec {
        let mut exec = ContainerExec::new("seed", ContainerExecSpec::default());
        exec.metadata.uid = Some("u-1".to_owned());
        exec.metadata.resource_version = Some(version.to_owned());
        exec.status = state.map(|state| ContainerExecStatus { state: Some(state), ..ContainerExecStatus::default() });
        exec
    }

    /// A look at what the controller itself wrote finds nothing new, and costs the engine and the store as much as the first.
    #[test]
    fn the_own_write_is_known_again() {
        let (echoes, old) = (Echoes::default(), seen("1", None));
        let new = seen("2", Some(ExecState::Running));
        echoes.expect(&old, new.status.as_ref().unwrap());
        assert!(!echoes.is_one(&old));
        assert!(echoes.is_one(&new));
        assert!(echoes.is_one(&new), "it may come twice");
    }

    /// Whatever somebody else changes is looked at, although our status is in it.
    #[test]
    fn a_change_that_comes_with_it_is_no_echo() {
        let (echoes, old) = (Echoes::default(), seen("1", None));
        let new = seen("2", Some(ExecState::Running));
        echoes.expect(&old, new.status.as_ref().unwrap());
        let changes: [fn(&mut ContainerExec); 6] = [
            |exec| exec.spec.stop = Some(true),
            |exec| exec.metadata.generation = Some(2),
            |exec| exec.metadata.finalizers = Some(vec!["other".to_owned()]),
            |exec| exec.annotations_mut().insert("a".to_owned(), "b".to_owned()).map_or((), drop),
            |exec| exec.metadata.uid = Some("u-2".to_owned()),
            |exec| exec.status = None,
        ];
        for change in changes {
            let mut other = new.clone();
            change(&mut other);
            assert!(!echoes.is_one(&other), "{other:?}");
        }
        echoes.forget(&new);
        assert!(!echoes.is_one(&new));
    }
}
