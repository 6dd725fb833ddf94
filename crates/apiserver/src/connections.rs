//! Connections: how many there are at a time, and how long each phase of one may take. All listeners of a daemon are served here.
//!
//! | phase | deadline |
//! |---|---|
//! | TLS handshake | [`HANDSHAKE`] |
//! | from the handshake to the end of the first request's headers | [`HEADERS`] |
//! | idle, until the first byte of the next request | [`IDLE`], then it is closed gracefully |
//! | from that byte to the end of the headers (HTTP/1.1) | [`HEADERS`] |
//! | a request of somebody who has not shown a credential | [`STRANGER`] |
//!
//! What a known client asked for may take any time: a watch or a log lasts as long as its client wants. The deadline of a body is
//! that of whoever reads it. A peer that is gone is found by TCP keep-alive and, in HTTP/2, by pings.
//!
//! A listener has a limited number of places. When all are taken, the stranger who has been there longest gives theirs up; when
//! everybody is known, new connections wait in the backlog. All places together are less than half of the descriptors that
//! the process may have: the rest is for engines and stores.

mod visits;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Certified;
pub use visits::Visitor;
use visits::{Busy, Door, Overdue, Visit};

/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the headers of a request, and for the answer to an HTTP/2 ping.
const HEADERS: Duration = Duration::from_secs(30);
/// Between two requests: longer than the 90 s after which the clients of Kubernetes close a connection themselves.
const IDLE: Duration = Duration::from_mins(2);
/// For a whole request of a stranger, the answer included.
const STRANGER: Duration = Duration::from_mins(1);
/// How often a silent HTTP/2 client is asked for a sign of life, and how long a silent TCP peer is left alone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For a connection that was told to end.
const ENDING: Duration = Duration::from_secs(5);
/// How long open requests may take to finish once the server is told to end.
const DRAIN: Duration = Duration::from_secs(5);
/// The headers of a request, in bytes.
const HEADER_BYTES: u32 = 64 * 1024;
/// Requests at a time on one HTTP/2 connection; a watch is one of them.
const STREAMS: u32 = 250;
/// Requests that a client may take back before they were looked at; more of them end the connection.
const RESETS: usize = 20;

/// A number of descriptors that is assumed where the system has no limit.
const MANY: u64 = 1 << 20;

/// Raises the number of descriptors that this process may have as far as the system allows.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}

/// At most `wanted`, and at most one of so many of the descriptors that this process may have.
pub(crate) fn share(wanted: u64, one_of: u64) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(MANY);
    usize::try_from(wanted.min(descriptors.checked_div(one_of).unwrap_or(0)).max(4)).unwrap_or(usize::MAX)
}

/// What a client that connects is shown, and what it may show: see [`crate::credentials`].
pub(crate) struct Identity {
    pub(crate) tls: TlsAcceptor,
    /// Cancelled when the client's credentials are good for nothing any more: whoever was let in by them is cut off.
    pub(crate) revoked: CancellationToken,
}

/// The identity of the moment.
type Identities = Arc<dyn Fn() -> BoxFuture<'static, Option<Identity>> + Send + Sync>;

/// Serves a router in plain HTTP/1.1 until `shutdown`.
pub async fn serve_plain(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router);
    serve(listener, None, share(128, 16), service, shutdown.clone(), shutdown).await;
}

/// Serves the API: over TLS, until `shutdown`. `closing` is cancelled then, and ends what would go on for ever.
pub(crate) async fn serve_tls<I, J, F, R>(
    listener: TcpListener,
    identity: I,
    answer: F,
    shutdown: CancellationToken,
    closing: CancellationToken,
) where
    I: Fn() -> J + Send + Sync + 'static,
    J: Future<Output = Option<Identity>> + Send + 'static,
    F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request.map(Body::new));
        async move { Ok(answered.await) }
    });
    let identities: Identities = Arc::new(move || identity().boxed());
    serve(listener, Some(identities), share(1024, 4), service, shutdown, closing).await;
}

async fn serve<S>(
    listener: TcpListener,
    identities: Option<Identities>,
    places: usize,
    service: S,
    shutdown: CancellationToken,
    closing: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let door = Door::new(places);
    let connections = TaskTracker::new();
    let mut troubled = false;
    for number in 0.. {
        // Both arms only wait: a connection is either accepted or still in the backlog.
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                troubled = false;
                // The others wait in the backlog while this one waits for its place.
                let place = tokio::select! {
                    () = shutdown.cancelled() => break,
                    place = door.place() => place,
                };
                let visit = Visit::begin(&door, number);
                let (identities, service, closing) = (identities.clone(), service.clone(), closing.clone());
                connections.spawn(async move {
                    connection(stream, identities, &visit, service, &closing).await;
                    visit.end();
                    drop(place);
                });
            }
            // Too many open files, or a client that was gone before it was accepted.
            Err(error) => {
                if !std::mem::replace(&mut troubled, true) {
                    tracing::warn!(%error, "connections cannot be accepted; trying again every second");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    drop(listener);
    closing.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
    }
}

async fn connection<S>(
    stream: TcpStream,
    identities: Option<Identities>,
    visit: &Arc<Visit>,
    service: S,
    closing: &CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    // Watch events are small and must not wait for more of them.
    let _ = stream.set_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
    let Some(identities) = identities else {
        return converse(stream, Protocol::Http1, visit, None, service, closing).await;
    };
    let Some(Identity { tls, revoked }) = identities().await else { return };
    let greeting = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        () = visit.leave.cancelled() => return,
        () = closing.cancelled() => return,
    };
    let Ok(Ok(stream)) = greeted else {
        tracing::debug!("a client did not complete its TLS handshake");
        return;
    };
    visit.greeted();
    let session = stream.get_ref().1;
    let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    // Checked by the handshake: one that is not ours ends there.
    let has_certificate = session.peer_certificates().is_some_and(|chain| !chain.is_empty());
    if has_certificate {
        visit.admit();
    }
    let certified = has_certificate.then(|| Certified { revoked: revoked.clone() });
    tokio::select! {
        () = converse(stream, protocol, visit, certified, service, closing) => {}
        // Whatever is open was let in by what is refused now.
        () = revoked.cancelled() => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

fn builder(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Its own deadline for headers begins with the end of the request before, and so counts idle time.
    let buffer = usize::try_from(HEADER_BYTES).unwrap_or(usize::MAX);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(buffer);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(HEADERS);
    http2.max_concurrent_streams(STREAMS).max_header_list_size(HEADER_BYTES);
    http2.max_pending_accept_reset_streams(RESETS).max_local_error_reset_streams(RESETS);
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    }
}

async fn converse<I, S>(
    stream: I,
    protocol: Protocol,
    visit: &Arc<Visit>,
    certified: Option<Certified>,
    service: S,
    closing: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let me = Arc::clone(visit);
    let answering = service_fn(move |mut request: Request<Incoming>| {
        let busy = Busy::begin(&me);
        request.extensions_mut().insert(Visitor(Arc::clone(&me)));
        if let Some(certified) = &certified {
            request.extensions_mut().insert(certified.clone());
        }
        let answered = service.call(request);
        async move { answered.await.map(|response| response.map(|body| Answer { body, busy: Some(busy) })) }
    });
    let stream = Heard { stream, visit: (protocol == Protocol::Http1).then(|| Arc::clone(visit)) };
    let builder = builder(protocol);
    let serving = builder.serve_connection(TokioIo::new(stream), answering);
    tokio::pin!(serving);
    let look = tokio::time::sleep(visit.next_look());
    tokio::pin!(look);
    let mut told = false;
    loop {
        tokio::select! {
            result = serving.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(error, "a connection ended with an error");
                }
                return;
            }
            () = visit.leave.cancelled() => return,
            () = look.as_mut() => {
                let next = match visit.overdue() {
                    Some(Overdue::Cut) => return,
                    Some(Overdue::Close) if told => return,
                    Some(Overdue::Close) => {
                        told = true;
                        serving.as_mut().graceful_shutdown();
                        ENDING
                    }
                    None => visit.next_look(),
                };
                look.as_mut().reset(after(next));
            }
            () = closing.cancelled(), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

#[allow(clippy::arithmetic_side_effects, reason = "no deadline is longer than minutes")]
fn after(time: Duration) -> Instant {
    Instant::now() + time
}

/// The body of an answer.
struct Answer {
    body: Body,
    /// Given back with the last frame.
    busy: Option<Busy>,
}

impl hyper::body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.busy = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells when something comes.
struct Heard<I> {
    stream: I,
    /// In HTTP/2 there is more to be heard than requests.
    visit: Option<Arc<Visit>>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before
            && let Some(visit) = &self.visit
        {
            visit.heard();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "connections/tests.rs"]
mod tests;
