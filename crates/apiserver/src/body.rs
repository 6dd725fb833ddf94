//! Request bodies: how large, in which format.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::protobuf;
use crate::status::ApiError;

/// As large as a request to Kubernetes may be.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// How long a client may take to send one.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn read(body: Body) -> Result<bytes::Bytes, ApiError> {
    let Ok(collected) = tokio::time::timeout(PATIENCE, Limited::new(body, LIMIT).collect()).await else {
        let message = format!("the body of the request did not come within {} s", PATIENCE.as_secs());
        return Err(ApiError::new(504, "Timeout", message));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("the body of the request could not be read: {error}"))),
    }
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
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body of the request is not JSON: {error}")))
}

/// YAML, which JSON is too.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    // Nearly all "YAML" is JSON, and that parser is far faster.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    serde_saphyr::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body of the request is not YAML: {error}")))
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
        let error = read(Body::from(vec![0; LIMIT + 1])).await.unwrap_err();
        assert_eq!(error.code, 413);
    }
}
