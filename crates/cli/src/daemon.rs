//! `oncelet up` and `oncelet controller`.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use oncelet_apiserver::{Server, Token};
use oncelet_controller::{Access, Progress};
use oncelet_engine::{Endpoint, Engine};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::advice;
use crate::args::{Controller, Daemon, Up};
use crate::clock::now;
use crate::log_part;
use crate::logging;
use crate::objects::{ENGINE_EXTENSION, config_from};
use crate::output::one_line;
use crate::page::{self, PageAddress};
use crate::paths::Paths;
use crate::policy;
use crate::session::Session;
use crate::telemetry;
use crate::traces::Traces;

/// Hosts the embedded API server and runs the controller against it.
pub(crate) async fn up(args: Up) -> Result<()> {
    let (paths, engine, progress) = begin(args.daemon).await?;
    // Its objects are its user's.
    let access = policy::begin(args.policy, Access::Everything).await?;
    let kubeconfig = match args.kubeconfig {
        Some(path) => std::path::absolute(path)?,
        None => paths.kubeconfig(),
    };
    let shutdown = shutdown_on_signal()?;

    let server = Server::bind(oncelet_apiserver::Config {
        listen: args.listen,
        state_dir: paths.apiserver(),
        kubeconfig: kubeconfig.clone(),
        crds: oncelet_api::crds(),
        parts: vec![log_part::part(paths.store())],
        advice: advice::all(),
        // Whoever asks for a run has to mean the same containers.
        extensions: vec![(ENGINE_EXTENSION.to_owned(), engine_of(&engine).into())],
        persist: args.persist,
        now,
    })
    .await?;
    let (url, token) = (server.url(), server.token());
    // The server outlives the controller, whose last writes it still takes.
    let server_shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.serve(server_shutdown.clone()));

    let client = client_from(&kubeconfig).await?;
    let session = Session::begin(&paths.sessions())?;
    tokio::spawn(Session::clear_earlier(paths.sessions(), engine.clone()));
    let page = serve_page(args.page, &client, &[], &engine, &paths, || Ok(token), &shutdown).await;
    print_welcome(&url, page.as_deref(), &kubeconfig, &paths, &engine).await;
    let (traces, steps) = Traces::begin()?;
    let config = oncelet_controller::Config {
        client,
        engine: engine.clone(),
        store_dir: paths.store(),
        session: Some(session.for_controller()),
        access,
        namespaces: Vec::new(),
        steps,
        progress,
        now,
    };
    let result = run_controller(config, traces, shutdown).await;
    session.end(&engine).await;
    server_shutdown.cancel();
    serving.await.context("the API server ended")??;
    result
}

/// Runs the controller against a cluster.
pub(crate) async fn controller(args: Controller) -> Result<()> {
    let (paths, engine, progress) = begin(args.daemon).await?;
    // Its objects are those of whoever may make any.
    let access = policy::begin(args.policy, Access::Nothing).await?;
    let namespaces = args.namespaces;
    let shutdown = shutdown_on_signal()?;
    let client = match &args.kubeconfig {
        Some(path) => client_from(path).await?,
        None => Client::try_default().await.context("no kubeconfig was found; say where with --kubeconfig")?,
    };
    // The cluster's token is not ours to give away. Kept, so that an open page goes on after the next start.
    let token = || Ok(Token::kept(&paths.page_token())?);
    serve_page(args.page, &client, &namespaces, &engine, &paths, token, &shutdown).await;
    // Its objects outlive it, and so do their containers.
    let (traces, steps) = Traces::begin()?;
    let store_dir = paths.store();
    let config = oncelet_controller::Config {
        client,
        engine,
        store_dir,
        session: None,
        access,
        namespaces,
        steps,
        progress,
        now,
    };
    run_controller(config, traces, shutdown).await
}

async fn begin(daemon: Daemon) -> Result<(Paths, Engine, Progress)> {
    logging::init(daemon.log_format)?;
    let paths = Paths::new(daemon.data)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&paths.data_dir)
        .with_context(|| format!("the data directory {} cannot be made", paths.data_dir.display()))?;
    let engine = Engine::connect(&daemon.engine.engine)?;
    let progress = Progress::default();
    if let Some(address) = daemon.metrics {
        telemetry::serve(address, engine.clone(), progress.clone()).await?;
    }
    Ok((paths, engine, progress))
}

async fn run_controller(config: oncelet_controller::Config, traces: Traces, shutdown: CancellationToken) -> Result<()> {
    oncelet_controller::run(config, shutdown).await?;
    traces.end().await;
    tracing::info!("ended");
    Ok(())
}

/// Serves the page where it is wanted, and returns its address. Runs go on without it.
async fn serve_page(
    address: PageAddress,
    client: &Client,
    namespaces: &[String],
    engine: &Engine,
    paths: &Paths,
    token: impl FnOnce() -> Result<Token>,
    shutdown: &CancellationToken,
) -> Option<String> {
    let PageAddress::At(address) = address else { return None };
    let serving = async {
        page::serve(address, client.clone(), namespaces.to_vec(), engine.clone(), paths, token()?, shutdown.clone())
            .await
    };
    match serving.await {
        Ok(url) => {
            tracing::info!("the page is at {url}; the command oncelet page prints how to get in");
            Some(url)
        }
        Err(error) => {
            tracing::warn!("{}", one_line(&error));
            None
        }
    }
}

pub(crate) async fn client_from(kubeconfig: &Path) -> Result<Client> {
    let config = config_from(kubeconfig).await?;
    Client::try_from(config).with_context(|| format!("the kubeconfig {} cannot be used", kubeconfig.display()))
}

/// What `engine` is found by from elsewhere on this machine.
fn engine_of(engine: &Engine) -> String {
    let url = engine.endpoint();
    // Where nothing has been found yet it is a text about that.
    if url.parse::<Endpoint>().is_ok() { url.to_owned() } else { Endpoint::Auto.to_string() }
}

/// Ends on SIGTERM and Ctrl-C; the second one does not wait.
fn shutdown_on_signal() -> Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            loop {
                // Both arms only wait for a signal, which is kept where an arm is dropped.
                let code = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                };
                if shutdown.is_cancelled() {
                    std::process::exit(code);
                }
                tracing::info!("ending; once more ends at once");
                shutdown.cancel();
            }
        }
    });
    Ok(shutdown)
}

async fn print_welcome(url: &str, page: Option<&str>, kubeconfig: &Path, paths: &Paths, engine: &Engine) {
    let engine = match engine.info().await {
        Ok(info) => format!("{} {:?} {}", engine.endpoint(), info.product, info.version),
        Err(_) => format!("{} does not answer yet", engine.endpoint()),
    };
    println!(
        "oncelet {version} is up.

  API server  {url}
  page        {page}
  kubeconfig  {kubeconfig}
  run store   {store}
  engine      {engine}

Next, in another terminal:

  export KUBECONFIG={kubeconfig}
  kubectl apply -f deploy/samples/
  kubectl get cexec -w

Ctrl-C ends it. What ran stays remembered.",
        version = env!("CARGO_PKG_VERSION"),
        page = page.map_or("none".to_owned(), |page| format!("{page} (oncelet page prints the way in)")),
        kubeconfig = kubeconfig.display(),
        store = paths.store().display(),
    );
}
