//! What to do about one `Container`: pure.

use std::collections::BTreeSet;

use kube::ResourceExt;
use oncelet_api::{Container, ContainerSpec};
use oncelet_core::Fingerprint;
use oncelet_engine::{Container as EngineContainer, ContainerState};
use serde_json::{Map, Value};

use super::status::Trouble;
use super::{engine_name, is_ours_to_make};

/// The label with `namespace/name` of the `Container` that made the engine's container.
pub(crate) const LABEL_OWNER: &str = "oncelet.dev/container";
/// The label with the declared spec that it was made from; nothing in it is resolved, so no secret is.
pub(crate) const LABEL_SPEC: &str = "oncelet.dev/spec";
/// The label with the lifecycle key.
pub(crate) const LABEL_KEY: &str = "oncelet.dev/lifecycle-key";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is as it should be, or not ours to change.
    Leave,
    /// Make and start it.
    Create,
    /// Start it again.
    Start,
    /// Remove it and make it anew, for these declared fields have changed.
    Recreate {
        /// The fields' names.
        changed: Vec<String>,
    },
    /// Something stands in the way.
    Refuse(Trouble),
}

impl Plan {
    /// The event that tells of the plan once it is carried out: reason and note.
    pub(crate) fn story(&self, name: &str) -> Option<(&'static str, String)> {
        match self {
            Self::Create => Some(("Created", format!("created and started container {name}"))),
            Self::Start => Some(("Restarted", format!("container {name} was stopped and is started again"))),
            Self::Recreate { changed } => {
                Some(("Recreated", format!("made container {name} anew, for {} changed", changed.join(", "))))
            }
            Self::Leave | Self::Refuse(_) => None,
        }
    }
}

/// Plans for `container`, given the engine's container of its name.
pub(crate) fn plan(container: &Container, found: Option<&EngineContainer>) -> Plan {
    let name = engine_name(container);
    match (is_ours_to_make(container), found) {
        (false, Some(_)) => Plan::Leave,
        (false, None) => Plan::Refuse(Trouble {
            reason: "ContainerNotFound",
            message: format!("the engine has no container {name:?}, and mode existing makes none"),
        }),
        (true, None) => Plan::Create,
        (true, Some(found)) => match found.labels.get(LABEL_OWNER) {
            Some(maker) if *maker == owner(container) => reuse(container, found),
            Some(maker) => Plan::Refuse(taken(&name, &format!("Container {maker} made it"))),
            None => Plan::Refuse(taken(&name, "oncelet did not make it")),
        },
    }
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

fn reuse(container: &Container, found: &EngineContainer) -> Plan {
    if found.labels.get(LABEL_KEY) != Some(&lifecycle_key(&container.spec)) {
        return Plan::Recreate { changed: changed_fields(&container.spec, found.labels.get(LABEL_SPEC)) };
    }
    // Started once for each object. Who stops it after that means it, and a container that ends by itself must not be
    // restarted in a circle.
    let started_for_this_object = container.status.as_ref().is_some_and(|status| {
        status.container_id.as_deref() == Some(found.id.as_str()) && status.startup_timestamp.is_some()
    });
    match &found.state {
        ContainerState::Created | ContainerState::Exited { .. } if !started_for_this_object => Plan::Start,
        _ => Plan::Leave,
    }
}

/// `namespace/name`.
pub(crate) fn owner(container: &Container) -> String {
    format!("{}/{}", container.namespace().unwrap_or_default(), container.name_any())
}

/// The declared spec as text, always the same for the same spec.
pub(crate) fn declared(spec: &ContainerSpec) -> String {
    fields(spec).to_string()
}

/// The hash of what is declared: a container made from another one is not reused.
pub(crate) fn lifecycle_key(spec: &ContainerSpec) -> String {
    Fingerprint::of_bytes(declared(spec).as_bytes()).to_string()
}

fn fields(spec: &ContainerSpec) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
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
mod tests {
    use super::*;
    use oncelet_api::{ContainerMode, ContainerStatus};
    use oncelet_engine::ContainerId;
    use std::collections::BTreeMap;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn object(mode: ContainerMode, image: &str) -> Container {
        let spec = ContainerSpec {
            mode,
            container_name: None,
            image: Some(image.to_owned()),
            command: None,
            args: vec![],
            env: vec![],
            ports: vec![],
            labels: vec![],
        };
        let mut container = Container::new("db", spec);
        container.metadata.namespace = Some("default".into());
        container
    }

    fn persistent() -> Container {
        object(ContainerMode::Persistent, "postgres:17")
    }

    fn made_by(object: &Container, state: ContainerState) -> EngineContainer {
        let labels = BTreeMap::from([
            (LABEL_OWNER.to_owned(), owner(object)),
            (LABEL_SPEC.to_owned(), declared(&object.spec)),
            (LABEL_KEY.to_owned(), lifecycle_key(&object.spec)),
        ]);
        EngineContainer { labels, ..stranger(state) }
    }

    fn stranger(state: ContainerState) -> EngineContainer {
        EngineContainer {
            id: ID.parse::<ContainerId>().unwrap(),
            name: "db".into(),
            image: "postgres:17".into(),
            image_id: None,
            created: jiff::Timestamp::UNIX_EPOCH,
            state,
            env: vec![],
            labels: BTreeMap::new(),
            ports: vec![],
            ip_address: None,
            hostname: String::new(),
        }
    }

    fn exited() -> ContainerState {
        ContainerState::Exited { exit_code: 0, finished_at: None }
    }

    fn running() -> ContainerState {
        ContainerState::Running { started_at: None }
    }

    #[test]
    fn a_persistent_container_is_made_once_and_then_left_alone() {
        assert_eq!(plan(&persistent(), None), Plan::Create);
        assert_eq!(plan(&persistent(), Some(&made_by(&persistent(), running()))), Plan::Leave);
    }

    #[test]
    fn a_stopped_one_is_started_for_a_new_object_and_not_in_a_circle() {
        let stopped = made_by(&persistent(), exited());
        assert_eq!(plan(&persistent(), Some(&stopped)), Plan::Start);

        let mut seen = persistent();
        seen.status = Some(ContainerStatus {
            container_id: Some(ID.into()),
            startup_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
                jiff::Timestamp::UNIX_EPOCH,
            )),
            ..ContainerStatus::default()
        });
        assert_eq!(plan(&seen, Some(&stopped)), Plan::Leave);
    }

    #[test]
    fn another_declared_spec_makes_it_anew_and_names_the_fields() {
        let newer = object(ContainerMode::Persistent, "postgres:18");
        let found = made_by(&persistent(), running());
        assert_eq!(plan(&newer, Some(&found)), Plan::Recreate { changed: vec!["image".into()] });
    }

    #[test]
    fn a_strangers_container_is_never_taken_silently() {
        let mut other = persistent();
        other.metadata.namespace = Some("other".into());
        for found in [stranger(running()), made_by(&other, running())] {
            let Plan::Refuse(trouble) = plan(&persistent(), Some(&found)) else { panic!("it was taken") };
            assert_eq!(trouble.reason, "NameTaken");
            assert!(trouble.message.contains("mode: existing"), "{}", trouble.message);
        }
    }

    #[test]
    fn an_existing_one_is_never_made_started_or_removed() {
        let existing = object(ContainerMode::Existing, "postgres:17");
        assert_eq!(plan(&existing, Some(&stranger(exited()))), Plan::Leave);
        assert!(matches!(plan(&existing, None), Plan::Refuse(_)));
    }
}
