//! The way of every request to an engine and of what it answers: one connection each, and a bound on what comes back.
//!
//! An engine may be another machine, and not a friendly one. Whatever reads its answers collects them somewhere: a document to its
//! end, a line to its newline, a frame to its length. So the bound is below all of them, in bytes that have come since something
//! came of what came before.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bollard::errors::Error as BollardError;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Address;

/// The largest answer that has an end.
const WHOLE: usize = 16 * 1024 * 1024;
/// The largest part of one that has none, a line or a frame. Whoever waits for its end looks through all of it again and again.
const PART: usize = 1024 * 1024;

/// What an engine may send before something comes of it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    most: usize,
    taken: Arc<AtomicUsize>,
}

impl Allowance {
    /// For an answer that is collected to its end, or a stream of pieces that are handed on as they come.
    pub(crate) fn of_an_answer() -> Self {
        Self { most: WHOLE, taken: Arc::default() }
    }

    /// For a stream of lines or frames.
    pub(crate) fn of_a_stream() -> Self {
        Self { most: PART, taken: Arc::default() }
    }

    /// Something came of it: a line, a frame, a piece.
    pub(crate) fn renew(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        if self.taken.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.most {
            let error = TooLarge(self.most);
            tracing::warn!("an engine was cut off: {error}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(())
    }
}

/// More came than an engine has to say: more than so many bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer is larger than {} MiB", .0 >> 20)]
pub(crate) struct TooLarge(usize);

impl TooLarge {
    /// The one that is why `error` came about, if one is.
    pub(crate) fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
            let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
            inner.downcast_ref().copied().or_else(|| Self::behind(inner))
        })
    }
}

/// Makes one request on a connection of its own. What is not read of the answer ends the connection.
pub(crate) async fn exchange<B>(
    address: Address,
    allowance: Allowance,
    request: Request<B>,
) -> Result<Response<Incoming>, BollardError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match address {
        Address::Unix(path) => over(UnixStream::connect(path).await?, "localhost", allowance, request).await,
        Address::Http(authority) => {
            let stream = TcpStream::connect(&authority).await?;
            stream.set_nodelay(true)?;
            over(stream, &authority, allowance, request).await
        }
    }
}

async fn over<S, B>(
    stream: S,
    host: &str,
    allowance: Allowance,
    mut request: Request<B>,
) -> Result<Response<Incoming>, BollardError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    let host = HeaderValue::from_str(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    request.headers_mut().insert(HOST, host);
    let (mut sender, connection) = http1::handshake(TokioIo::new(Counted { stream, allowance })).await?;
    // It does the reading and writing, and ends with the answer.
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let response = sender.send_request(request).await?;
    // Not before: who gives up waiting leaves no connection behind.
    drop(connection.detach());
    Ok(response)
}

/// GET of what is at `path`, which must be valid in a URL as it is: the status and the whole body.
pub(crate) async fn get(address: Address, path: &str) -> Result<(u16, Bytes), BollardError> {
    let request = Request::get(path).body(Empty::<Bytes>::new())?;
    let response = exchange(address, Allowance::of_an_answer(), request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// A connection whose engine has an allowance.
struct Counted<S> {
    stream: S,
    allowance: Allowance,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.allowance.take(buf.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
