//! Metrics and health of a daemon, for machines.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the metrics below, in Prometheus' text format |
//! | `/livez` | 200 while the daemon gets on with its work; 500 and why where only a restart can help |
//! | `/readyz` | 200 where programs can be started: the API server, the store and the engine answer; else 500 and why |
//!
//! Both name each check on a line of its own, as a kube-apiserver does with `?verbose`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use oncelet_controller::Progress;
use oncelet_engine::Engine;
use tokio::net::TcpListener;

/// How often old samples are put into the histograms' buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the engine may take to say that it is there.
const ENGINE: Duration = Duration::from_secs(5);

/// From half a millisecond, a commit on a fast disk, to a minute.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const CHANGES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// What a metric counts.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(Unit),
}

/// Every metric, its kind and what it says; docs/telemetry.md has the same.
const METRICS: [(&str, Kind, &str); 14] = [
    ("controller_runtime_reconcile_total", Kind::Counter, "Reconciles, by controller and result (success, error)"),
    (
        "controller_runtime_reconcile_time_seconds",
        Kind::Histogram(Unit::Seconds),
        "How long a reconcile took, by controller",
    ),
    ("controller_runtime_active_workers", Kind::Gauge, "Reconciles that go on, by controller"),
    ("workqueue_depth", Kind::Gauge, "Objects that wait for a reconcile, by controller"),
    ("workqueue_adds_total", Kind::Counter, "Objects that came to wait for a reconcile, by controller"),
    (
        "workqueue_queue_duration_seconds",
        Kind::Histogram(Unit::Seconds),
        "How long an object waited for its reconcile, by controller",
    ),
    ("oncelet_runs_total", Kind::Counter, "Runs that ended here, by state and by whether the program succeeded"),
    ("oncelet_restores_total", Kind::Counter, "Outcomes of earlier runs that were given to an object"),
    (
        "oncelet_restore_duration_seconds",
        Kind::Histogram(Unit::Seconds),
        "From the look at an object to the restored outcome in its status",
    ),
    (
        "oncelet_store_commit_duration_seconds",
        Kind::Histogram(Unit::Seconds),
        "How long a commit of the run store took, to the disk",
    ),
    ("oncelet_store_commit_changes", Kind::Histogram(Unit::Count), "How many changes shared a commit"),
    (
        "oncelet_engine_request_duration_seconds",
        Kind::Histogram(Unit::Seconds),
        "How long an engine took to answer, by operation and result (success, error)",
    ),
    (
        "oncelet_policy_refusals_total",
        Kind::Counter,
        "Objects that were told that the policy refuses them, by kind and reason",
    ),
    (
        "oncelet_policy_reloads_total",
        Kind::Counter,
        "Changed policies that were read, by result (success, error: the policy of before stays in force)",
    ),
];

struct Telemetry {
    metrics: PrometheusHandle,
    engine: Engine,
    progress: Progress,
}

type Shared = State<std::sync::Arc<Telemetry>>;

/// Serves until the process ends: what is asked at its very end is asked most.
pub(crate) async fn serve(address: SocketAddr, engine: Engine, progress: Progress) -> Result<()> {
    let metrics = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .set_buckets_for_metric(Matcher::Full("oncelet_store_commit_changes".to_owned()), &CHANGES)?
        .install_recorder()
        .context("metrics cannot be kept")?;
    for (name, kind, text) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, text),
            Kind::Gauge => metrics::describe_gauge!(name, text),
            Kind::Histogram(unit) => metrics::describe_histogram!(name, unit, text),
        }
    }
    tokio::spawn({
        let metrics = metrics.clone();
        async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                metrics.run_upkeep();
            }
        }
    });
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("metrics cannot be served at {address}; choose another address with --metrics"))?;
    tracing::info!("metrics and health are at http://{}/metrics, /livez and /readyz", listener.local_addr()?);
    let router = Router::new()
        .route("/metrics", get(|State(it): Shared| async move { it.metrics.render() }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(std::sync::Arc::new(Telemetry { metrics, engine, progress }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics and health are no longer served");
        }
    });
    Ok(())
}

async fn livez(State(it): Shared) -> (StatusCode, String) {
    answer("livez", &[("work", it.progress.stuck().map_or(Ok(()), Err))])
}

async fn readyz(State(it): Shared) -> (StatusCode, String) {
    let engine = match tokio::time::timeout(ENGINE, it.engine.info()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(crate::output::one_line(&error.into())),
        Err(_) => Err(format!("{} does not answer within {ENGINE:?}", it.engine.endpoint())),
    };
    answer(
        "readyz",
        &[
            ("work", it.progress.stuck().map_or(Ok(()), Err)),
            ("api-server", it.progress.watches()),
            ("store", it.progress.store()),
            ("engine", engine),
        ],
    )
}

fn answer(of: &str, checks: &[(&str, Result<(), String>)]) -> (StatusCode, String) {
    let told = checks.iter().map(|(name, result)| match result {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(why) => format!("[-]{name} failed: {why}\n"),
    });
    let passed = checks.iter().all(|(_, result)| result.is_ok());
    let verdict = if passed { "passed" } else { "failed" };
    let code = if passed { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (code, told.chain([format!("{of} check {verdict}\n")]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_metric_and_no_other() {
        let page = include_str!("../../../docs/telemetry.md");
        let written: Vec<_> =
            page.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `/")).collect();
        let wanted: Vec<_> = METRICS
            .iter()
            .map(|(name, kind, text)| {
                let kind = match kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram(_) => "histogram",
                };
                format!("| `{name}` | {kind} | {text} |")
            })
            .collect();
        assert_eq!(written, wanted);
    }
}
