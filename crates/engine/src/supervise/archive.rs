//! Reads what supervisors left on a container's disk, from outside: also while the container does not run.

use std::io::{self, Read};
use std::path::Path;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oncelet_shim::{Place, Record, Stream as Output, file};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use crate::engine::SLOW_CALL;
use crate::wire::Allowance;
use crate::{ContainerId, Engine, Error, OutputStream};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;
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

    /// What a program wrote, as far as it is on the container's disk and not known yet: `from` tells how many bytes of stdout and of
    /// stderr are. The pieces of each stream come in order, with the offset at which they begin.
    ///
    /// # Errors
    /// `NotFound` where there is no output (any more), or no such container.
    pub async fn read_output(
        &self,
        container: &ContainerId,
        run: &str,
        from: [u64; 2],
    ) -> Result<BoxStream<'static, Result<(OutputStream, u64, Bytes), Error>>, Error> {
        let path = Place::new(container.as_str(), run).spool();
        let mut pieces = self.download(container, &path)?;
        // The answer's head: errors come before the first byte.
        let Some(first) = self.within("archive_get", SLOW_CALL, async { pieces.try_next().await }).await? else {
            return Err(Error::NotFound { what: path });
        };
        let pieces = futures::stream::iter([Ok(first)]).chain(pieces).map_err(io::Error::other);
        let endpoint = self.endpoint().to_owned();
        let broken = move |error: io::Error| Error::unreachable(&endpoint, error);
        let entries = tokio_tar::Archive::new(StreamReader::new(pieces)).entries().map_err(&broken)?;
        let segments = Segments { entries, from, open: None };
        let pieces = futures::stream::try_unfold(segments, |mut segments| async {
            Ok(segments.next().await?.map(|piece| (piece, segments)))
        });
        Ok(pieces.map_err(broken).boxed())
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

/// The segments in the archive of a run's output. An engine puts them there by name, and so in order.
struct Segments<R: AsyncRead + Unpin> {
    entries: tokio_tar::Entries<R>,
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
            let known = self.from[stream as usize].saturating_sub(begin);
            let skipped = tokio::io::copy(&mut (&mut segment).take(known), &mut tokio::io::sink()).await?;
            self.open = Some((stream, begin + skipped, segment));
        }
    }
}

/// Takes a record out of the archive of its directory. A part that cannot be read counts as not there: each is whole or
/// missing, unless somebody else has written there.
fn record(archive: &[u8]) -> io::Result<Record> {
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
