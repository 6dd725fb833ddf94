//! `store.json`: which store the database beside it must be.
//!
//! SQLite takes an empty file for an empty database, and a database restored from elsewhere for ours. Neither knows
//! what ran here, so the store's identity is also kept outside of it.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::OpenError;
use crate::dir::{self, StoreDir};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sidecar {
    /// The store's identity, also kept in the database.
    pub(crate) uuid: Uuid,
    /// The store is being made and was never used: an absent database is no loss.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) creating: bool,
}

impl Sidecar {
    /// The sidecar, or `None` where there is none.
    pub(crate) fn read(dir: &StoreDir) -> Result<Option<Self>, OpenError> {
        let path = dir.sidecar();
        match fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(sidecar) => Ok(Some(sidecar)),
                Err(source) => Err(OpenError::SidecarDamaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::File { path, source }),
        }
    }

    pub(crate) fn write(&self, dir: &StoreDir) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        dir::replace(&dir.sidecar(), &text)
    }
}
