//! `verdictctl status`: is the host protected, and how does the engine run.

use std::io::{self, Write};
use std::path::PathBuf;

use super::print::{Column, Headline, Paint, Style, Table, counted, grouped, json, plain};
use super::{CliError, Client, Exit, Screen, span};
use crate::control::monitor_view::MonitorView;
use crate::control::upkeep_view::WipeView;
use crate::control::wire::{ApplyState, ApplyView, AuditView, Reply, Request, StatusReport};
use crate::monitor::places::Places;
use crate::monitor::report;
use crate::places;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the monitor says what it found
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
}

impl StatusArgs {
    fn places(&self, client: &Client) -> Places {
        Places {
            state_dir: self.state_dir.clone(),
            runtime_dir: client.path().parent().map(PathBuf::from).unwrap_or_default(),
            ..Places::default()
        }
    }
}

pub(super) fn run(client: &Client, args: &StatusArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let monitor = report::view(&args.places(client));
    let mut status = match client.ask(&Request::Status {}) {
        Ok(Reply::Status(status)) => status,
        Ok(other) => return Err(CliError::other(other)),
        Err(error) => {
            without_engine(monitor.as_ref(), args.json, screen)?;
            return Err(error.into());
        }
    };
    status
        .degraded
        .extend(monitor.iter().flat_map(MonitorView::degraded));
    status.monitor = monitor;
    match args.json {
        true => json(screen.out, &status, false)?,
        false => print(&status, screen.style, screen.out)?,
    }
    let well = status.protected && status.degraded.is_empty();
    Ok(if well { Exit::Fine } else { Exit::Degraded })
}

/// No engine answers: what is known all the same.
fn without_engine(
    monitor: Option<&MonitorView>,
    as_json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let Some(monitor) = monitor.filter(|_| !as_json) else {
        return Ok(());
    };
    for reason in monitor.degraded() {
        writeln!(screen.out, "{}", screen.style.paint(Paint::Red, &plain(&reason)))?;
    }
    let mut facts = Table::new(&[Column::Left(""), Column::Left("")]);
    watched(monitor, &mut |name, value| facts.row([name.to_owned(), value]));
    facts.print("", screen.style, screen.out)?;
    Ok(())
}

/// The lines about the monitor.
fn watched(monitor: &MonitorView, fact: &mut dyn FnMut(&str, String)) {
    let last = |moment: &Option<String>| moment.clone().unwrap_or_else(|| "never".into());
    let mut text = match (monitor.running, monitor.pid) {
        (true, Some(pid)) => format!("running, pid {pid}, last look {}", last(&monitor.last_check)),
        _ => format!("not running, last look {}", last(&monitor.last_check)),
    };
    if monitor.restarts > 0 {
        text += &format!(", {} of the engine", counted(monitor.restarts, "start"));
    }
    fact("monitor", text);
    if let Some(why) = &monitor.last_restart {
        fact("started", why.clone());
    }
    if monitor.running && !monitor.findings.is_empty() {
        fact("found", monitor.findings.join("; "));
    }
    let tested = match monitor.selftest.passed {
        Some(true) => "passed",
        Some(false) => "FAILED",
        None if monitor.selftest.last.is_some() => "could not be run",
        None => "not yet",
    };
    let mut text = format!("{tested}, last run {}", last(&monitor.selftest.last));
    if monitor.selftest.passed != Some(true) && !monitor.selftest.detail.is_empty() {
        text += &format!(": {}", monitor.selftest.detail);
    }
    fact("self-test", text);
    let files = &monitor.integrity;
    let state = match (
        files.violations.is_empty() && files.audit.is_empty(),
        files.sealed,
    ) {
        (false, _) => "VIOLATED",
        (true, true) => "files as they were sealed",
        (true, false) => "files are not sealed (verdictctl harden)",
    };
    fact("integrity", format!("{state}, last look {}", last(&files.last)));
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
    if let Some(apply) = &status.apply {
        fact("apply", applied(apply));
    }
    fact(
        "offenders",
        if status.enforce { "banned" } else { "recorded only" }.into(),
    );
    fact("on loss", on_loss(&status.on_loss));
    fact("backend", status.backend.clone());
    fact("table", status.table.clone());
    if let Some(wipe) = &status.last_wipe {
        fact("last damage", last_wipe(wipe));
    }
    fact(
        "workers",
        format!("{}, source hash seed {:#010x}", status.workers, status.seed),
    );
    fact("queues", numbers(&status.queues));
    fact("log groups", numbers(&status.log_groups));
    fact("bans", bans(status));
    fact("confinement", status.confinement.clone());
    if let Some(audit) = &status.audit {
        fact("audit log", audit_log(audit));
    }
    match &status.monitor {
        Some(monitor) => watched(monitor, &mut |name, value| facts.row([name.to_owned(), value])),
        None => facts.row(["monitor".into(), "not running".into()]),
    }
    facts
}

/// What became of the last `apply`.
fn applied(apply: &ApplyView) -> String {
    let ApplyView { from, to, .. } = apply;
    let at = apply.until.as_deref().unwrap_or("a time unknown");
    match apply.state {
        ApplyState::Pending => format!(
            "ON TRIAL ({from} → {to}): goes back in {} (at {at}) unless \"sudo verdictctl confirm\" comes from a new \
             connection",
            span::spoken(apply.seconds_left.unwrap_or_default())
        ),
        ApplyState::Unsaved => format!("{from} → {to}: confirmed, not saved yet"),
        ApplyState::WentBack => format!(
            "{from} → {to} went back at {at}: {}",
            apply.why.as_deref().unwrap_or("no reason was given")
        ),
    }
}

fn last_wipe(wipe: &WipeView) -> String {
    let by = wipe
        .by
        .as_ref()
        .map_or_else(String::new, |by| format!(" by {}", plain(by)));
    let gap = wipe.gap_ms.map_or_else(
        || "not repaired".to_owned(),
        |ms| format!("repaired after {ms} ms"),
    );
    format!("{}{by}: {}; {gap}", wipe.at, plain(&wipe.found))
}

fn audit_log(audit: &AuditView) -> String {
    let mut text = format!("{}, {}", audit.path, counted(audit.seq, "line"));
    if audit.lost > 0 {
        text += &format!(", {} lost since the start", grouped(audit.lost));
    }
    if audit.on_failure == "closed" {
        text += "; nothing new without it (on_audit_failure = \"closed\")";
    }
    text
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

/// By reason, in the order in which the engine has them; a host can have hundreds of addresses.
fn never_banned(status: &StatusReport) -> Table {
    let mut table = Table::new(&[Column::Left(""), Column::Left("")]);
    let trusted = "trusted: neither counted nor banned";
    let protected = status.protected_sources.iter();
    let all = protected
        .map(|protected| (protected.reason.as_str(), protected.source.as_str()))
        .chain(status.trusted.iter().map(|network| (trusted, network.as_str())));
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (reason, source) in all {
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sources)) => sources.push(source),
            None => groups.push((reason, vec![source])),
        }
    }
    for (reason, sources) in &groups {
        let mut reason = *reason;
        for line in filled(sources) {
            table.row([reason.to_owned(), line]);
            reason = "";
        }
    }
    if groups.is_empty() {
        table.row(["nothing".into(), String::new()]);
    }
    table
}

/// Words one after the other, in lines that leave room for a reason before them.
fn filled(words: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= FILL => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push((*word).to_owned()),
        }
    }
    lines
}

/// Beside the longest usual reason this makes some 100 columns.
const FILL: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::{BanCounts, ProtectedSource};

    fn protected(source: &str, reason: &str) -> ProtectedSource {
        let [source, reason] = [source, reason].map(str::to_owned);
        ProtectedSource { source, reason }
    }

    #[test]
    fn many_addresses_fill_lines_under_one_reason() {
        let own = |n| protected(&format!("10.77.0.{n}"), "own address on lan0");
        let mut status = StatusReport {
            protected_sources: (100..114).map(own).collect(),
            ..StatusReport::default()
        };
        let printed = |status: &StatusReport| {
            let mut out = Vec::new();
            never_banned(status)
                .print("", Style::default(), &mut out)
                .unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = printed(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].starts_with("own address on lan0  10.77.0.100 10.77.0.101 "),
            "{text}"
        );
        assert!(
            lines[1].starts_with("                     10.77.0.105 "),
            "{text}"
        );
        status.protected_sources.clear();
        assert_eq!(printed(&status).trim_end(), "nothing");
    }

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
            protected_sources: vec![
                protected("127.0.0.0/8", "loopback"),
                protected("192.0.2.9", "SSH session listed in utmp"),
                protected("::1", "loopback"),
            ],
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
            "config       built-in defaults",
            "on loss      open: without the engine, allowed ports go on",
            "queues       7000 7001",
            "log groups   none",
            "bans         1 active, 1,200 since the start, 2 would-be bans (nothing is dropped)",
            "  loopback                             127.0.0.0/8 ::1",
            "  what tomorrow brings",
            "  SSH session listed in utmp           192.0.2.9",
            "  trusted: neither counted nor banned  10.0.0.0/8",
        ] {
            assert!(lines.contains(&line), "{line:?} is not in\n{text}");
        }
    }
}
