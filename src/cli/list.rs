//! `verdictctl list`: every live ban.

use std::io::{self, Write};

use super::print::{Column, Style, Table, json};
use super::{CliError, Client, Exit, Screen, span};
use crate::control::wire::{BanView, Reply, Request};

pub(super) fn run(client: &Client, as_json: bool, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let bans = match client.ask(&Request::List {})? {
        Reply::List(bans) => bans,
        other => return Err(CliError::other(other)),
    };
    match as_json {
        true => json(screen.out, &bans, false)?,
        false => print(&bans, screen.style, screen.out)?,
    }
    Ok(Exit::Fine)
}

fn print(bans: &[BanView], style: Style, out: &mut dyn Write) -> io::Result<()> {
    if bans.is_empty() {
        return writeln!(out, "no bans");
    }
    let mut table = Table::new(&[
        Column::Left("SOURCE"),
        Column::Left("REASON"),
        Column::Right("STEP"),
        Column::Right("OFFENCES"),
        Column::Left("SINCE"),
        Column::Right("LEFT"),
        Column::Left("DROPPED"),
        Column::Left("NOTE"),
    ]);
    for ban in bans {
        table.row([
            ban.source.clone(),
            ban.reason.clone(),
            if ban.step == 0 {
                "-".into()
            } else {
                ban.step.to_string()
            },
            ban.offences.to_string(),
            ban.since.clone(),
            left(ban),
            if ban.enforced { "yes" } else { "no (would-be)" }.into(),
            ban.note.clone().unwrap_or_default(),
        ]);
    }
    table.print("", style, out)
}

/// Time left, or that there is no end.
pub(super) fn left(ban: &BanView) -> String {
    ban.remaining_seconds
        .map_or_else(|| "for ever".into(), span::spoken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(bans: &[BanView]) -> String {
        let mut out = Vec::new();
        print(bans, Style::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bans_are_a_table() {
        let scan = BanView {
            source: "203.0.113.9".into(),
            reason: "port_scanning".into(),
            step: 1,
            offences: 1,
            since: "2026-03-01T12:00:00Z".into(),
            until: Some("2026-03-01T12:10:00Z".into()),
            remaining_seconds: Some(598),
            enforced: true,
            note: None,
        };
        let manual = BanView {
            source: "2001:db8::/64".into(),
            reason: "manual".into(),
            step: 0,
            remaining_seconds: None,
            enforced: false,
            note: Some("noisy\nneighbour".into()),
            ..scan.clone()
        };
        assert_eq!(
            text_of(&[scan, manual]),
            "\
SOURCE         REASON         STEP  OFFENCES  SINCE                     LEFT  DROPPED        NOTE
203.0.113.9    port_scanning     1         1  2026-03-01T12:00:00Z     9m58s  yes
2001:db8::/64  manual            -         1  2026-03-01T12:00:00Z  for ever  no (would-be)  noisy\\nneighbour
"
        );
    }

    #[test]
    fn no_bans_are_said_in_words() {
        assert_eq!(text_of(&[]), "no bans\n");
    }
}
