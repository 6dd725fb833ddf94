//! What clients are let in with, and what the server shows them: the token and the certificates, as they are now.
//!
//! They change while the server runs. Certificates are made anew before they end, and where the clock says that they are not
//! valid. And a person may rotate them: `oncelet credentials rotate` writes new files into the state directory, the token's
//! last, and whoever serves from there looks at that file before each request. What is old is refused from then on, and its
//! connections are cut.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::Token;
use crate::tls::{self, Identity};
use crate::{Error, kubeconfig};

/// How often it is looked whether something has changed, where no request does.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How long until certificates are made again after that has failed.
const RETRY: Duration = Duration::from_mins(1);

/// The credentials of one server.
pub(crate) struct Credentials {
    /// Where they are kept; those of a test are not.
    home: Option<Home>,
    current: RwLock<Arc<Current>>,
    /// Held while they are read and replaced, with the time before which certificates are not made again.
    changing: Mutex<Option<Instant>>,
    /// Whether the kubeconfig has older ones.
    is_unpublished: AtomicBool,
}

/// Where credentials are kept, and for whom.
pub(crate) struct Home {
    pub(crate) state_dir: PathBuf,
    pub(crate) listen: IpAddr,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) url: String,
    pub(crate) extensions: Vec<(String, Value)>,
    pub(crate) now: fn() -> Timestamp,
}

/// The credentials at one moment.
pub(crate) struct Current {
    pub(crate) token: Token,
    /// Cancelled when others have taken their place because somebody rotated them.
    pub(crate) revoked: CancellationToken,
    identity: Option<Identity>,
    /// The file of the token when it was read.
    stamp: Option<Stamp>,
}

impl Current {
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(Arc::clone(&self.identity.as_ref()?.config))
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { inode: metadata.ino(), modified, length: metadata.len() })
    }
}

impl From<Token> for Credentials {
    fn from(token: Token) -> Self {
        let current = Current { token, revoked: CancellationToken::new(), identity: None, stamp: None };
        Self::new(None, current)
    }
}

impl Credentials {
    /// Reads what is kept, makes what is missing, and writes the kubeconfig.
    pub(crate) fn load(home: Home) -> Result<Self, Error> {
        let current = home.read((home.now)())?;
        home.publish(&current)?;
        Ok(Self::new(Some(home), current))
    }

    fn new(home: Option<Home>, current: Current) -> Self {
        let current = RwLock::new(Arc::new(current));
        Self { home, current, changing: Mutex::new(None), is_unpublished: AtomicBool::new(false) }
    }

    /// The credentials as they were when it was last looked.
    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The credentials as they are now.
    pub(crate) async fn fresh(self: &Arc<Self>) -> Arc<Current> {
        if self.change().is_some() {
            let this = Arc::clone(self);
            // It reads and writes files. Where it panics the old ones stay.
            let _ = tokio::task::spawn_blocking(move || this.refresh()).await;
        }
        self.current()
    }

    /// What has changed, if anything.
    fn change(&self) -> Option<Change> {
        let home = self.home.as_ref()?;
        let current = self.current();
        if Stamp::of(&home.token()) != current.stamp {
            return Some(Change::Rotated);
        }
        let good = current.identity.as_ref()?.good;
        if !good.holds((home.now)()) {
            return Some(Change::Ended);
        }
        self.is_unpublished.load(Ordering::Relaxed).then_some(Change::Unpublished)
    }

    fn refresh(&self) {
        let mut not_before = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request may have been faster.
        let (Some(home), Some(change)) = (&self.home, self.change()) else { return };
        if change != Change::Rotated && not_before.is_some_and(|moment| Instant::now() < moment) {
            return;
        }
        let now = (home.now)();
        let done = if change == Change::Unpublished { Ok(self.current()) } else { self.take(home, now) };
        let done = done.and_then(|new| {
            let published = home.publish(&new);
            self.is_unpublished.store(published.is_err(), Ordering::Relaxed);
            published.map(|()| new)
        });
        if let Err(error) = &done {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "the credentials cannot be renewed; it is tried again");
        }
        // Nor is it tried with each request where new ones are of no use by this clock, either.
        let helps = done.is_ok_and(|new| new.identity.as_ref().is_none_or(|it| it.good.holds(now)));
        *not_before = if helps { None } else { Instant::now().checked_add(RETRY) };
    }

    /// Takes what is kept, or has to be made anew, as the current ones.
    fn take(&self, home: &Home, now: Timestamp) -> Result<Arc<Current>, Error> {
        let (old, mut new) = (self.current(), home.read(now)?);
        let is_rotated = new.stamp != old.stamp;
        if !is_rotated {
            new.revoked = old.revoked.clone();
        }
        let new = Arc::new(new);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        if is_rotated {
            tracing::info!("the credentials were rotated; connections with the old ones are cut");
            old.revoked.cancel();
        }
        Ok(new)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Somebody has replaced the token, or removed it.
    Rotated,
    /// A certificate is about to end, or not valid by the clock.
    Ended,
    /// The kubeconfig could not be written.
    Unpublished,
}

impl Home {
    fn token(&self) -> PathBuf {
        self.state_dir.join(TOKEN)
    }

    fn read(&self, now: Timestamp) -> Result<Current, Error> {
        let _lock = lock(&self.state_dir)?;
        let identity = tls::identity(&self.state_dir, self.listen, now)?;
        let token = Token::kept(&self.token())?;
        let (revoked, stamp) = (CancellationToken::new(), Stamp::of(&self.token()));
        Ok(Current { token, revoked, identity: Some(identity), stamp })
    }

    fn publish(&self, current: &Current) -> Result<(), Error> {
        let Some(identity) = &current.identity else { return Ok(()) };
        kubeconfig::write(&self.kubeconfig, &self.url, &identity.pems, &current.token, &self.extensions)
    }
}

const TOKEN: &str = "token";

/// Held by whoever changes files of a state directory: several servers may share one.
fn lock(state_dir: &Path) -> Result<File, Error> {
    let path = state_dir.join("lock");
    let open = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.lock().map(|()| file)
    };
    open().map_err(|source| Error::state(&path, source))
}

/// A rotation that has taken place.
#[derive(Debug)]
pub struct Rotated {
    /// Whether the kubeconfig has the new credentials: not where it is missing, or of another API server.
    pub kubeconfig: Result<bool, Error>,
}

/// Makes a new token, a new authority and a new client certificate for the server of `state_dir`, and puts them into its
/// `kubeconfig`. A server that runs takes them at once; none has to. `None` where no server has ever run there.
pub fn rotate(state_dir: &Path, kubeconfig: &Path, now: Timestamp) -> Result<Option<Rotated>, Error> {
    let token = state_dir.join(TOKEN);
    if !token.exists() {
        return Ok(None);
    }
    let lock = lock(state_dir)?;
    let (old, pems) = tls::rotate(state_dir, now)?;
    // Last: it is what servers look at.
    let token = Token::renewed(&token)?;
    drop(lock);
    let kubeconfig = old.map_or(Ok(false), |old| kubeconfig::renew(kubeconfig, &old, &pems, &token));
    Ok(Some(Rotated { kubeconfig }))
}
