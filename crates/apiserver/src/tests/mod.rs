//! The whole server, without its listener: random sequences of requests beside a model, and requests that make no sense.

mod model;
mod noise;

use std::sync::Arc;

use axum::body::Body;
use futures::StreamExt;
use http::{Request, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::app::{App, default_namespace};
use crate::auth::Token;
use crate::storage::Store;

/// Where the versions of every server here begin.
const FIRST: u64 = 1000;
const WIDGETS: &str = "/apis/example.dev/v1/namespaces/default/widgets";

/// A server that is asked directly.
struct Server {
    app: Arc<App>,
    runtime: Runtime,
}

/// An answer, with its body as JSON where it is some.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: Value,
}

impl Server {
    fn start() -> Self {
        let clock = || Timestamp::UNIX_EPOCH;
        let store = Store::new(FIRST);
        let app =
            App::new(store, Token::new("secret".to_owned()), Vec::new(), Vec::new(), clock, CancellationToken::new());
        app.seed("", "v1", "namespaces", default_namespace()).unwrap();
        let widgets: Value = serde_saphyr::from_str(include_str!("../../tests/common/widgets.yaml")).unwrap();
        app.seed("apiextensions.k8s.io", "v1", "customresourcedefinitions", widgets).unwrap();
        app.reload_definitions();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { app: Arc::new(app), runtime }
    }

    fn send(&self, request: http::request::Builder, body: impl Into<Body>) -> Reply {
        let request = request.header(header::AUTHORIZATION, "Bearer secret").body(body.into()).unwrap();
        self.runtime.block_on(async {
            let response = Arc::clone(&self.app).handle(request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Reply { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
        })
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media_type);
        self.send(request, if body.is_null() { String::new() } else { body.to_string() })
    }

    /// The next `count` events of a watch.
    fn watch(&self, path: &str, count: usize) -> Vec<Value> {
        let request = Request::get(path).header(header::AUTHORIZATION, "Bearer secret").body(Body::empty()).unwrap();
        self.runtime.block_on(async {
            let response = Arc::clone(&self.app).handle(request).await;
            let events = response.into_body().into_data_stream().take(count);
            events.map(|line| serde_json::from_slice(&line.unwrap()).unwrap()).collect().await
        })
    }
}

fn widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}
