//! Reads JSON without bollard.
//!
//! bollard's models close the set of a container's states, and Podman's `stopped` (between a container's end and its
//! clean-up, which may take seconds) is not in it: inspecting a container just then would fail to decode.

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{Engine, Error, engine::CALL, wire};

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
        self.ready().await?;
        let _turn = self.pulse().turn().await;
        let (status, body) = self
            .within(operation, CALL, async {
                let answer = wire::get(self.address()?, path).await;
                answer.map_err(|error| Error::from_bollard(self.endpoint(), error))
            })
            .await?;
        if !(200..300).contains(&status) {
            let message = serde_json::from_slice::<Refusal>(&body)
                .map_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned(), |refusal| refusal.message);
            return Err(Error::rejected(status, &message));
        }
        Ok(body)
    }
}
