//! Request bodies: how large, in which format.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::place::shown;
use crate::protobuf;
use crate::status::ApiError;

/// As large as a request to Kubernetes may be.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

/// As many values as a body may hold. In memory each takes dozens of times as many bytes as it may take in JSON.
pub(crate) const VALUES: usize = 250_000;

/// A body of more bytes is large: few of them are in memory at a time, and they are worked on where nobody else waits.
pub(crate) const LARGE: usize = 64 * 1024;

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// How long a client may take to send one.
const PATIENCE: Duration = Duration::from_mins(1);

/// Reads a body. A large one takes one of the places for them, which goes with it.
pub(crate) async fn read(
    body: Body,
    places: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    tokio::time::timeout(PATIENCE, collect(body, places)).await.unwrap_or_else(|_| {
        let message = format!("the body of the request did not come within {} s", PATIENCE.as_secs());
        Err(ApiError::new(504, "Timeout", message))
    })
}

async fn collect(body: Body, places: &Arc<Semaphore>) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    let mut body = Limited::new(body, LIMIT);
    let (mut read, mut place) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return ApiError::too_large(LIMIT);
            }
            ApiError::bad_request(format!("the body of the request could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if place.is_none() && read.len().saturating_add(data.len()) > LARGE {
            place = Some(Arc::clone(places).acquire_owned().await.map_err(|_| ApiError::too_many_requests())?);
        }
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), place))
}

/// The media type without its parameters; `""` where there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// An object, in whichever format it was sent. JSON needs no content type: Python's client sends none.
pub(crate) fn object(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    let value = match media_type(headers) {
        "" | "application/json" => json(body)?,
        "application/yaml" | "text/yaml" | "application/x-yaml" => yaml(body)?,
        "application/vnd.kubernetes.protobuf" => protobuf::decode(body)?,
        _ => return Err(ApiError::unsupported_media_type(ACCEPTED)),
    };
    if value.is_object() { Ok(value) } else { Err(ApiError::bad_request("the body of the request is not an object")) }
}

/// The fields that an object in JSON has twice.
pub(crate) fn duplicates(headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    match media_type(headers) {
        "" | "application/json" => crate::duplicates::find(body),
        _ => Vec::new(),
    }
}

pub(crate) fn json(body: &[u8]) -> Result<Value, ApiError> {
    if values(body) > VALUES {
        return Err(ApiError::too_many_values());
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body of the request is not JSON: {error}")))
}

/// YAML, which JSON is too.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    // Nearly all "YAML" is JSON, and that parser is far faster.
    if let Ok(value) = json(body) {
        return Ok(value);
    }
    // Its parser has limits of its own: of depth, of values, and of what aliases make of them.
    serde_saphyr::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body of the request is not YAML: {}", shown(error))))
}

/// About how many values there are in JSON: each but the first follows one of these signs. No fewer than there are.
fn values(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' | b':' if !in_text => count = count.saturating_add(1),
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn json_is_read_without_a_content_type_and_yaml_with_one() {
        assert_eq!(object(&HeaderMap::new(), br#"{"a":1}"#).unwrap(), json!({"a": 1}));
        assert_eq!(
            object(&headers("application/yaml"), b"a: 1\nb: [x, 'y']\n").unwrap(),
            json!({"a": 1, "b": ["x", "y"]})
        );
        assert_eq!(object(&headers("application/cbor"), b"").unwrap_err().code, 415);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_as_such() {
        let error = read(Body::from(vec![0; LIMIT + 1]), &Arc::new(Semaphore::new(1))).await.unwrap_err();
        assert_eq!(error.code, 413);
    }
}
