//! Settings that are each fine alone, and together cannot have been meant, or cost what nobody expects.

use std::mem::size_of;

use super::document::Report;
use super::presets::Preset;
use super::sections::{Bans, Most};
use super::units::{Fault, duration_text};
use crate::core::source::Touch;

/// Reports what contradicts itself, notes what has no effect or a surprising one.
pub(super) fn find(report: &Report, preset: &Preset, bans: &Bans, most: &Most) {
    harder_on_udp(report, preset);
    falling_ladder(report, preset);
    cap_outside_ladder(report, preset, bans);
    steps_never_reached(report, preset, bans);
    memory(report, preset, most);
}

/// UDP can be forged by anybody, and one visit to a page may be a dozen ports.
fn harder_on_udp(report: &Report, preset: &Preset) {
    let (tcp, udp) = (preset.ports, preset.udp_ports());
    if let Some((line, key)) = preset.place("udp_ports_threshold").filter(|_| udp < tcp) {
        let text = format!(
            "{key} = {udp} is below unique_ports_threshold = {tcp}: UDP, which anybody can forge, is judged harder than TCP"
        );
        report.note(*line, key, text);
    }
}

fn falling_ladder(report: &Report, preset: &Preset) {
    let steps = preset.ladder.steps();
    let fall = steps.windows(2).find(|pair| pair[1] < pair[0]);
    if let (Some((line, key)), Some(pair)) = (preset.place("block_durations"), fall) {
        let [longer, shorter] = [pair[0], pair[1]].map(duration_text);
        let text =
            format!("{key}: \"{shorter}\" follows \"{longer}\": a further offence earns a shorter ban");
        report.note(*line, key, text);
    }
}

/// A first ban below the ladder's first step is a ladder of its own; one beyond the last step limits nothing.
fn cap_outside_ladder(report: &Report, preset: &Preset, bans: &Bans) {
    let steps = preset.ladder.steps();
    let (Some(cap), Some(first), Some(longest)) = (bans.unproven_cap, steps.first(), steps.iter().max())
    else {
        return;
    };
    let key = "bans.unproven_cap";
    let (told, first_told, longest_told) =
        (duration_text(cap), duration_text(*first), duration_text(*longest));
    if cap < *first {
        let wrong = format!("is shorter than the first ban ({first_told})");
        let right =
            format!("write a duration from {first_told} to {longest_told}, or shorten block_durations");
        report.problem(
            bans.cap_line,
            key,
            Fault::new(format!("\"{told}\""), wrong, right),
        );
    } else if cap >= *longest {
        let text = format!("{key} = \"{told}\" has no effect: no ban is longer than \"{longest_told}\"");
        report.note(bans.cap_line, key, text);
    }
}

/// An offence is forgiven so long after it was committed: while its ban runs, or just after.
fn steps_never_reached(report: &Report, preset: &Preset, bans: &Bans) {
    let but_last = preset
        .ladder
        .steps()
        .split_last()
        .map_or(&[][..], |(_, others)| others);
    let Some(served) = but_last.iter().find(|step| **step >= bans.forgive_after) else {
        return;
    };
    let own = bans
        .forgive_line
        .map(|line| (line, "bans.forgive_after".to_owned()));
    if let Some((line, key)) = own.or_else(|| preset.place("block_durations").cloned()) {
        let (forgiven, served) = (duration_text(bans.forgive_after), duration_text(*served));
        let text = format!(
            "{key}: when a ban of \"{served}\" ends its offence is forgiven (bans.forgive_after = \"{forgiven}\"): later \
             steps of the ladder are never reached"
        );
        report.note(line, key, text);
    }
}

/// What the evidence of all sources takes if each is one port short of an offence, as somebody who forges addresses
/// can arrange.
fn memory(report: &Report, preset: &Preset, most: &Most) {
    let ports = u128::from(preset.ports) + u128::from(preset.udp_ports());
    let bytes = ports * most.sources as u128 * size_of::<Touch>() as u128;
    if bytes <= MUCH {
        return;
    }
    let own = most.line.map(|line| (line, "engine.max_sources".to_owned()));
    let thresholds = ["udp_ports_threshold", "unique_ports_threshold"].map(|key| preset.place(key).cloned());
    let Some((line, key)) = own.into_iter().chain(thresholds.into_iter().flatten()).next() else {
        return;
    };
    let text = format!(
        "{key}: {} sources with {ports} tolerated ports each (TCP and UDP) can come to {} GiB of evidence; lower \
         engine.max_sources or the thresholds",
        most.sources,
        bytes.div_ceil(1 << 30)
    );
    report.note(line, key, text);
}

/// 4 GiB: twice what the most lenient preset can come to with the built-in number of sources.
const MUCH: u128 = 4 << 30;
