//! Reads what supervisors left on a container's disk, from outside: also while the container does not run.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oncelet_shim::{LARGEST_PART, LONGEST_SEGMENT, Place, Record, Stream as Output, file};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::whose::{Owners, PathStat, WRITABLE_BY_OTHERS};
use crate::engine::SLOW_CALL;
use crate::wire::Allowance;
use crate::{ContainerId, Engine, Error, ErrorKind, OutputStream};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;
/// How many files there are at most where a run's output is. Segments of a small disk are small, and few.
const MOST_ENTRIES: u32 = 65_536;
/// How much of a gate is read at once. A record is smaller; where there is more, its parts are read one by one.
const LARGEST_RECORD: usize = 1024 * 1024;
/// How much of an archive is read to see its first head, which names and times may precede.
const HEADS: usize = 8 * 1024;

/// The parts of a record.
pub(super) const PARTS: [&str; 4] = [file::CLAIM, file::STARTED, file::STOP, file::EXIT];

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
        } else if head.mode().unwrap_or(u32::MAX) & WRITABLE_BY_OTHERS != 0 {
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

    /// What a program wrote, as far as it is on the container's disk and wanted: of stdout and of stderr, the bytes from `from` up to
    /// `to`. The pieces of each stream come in order and without a gap, with the offset at which they begin.
    ///
    /// What lies there may not be the supervisor's: a program that runs as the same user can change it. A segment that is longer than
    /// any, more than fits into `to`, or too many entries end the reading before they are read.
    ///
    /// # Errors
    /// `NotFound` where there is no output (any more), or no such container; `Protocol` where it is not a supervisor's.
    pub async fn read_output(
        &self,
        container: &ContainerId,
        run: &str,
        user: Option<&str>,
        from: [u64; 2],
        to: [u64; 2],
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
        let segments =
            Segments::new(StreamReader::new(pieces), owners, from, to).map_err(|error| broken(&endpoint, error))?;
        let pieces = futures::stream::try_unfold(segments, |mut segments| async {
            Ok(segments.next().await?.map(|piece| (piece, segments)))
        });
        Ok(pieces.map_err(move |error| broken(&endpoint, error)).boxed())
    }

    fn download(&self, container: &ContainerId, path: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let (engine, path, allowance) = (self.clone(), path.to_owned(), Allowance::of_an_answer());
        let pieces = self.client(&allowance)?.download_from_container(container.as_str(), Some(options));
        Ok(futures::stream::try_unfold(Box::pin(pieces), move |mut pieces| {
            let (engine, path, allowance) = (engine.clone(), path.clone(), allowance.clone());
            async move {
                // Each piece has its time: an engine that falls silent in the middle holds up nobody for ever.
                let piece = match tokio::time::timeout(SLOW_CALL, pieces.try_next()).await {
                    Ok(piece) => piece.map_err(|error| match Error::from_bollard(engine.endpoint(), error) {
                        Error::Rejected { status: 404, .. } => Error::NotFound { what: path },
                        other => other,
                    })?,
                    Err(_) => return Err(engine.late(SLOW_CALL)),
                };
                allowance.renew();
                Ok(piece.map(|piece| (piece, pieces)))
            }
        })
        .boxed())
    }
}

/// What is wrong with an archive: what breaks its way here may pass, what it is stays.
fn broken(endpoint: &str, error: io::Error) -> Error {
    let came_of = error.get_ref().and_then(|source| source.downcast_ref::<Error>());
    let is_way = came_of.is_some() || error.kind() == io::ErrorKind::UnexpectedEof;
    if is_way { Error::unreachable(endpoint, error) } else { Error::protocol(endpoint, error) }
}

/// The segments in the archive of a run's output. An engine puts them there by name, and so in order.
pub(super) struct Segments<R: AsyncRead + Unpin + Send + 'static> {
    /// As they stand there: the names of segments are short, and whatever is to make them longer may itself have any length.
    entries: BoxStream<'static, io::Result<tokio_tar::Entry<tokio_tar::Archive<R>>>>,
    owners: Owners,
    /// Up to where each stream was read, and is wanted.
    at: [u64; 2],
    to: [u64; 2],
    /// How many entries may still come, and how many bytes in them.
    entries_left: u32,
    bytes_left: u64,
    /// The one that is read, and where the next piece begins.
    open: Option<(Output, u64, tokio_tar::Entry<tokio_tar::Archive<R>>)>,
}

impl<R: AsyncRead + Unpin + Send + 'static> Segments<R> {
    pub(super) fn new(archive: R, owners: Owners, from: [u64; 2], to: [u64; 2]) -> io::Result<Self> {
        Ok(Self {
            owners,
            entries: tokio_tar::Archive::new(archive).entries_raw()?.boxed(),
            at: from,
            to,
            entries_left: MOST_ENTRIES,
            // A segment of each may go beyond.
            bytes_left: to[0].saturating_add(to[1]).saturating_add(2 * LONGEST_SEGMENT),
            open: None,
        })
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<(OutputStream, u64, Bytes)>> {
        loop {
            if let Some((stream, offset, segment)) = &mut self.open {
                let mut piece = BytesMut::with_capacity(PIECE);
                if segment.read_buf(&mut piece).await? > 0 {
                    let begin = *offset;
                    *offset += piece.len() as u64;
                    let wanted = self.to[*stream as usize].saturating_sub(begin);
                    piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
                    if piece.is_empty() {
                        continue;
                    }
                    self.at[*stream as usize] = begin + piece.len() as u64;
                    let stream = match stream {
                        Output::Stdout => OutputStream::Stdout,
                        Output::Stderr => OutputStream::Stderr,
                    };
                    return Ok(Some((stream, begin, piece.freeze())));
                }
                self.open = None;
            }
            let Some(mut segment) = self.entries.next().await.transpose()? else { return Ok(None) };
            self.check(&segment)?;
            let is_file = segment.header().entry_type().is_file();
            let name = segment.path()?.file_name().and_then(|name| name.to_str()).and_then(Place::parse_segment);
            let is_its = segment.header().uid().is_ok_and(|owner| self.owners.has(owner));
            let Some((stream, begin)) = name.filter(|_| is_file && is_its) else { continue };
            let at = self.at[stream as usize];
            // What is kept is the beginning: after a gap nothing is wanted.
            if begin > at || begin.saturating_add(segment.effective_size()) <= at {
                continue;
            }
            let skipped = tokio::io::copy(&mut (&mut segment).take(at - begin), &mut tokio::io::sink()).await?;
            self.open = Some((stream, begin + skipped, segment));
        }
    }

    /// Refuses an entry by its head: what follows is not read.
    fn check(&mut self, entry: &tokio_tar::Entry<tokio_tar::Archive<R>>) -> io::Result<()> {
        let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let kind = entry.header().entry_type();
        let size = entry.effective_size();
        if kind.is_gnu_sparse() {
            return refuse("a file of the output has holes".to_owned());
        }
        if size > LONGEST_SEGMENT {
            return refuse(format!("a file of the output has {size} bytes, more than a supervisor ever writes"));
        }
        let (Some(entries), Some(bytes)) = (self.entries_left.checked_sub(1), self.bytes_left.checked_sub(size)) else {
            return refuse("the output is larger than it can be".to_owned());
        };
        (self.entries_left, self.bytes_left) = (entries, bytes);
        Ok(())
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
pub(super) enum Part {
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
pub(super) fn part(archive: &[u8], name: &str, owners: &Owners) -> Part {
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
        // A file with holes, or what is no archive: it is the end of what can be read.
        let Ok(mut entry) = entry else { return Part::Wrong("its archive cannot be read to the end".to_owned()) };
        let Some(path) = entry.path().ok().filter(|path| is_it(path)).map(Cow::into_owned) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (kind, owner, size) = (entry.header().entry_type(), entry.header().uid().unwrap_or(u64::MAX), entry.size());
        if !kind.is_file() {
            return Part::Wrong(format!("{name} is no regular file ({kind:?})"));
        }
        if !owners.has(owner) {
            return Part::Wrong(format!("{name} belongs to user {owner}"));
        }
        if entry.header().mode().unwrap_or(u32::MAX) & WRITABLE_BY_OTHERS != 0 {
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
pub(super) fn take(record: &mut Record, name: &str, part: Part) {
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
