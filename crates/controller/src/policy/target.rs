//! What is known of a container that somebody wants to enter: whose it is, and whom it lets in.
//!
//! Labels decide about that, and so it counts where they come from. A `Container` object's labels are for its namespace to choose;
//! an image gives its own to every container. What was made by oncelet bears the declared spec, which no image knows before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use oncelet_api::{ALLOW_NAMESPACES_LABEL, ContainerSpec};
use oncelet_core::policy::{Ask, DEFAULT_ENGINE, Policy, Target};
use oncelet_engine::{Container as EngineContainer, Engine, Error as EngineError};

use super::asks::of_container;
use crate::container::{LABEL_MADE, LABEL_OWNER, LABEL_SPEC, LABEL_STORE};

/// A container, as the policy is asked about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) target: Target,
    /// What it was made with, where it is the namespace's own: it must still be allowed, since whoever is in it has it.
    pub(super) made_with: Vec<Ask>,
}

/// Labels of images by engine and ID. An ID stands for its image for ever. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Images(Arc<Mutex<HashMap<(String, String), Labels>>>);

type Labels = Arc<BTreeMap<String, String>>;

/// How many images are remembered.
const IMAGES: usize = 1000;

/// Who wants to enter.
#[derive(Clone, Copy)]
pub(super) struct Visitor<'a> {
    pub(super) policy: &'a Policy,
    pub(super) namespace: &'a str,
    /// The engine by the name that objects give it.
    pub(super) engine: &'a str,
    /// The UUID of the store, where that can be opened: another oncelet on the same engine may have namespaces of the same names.
    pub(super) store: Option<&'a str>,
}

/// Sees `found`, in `engine`, for a visitor that asks for `name`.
pub(super) async fn see(
    engine: &Engine,
    images: &Images,
    visitor: Visitor<'_>,
    name: &str,
    found: Option<&EngineContainer>,
) -> Result<Seen, EngineError> {
    let Some(found) = found else {
        return Ok(Seen { target: Target { name: name.to_owned(), ..Target::default() }, made_with: Vec::new() });
    };
    let labels_count =
        found.labels.contains_key(LABEL_OWNER) || visitor.policy.heeds_labels(visitor.namespace, visitor.engine);
    let image = if labels_count { images.labels_of(engine, found).await? } else { None };
    Ok(describe(visitor, found, image.as_deref()))
}

/// `image` are the labels of its image, where they are known and count.
fn describe(visitor: Visitor<'_>, found: &EngineContainer, image: Option<&BTreeMap<String, String>>) -> Seen {
    let Visitor { policy, namespace, store, .. } = visitor;
    // Where those of the image are not known, none can be told from them.
    let is_its = |(key, value): &(&String, &String)| image.is_some_and(|image| image.get(*key) != Some(*value));
    let labels = found.labels.iter().filter(is_its).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut target = Target { name: found.name.clone(), labels, ..Target::default() };
    // What an image gave was not made by oncelet, also where the image was made from a container of ours.
    let is_made =
        image.is_none() || [LABEL_MADE, LABEL_OWNER, LABEL_SPEC].iter().any(|label| target.labels.contains_key(*label));
    let Some(owner) = found.labels.get(LABEL_OWNER).filter(|_| is_made) else {
        target.invites = invites(target.labels.get(ALLOW_NAMESPACES_LABEL));
        return Seen { target, made_with: Vec::new() };
    };
    let is_ours = image.is_some() && store.is_some() && found.labels.get(LABEL_STORE).map(String::as_str) == store;
    let declared = found.labels.get(LABEL_SPEC).filter(|_| is_ours);
    let declared = declared.and_then(|text| serde_json::from_str::<ContainerSpec>(text).ok());
    let (Some(spec), Some((made_for, object))) = (declared, owner.split_once('/')) else {
        // It is somebody's, and cannot be told whose: of a namespace without a name, which nobody is in.
        target.made_for = Some(String::new());
        return Seen { target, made_with: Vec::new() };
    };
    let made_with = of_container(spec.container_name.as_deref().unwrap_or(object), &spec);
    target.made_for = Some(made_for.to_owned());
    if made_for == namespace {
        return Seen { target, made_with };
    }
    // Nobody lets others into what is not allowed any more.
    let engine = spec.engine.as_deref().unwrap_or(DEFAULT_ENGINE);
    if policy.answer(made_for, engine, made_with).iter().all(|answer| answer.grant.is_some()) {
        let declared = spec.labels.iter().find(|label| label.key == ALLOW_NAMESPACES_LABEL);
        target.invites = invites(declared.map(|label| &label.value));
    }
    Seen { target, made_with: Vec::new() }
}

fn invites(label: Option<&String>) -> Vec<String> {
    let names = label.into_iter().flat_map(|value| value.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Images {
    /// The labels of the image of `found`; `None` where the engine does not have it any more.
    async fn labels_of(&self, engine: &Engine, found: &EngineContainer) -> Result<Option<Labels>, EngineError> {
        let Some(id) = &found.image_id else { return Ok(None) };
        let key = (engine.endpoint().to_owned(), id.clone());
        let known = self.with(|images| images.get(&key).cloned());
        if known.is_some() {
            return Ok(known);
        }
        let Some(labels) = engine.image_labels(id).await?.map(Arc::new) else { return Ok(None) };
        self.with(|images| {
            if images.len() >= IMAGES {
                images.clear();
            }
            images.insert(key, Arc::clone(&labels));
        });
        Ok(Some(labels))
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<(String, String), Labels>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use oncelet_engine::ContainerState;
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "to be called with what is written there")]
    fn policy(rules: Value) -> Policy {
        serde_json::from_value(json!({"apiVersion": "oncelet.dev/v1alpha1", "kind": "Policy", "rules": rules})).unwrap()
    }

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn container(labels: BTreeMap<String, String>) -> EngineContainer {
        EngineContainer {
            id: "a".repeat(64).parse().unwrap(),
            name: "db".into(),
            image: "x".into(),
            image_id: None,
            created: jiff::Timestamp::UNIX_EPOCH,
            state: ContainerState::Running { started_at: None },
            env: Vec::new(),
            labels,
            ports: Vec::new(),
            ip_address: None,
            hostname: String::new(),
            health: None,
        }
    }

    fn visitor<'a>(policy: &'a Policy, namespace: &'a str) -> Visitor<'a> {
        Visitor { policy, namespace, engine: DEFAULT_ENGINE, store: Some("ours") }
    }

    /// Whether an exec of `namespace` may enter it.
    fn enters(policy: &Policy, namespace: &str, found: &EngineContainer, image: &BTreeMap<String, String>) -> bool {
        let seen = describe(visitor(policy, namespace), found, Some(image));
        let mut asks = vec![Ask::Enter(seen.target)];
        asks.extend(seen.made_with);
        policy.answer(namespace, DEFAULT_ENGINE, asks).iter().all(|answer| answer.grant.is_some())
    }

    fn made_for(owner: &str, spec: &Value) -> EngineContainer {
        let mut all =
            labels(&[(LABEL_OWNER, owner), (LABEL_SPEC, &spec.to_string()), (LABEL_STORE, "ours"), (LABEL_MADE, "1")]);
        for label in spec["labels"].as_array().into_iter().flatten() {
            all.insert(label["key"].as_str().unwrap().to_owned(), label["value"].as_str().unwrap().to_owned());
        }
        container(all)
    }

    const MAY_MAKE: &str = r#"{"namespaces": ["a", "b"], "containerNames": ["*"], "images": ["x"], "networks": ["default"], "labels": ["team"]}"#;

    #[expect(clippy::needless_pass_by_value, reason = "to be called with what is written there")]
    fn may_make(more: Value) -> Policy {
        policy(json!([serde_json::from_str::<Value>(MAY_MAKE).unwrap(), more]))
    }

    #[test]
    fn what_was_made_for_a_namespace_is_its_own_as_long_as_it_is_allowed() {
        let plain = policy(json!([serde_json::from_str::<Value>(MAY_MAKE).unwrap()]));
        let own = made_for("a/db", &json!({"image": "x"}));
        let none = BTreeMap::new();
        assert!(enters(&plain, "a", &own, &none));
        assert!(!enters(&plain, "b", &own, &none) && !enters(&plain, "a/db", &own, &none));
        let host = made_for(
            "a/db",
            &json!({"image": "x", "volumeMounts": [{"type": "bind", "source": "/", "target": "/host"}]}),
        );
        assert!(!enters(&plain, "a", &host, &none), "a mount that no rule allows (any more)");
        for broken in ["", "{", "[]", "{\"image\": 1}"] {
            let found = container(labels(&[(LABEL_OWNER, "a/db"), (LABEL_SPEC, broken)]));
            assert!(!enters(&plain, "a", &found, &none), "{broken:?}");
        }
        assert!(!enters(&plain, "a", &container(labels(&[(LABEL_OWNER, "a/db")])), &none));
    }

    #[test]
    fn what_another_oncelet_made_is_of_no_namespace_here() {
        let plain = policy(json!([serde_json::from_str::<Value>(MAY_MAKE).unwrap()]));
        let mut theirs = made_for("a/db", &json!({"image": "x"}));
        // One that was made from an image of itself is still its own.
        assert!(enters(
            &plain,
            "a",
            &theirs,
            &labels(&[(LABEL_OWNER, "a/db"), (LABEL_STORE, "ours"), (LABEL_MADE, "0")])
        ));
        for store in [Some("theirs"), None] {
            match store {
                Some(store) => theirs.labels.insert(LABEL_STORE.into(), store.into()),
                None => theirs.labels.remove(LABEL_STORE),
            };
            assert!(!enters(&plain, "a", &theirs, &BTreeMap::new()), "{store:?}");
        }
    }

    #[test]
    fn names_and_labels_that_another_namespace_chose_open_nothing() {
        let policy =
            may_make(json!({"namespaces": ["a"], "engineContainers": [{"name": "db"}, {"labels": {"team": "a"}}]}));
        let none = BTreeMap::new();
        assert!(enters(&policy, "a", &container(labels(&[("team", "a")])), &none));
        assert!(enters(&policy, "a", &container(labels(&[])), &none));
        let of_b = json!({"image": "x", "labels": [{"key": "team", "value": "a"}]});
        assert!(!enters(&policy, "a", &made_for("b/db", &of_b), &none));
        // And nobody knows whose it is where the image is gone.
        let seen = describe(visitor(&policy, "a"), &made_for("b/db", &of_b), None);
        assert_eq!(seen.target.made_for.as_deref(), Some(""));
    }

    #[test]
    fn an_image_opens_no_container() {
        let policy = may_make(
            json!({"namespaces": ["a", "b"], "engineContainers": [{"labels": {"team": "a"}}], "honorContainerLabels": true}),
        );
        let forged = labels(&[
            ("team", "a"),
            (ALLOW_NAMESPACES_LABEL, "a"),
            (LABEL_OWNER, "a/db"),
            (LABEL_SPEC, r#"{"image":"x"}"#),
        ]);
        assert!(!enters(&policy, "a", &container(forged.clone()), &forged));
        // Not one that was made for another namespace from such an image either.
        let mut of_b = made_for("b/db", &json!({"image": "x"}));
        of_b.labels.insert(ALLOW_NAMESPACES_LABEL.into(), "a".into());
        assert!(!enters(&policy, "a", &of_b, &forged));
    }

    #[test]
    fn a_container_lets_in_whom_it_names_where_the_policy_says_so() {
        let honor = may_make(json!({"namespaces": ["a", "b"], "honorContainerLabels": true}));
        let none = BTreeMap::new();
        let label = |value: &str| container(labels(&[(ALLOW_NAMESPACES_LABEL, value)]));
        for (value, wanted) in [("a", true), (" b , a ", true), ("*", true), ("aa", false), ("", false), (",", false)] {
            assert_eq!(enters(&honor, "a", &label(value), &none), wanted, "{value:?}");
        }
        let plain = policy(json!([serde_json::from_str::<Value>(MAY_MAKE).unwrap()]));
        assert!(!enters(&plain, "a", &label("a"), &none));
        let invites = json!({"key": ALLOW_NAMESPACES_LABEL, "value": "a"});
        let of_b = json!({"image": "x", "labels": [invites]});
        assert!(enters(&honor, "a", &made_for("b/db", &of_b), &none));
        let revoked = json!({"image": "other/image", "labels": [invites]});
        assert!(!enters(&honor, "a", &made_for("b/db", &revoked), &none));
    }
}
