//! What the user asks for, beside the program itself.

use jiff::Timestamp;

use crate::{EndedBy, Program, RunId, RunKey, RunName};

/// Everything about one `ContainerExec` object that the decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// The object's UID: a new one when the object is created again.
    pub uid: String,
    /// The run name: `spec.runKey`, or `<namespace>/<object name>`.
    pub name: RunName,
    /// The declared program.
    pub program: Program,
    /// Once per container (the default), or once per object.
    pub run_policy: RunPolicy,
    /// What to do when the recorded run was of another program.
    pub on_change: OnChange,
    /// What the memory is tied to.
    pub scope: Scope,
    /// The value of the `oncelet.dev/rerun` annotation: one more run for each new value.
    pub rerun: Option<String>,
    /// The value of the `oncelet.dev/retry` annotation: a start that failed before this moment is tried again at once.
    pub retry: Option<Timestamp>,
    /// The run that the object's status shows: what is shown there is nothing new to the object.
    pub shown: Option<RunId>,
    /// Who wants the program to be over, if somebody does: it is not started then, and ended where it runs.
    pub end: Option<EndedBy>,
}

/// How often a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunPolicy {
    /// Once per container identity.
    #[default]
    Once,
    /// Once per object, as often as the object is created again.
    Always,
}

/// What happens when the declared program differs from the recorded one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// The old outcome stays, and a condition names the changed fields.
    #[default]
    Keep,
    /// Each distinct declared program runs once.
    Rerun,
    /// Nothing runs and nothing is restored: the object says what changed.
    Fail,
}

/// What the memory of a run is tied to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The engine's container ID: a recreated container has never run anything.
    #[default]
    Container,
    /// A name that stays when the container is recreated.
    Name(String),
}

impl ExecSpec {
    /// The key under which this object's run is remembered in the container `container_id`.
    pub fn key(&self, container_id: &str) -> RunKey {
        let ident = match &self.scope {
            Scope::Container => container_id.to_owned(),
            Scope::Name(name) => format!("name:{name}"),
        };
        RunKey { ident, name: self.name.clone(), token: self.token() }
    }

    /// What makes a repeat deliberate. The parts are labelled and joined, so that the policies combine and a
    /// rerun value can never be mistaken for a UID or a fingerprint.
    fn token(&self) -> String {
        let always = (self.run_policy == RunPolicy::Always).then(|| format!("object={}", self.uid));
        let changed = (self.on_change == OnChange::Rerun).then(|| format!("program={}", self.program.fingerprint()));
        let rerun = self.rerun.as_ref().map(|value| format!("rerun={value}"));
        [always, changed, rerun].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}
