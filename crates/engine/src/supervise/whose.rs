//! Whose is what in a container, as an engine tells it from outside.

use std::io::Read;

use oncelet_shim::Place;
use serde::Deserialize;

use crate::engine::CALL;
use crate::{ContainerId, Engine, Error, ErrorKind};

/// More than a list of users ever has.
const LARGEST_USERS: usize = 1024 * 1024;
/// Others may write.
pub(super) const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What an engine says of a path, with the modes of Go's library.
pub(super) struct PathStat {
    mode: u32,
    pub(super) size: u64,
    link_target: String,
}

impl PathStat {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const FIFO: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const IRREGULAR: u32 = 1 << 19;
    const KINDS: u32 = Self::DIR | Self::SYMLINK | Self::DEVICE | Self::FIFO | Self::SOCKET | Self::IRREGULAR;

    pub(super) fn is_dir(&self) -> bool {
        self.mode & Self::KINDS == Self::DIR
    }

    pub(super) fn is_file(&self) -> bool {
        self.mode & Self::KINDS == 0
    }

    /// Whether it is a directory to which only its owner can write.
    pub(super) fn is_private_dir(&self) -> bool {
        self.is_dir() && self.mode & WRITABLE_BY_OTHERS == 0
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.mode & Self::KINDS {
            0 => "a file",
            Self::DIR => "a directory",
            Self::SYMLINK => "a symbolic link",
            Self::FIFO => "a FIFO",
            Self::SOCKET => "a socket",
            _ => "a device",
        }
    }
}

/// Whose files count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners {
    /// Whether the engine's archives tell whose a file is. Where they do not, it is known by where the file is.
    pub(super) told: bool,
    /// The user beside root, where its number is known.
    pub(super) number: Option<u32>,
}

impl Owners {
    pub(super) fn has(&self, owner: u64) -> bool {
        !self.told || owner == 0 || self.number.is_some_and(|number| owner == u64::from(number))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    user: String,
}

impl Engine {
    /// What is at a path; `None` where there is nothing. Links are not followed.
    pub(super) async fn stat(&self, container: &ContainerId, path: &str) -> Result<Option<PathStat>, Error> {
        let options = bollard::query_parameters::ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let found = self
            .call("archive_head", CALL, |docker| async move {
                docker.get_container_archive_info(container.as_str(), Some(options)).await
            })
            .await;
        match found {
            Ok(found) => Ok(Some(PathStat {
                mode: found.file_mode,
                size: u64::try_from(found.size).unwrap_or_default(),
                link_target: found.link_target,
            })),
            Err(Error::Rejected { status: 404, .. }) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of a user of the container: what a supervisor said or, where none could be asked, what the container's own list
    /// of users says. `None` where that is not to be found out.
    pub(super) async fn number_of(&self, container: &ContainerId, user: Option<&str>) -> Result<Option<u32>, Error> {
        if let Some(number) = self.supervisors().number(container, user) {
            return Ok(Some(number));
        }
        let user = match user {
            Some(user) => user.to_owned(),
            None => match self.get::<Inspected>(&format!("/containers/{container}/json")).await {
                Ok(inspected) => inspected.config.user,
                Err(Error::Rejected { status: 404, .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let name = user.split(':').next().unwrap_or_default();
        if name.is_empty() {
            return Ok(Some(0));
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let mut path = "/etc/passwd".to_owned();
        if let Some(stat) = self.stat(container, &path).await?
            && stat.mode & PathStat::KINDS == PathStat::SYMLINK
        {
            path = stat.link_target;
        }
        let listed = match self.read_archive(container, &path, LARGEST_USERS).await {
            Ok((archive, true)) => number_in(&archive, name),
            Ok((_, false)) | Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        // Engines know root without a list.
        Ok(listed.or((name == "root").then_some(0)))
    }

    /// Whose files count where a run is that of the user with this number.
    pub(super) async fn owners(&self, number: Option<u32>) -> Result<Owners, Error> {
        Ok(Owners { told: self.tells_owners().await?, number })
    }

    /// Whose a gate in the directory of root's runs is, by the list of what others made there; `None` where there is no such list.
    pub(super) async fn listed_owner(&self, container: &ContainerId, place: &Place) -> Result<Option<u32>, Error> {
        if !self.has_list(container, place).await? {
            return Ok(None);
        }
        let (archive, _) = self.read_archive(container, &place.owners(), LARGEST_USERS).await?;
        let owners: Option<oncelet_shim::Owners> =
            text_in(&archive).and_then(|text| serde_json::from_slice(&text).ok());
        Ok(owners.map(|owners| owners.get(&place.run).copied().unwrap_or_default()))
    }

    /// Whether it is known what in the directory of root's runs is root's.
    pub(super) async fn has_list(&self, container: &ContainerId, place: &Place) -> Result<bool, Error> {
        Ok(self.stat(container, &place.owners()).await?.is_some_and(|stat| stat.is_file() && stat.size > 0))
    }
}

/// The text of the only file in an archive.
fn text_in(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut text = Vec::new();
    entry.read_to_end(&mut text).ok()?;
    Some(text)
}

/// The number of a user in the archive of a list of users.
fn number_in(archive: &[u8], name: &str) -> Option<u32> {
    String::from_utf8_lossy(&text_in(archive)?).lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() == Some(name) { fields.nth(1)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_number_in_the_containers_list() {
        let list = b"root:x:0:0::/:/bin/sh\napp:x:1234:77::/tmp:/bin/sh\nbroken\n";
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(list.len() as u64);
        archive.append_data(&mut header, "passwd", &list[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        for (name, number) in [("root", Some(0)), ("app", Some(1234)), ("broken", None), ("nobody", None)] {
            assert_eq!(number_in(&archive, name), number, "{name}");
        }
    }

    #[test]
    fn files_count_where_they_are_the_users_or_roots() {
        let owners = Owners { told: true, number: Some(1000) };
        assert!(owners.has(0) && owners.has(1000) && !owners.has(1001));
        assert!(!Owners { told: true, number: None }.has(1000));
        assert!(Owners { told: false, number: None }.has(1000), "it says nothing");
    }
}
