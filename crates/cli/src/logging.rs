//! The daemons' log, on stderr.

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Writes the log to stderr from now on.
pub(crate) fn init(format: LogFormat) -> Result<()> {
    let filter = match std::env::var("ONCELET_LOG") {
        Ok(filter) => EnvFilter::try_new(&filter).with_context(|| format!("ONCELET_LOG={filter:?} is no filter"))?,
        Err(_) => EnvFilter::new("info"),
    };
    // bollard logs request bodies, and with them the values of secrets.
    let filter = filter.add_directive("bollard=off".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            // As tables and errors do: NO_COLOR, CLICOLOR, and whether it is a terminal.
            let colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            builder.with_ansi(colour).with_target(false).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
