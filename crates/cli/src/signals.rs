//! Ctrl-C and SIGTERM, for commands that have something to put in order first.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The signals that came, as what a command ends with for them.
pub(crate) struct Signals(mpsc::UnboundedReceiver<u8>);

impl Signals {
    /// From now on signals come here. The second one ends the process at once: the first may wait for something that never
    /// comes.
    pub(crate) fn listen() -> Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut is_first = true;
            loop {
                // Both arms only wait for a signal, which is kept where an arm is dropped.
                let code = tokio::select! {
                    _ = interrupt.recv() => 130_u8,
                    _ = terminate.recv() => 143,
                };
                if !is_first {
                    std::process::exit(i32::from(code));
                }
                is_first = false;
                // Nobody listens where the command ends anyhow.
                let _ = sender.send(code);
            }
        });
        Ok(Self(receiver))
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> u8 {
        match self.0.recv().await {
            Some(code) => code,
            None => std::future::pending().await,
        }
    }
}
