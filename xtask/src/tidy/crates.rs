//! The lines between the crates.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Problem;

/// How far a rule reaches.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// What the crate itself names in its manifest.
    Declared,
    /// That, and everything it pulls in.
    Anywhere,
}

/// What a crate must never use, dev-dependencies aside.
struct Never {
    package: &'static str,
    reach: Reach,
    banned: &'static [&'static str],
    because: &'static str,
}

const RULES: &[Never] = &[
    Never {
        package: "oncelet-core",
        reach: Reach::Anywhere,
        banned: &["axum", "bollard", "hyper", "kube", "kube-core", "sqlx", "tokio"],
        because: "it decides, and does nothing: no async, no I/O",
    },
    Never {
        package: "oncelet-api",
        reach: Reach::Anywhere,
        banned: &["bollard", "kube-client", "kube-runtime", "sqlx", "tokio"],
        because: "it is types only, for programs that may use any client",
    },
    Never {
        package: "oncelet-store",
        reach: Reach::Anywhere,
        banned: &["bollard", "k8s-openapi", "kube", "kube-core"],
        because: "it remembers runs, and knows neither Kubernetes nor an engine",
    },
    Never {
        package: "oncelet-engine",
        reach: Reach::Anywhere,
        banned: &["k8s-openapi", "kube", "kube-core", "oncelet-store", "sqlx"],
        because: "it knows nothing of Kubernetes or the store",
    },
    Never {
        package: "oncelet-controller",
        reach: Reach::Declared,
        banned: &["bollard", "sqlx"],
        because: "it speaks to engines and the store through our own types",
    },
    Never {
        package: "oncelet-apiserver",
        reach: Reach::Anywhere,
        banned: &["oncelet-api", "oncelet-controller", "oncelet-core", "oncelet-engine", "oncelet-store"],
        because: "it serves any CRD, and knows nothing of runs",
    },
    Never {
        package: "oncelet-shim",
        reach: Reach::Anywhere,
        banned: &["bollard", "jiff", "kube", "kube-core", "oncelet-core", "oncelet-engine", "sqlx", "tokio", "tracing"],
        because: "it goes into other people's containers: small, and with nothing around it",
    },
    Never {
        package: "oncelet-model",
        reach: Reach::Anywhere,
        banned: &[
            "bollard",
            "kube",
            "kube-core",
            "oncelet-controller",
            "oncelet-engine",
            "oncelet-store",
            "sqlx",
            "tokio",
        ],
        because: "it models them, around the code of the pure core",
    },
];

/// What is there for its tests only: no crate is built with it.
const ONLY_FOR_ITS_TESTS: &str = "oncelet-model";

/// Where an error may lose its type: at the edge, where nobody handles it any more.
const MAY_DECLARE_ANYHOW: &[&str] = &["oncelet", "oncelet-tests", "xtask"];

/// TLS is rustls with ring, whatever a dependency would rather have.
const NEVER_ANYWHERE: &[&str] = &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];

/// A crate of the workspace.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) manifest: PathBuf,
    /// The packages that its manifest names, dev-dependencies aside.
    declared: BTreeSet<String>,
    /// The packages that it is built with.
    reached: BTreeSet<String>,
}

/// The crates of the workspace at `root`, as cargo sees them.
pub(super) fn members(root: &Path) -> Result<Vec<Member>> {
    let metadata = cargo(root, &["metadata", "--format-version=1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    packages.iter().map(|package| member(root, package)).collect()
}

fn member(root: &Path, package: &Value) -> Result<Member> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("unexpected cargo metadata");
    let name = text(&package["name"])?;
    let declared = package["dependencies"]
        .as_array()
        .context("unexpected cargo metadata")?
        .iter()
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|dependency| text(&dependency["name"]))
        .collect::<Result<_>>()?;
    // cargo metadata gives each package the features that all crates together ask for; only a tree of this one crate
    // tells what it brings by itself.
    let tree = [
        "tree",
        "--package",
        &name,
        "--edges=normal,build,no-proc-macro",
        "--target=all",
        "--prefix=none",
        "--format={p}",
    ];
    let reached = cargo(root, &tree)?.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    Ok(Member { manifest: PathBuf::from(text(&package["manifest_path"])?), name, declared, reached })
}

fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(args).current_dir(root).output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("cargo {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).context("cargo does not write UTF-8")
}

/// Every rule that a member breaks.
pub(super) fn broken_rules(members: &[Member]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in RULES {
        let Some(member) = members.iter().find(|member| member.name == rule.package) else {
            problems.push(format!("there are rules for {}, which is not in the workspace", rule.package));
            continue;
        };
        let (used, verb) = match rule.reach {
            Reach::Declared => (&member.declared, "names"),
            Reach::Anywhere => (&member.reached, "is built with"),
        };
        for banned in rule.banned.iter().filter(|banned| used.contains(**banned)) {
            problems.push(format!(
                "{name} {verb} {banned}, which it must never: {because} (how it gets there: cargo tree -p {name} -i {banned})",
                name = member.name,
                because = rule.because
            ));
        }
    }
    for member in members {
        let name = &member.name;
        if member.declared.contains("anyhow") && !MAY_DECLARE_ANYHOW.contains(&name.as_str()) {
            problems.push(format!("{name} names anyhow: a library has one error enum of its own"));
        }
        if member.declared.contains(ONLY_FOR_ITS_TESTS) {
            problems.push(format!("{name} names {ONLY_FOR_ITS_TESTS}, which is there for its own tests only"));
        }
        for banned in NEVER_ANYWHERE.iter().filter(|banned| member.reached.contains(**banned)) {
            problems.push(format!(
                "{name} is built with {banned}: TLS is rustls with ring (cargo tree -p {name} -i {banned})"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, declared: &[&str], reached: &[&str]) -> Member {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Member { name: name.to_owned(), manifest: PathBuf::new(), declared: set(declared), reached: set(reached) }
    }

    /// One member for each rule that uses nothing, with `changed` in place of its namesake.
    fn workspace_with(changed: Member) -> Vec<Member> {
        let mut members: Vec<Member> = RULES
            .iter()
            .filter(|rule| rule.package != changed.name)
            .map(|rule| member(rule.package, &[], &[]))
            .collect();
        members.push(changed);
        members
    }

    #[test]
    fn a_workspace_within_its_lines_has_no_problems() {
        let problems =
            broken_rules(&workspace_with(member("oncelet", &["anyhow", "kube"], &["kube", "sqlx", "tokio"])));
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_banned_package_is_found_however_deep() {
        let problems = broken_rules(&workspace_with(member("oncelet-core", &["innocent"], &["innocent", "tokio"])));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("oncelet-core is built with tokio"), "{}", problems[0]);
    }

    #[test]
    fn what_may_be_pulled_in_may_still_not_be_named() {
        let through_the_store = member("oncelet-controller", &["oncelet-store"], &["oncelet-store", "sqlx"]);
        assert_eq!(broken_rules(&workspace_with(through_the_store)), Vec::<String>::new());

        let directly = member("oncelet-controller", &["sqlx"], &["sqlx"]);
        let problems = broken_rules(&workspace_with(directly));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("oncelet-controller names sqlx"), "{}", problems[0]);
    }

    #[test]
    fn only_the_edge_may_name_anyhow() {
        let problems = broken_rules(&workspace_with(member("oncelet-store", &["anyhow"], &["anyhow"])));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("oncelet-store names anyhow"), "{}", problems[0]);
    }

    #[test]
    fn no_crate_is_built_with_the_model() {
        let problems = broken_rules(&workspace_with(member("oncelet", &["oncelet-model"], &["oncelet-model"])));
        assert_eq!(problems, ["oncelet names oncelet-model, which is there for its own tests only"]);
    }

    #[test]
    fn a_second_tls_library_is_found_in_any_crate() {
        let problems = broken_rules(&workspace_with(member("oncelet", &[], &["aws-lc-rs"])));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("oncelet is built with aws-lc-rs"), "{}", problems[0]);
    }

    #[test]
    fn a_rule_about_a_crate_that_is_gone_is_found() {
        let members: Vec<Member> =
            workspace_with(member("oncelet", &[], &[])).into_iter().filter(|m| m.name != "oncelet-api").collect();
        let problems = broken_rules(&members);
        assert_eq!(problems, ["there are rules for oncelet-api, which is not in the workspace"]);
    }
}
