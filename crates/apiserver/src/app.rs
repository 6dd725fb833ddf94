//! One request: admitted, routed, answered.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::body::Body;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::advice::Advice;
use crate::auth::Certified;
use crate::builtin::DEFINITIONS;
use crate::connections::{self, Visitor};
use crate::credentials::Credentials;
use crate::handlers::{self, Call, Subresource};
use crate::negotiate::{error_reply, json_reply};
use crate::part::{self, Part};
use crate::registry::Registry;
use crate::route::{Query, Route, Target};
use crate::status::ApiError;
use crate::storage::{Key, NotKept, Store};
use crate::{body, discovery, openapi};

/// What every request shares.
pub(crate) struct App {
    pub(crate) store: Store,
    registry: RwLock<Arc<Registry>>,
    /// Held while the registry is read from the store and put in place, so that an older state never wins.
    rebuilding: Mutex<()>,
    pub(crate) credentials: Arc<Credentials>,
    /// What somebody else answers for.
    parts: Vec<Part>,
    /// What somebody else says of objects.
    pub(crate) advice: Vec<Advice>,
    clock: fn() -> Timestamp,
    /// A place for each request that is being answered; streams that last give theirs back.
    in_flight: Semaphore,
    /// A place for each large body that is in memory.
    large: Arc<Semaphore>,
    /// A turn for each large body or object that is worked on.
    turns: Arc<Semaphore>,
    /// A place for each stream of a part.
    pub(crate) streams: Arc<Semaphore>,
    /// Ends open watches.
    pub(crate) shutdown: CancellationToken,
}

/// As many as a kube-apiserver answers at a time, by default.
const IN_FLIGHT: usize = 400;
const LARGE_BODIES: usize = 32;
const TURNS: usize = 2;
/// Each has files open.
const STREAMS: u64 = 256;

impl App {
    pub(crate) fn new(
        store: Store,
        credentials: impl Into<Credentials>,
        parts: Vec<Part>,
        advice: Vec<Advice>,
        clock: fn() -> Timestamp,
        shutdown: CancellationToken,
    ) -> Self {
        let app = Self {
            store,
            registry: RwLock::new(Arc::new(Registry::default())),
            rebuilding: Mutex::new(()),
            credentials: Arc::new(credentials.into()),
            parts,
            advice,
            clock,
            in_flight: Semaphore::new(IN_FLIGHT),
            large: Arc::new(Semaphore::new(LARGE_BODIES)),
            turns: Arc::new(Semaphore::new(TURNS)),
            streams: Arc::new(Semaphore::new(connections::share(STREAMS, 32))),
            shutdown,
        };
        app.reload_definitions();
        app
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves what the stored definitions say. Called after every change to one of them.
    pub(crate) fn reload_definitions(&self) {
        let _one_at_a_time = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let definitions = self.store.list(DEFINITIONS, None);
        let live: Vec<_> = definitions.objects.iter().map(|stored| stored.value()).collect();
        let registry = Arc::new(Registry::new(live.iter(), &self.parts));
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    /// Stores an object as the server itself, at startup. One that was kept is brought up to date.
    pub(crate) fn seed(&self, group: &str, version: &str, plural: &str, object: Value) -> Result<(), ApiError> {
        let resource = self.registry().find(group, version, plural).cloned().ok_or_else(ApiError::no_such_path)?;
        let key = Key::new("", crate::meta::name(&object));
        let Some(kept) = self.store.get(&resource.table, &key) else {
            let mut object = crate::lifecycle::seed(&resource, object, None, self.now())?;
            let created = self.store.create(&resource.table, key.clone(), &mut object, None);
            return created.map(drop).map_err(|_| ApiError::already_exists(resource.subject(), &key.name));
        };
        let old = kept.value();
        let mut object = crate::lifecycle::seed(&resource, object, Some(&old), self.now())?;
        if object != old {
            let replaced = self.store.replace(&resource.table, &kept, &mut object);
            replaced.map_err(|_| ApiError::modified_since(resource.subject(), &key.name))?;
        }
        Ok(())
    }

    pub(crate) async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        // A defect of the server costs the request that met it, and neither the connection nor the others on it.
        let answered = AssertUnwindSafe(self.answer(request)).catch_unwind().await;
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error_reply(&error),
            Err(_) => {
                tracing::error!(%method, path, "the request met a defect of the server: please report it");
                error_reply(&ApiError::new(
                    500,
                    "InternalError",
                    "the server has a defect, which its log shows".to_owned(),
                ))
            }
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-cache, private"));
        response
    }

    async fn answer(self: &Arc<Self>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let route = Route::parse(request.uri().path());
        if route == Route::Health {
            return Ok(healthy());
        }
        let credentials = self.credentials.fresh().await;
        let certified = request.extensions().get::<Certified>().is_some_and(Certified::is_good);
        if !certified && !credentials.token.admits(request.headers()) {
            return Err(ApiError::unauthorized());
        }
        if let Some(visitor) = request.extensions().get::<Visitor>() {
            visitor.admit();
        }
        // Held until the answer begins: what a watch sends later waits for its client, not for the server.
        let _place = self.in_flight.try_acquire().map_err(|_| ApiError::too_many_requests())?;
        let registry = self.registry();
        let target = match route {
            Route::Object(target) => target,
            // Documents are only read.
            _ if request.method() != Method::GET => return Err(ApiError::method_not_allowed()),
            Route::Health => return Ok(healthy()),
            Route::Version => return Ok(json_reply(200, &discovery::version())),
            Route::LegacyVersions => return Ok(discovery::legacy_versions(&registry, request.headers())),
            Route::Groups => return Ok(discovery::groups(&registry, request.headers())),
            Route::Group(group) => return discovery::group(&registry, &group),
            Route::Resources { group, version } => return discovery::resources(&registry, &group, &version),
            Route::OpenApiV3 => return Ok(json_reply(200, &openapi::index(&registry))),
            Route::OpenApiV3Of { group, version } => {
                return openapi::document(&registry, &group, &version).map(|document| json_reply(200, &document));
            }
            Route::OpenApiV2 => return openapi::v2::document(request.headers()),
            Route::Unknown => return Err(ApiError::no_such_path()),
        };
        let (parts, body) = request.into_parts();
        let query = Query::parse(&parts.uri);
        let part = self.part(&target).cloned();
        let call = self.call(&registry, target, query, parts.headers)?;
        if let Some(part) = part {
            return part::serve(&part, &parts.method, &call).await;
        }
        let (body, _place) = match parts.method {
            Method::GET => (bytes::Bytes::new(), None),
            _ => body::read(body, &self.large).await?,
        };
        let answer = if body.len().max(call.weight()) > body::LARGE {
            self.dispatch_apart(parts.method, call, body).await
        } else {
            handlers::dispatch(&parts.method, call, &body)
        };
        // Nobody is told what a crash could take back, a refusal included.
        self.store.settled().await.map_err(|NotKept { why }| {
            let message = format!("the objects cannot be written to disk ({why}); what was asked for may still happen");
            ApiError::new(504, "Timeout", message)
        })?;
        answer
    }

    /// What takes long is done where nobody else waits, and only a few at a time: trees of large objects are larger still.
    async fn dispatch_apart(
        self: &Arc<Self>,
        method: Method,
        call: Call,
        body: bytes::Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // Given back with the end of the work, also where nobody waits for it any more.
            let _turn = turn;
            handlers::dispatch(&method, call, &body)
        });
        done.await.unwrap_or_else(|failed| match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(failed) => Err(ApiError::internal(failed.to_string())),
        })
    }

    /// The part that a URL names, where somebody answers for it.
    fn part(&self, target: &Target) -> Option<&Part> {
        let name = target.subresource.as_deref()?;
        let wanted = |part: &&Part| part.group == target.group && part.plural == target.plural && part.name == name;
        self.parts.iter().find(wanted)
    }

    fn call(
        self: &Arc<Self>,
        registry: &Registry,
        target: Target,
        query: Query,
        headers: HeaderMap,
    ) -> Result<Call, ApiError> {
        let found = registry.find(&target.group, &target.version, &target.plural);
        let resource = found.cloned().ok_or_else(ApiError::no_such_path)?;
        if target.namespace.is_some() && !resource.namespaced {
            return Err(ApiError::no_such_path());
        }
        let subresource = match target.subresource.as_deref() {
            None => Subresource::Object,
            Some("status") if resource.has_status => Subresource::Status,
            Some("scale") if resource.scale.is_some() => Subresource::Scale,
            Some(_) if self.part(&target).is_some() => Subresource::Object,
            Some(_) => return Err(ApiError::no_such_path()),
        };
        Ok(Call::new(Arc::clone(self), resource, target, subresource, query, headers))
    }
}

fn healthy() -> Response<Body> {
    let mut response = Response::new(Body::from("ok"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The `Namespace` that is always there.
pub(crate) fn default_namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Token;

    #[tokio::test]
    async fn more_requests_than_there_are_places_for_are_put_off() {
        let token = Token::new("secret".to_owned());
        let clock = || Timestamp::UNIX_EPOCH;
        let app = Arc::new(App::new(Store::new(1), token, Vec::new(), Vec::new(), clock, CancellationToken::new()));
        let ask = |path: &'static str| {
            let request = Request::get(path).header(header::AUTHORIZATION, "Bearer secret").body(Body::empty());
            Arc::clone(&app).handle(request.unwrap())
        };
        assert_eq!(ask("/version").await.status(), 200);
        let places = app.in_flight.acquire_many(u32::try_from(IN_FLIGHT).unwrap()).await.unwrap();
        let refused = ask("/version").await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(ask("/livez").await.status(), 200, "whether it lives is always told");
        drop(places);
        assert_eq!(ask("/version").await.status(), 200);
    }
}
