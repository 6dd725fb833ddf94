//! Reads what supervisors left on a container's disk, from outside: also while the container does not run.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oncelet_shim::{LARGEST_PART, Place, Record, Stream as Output, file};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::whose::{Owners, PathStat};
use crate::engine::SLOW_CALL;
use crate::{ContainerId, Engine, Error, ErrorKind, OutputStream};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;
/// How much of a gate is read at once. A record is smaller; where there is more, its parts are read one by one.
const LARGEST_RECORD: usize = 1024 * 1024;
/// How much of an archive is read to see its first head, which names and times may precede.
const HEADS: usize = 8 * 1024;

/// The parts of a record.
const PARTS: [&str; 4] = [file::CLAIM, file::STARTED, file::STOP, file::EXIT];

impl Engine {
    /// Whether a run of a program of `user` was claimed in the container, by that user or by root. So it is, too, where
    /// something that only they can have made is in the place of a record.
    pub async fn has_record(&self, container: &ContainerId, run: &str, user: Option<&str>) -> Result<bool, Error> {
        Ok(self.find(container, run, user).await?.is_some())
    }

    /// What is recorded of a run of a program of `user`; `None` where neither that user nor root has claimed it, or the
    /// container is gone.
    pub async fn read_record(
        &self,
        container: &ContainerId,
        run: &str,
        user: Option<&str>,
    ) -> Result<Option<Record>, Error> {
        Ok(self.find(container, run, user).await?.map(|found| found.record))
    }

    async fn find(&self, container: &ContainerId, run: &str, user: Option<&str>) -> Result<Option<Found>, Error> {
        match self.look(container, run, user).await {
            Err(Error::NotFound { .. }) => Ok(None),
            found => found,
        }
    }

    /// Looks among root's runs, and then among those of the user.
    async fn look(&self, container: &ContainerId, run: &str, user: Option<&str>) -> Result<Option<Found>, Error> {
        let place = Place::new(container.as_str(), run);
        let shared = self.stat(container, &place.gate()).await?;
        let number = self.number_of(container, user).await?;
        if let Some(stat) = shared
            && let Some(found) = self.look_at(container, place.clone(), number, stat).await?
        {
            return Ok(Some(found));
        }
        let Some(number) = number.filter(|number| *number != 0) else { return Ok(None) };
        let place = place.of(number);
        let Some(stat) = self.stat(container, &place.gate()).await? else { return Ok(None) };
        self.look_at(container, place, Some(number), stat).await
    }

    /// What is at a gate; `None` where it is another user's.
    async fn look_at(
        &self,
        container: &ContainerId,
        place: Place,
        number: Option<u32>,
        stat: PathStat,
    ) -> Result<Option<Found>, Error> {
        let gate = place.gate();
        let owners = self.owners(number).await?;
        let unsound = |why: String| {
            tracing::warn!(container = %container, "{why}");
            Record { unsound: Some(why), ..Record::default() }
        };
        if !stat.is_dir() {
            let why = format!("{gate} is {}, not the directory of a record", stat.kind());
            if place.user == 0 {
                // Whose it is does not show. A supervisor looks itself before it starts anything.
                tracing::warn!(container = %container, "{why}; it does not count");
                return Ok(None);
            }
            return Ok(Some(Found { place, owners, record: unsound(why) }));
        }
        let (archive, is_whole) = self.read_archive(container, &gate, LARGEST_RECORD).await?;
        let Some(head) = first_header(&archive) else {
            return Err(Error::protocol(self.endpoint(), format!("the archive of {gate} has no head")));
        };
        let owner = if owners.told {
            Some(head.uid().unwrap_or(u64::MAX))
        } else {
            self.owner_of(container, &place).await?.map(u64::from)
        };
        let counts = |owner: u64| owner == 0 || number.is_some_and(|number| owner == u64::from(number));
        let foreign = owner.filter(|owner| !counts(*owner));
        let record = if let Some(owner) = foreign {
            if number.is_some() {
                tracing::warn!(container = %container, "{gate} belongs to user {owner} and does not count");
                return Ok(None);
            }
            unsound(format!("{gate} belongs to user {owner}, and which number the run's user has is not known"))
        } else if head.mode().unwrap_or(u32::MAX) & 0o022 != 0 {
            unsound(format!("{gate} can be written to by other users, so it is no record"))
        } else {
            let mut record = Record::default();
            for name in PARTS {
                let taken = if is_whole {
                    part(&archive, name, &owners)
                } else {
                    self.read_part(container, &format!("{gate}/{name}"), &owners).await?
                };
                take(&mut record, name, taken);
            }
            for remark in &record.remarks {
                tracing::warn!(container = %container, "{gate}: {remark}; it does not count");
            }
            record
        };
        Ok(Some(Found { place, owners, record }))
    }

    /// Whose a gate is where the engine does not tell; `None` where nobody can: it was made when everybody could, and root's
    /// supervisor has not run in the container since, which does not run.
    async fn owner_of(&self, container: &ContainerId, place: &Place) -> Result<Option<u32>, Error> {
        if place.user != 0 {
            return Ok(Some(place.user));
        }
        if !self.has_list(container, place).await? {
            match Box::pin(self.supervise(container, Some("0"))).await {
                Err(Error::NotSupervisable { .. }) => {}
                Err(error) if error.kind() == ErrorKind::ContainerNotRunning => {}
                supervised => drop(supervised?),
            }
        }
        self.listed_owner(container, place).await
    }

    /// Reads one part of a record, where there is more at the gate than a record.
    async fn read_part(&self, container: &ContainerId, path: &str, owners: &Owners) -> Result<Part, Error> {
        let name = path.rsplit('/').next().unwrap_or(path);
        match self.stat(container, path).await? {
            None => Ok(Part::Absent),
            Some(stat) if !stat.is_file() => Ok(Part::Wrong(format!("{name} is {}", stat.kind()))),
            Some(stat) if stat.size > LARGEST_PART => Ok(Part::Wrong(format!("{name} has {} bytes", stat.size))),
            Some(_) => match self.read_archive(container, path, LARGEST_RECORD).await {
                Ok((archive, _)) => Ok(single(&archive, name, owners)),
                Err(Error::NotFound { .. }) => Ok(Part::Absent),
                Err(error) => Err(error),
            },
        }
    }

    /// Reads the archive of a path, up to `limit` bytes of it. False where there is more.
    pub(super) async fn read_archive(
        &self,
        container: &ContainerId,
        path: &str,
        limit: usize,
    ) -> Result<(Vec<u8>, bool), Error> {
        self.within("archive_get", SLOW_CALL, async {
            let mut archive = Vec::new();
            let mut pieces = self.download(container, path)?;
            while let Some(piece) = pieces.try_next().await? {
                archive.extend_from_slice(&piece[..piece.len().min(limit - archive.len())]);
                if archive.len() == limit {
                    return Ok((archive, false));
                }
            }
            Ok((archive, true))
        })
        .await
    }

    /// The head of what is at a path; `None` where there is nothing.
    pub(super) async fn head_of(&self, container: &ContainerId, path: &str) -> Result<Option<tar::Header>, Error> {
        match self.read_archive(container, path, HEADS).await {
            Ok((archive, _)) => Ok(first_header(&archive)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a program wrote, as far as it is on the container's disk and not known yet: `from` tells how many bytes of stdout and of
    /// stderr are. The pieces of each stream come in order, with the offset at which they begin.
    ///
    /// # Errors
    /// `NotFound` where there is no output (any more), or no such container.
    pub async fn read_output(
        &self,
        container: &ContainerId,
        run: &str,
        user: Option<&str>,
        from: [u64; 2],
    ) -> Result<BoxStream<'static, Result<(OutputStream, u64, Bytes), Error>>, Error> {
        let missing = |what: String| Error::NotFound { what };
        let found = self.find(container, run, user).await?.filter(|found| found.record.unsound.is_none());
        let Some(Found { place, owners, .. }) = found else { return Err(missing(format!("the record of run {run}"))) };
        let path = place.spool();
        if !self.stat(container, &path).await?.is_some_and(|stat| stat.is_private_dir()) {
            return Err(missing(path));
        }
        let mut pieces = self.download(container, &path)?;
        // The answer's head: errors come before the first byte.
        let Some(first) = self.within("archive_get", SLOW_CALL, async { pieces.try_next().await }).await? else {
            return Err(Error::NotFound { what: path });
        };
        let pieces = futures::stream::iter([Ok(first)]).chain(pieces).map_err(io::Error::other);
        let endpoint = self.endpoint().to_owned();
        let broken = move |error: io::Error| Error::unreachable(&endpoint, error);
        let entries = tokio_tar::Archive::new(StreamReader::new(pieces)).entries().map_err(&broken)?;
        let segments = Segments { entries, owners, from, open: None };
        let pieces = futures::stream::try_unfold(segments, |mut segments| async {
            Ok(segments.next().await?.map(|piece| (piece, segments)))
        });
        Ok(pieces.map_err(broken).boxed())
    }

    fn download(&self, container: &ContainerId, path: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let (endpoint, path) = (self.endpoint().to_owned(), path.to_owned());
        Ok(self
            .client()?
            .download_from_container(container.as_str(), Some(options))
            .map_err(move |error| match Error::from_bollard(&endpoint, error) {
                Error::Rejected { status: 404, .. } => Error::NotFound { what: path.clone() },
                other => other,
            })
            .boxed())
    }
}

/// The segments in the archive of a run's output. An engine puts them there by name, and so in order.
struct Segments<R: AsyncRead + Unpin> {
    entries: tokio_tar::Entries<R>,
    owners: Owners,
    from: [u64; 2],
    /// The one that is read, and where the next piece begins.
    open: Option<(Output, u64, tokio_tar::Entry<tokio_tar::Archive<R>>)>,
}

impl<R: AsyncRead + Unpin> Segments<R> {
    async fn next(&mut self) -> io::Result<Option<(OutputStream, u64, Bytes)>> {
        loop {
            if let Some((stream, offset, segment)) = &mut self.open {
                let mut piece = BytesMut::with_capacity(PIECE);
                if segment.read_buf(&mut piece).await? > 0 {
                    let begin = *offset;
                    *offset += piece.len() as u64;
                    let stream = match stream {
                        Output::Stdout => OutputStream::Stdout,
                        Output::Stderr => OutputStream::Stderr,
                    };
                    return Ok(Some((stream, begin, piece.freeze())));
                }
                self.open = None;
            }
            let Some(mut segment) = self.entries.next().await.transpose()? else { return Ok(None) };
            let name = segment.path()?.file_name().and_then(|name| name.to_str()).and_then(Place::parse_segment);
            let Some((stream, begin)) = name else { continue };
            let head = segment.header();
            if !head.entry_type().is_file() || !head.uid().is_ok_and(|owner| self.owners.has(owner)) {
                continue;
            }
            let known = self.from[stream as usize].saturating_sub(begin);
            let skipped = tokio::io::copy(&mut (&mut segment).take(known), &mut tokio::io::sink()).await?;
            self.open = Some((stream, begin + skipped, segment));
        }
    }
}

/// A run's record, and where it is.
struct Found {
    place: Place,
    owners: Owners,
    record: Record,
}

/// A part of a record.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Absent,
    /// Its bytes.
    Text(Vec<u8>),
    /// There is something else in its place.
    Wrong(String),
}

/// The head of the first entry of an archive.
fn first_header(archive: &[u8]) -> Option<tar::Header> {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().ok()?.next()?.ok()?;
    Some(entry.header().clone())
}

/// Takes a part out of the archive of its directory.
fn part(archive: &[u8], name: &str, owners: &Owners) -> Part {
    find_part(archive, owners, |path| path.components().count() == 2 && path.file_name().is_some_and(|it| it == name))
}

/// Takes a part out of an archive that has nothing else.
fn single(archive: &[u8], name: &str, owners: &Owners) -> Part {
    find_part(archive, owners, |path| path == Path::new(name))
}

fn find_part(archive: &[u8], owners: &Owners, is_it: impl Fn(&Path) -> bool) -> Part {
    let mut archive = tar::Archive::new(archive);
    let Ok(entries) = archive.entries() else { return Part::Absent };
    for entry in entries {
        // What cannot be read is the end of it.
        let Ok(mut entry) = entry else { return Part::Absent };
        let Some(path) = entry.path().ok().filter(|path| is_it(path)).map(Cow::into_owned) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (kind, owner, size) = (entry.header().entry_type(), entry.header().uid().unwrap_or(u64::MAX), entry.size());
        if !kind.is_file() {
            return Part::Wrong(format!("{name} is no regular file ({kind:?})"));
        }
        if !owners.has(owner) {
            return Part::Wrong(format!("{name} belongs to user {owner}"));
        }
        if entry.header().mode().unwrap_or(u32::MAX) & 0o022 != 0 {
            return Part::Wrong(format!("{name} can be written to by other users"));
        }
        if size > LARGEST_PART {
            return Part::Wrong(format!("{name} has {size} bytes"));
        }
        let mut text = Vec::new();
        return match entry.read_to_end(&mut text) {
            Ok(_) => Part::Text(text),
            Err(_) => Part::Wrong(format!("{name} is cut off")),
        };
    }
    Part::Absent
}

/// Puts a part into its record. One that cannot be read counts as not there: each is whole or missing, unless somebody else has
/// written there.
fn take(record: &mut Record, name: &str, part: Part) {
    let text = match part {
        Part::Absent => return,
        Part::Wrong(why) => return record.remarks.push(why),
        Part::Text(text) => text,
    };
    let is_read = match name {
        file::CLAIM => put(&mut record.claim, &text),
        file::STARTED => put(&mut record.started, &text),
        file::STOP => put(&mut record.stopped, &text),
        _ => put(&mut record.exit, &text),
    };
    if !is_read {
        record.remarks.push(format!("{name} cannot be understood"));
    }
}

fn put<T: DeserializeOwned>(place: &mut Option<T>, text: &[u8]) -> bool {
    *place = serde_json::from_slice(text).ok();
    place.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, u32, u64, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, mode, owner, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(*owner);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    const OWNERS: Owners = Owners { told: true, number: Some(1000) };

    #[test]
    fn a_part_is_a_regular_file_of_the_runs_user_or_of_root_directly_behind_the_gate() {
        use tar::EntryType::{Char, Fifo, GNUSparse, Link, Regular, Symlink};
        let gate = ("run", tar::EntryType::Directory, 0o700, 1000, &b""[..]);
        let read = |kind, mode, owner, bytes: &[u8]| {
            part(&archive(&[gate, ("run/exit.json", kind, mode, owner, bytes)]), file::EXIT, &OWNERS)
        };
        for owner in [0, 1000] {
            assert_eq!(read(Regular, 0o600, owner, b"{}"), Part::Text(b"{}".to_vec()));
        }
        assert!(matches!(read(Regular, 0o600, 1001, b"{}"), Part::Wrong(_)), "another user's");
        assert!(matches!(read(Regular, 0o602, 1000, b"{}"), Part::Wrong(_)), "everybody's");
        for kind in [Fifo, Symlink, Link, Char, GNUSparse] {
            assert!(matches!(read(kind, 0o600, 1000, b""), Part::Wrong(_)), "{kind:?}");
        }
        let largest = usize::try_from(LARGEST_PART).unwrap();
        assert!(matches!(read(Regular, 0o600, 1000, &vec![b' '; largest + 1]), Part::Wrong(_)), "too large");
        let deeper = archive(&[gate, ("run/x/exit.json", Regular, 0o600, 1000, b"{}")]);
        assert_eq!(part(&deeper, file::EXIT, &OWNERS), Part::Absent);
    }

    #[test]
    fn a_part_that_is_no_record_is_remarked_on_and_absent() {
        let mut record = Record::default();
        take(&mut record, file::EXIT, Part::Text(b"[]".to_vec()));
        take(&mut record, file::STOP, Part::Wrong("stop.json is a FIFO".to_owned()));
        assert_eq!((record.exit, record.stopped), (None, None));
        assert_eq!(record.remarks, ["exit.json cannot be understood", "stop.json is a FIFO"]);
    }
}
