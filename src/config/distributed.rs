//! `[distributed]`: what counts as an attack of many sources on one port. The thresholds come from the preset.

use std::time::Duration;

use super::document::{Report, Section};
use super::sections::{Bans, Firewall, home_but};
use super::units::{self, Fault, duration_text};
use crate::core::attack::{Counting, Distributed, HANDSHAKE_LIMIT, PortThresholds};
use crate::core::ports::PortSet;

/// Reads the section; `thresholds` are the preset's.
pub(super) fn read(
    root: &mut Section<'_>,
    thresholds: PortThresholds,
    bans: &Bans,
    refused: &Refused<'_>,
) -> Distributed {
    let mut all = Distributed {
        thresholds,
        ..Distributed::default()
    };
    let Some(mut section) = root.section("distributed") else {
        return all;
    };
    let countings = Counting::ALL.map(|counting| (counting.word(), counting));
    let counting = units::word("a counting", &countings);
    all.counting = section.get("counting", &counting).unwrap_or(all.counting);
    let factor = section.get("baseline_factor", units::whole(0..=MOST_FACTOR));
    all.baseline_factor = factor.unwrap_or(all.baseline_factor);
    let known = section.get("known_after", units::duration(HANDSHAKE_LIMIT..=LONGEST_NEW));
    all.known_after = known.unwrap_or(all.known_after);
    let quiet = section.get("attack_quiet", units::duration(HANDSHAKE_LIMIT..=LONGEST_QUIET));
    all.attack_quiet = quiet.unwrap_or(all.attack_quiet);
    if known.is_some_and(|known| known > bans.forgive_after) {
        section.refuse("known_after", forgotten(all.known_after, bans.forgive_after));
    }
    if let Some(ports) = section.section("ports") {
        for (line, port, counting) in ports.by_port(&counting) {
            refused.note(section.report(), line, port, counting);
            all.by_port.insert(port, counting);
        }
    }
    note_unbounded(&section, &all);
    section.finish(home_but("distributed"));
    all
}

/// Which TCP ports the kernel refuses: there are no attempts on them, only scans.
pub(super) struct Refused<'c> {
    firewall: &'c Firewall,
    allowed: &'c PortSet,
}

impl<'c> Refused<'c> {
    pub(super) fn of(firewall: &'c Firewall, allowed: &'c PortSet) -> Refused<'c> {
        Refused { firewall, allowed }
    }

    fn note(&self, report: &Report, line: usize, port: u16, counting: Counting) {
        if !self.firewall.mode.filters_ports() || self.allowed.contains(port) {
            return;
        }
        let key = format!("distributed.ports.{port}");
        let text = format!(
            "{key} = \"{}\" has no effect: allowed_ports.tcp does not list {port}, and what is refused is evidence of a \
             port scan only",
            counting.word()
        );
        report.note(line, key, text);
    }
}

/// A source whose record is gone would be new again, however long it has been a guest here.
fn forgotten(known: Duration, forgive: Duration) -> Fault {
    let forgive = duration_text(forgive);
    Fault::new(
        format!("\"{}\"", duration_text(known)),
        format!("is longer than sources are remembered (bans.forgive_after, {forgive})"),
        format!("write at most \"{forgive}\", or raise bans.forgive_after"),
    )
}

/// Honest visitors count under `all`; without a baseline nothing tells their usual number from an attack.
fn note_unbounded(section: &Section<'_>, all: &Distributed) {
    if all.counting != Counting::All || all.baseline_factor > 0 {
        return;
    }
    let key = section.full("counting");
    let text = format!(
        "{key} = \"all\" with baseline_factor = 0: every connection counts and none is usual, so that visitors of a busy \
         port are banned; give baseline_factor, or thresholds above what is usual"
    );
    section.report().note(section.line_of("counting"), key, text);
}

/// Beyond it no attack would be found on a port that is used at all.
const MOST_FACTOR: u32 = 1_000;

/// Whoever came a month ago is known.
const LONGEST_NEW: Duration = Duration::from_secs(30 * 86_400);

/// An attack that is over a day after its last attempt has no end that anybody waits for.
const LONGEST_QUIET: Duration = Duration::from_secs(86_400);
