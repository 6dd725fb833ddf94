//! Tables for people: upper-case headings, columns three spaces apart, as kubectl has them. On a terminal they fit its
//! width, and what went wrong stands out; into a pipe or a file everything goes whole and plain.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns between two cells.
const GAP: usize = 3;

/// No column is made narrower than this; where that is still too much, lines are longer than the terminal.
const NARROWEST: usize = 8;

/// What goes wrong is loud, what goes well is plain.
pub(crate) const LOUD: Style = AnsiColor::Red.on_default().bold();
const BUSY: Style = AnsiColor::Cyan.on_default();

/// What is written into a row and a column.
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Something that went wrong.
    pub(crate) fn loud(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: LOUD }
    }

    /// Something that is still going on.
    pub(crate) fn busy(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: BUSY }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// Rows under headings.
pub(crate) struct Table {
    /// The first one holds the headings.
    rows: Vec<Vec<Cell>>,
    last_is_whole: bool,
}

impl Table {
    pub(crate) fn new(headings: Vec<&'static str>) -> Self {
        Self { rows: vec![headings.into_iter().map(Cell::from).collect()], last_is_whole: false }
    }

    /// Sentences stand in the last column: they are never cut.
    pub(crate) fn with_sentences_last(mut self) -> Self {
        self.last_is_whole = true;
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// Prints it to stdout. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` are honoured.
    pub(crate) fn print(&self) -> Result<()> {
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
        let mut out = anstream::stdout().lock();
        write!(out, "{}", self.render(width))?;
        Ok(())
    }

    /// As it is printed where lines have `available` columns.
    fn render(&self, available: Option<usize>) -> String {
        let mut widths = vec![0; self.rows[0].len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        if let Some(available) = available {
            // A sentence that does not fit goes on in the next line, which is the terminal's matter.
            let cut = if self.last_is_whole { widths.len() - 1 } else { widths.len() };
            fit(&mut widths[..cut], available);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut pad = 0;
            for (Cell { text: whole, style }, width) in row.iter().zip(&widths) {
                let cell = cut(whole, *width);
                if !cell.is_empty() {
                    text.extend(std::iter::repeat_n(' ', pad));
                    pad = 0;
                }
                pad += width.saturating_sub(cell.width()) + GAP;
                text.extend([style.render().to_string(), cell, style.render_reset().to_string()]);
            }
            text.push('\n');
        }
        text
    }
}

/// Takes from the widest columns until all fit.
fn fit(widths: &mut [usize], available: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > available
        && let Some(widest) = widths.iter_mut().max()
        && *widest > NARROWEST
    {
        *widest -= 1;
    }
}

/// `text` in at most `width` columns; what is missing is shown by an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let kept = text.chars().take_while(|char| {
        used += char.width().unwrap_or(0);
        used <= width
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Table {
        let mut table = Table::new(vec!["RUN", "NAME", "STATE", "EXIT"]);
        table.row(vec!["1".into(), "default/seed-the-database".into(), "Finished".into(), "0".into()]);
        table.row(vec!["12".into(), "default/数据库迁移".into(), Cell::loud("Unknown"), "".into()]);
        table
    }

    /// Wide characters take two columns, and no line ends in spaces.
    #[test]
    fn columns_stand_under_their_headings() {
        let plain = anstream::adapter::strip_str(&runs().render(None)).to_string();
        assert_eq!(
            plain,
            "RUN   NAME                        STATE      EXIT\n\
             1     default/seed-the-database   Finished   0\n\
             12    default/数据库迁移          Unknown\n"
        );
    }

    /// The widest column gives way, and shows that it did.
    #[test]
    fn a_table_fits_the_terminal() {
        let plain = anstream::adapter::strip_str(&runs().render(Some(40))).to_string();
        assert_eq!(
            plain,
            "RUN   NAME               STATE      EXIT\n\
             1     default/seed-th…   Finished   0\n\
             12    default/数据库…    Unknown\n"
        );
        assert!(plain.lines().all(|line| line.width() <= 40), "{plain}");
    }

    /// Where nothing helps, nothing is taken beyond what can be read.
    #[test]
    fn no_column_gets_too_narrow_to_be_read() {
        let plain = anstream::adapter::strip_str(&runs().render(Some(5))).to_string();
        assert!(plain.contains("default…"), "{plain}");
    }

    /// Only what went wrong is coloured.
    #[test]
    fn failure_is_loud_and_success_is_quiet() {
        let text = runs().render(None);
        let coloured: Vec<_> = text.lines().filter(|line| line.contains("\u{1b}[31m")).collect();
        assert_eq!(coloured.len(), 1, "{text}");
        assert!(coloured[0].contains("Unknown"), "{text}");
    }

    /// A finding is read to its end, however narrow the terminal.
    #[test]
    fn sentences_are_never_cut() {
        let mut table = Table::new(vec!["CHECK", "FINDING"]).with_sentences_last();
        let sentence = "no engine answers at unix:///var/run/docker.sock";
        table.row(vec!["engine".into(), sentence.into()]);
        assert!(table.render(Some(20)).contains(sentence));
    }
}
