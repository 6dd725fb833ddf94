//! Asking for a run through the API: the object that asks, asking again, and taking it back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use oncelet_api::{ContainerExec, ContainerExecSpec, ExecState, RERUN_ANNOTATION, RETRY_ANNOTATION};
use serde_json::json;

use crate::clock::now;
use crate::objects::Objects;
use crate::progress::Line;
use crate::target::{Finder, Target};

/// The label of objects that `oncelet exec` made, and may take back.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "oncelet-exec");
/// How long between two looks for an object that is being deleted.
const LOOK: Duration = Duration::from_millis(200);

/// Says on an object that its program is to run once more.
pub(crate) async fn rerun(execs: &Api<ContainerExec>, name: &str) -> Result<(), kube::Error> {
    let value = now().as_microsecond().to_string();
    let patch = json!({"metadata": {"annotations": {RERUN_ANNOTATION: value}}});
    execs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Says on an object that a start which failed at `failed_at` is to be tried again now.
pub(crate) async fn retry(execs: &Api<ContainerExec>, name: &str, failed_at: Timestamp) -> Result<(), kube::Error> {
    // By the daemon's own clock, whatever ours says: just after that failure, and before the next try.
    let value = failed_at.saturating_add(SignedDuration::from_micros(1)).unwrap_or(failed_at).to_string();
    let patch = json!({"metadata": {"annotations": {RETRY_ANNOTATION: value}}});
    execs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// A run that is asked for with an object.
pub(crate) struct Request {
    objects: Objects,
    finder: Finder,
    target: Target,
    object: ContainerExec,
    name: String,
}

/// What a request met.
pub(crate) enum Made {
    /// The object was made.
    New,
    /// An object of the same program in the same container is there already; as it was when it was found.
    Found(Box<ContainerExec>),
    /// One of the same program in another container is there, which somebody else has asked for since.
    Taken,
}

/// What became of a request that was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// The object is gone, and its program was not started.
    BeforeTheStart,
    /// The program was started meanwhile: the object stays.
    TooLate,
    /// Somebody else made the object: it stays, and goes on asking.
    NotOurs,
}

impl Request {
    pub(crate) fn new(
        objects: &Objects,
        finder: Finder,
        target: Target,
        name: String,
        spec: ContainerExecSpec,
    ) -> Self {
        let mut object = ContainerExec::new(&name, spec);
        object.metadata.labels = Some([MANAGED_BY].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        Self { objects: objects.clone(), finder, target, object, name }
    }

    /// The name of the object.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The full ID of the container that the daemon is to run it in, where that is certain.
    pub(crate) fn container(&self) -> Option<&str> {
        self.target.id.as_deref().filter(|_| !self.target.is_object && self.finder.is_daemons())
    }

    /// Makes the object, or finds that of the same request. One of the same program in another container is replaced: whoever
    /// asks last means it.
    pub(crate) async fn make(&self, line: &Line) -> Result<Made> {
        loop {
            if let Some(made) = self.try_to_make().await? {
                let Made::Taken = made else { return Ok(made) };
                let what = format!("{}/{}", self.objects.namespace, self.name);
                line.say(&format!(
                    "{what}: there is an object of this program for another container, or for one that is gone: it is replaced"
                ));
                self.replace().await?;
            }
        }
    }

    /// The same for a client whose object has gone away. It does not take the place of another one: its own request was
    /// there before.
    pub(crate) async fn make_again(&self) -> Result<Made> {
        loop {
            if let Some(made) = self.try_to_make().await? {
                return Ok(made);
            }
        }
    }

    /// `None` where the object that was there goes away just now.
    async fn try_to_make(&self) -> Result<Option<Made>> {
        let execs = self.objects.execs();
        match execs.create(&PostParams::default(), &self.object).await {
            Ok(_) => return Ok(Some(Made::New)),
            Err(kube::Error::Api(error)) if error.reason == "AlreadyExists" => {}
            Err(error) => return Err(error).context("the API server did not take it"),
        }
        let found = execs.get_opt(&self.name).await.context("the API server does not answer")?;
        let Some(found) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
            tokio::time::sleep(LOOK).await;
            return Ok(None);
        };
        let is_stopped = found.spec.stop.unwrap_or_default() && is_ours(&found);
        if !is_same_program(&found.spec, &self.object.spec, is_stopped) {
            bail!(
                "ContainerExec {}/{} is there with another program: delete it, or take another --name",
                self.objects.namespace,
                self.name
            );
        }
        let is_same = !is_stopped && self.finder.is_same(&self.objects, &found, &self.target).await;
        Ok(Some(if is_same { Made::Found(Box::new(found)) } else { Made::Taken }))
    }

    async fn replace(&self) -> Result<()> {
        match self.objects.execs().delete(&self.name, &DeleteParams::default()).await {
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            deleted => deleted.map(drop).context("the object could not be replaced"),
        }
    }

    /// Takes the request back, where its program has not started.
    pub(crate) async fn withdraw(&self) -> Result<Withdrawn> {
        let execs = self.objects.execs();
        loop {
            let Some(object) = execs.get_opt(&self.name).await? else { return Ok(Withdrawn::BeforeTheStart) };
            if !is_ours(&object) {
                return Ok(Withdrawn::NotOurs);
            }
            if has_started(&object) {
                return Ok(Withdrawn::TooLate);
            }
            // Whatever happened since makes it another version.
            let (uid, resource_version) = (object.metadata.uid, object.metadata.resource_version);
            let preconditions = Some(Preconditions { uid, resource_version });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match execs.delete(&self.name, &params).await {
                Ok(_) => return Ok(Withdrawn::BeforeTheStart),
                Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_ours(object: &ContainerExec) -> bool {
    let (key, value) = MANAGED_BY;
    object.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|it| it == value)
}

/// Whether the program was started, or may be any moment.
fn has_started(object: &ContainerExec) -> bool {
    let state = object.status.as_ref().and_then(|status| status.state);
    !matches!(state, None | Some(ExecState::Waiting | ExecState::FailedToStart))
}

/// Whether two specs differ in nothing but how they name the container and what they wait for.
fn is_same_program(found: &ContainerExecSpec, wanted: &ContainerExecSpec, ignores_stop: bool) -> bool {
    let mut found = found.clone();
    found.container_name.clone_from(&wanted.container_name);
    found.engine_container.clone_from(&wanted.engine_container);
    found.engine.clone_from(&wanted.engine);
    // When it is started is no part of it, either.
    found.wait_for_port.clone_from(&wanted.wait_for_port);
    if ignores_stop {
        found.stop = wanted.stop;
    }
    found == *wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(container: &str, command: &str) -> ContainerExecSpec {
        let engine_container = Some(container.to_owned());
        ContainerExecSpec { engine_container, command: command.to_owned(), ..ContainerExecSpec::default() }
    }

    #[test]
    fn the_container_is_no_part_of_the_program() {
        let of_object =
            ContainerExecSpec { container_name: Some("db".into()), engine_container: None, ..spec("db", "/bin/true") };
        assert!(is_same_program(&spec("0123", "/bin/true"), &spec("db", "/bin/true"), false));
        assert!(is_same_program(&of_object, &spec("db", "/bin/true"), false));
        assert!(!is_same_program(&spec("db", "/bin/false"), &spec("db", "/bin/true"), false));
        let stopped = ContainerExecSpec { stop: Some(true), ..spec("db", "/bin/true") };
        assert!(is_same_program(&stopped, &spec("db", "/bin/true"), true));
        assert!(!is_same_program(&stopped, &spec("db", "/bin/true"), false));
    }
}
