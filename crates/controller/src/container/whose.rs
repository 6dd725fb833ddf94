//! Whose a container of the engine is: pure.
//!
//! Several oncelets may share an engine, and a person may give a container any name and any labels. What was not made by this one
//! for this object is never removed, and used only where nothing can be lost by it.

use std::collections::BTreeMap;

use kube::ResourceExt;
use oncelet_api::{ADOPT_ANNOTATION, Container, ContainerMode};
use oncelet_engine::Container as EngineContainer;

/// The beginning of the labels that only oncelet sets.
pub(crate) const LABELS: &str = "oncelet.dev/";
/// The label with `namespace/name` of the `Container` that made the engine's container.
pub(crate) const LABEL_OWNER: &str = "oncelet.dev/container";
/// The label with the UUID of the store of the daemon that made it. Containers that releases before it made have none.
pub(crate) const LABEL_STORE: &str = "oncelet.dev/store";
/// The label that is another one in each container that is made.
pub(crate) const LABEL_MADE: &str = "oncelet.dev/made";
/// The label with the session that a session container goes with.
pub(crate) const LABEL_SESSION: &str = "oncelet.dev/session";
/// The label with the ID of the container that is removed once this one has started.
pub(crate) const LABEL_REPLACES: &str = "oncelet.dev/replaces";
/// The label with the declared spec that it was made from; nothing in it is resolved, so no secret is.
pub(crate) const LABEL_SPEC: &str = "oncelet.dev/spec";
/// The label with the lifecycle key.
pub(crate) const LABEL_KEY: &str = "oncelet.dev/lifecycle-key";
/// The label with the UID of the object that a session container was made for.
pub(crate) const LABEL_UID: &str = "oncelet.dev/uid";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Us<'a> {
    /// The UUID of the store; `None` where it cannot be opened.
    pub(crate) store: Option<&'a str>,
    /// The session that session containers are made for.
    pub(crate) session: Option<&'a str>,
    /// Whether the store has runs in the container at hand.
    pub(crate) has_runs: bool,
}

/// What may be done with a container that carries the name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Everything: this oncelet made it for the object, or the user says so.
    Ours,
    /// It may be used as it is: it was made for an object of this name, and nothing tells by which oncelet.
    Usable(String),
    /// Nothing. In words whose it is.
    Strangers(String),
}

/// A label's value. An empty one is none: so it is written where there is nothing to say, lest an image say something.
pub(crate) fn label<'a>(found: &'a EngineContainer, key: &str) -> Option<&'a str> {
    found.labels.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// `namespace/name`.
pub(crate) fn owner(container: &Container) -> String {
    format!("{}/{}", container.namespace().unwrap_or_default(), container.name_any())
}

/// Whose `found` is, which has the name of the container that `container` wants made. Of its labels those that came with its image
/// must have been taken away: see [`forget_inherited`].
pub(crate) fn whose(container: &Container, us: Us<'_>, found: &EngineContainer) -> Whose {
    let name = owner(container);
    match label(found, LABEL_OWNER) {
        Some(maker) if maker == name => {}
        Some(maker) => return Whose::Strangers(format!("Container {maker} made it")),
        None => return Whose::Strangers("oncelet did not make it".to_owned()),
    }
    if container.annotations().get(ADOPT_ANNOTATION).is_some_and(|id| id == found.id.as_str()) {
        return Whose::Ours;
    }
    let was_ours = us.has_runs || is_shown(container, found);
    let to_adopt = || {
        let (namespace, name) = (container.namespace().unwrap_or_default(), container.name_any());
        format!(
            "if it was yours and that store is lost, take it over with: kubectl annotate --namespace {namespace} ctr {name} \
             {ADOPT_ANNOTATION}={}",
            found.id
        )
    };
    match (label(found, LABEL_STORE), us.store) {
        (Some(theirs), Some(ours)) if theirs == ours => {}
        (Some(theirs), _) => {
            let text = format!("another oncelet made it, whose store is {theirs} ({})", to_adopt());
            return if was_ours { Whose::Usable(text) } else { Whose::Strangers(text) };
        }
        (None, Some(_)) if was_ours || is_of_object(container, found) => {}
        (None, _) => {
            return Whose::Usable(format!(
                "an earlier release made it, maybe that of another oncelet ({})",
                to_adopt()
            ));
        }
    }
    if container.spec.mode == ContainerMode::Session && label(found, LABEL_SESSION) != us.session {
        let text = "another oncelet made it for its session (if that has ended, it is removed in a moment)";
        return Whose::Strangers(text.to_owned());
    }
    Whose::Ours
}

/// Whether the object shows the container as its own: it once was.
fn is_shown(container: &Container, found: &EngineContainer) -> bool {
    let shown = container.status.as_ref().and_then(|status| status.container_id.as_deref());
    shown == Some(found.id.as_str())
}

/// Whether it was made for this very object, and no earlier one of the same name.
fn is_of_object(container: &Container, found: &EngineContainer) -> bool {
    let uid = container.uid();
    uid.is_some() && label(found, LABEL_UID) == uid.as_deref()
}

/// Takes our labels away where they came with the image: a container that `docker run` makes from a hostile image, or from one
/// that `docker commit` made of ours, is not ours. `image` has the image's labels.
///
/// A container that oncelet made has a label that no image has. Those of earlier releases have none; there, the owner decides.
pub(crate) fn forget_inherited(labels: &mut BTreeMap<String, String>, image: &BTreeMap<String, String>) {
    let telling = if labels.contains_key(LABEL_MADE) { LABEL_MADE } else { LABEL_OWNER };
    if labels.get(telling) == image.get(telling) {
        labels.retain(|key, _| !key.starts_with(LABELS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn labels_that_came_with_the_image_do_not_count() {
        let ours = [(LABEL_OWNER, "default/db"), (LABEL_STORE, "one"), (LABEL_MADE, "1"), ("team", "a")];
        // By `docker commit`, or by whoever has read the labels of a container and built an image.
        let mut copied = labels(&ours);
        forget_inherited(&mut copied, &labels(&ours));
        assert_eq!(copied, labels(&[("team", "a")]));
        // A build knows the owner's name at most.
        let mut guessed = labels(&[(LABEL_OWNER, "default/db"), (LABEL_SESSION, "s")]);
        forget_inherited(&mut guessed, &labels(&[(LABEL_OWNER, "default/db")]));
        assert_eq!(guessed, labels(&[]));
    }

    #[test]
    fn a_container_that_we_made_is_ours_whatever_its_image_says() {
        let image = labels(&[(LABEL_OWNER, "default/db"), (LABEL_STORE, "one"), (LABEL_MADE, "1")]);
        let made = labels(&[(LABEL_OWNER, "default/db"), (LABEL_STORE, "one"), (LABEL_MADE, "2")]);
        for image in [image, labels(&[])] {
            let mut counts = made.clone();
            forget_inherited(&mut counts, &image);
            assert_eq!(counts, made);
        }
        let earlier_release = labels(&[(LABEL_OWNER, "default/db")]);
        let mut counts = earlier_release.clone();
        forget_inherited(&mut counts, &labels(&[]));
        assert_eq!(counts, earlier_release);
    }
}
