//! The container that a command line names: an object of ours, or a container of the engine, however it is spelled.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use oncelet_api::{ContainerExec, ContainerExecSpec};
use oncelet_engine::{Endpoint, Engine, ErrorKind};

use crate::objects::{DaemonEngine, Objects};

/// How long the engine has to say what a name means.
const PATIENCE: Duration = Duration::from_secs(10);

/// The container of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As it was typed.
    pub(crate) text: String,
    /// Whether that is the name of a `Container` object.
    pub(crate) is_object: bool,
    /// The full ID of the container that it means now, where that is known.
    pub(crate) id: Option<String>,
}

impl Target {
    /// What stands for the container in the name of an object: the same for each spelling, where the engine could be asked.
    pub(crate) fn identity(&self) -> String {
        match (&self.id, self.is_object) {
            (Some(id), _) => id.clone(),
            (None, true) => format!("Container/{}", self.text),
            (None, false) => self.text.clone(),
        }
    }
}

/// Finds out which container is meant, as the daemon will.
pub(crate) struct Finder {
    engine: Option<Engine>,
    /// Whether a container that this engine does not know is none of the daemon's either.
    is_daemons: bool,
}

impl Finder {
    pub(crate) fn new(objects: &Objects) -> Result<Self> {
        let (endpoint, is_daemons) = match &objects.engine {
            DaemonEngine::Known(endpoint) => (endpoint.clone(), true),
            DaemonEngine::LikelyHere => (from_environment()?, true),
            DaemonEngine::Anywhere => (from_environment()?, false),
        };
        Ok(Self { engine: Engine::connect(&endpoint).ok(), is_daemons })
    }

    /// Whether this is the daemon's engine.
    pub(crate) fn is_daemons(&self) -> bool {
        self.is_daemons
    }

    /// What `text` means. Where both an object and a container of the engine have that name, it is the object.
    pub(crate) async fn find(&self, objects: &Objects, text: &str) -> Result<Target> {
        if text.trim().is_empty() {
            bail!("the container is empty: give its name or ID, or the name of a Container object");
        }
        if may_be_object(text)
            && let Some(object) = objects.containers().get_opt(text).await.context("the API server does not answer")?
        {
            let id = object.status.and_then(|status| status.container_id);
            return Ok(Target { text: text.to_owned(), is_object: true, id });
        }
        let id = self.ask(text).await?;
        Ok(Target { text: text.to_owned(), is_object: false, id })
    }

    /// The full ID of an engine container; `None` where the engine cannot be asked.
    async fn ask(&self, text: &str) -> Result<Option<String>> {
        let Some(engine) = &self.engine else { return Ok(None) };
        let Ok(answer) = tokio::time::timeout(PATIENCE, engine.container(text)).await else { return Ok(None) };
        match answer {
            Ok(Some(container)) => Ok(Some(container.id.to_string())),
            Err(error) if error.kind() == ErrorKind::InvalidRequest => Err(error.into()),
            // Another engine may know it.
            _ if !self.is_daemons => Ok(None),
            Ok(None) => bail!(
                "the engine at {} has no container {text:?}, and there is no Container object of that name; see: docker ps \
                 --all (where the daemon uses another engine, set ONCELET_ENGINE to it)",
                engine.endpoint()
            ),
            Err(error) if error.is_ambiguous() => {
                bail!("{text:?} is the beginning of several containers' IDs in the engine at {}", engine.endpoint())
            }
            Err(_) => Ok(None),
        }
    }

    /// Whether the container of `object` is `target`, as far as that can be known.
    pub(crate) async fn is_same(&self, objects: &Objects, object: &ContainerExec, target: &Target) -> bool {
        let spec = &object.spec;
        if is_spelled(spec, target) {
            return true;
        }
        let status = object.status.as_ref();
        let Some(id) = &target.id else {
            // What the daemon last made of it.
            return status.is_some_and(|status| {
                [&status.container_id, &status.container_name].contains(&&Some(target.text.clone()))
            });
        };
        let meant = match (&spec.container_name, &spec.engine_container) {
            (Some(name), _) => {
                objects.containers().get_opt(name).await.ok().flatten().and_then(|it| it.status?.container_id)
            }
            // It may be one of another engine.
            (None, Some(_)) if spec.engine.is_some() => status.and_then(|status| status.container_id.clone()),
            (None, Some(text)) => self.ask(text).await.ok().flatten(),
            (None, None) => None,
        };
        meant.as_ref() == Some(id)
    }
}

/// Whether a spec names the container in just that way.
fn is_spelled(spec: &ContainerExecSpec, target: &Target) -> bool {
    let spelled = if target.is_object { &spec.container_name } else { &spec.engine_container };
    spelled.as_ref() == Some(&target.text) && spec.engine.is_none()
}

/// The engine that the daemon would use with this environment.
fn from_environment() -> Result<Endpoint> {
    match std::env::var("ONCELET_ENGINE") {
        Ok(text) if !text.is_empty() => Ok(text.parse()?),
        _ => Ok(Endpoint::Auto),
    }
}

/// Whether the API server could have an object of this name: nothing else is sent to it.
fn may_be_object(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_outer = |c: char| is_inner(c) && c.is_ascii_alphanumeric();
    text.len() <= 253 && text.chars().all(is_inner) && text.starts_with(is_outer) && text.ends_with(is_outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str, is_object: bool, id: Option<&str>) -> Target {
        Target { text: text.into(), is_object, id: id.map(Into::into) }
    }

    #[test]
    fn every_spelling_of_a_known_container_has_one_identity() {
        let id = "c0ffee".repeat(10);
        let spellings = [("db", true), ("db", false), ("c0ffee", false), (id.as_str(), false)];
        assert!(spellings.iter().all(|(text, object)| target(text, *object, Some(&id)).identity() == id));
        assert_ne!(target("db", true, None).identity(), target("db", false, None).identity());
    }

    #[test]
    fn only_what_can_name_an_object_is_asked_of_the_api_server() {
        for text in ["db", "my-db.1", "0123456789ab"] {
            assert!(may_be_object(text), "{text}");
        }
        for text in ["", "/db", "my_db", "Db", "-db", "db.", "a/b", "db?watch=true"] {
            assert!(!may_be_object(text), "{text}");
        }
    }
}
