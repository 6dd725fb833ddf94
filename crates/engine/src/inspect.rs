//! Reads JSON without bollard.
//!
//! bollard's models close the set of a container's states, and Podman's `stopped` (between a container's end and its
//! clean-up, which may take seconds) is not in it: inspecting a container just then would fail to decode.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::{Engine, Error, engine::Address, engine::CALL};

/// The shape of an engine's error.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Engine {
    /// GET of one JSON document at `path`, which must be valid in a URL as it is.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let body = self.get_body("container_inspect", path).await?;
        serde_json::from_slice(&body).map_err(|error| Error::protocol(self.endpoint(), error))
    }

    /// GET of what is at `path`, as the metrics call `operation`.
    pub(crate) async fn get_body(&self, operation: &'static str, path: &str) -> Result<Bytes, Error> {
        self.within(operation, CALL, async {
            match self.address()? {
                Address::Unix(socket) => {
                    let stream = UnixStream::connect(socket).await.map_err(|error| self.unreachable(error))?;
                    self.get_over(stream, "localhost", path).await
                }
                Address::Http(authority) => {
                    let stream = TcpStream::connect(&authority).await.map_err(|error| self.unreachable(error))?;
                    self.get_over(stream, &authority, path).await
                }
            }
        })
        .await
    }

    async fn get_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
        path: &str,
    ) -> Result<Bytes, Error> {
        let lost = |error: hyper::Error| Error::unreachable(self.endpoint(), error);
        let request = Request::get(path)
            .header("Host", host)
            .body(Empty::<Bytes>::new())
            .map_err(|error| Error::InvalidRequest { message: error.to_string() })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        // The connection does the reading and writing, and never ends before the exchange except by breaking, which
        // the exchange then reports itself.
        tokio::pin!(exchange, connection);
        let (status, body) = tokio::select! {
            done = &mut exchange => done,
            _ = &mut connection => exchange.await,
        }
        .map_err(lost)?;
        if !status.is_success() {
            let message = serde_json::from_slice::<Refusal>(&body)
                .map_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned(), |refusal| refusal.message);
            return Err(Error::Rejected { status: status.as_u16(), message });
        }
        Ok(body)
    }
}
