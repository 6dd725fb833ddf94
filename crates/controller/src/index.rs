//! Which execs hang on a run or on another exec. A change costs what hangs on it, and not what there is.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use oncelet_api::ContainerExec;
use oncelet_core::RunName;

use crate::convert;

/// An exec, by its name.
type Name = ObjectRef<ContainerExec>;

/// What an exec may hang on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum On {
    /// The run of this name.
    Run(RunName),
    /// Another exec, which it waits for.
    Exec(Name),
}

/// All execs by what they hang on. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Index(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    on: HashMap<Name, Vec<On>>,
    hanging: HashMap<On, HashSet<Name>>,
}

impl Index {
    /// `exec` is there, new or changed.
    pub(crate) fn add(&self, exec: &ContainerExec) {
        let name = Name::from_obj(exec);
        let namespace = exec.namespace().unwrap_or_default();
        let others = exec.spec.depends_on.iter().map(|other| On::Exec(Name::new(other).within(&namespace)));
        let on: Vec<_> = others.chain(convert::run_names(exec).into_iter().map(On::Run)).collect();
        self.with(|state| {
            if state.on.get(&name) != Some(&on) {
                state.remove(&name);
                for on in &on {
                    state.hanging.entry(on.clone()).or_default().insert(name.clone());
                }
                state.on.insert(name, on);
            }
        });
    }

    /// The exec of this name is gone.
    pub(crate) fn remove(&self, name: &Name) {
        self.with(|state| state.remove(name));
    }

    /// The execs that hang on `on`.
    pub(crate) fn hanging(&self, on: &On) -> Vec<Name> {
        self.with(|state| state.hanging.get(on).into_iter().flatten().cloned().collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn remove(&mut self, name: &Name) {
        for on in self.on.remove(name).unwrap_or_default() {
            if let Some(hanging) = self.hanging.get_mut(&on) {
                hanging.remove(name);
                if hanging.is_empty() {
                    self.hanging.remove(&on);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use oncelet_api::ContainerExecSpec;

    use super::*;

    fn exec(name: &str, depends_on: &[&str], run_key: Option<&str>) -> ContainerExec {
        let depends_on = depends_on.iter().map(ToString::to_string).collect();
        let spec =
            ContainerExecSpec { depends_on, run_key: run_key.map(str::to_owned), ..ContainerExecSpec::default() };
        let mut exec = ContainerExec::new(name, spec);
        exec.metadata.namespace = Some("team".to_owned());
        exec
    }

    fn hanging(index: &Index, on: &On) -> Vec<String> {
        let mut names: Vec<_> = index.hanging(on).into_iter().map(|name| name.name).collect();
        names.sort();
        names
    }

    /// Whoever is forgotten here sleeps on although what it waits for has come.
    #[test]
    fn each_exec_is_found_by_all_that_it_hangs_on_now() {
        let index = Index::default();
        let on_seed = On::Exec(Name::new("seed").within("team"));
        let run = |name: &str| On::Run(RunName::try_from(name.to_owned()).unwrap());
        index.add(&exec("seed", &[], None));
        index.add(&exec("app", &["schema", "seed"], Some("shared")));
        index.add(&exec("test", &["seed"], Some("shared")));
        assert_eq!(hanging(&index, &on_seed), ["app", "test"]);
        assert_eq!(hanging(&index, &run("shared")), ["app", "test"]);
        assert_eq!(hanging(&index, &run("team/runKey/shared")), ["app", "test"]);
        assert_eq!(hanging(&index, &run("team/seed")), ["seed"]);
        assert!(index.hanging(&On::Exec(Name::new("seed").within("other"))).is_empty());

        index.add(&exec("app", &["schema"], None));
        assert_eq!(hanging(&index, &on_seed), ["test"]);
        assert_eq!(hanging(&index, &run("team/app")), ["app"]);
        for name in ["app", "test", "seed"] {
            index.remove(&Name::new(name).within("team"));
        }
        index.with(|state| assert!(state.on.is_empty() && state.hanging.is_empty(), "nothing of them stays"));
    }
}
