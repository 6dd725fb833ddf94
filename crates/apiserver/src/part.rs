//! Parts of objects that this server knows nothing of, and that whoever runs it answers for: the log of a run, say.

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{HeaderValue, Method, Response, header};
use serde_json::Value;

use crate::handlers::Call;
use crate::status::ApiError;

/// A part that is read, as a stream of text, at `…/<plural>/<object>/<name>`.
#[derive(Clone)]
pub struct Part {
    /// The group of the resource.
    pub group: &'static str,
    /// Its plural name.
    pub plural: &'static str,
    /// The name of the part.
    pub name: &'static str,
    /// Who answers.
    pub source: Arc<dyn PartSource>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.plural, self.name, self.group)
    }
}

/// What a part is: bytes as they come. They are asked for only as fast as the client takes them.
pub type PartStream = BoxStream<'static, io::Result<Bytes>>;

/// Answers for a part.
pub trait PartSource: Send + Sync {
    /// The part of `object` that `query` asks for.
    fn open(&self, object: Value, query: PartQuery) -> BoxFuture<'static, Result<PartStream, PartRefusal>>;
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct PartQuery(pub(crate) Vec<(String, String)>);

impl PartQuery {
    /// The value of a parameter; of one given twice, the first.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there and says yes, or nothing.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| matches!(value, "true" | "True" | "1" | ""))
    }

    /// The names of the parameters that are not among `known`.
    pub fn unknown<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|(key, _)| key.as_str()).filter(|key| !known.contains(key))
    }
}

/// Why a part is not given, as a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartRefusal {
    /// The request is wrong, or cannot be answered yet: 400.
    BadRequest(String),
    /// There is no such thing (any more): 404.
    Gone(String),
    /// It cannot be had now: 503.
    Unavailable(String),
}

impl From<PartRefusal> for ApiError {
    fn from(refusal: PartRefusal) -> Self {
        match refusal {
            PartRefusal::BadRequest(message) => Self::bad_request(message),
            PartRefusal::Gone(message) => Self::new(404, "NotFound", message),
            PartRefusal::Unavailable(message) => Self::new(503, "ServiceUnavailable", message),
        }
    }
}

/// Answers a request for a part.
pub(crate) async fn serve(part: &Part, method: &Method, call: &Call) -> Result<Response<Body>, ApiError> {
    if *method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    let object = call.present(call.find()?.value());
    let place = Arc::clone(&call.app.streams).try_acquire_owned().map_err(|_| ApiError::too_many_requests())?;
    let stream = part.source.open(object, call.query.to_part()).await?;
    // What goes on for ever ends with the server.
    let stream = stream.take_until(call.app.shutdown.clone().cancelled_owned());
    let stream = stream.inspect(move |_| {
        // Given back with the stream.
        let _ = &place;
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
