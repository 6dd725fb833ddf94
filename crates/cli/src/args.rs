//! The command line. Its doc comments are what `--help` prints, as plain text.
#![allow(clippy::doc_markdown)]

mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use oncelet_engine::Endpoint;

use crate::page::PageAddress;

pub(crate) use policy::{PolicyCheck, PolicyCommand};

/// Runs programs inside containers at most once, and remembers what came of it.
#[derive(Parser)]
#[command(name = "oncelet", version, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Host a small Kubernetes API and run the controller against it: all that a machine without a cluster needs
    #[command(after_help = "Examples:\n  \
        oncelet up\n  \
        oncelet up --engine podman --listen 127.0.0.1:8443")]
    Up(Up),
    /// Run the controller against a cluster
    #[command(after_help = "Examples:\n  \
        oncelet crds | kubectl apply -f -\n  \
        oncelet controller --kubeconfig ~/.kube/config --policy policy.yaml\n  \
        oncelet controller --policy policy.yaml --namespace team-a,team-b")]
    Controller(Controller),
    /// Print the custom resource definitions as YAML
    #[command(after_help = "Examples:\n  \
        oncelet crds | kubectl apply -f -\n  \
        oncelet crds --warnings | kubectl apply -f -")]
    Crds(Crds),
    /// Look at recorded runs, and decide about them
    #[command(subcommand)]
    Runs(Runs),
    /// Back up the run store, and restore it
    #[command(subcommand)]
    Store(Store),
    /// Print what a program wrote, byte for byte
    #[command(after_help = "Examples:\n  \
        oncelet logs seed-database\n  \
        oncelet logs team-a/migrate --follow\n  \
        oncelet logs 42 --stderr")]
    Logs(Logs),
    /// Print the log of an object's run as it goes, and end with its program's exit code
    #[command(
        after_help = "It stays with the run that it sees first: where the container is replaced meanwhile, it says so and ends with 125.\n\n\
        Exit codes: the program's own; 125 where that is not known, or after --timeout; 1 where oncelet itself failed.\n\n\
        Examples:\n  \
        oncelet wait seed-database\n  \
        oncelet wait seed-database --timeout 5m"
    )]
    Wait(Wait),
    /// Run a program in a container once: when it was run there before, its outcome and output come back instead
    #[command(
        after_help = "The same program in the same container is one run, however the container is spelled. Arguments and values of \
        variables arrive as they are written, dollar signs and all.\n\n\
        Ctrl-C before the start withdraws the request; after it the program continues.\n\n\
        Exit codes: the program's own; 127 where it is not there, 126 where it could not be started for another reason; 125 where \
        its own exit code is not known, after --timeout, or where data on stdin would be lost; 130 and 143 after Ctrl-C and \
        SIGTERM; 1 where oncelet itself failed.\n\nExamples:\n  \
        oncelet exec my-postgres -- psql -f /schema.sql\n  \
        oncelet exec --wait-for-port 5432 -i my-postgres -- psql < seed.sql\n  \
        oncelet exec --name migrate --env VERSION=42 db -- /bin/migrate"
    )]
    Exec(Exec),
    /// Run an object's program once more
    #[command(after_help = "Examples:\n  \
        oncelet rerun seed-database\n  \
        oncelet rerun seed-database --wait")]
    Rerun(Rerun),
    /// Say why a program ran or did not, by what it is remembered, and what differs from what ran
    #[command(after_help = "Examples:\n  \
        oncelet explain seed-database")]
    Explain(Explain),
    /// Print the address of the page that a daemon serves, with the token that lets a browser in
    #[command(after_help = "Examples:\n  \
        oncelet page\n  \
        oncelet page --open")]
    Page(Page),
    /// Replace what clients of oncelet up show it: the token, the client certificate and the authority that signs it
    #[command(subcommand)]
    Credentials(Credentials),
    /// Print a script that completes oncelet's commands in a shell
    #[command(after_help = "Examples:\n  \
        oncelet completions bash > /etc/bash_completion.d/oncelet")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Look at what a policy allows
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look for what oncelet needs, engines, store, API server and kubectl, and say what to do about what is missing
    #[command(after_help = "Examples:\n  \
        oncelet doctor\n  \
        oncelet doctor --engine podman -o json")]
    Doctor(Doctor),
}

/// Where the objects are.
#[derive(ClapArgs, Clone)]
pub(crate) struct Cluster {
    /// The kubeconfig [default: KUBECONFIG, that of oncelet up, or kubectl's own]
    #[arg(long, env = "ONCELET_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace [default: that of the kubeconfig]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(ClapArgs)]
pub(crate) struct Crds {
    /// Print a ValidatingAdmissionPolicy and its binding instead, by which a cluster warns of what is hardly meant in a spec, as
    /// oncelet up does by itself. It refuses nothing
    #[arg(long)]
    pub(crate) warnings: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Wait {
    /// The ContainerExec
    pub(crate) name: String,
    /// End after this time, as 30s or 5m, with 125; the program goes on [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(ClapArgs)]
pub(crate) struct Rerun {
    /// The ContainerExec
    pub(crate) name: String,
    /// Print the log as it goes, and end with the program's exit code
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(ClapArgs)]
pub(crate) struct Explain {
    /// The ContainerExec
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(ClapArgs)]
pub(crate) struct Exec {
    /// A Container object, or a container of the engine: its name or ID
    pub(crate) container: String,
    /// Send stdin to the program: all of it is read first, and another input is another run. Without this, data on stdin is
    /// refused, never dropped: redirect it from /dev/null in a loop or a script that is itself read from stdin
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Refused: a terminal cannot be recorded
    #[arg(short, long, hide = true)]
    pub(crate) tty: bool,
    /// The program and its arguments; no shell is involved
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// The name of the ContainerExec that is made [default: made from container and program]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A variable for the program, as NAME=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The directory in the container to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The user in the container to run as
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// How many bytes of stdout and of stderr are kept, from the first on [default: 104857600, which is 100 MiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) log_limit: Option<i64>,
    /// Start the program only once this TCP port of the container accepts connections, at another address than 127.0.0.1
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wait_for_port: Option<u16>,
    /// Withdraw the request where the program has not started after this time, as 30s or 5m, and end with 125 [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(ClapArgs)]
pub(crate) struct Page {
    /// Open the page in the browser (BROWSER, or the usual one) instead of printing its address
    #[arg(long)]
    pub(crate) open: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Subcommand)]
pub(crate) enum Credentials {
    /// Make new ones and refuse the old ones from now on, also in an oncelet up that runs: open connections are cut
    #[command(after_help = "Examples:\n  \
        oncelet credentials rotate")]
    Rotate(Rotate),
}

#[derive(ClapArgs)]
pub(crate) struct Rotate {
    /// The kubeconfig to put the new ones into [default: kubeconfig in the data directory]
    #[arg(long, env = "ONCELET_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(ClapArgs)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[command(flatten)]
    pub(crate) engine: EngineArg,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(ClapArgs)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// The kubeconfig to put the context oncelet into; all else in it stays [default: kubeconfig in the data directory]
    #[arg(long, env = "ONCELET_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Keep objects across restarts; without, they are gone when oncelet ends, as the application's that made them
    #[arg(long, env = "ONCELET_PERSIST")]
    pub(crate) persist: bool,
    /// The address of the API server; port 0 takes a free one
    #[arg(long, env = "ONCELET_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7643")]
    pub(crate) listen: SocketAddr,
    /// A policy that says what objects may use, read again when it changes [default: everything is allowed]
    #[arg(long, env = "ONCELET_POLICY", value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The address of the page to look at, in plain HTTP and so on this machine; port 0 takes a free one, off serves none
    #[arg(long, env = "ONCELET_PAGE", value_name = "ADDRESS", default_value = "127.0.0.1:7644")]
    pub(crate) page: PageAddress,
}

#[derive(ClapArgs)]
pub(crate) struct Controller {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// The cluster's kubeconfig [default: as kubectl, or the service account in a pod]
    #[arg(long, env = "ONCELET_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The policy that says what objects may use, read again when it changes. Without one nothing is allowed
    #[arg(long, env = "ONCELET_POLICY", value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The namespaces whose objects are looked at; a Role in each is enough then [default: all, which takes a ClusterRole]
    #[arg(
        long = "namespace",
        env = "ONCELET_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        value_parser = namespace
    )]
    pub(crate) namespaces: Vec<String>,
    /// Serve a page to look at, in plain HTTP and so on this machine; port 0 takes a free one
    #[arg(long, env = "ONCELET_PAGE", value_name = "ADDRESS", default_value = "off")]
    pub(crate) page: PageAddress,
}

/// What both daemons take.
#[derive(ClapArgs)]
pub(crate) struct Daemon {
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[command(flatten)]
    pub(crate) engine: EngineArg,
    /// Serve metrics (/metrics, for Prometheus) and health (/livez, /readyz) at this address, in plain HTTP
    #[arg(long, env = "ONCELET_METRICS", value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// How long to remember a run with runPolicy: Always whose object is gone, as 12h or 30d; nobody can ask for it any more
    #[arg(long, env = "ONCELET_KEEP_RUNS_FOR", value_name = "DURATION", default_value = "7d", value_parser = days)]
    pub(crate) keep_runs_for: Duration,
    /// How to write the log, on stderr; ONCELET_LOG filters it (info, debug, oncelet_controller=trace)
    #[arg(long, env = "ONCELET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(ClapArgs, Clone)]
pub(crate) struct DataDir {
    /// Where runs are remembered [default: oncelet in XDG_DATA_HOME, or ~/.local/share/oncelet]
    #[arg(long, env = "ONCELET_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Runs {
    /// List runs, the newest last
    #[command(after_help = "Examples:\n  \
        oncelet runs list\n  \
        oncelet runs list --container demo-db -o json")]
    List(RunsList),
    /// Show everything that is remembered of one run
    #[command(after_help = "Examples:\n  \
        oncelet runs show seed-database\n  \
        oncelet runs show 42 -o yaml")]
    Show(RunsShow),
    /// Say how a run ended that nobody saw end (Unknown, Interrupted): it then counts as finished with this exit code
    #[command(after_help = "Examples:\n  \
        oncelet runs mark 42 --exit-code 0")]
    Mark(RunsMark),
    /// Forget a run that is over, in the store and in its container: the program then runs again when its object asks for it
    #[command(after_help = "Examples:\n  \
        oncelet runs forget seed-database\n  \
        oncelet runs forget 42")]
    Forget(RunsForget),
    /// Forget the runs of containers that the engine has not known for an hour; a running daemon does so by itself
    #[command(after_help = "Examples:\n  \
        oncelet runs gc")]
    Gc(RunsGc),
}

#[derive(Subcommand)]
pub(crate) enum Store {
    /// Copy all runs and their output into one file, also while a daemon runs
    #[command(
        after_help = "The file holds what programs have written: keep it as you keep the machine.\n\nExamples:\n  \
        oncelet store backup /backup/oncelet.tar.zst\n  \
        oncelet store backup --force /backup/oncelet.tar.zst"
    )]
    Backup(StoreBackup),
    /// Put a backup in the place of the run store, while no daemon runs
    #[command(
        after_help = "Runs since the backup are taken back from the containers that hold their records. What may run \
        again: docs/how-to/back-up.md.\n\nExamples:\n  \
        oncelet store restore /backup/oncelet.tar.zst\n  \
        oncelet store restore --force /backup/oncelet.tar.zst"
    )]
    Restore(StoreRestore),
}

#[derive(ClapArgs)]
pub(crate) struct StoreBackup {
    /// The file to write
    pub(crate) file: PathBuf,
    /// Replace the file, if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(ClapArgs)]
pub(crate) struct StoreRestore {
    /// A file that oncelet store backup wrote
    pub(crate) file: PathBuf,
    /// Replace a store that has runs: it is moved aside, and its new name is printed
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(ClapArgs)]
pub(crate) struct RunsMark {
    /// A run's number, or a name (seed, default/seed, a run key): its latest run
    pub(crate) run: String,
    /// The exit code that it ended with
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(i64).range(0..=255))]
    pub(crate) exit_code: i64,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(ClapArgs)]
pub(crate) struct RunsForget {
    /// A run's number, or a name (seed, default/seed, a run key): its latest run
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[command(flatten)]
    pub(crate) engine: EngineArg,
}

#[derive(ClapArgs)]
pub(crate) struct RunsGc {
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[command(flatten)]
    pub(crate) engine: EngineArg,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(ClapArgs)]
pub(crate) struct EngineArg {
    /// The container engine: auto, docker, podman, or a URL such as unix:///run/user/1000/podman/podman.sock;
    /// auto takes DOCKER_HOST, or the first socket that is there
    #[arg(long, env = "ONCELET_ENGINE", value_name = "ENGINE", default_value = "auto")]
    pub(crate) engine: Endpoint,
}

#[derive(ClapArgs)]
pub(crate) struct RunsList {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Only runs in this container: its name, its ID or the beginning of it
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(ClapArgs)]
pub(crate) struct RunsShow {
    /// A run's number, or a name (seed, default/seed, a run key): its latest run
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Logs {
    /// A ContainerExec: the run that it shows. Or a run's number, or a name that runs are recorded by: the latest of them
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Go on until the program ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what it wrote to stdout
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Only what it wrote to stderr
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Put before each line when oncelet received it
    #[arg(long)]
    pub(crate) timestamps: bool,
}

/// The name of a namespace.
fn namespace(text: &str) -> Result<String, String> {
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=63).contains(&text.len()) && text.chars().all(is_label) {
        return Ok(text.to_owned());
    }
    Err("expected the name of a namespace: lower-case letters, digits and -".to_owned())
}

/// A time to wait: 30s, 5m, 1h 30m.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "expected a time above zero with its unit, such as 30s or 5m".to_owned())
}

/// A time to keep something: 7d, or what else a time to wait may be.
fn days(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok()).filter(|days| *days > 0);
    let whole = days.map(|days| Duration::from_hours(24 * u64::from(days)));
    whole.map_or_else(|| duration(text), Ok).map_err(|_| "expected a time above zero, such as 12h or 7d".to_owned())
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For people, with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use clap::CommandFactory;

    use super::*;

    /// Every command as `--help` shows it.
    fn reference() -> String {
        let mut text = "# The command line\n\n<!-- Generated from crates/cli/src/args.rs: UPDATE=1 cargo test -p oncelet reference. -->\n"
            .to_owned();
        let mut command = Args::command().term_width(100).disable_help_subcommand(true);
        command.build();
        tell(&mut text, &mut command, "oncelet");
        text
    }

    fn tell(text: &mut String, command: &mut clap::Command, name: &str) {
        let help = command.render_long_help().to_string();
        // The environment of whoever runs this is nobody's reference.
        let plain = |line: &str| match line.trim_start().starts_with("[env: ").then(|| line.split_once('=')) {
            Some(Some((name, _))) => format!("{name}]"),
            _ => line.trim_end().to_owned(),
        };
        let help: Vec<_> = help.lines().map(plain).collect();
        write!(text, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()).unwrap();
        for inner in command.get_subcommands_mut() {
            let name = format!("{name} {}", inner.get_name());
            tell(text, inner, &name);
        }
    }

    #[test]
    fn the_reference_of_the_command_line_is_what_help_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == reference(), "docs/cli.md is old: UPDATE=1 cargo test -p oncelet reference");
    }

    #[test]
    fn a_time_has_a_unit() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1h 30m", 5400), ("2 minutes", 120)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "0s", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
            assert!(days(text).is_err(), "{text}");
        }
        assert_eq!(days("7d"), Ok(Duration::from_hours(168)));
        assert_eq!(days("90m"), Ok(Duration::from_mins(90)));
        assert!(days("0d").is_err());
    }

    #[test]
    fn every_command_has_an_example_or_parts() {
        fn look(command: &clap::Command) {
            for inner in command.get_subcommands() {
                let has_example = inner.get_after_help().is_some_and(|help| help.to_string().contains("Example"));
                let is_whole = inner.has_subcommands() || ["crds", "help"].contains(&inner.get_name());
                assert!(has_example || is_whole, "{} has no example", inner.get_name());
                look(inner);
            }
        }
        look(&Args::command());
    }
}
