//! In which form a client wants its answer.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta::At;
use crate::registry::Resource;
use crate::route::Query;
use crate::status::ApiError;
use crate::table::{self, Include};

/// The form of an object or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Table(Include),
    /// `PartialObjectMetadata` and its list.
    Metadata,
}

const OFFERED: &str = "application/json";

impl Form {
    /// The first form in `Accept` that is served. Protobuf is not, and every client that asks for it takes JSON too.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Result<Self, ApiError> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut offers = accept.split(',').map(str::trim).filter(|offer| !offer.is_empty()).peekable();
        if offers.peek().is_none() {
            return Ok(Self::Plain);
        }
        offers.find_map(|offer| Self::of_offer(offer, query)).ok_or_else(|| ApiError::not_acceptable(OFFERED))
    }

    fn of_offer(offer: &str, query: &Query) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim);
        let media_type = parts.next()?;
        if !["application/json", "application/*", "*/*"].contains(&media_type) {
            return None;
        }
        let (mut kind, mut version, mut group) = ("", "", "");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = value,
                Some(("v", value)) => version = value,
                Some(("g", value)) => group = value,
                _ => {}
            }
        }
        match (kind, group, version) {
            ("", ..) => Some(Self::Plain),
            ("Table", "meta.k8s.io", "v1") => Some(Self::Table(include(query))),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Self::Metadata),
            _ => None,
        }
    }

    /// One object.
    pub(crate) fn object(self, resource: &Resource, object: Value, now: Timestamp) -> Value {
        match self {
            Self::Plain => object,
            Self::Metadata => table::partial(&object),
            Self::Table(include) => {
                let list = json!({"resourceVersion": object.at("metadata").at("resourceVersion")});
                table::table(&resource.columns, &[&object], &list, include, true, now)
            }
        }
    }

    /// A list; `metadata` is the list's.
    pub(crate) fn list(self, resource: &Resource, objects: &[Value], metadata: &Value, now: Timestamp) -> Value {
        match self {
            Self::Plain => {
                let items: Vec<_> = objects.iter().map(|object| item(resource, object)).collect();
                let (kind, version) = (&resource.list_kind, resource.api_version());
                json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})
            }
            Self::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": objects.iter().map(table::partial).collect::<Vec<_>>(),
            }),
            Self::Table(include) => {
                let rows: Vec<&Value> = objects.iter().collect();
                table::table(&resource.columns, &rows, metadata, include, true, now)
            }
        }
    }

    /// An object within a watch event.
    pub(crate) fn event(self, resource: &Resource, object: Value, first: bool, now: Timestamp) -> Value {
        match self {
            Self::Table(include) => {
                let list = json!({"resourceVersion": object.at("metadata").at("resourceVersion")});
                table::table(&resource.columns, &[&object], &list, include, first, now)
            }
            Self::Plain | Self::Metadata => self.object(resource, object, now),
        }
    }
}

/// An object within a list: where the list is typed, its items do not repeat the type.
fn item(resource: &Resource, object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(fields) = item.as_object_mut().filter(|_| !resource.is_custom()) {
        fields.shift_remove("kind");
        fields.shift_remove("apiVersion");
    }
    item
}

fn include(query: &Query) -> Include {
    match query.text("includeObject") {
        "None" => Include::None,
        "Object" => Include::Object,
        _ => Include::Metadata,
    }
}

pub(crate) fn json_reply(code: u16, body: &Value) -> Response<Body> {
    json_reply_as(code, body, HeaderValue::from_static("application/json"))
}

/// 200 with a body that is JSON already.
pub(crate) fn json_text_reply(body: Bytes) -> Response<Body> {
    text_reply(200, body, HeaderValue::from_static("application/json"))
}

pub(crate) fn json_reply_as(code: u16, body: &Value, content_type: HeaderValue) -> Response<Body> {
    text_reply(code, body.to_string(), content_type)
}

fn text_reply(code: u16, body: impl Into<Body>, content_type: HeaderValue) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

pub(crate) fn error_reply(error: &ApiError) -> Response<Body> {
    let mut response = json_reply(error.code, &error.to_json());
    if let Some(seconds) =
        error.details.as_ref().map(|details| details.retry_after_seconds).filter(|&seconds| seconds > 0)
    {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &'static str) -> Result<Form, u16> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        Form::of(&headers, &Query::default()).map_err(|error| error.code)
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        let table = Ok(Form::Table(Include::Metadata));
        assert_eq!(form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), table);
        assert_eq!(form("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"), Ok(Form::Plain));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Plain));
        assert_eq!(form("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"), Ok(Form::Metadata));
        assert_eq!(form("application/vnd.kubernetes.protobuf"), Err(406));
    }
}
