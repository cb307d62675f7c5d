//! `verdictctl status`: is the host protected, and how does the engine run.

use std::io::{self, Write};

use super::print::{Column, Headline, Paint, Style, Table, counted, grouped, json};
use super::{CliError, Client, Exit, Screen, span};
use crate::control::wire::{Reply, Request, StatusReport};

pub(super) fn run(client: &Client, as_json: bool, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let status = match client.ask(&Request::Status {})? {
        Reply::Status(status) => status,
        other => return Err(CliError::other(other)),
    };
    match as_json {
        true => json(screen.out, &status, false)?,
        false => print(&status, screen.style, screen.out)?,
    }
    let well = status.protected && status.degraded.is_empty();
    Ok(if well { Exit::Fine } else { Exit::Degraded })
}

fn print(status: &StatusReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    Headline::of_status(status).print(&status.degraded, style, out)?;
    writeln!(out)?;
    facts(status).print("", style, out)?;
    if !status.attacks.is_empty() {
        writeln!(
            out,
            "\n{}",
            style.paint(Paint::Red, "ports under attack of many sources")
        )?;
        attacks(status).print("  ", style, out)?;
    }
    if !status.blind.is_empty() {
        writeln!(
            out,
            "\n{}",
            style.paint(Paint::Bold, "not known while only copies are watched")
        )?;
        let mut blind = Table::new(&[Column::Left("")]);
        status.blind.iter().for_each(|words| blind.row([words.clone()]));
        blind.print("  ", style, out)?;
    }
    writeln!(out, "\n{}", style.paint(Paint::Bold, "never banned"))?;
    never_banned(status).print("  ", style, out)
}

fn facts(status: &StatusReport) -> Table {
    let mut facts = Table::new(&[Column::Left(""), Column::Left("")]);
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact(
        "engine",
        format!(
            "{}, pid {}, up {}",
            status.version,
            status.pid,
            span::spoken(status.uptime_seconds)
        ),
    );
    fact(
        "config",
        status
            .config
            .clone()
            .unwrap_or_else(|| "built-in defaults".into()),
    );
    fact("mode", format!("{}, preset {}", status.mode, status.preset));
    fact(
        "offenders",
        if status.enforce { "banned" } else { "recorded only" }.into(),
    );
    fact("on loss", on_loss(&status.on_loss));
    fact("backend", status.backend.clone());
    fact("table", status.table.clone());
    fact(
        "workers",
        format!("{}, source hash seed {:#010x}", status.workers, status.seed),
    );
    fact("queues", numbers(&status.queues));
    fact("log groups", numbers(&status.log_groups));
    fact("bans", bans(status));
    facts
}

fn attacks(status: &StatusReport) -> Table {
    let mut table = Table::new(&[Column::Left(""), Column::Left("")]);
    for attack in &status.attacks {
        let words = format!(
            "{} ({}) of {}, {} tolerated, for {}",
            counted(attack.attempts.into(), "attempt"),
            attack.counting,
            counted(attack.sources.into(), "source"),
            attack.threshold,
            span::spoken(attack.seconds)
        );
        table.row([format!("tcp {}", attack.port), words]);
    }
    table
}

fn on_loss(word: &str) -> String {
    match word {
        "open" => "open: without the engine, allowed ports go on".into(),
        "closed" => "closed: without the engine, new connections are dropped".into(),
        other => other.to_owned(),
    }
}

fn bans(status: &StatusReport) -> String {
    let mut text = format!(
        "{} active, {} since the start",
        grouped(status.bans.active),
        grouped(status.bans.total)
    );
    if status.bans.observed > 0 {
        text += &format!(
            ", {} (nothing is dropped)",
            counted(status.bans.observed, "would-be ban")
        );
    }
    text
}

fn numbers(numbers: &[u16]) -> String {
    if numbers.is_empty() {
        return "none".into();
    }
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

fn never_banned(status: &StatusReport) -> Table {
    let mut table = Table::new(&[Column::Left(""), Column::Left("")]);
    for protected in &status.protected_sources {
        table.row([protected.source.clone(), protected.reason.clone()]);
    }
    for network in &status.trusted {
        table.row([network.clone(), "trusted: neither counted nor banned".into()]);
    }
    if status.protected_sources.is_empty() && status.trusted.is_empty() {
        table.row(["nothing".into(), String::new()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::{BanCounts, ProtectedSource};

    #[test]
    fn status_begins_with_what_is_dropped_and_what_is_wrong() {
        let status = StatusReport {
            mode: "firewall".into(),
            enforce: true,
            protected: true,
            on_loss: "open".into(),
            queues: vec![7000, 7001],
            seed: 0xabc,
            bans: BanCounts {
                active: 1,
                total: 1200,
                observed: 2,
            },
            protected_sources: vec![ProtectedSource {
                source: "127.0.0.0/8".into(),
                reason: "loopback".into(),
            }],
            trusted: vec!["10.0.0.0/8".into()],
            blind: vec!["what tomorrow brings".into()],
            degraded: vec!["conntrack is nearly full\x1b[2J".into()],
            ..StatusReport::default()
        };
        let mut out = Vec::new();
        print(&status, Style::default(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "PROTECTED: refused ports and banned sources are dropped (mode firewall)"
        );
        assert_eq!(lines[1], "DEGRADED: conntrack is nearly full\\u{1b}[2J");
        for line in [
            "config      built-in defaults",
            "on loss     open: without the engine, allowed ports go on",
            "queues      7000 7001",
            "log groups  none",
            "bans        1 active, 1,200 since the start, 2 would-be bans (nothing is dropped)",
            "  127.0.0.0/8  loopback",
            "  what tomorrow brings",
            "  10.0.0.0/8   trusted: neither counted nor banned",
        ] {
            assert!(lines.contains(&line), "{line:?} is not in\n{text}");
        }
    }
}
