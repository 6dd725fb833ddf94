//! How far a run is, on a terminal, below what it writes.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);
const WAITS: &str = "{spinner} {wide_msg} {elapsed}";
const RUNS: &str = "{spinner} {msg}, {elapsed}, {bytes} written";

/// A line on stderr that says what is waited for, how long, and how much came meanwhile. Where stderr is no terminal there is
/// none. Clones share it.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<State>>);

struct State {
    template: &'static str,
    message: String,
    since: Instant,
    bytes: u64,
    /// `None` in the middle of a line of the program's, where there is no place for another one.
    bar: Option<ProgressBar>,
}

impl Line {
    pub(crate) fn begin() -> Self {
        Self(Arc::new(Mutex::new(State {
            template: WAITS,
            message: String::new(),
            since: Instant::now(),
            bytes: 0,
            bar: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program does not run yet.
    pub(crate) fn waits(&self, message: String) {
        let mut state = self.state();
        (state.template, state.message) = (WAITS, message);
        state.hide();
        state.show();
    }

    /// It runs, for as long as this is shown.
    pub(crate) fn runs(&self, message: String) {
        let mut state = self.state();
        (state.template, state.message, state.since) = (RUNS, message, Instant::now());
        state.hide();
        state.show();
    }

    /// Says something above the line, to whatever stderr is.
    pub(crate) fn say(&self, text: &str) {
        let mut state = self.state();
        state.hide();
        eprintln!("{text}");
        state.show();
    }

    /// Writes output of the program above the line.
    pub(crate) fn write(&self, to: &mut impl Write, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.hide();
        to.write_all(bytes)?;
        to.flush()?;
        state.bytes += bytes.len() as u64;
        if bytes.last().is_none_or(|byte| *byte == b'\n') {
            state.show();
        }
        Ok(())
    }

    /// Takes it away.
    pub(crate) fn end(&self) {
        self.state().hide();
    }
}

impl State {
    fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new_spinner().with_elapsed(self.since.elapsed()).with_position(self.bytes);
        // Only a template with a mistake in it is refused, and then the usual one does.
        if let Ok(style) = ProgressStyle::with_template(self.template) {
            bar.set_style(style);
        }
        bar.set_message(self.message.clone());
        bar.enable_steady_tick(TICK);
        self.bar = Some(bar);
    }
}
