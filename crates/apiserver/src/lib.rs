//! An embedded Kubernetes API server: custom resources from their definitions, and the few core kinds that clients of
//! custom resources need. Objects live in memory, and in a file where they are to outlast the server.
//!
//! ```text
//! TLS ─▶ token ─▶ route ─▶ handler of the verb ─▶ lifecycle (prune, default, check) ─▶ storage ─▶ ring ─▶ watchers
//!                    └─▶ discovery, OpenAPI
//! ```
//!
//! It is not a cluster: there are no Pods, no webhooks, no RBAC. What is not served answers so, with a `Status` that
//! clients can print.

// What a client sent is never indexed, cut or counted on in a way that could panic: a defect there would be one request away.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_in_result)
)]

mod advice;
mod app;
mod auth;
mod body;
mod builtin;
mod connections;
mod credentials;
mod discovery;
mod duplicates;
mod expiry;
mod files;
mod handlers;
mod housekeeping;
mod kubeconfig;
mod lifecycle;
mod meta;
mod names;
mod negotiate;
mod openapi;
mod part;
mod patch;
mod place;
mod protobuf;
mod registry;
mod route;
mod schema;
mod selectors;
mod server;
mod status;
mod storage;
mod table;
#[allow(
    clippy::arithmetic_side_effects,
    reason = "it counts with the clock and with constants, and with nothing of a client"
)]
mod tls;
mod validity;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use advice::Advice;
pub use auth::Token;
pub use connections::{Visitor, raise_descriptor_limit, serve_plain};
pub use credentials::{Rotated, rotate};
pub use files::write_private;
pub use part::{Part, PartQuery, PartRefusal, PartSource, PartStream};
pub use server::{Config, Inside, Server};
pub use tls::{Certificate, certificates};

/// Why the server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: is something else listening there? choose another address")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the state directory cannot be read or written.
    #[error("cannot use the state file {path}")]
    State {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kubeconfig cannot be written.
    #[error("cannot write the kubeconfig {path}")]
    Kubeconfig {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kubeconfig is somebody else's, and cannot be changed without loss.
    #[error(
        "the kubeconfig {path} is left as it is, since {why}. Choose another file with --kubeconfig; KUBECONFIG may name several"
    )]
    ForeignKubeconfig {
        /// Which one.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// The file that objects are kept in cannot be used.
    #[error("cannot use the objects kept in {path}; is another oncelet running with the same data directory?")]
    Objects {
        /// Which one.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// The file that objects are kept in is something else.
    #[error("{path} is not a file of kept objects, and stays as it is: move it away to start with none")]
    NotObjects {
        /// Which one.
        path: PathBuf,
    },
    /// The file that objects are kept in is from a later release.
    #[error("{path} was written by a newer oncelet (its schema is {found}, this one knows {known}): use that one")]
    NewerObjects {
        /// Which one.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// A certificate cannot be made from what is in the state directory.
    #[error("cannot make a certificate; remove ca.json and serving.json from the state directory to start anew")]
    Certificate {
        /// What is wrong.
        #[source]
        source: Box<rcgen::Error>,
    },
    /// The TLS library refuses the certificate.
    #[error("cannot serve TLS with the certificate in the state directory; remove ca.json and serving.json from it")]
    Tls(#[source] rustls::Error),
    /// A configured definition is not one that can be served.
    #[error("the CustomResourceDefinition {name} cannot be served: {why}")]
    Definition {
        /// `plural.group`
        name: String,
        /// As a client would be told.
        why: String,
    },
}

impl Error {
    fn state(path: &Path, source: io::Error) -> Self {
        Self::State { path: path.to_owned(), source }
    }

    fn certificate(source: rcgen::Error) -> Self {
        Self::Certificate { source: Box::new(source) }
    }
}
