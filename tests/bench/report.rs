//! What was measured, as one table for people.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const END: &str = "<!-- end of figures -->";

/// What a row is about, and its unit.
pub(crate) struct Measure {
    name: String,
    unit: &'static str,
}

impl Measure {
    pub(crate) fn seconds(name: &str) -> Self {
        Self { name: name.to_owned(), unit: "s" }
    }

    pub(crate) fn milliseconds(name: &str) -> Self {
        Self { name: name.to_owned(), unit: "ms" }
    }

    pub(crate) fn mebibytes(name: &str) -> Self {
        Self { name: name.to_owned(), unit: "MiB" }
    }

    pub(crate) fn per_second(name: &str) -> Self {
        Self { name: name.to_owned(), unit: "/s" }
    }

    pub(crate) fn mebibytes_per_second(name: &str) -> Self {
        Self { name: name.to_owned(), unit: "MiB/s" }
    }

    pub(crate) fn kibibytes(name: &str) -> Self {
        Self { name: name.to_owned(), unit: "KiB" }
    }
}

/// Rows of ratios.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<String>,
}

impl Report {
    /// A row that meets its goal where `ours / theirs` is at most `goal`.
    pub(crate) fn row(&mut self, measure: Measure, ours: f64, theirs: f64, goal: f64) {
        self.push(measure, [ours, theirs], '≤', goal, ours / theirs <= goal);
    }

    /// A row where more is better: it meets its goal where `ours / theirs` is at least `goal`.
    pub(crate) fn rate(&mut self, measure: Measure, ours: f64, theirs: f64, goal: f64) {
        self.push(measure, [ours, theirs], '≥', goal, ours / theirs >= goal);
    }

    fn push(&mut self, measure: Measure, [ours, theirs]: [f64; 2], sign: char, goal: f64, is_met: bool) {
        let Measure { name, unit } = measure;
        let ratio = ours / theirs;
        let met = if is_met { "met" } else { "**missed**" };
        self.rows
            .push(format!("| {name} | {ours:.2} {unit} | {theirs:.2} {unit} | {ratio:.3} | {sign} {goal} | {met} |"));
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
