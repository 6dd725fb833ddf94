//! The engines of one daemon: the one that it was started with, and those that objects name.

use std::collections::{BTreeSet, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use oncelet_core::RunRecord;
use oncelet_engine::{Endpoint, Engine, Error};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What session containers are made for, so that they can go with it.
#[derive(Clone, Debug)]
pub struct Session {
    /// What tells it from others.
    pub id: String,
    /// The file where engines are noted, a line each, before anything is made in them for the session. The engine that the
    /// daemon was started with is not among them.
    pub engines: PathBuf,
}

/// How many engines beside the daemon's own are known at once. Each costs connections, and a tunnel where it is remote.
const MOST: usize = 64;
/// How long an engine that nothing names any more is kept.
const GRACE: Duration = Duration::from_secs(30);

/// An engine, and what ends when nothing names it any more.
pub(crate) type Announced = (Engine, CancellationToken);

/// All engines, by what objects call them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engines(Arc<Inner>);

struct Inner {
    default: Engine,
    named: Mutex<Vec<Named>>,
    /// Who hears of each engine, once.
    listeners: Vec<UnboundedSender<Announced>>,
    session: Option<Session>,
}

/// An engine that objects name.
struct Named {
    engine: Engine,
    /// What they call it.
    names: BTreeSet<String>,
    /// When it was asked for last.
    used: Instant,
    retired: CancellationToken,
}

impl Engines {
    pub(crate) fn new(default: Engine, session: Option<Session>, listeners: Vec<UnboundedSender<Announced>>) -> Self {
        let engines = Self(Arc::new(Inner { default, named: Mutex::default(), listeners, session }));
        engines.announce(&engines.0.default, &CancellationToken::new());
        engines
    }

    fn announce(&self, engine: &Engine, retired: &CancellationToken) {
        for listener in &self.0.listeners {
            // A listener is gone only when the controller ends.
            let _ = listener.send((engine.clone(), retired.clone()));
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Named>> {
        self.0.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ID of the session that session containers are made for.
    pub(crate) fn session(&self) -> Option<&str> {
        self.0.session.as_ref().map(|session| session.id.as_str())
    }

    /// The engine of this name, or the one that the daemon was started with.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], also where too many engines are named; whether the engine answers shows only when it is used.
    pub(crate) fn named(&self, name: Option<&str>) -> Result<Engine, Error> {
        let Some(name) = name else { return Ok(self.0.default.clone()) };
        let mut known = self.known();
        if let Some(found) = known.iter_mut().find(|known| known.names.contains(name)) {
            found.used = Instant::now();
            return Ok(found.engine.clone());
        }
        let engine = Engine::connect(&name.parse::<Endpoint>()?)?;
        // One handle for each engine: it bounds how much is asked of it at once.
        if self.0.default.endpoint() == engine.endpoint() {
            return Ok(self.0.default.clone());
        }
        if let Some(found) = known.iter_mut().find(|known| known.engine.endpoint() == engine.endpoint()) {
            found.names.insert(name.to_owned());
            found.used = Instant::now();
            return Ok(found.engine.clone());
        }
        if known.len() >= MOST {
            let reason = format!("{MOST} other engines are named already; one is free again when no object names it");
            return Err(Error::InvalidEndpoint { endpoint: name.to_owned(), reason });
        }
        let retired = CancellationToken::new();
        self.note(name);
        self.announce(&engine, &retired);
        let names = BTreeSet::from([name.to_owned()]);
        known.push(Named { engine: engine.clone(), names, used: Instant::now(), retired });
        Ok(engine)
    }

    /// Lets go of the engines that neither an object nor an open run names any more, with their streams, tunnels and processes, after
    /// a while; at once where there are many. `names` has what is named.
    pub(crate) fn retire(&self, names: &HashSet<String>) {
        let mut known = self.known();
        let grace = if known.len() > MOST / 2 { Duration::ZERO } else { GRACE };
        known.retain(|engine| {
            let is_named =
                engine.names.iter().any(|name| names.contains(name)) || names.contains(engine.engine.endpoint());
            let stays = is_named || engine.used.elapsed() < grace;
            if !stays {
                tracing::debug!("nothing names the engine {} any more", engine.engine.endpoint());
                engine.retired.cancel();
            }
            stays
        });
    }

    /// Every engine, the daemon's own first.
    pub(crate) fn all(&self) -> Vec<Engine> {
        let named = self.known();
        std::iter::once(&self.0.default).chain(named.iter().map(|named| &named.engine)).cloned().collect()
    }

    /// The engine that `record`'s container is in. `None` where none of those that answer is known to be it: another one does
    /// not know the container, and would have the run taken for one whose container is gone.
    pub(crate) async fn of_record(&self, record: &RunRecord) -> Result<Option<Engine>, Error> {
        let Some(id) = &record.engine_id else { return Ok(Some(self.0.default.clone())) };
        // The one at the recorded address first: mostly it is it, and then no other one need answer.
        let recorded = self.named(Some(&record.engine)).ok();
        let is_it = async |engine: &Engine| Ok::<_, Error>(engine.identity().await? == *id);
        let mut silent = None;
        if let Some(engine) = recorded {
            match is_it(&engine).await {
                Ok(true) => return Ok(Some(engine)),
                Ok(false) => {}
                Err(error) => silent = Some(error),
            }
        }
        let all = self.all();
        for (engine, is_it) in all.iter().zip(join_all(all.iter().map(is_it)).await) {
            match is_it {
                Ok(true) => return Ok(Some(engine.clone())),
                Ok(false) => {}
                Err(error) => silent = silent.or(Some(error)),
            }
        }
        let found =
            all.iter().map(async |engine| engine.container(&record.container_id).await.is_ok_and(|it| it.is_some()));
        for (engine, is_there) in all.iter().zip(join_all(found).await) {
            // One that has got another identity and still has its containers.
            if is_there {
                return Ok(Some(engine.clone()));
            }
        }
        silent.map_or(Ok(None), Err)
    }

    /// Remembers, for whoever clears up after this process, that the session may have containers there.
    fn note(&self, name: &str) {
        let Some(session) = &self.0.session else { return };
        if std::fs::read_to_string(&session.engines).is_ok_and(|noted| noted.lines().any(|line| line == name)) {
            return;
        }
        let written =
            OpenOptions::new().append(true).open(&session.engines).and_then(|mut file| writeln!(file, "{name}"));
        if let Err(error) = written {
            tracing::warn!(%error, "the engine {name} was not noted; session containers in it may be left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(number: usize) -> String {
        format!("unix:///nonexistent/{number}.sock")
    }

    fn engines() -> (Engines, tokio::sync::mpsc::UnboundedReceiver<Announced>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let default = Engine::connect(&"unix:///nonexistent/engine.sock".parse().unwrap()).unwrap();
        (Engines::new(default, None, vec![sender]), receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_nothing_names_any_more_is_let_go_after_a_while() {
        let (engines, mut announced) = engines();
        let (_, default) = announced.recv().await.unwrap();
        engines.named(Some(&url(1))).unwrap();
        engines.named(Some(&url(2))).unwrap();
        let (_, first) = announced.recv().await.unwrap();
        let (_, second) = announced.recv().await.unwrap();
        let named = HashSet::from([url(2)]);
        engines.retire(&named);
        assert_eq!(engines.all().len(), 3, "whoever comes back soon finds it");
        tokio::time::advance(GRACE).await;
        engines.retire(&named);
        assert_eq!(engines.all().len(), 2);
        assert_eq!((default.is_cancelled(), first.is_cancelled(), second.is_cancelled()), (false, true, false));
        // And is found anew.
        engines.named(Some(&url(1))).unwrap();
        assert!(announced.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cycles_through_engines_holds_a_bounded_number_of_them() {
        let (engines, _announced) = engines();
        for number in 0..MOST {
            engines.named(Some(&url(number))).unwrap();
        }
        let error = engines.named(Some(&url(MOST))).unwrap_err().to_string();
        assert!(error.contains("64 other engines"), "{error}");
        engines.named(Some(&url(0))).unwrap();
        // Where there are so many, nobody waits.
        engines.retire(&HashSet::from([url(0)]));
        assert_eq!(engines.all().len(), 2);
        engines.named(Some(&url(MOST))).unwrap();
    }
}
