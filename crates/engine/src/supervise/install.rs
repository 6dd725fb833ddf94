//! Puts the supervisor into a container.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use oncelet_shim::frame::{Frame, Hello};
use oncelet_shim::{Place, ROOT, Task};
use sha2::{Digest, Sha256};

use super::whose::WRITABLE_BY_OTHERS;
use super::{SupervisedEnd, TASK};
use crate::engine::SLOW_CALL;
use crate::{ContainerId, Engine, Error, FailureReason, patience};

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

/// The containers and users of which it is known whether they have a supervisor.
#[derive(Debug, Default)]
pub(crate) struct Supervisors {
    containers: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<Users>>>>,
    /// The numbers that supervisors said their users have.
    numbers: Mutex<HashMap<(ContainerId, Option<String>), u32>>,
}

/// What is known of each user of a container; `None` is its default user.
type Users = HashMap<Option<String>, Known>;

#[derive(Debug)]
enum Known {
    InPlace,
    Impossible { message: String, since: Instant },
}

impl Supervisors {
    fn of(&self, container: &ContainerId) -> Arc<tokio::sync::Mutex<Users>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).entry(container.clone()).or_default().clone()
    }

    fn forget(&self, container: &ContainerId) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }

    fn number_is(&self, container: &ContainerId, user: Option<&str>, number: u32) {
        let key = (container.clone(), user.map(str::to_owned));
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(key, number);
    }

    /// The number of a user, where a supervisor has said it.
    pub(super) fn number(&self, container: &ContainerId, user: Option<&str>) -> Option<u32> {
        let key = (container.clone(), user.map(str::to_owned));
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }
}

/// What is put into a container.
enum Upload {
    /// The program; and the list of what is not root's, where it is empty.
    All { with_list: bool },
    /// The directory of a user's runs.
    Home { uid: u32, gid: u32 },
}

impl Engine {
    /// Puts the supervisor into a running container, makes sure that it runs there as `user`, and that this user has a directory
    /// for its runs in which nobody else can write. Cheap where that was done before.
    ///
    /// # Errors
    /// `NotSupervisable` where that is impossible: the message says why, for people.
    pub async fn supervise(&self, container: &ContainerId, user: Option<&str>) -> Result<Supervisor, Error> {
        let _waits = patience::wait();
        let users = self.supervisors().of(container);
        // One at a time for each container.
        let mut users = users.lock().await;
        let supervisor = Supervisor { container: container.clone() };
        match users.get(&user.map(str::to_owned)) {
            Some(Known::InPlace) => return Ok(supervisor),
            Some(Known::Impossible { message, since }) if since.elapsed() < PATIENCE => {
                return Err(impossible(container, message));
            }
            None | Some(Known::Impossible { .. }) => {}
        }
        let is_there = users.values().any(|known| matches!(known, Known::InPlace));
        // Once for each user: not a part of every caller's future.
        let known = match Box::pin(self.install(&supervisor, user, is_there)).await {
            Ok(Some(number)) => {
                self.supervisors().number_is(container, user, number);
                Known::InPlace
            }
            Ok(None) => return Ok(supervisor),
            Err(Error::NotSupervisable { message, .. }) => Known::Impossible { message, since: Instant::now() },
            Err(error) => return Err(error),
        };
        let refusal = match &known {
            Known::InPlace => None,
            Known::Impossible { message, .. } => Some(impossible(container, message)),
        };
        users.insert(user.map(str::to_owned), known);
        refusal.map_or(Ok(supervisor), Err)
    }

    /// The supervisor was not where it should be.
    pub(super) fn forget_supervisor(&self, container: &ContainerId) {
        self.supervisors().forget(container);
    }

    /// Gives back the number of the user; `None` where the container has no such user: whatever is started as it says so.
    async fn install(&self, supervisor: &Supervisor, user: Option<&str>, is_there: bool) -> Result<Option<u32>, Error> {
        let container = &supervisor.container;
        if PROGRAM.is_empty() {
            return Err(impossible(container, "this build of oncelet carries none: it was not built for Linux"));
        }
        let place = Place::new(container.as_str(), "");
        let is_there = is_there || self.has_program(container).await? && self.has_list(container, &place).await?;
        if !is_there {
            self.make(supervisor, &place).await?;
        }
        let mut made = false;
        loop {
            // What was uploaded may be hidden under a mount, or not executable there: only an answer proves something.
            let answer = self.answer_to(supervisor, Task::Probe { place: place.clone() }, user, TASK).await?;
            let problem = match answer {
                Ok(Frame::Hello(Hello { uid, problem: None, .. })) => return Ok(Some(uid)),
                // The directory of its user is missing, or others can write where they are not to.
                Ok(Frame::Hello(Hello { uid, gid, problem: Some(_), .. })) if !made => {
                    let runs = self.stat(container, &place.container_dir()).await?;
                    if !runs.is_some_and(|runs| runs.is_private_dir()) {
                        self.make(supervisor, &place).await?;
                    }
                    self.upload(container, &Upload::Home { uid, gid }).await?;
                    made = true;
                    continue;
                }
                Ok(Frame::Hello(Hello { problem: Some(problem), .. })) => problem,
                Ok(Frame::Unusable(refusal)) => refusal.message,
                Ok(other) => format!("it answered with {}", other.name()),
                Err(SupervisedEnd::FailedToStart { reason: FailureReason::BadUser, .. }) if user.is_some() => {
                    return Ok(None);
                }
                Err(SupervisedEnd::FailedToStart { message, .. } | SupervisedEnd::Lost { message }) => {
                    format!("it does not run there: {message}")
                }
                Err(other) => format!("it does not run there: {other:?}"),
            };
            return Err(impossible(container, &problem));
        }
    }

    /// Whether the program is where it was put: nobody but root can have put there what is root's.
    async fn has_program(&self, container: &ContainerId) -> Result<bool, Error> {
        let Some(head) = self.head_of(container, &PATH).await? else { return Ok(false) };
        let owners = self.owners(None).await?;
        Ok(head.entry_type().is_file()
            && head.size().is_ok_and(|size| size == PROGRAM.len() as u64)
            && head.mode().is_ok_and(|mode| mode & WRITABLE_BY_OTHERS == 0)
            && head.uid().is_ok_and(|owner| owners.has(owner)))
    }

    /// Puts everything in place but the directories of users.
    async fn make(&self, supervisor: &Supervisor, place: &Place) -> Result<(), Error> {
        let container = &supervisor.container;
        if self.stat(container, &place.container_dir()).await?.is_none() {
            return self.upload(container, &Upload::All { with_list: true }).await;
        }
        // Others may have made something there. From now on they cannot.
        self.upload(container, &Upload::All { with_list: false }).await?;
        match self.answer_to(supervisor, Task::Survey { place: place.clone() }, Some("0"), TASK).await? {
            Ok(Frame::Done) => Ok(()),
            Ok(Frame::Unusable(refusal)) => Err(impossible(container, &refusal.message)),
            other => Err(impossible(container, &format!("root's answered {other:?}"))),
        }
    }

    /// Puts something there, in directories that it makes root's.
    async fn upload(&self, container: &ContainerId, what: &Upload) -> Result<(), Error> {
        let archive = archive(container, what).map_err(|error| Error::protocol(self.endpoint(), error))?;
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
}

/// Whether the engine complains of the supervisor itself.
pub(super) fn is_about_supervisor(message: &str) -> bool {
    message.contains(PATH.as_str())
}

fn impossible(container: &ContainerId, message: &str) -> Error {
    Error::NotSupervisable { container: container.to_string(), message: message.to_owned() }
}

fn archive(container: &ContainerId, what: &Upload) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, (uid, gid): (u32, u32), bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path.trim_start_matches('/'), bytes)
    };
    let place = Place::new(container.as_str(), "");
    let root = (0, 0);
    add(ROOT, tar::EntryType::Directory, 0o755, root, &[])?;
    add(&place.container_dir(), tar::EntryType::Directory, 0o755, root, &[])?;
    match what {
        Upload::All { with_list } => {
            add(&PATH, tar::EntryType::Regular, 0o755, root, PROGRAM)?;
            if *with_list {
                add(&place.owners(), tar::EntryType::Regular, 0o644, root, b"{}")?;
            }
        }
        // Root's is the one above.
        Upload::Home { uid: 0, .. } => {}
        Upload::Home { uid, gid } => {
            add(&place.of(*uid).home(), tar::EntryType::Directory, 0o755, (*uid, *gid), &[])?;
        }
    }
    archive.into_inner()
}
