//! `oncelet doctor`: what is there, what is not, and what to do about it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use oncelet_api::ContainerExec;
use oncelet_engine::{Endpoint, Engine};
use oncelet_store::{Filter, Store};
use serde::Serialize;

use crate::args::Doctor;
use crate::daemon::client_from;
use crate::output;
use crate::paths::Paths;
use crate::table::{Cell, Table};

/// How long something may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that was looked at.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    about: &'static str,
    verdict: Verdict,
    what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
enum Verdict {
    /// As it should be.
    Ok,
    /// Not there, and not needed.
    None,
    /// In the way.
    Problem,
}

impl Verdict {
    fn cell(self) -> Cell {
        match self {
            Self::Ok => "ok".into(),
            Self::None => "-".into(),
            Self::Problem => Cell::loud("PROBLEM"),
        }
    }
}

fn fine(about: &'static str, what: String) -> Finding {
    Finding { about, verdict: Verdict::Ok, what, advice: None }
}

fn absent(about: &'static str, what: String) -> Finding {
    Finding { about, verdict: Verdict::None, what, advice: None }
}

fn problem(about: &'static str, what: String, advice: impl Into<String>) -> Finding {
    Finding { about, verdict: Verdict::Problem, what, advice: Some(advice.into()) }
}

/// Looks at everything that oncelet needs, and fails where something is in the way.
pub(crate) async fn run(args: Doctor) -> Result<()> {
    let paths = Paths::new(args.data)?;
    let mut findings = vec![fine("oncelet", env!("CARGO_PKG_VERSION").to_owned())];
    findings.extend(engines(&args.engine.engine).await?);
    findings.push(store(&paths.store()).await);
    findings.push(embedded(&paths.kubeconfig()).await);
    findings.extend(cluster().await);
    findings.push(kubectl().await);
    let problems = findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
    if !output::structured(&findings, args.output)? {
        let mut table = Table::new(vec!["CHECK", "RESULT", "FINDING"]).with_sentences_last();
        for finding in &findings {
            table.row(vec![finding.about.into(), finding.verdict.cell(), finding.what.as_str().into()]);
        }
        table.print()?;
        for finding in &findings {
            if let Some(advice) = &finding.advice {
                println!("\n{}: {advice}", finding.about);
            }
        }
    }
    if problems > 0 {
        bail!("{problems} problem{} found", if problems == 1 { "" } else { "s" });
    }
    Ok(())
}

/// Every place where an engine may be; one that answers is enough.
async fn engines(wanted: &Endpoint) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for engine in Engine::candidates(wanted)? {
        let url = engine.endpoint().to_owned();
        findings.push(match tokio::time::timeout(PATIENCE, engine.info()).await {
            Ok(Ok(info)) => fine("engine", format!("{:?} {} at {url}", info.product, info.version)),
            Ok(Err(_)) if !engine.may_be_there() => absent("engine", format!("nothing at {url}")),
            Ok(Err(error)) => absent("engine", output::one_line(&error.into())),
            Err(_) => absent("engine", format!("nothing answers at {url} within {} seconds", PATIENCE.as_secs())),
        });
    }
    if findings.iter().all(|finding| finding.verdict == Verdict::None) {
        let advice = "start Docker (systemctl start docker) or Podman (systemctl --user start podman.socket), add your user to the \
                      group of the socket, or name the engine with --engine or DOCKER_HOST";
        findings.push(problem("engine", format!("none answers of {wanted}"), advice));
    }
    Ok(findings)
}

async fn store(dir: &Path) -> Finding {
    if !dir.exists() {
        return absent("run store", format!("not made yet; oncelet up makes it in {}", dir.display()));
    }
    let counted = async {
        let store = Store::open_reader(dir).await?;
        let runs = store.list(Filter::default()).await?;
        let open = runs.iter().filter(|run| !run.state.is_ended()).count();
        store.close().await;
        anyhow::Ok(format!("{} runs, {open} of them not over, in {}", runs.len(), dir.display()))
    };
    match counted.await {
        Ok(what) => fine("run store", what),
        Err(error) => {
            let advice = "nothing starts while it cannot be read. Free the disk, correct the rights, or bring the directory back \
                          from a backup; removing it forgets the runs of containers that are gone, while those of others come back";
            problem("run store", output::one_line(&error), advice)
        }
    }
}

/// The server of an `oncelet up` with this data directory.
async fn embedded(kubeconfig: &Path) -> Finding {
    const ABOUT: &str = "oncelet up";
    if !kubeconfig.exists() {
        return absent(ABOUT, format!("has not run yet; it writes {}", kubeconfig.display()));
    }
    match client_from(kubeconfig).await {
        Ok(client) => match answers(client).await {
            Ok(version) => fine(ABOUT, format!("answers ({version}); export KUBECONFIG={}", kubeconfig.display())),
            Err(_) => absent(ABOUT, "does not run".to_owned()),
        },
        Err(error) => problem(ABOUT, output::one_line(&error), "start oncelet up, which writes its kubeconfig anew"),
    }
}

/// The cluster that kubectl would talk to, where there is one.
async fn cluster() -> Option<Finding> {
    const ABOUT: &str = "cluster";
    let kubeconfig = Kubeconfig::read().ok()?;
    let context = kubeconfig.current_context.clone()?;
    let client = Client::try_default().await.ok()?;
    Some(match answers(client.clone()).await {
        Ok(version) => {
            let served = Api::<ContainerExec>::all(client).list(&ListParams::default().limit(1)).await;
            match served {
                Ok(_) => fine(ABOUT, format!("context {context} answers ({version}) and has the CRDs")),
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    let what = format!("context {context} answers ({version}) and does not have the CRDs");
                    Finding {
                        advice: Some("for oncelet controller: oncelet crds | kubectl apply -f -".into()),
                        ..absent(ABOUT, what)
                    }
                }
                Err(error) => absent(ABOUT, format!("context {context}: {error}")),
            }
        }
        Err(error) => absent(ABOUT, format!("context {context} does not answer: {error}")),
    })
}

async fn answers(client: Client) -> Result<String, String> {
    match tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
        Ok(Ok(version)) => Ok(version.git_version),
        Ok(Err(error)) => Err(output::one_line(&error.into())),
        Err(_) => Err(format!("nothing within {} seconds", PATIENCE.as_secs())),
    }
}

async fn kubectl() -> Finding {
    let asked = tokio::process::Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().await;
    let version = asked.ok().filter(|output| output.status.success()).and_then(|output| {
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        told["clientVersion"]["gitVersion"].as_str().map(str::to_owned)
    });
    match version {
        Some(version) => fine("kubectl", version),
        None => problem("kubectl", "not on PATH".to_owned(), "see https://kubernetes.io/docs/tasks/tools"),
    }
}
