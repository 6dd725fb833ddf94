//! OpenAPI v2, which kubectl up to 1.28 insists on before it applies anything. It reads it as protobuf only, and does with
//! a document that describes nothing: what it would look up there it finds in v3.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::status::ApiError;

/// Clients ask for it with an `@` before `v1.0`, which no media type may have.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `{swagger: "2.0", info: {title: "oncelet", version: "v1"}, paths: {}}`
const NOTHING: &[u8] = b"\x0a\x032.0\x12\x0d\x0a\x07oncelet\x12\x02v1\x42\x00";

pub(crate) fn document(headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.replace('@', ".").contains(PROTOBUF) {
        return Err(ApiError::not_acceptable(PROTOBUF));
    }
    let mut response = Response::new(Body::from(NOTHING));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    Ok(response)
}
