//! What to do about one `Container`: pure.

use std::collections::BTreeSet;

use kube::ResourceExt;
use oncelet_api::{Container, ContainerMode, ContainerSpec, condition};
use oncelet_core::Fingerprint;
use oncelet_engine::{Container as EngineContainer, ContainerState};
use serde_json::{Map, Value};

use super::engine_name;
use super::status::{RECREATE_FAILED, START_DELAYED, STOP_REQUESTED, Trouble};
use super::whose::{LABEL_KEY, LABEL_SPEC, LABEL_UID, Us, Whose, label, whose};

/// The reason of the event of a container that was made anew.
pub(crate) const RECREATED: &str = "Recreated";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is as it should be, or not ours to change.
    Leave,
    /// Make and start it.
    Create,
    /// Start it again.
    Start,
    /// Stop it.
    Stop,
    /// Remove it and make it anew.
    Recreate {
        /// Why.
        why: String,
    },
    /// Something stands in the way.
    Refuse(Trouble),
}

impl Plan {
    /// The event that tells of the plan once it is carried out: reason and note.
    pub(crate) fn story(&self, name: &str) -> Option<(&'static str, String)> {
        match self {
            Self::Create => Some(("Created", format!("created and started container {name}"))),
            Self::Start => Some(("Started", format!("container {name} was not running and is started"))),
            Self::Stop => Some(("Stopped", format!("stopped container {name}, as spec.stop asks"))),
            Self::Recreate { why } => Some((RECREATED, format!("made container {name} anew, for {why}"))),
            Self::Leave | Self::Refuse(_) => None,
        }
    }
}

/// Plans for `container`, given the engine's container of its name.
pub(crate) fn plan(container: &Container, us: Us<'_>, found: Option<&EngineContainer>) -> Plan {
    let name = engine_name(container);
    let Some(found) = found else { return missing(container, us, &name) };
    let other = is_another(container, found);
    if makes(container) {
        match (whose(container, us, found), &other) {
            (Whose::Strangers(whose), _) | (Whose::Usable(whose), Some(_)) => {
                return Plan::Refuse(taken(&name, &whose));
            }
            (Whose::Ours, _) | (Whose::Usable(_), None) => {}
        }
    }
    if container.spec.stop.unwrap_or_default() {
        return if runs(&found.state) { Plan::Stop } else { Plan::Leave };
    }
    if let Some(why) = other {
        return has_failed(container).map_or(Plan::Recreate { why }, Plan::Refuse);
    }
    match container.spec.mode {
        ContainerMode::Session | ContainerMode::Persistent => start_or_leave(container, found),
        // Only what the object had stopped is started again.
        ContainerMode::Existing | ContainerMode::Cleanup => {
            if was_told_to_stop(container) && !runs(&found.state) {
                Plan::Start
            } else {
                Plan::Leave
            }
        }
    }
}

/// Why `found` is not the container that is wanted, where it is to be made anew.
fn is_another(container: &Container, found: &EngineContainer) -> Option<String> {
    match container.spec.mode {
        ContainerMode::Session if label(found, LABEL_UID) != container.uid().as_deref() => {
            Some("it was of an earlier object".to_owned())
        }
        ContainerMode::Persistent if found.labels.get(LABEL_KEY) != Some(&lifecycle_key(&container.spec)) => {
            let changed = changed_fields(&container.spec, found.labels.get(LABEL_SPEC));
            Some(format!("{} changed", changed.join(", ")))
        }
        _ => None,
    }
}

/// What stood in the way of this object's new container, where it could not be started. Each try stops the old container: it is not
/// tried again before somebody changes the object, or makes it again.
fn has_failed(container: &Container) -> Option<Trouble> {
    let status = container.status.as_ref().filter(|it| it.observed_generation == container.metadata.generation)?;
    let failed = status.conditions.iter().find(|it| it.type_ == condition::READY && it.reason == RECREATE_FAILED)?;
    Some(Trouble { reason: RECREATE_FAILED, message: failed.message.clone() })
}

fn missing(container: &Container, us: Us<'_>, name: &str) -> Plan {
    let spec = &container.spec;
    if !makes(container) {
        return Plan::Refuse(Trouble {
            reason: "ContainerNotFound",
            message: format!("the engine has no container {name:?}, and mode {} makes none", mode(container)),
        });
    }
    let waits = |reason, field: &str| {
        Plan::Refuse(Trouble { reason, message: format!("container {name} is not made, since {field}") })
    };
    if spec.stop.unwrap_or_default() {
        return waits(STOP_REQUESTED, "spec.stop is true");
    }
    if !spec.start.unwrap_or(true) {
        return waits(START_DELAYED, "spec.start is false");
    }
    if us.store.is_none() {
        return waits("StoreUnavailable", "the run store cannot be opened, and the container must tell whose it is");
    }
    Plan::Create
}

fn taken(name: &str, by: &str) -> Trouble {
    Trouble {
        reason: "NameTaken",
        message: format!(
            "a container named {name:?} is there already, and {by}; to use it as it is set mode: existing, \
             else remove it or set another containerName"
        ),
    }
}

fn start_or_leave(container: &Container, found: &EngineContainer) -> Plan {
    if runs(&found.state) || !container.spec.start.unwrap_or(true) {
        return Plan::Leave;
    }
    // Started once for each object. Who stops it after that means it, and a container that ends by itself must not be
    // restarted in a circle.
    let started_for_this_object = container.status.as_ref().is_some_and(|status| {
        status.container_id.as_deref() == Some(found.id.as_str()) && status.startup_timestamp.is_some()
    });
    match &found.state {
        ContainerState::Created | ContainerState::Exited { .. }
            if !started_for_this_object || was_told_to_stop(container) =>
        {
            Plan::Start
        }
        _ => Plan::Leave,
    }
}

/// Whether there is something to stop.
pub(super) fn runs(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Running { .. } | ContainerState::Paused | ContainerState::Restarting)
}

/// Whether the container is down because the object asked for it, as its status tells.
fn was_told_to_stop(container: &Container) -> bool {
    let conditions = container.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|it| it.type_ == condition::READY && it.reason == STOP_REQUESTED)
}

/// Whether oncelet makes the container, or takes somebody else's.
pub(crate) fn makes(container: &Container) -> bool {
    matches!(container.spec.mode, ContainerMode::Session | ContainerMode::Persistent)
}

fn mode(container: &Container) -> &'static str {
    match container.spec.mode {
        ContainerMode::Session => "session",
        ContainerMode::Persistent => "persistent",
        ContainerMode::Existing => "existing",
        ContainerMode::Cleanup => "cleanup",
    }
}

/// What to remove for an object that is deleted, given the engine's container of its name.
pub(crate) fn removes(container: &Container, us: Us<'_>, found: &EngineContainer) -> bool {
    match container.spec.mode {
        ContainerMode::Cleanup => true,
        // Never what somebody else has put in the place of ours.
        ContainerMode::Session => whose(container, us, found) == Whose::Ours,
        ContainerMode::Persistent | ContainerMode::Existing => false,
    }
}

/// The declared spec as text, always the same for the same spec.
pub(crate) fn declared(spec: &ContainerSpec) -> String {
    fields(spec).to_string()
}

/// What a container is known by: one with another key is not reused. The declared key, or the hash of what is declared.
pub(crate) fn lifecycle_key(spec: &ContainerSpec) -> String {
    spec.lifecycle_key.clone().unwrap_or_else(|| Fingerprint::of_bytes(declared(spec).as_bytes()).to_string())
}

/// What a container is made from: not how it is looked after.
fn fields(spec: &ContainerSpec) -> Value {
    let mut fields = serde_json::to_value(spec).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        for how in ["mode", "start", "stop", "pullPolicy"] {
            fields.remove(how);
        }
    }
    fields
}

fn changed_fields(spec: &ContainerSpec, recorded: Option<&String>) -> Vec<String> {
    let recorded: Option<Map<String, Value>> = recorded.and_then(|text| serde_json::from_str(text).ok());
    let (Some(recorded), Value::Object(declared)) = (recorded, fields(spec)) else {
        return vec!["the spec".to_owned()];
    };
    let names: BTreeSet<_> = recorded.keys().chain(declared.keys()).collect();
    names.into_iter().filter(|name| recorded.get(*name) != declared.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests;
