//! Puts the supervisor into a container.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use oncelet_shim::frame::Frame;
use oncelet_shim::{Place, ROOT, Task};
use sha2::{Digest, Sha256};

use super::TASK;
use crate::engine::{CALL, SLOW_CALL};
use crate::{ContainerId, Engine, Error, ErrorKind};

/// The program; empty where it was built for another system than the containers'.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/supervisor"));

/// Where it is in a container. The name tells its contents: another version goes beside it.
static PATH: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(PROGRAM);
    let head = digest.first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
    format!("{ROOT}/shim-{head:016x}")
});

/// How long it is believed that a container takes no supervisor.
const PATIENCE: Duration = Duration::from_mins(1);

/// A supervisor that is in place.
#[derive(Clone, Debug)]
pub struct Supervisor {
    container: ContainerId,
}

impl Supervisor {
    pub(super) fn container(&self) -> &ContainerId {
        &self.container
    }

    /// The supervisor's path in the container.
    #[expect(clippy::unused_self, reason = "only where it is in place it has a path")]
    pub(super) fn path(&self) -> String {
        PATH.clone()
    }
}

/// The containers of which it is known whether they have a supervisor.
#[derive(Debug, Default)]
pub(crate) struct Supervisors(Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<Known>>>>);

#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    InPlace,
    Impossible {
        message: String,
        since: Instant,
    },
}

impl Supervisors {
    fn of(&self, container: &ContainerId) -> Arc<tokio::sync::Mutex<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(container.clone()).or_default().clone()
    }

    fn forget(&self, container: &ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }
}

impl Engine {
    /// Puts the supervisor into a running container, and makes sure that it runs there. Cheap where that was done before.
    ///
    /// # Errors
    /// `NotSupervisable` where that is impossible: the message says why, for people.
    pub async fn supervise(&self, container: &ContainerId) -> Result<Supervisor, Error> {
        let known = self.supervisors().of(container);
        // One at a time for each container.
        let mut known = known.lock().await;
        let supervisor = Supervisor { container: container.clone() };
        match &*known {
            Known::InPlace => return Ok(supervisor),
            Known::Impossible { message, since } if since.elapsed() < PATIENCE => {
                return Err(impossible(container, message));
            }
            Known::Nothing | Known::Impossible { .. } => {}
        }
        // Once for each container: not a part of every caller's future.
        match Box::pin(self.install(&supervisor)).await {
            Ok(()) => {
                *known = Known::InPlace;
                Ok(supervisor)
            }
            Err(error) => {
                if let Error::NotSupervisable { message, .. } = &error {
                    *known = Known::Impossible { message: message.clone(), since: Instant::now() };
                }
                Err(error)
            }
        }
    }

    /// The supervisor was not where it should be.
    pub(super) fn forget_supervisor(&self, container: &ContainerId) {
        self.supervisors().forget(container);
    }

    async fn install(&self, supervisor: &Supervisor) -> Result<(), Error> {
        let container = &supervisor.container;
        if PROGRAM.is_empty() {
            return Err(impossible(container, "this build of oncelet carries none: it was not built for Linux"));
        }
        let runs = Place::new(container.as_str(), "").container_dir();
        let is_there = self.has_path(container, &PATH).await? && self.has_path(container, &runs).await?;
        if !is_there {
            self.upload(container).await?;
        }
        // What was uploaded may be hidden under a mount, or not executable there: only an answer proves something.
        match self.answer_to(supervisor, Task::Probe { place: Place::new(container.as_str(), "") }, None, TASK).await {
            Ok(Frame::Hello(_)) => Ok(()),
            Ok(Frame::Unusable(refusal)) => Err(impossible(container, &refusal.message)),
            Ok(other) => Err(impossible(container, &format!("it answered with {}", other.name()))),
            Err(Error::Supervisor { message, .. }) => {
                Err(impossible(container, &format!("it does not run there: {message}")))
            }
            Err(error) => Err(error),
        }
    }

    async fn upload(&self, container: &ContainerId) -> Result<(), Error> {
        let archive = archive(container).map_err(|error| Error::protocol(self.endpoint(), error))?;
        let options = UploadToContainerOptionsBuilder::new().path("/").no_overwrite_dir_non_dir("true").build();
        let body = bollard::body_full(archive.into());
        let uploaded = self
            .call("archive_put", SLOW_CALL, |docker| async move {
                docker.upload_to_container(container.as_str(), Some(options), body).await
            })
            .await
            .map_err(|error| error.about_container(container.as_str()));
        match uploaded {
            Err(Error::Rejected { message, .. }) if message.contains("read-only") || message.contains("read only") => {
                Err(impossible(container, "its root file system is read-only"))
            }
            Err(Error::Rejected { message, .. }) => {
                Err(impossible(container, &format!("the engine does not take it: {message}")))
            }
            other => other,
        }
    }

    pub(super) async fn has_path(&self, container: &ContainerId, path: &str) -> Result<bool, Error> {
        let options = bollard::query_parameters::ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let found = self
            .call("archive_head", CALL, |docker| async move {
                docker.get_container_archive_info(container.as_str(), Some(options)).await
            })
            .await;
        match found {
            Ok(_) => Ok(true),
            Err(Error::Rejected { status: 404, .. }) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether the engine complains of the supervisor itself.
pub(super) fn is_about_supervisor(message: &str) -> bool {
    message.contains(PATH.as_str())
}

fn impossible(container: &ContainerId, message: &str) -> Error {
    Error::NotSupervisable { container: container.to_string(), message: message.to_owned() }
}

fn archive(container: &ContainerId) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path.trim_start_matches('/'), bytes)
    };
    add(ROOT, tar::EntryType::Directory, 0o755, &[])?;
    add(&PATH, tar::EntryType::Regular, 0o755, PROGRAM)?;
    // So that the user of any exec can claim, and none can remove what another has claimed.
    add(&Place::new(container.as_str(), "").container_dir(), tar::EntryType::Directory, 0o1777, &[])?;
    archive.into_inner()
}
