//! Serves the definitions in the given files until it is interrupted: `serve DIRECTORY CRD.yaml…`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use oncelet_apiserver::{Config, Server};
use tokio_util::sync::CancellationToken;

#[tokio::main]
#[allow(clippy::disallowed_methods, reason = "an example has no clock to be given")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY CRD.yaml…")?);
    let crds = arguments.map(|path| Ok(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?));
    let crds = crds.collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
    let server = Server::bind(Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        state_dir: dir.join("state"),
        kubeconfig: dir.join("kubeconfig"),
        crds,
        parts: Vec::new(),
        advice: Vec::new(),
        persist: false,
        extensions: Vec::new(),
        now: jiff::Timestamp::now,
    })
    .await?;
    println!("serving {}, kubeconfig {}", server.url(), dir.join("kubeconfig").display());
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        ended.cancel();
    });
    server.serve(shutdown).await?;
    Ok(())
}
