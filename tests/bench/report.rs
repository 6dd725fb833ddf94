//! What was measured, as one table for people.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const END: &str = "<!-- end of figures -->";

/// What a row is about, and its unit.
pub(crate) struct Measure {
    /// One of the headings of `docs/performance.md`.
    topic: &'static str,
    name: String,
    unit: &'static str,
}

impl Measure {
    pub(crate) fn of(topic: &'static str, name: &str, unit: &'static str) -> Self {
        Self { topic, name: name.to_owned(), unit }
    }
}

/// What was measured of one side.
pub(crate) struct Figure {
    pub(crate) value: f64,
    /// Between which values nine in ten of the measurements are; nothing where there was one.
    spread: Option<[f64; 2]>,
}

impl Figure {
    /// Of something that was measured once.
    pub(crate) fn once(value: f64) -> Self {
        Self { value, spread: None }
    }

    /// The value below which so large a share of the measurements is.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a vector, from a share of it"
    )]
    pub(crate) fn at(all: &[f64], share: f64) -> Self {
        let mut sorted = all.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (below, outside) = (((sorted.len() - 1) as f64 * share) as usize, sorted.len() / 20);
        let spread = (sorted.len() > 1).then(|| [sorted[outside], sorted[sorted.len() - 1 - outside]]);
        Self { value: sorted[below], spread }
    }

    pub(crate) fn median(all: &[f64]) -> Self {
        Self::at(all, 0.5)
    }

    fn with_unit(&self, unit: &str) -> String {
        let spread = self.spread.map_or_else(String::new, |[low, high]| format!(" ({low:.2}–{high:.2})"));
        format!("{:.2} {unit}{spread}", self.value)
    }
}

/// Rows of ratios.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<String>,
}

impl Report {
    /// A row that meets its goal where `ours / theirs` is at most `goal`.
    pub(crate) fn row(&mut self, measure: Measure, ours: &Figure, theirs: &Figure, goal: f64) {
        let ratio = ours.value / theirs.value;
        self.push(measure, [ours, theirs], ratio, &format!("≤ {goal}"), ratio / goal - 1.0);
    }

    /// A row where more is better: it meets its goal where `ours / theirs` is at least `goal`.
    pub(crate) fn rate(&mut self, measure: Measure, ours: &Figure, theirs: &Figure, goal: f64) {
        let ratio = ours.value / theirs.value;
        self.push(measure, [ours, theirs], ratio, &format!("≥ {goal}"), 1.0 - ratio / goal);
    }

    /// `short` is by how much of the goal it is missed, where it is.
    fn push(&mut self, measure: Measure, figures: [&Figure; 2], ratio: f64, goal: &str, short: f64) {
        let Measure { topic, name, unit } = measure;
        let [ours, theirs] = figures.map(|figure| figure.with_unit(unit));
        let met = if short <= 0.0 {
            "met".to_owned()
        } else {
            let anchor = topic.replace(' ', "-");
            format!("**missed** by {:.0} %, [why](performance.md#{anchor})", short * 100.0)
        };
        self.rows.push(format!("| {topic}: {name} | {ours} | {theirs} | {ratio:.3} | {goal} | {met} |"));
    }
}

/// A table of `docs/benchmarks.md`.
pub(crate) struct Section {
    /// Tells its place on the page.
    pub(crate) name: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) theirs: &'static str,
    pub(crate) report: Report,
}

impl Section {
    /// Puts the table into its place.
    pub(crate) fn write(&self) {
        let begin = format!("<!-- figures of {}: written by make bench -->", self.name);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        let old = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = old.split_once(&begin).expect("docs/benchmarks.md has a place for the figures");
        let (_, after) = rest.split_once(END).expect("the place for the figures has an end");
        std::fs::write(path, format!("{before}{begin}\n\n{self}\n{END}{after}")).unwrap();
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "On {}:\n", machine())?;
        writeln!(f, "| what | {} | {} | ratio | goal | |\n|---|---|---|---|---|---|", self.ours, self.theirs)?;
        self.report.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

/// The machine, as far as it bears on the figures.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let mut text = format!("{cores} cores");
    if !model.is_empty() {
        write!(text, " of {model}").unwrap();
    }
    let uname = Command::new("uname").args(["-s", "-r"]).output().map(|output| output.stdout).unwrap_or_default();
    write!(text, ", {}", String::from_utf8_lossy(&uname).trim()).unwrap();
    text
}
