//! Reads what supervisors left on a container's disk, from outside: also while the container does not run.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oncelet_shim::{LONGEST_SEGMENT, Place, Record, Stream as Output, file};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use crate::engine::SLOW_CALL;
use crate::{ContainerId, Engine, Error, OutputStream};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;
/// How many files there are at most where a run's output is. Segments of a small disk are small, and few.
const MOST_ENTRIES: u32 = 65_536;
/// More than a record ever has.
const LARGEST_RECORD: usize = 16 * 1024 * 1024;

impl Engine {
    /// Whether a run was claimed in the container.
    pub async fn has_record(&self, container: &ContainerId, run: &str) -> Result<bool, Error> {
        self.has_path(container, &Place::new(container.as_str(), run).gate()).await
    }

    /// What is recorded of a run; `None` where nobody has claimed it, or the container is gone.
    pub async fn read_record(&self, container: &ContainerId, run: &str) -> Result<Option<Record>, Error> {
        // The cheap question first: mostly the answer is no.
        if !self.has_record(container, run).await? {
            return Ok(None);
        }
        let path = Place::new(container.as_str(), run).gate();
        let archive = self.within("archive_get", SLOW_CALL, async {
            let mut archive = Vec::new();
            let mut pieces = self.download(container, &path)?;
            while let Some(piece) = pieces.try_next().await? {
                archive.extend_from_slice(&piece);
                if archive.len() > LARGEST_RECORD {
                    return Err(Error::protocol(self.endpoint(), format!("{path} is no record: it is too large")));
                }
            }
            Ok(archive)
        });
        match archive.await {
            Ok(archive) => record(&archive).map(Some).map_err(|error| Error::protocol(self.endpoint(), error)),
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
        from: [u64; 2],
        to: [u64; 2],
    ) -> Result<BoxStream<'static, Result<(OutputStream, u64, Bytes), Error>>, Error> {
        let path = Place::new(container.as_str(), run).spool();
        let mut pieces = self.download(container, &path)?;
        // The answer's head: errors come before the first byte.
        let Some(first) = self.within("archive_get", SLOW_CALL, async { pieces.try_next().await }).await? else {
            return Err(Error::NotFound { what: path });
        };
        let pieces = futures::stream::iter([Ok(first)]).chain(pieces).map_err(io::Error::other);
        let endpoint = self.endpoint().to_owned();
        let segments = Segments::new(StreamReader::new(pieces), from, to).map_err(|error| broken(&endpoint, error))?;
        let pieces = futures::stream::try_unfold(segments, |mut segments| async {
            Ok(segments.next().await?.map(|piece| (piece, segments)))
        });
        Ok(pieces.map_err(move |error| broken(&endpoint, error)).boxed())
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

/// What is wrong with an archive: what breaks its way here may pass, what it is stays.
fn broken(endpoint: &str, error: io::Error) -> Error {
    let came_of = error.get_ref().and_then(|source| source.downcast_ref::<Error>());
    let is_way = came_of.is_some() || error.kind() == ErrorKind::UnexpectedEof;
    if is_way { Error::unreachable(endpoint, error) } else { Error::protocol(endpoint, error) }
}

/// The segments in the archive of a run's output. An engine puts them there by name, and so in order.
pub(super) struct Segments<R: AsyncRead + Unpin + Send + 'static> {
    /// As they stand there: the names of segments are short, and whatever is to make them longer may itself have any length.
    entries: BoxStream<'static, io::Result<tokio_tar::Entry<tokio_tar::Archive<R>>>>,
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
    pub(super) fn new(archive: R, from: [u64; 2], to: [u64; 2]) -> io::Result<Self> {
        Ok(Self {
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
            let Some((stream, begin)) = name.filter(|_| is_file) else { continue };
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
        let refuse = |what: String| Err(io::Error::new(ErrorKind::InvalidData, what));
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

/// Takes a record out of the archive of its directory. A part that cannot be read counts as not there: each is whole or
/// missing, unless somebody else has written there.
pub(super) fn record(archive: &[u8]) -> io::Result<Record> {
    let mut record = Record::default();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.file_name().map(Path::new).map(Path::to_owned).unwrap_or_default();
        let mut text = Vec::new();
        entry.read_to_end(&mut text)?;
        match name.to_str().unwrap_or_default() {
            file::CLAIM => record.claim = parsed(&text),
            file::STARTED => record.started = parsed(&text),
            file::STOP => record.stopped = parsed(&text),
            file::EXIT => record.exit = parsed(&text),
            _ => {}
        }
    }
    Ok(record)
}

fn parsed<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}
