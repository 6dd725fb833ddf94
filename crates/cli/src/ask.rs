//! Asking for a run through the API: the object that asks, and taking it back.

use anyhow::{Context, Result, bail};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use oncelet_api::{ContainerExec, ContainerExecSpec, ExecState, RERUN_ANNOTATION};
use serde_json::json;

use crate::clock::now;
use crate::objects::Objects;

/// The label of objects that `oncelet exec` made, and may take back.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "oncelet-exec");

/// Says on an object that its program is to run once more.
pub(crate) async fn rerun(execs: &Api<ContainerExec>, name: &str) -> Result<(), kube::Error> {
    let value = now().as_microsecond().to_string();
    let patch = json!({"metadata": {"annotations": {RERUN_ANNOTATION: value}}});
    execs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// A run that is asked for with an object.
pub(crate) struct Request<'a> {
    objects: &'a Objects,
    object: ContainerExec,
    name: String,
}

/// What became of a request that was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// The object is gone, and its program was not started.
    BeforeTheStart,
    /// The program was started meanwhile: the object stays.
    TooLate,
    /// Somebody else made the object: it stays, and asks on.
    NotOurs,
}

impl<'a> Request<'a> {
    pub(crate) fn new(objects: &'a Objects, name: String, spec: ContainerExecSpec) -> Self {
        let mut object = ContainerExec::new(&name, spec);
        object.metadata.labels = Some([MANAGED_BY].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        Self { objects, object, name }
    }

    /// The name of the object.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the object; one of the same program that is there already is as good.
    pub(crate) async fn make(&self) -> Result<()> {
        match self.objects.execs().create(&PostParams::default(), &self.object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 409 => {
                if self.objects.exec(&self.name).await?.spec != self.object.spec {
                    bail!(
                        "ContainerExec {}/{} is there with another program: delete it, or take another --name",
                        self.objects.namespace,
                        self.name
                    );
                }
                Ok(())
            }
            Err(error) => Err(error).context("the API server did not take it"),
        }
    }

    /// Takes the request back while its program has not started.
    pub(crate) async fn withdraw(&self) -> Result<Withdrawn> {
        loop {
            let Some(object) = self.objects.execs().get_opt(&self.name).await? else {
                return Ok(Withdrawn::BeforeTheStart);
            };
            if !is_ours(&object) {
                return Ok(Withdrawn::NotOurs);
            }
            let state = object.status.as_ref().and_then(|status| status.state);
            if !matches!(state, None | Some(ExecState::Waiting | ExecState::FailedToStart)) {
                return Ok(Withdrawn::TooLate);
            }
            // Whatever happened since makes it another version.
            let (uid, resource_version) = (object.metadata.uid, object.metadata.resource_version);
            let preconditions = Some(Preconditions { uid, resource_version });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match self.objects.execs().delete(&self.name, &params).await {
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
