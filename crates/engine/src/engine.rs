//! The handle to one engine.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bollard::{BollardRequest, Docker};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::{
    Container, Endpoint, Error,
    endpoint::{self, Target},
    patience,
    pulse::{self, Pulse},
    remote::Tunnel,
    shared::Shared,
    starts::Starts,
    supervise::Supervisors,
    wire::{self, Allowance},
};

/// Ordinary calls.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// Calls that may have to write an image's layers or wait for another container.
pub(crate) const SLOW_CALL: Duration = Duration::from_mins(2);
/// The HTTP client's own limit, above all of ours, which are the ones that count. It covers only the time to a
/// response's head, never a stream.
const CLIENT_SECONDS: u64 = 3600;

/// A container engine. Cheap to clone; all clones share one bound on concurrent starts.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What was searched; the first that exists is taken, and kept.
    candidates: Vec<Target>,
    searched: String,
    resolved: OnceLock<Resolved>,
    product: OnceLock<Product>,
    starts: Starts,
    identity: OnceLock<String>,
    /// Questions about the engine itself: what it is, and which.
    about: Shared<Result<Info, Error>>,
    which: Shared<Result<String, Error>>,
    pulse: Pulse,
    tells_owners: OnceCell<bool>,
    inspections: Shared<Result<Option<Container>, Error>>,
    supervisors: Supervisors,
}

#[derive(Debug)]
struct Resolved {
    target: Target,
    url: String,
    /// The way to a remote engine, once it is needed.
    tunnel: OnceLock<Result<Tunnel, String>>,
}

/// What a connection is made to.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// A socket on this machine.
    Unix(PathBuf),
    /// `host:port`.
    Http(String),
}

/// Who made the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names of products")]
pub enum Product {
    Docker,
    Podman,
}

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Docker or Podman.
    pub product: Product,
    /// The product's version, such as `20.10.24`.
    pub version: String,
    /// The newest version of Docker's API that it serves, such as `1.41`.
    pub api_version: String,
}

impl Engine {
    /// A handle for each place where `endpoint` may be, best first, never empty: for those who want to know of all.
    pub fn candidates(endpoint: &Endpoint) -> Result<Vec<Self>, Error> {
        let targets = endpoint::candidates(endpoint, |name| std::env::var(name).ok())?;
        Ok(targets.into_iter().map(|target| Self::of(target.to_string(), vec![target])).collect())
    }

    /// A handle to the engine at `endpoint`. Nothing is contacted yet, and it does not matter whether an engine runs:
    /// that shows in each call, as [`Error::Unreachable`]. Fails only if the endpoint cannot be used as written.
    ///
    /// Where several places are possible, the first call that finds a socket decides for the handle's life.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let candidates = endpoint::candidates(endpoint, |name| std::env::var(name).ok())?;
        let urls: Vec<_> = candidates.iter().map(ToString::to_string).collect();
        let searched = match urls.as_slice() {
            [only] => only.clone(),
            all => format!("{endpoint} (no socket at {})", all.join(", ")),
        };
        Ok(Self::of(searched, candidates))
    }

    fn of(searched: String, candidates: Vec<Target>) -> Self {
        let inner = Inner {
            candidates,
            searched,
            resolved: OnceLock::new(),
            product: OnceLock::new(),
            starts: Starts::default(),
            identity: OnceLock::new(),
            about: Shared::default(),
            which: Shared::default(),
            pulse: Pulse::default(),
            tells_owners: OnceCell::new(),
            inspections: Shared::default(),
            supervisors: Supervisors::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether there is anything to connect to, as far as that shows without connecting: a socket on this machine, or the
    /// address of another one.
    pub fn may_be_there(&self) -> bool {
        self.inner.candidates.iter().any(Target::exists)
    }

    /// The engine's URL, for messages; where none has been found yet, what was searched.
    pub fn endpoint(&self) -> &str {
        self.resolve().map_or(&self.inner.searched, |resolved| &resolved.url)
    }

    /// Asks the engine what it is. Also the way to find out whether it can be reached.
    pub async fn info(&self) -> Result<Info, Error> {
        let version = self.call("version", CALL, |docker| async move { docker.version().await }).await?;
        let is_podman = version.components.iter().flatten().any(|component| component.name.starts_with("Podman"));
        let product = if is_podman { Product::Podman } else { Product::Docker };
        Ok(Info {
            product,
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
        })
    }

    /// The product, asked once.
    pub(crate) async fn product(&self) -> Result<Product, Error> {
        if let Some(product) = self.inner.product.get() {
            return Ok(*product);
        }
        let info = self.inner.about.ask("", || self.info()).await?;
        Ok(*self.inner.product.get_or_init(|| info.product))
    }

    /// What tells this engine from another one behind the same address: containers that it does not know are gone only if it
    /// is the one that had them. Asked once, for those who only note it.
    pub async fn identity(&self) -> Result<String, Error> {
        if let Some(identity) = self.inner.identity.get() {
            return Ok(identity.clone());
        }
        let identity = Box::pin(self.inner.which.ask("", || self.identity_now())).await?;
        Ok(self.inner.identity.get_or_init(|| identity).clone())
    }

    /// The same, asked now: another engine may have taken the address.
    pub async fn identity_now(&self) -> Result<String, Error> {
        let info = self.call("info", CALL, |docker| async move { docker.info().await }).await?;
        let text = |field: Option<String>| field.unwrap_or_default();
        Ok(match self.product().await? {
            Product::Docker => format!("docker:{}", text(info.id)),
            // Its ID is a new one in each answer.
            Product::Podman => format!("podman:{}:{}", text(info.name), text(info.docker_root_dir)),
        })
    }

    /// Whether its archives tell by their numbers in the container whose the files are. Podman's say of all that they are the
    /// container's user's, and Docker's have other numbers where it maps users itself (`userns-remap`). Asked once.
    pub(crate) async fn tells_owners(&self) -> Result<bool, Error> {
        let ask = async || {
            if self.product().await? != Product::Docker {
                return Ok(false);
            }
            let info = self.call("info", CALL, |docker| async move { docker.info().await }).await?;
            Ok(!info.security_options.iter().flatten().any(|option| option.starts_with("name=userns")))
        };
        self.inner.tells_owners.get_or_try_init(ask).await.copied()
    }

    pub(crate) fn inspections(&self) -> &Shared<Result<Option<Container>, Error>> {
        &self.inner.inspections
    }

    pub(crate) fn supervisors(&self) -> &Supervisors {
        &self.inner.supervisors
    }

    pub(crate) fn starts(&self) -> &Starts {
        &self.inner.starts
    }

    fn resolve(&self) -> Option<&Resolved> {
        if self.inner.resolved.get().is_none() {
            let target = match self.inner.candidates.as_slice() {
                // The only one need not exist yet: the call itself will say what is wrong with it.
                [only] => only,
                several => several.iter().find(|target| target.exists())?,
            };
            // Losing this race means that somebody else has resolved it.
            let _ = self.inner.resolved.set(Resolved {
                target: target.clone(),
                url: target.to_string(),
                tunnel: OnceLock::new(),
            });
        }
        self.inner.resolved.get()
    }

    /// What to connect to. Opens the way to a remote engine the first time.
    pub(crate) fn address(&self) -> Result<Address, Error> {
        let nothing = || self.unreachable(std::io::Error::from(std::io::ErrorKind::NotFound));
        let resolved = self.resolve().ok_or_else(nothing)?;
        match &resolved.target {
            Target::Unix(path) => Ok(Address::Unix(path.clone())),
            Target::Http(authority) => Ok(Address::Http(authority.clone())),
            Target::Remote(remote) => {
                let open = || Tunnel::open(remote.clone()).map_err(|error| error.to_string());
                match resolved.tunnel.get_or_init(open) {
                    Ok(tunnel) => Ok(Address::Unix(tunnel.socket())),
                    Err(error) => Err(self.unreachable(std::io::Error::other(error.clone()))),
                }
            }
        }
    }

    /// Says what is wrong with the way to a remote engine, where only its end was seen.
    fn explained(&self, error: Error) -> Error {
        let tunnel = self.inner.resolved.get().and_then(|resolved| resolved.tunnel.get()?.as_ref().ok());
        match (error, tunnel.and_then(Tunnel::trouble)) {
            (Error::Unreachable { .. }, Some(trouble)) => self.unreachable(std::io::Error::other(trouble)),
            (error, _) => error,
        }
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.inner.pulse
    }

    /// Whether the engine answers: see [`Pulse`].
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let _waits = patience::wait();
        let ask = || async {
            let answer = async {
                let asked = wire::get(self.address()?, "/_ping").await;
                asked.map_err(|error| Error::from_bollard(self.endpoint(), error))
            };
            match tokio::time::timeout(pulse::PATIENCE, answer).await {
                // Whatever it says, it answers.
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err((self.explained(error), false)),
                Err(_) => Err((self.explained(self.late(pulse::PATIENCE)), true)),
            }
        };
        Box::pin(self.pulse().check(ask)).await
    }

    /// A client for one request. It keeps no connections between requests, so nothing is lost by making it anew. `allowance` bounds
    /// what the engine answers.
    pub(crate) fn client(&self, allowance: &Allowance) -> Result<Docker, Error> {
        let (address, allowance) = (self.address()?, allowance.clone());
        let transport = move |request: BollardRequest| wire::exchange(address.clone(), allowance.clone(), request);
        let version = bollard::API_DEFAULT_VERSION;
        Docker::connect_with_custom_transport(transport, Some("http://localhost"), CLIENT_SECONDS, version)
            .map_err(|error| Error::from_bollard(self.endpoint(), error))
    }

    /// Makes one request, with an end. `operation` is what metrics call it.
    pub(crate) async fn call<T, F>(
        &self,
        operation: &'static str,
        limit: Duration,
        request: impl FnOnce(Docker) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        self.ready().await?;
        // What takes longer is bounded elsewhere, and must not be in the way of what does not.
        let _turn = if limit <= CALL { self.pulse().turn().await } else { None };
        let answer = request(self.client(&Allowance::of_an_answer())?);
        self.within(operation, limit, async {
            answer.await.map_err(|error| Error::from_bollard(self.endpoint(), error))
        })
        .await
    }

    pub(crate) async fn within<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let waits = patience::wait();
        let answer = tokio::time::timeout(limit, Box::pin(work)).await.unwrap_or_else(|_| {
            self.pulse().doubt();
            Err(self.late(limit))
        });
        drop(waits);
        if let Ok(_) | Err(Error::NotFound { .. } | Error::Rejected { .. }) = &answer {
            self.pulse().answered();
        }
        let result = match &answer {
            // What is not there, or not as it would have to be, is an answer, too.
            Ok(_) | Err(Error::NotFound { .. } | Error::Rejected { status: 304 | 404 | 409, .. }) => "success",
            Err(_) => "error",
        };
        let took = metrics::histogram!("oncelet_engine_request_duration_seconds", "operation" => operation, "result" => result);
        took.record(begun.elapsed());
        answer.map_err(|error| self.explained(error))
    }

    pub(crate) fn late(&self, limit: Duration) -> Error {
        let text = format!("no answer within {} seconds", limit.as_secs());
        self.unreachable(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
    }

    pub(crate) fn unreachable(&self, source: std::io::Error) -> Error {
        Error::unreachable(self.endpoint(), source)
    }
}
