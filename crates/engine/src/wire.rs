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

use crate::engine::Address;

/// The largest answer, or the largest part of one that never ends.
pub(crate) const LARGEST: usize = 16 * 1024 * 1024;

/// What an engine has sent since something came of it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// Something came of it: a line, a frame, a piece.
    pub(crate) fn renew(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        if self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > LARGEST {
            tracing::warn!("an engine was cut off: it sent more than {} MiB in one answer", LARGEST >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, TooLarge));
        }
        Ok(())
    }
}

/// More came than an engine has to say.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer is larger than {} MiB", LARGEST >> 20)]
pub(crate) struct TooLarge;

impl TooLarge {
    /// Whether it is why `error` came about.
    pub(crate) fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error| error.source()).any(|error| {
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            inner.is_some_and(|inner| inner.is::<Self>() || Self::is_behind(inner))
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
    // It does the reading and writing, and ends with the answer, or with whoever waits for that.
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await?)
}

/// GET of what is at `path`, which must be valid in a URL as it is: the status and the whole body.
pub(crate) async fn get(address: Address, path: &str) -> Result<(u16, Bytes), BollardError> {
    let request = Request::get(path).body(Empty::<Bytes>::new())?;
    let response = exchange(address, Allowance::default(), request).await?;
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
