//! Where things are kept.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::args::DataDir;

/// The data directory and what is in it.
pub(crate) struct Paths {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
}

impl Paths {
    /// As asked, or by the XDG base directory rules.
    pub(crate) fn new(data: DataDir) -> Result<Self> {
        let data_dir = match data.data_dir {
            Some(dir) => std::path::absolute(dir)?,
            None => default_data_dir().context("neither HOME nor XDG_DATA_HOME is set; say where with --data-dir")?,
        };
        Ok(Self { data_dir })
    }

    /// The run store.
    pub(crate) fn store(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// The sessions that go on, and those that ended badly.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.data_dir.join("sessions")
    }

    /// Certificates and token of the embedded API server.
    pub(crate) fn apiserver(&self) -> PathBuf {
        self.data_dir.join("apiserver")
    }

    /// Where the page is served, with its token, as long as it is.
    pub(crate) fn page(&self) -> PathBuf {
        self.data_dir.join("page.json")
    }

    /// What leads a browser to the page.
    pub(crate) fn page_redirect(&self) -> PathBuf {
        self.data_dir.join("page.html")
    }

    /// Where earlier releases kept a token of the page.
    pub(crate) fn old_page_token(&self) -> PathBuf {
        self.data_dir.join("page-token")
    }

    /// The kubeconfig of the embedded API server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }
}

fn default_data_dir() -> Option<PathBuf> {
    // The rules have a relative XDG_DATA_HOME ignored.
    let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().map(|home| home.join(".local/share"));
    Some(xdg.or_else(home)?.join("oncelet"))
}
