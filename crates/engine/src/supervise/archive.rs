//! Reads what supervisors left on a container's disk, from outside: also while the container does not run.

use std::io::{self, Read};
use std::path::Path;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oncelet_shim::{Place, Record, Stream as Output, file};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::engine::SLOW_CALL;
use crate::{ContainerId, Engine, Error, OutputStream};

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

    /// What a program wrote, from byte `skip` on, as far as it is on the container's disk.
    ///
    /// # Errors
    /// `NotFound` where there is no such log (any more), or no such container.
    pub async fn read_log(
        &self,
        container: &ContainerId,
        run: &str,
        stream: OutputStream,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let output = match stream {
            OutputStream::Stdout => Output::Stdout,
            OutputStream::Stderr => Output::Stderr,
        };
        let path = Place::new(container.as_str(), run).log(output);
        let mut pieces = self.download(container, &path)?;
        // The answer's head: errors come before the first byte.
        let Some(first) = self.within("archive_get", SLOW_CALL, async { pieces.try_next().await }).await? else {
            return Err(Error::NotFound { what: path });
        };
        let pieces = futures::stream::iter([Ok(first)]).chain(pieces).map_err(io::Error::other);
        let endpoint = self.endpoint().to_owned();
        let broken = move |error: io::Error| Error::unreachable(&endpoint, error);
        let mut archive = tokio_tar::Archive::new(StreamReader::new(pieces));
        let mut entries = archive.entries().map_err(&broken)?;
        let Some(mut log) = entries.next().await.transpose().map_err(&broken)? else {
            return Err(Error::NotFound { what: path });
        };
        let skipped = tokio::io::copy(&mut (&mut log).take(skip), &mut tokio::io::sink()).await.map_err(&broken)?;
        if skipped < skip {
            return Ok(futures::stream::empty().boxed());
        }
        Ok(ReaderStream::with_capacity(log, 256 * 1024).map_err(broken).boxed())
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
