//! The engines of one daemon: the one that it was started with, and those that objects name.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use oncelet_core::RunRecord;
use oncelet_engine::{Endpoint, Engine, Error};
use tokio::sync::mpsc::UnboundedSender;

/// What session containers are made for, so that they can go with it.
#[derive(Clone, Debug)]
pub struct Session {
    /// What tells it from others.
    pub id: String,
    /// The file where engines are noted, a line each, before anything is made in them for the session. The engine that the
    /// daemon was started with is not among them.
    pub engines: PathBuf,
}

/// All engines, by what objects call them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engines(Arc<Inner>);

struct Inner {
    default: Engine,
    named: Mutex<BTreeMap<String, Engine>>,
    /// Who hears of each engine, once.
    listeners: Vec<UnboundedSender<Engine>>,
    session: Option<Session>,
}

impl Engines {
    pub(crate) fn new(default: Engine, session: Option<Session>, listeners: Vec<UnboundedSender<Engine>>) -> Self {
        let engines = Self(Arc::new(Inner { default, named: Mutex::default(), listeners, session }));
        engines.announce(&engines.0.default);
        engines
    }

    fn announce(&self, engine: &Engine) {
        for listener in &self.0.listeners {
            // A listener is gone only when the controller ends.
            let _ = listener.send(engine.clone());
        }
    }

    /// The ID of the session that session containers are made for.
    pub(crate) fn session(&self) -> Option<&str> {
        self.0.session.as_ref().map(|session| session.id.as_str())
    }

    /// The engine of this name, or the one that the daemon was started with.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`]; whether the engine answers shows only when it is used.
    pub(crate) fn named(&self, name: Option<&str>) -> Result<Engine, Error> {
        let Some(name) = name else { return Ok(self.0.default.clone()) };
        let mut named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = named.get(name) {
            return Ok(engine.clone());
        }
        let engine = Engine::connect(&name.parse::<Endpoint>()?)?;
        // One handle for each engine: it bounds how much is asked of it at once.
        let mut known = std::iter::once(&self.0.default).chain(named.values());
        let engine = known.find(|known| known.endpoint() == engine.endpoint()).cloned().unwrap_or_else(|| {
            self.note(name);
            self.announce(&engine);
            engine
        });
        named.insert(name.to_owned(), engine.clone());
        Ok(engine)
    }

    /// Every engine, the daemon's own first.
    pub(crate) fn all(&self) -> Vec<Engine> {
        let named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = vec![self.0.default.clone()];
        for engine in named.values() {
            if all.iter().all(|known| known.endpoint() != engine.endpoint()) {
                all.push(engine.clone());
            }
        }
        all
    }

    /// The engine that `record`'s container is in. `None` where none of those that answer is known to be it: another one does
    /// not know the container, and would have the run taken for one whose container is gone.
    pub(crate) async fn of_record(&self, record: &RunRecord) -> Result<Option<Engine>, Error> {
        let Some(id) = &record.engine_id else { return Ok(Some(self.0.default.clone())) };
        let mut silent = None;
        // The one at the recorded address is connected to only where no other is it.
        let recorded = std::iter::once_with(|| self.named(Some(&record.engine)).ok()).flatten();
        for engine in self.all().into_iter().chain(recorded) {
            match engine.identity().await {
                Ok(identity) if identity == *id => return Ok(Some(engine)),
                Ok(_) => {}
                Err(error) => silent = silent.or(Some(error)),
            }
        }
        for engine in self.all() {
            // One that has got another identity and still has its containers.
            if let Ok(Some(_)) = engine.container(&record.container_id).await {
                return Ok(Some(engine));
            }
        }
        silent.map_or(Ok(None), Err)
    }

    /// Remembers, for whoever clears up after this process, that the session may have containers there.
    fn note(&self, name: &str) {
        let Some(session) = &self.0.session else { return };
        let written =
            OpenOptions::new().append(true).open(&session.engines).and_then(|mut file| writeln!(file, "{name}"));
        if let Err(error) = written {
            tracing::warn!(%error, "the engine {name} was not noted; session containers in it may be left behind");
        }
    }
}
