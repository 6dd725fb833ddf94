//! `oncelet policy`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::EngineArg;

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what the objects of a file are allowed, line by line, and what a rule would have to say for the rest; nothing is made
    #[command(
        after_help = "Exit codes: 0 where all is allowed, 1 where something is refused or the check failed.\n\nExamples:\n  \
        oncelet policy check --policy policy.yaml -f seed.yaml --namespace team-a\n  \
        kubectl get cexec seed -o yaml | oncelet policy check --policy policy.yaml -f -"
    )]
    Check(PolicyCheck),
}

#[derive(ClapArgs)]
pub(crate) struct PolicyCheck {
    /// The policy [default: none, which allows nothing]
    #[arg(long, env = "ONCELET_POLICY", value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The objects, as YAML or JSON; - is stdin
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The namespace of the objects [default: the one that they name, or default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArg,
}
