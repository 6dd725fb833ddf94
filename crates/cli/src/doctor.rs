//! `oncelet doctor`: what is there, what is not, and what to do about it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use oncelet_api::ContainerExec;
use oncelet_apiserver::Certificate;
use oncelet_engine::{Endpoint, Engine};
use oncelet_store::{Filter, Store};
use serde::Serialize;

use crate::args::Doctor;
use crate::clock::now;
use crate::daemon::client_from;
use crate::output;
use crate::paths::Paths;
use crate::table::{Cell, Table};

/// Clocks of machines that share a data directory differ a little.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
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
    findings.extend(clock(&paths.store()).await);
    findings.extend(certificates(&paths.apiserver(), now()));
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

/// Whether time goes backwards: nothing that is remembered can have happened later than now.
async fn clock(dir: &Path) -> Option<Finding> {
    let store = Store::open_reader(dir).await.ok()?;
    let runs = store.list(Filter::default()).await.unwrap_or_default();
    store.close().await;
    let (newest, now) = (runs.iter().map(|run| run.claimed_at).max()?, now());
    let is_later = newest.duration_since(now) > TOLERANCE;
    is_later.then(|| {
        let what =
            format!("a run was asked for at {newest}, and it is {now} now: the clock was ahead then, or is behind now");
        problem(
            "clock",
            what,
            "compare it with another one (date); recorded times stay as they are, and no run depends on them",
        )
    })
}

/// The certificates of an `oncelet up` with this data directory, where there are some.
fn certificates(state_dir: &Path, now: Timestamp) -> Option<Finding> {
    const ABOUT: &str = "certificates";
    let found = oncelet_apiserver::certificates(state_dir);
    let anew = "oncelet up makes it anew, when it starts or while it runs, and writes its kubeconfig again";
    for Certificate { what, valid } in &found {
        match valid {
            None => return Some(problem(ABOUT, format!("the {what} in {} cannot be read", state_dir.display()), anew)),
            Some((from, _)) if *from > now => {
                let what = format!(
                    "the {what} is valid from {from} and it is {now} now: the clock was ahead when it was made, or is behind now"
                );
                return Some(problem(ABOUT, what, format!("compare the clock with another one (date); {anew}")));
            }
            Some((_, until)) if *until <= now => {
                let ended = absent(ABOUT, format!("the {what} has ended at {until}"));
                return Some(Finding { advice: Some(anew.into()), ..ended });
            }
            Some(_) => {}
        }
    }
    let until = found.iter().filter_map(|it| Some(it.valid?.1)).min()?;
    Some(fine(ABOUT, format!("valid until {until}; made anew a month before")))
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
            Err(error) if error.contains("refused") => absent(ABOUT, "does not run".to_owned()),
            Err(error) => problem(
                ABOUT,
                format!("does not answer as it should: {error}"),
                "if oncelet up runs, start it again; if it does not, another program listens at its port",
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_valid_now_is_told() {
        fn at(year: i16) -> Timestamp {
            format!("{year}-06-01T00:00:00Z").parse().unwrap()
        }
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert!(certificates(&state, at(2026)).is_none());
        let config = oncelet_apiserver::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: state.clone(),
            kubeconfig: dir.path().join("kubeconfig"),
            crds: Vec::new(),
            parts: Vec::new(),
            advice: Vec::new(),
            extensions: Vec::new(),
            persist: false,
            now: || at(2026),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        drop(runtime.block_on(oncelet_apiserver::Server::bind(config)).unwrap());
        let told =
            |year: i16| certificates(&state, at(year)).map(|it| (it.verdict == Verdict::Problem, it.what)).unwrap();
        let (is_problem, what) = told(2026);
        assert!(!is_problem && what.contains("valid until 2027-06-01"), "{what}");
        let (is_problem, what) = told(2025);
        assert!(is_problem && what.contains("the clock was ahead when it was made"), "{what}");
        let (is_problem, what) = told(2030);
        assert!(!is_problem && what.contains("has ended"), "{what}");
        std::fs::write(state.join("client.json"), "").unwrap();
        assert!(told(2026).0);
    }
}
