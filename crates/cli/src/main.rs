//! `oncelet`: runs programs inside containers at most once, and remembers what came of it.

mod args;
mod clock;
mod daemon;
mod doctor;
mod log_part;
mod logging;
mod logs;
mod output;
mod paths;
mod runs;
mod session;
mod stamps;

use std::process::ExitCode;

use anyhow::Result;
use args::{Args, Command};
use clap::Parser;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Up(up) => daemon::up(up).await,
        Command::Controller(controller) => daemon::controller(controller).await,
        Command::Crds => output::yaml_documents(&oncelet_api::crds()),
        Command::Runs(command) => runs::run(command).await,
        Command::Logs(logs) => logs::run(logs).await,
        Command::Doctor(args) => doctor::run(args).await,
    }
}
