//! `verdictctl stats`: what the engine decided, how fast, and what was lost.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::args::StatsArgs;
use super::print::{Column, Headline, Paint, Style, Table, counted, grouped, json, plain};
use super::{CliError, Client, Exit, Screen, span};
use crate::control::wire::{HandshakeCounts, Losses, Reply, Request, StatsView};
use crate::core::verdict::Reason;

pub(super) fn run(client: &Client, wanted: StatsArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let request = Request::Stats { top: wanted.top };
    request
        .check()
        .map_err(|error| CliError::Usage(error.to_string()))?;
    if wanted.watch {
        return watch(client, &request, wanted.json, screen);
    }
    let stats = ask(client, &request)?;
    match wanted.json {
        true => json(screen.out, &stats, false)?,
        false => print(&stats, &Pace::since_start(&stats), screen.style, screen.out)?,
    }
    Ok(Exit::Fine)
}

/// Until the operator ends it, the engine does, or nobody reads any more.
fn watch(
    client: &Client,
    request: &Request,
    as_json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let mut before: Option<(StatsView, Instant)> = None;
    loop {
        let stats = ask(client, request)?;
        let at = Instant::now();
        if as_json {
            json(screen.out, &stats, true)?;
        } else {
            let pace = match &before {
                Some((earlier, then)) => Pace::between(earlier, at - *then),
                None => Pace::since_start(&stats),
            };
            // Home, print over what stands there, clear the rest: no flicker.
            let mut page = Vec::new();
            print(&stats, &pace, screen.style, &mut page)?;
            repaint(&page, screen)?;
        }
        screen.out.flush()?;
        before = Some((stats, at));
        thread::sleep(REFRESH);
    }
}

fn repaint(page: &[u8], screen: &mut Screen<'_>) -> io::Result<()> {
    if !screen.style.rich {
        screen.out.write_all(page)?;
        return writeln!(screen.out);
    }
    screen.out.write_all(b"\x1b[H")?;
    for line in page.split_inclusive(|byte| *byte == b'\n') {
        screen.out.write_all(line.strip_suffix(b"\n").unwrap_or(line))?;
        screen.out.write_all(b"\x1b[K\n")?;
    }
    screen.out.write_all(b"\x1b[J")
}

fn ask(client: &Client, request: &Request) -> Result<StatsView, CliError> {
    match client.ask(request)? {
        Reply::Stats(stats) => Ok(*stats),
        other => Err(CliError::other(other)),
    }
}

/// Against what rates are measured.
struct Pace<'a> {
    earlier: Option<&'a StatsView>,
    seconds: f64,
}

impl<'a> Pace<'a> {
    fn since_start(stats: &StatsView) -> Pace<'static> {
        Pace {
            earlier: None,
            seconds: stats.uptime_seconds.max(1) as f64,
        }
    }

    fn between(earlier: &'a StatsView, elapsed: Duration) -> Pace<'a> {
        Pace {
            earlier: Some(earlier),
            seconds: elapsed.as_secs_f64().max(0.001),
        }
    }

    /// `count` of now, per second. An engine that started anew counts from zero.
    fn rate(&self, count: u64, of: impl Fn(&StatsView) -> u64) -> String {
        let before = self.earlier.map_or(0, of);
        let rate = count.checked_sub(before).unwrap_or(count) as f64 / self.seconds;
        if rate >= 100.0 {
            format!("{}/s", grouped(rate.round() as u64))
        } else {
            format!("{rate:.1}/s")
        }
    }

    fn words(&self) -> &'static str {
        if self.earlier.is_some() {
            "rates of the last second"
        } else {
            "rates since the start"
        }
    }
}

fn print(stats: &StatsView, pace: &Pace<'_>, style: Style, out: &mut dyn Write) -> io::Result<()> {
    Headline::of_stats(stats).print(&stats.degraded, style, out)?;
    let up = span::spoken(stats.uptime_seconds);
    writeln!(
        out,
        "{}",
        style.paint(Paint::Faint, &format!("up {up}, {}", pace.words()))
    )?;
    section("verdicts", &verdicts(stats, pace, style), style, out)?;
    section("packets by reason", &reasons(stats, pace, style), style, out)?;
    let kinds = kinds(stats, pace, style);
    if stats.kinds.values().any(|count| *count > 0) {
        section("evidence by kind", &kinds, style, out)?;
    }
    section("copies (not held)", &copies(stats, pace), style, out)?;
    section(
        "latency, bans, sources, handshakes",
        &facts(stats, style),
        style,
        out,
    )?;
    if !stats.queues.is_empty() {
        section("queues", &queues(stats), style, out)?;
    }
    if !stats.top_sources.is_empty() {
        section("busiest sources", &top_sources(stats), style, out)?;
    }
    print_losses(&stats.losses, style, out)
}

fn section(title: &str, table: &Table, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Paint::Bold, title))?;
    table.print("  ", style, out)
}

const COUNTS: &[Column] = &[
    Column::Left(""),
    Column::Right(""),
    Column::Right(""),
    Column::Right(""),
    Column::Left(""),
];

fn count(table: &mut Table, name: &str, count: u64, whole: u64, rate: String, style: Style) {
    let share = if whole > 0 {
        count as f64 / whole as f64
    } else {
        0.0
    };
    table.row([
        name.to_owned(),
        grouped(count),
        format!("{:.1}%", share * 100.0),
        rate,
        style.bar(share),
    ]);
}

fn verdicts(stats: &StatsView, pace: &Pace<'_>, style: Style) -> Table {
    let mut table = Table::new(COUNTS);
    let (accept, drop) = (stats.verdicts.accept, stats.verdicts.drop);
    let whole = accept + drop;
    count(
        &mut table,
        "accept",
        accept,
        whole,
        pace.rate(accept, |earlier| earlier.verdicts.accept),
        style,
    );
    count(
        &mut table,
        "drop",
        drop,
        whole,
        pace.rate(drop, |earlier| earlier.verdicts.drop),
        style,
    );
    table
}

/// In the order of the decision, then whatever a newer engine counts.
fn reasons(stats: &StatsView, pace: &Pace<'_>, style: Style) -> Table {
    let mut table = Table::new(COUNTS);
    let whole = stats.reasons.values().sum();
    let known = Reason::ALL.map(Reason::word);
    let newer = stats
        .reasons
        .keys()
        .map(String::as_str)
        .filter(|word| !known.contains(word));
    for word in known.into_iter().chain(newer) {
        let of = |view: &StatsView| view.reasons.get(word).copied().unwrap_or(0);
        count(
            &mut table,
            word,
            of(stats),
            whole,
            pace.rate(of(stats), of),
            style,
        );
    }
    table
}

/// The most frequent first; kinds that never came are left out.
fn kinds(stats: &StatsView, pace: &Pace<'_>, style: Style) -> Table {
    let mut table = Table::new(COUNTS);
    let whole = stats.kinds.values().sum();
    let mut seen: Vec<_> = stats.kinds.iter().filter(|(_, count)| **count > 0).collect();
    seen.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    for (word, number) in seen {
        let of = |view: &StatsView| view.kinds.get(word).copied().unwrap_or(0);
        count(
            &mut table,
            &plain(word),
            *number,
            whole,
            pace.rate(*number, of),
            style,
        );
    }
    table
}

fn copies(stats: &StatsView, pace: &Pace<'_>) -> Table {
    let mut table = Table::new(&[
        Column::Left(""),
        Column::Right(""),
        Column::Right(""),
        Column::Left(""),
    ]);
    let (refused, observed) = (stats.copies.refused, stats.copies.observed);
    let mut copy =
        |name: &str, count, rate, what: &str| table.row([name.into(), grouped(count), rate, what.into()]);
    copy(
        "refused",
        refused,
        pace.rate(refused, |earlier| earlier.copies.refused),
        "dropped by the kernel's port filter",
    );
    copy(
        "observed",
        observed,
        pace.rate(observed, |earlier| earlier.copies.observed),
        "passed, only watched",
    );
    table
}

fn facts(stats: &StatsView, style: Style) -> Table {
    let mut table = Table::new(&[Column::Left(""), Column::Left("")]);
    let latency = &stats.verdict_latency_us;
    let percentile = |us: Option<f64>| match us {
        Some(us) => format!("{us:.1} {}", style.microseconds()),
        None => "-".into(),
    };
    let percentiles = [
        ("p50", latency.p50),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
    ]
    .map(|(p, us)| format!("{p} {}", percentile(us)));
    table.row(["latency".into(), percentiles.join("   ")]);
    table.row(["bans".into(), bans(stats)]);
    table.row(["sources".into(), sources(stats)]);
    table.row(["handshakes".into(), handshakes(&stats.handshakes)]);
    table
}

fn handshakes(counts: &HandshakeCounts) -> String {
    let mut text = format!("{} completed", grouped(counts.completed));
    if counts.lost > 0 {
        text += &format!(", {} (learned again from conntrack)", counted(counts.lost, "gap"));
    }
    if counts.unasked > 0 {
        text += &format!(", {} not followed: too many", counted(counts.unasked, "attempt"));
    }
    text
}

fn bans(stats: &StatsView) -> String {
    let mut text = format!(
        "{} active, {} since the start",
        grouped(stats.bans.active),
        grouped(stats.bans.total)
    );
    if stats.bans.observed > 0 {
        text += &format!(
            ", {} (nothing is dropped)",
            counted(stats.bans.observed, "would-be ban")
        );
    }
    text
}

fn sources(stats: &StatsView) -> String {
    let tracked = format!("{} tracked", grouped(stats.sources.tracked));
    match stats.sources.evicted {
        0 => tracked,
        evicted => format!("{tracked}, {} forgotten (table full)", grouped(evicted)),
    }
}

fn queues(stats: &StatsView) -> Table {
    let mut table = Table::new(&[
        Column::Right("NUMBER"),
        Column::Right("WAITING"),
        Column::Right("KERNEL DROPPED"),
        Column::Right("USER DROPPED"),
    ]);
    let shown = |value: Option<u64>| value.map_or_else(|| "unreadable".into(), grouped);
    for queue in &stats.queues {
        table.row([
            queue.number.to_string(),
            shown(queue.waiting),
            shown(queue.kernel_dropped),
            shown(queue.user_dropped),
        ]);
    }
    table
}

fn top_sources(stats: &StatsView) -> Table {
    let mut table = Table::new(&[
        Column::Left("SOURCE"),
        Column::Right("PORTS"),
        Column::Right("LAST SEEN"),
        Column::Left(""),
    ]);
    for row in &stats.top_sources {
        let seen = format!("{} ago", span::spoken(row.idle_seconds));
        table.row([
            row.source.clone(),
            row.ports.to_string(),
            seen,
            if row.banned { "banned" } else { "" }.into(),
        ]);
    }
    table
}

/// Nothing lost is one calm line; anything lost is a list in red.
fn print_losses(losses: &Losses, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let all = [
        (
            losses.enobufs,
            "receive buffer overflows: packets were lost unseen",
        ),
        (
            losses.parse_errors,
            "kernel messages that could not be understood",
        ),
        (
            losses.verdict_errors,
            "verdicts that came too late for the kernel",
        ),
        (
            losses.facts_dropped,
            "offences told again because the analyst was busy",
        ),
        (
            losses.activity_unsaved,
            "counted probes that only the next snapshot holds: they came too fast",
        ),
        (
            losses.refusals_lost,
            "refused packets that are missing in the log: they came too fast",
        ),
        (
            losses.enforcement_errors,
            "changes of the ban sets that the kernel refused",
        ),
        (
            losses.storm_refusals,
            "offences beyond max_bans_per_minute: dropped, not banned",
        ),
        (
            losses.unjudged,
            "packets that passed unjudged: their worker hung or was starved of CPU",
        ),
    ];
    if all.iter().all(|(count, _)| *count == 0) {
        return writeln!(out, "\nnothing lost, no errors");
    }
    writeln!(out, "\n{}", style.paint(Paint::Red, "losses and errors"))?;
    let mut table = Table::new(&[Column::Right(""), Column::Left("")]);
    for (count, what) in all.into_iter().filter(|(count, _)| *count > 0) {
        table.row([grouped(count), what.into()]);
    }
    table.print("  ", style, out)
}

const REFRESH: Duration = Duration::from_secs(1);
