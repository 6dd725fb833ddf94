//! What a policy says of an object that is not there yet, for whoever asks before applying it.

use std::time::Duration;

use kube::ResourceExt;
use oncelet_api::{Container, ContainerExec, ContainerMode};
use oncelet_core::policy::{Answer, Ask, DEFAULT_ENGINE, Policy, Target};
use oncelet_engine::{Engine, Error as EngineError};

use super::asks::{of_adoption, of_container, of_exec};
use super::target::{Images, Seen, Visitor, see};
use crate::container::{LABEL_STORE, engine_name};
use crate::context::one_line;

/// How long an engine may take to tell of a container.
const PATIENCE: Duration = Duration::from_secs(5);

/// The engine by the name that objects give it; the default one without a name.
type Connect<'a> = &'a (dyn Fn(Option<&str>) -> Result<Engine, EngineError> + Sync);

/// What came of it.
#[derive(Debug)]
pub struct Checked {
    /// What the object asks for, and what allows it.
    pub answers: Vec<Answer>,
    /// What could not be known here.
    pub notes: Vec<String>,
}

/// Checks a `Container` of `namespace`. Its engine is asked only where a container is to be taken that is there, and only where
/// the engine is allowed.
pub async fn check_container(policy: &Policy, namespace: &str, container: &Container, connect: Connect<'_>) -> Checked {
    let (spec, name) = (&container.spec, engine_name(container));
    let engine = spec.engine.as_deref();
    let mut asks = vec![Ask::Engine(engine.unwrap_or(DEFAULT_ENGINE).to_owned())];
    asks.extend(of_container(&name, spec));
    let mut notes = Vec::new();
    if adopts(container) {
        let seen = look(policy, namespace, engine, &name, connect, &mut notes).await;
        asks.extend(of_adoption(spec, &seen.target));
        asks.extend(seen.made_with);
    }
    Checked { answers: policy.answer(namespace, engine.unwrap_or(DEFAULT_ENGINE), asks), notes }
}

/// Checks a `ContainerExec` of `namespace`; `containers` are the `Container` objects that are known.
pub async fn check_exec(
    policy: &Policy,
    namespace: &str,
    exec: &ContainerExec,
    containers: &[Container],
    connect: Connect<'_>,
) -> Checked {
    let mut notes = Vec::new();
    let named = exec.spec.container_name.as_ref();
    let is_it = |it: &&Container| it.namespace().is_none_or(|its| its == namespace) && Some(&it.name_any()) == named;
    let object = containers.iter().find(is_it);
    let engine = object.map_or(&exec.spec.engine, |object| &object.spec.engine).as_deref();
    let mut asks = vec![Ask::Engine(engine.unwrap_or(DEFAULT_ENGINE).to_owned())];
    asks.extend(of_exec(&exec.spec));
    match (object, named) {
        (Some(object), _) if adopts(object) => {
            let seen = look(policy, namespace, engine, &engine_name(object), connect, &mut notes).await;
            asks.push(Ask::Enter(seen.target));
            asks.extend(seen.made_with);
        }
        (None, None) => {
            let name = exec.spec.engine_container.as_deref().unwrap_or_default();
            let seen = look(policy, namespace, engine, name, connect, &mut notes).await;
            asks.push(Ask::Enter(seen.target));
            asks.extend(seen.made_with);
        }
        (object, Some(name)) => {
            if object.is_none() {
                notes.push(format!(
                    "Container {namespace}/{name} is not in these files: it is taken for one that the namespace makes, in the \
                     default engine"
                ));
            }
            asks.push(Ask::Enter(Target {
                name: name.clone(),
                made_for: Some(namespace.to_owned()),
                ..Target::default()
            }));
        }
        (Some(_), None) => {}
    }
    if let Some(key) = &exec.spec.run_key {
        let shares = policy.shares_run_key(namespace, engine.unwrap_or(DEFAULT_ENGINE), key);
        let whose = if shares { "shared with all namespaces that may share it" } else { "the namespace's own" };
        notes.push(format!("the run key {key:?} is {whose}"));
    }
    Checked { answers: policy.answer(namespace, engine.unwrap_or(DEFAULT_ENGINE), asks), notes }
}

/// Whether it takes somebody else's container.
fn adopts(container: &Container) -> bool {
    match container.spec.mode {
        ContainerMode::Session | ContainerMode::Persistent => false,
        ContainerMode::Existing | ContainerMode::Cleanup => true,
    }
}

/// What the engine knows of a container, where it may be asked and answers.
async fn look(
    policy: &Policy,
    namespace: &str,
    engine: Option<&str>,
    name: &str,
    connect: Connect<'_>,
    notes: &mut Vec<String>,
) -> Seen {
    let unknown = || Seen { target: Target { name: name.to_owned(), ..Target::default() }, made_with: Vec::new() };
    let engine_name = engine.unwrap_or(DEFAULT_ENGINE);
    let may_ask = policy.answer(namespace, engine_name, vec![Ask::Engine(engine_name.to_owned())]);
    if may_ask.iter().any(|answer| answer.grant.is_none()) {
        return unknown();
    }
    let looking = async {
        let engine = connect(engine)?;
        let found = engine.container(name).await?;
        // The store of whoever made it is taken for the daemon's.
        let store = found.as_ref().and_then(|found| found.labels.get(LABEL_STORE)).map(String::as_str);
        let visitor = Visitor { policy, namespace, engine: engine_name, store };
        let seen = see(&engine, &Images::default(), visitor, name, found.as_ref()).await?;
        Ok::<_, EngineError>((seen, found.is_some()))
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(Ok((seen, true))) => seen,
        Ok(Ok((seen, false))) => {
            notes.push(format!(
                "the engine has no container {name:?}: its labels are not known, only its name counts here"
            ));
            seen
        }
        Ok(Err(error)) => {
            notes.push(format!("the labels of container {name:?} are not known: {}", one_line(&error)));
            unknown()
        }
        Err(_) => {
            notes.push(format!("the labels of container {name:?} are not known: the engine does not answer"));
            unknown()
        }
    }
}
