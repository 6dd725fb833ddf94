//! Forgets the runs of containers that are gone.

use jiff::Timestamp;
use oncelet_engine::Engine;
use oncelet_store::Store;
use serde::Serialize;

use crate::context::one_line;

/// A container of which the engine was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Its full ID.
    pub container_id: String,
    /// The name that it had.
    pub name: String,
    /// How many runs are remembered of it.
    pub runs: u64,
    /// What came of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What became of the runs of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fate")]
pub enum Fate {
    /// The engine knows it.
    Present,
    /// The engine does not know it, and has not for less than the time that it takes.
    Absent {
        /// Since when.
        since: Timestamp,
    },
    /// The engine has not known it for long enough: its runs are forgotten.
    Forgotten,
}

/// Asks the engine for every container that has runs, and forgets those of containers that are gone for good.
///
/// # Guarantees
/// An engine that does not answer, or another one behind the same address, makes nothing be forgotten.
pub async fn collect(engine: &Engine, store: &Store, now: Timestamp) -> Result<Vec<Collected>, String> {
    let engine_id = engine.identity_now().await.map_err(|error| one_line(&error))?;
    let mut all = Vec::new();
    for known in store.containers(&engine_id).await.map_err(|error| one_line(&error))? {
        let found = engine.container(&known.container_id).await.map_err(|error| one_line(&error))?;
        // It may have become another engine while it was asked.
        if engine.identity_now().await.map_err(|error| one_line(&error))? != engine_id {
            return Err("another engine answers at its address now; nothing more is forgotten".to_owned());
        }
        let is_there = found.is_some();
        let fate = if is_there {
            if known.absent_since.is_some() {
                store.seen(&engine_id, &known.container_id, true, now).await.map_err(|error| one_line(&error))?;
            }
            Fate::Present
        } else if known.is_gone(now) {
            store.collect(&engine_id, &known.container_id).await.map_err(|error| one_line(&error))?;
            tracing::info!(container = %known.name, runs = known.runs, "the container is gone; its runs are forgotten");
            Fate::Forgotten
        } else {
            store.seen(&engine_id, &known.container_id, false, now).await.map_err(|error| one_line(&error))?;
            Fate::Absent { since: known.absent_since.map_or(now, |since| since.min(now)) }
        };
        all.push(Collected { container_id: known.container_id, name: known.name, runs: known.runs, fate });
    }
    Ok(all)
}
