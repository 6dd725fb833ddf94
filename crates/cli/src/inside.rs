//! The daemon's own client of the API server that it hosts.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::Request;
use kube::Client;
use kube::client::retry::RetryPolicy;
use oncelet_apiserver::Server;
use tower::retry::RetryLayer;
use tower::{BoxError, Layer, ServiceExt};

/// A client within this process. It needs no connection, which somebody else could use up, and no credentials, which end or are
/// rotated.
pub(crate) fn client(server: &Server) -> Client {
    let inside = server.inside();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = inside.clone().handle(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // As a client over a connection does.
    let retrying = RetryLayer::new(RetryPolicy::server_retry()).layer(service.map_err(BoxError::from));
    Client::new(retrying, "default")
}
