//! How answers look: plain text, aligned tables, bars, JSON, into any `Write`.
//!
//! Strings that came from elsewhere go through [`plain`]: a reason or an argument cannot move the cursor, recolour
//! the terminal or reverse the text.

use std::io::{self, Write};

use serde::Serialize;

use crate::control::wire::{StatsView, StatusReport};
pub(super) use crate::notify::text::grouped;
pub use crate::notify::text::plain;
use crate::notify::text::plain_json;

/// How answers look; decided by where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Bars and signs beyond ASCII, and `--watch` repaints: a person looks.
    pub rich: bool,
    /// Colours.
    pub colour: bool,
}

impl Style {
    /// Rich on a terminal; coloured there unless `no_colour` (<https://no-color.org>).
    pub fn of(terminal: bool, no_colour: bool) -> Style {
        Style {
            rich: terminal,
            colour: terminal && !no_colour,
        }
    }

    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{}m{text}\x1b[0m", paint as u8),
            false => text.to_owned(),
        }
    }

    /// A bar of at most [`BAR`] cells for `share` of the whole; empty where nobody looks.
    pub(super) fn bar(self, share: f64) -> String {
        if !self.rich {
            return String::new();
        }
        let eighths = (share.clamp(0.0, 1.0) * BAR as f64 * 8.0).round() as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.extend(EIGHTHS.get(eighths % 8).filter(|cell| **cell != ' '));
        bar
    }

    pub(super) fn microseconds(self) -> &'static str {
        if self.rich { "µs" } else { "us" }
    }
}

/// SGR codes of ECMA-48.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Bold = 1,
    Faint = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// Cells of a full bar.
pub(super) const BAR: usize = 24;

/// JSON on several lines, or on one; what [`plain`] would escape is escaped as JSON does.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize, one_line: bool) -> io::Result<()> {
    let text = if one_line {
        serde_json::to_string(value)
    } else {
        serde_json::to_string_pretty(value)
    };
    writeln!(out, "{}", plain_json(&text?))
}

/// Whether anything is dropped, in words that cannot be misread, and how good that is.
pub(super) struct Headline {
    pub(super) paint: Paint,
    pub(super) text: String,
}

impl Headline {
    pub(super) fn of_status(status: &StatusReport) -> Headline {
        Headline::new(&status.mode, status.enforce, status.protected, status.bans.active)
    }

    pub(super) fn of_stats(stats: &StatsView) -> Headline {
        Headline::new(&stats.mode, stats.enforce, stats.protected, stats.bans.active)
    }

    fn new(mode: &str, enforce: bool, protected: bool, bans: u64) -> Headline {
        let mode = plain(mode);
        let filters = mode != "detection_only";
        let (paint, text) = match (enforce, filters, protected) {
            (false, false, _) => (Paint::Yellow, observing(bans)),
            (_, _, false) => (
                Paint::Red,
                format!("UNPROTECTED: what should be dropped may pass (mode {mode}), see below"),
            ),
            (true, true, _) => (
                Paint::Green,
                format!("PROTECTED: refused ports and banned sources are dropped (mode {mode})"),
            ),
            (true, false, _) => (
                Paint::Green,
                format!("PROTECTED: banned sources are dropped, no port is filtered (mode {mode})"),
            ),
            (false, true, _) => (
                Paint::Yellow,
                format!(
                    "PORT FILTER ONLY: offenders are recorded, not banned (mode {mode}, bans.enforce = false)"
                ),
            ),
        };
        Headline { paint, text }
    }

    /// The line, and one more for each thing that is degraded.
    pub(super) fn print(&self, degraded: &[String], style: Style, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", style.paint(self.paint, &self.text))?;
        for word in degraded {
            writeln!(
                out,
                "{}",
                style.paint(Paint::Red, &format!("DEGRADED: {}", plain(word)))
            )?;
        }
        Ok(())
    }
}

/// An operator's bans are enforced in every mode: "nothing" must stay true.
fn observing(bans: u64) -> String {
    match bans {
        0 => "OBSERVING ONLY: nothing is dropped (bans.enforce = false)".into(),
        _ => format!(
            "OBSERVING ONLY: nothing is dropped but what you banned yourself, {} (bans.enforce = false)",
            counted(bans, "ban")
        ),
    }
}

/// `1 ban`, `2 bans`.
pub(super) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Rows of cells, printed with columns as wide as their widest cell.
pub(super) struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
}

/// A heading and the side its cells lean to.
pub(super) enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }

    fn aligned(&self, cell: &str, width: usize) -> String {
        match self {
            Column::Left(_) => format!("{cell:<width$}"),
            Column::Right(_) => format!("{cell:>width$}"),
        }
    }
}

impl Table {
    pub(super) fn new(columns: &'static [Column]) -> Table {
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// One more row, a cell a column; cells are printed [`plain`].
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// Headings (if there are any) and rows, each indented by `indent`.
    pub(super) fn print(&self, indent: &str, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width(column)).collect();
        if self.columns.iter().any(|column| !column.heading().is_empty()) {
            let headings = self.columns.iter().map(Column::heading);
            writeln!(
                out,
                "{indent}{}",
                style.paint(Paint::Faint, &self.line(headings, &widths))
            )?;
        }
        for row in &self.rows {
            writeln!(
                out,
                "{indent}{}",
                self.line(row.iter().map(String::as_str), &widths)
            )?;
        }
        Ok(())
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells
            .max()
            .unwrap_or(0)
            .max(self.columns[column].heading().chars().count())
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
        let aligned: Vec<String> = (self.columns.iter().zip(cells).zip(widths))
            .map(|((column, cell), width)| column.aligned(cell, *width))
            .collect();
        aligned.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        assert_eq!(
            plain("a\x1b[2Jb\r\n\u{9b}m\u{202e}x\u{7f}"),
            "a\\u{1b}[2Jb\\r\\n\\u{9b}m\\u{202e}x\\u{7f}"
        );
        assert_eq!(plain("said \"no\" — c'est ça \\"), "said \"no\" — c'est ça \\");
        let shown = text_of(|out| json(out, &"\x1b\u{9b}\u{202e}é\u{10ffff}", true));
        assert_eq!(shown, "\"\\u001b\\u009b\\u202eé\\udbff\\udfff\"\n");
        assert_eq!(
            serde_json::from_str::<String>(&shown).unwrap(),
            "\x1b\u{9b}\u{202e}é\u{10ffff}"
        );
    }

    #[test]
    fn the_headline_says_whether_anything_is_dropped() {
        let line = |mode, enforce, protected, bans| Headline::new(mode, enforce, protected, bans).text;
        assert_eq!(
            line("detection_only", false, false, 0),
            "OBSERVING ONLY: nothing is dropped (bans.enforce = false)"
        );
        assert!(line("detection_only", false, false, 1).contains("but what you banned yourself, 1 ban ("));
        assert!(
            line("detection_only", true, true, 0)
                .starts_with("PROTECTED: banned sources are dropped, no port")
        );
        assert!(line("firewall", true, true, 0).starts_with("PROTECTED: refused ports and banned"));
        assert!(line("firewall", false, true, 0).starts_with("PORT FILTER ONLY"));
        assert!(line("corporate", true, false, 9).starts_with("UNPROTECTED"));
    }

    #[test]
    fn tables_are_aligned_and_end_without_spaces() {
        let mut table = Table::new(&[Column::Left("NAME"), Column::Right("N"), Column::Left("NOTE")]);
        table.row(["a".into(), "10".into(), "x".into()]);
        table.row(["longer".into(), "9".into(), String::new()]);
        let text = text_of(|out| table.print("  ", Style::default(), out));
        assert_eq!(text, "  NAME     N  NOTE\n  a       10  x\n  longer   9\n");
    }

    #[test]
    fn bars_and_colours_are_for_terminals() {
        let plain = Style::of(false, false);
        assert_eq!(
            (plain.bar(1.0), plain.paint(Paint::Red, "x")),
            (String::new(), "x".into())
        );
        let rich = Style::of(true, true);
        assert_eq!(
            (rich.bar(0.5), rich.paint(Paint::Red, "x")),
            ("█".repeat(12), "x".into())
        );
        assert_eq!(rich.bar(0.0), "");
        assert_eq!(rich.bar(0.005), "▏");
        assert_eq!(Style::of(true, false).paint(Paint::Red, "x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
