//! What was uploaded for the stdin of a program: looked for, delivered, and removed once the outcome is stored.
//!
//! ```text
//! client: the object ──▶ waits, StdinNotUploaded ──▶ client: the parts, then the annotation ──▶ launched, delivered
//!                                                                       outcome stored ──▶ parts and annotation removed
//! ```
//!
//! The parts stay as long as the program may still have to be started, so that a daemon that is killed in the middle is
//! followed by one that delivers all of it again.

use std::collections::HashSet;
use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use oncelet_api::{ContainerExec, ExecState, UPLOAD_KEY, UPLOAD_LABEL, UPLOADED_ANNOTATION, Upload};
use oncelet_core::{Blocked, Input, Reason};
use oncelet_engine::supervise::StdinSource;
use oncelet_faults::gives_up;
use serde_json::json;

use crate::exec::Error;

/// How many parts are fetched ahead of what the container takes.
const AHEAD: usize = 2;
/// How many missing parts are named.
const NAMED: usize = 5;

/// Why the program cannot be started yet, where it waits for an upload.
pub(crate) async fn missing(client: &Client, exec: &ContainerExec) -> Result<Option<Blocked>, Error> {
    let Some(upload) = upload(exec).filter(|upload| upload.parts() > 0) else { return Ok(None) };
    let blocked = |what: &str| {
        let message = format!(
            "the {} bytes of its stdin {what}; to upload them, run the same oncelet exec -i command with the same input \
             again",
            upload.bytes
        );
        Some(Blocked { reason: Reason::StdinNotUploaded, message })
    };
    // The last thing that a client does: before, there is no need to look.
    if exec.annotations().get(UPLOADED_ANNOTATION) != Some(&upload.sha256) {
        return Ok(blocked("are not uploaded"));
    }
    let uid = exec.uid().unwrap_or_default();
    let there: HashSet<String> = names(client, exec).await?.into_iter().collect();
    let missing: Vec<_> =
        (0..upload.parts()).filter(|index| !there.contains(&Upload::part_name(&uid, *index))).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let named: Vec<_> = missing.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if missing.len() > NAMED { ", \u{2026}" } else { "" };
    let (count, all) = (missing.len(), upload.parts());
    Ok(blocked(&format!(
        "are not all uploaded: {count} of {all} parts are missing (number {}{more})",
        named.join(", ")
    )))
}

/// The bytes of `input`, for the program of `exec`.
pub(crate) fn source(client: &Client, exec: &ContainerExec, input: Input) -> StdinSource {
    match input {
        Input::Bytes(bytes) => Box::pin(stream::iter([Ok(Bytes::from(bytes))])),
        Input::Uploaded(_) => {
            let secrets = secrets(client, exec);
            let uid = exec.uid().unwrap_or_default();
            let parts = upload(exec).map(Upload::parts).unwrap_or_default();
            let fetch = move |index| {
                let (secrets, name) = (secrets.clone(), Upload::part_name(&uid, index));
                async move { fetch(&secrets, &name).await }
            };
            Box::pin(stream::iter(0..parts).map(fetch).buffered(AHEAD))
        }
    }
}

async fn fetch(secrets: &Api<Secret>, name: &str) -> io::Result<Bytes> {
    if gives_up("stdin-part") {
        return Err(io::Error::other("a fault was asked for"));
    }
    let part = secrets.get(name).await.map_err(|error| io::Error::other(format!("Secret {name}: {error}")))?;
    let bytes = part.data.unwrap_or_default().remove(UPLOAD_KEY);
    let bytes = bytes.ok_or_else(|| io::Error::other(format!("Secret {name} has no key {UPLOAD_KEY}")))?;
    Ok(Bytes::from(bytes.0))
}

/// Whether there may be something to [`remove`]. What a client left that was killed in the middle of an upload is removed when
/// the outcome is shown for the first time.
pub(crate) fn may_be_there(exec: &ContainerExec) -> bool {
    let state = exec.status.as_ref().and_then(|status| status.state);
    let is_shown = matches!(state, Some(ExecState::Finished | ExecState::Interrupted | ExecState::Unknown));
    upload(exec).is_some() && (!is_shown || exec.annotations().contains_key(UPLOADED_ANNOTATION))
}

/// Removes what was uploaded for `exec`, whose outcome is stored. It may be called again at any time.
pub(crate) async fn remove(client: &Client, exec: &ContainerExec) -> Result<(), kube::Error> {
    let secrets = secrets(client, exec);
    let names = listed(client, exec).await?;
    let removed = stream::iter(names).map(Ok).try_for_each_concurrent(4, |name| {
        let secrets = secrets.clone();
        async move {
            match secrets.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
                result => result.map(drop),
            }
        }
    });
    removed.await?;
    if !exec.annotations().contains_key(UPLOADED_ANNOTATION) {
        return Ok(());
    }
    // Last: as long as it is there, the parts may be.
    let patch = json!({"metadata": {"uid": exec.uid(), "annotations": {UPLOADED_ANNOTATION: null}}});
    let execs = Api::<ContainerExec>::namespaced(client.clone(), &exec.namespace().unwrap_or_default());
    match execs.patch(&exec.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        // Gone, or another one of its name.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409 | 422) => Ok(()),
        result => result.map(drop),
    }
}

fn upload(exec: &ContainerExec) -> Option<&Upload> {
    exec.spec.stdin.as_ref()?.upload.as_ref()
}

fn secrets(client: &Client, exec: &ContainerExec) -> Api<Secret> {
    Api::namespaced(client.clone(), &exec.namespace().unwrap_or_default())
}

/// The names of the parts that are there.
async fn names(client: &Client, exec: &ContainerExec) -> Result<Vec<String>, Error> {
    let what = || format!("the parts of the stdin of {}/{}", exec.namespace().unwrap_or_default(), exec.name_any());
    listed(client, exec).await.map_err(|source| Error::Inputs { what: what(), source })
}

async fn listed(client: &Client, exec: &ContainerExec) -> Result<Vec<String>, kube::Error> {
    let params = ListParams::default().labels(&format!("{UPLOAD_LABEL}={}", exec.uid().unwrap_or_default()));
    let found = secrets(client, exec).list_metadata(&params).await?;
    Ok(found.items.into_iter().map(|part| part.name_any()).collect())
}
