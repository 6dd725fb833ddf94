//! The page: execs and containers live, what ran in them, and what it wrote.
//!
//! It is served in plain HTTP, and so on this machine alone. Its files hold nothing; all data is under `/data`, for whoever
//! has the token. The token comes to the browser in the part of the address that is never sent (`#token=…`), and goes back in
//! the `Authorization` header, so that no other site can ask in its name. It is good for this page alone and ends with the
//! daemon: an open tab goes on sending it to whoever listens at the port later.
//!
//! | request | answer |
//! |---|---|
//! | `GET /proof?of=CHALLENGE` | without the token: that the daemon has it, see [`door`] |
//! | `GET /data/feed` | the objects and their changes, a JSON object a line, see [`feed`] |
//! | `GET /data/execs/NS/NAME`, `…/containers/NS/NAME` | everything that there is to say about one, see [`story`] |
//! | `GET /data/runs/RUN/log` | what it wrote and writes, a JSON object a line, see [`log`] |
//! | `POST /data/execs/NS/NAME/rerun`, `…/stop` | asks for it, as the commands and `spec.stop` do |
//! | `POST /data/runs/RUN/forget` | as `oncelet runs forget` |

mod browser;
mod door;
mod feed;
mod log;
mod story;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{self, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::Stream;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use oncelet_api::ContainerExec;
use oncelet_apiserver::{Token, Visitor, serve_plain};
use oncelet_core::RunId;
use oncelet_engine::Engine;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ask;
use crate::paths::Paths;
use crate::runs::decide;

pub(crate) use door::{Door, print_address};

/// Where the page is served, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageAddress {
    /// Nowhere.
    Off,
    /// At this address of this machine.
    At(SocketAddr),
}

impl FromStr for PageAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: SocketAddr =
            text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:7644, or off".to_owned())?;
        if !address.ip().is_loopback() {
            return Err(
                "the page is for this machine alone: take 127.0.0.1 or [::1], and from elsewhere ssh -L".to_owned()
            );
        }
        Ok(Self::At(address))
    }
}

/// What the page shows.
struct Page {
    client: Client,
    /// Those whose objects it shows; without any, all.
    namespaces: Vec<String>,
    store_dir: PathBuf,
    engine: Engine,
    token: Token,
    shutdown: CancellationToken,
}

type Shared = State<Arc<Page>>;

/// Serves the page until the end. What is returned leads to it, until it is dropped.
pub(crate) async fn serve(
    address: SocketAddr,
    client: Client,
    namespaces: Vec<String>,
    engine: Engine,
    paths: &Paths,
    shutdown: CancellationToken,
) -> Result<Door> {
    let cannot =
        || format!("the page cannot be served at {address}; choose another address with --page, or --page off");
    let listener = TcpListener::bind(address).await.with_context(cannot)?;
    let token = Token::fresh()?;
    let door = Door::open(paths, &format!("http://{}/", listener.local_addr()?), &token)?;
    let page = Page { client, namespaces, store_dir: paths.store(), engine, token, shutdown: shutdown.clone() };
    tokio::spawn(serve_plain(listener, router(Arc::new(page)), shutdown));
    Ok(door)
}

fn router(page: Arc<Page>) -> Router {
    let data = Router::new()
        .route("/feed", get(feed::feed))
        .route("/execs/{namespace}/{name}", get(story::exec))
        .route("/execs/{namespace}/{name}/rerun", post(rerun))
        .route("/execs/{namespace}/{name}/stop", post(stop))
        .route("/containers/{namespace}/{name}", get(story::container))
        .route("/runs/{run}/log", get(log::log))
        .route("/runs/{run}/forget", post(forget))
        .layer(middleware::from_fn_with_state(page.clone(), only_with_token));
    Router::new()
        .nest("/data", data)
        .route("/proof", get(door::prove))
        .fallback(get(file))
        .layer(middleware::from_fn(on_this_machine))
        .with_state(page)
}

/// The files of the page.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("page/assets/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/assets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/assets/icon.svg")),
    ("/main.js", "text/javascript; charset=utf-8", include_str!("page/assets/main.js")),
    ("/data.js", "text/javascript; charset=utf-8", include_str!("page/assets/data.js")),
    ("/detail.js", "text/javascript; charset=utf-8", include_str!("page/assets/detail.js")),
    ("/log.js", "text/javascript; charset=utf-8", include_str!("page/assets/log.js")),
    ("/parts.js", "text/javascript; charset=utf-8", include_str!("page/assets/parts.js")),
];

async fn file(uri: Uri) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(path, ..)| *path == uri.path()) else {
        return Refusal::new(StatusCode::NOT_FOUND, "there is no such page").into_response();
    };
    ([(header::CONTENT_TYPE, *kind)], *text).into_response()
}

/// Another site's name that leads to this machine (DNS rebinding) is not served, and nothing is taken from elsewhere.
async fn on_this_machine(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_this_machine(host) {
        return Refusal::new(StatusCode::MISDIRECTED_REQUEST, "the page is at 127.0.0.1 or localhost").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

const DEAD_TOKEN: &str = "This is not the token of the oncelet that runs now: each start has a new one. Open the page again \
                          with the command oncelet page --open, or paste here what oncelet page prints.";

async fn only_with_token(State(page): Shared, headers: HeaderMap, request: Request, next: Next) -> Response {
    if page.token.admits(&headers) {
        if let Some(visitor) = request.extensions().get::<Visitor>() {
            visitor.admit();
        }
        return next.run(request).await;
    }
    Refusal::new(StatusCode::UNAUTHORIZED, DEAD_TOKEN).into_response()
}

/// Why something is not done, as the page shows it.
struct Refusal {
    code: StatusCode,
    message: String,
}

impl Refusal {
    fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, Json(json!({"message": self.message}))).into_response()
    }
}

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        let error = error.into();
        let code = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => StatusCode::from_u16(status.code).ok(),
            _ => None,
        };
        Self::new(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), crate::output::one_line(&error))
    }
}

type Answer<T> = Result<T, Refusal>;

/// Lines of JSON, as they come, until the daemon ends.
fn lines(stream: impl Stream<Item = Value> + Send + 'static, page: &Page) -> Response {
    use futures::StreamExt;
    let bytes = stream
        .map(|value| Ok::<_, std::convert::Infallible>(Bytes::from(format!("{value}\n"))))
        .take_until(page.shutdown.clone().cancelled_owned());
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(bytes)).into_response()
}

type Named = extract::Path<(String, String)>;

impl Page {
    fn execs(&self, namespace: &str) -> Api<ContainerExec> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

async fn rerun(State(page): Shared, extract::Path((namespace, name)): Named) -> Answer<StatusCode> {
    ask::rerun(&page.execs(&namespace), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop(State(page): Shared, extract::Path((namespace, name)): Named) -> Answer<StatusCode> {
    let patch = Patch::Merge(json!({"spec": {"stop": true}}));
    page.execs(&namespace).patch(&name, &PatchParams::default(), &patch).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forget(State(page): Shared, extract::Path(run): extract::Path<i64>) -> Answer<StatusCode> {
    decide::forget_run(&page.store_dir, &page.engine, &RunId(run).to_string()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_served_to_this_machine_alone() {
        for text in ["127.0.0.1:0", "[::1]:7644", "off"] {
            text.parse::<PageAddress>().unwrap();
        }
        for text in ["0.0.0.0:7644", "192.168.0.1:1", "7644", ""] {
            text.parse::<PageAddress>().unwrap_err();
        }
    }

    #[test]
    fn another_sites_name_for_this_machine_is_not_served() {
        for host in ["127.0.0.1:7644", "localhost:1", "LOCALHOST", "[::1]:7644", "127.0.0.1"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["", "example.com", "127.0.0.1.example.com:7644", "localhost.example.com", "10.0.0.1:7644"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
