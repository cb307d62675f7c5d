//! `verdictctl state show`.

use std::io::{self, Write};

use super::super::print::{Column, Paint, Table, counted, grouped, json, plain};
use super::{ALL, CliError, Client, Exit, FolderArgs, Screen, ask_engine, records, without_engine};
use crate::control::wire::{StateCounts, StateStart, StateView};
use crate::state::import::Report;
use crate::state::peek;
use crate::state::survey::{self, KeptFile};
use crate::state::{Place, State};

pub(super) fn run(
    client: &Client,
    folder: &FolderArgs,
    as_json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let (view, none) = match ask_engine(client)? {
        Ok(view) => (view, None),
        Err(none) => (at_rest(&folder.place()), Some(none)),
    };
    match as_json {
        true => json(screen.out, &view, false)?,
        false => print(&view, screen)?,
    }
    none.map_or(Ok(Exit::Fine), |none| without_engine(&none, screen))
}

/// What a start would find.
fn at_rest(place: &Place) -> StateView {
    let (saved_at, generation) = survey::head(place);
    let loaded = peek(place, ALL);
    let (files, mut troubles) = match survey::files(place) {
        Ok(files) => (files, Vec::new()),
        Err(error) => (Vec::new(), vec![format!("the folder cannot be read: {error}")]),
    };
    troubles.extend(loaded.troubles);
    let mut notes = loaded.notes;
    if loaded.state.is_none() && troubles.is_empty() && notes.is_empty() {
        notes.push("no state is kept there".into());
    }
    StateView {
        path: place.path().display().to_string(),
        generation,
        saved_at,
        files,
        counts: loaded.state.as_ref().map(counts).unwrap_or_default(),
        troubles,
        notes,
        ..StateView::default()
    }
}

fn counts(state: &State) -> StateCounts {
    let enforced = state.bans.iter().filter(|ban| ban.enforced).count();
    StateCounts {
        bans: enforced as u64,
        would_be: (state.bans.len() - enforced) as u64,
        ladder: state.ladder.len() as u64,
        sources: state.sources.len() as u64,
        baseline_ports: state.usual.ports.len() as u64,
    }
}

fn print(view: &StateView, screen: &mut Screen<'_>) -> io::Result<()> {
    let Screen { out, style, .. } = screen;
    writeln!(out, "state      {}", plain(&view.path))?;
    let generation = view.generation.map(|number| format!(", generation {number}"));
    writeln!(
        out,
        "saved      {}{}",
        plain(view.saved_at.as_deref().unwrap_or("never")),
        generation.unwrap_or_default()
    )?;
    if let Some(last) = &view.last_snapshot {
        let (bytes, took) = (counted(last.bytes, "byte"), grouped(last.duration_ms));
        writeln!(out, "snapshot   {}: {bytes} in {took} ms", plain(&last.at))?;
    }
    if let Some(seconds) = view.next_snapshot_seconds {
        writeln!(out, "next       in {} at the latest", counted(seconds, "second"))?;
    }
    writeln!(out, "holds      {}", holds(&view.counts))?;
    if let Some(start) = &view.start {
        print_start(start, *out)?;
    }
    for trouble in &view.troubles {
        writeln!(out, "{}", style.paint(Paint::Red, &plain(trouble)))?;
    }
    for note in &view.notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    print_files(&view.files, screen)
}

fn holds(counts: &StateCounts) -> String {
    let usual = counted(counts.baseline_ports, "port");
    format!("{}, {usual} with a baseline", records(counts))
}

fn print_start(start: &StateStart, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "started    {}, with {}",
        plain(&start.at),
        holds(&start.restored)
    )?;
    if start.expired > 0 {
        writeln!(
            out,
            "           {} had ended meanwhile",
            counted(start.expired, "ban")
        )?;
    }
    if let Some(report) = &start.imported {
        writeln!(
            out,
            "imported   from the Python system: {}",
            plain(&report.summary())
        )?;
    }
    for spared in &start.protected {
        let (source, reason) = (plain(&spared.source), plain(&spared.reason));
        writeln!(out, "           not banned: {source}: {reason}")?;
    }
    for sentence in start.troubles.iter().chain(&start.notes) {
        writeln!(out, "           {}", plain(sentence))?;
    }
    Ok(())
}

fn print_files(files: &[KeptFile], screen: &mut Screen<'_>) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::Left("FILE"),
        Column::Left("WHAT"),
        Column::Right("BYTES"),
        Column::Left("WRITTEN"),
    ]);
    for file in files {
        table.row([
            file.path.clone(),
            file.kind.words().into(),
            grouped(file.bytes),
            file.modified.clone().unwrap_or_default(),
        ]);
    }
    table.print("", screen.style, screen.out)
}

/// What became of an imported file, entry by entry.
pub(super) fn print_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for entry in &report.entries {
        let line = entry.line.map(|line| format!("line {line}: "));
        let text = plain(&entry.text);
        writeln!(
            out,
            "{}{}: {text}",
            line.unwrap_or_default(),
            entry.outcome.words()
        )?;
    }
    if report.unsaid > 0 {
        writeln!(out, "… and {} more", grouped(report.unsaid))?;
    }
    writeln!(out, "{}", plain(&report.summary()))
}
