//! Who is connected to one listener, and how far each of them is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{HEADERS, IDLE, STRANGER};

/// The places of one listener, and who of those who took one has not been admitted.
pub(super) struct Door {
    places: Arc<Semaphore>,
    /// In the order in which they came.
    strangers: Mutex<BTreeMap<u64, CancellationToken>>,
}

impl Door {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), strangers: Mutex::default() })
    }

    /// A place for one more. Where there is none, the stranger who came first has to leave.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let first = self.strangers().pop_first();
        if let Some((_, leave)) = first {
            tracing::debug!("all places of a listener are taken; a client without a credential is sent away");
            leave.cancel();
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn strangers(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, as its requests know it: they carry it in their extensions.
#[derive(Clone)]
pub struct Visitor(pub(super) Arc<Visit>);

impl Visitor {
    /// The client has shown a credential: it keeps its place whoever else comes, and takes its time.
    pub fn admit(&self) {
        self.0.admit();
    }
}

pub(super) struct Visit {
    door: Arc<Door>,
    number: u64,
    /// Cancelled where the place is needed for somebody else.
    pub(super) leave: CancellationToken,
    progress: Mutex<Progress>,
}

/// How far a connection is.
struct Progress {
    known: bool,
    requests: usize,
    phase: Phase,
    since: Instant,
}

/// What is waited for while there is no request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first request.
    First,
    /// Another one.
    Idle,
    /// The rest of its headers.
    Headers,
}

impl Visit {
    pub(super) fn begin(door: &Arc<Door>, number: u64) -> Arc<Self> {
        let leave = CancellationToken::new();
        door.strangers().insert(number, leave.clone());
        let progress = Progress { known: false, requests: 0, phase: Phase::First, since: Instant::now() };
        Arc::new(Self { door: Arc::clone(door), number, leave, progress: Mutex::new(progress) })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admit(&self) {
        if !std::mem::replace(&mut self.progress().known, true) {
            self.end();
        }
    }

    /// Is no stranger, or not any more.
    pub(super) fn end(&self) {
        self.door.strangers().remove(&self.number);
    }

    /// The handshake is over.
    pub(super) fn greeted(&self) {
        self.progress().since = Instant::now();
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        let mut progress = self.progress();
        if progress.requests == 0 && progress.phase == Phase::Idle {
            progress.phase = Phase::Headers;
            progress.since = Instant::now();
        }
    }

    /// What becomes of the connection, where its deadline is past.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        self.deadline().filter(|(left, _)| left.is_zero()).map(|(_, overdue)| overdue)
    }

    /// When to look again. No deadline that begins later is shorter.
    pub(super) fn next_look(&self) -> Duration {
        self.deadline().map_or(HEADERS, |(left, _)| left.min(HEADERS))
    }

    /// How long it may go on like this, and what becomes of it then.
    fn deadline(&self) -> Option<(Duration, Overdue)> {
        let progress = self.progress();
        let (patience, overdue) = match progress.phase {
            _ if progress.requests > 0 && progress.known => return None,
            _ if progress.requests > 0 => (STRANGER, Overdue::Cut),
            Phase::First | Phase::Headers => (HEADERS, Overdue::Cut),
            Phase::Idle => (IDLE, Overdue::Close),
        };
        Some((patience.saturating_sub(progress.since.elapsed()), overdue))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Told to end.
    Close,
    /// Ended at once.
    Cut,
}

/// A request that is being answered, to the last byte.
pub(super) struct Busy(Arc<Visit>);

impl Busy {
    pub(super) fn begin(visit: &Arc<Visit>) -> Self {
        let mut progress = visit.progress();
        progress.requests = progress.requests.saturating_add(1);
        progress.since = Instant::now();
        Self(Arc::clone(visit))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        progress.requests = progress.requests.saturating_sub(1);
        progress.phase = Phase::Idle;
        progress.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    async fn after(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_must_come_soon() {
        let visit = Visit::begin(&Door::new(1), 0);
        after(HEADERS.saturating_sub(MOMENT)).await;
        assert_eq!(visit.overdue(), None);
        visit.heard();
        after(MOMENT).await;
        assert_eq!(visit.overdue(), Some(Overdue::Cut), "half of its headers do not help");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_as_long_as_clients_keep_theirs() {
        let visit = Visit::begin(&Door::new(1), 0);
        drop(Busy::begin(&visit));
        assert_eq!(visit.next_look(), HEADERS);
        after(Duration::from_secs(90)).await;
        assert_eq!(visit.overdue(), None);
        after(IDLE).await;
        assert_eq!(visit.overdue(), Some(Overdue::Close));
        visit.heard();
        assert_eq!(visit.overdue(), None, "a request that begins now is still read");
        after(HEADERS).await;
        assert_eq!(visit.overdue(), Some(Overdue::Cut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_client_may_watch_for_ever_and_a_stranger_may_not() {
        let door = Door::new(2);
        let (known, stranger) = (Visit::begin(&door, 0), Visit::begin(&door, 1));
        let _watches = (Busy::begin(&known), Busy::begin(&stranger));
        known.admit();
        after(STRANGER).await;
        assert_eq!(stranger.overdue(), Some(Overdue::Cut));
        after(Duration::from_hours(1000)).await;
        assert_eq!(known.overdue(), None);
    }

    #[tokio::test]
    async fn the_stranger_who_came_first_makes_room_and_a_known_client_never_does() {
        let door = Door::new(3);
        let places = [door.place().await, door.place().await, door.place().await];
        let visits = [0, 1, 2].map(|number| Visit::begin(&door, number));
        visits[0].admit();
        let next = tokio::spawn({
            let door = Arc::clone(&door);
            async move { door.place().await }
        });
        visits[1].leave.cancelled().await;
        drop(places);
        assert!(next.await.unwrap().is_some());
        assert!(!visits[0].leave.is_cancelled() && !visits[2].leave.is_cancelled());
    }
}
