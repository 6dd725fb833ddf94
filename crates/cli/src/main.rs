//! `oncelet`: runs programs inside containers at most once, and remembers what came of it.

mod advice;
mod args;
mod ask;
mod clock;
mod commands;
mod credentials;
mod daemon;
mod doctor;
mod explain;
mod follow;
mod inside;
mod log_part;
mod logging;
mod objects;
mod output;
mod page;
mod paths;
mod policy;
mod progress;
mod run_log;
mod runs;
mod session;
mod signals;
mod stamps;
mod stdin;
mod store;
mod stored_log;
mod table;
mod target;
mod telemetry;
mod traces;

use std::process::ExitCode;

use anyhow::Result;
use args::{Args, Command, Crds, Credentials, PolicyCommand};
use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    let args = Args::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args)));
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let loud = table::LOUD;
            anstream::eprintln!("{loud}error:{loud:#} {}", output::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Up(up) => daemon::up(up).await,
        Command::Controller(controller) => daemon::controller(controller).await,
        Command::Crds(Crds { warnings: false }) => output::yaml_documents(&oncelet_api::crds()),
        Command::Crds(Crds { warnings: true }) => {
            let (policy, binding) = oncelet_api::admission_warnings();
            output::yaml_documents(&[policy]).and_then(|()| output::yaml_documents(&[binding]))
        }
        Command::Runs(command) => runs::run(command).await,
        Command::Store(command) => store::run(command).await,
        Command::Logs(args) => commands::logs::logs(args).await,
        Command::Wait(args) => return Box::pin(commands::wait::wait(args)).await,
        Command::Exec(args) => return Box::pin(commands::exec::exec(args)).await,
        Command::Rerun(args) => return Box::pin(commands::wait::rerun(args)).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "oncelet", &mut std::io::stdout());
            Ok(())
        }
        Command::Page(args) => page::print_address(args).await,
        Command::Policy(PolicyCommand::Check(args)) => {
            let is_allowed = policy::check(args).await?;
            return Ok(if is_allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Credentials(Credentials::Rotate(args)) => credentials::rotate(args),
        Command::Doctor(args) => doctor::run(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}
