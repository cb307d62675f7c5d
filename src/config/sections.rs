//! The sections of the file one by one: which keys there are, what they may hold, what holds without them.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::EngineConfig;
use super::document::Section;
use super::interface::InterfaceName;
use super::presets::{Base, Changes, Preset, note_without_effect};
use super::units::{self, Fault, Read, shown};
use crate::audit::{AuditConfig, OnFailure};
use crate::core::ladder;
use crate::core::policy::{Mode, OnLoss, OtherProtocols};
use crate::core::ports::PortSet;

/// `[firewall]`.
pub(super) struct Firewall {
    pub(super) mode: Mode,
    pub(super) mode_line: usize,
    pub(super) security: Security,
    pub(super) state_file: Option<PathBuf>,
    pub(super) other_protocols: OtherProtocols,
    pub(super) count_completed: bool,
    save_interval: Option<(usize, Duration)>,
}

/// `firewall.mode`: a preset, or `[custom]`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Security {
    Preset(&'static str, Base),
    Custom,
}

impl Firewall {
    pub(super) fn read(root: &mut Section<'_>) -> Firewall {
        let mut firewall = Firewall::default();
        let Some(mut section) = root.section("firewall") else {
            return firewall;
        };
        let mut securities = Base::ALL
            .map(|(word, base)| (word, Security::Preset(word, base)))
            .to_vec();
        securities.push(("custom", Security::Custom));
        firewall.security = section
            .get("mode", units::word("a mode", &securities))
            .unwrap_or(firewall.security);
        let modes = [Mode::DetectionOnly, Mode::Firewall, Mode::Corporate].map(|mode| (mode.word(), mode));
        firewall.mode = section
            .get("firewall_mode", units::word("a mode", &modes))
            .unwrap_or(firewall.mode);
        firewall.mode_line = section.line_of("firewall_mode");
        firewall.state_file = section.get("state_file", state_file);
        let protocols = [("pass", OtherProtocols::Pass), ("drop", OtherProtocols::Drop)];
        let others = section.get("other_protocols", units::word("an answer", &protocols));
        firewall.other_protocols = others.unwrap_or(firewall.other_protocols);
        if others == Some(OtherProtocols::Drop) && !firewall.mode.filters_ports() {
            let text =
                "firewall.other_protocols = \"drop\" has no effect: firewall_mode is \"detection_only\"";
            section.report().note(
                section.line_of("other_protocols"),
                "firewall.other_protocols",
                text,
            );
        }
        let completed = section.get("count_completed", units::boolean);
        firewall.count_completed = completed.unwrap_or(firewall.count_completed);
        firewall.save_interval = save_interval(&mut section);
        if let Some(value) = section.get("sleep_interval", sleep_interval) {
            let text =
                format!("firewall.sleep_interval = {value} has no effect: the kernel's own clock ends bans");
            section
                .report()
                .note(section.line_of("sleep_interval"), "firewall.sleep_interval", text);
        }
        section.finish(home_but("firewall"));
        firewall
    }
}

impl Default for Firewall {
    fn default() -> Firewall {
        Firewall {
            mode: Mode::DetectionOnly,
            mode_line: 1,
            security: Security::Preset("standard", Base::Standard),
            state_file: None,
            other_protocols: OtherProtocols::Pass,
            count_completed: false,
            save_interval: None,
        }
    }
}

/// `[modes.*]` and `[custom]`: the numbers that hold under `firewall.mode`.
pub(super) fn preset(root: &mut Section<'_>, firewall: &Firewall) -> Preset {
    let modes = modes(root);
    let mut custom = root.section("custom");
    let given = custom.as_mut().map(Custom::read).unwrap_or_default();
    let (preset, unused) = match firewall.security {
        Security::Custom => customised(given, &modes, firewall),
        Security::Preset(word, base) => {
            let preset = with_changes(base, &modes);
            if let Some(custom) = &custom {
                note_without_effect(custom, word, &preset);
            }
            let counts = preset.snapshot_every.as_secs();
            (preset, Some(format!("mode is \"{word}\" ({counts})")))
        }
    };
    if let (Some((line, interval)), Some(why)) = (firewall.save_interval, unused) {
        let key = "firewall.state_save_interval";
        root.report().note(
            line,
            key,
            format!("{key} = {} has no effect: {why}", interval.as_secs()),
        );
    }
    if let Some(custom) = custom {
        custom.finish(home_but("custom"));
    }
    preset
}

/// The preset of `[custom]`, and why `firewall.state_save_interval` does not count, if so.
fn customised(given: Custom, modes: &[(Base, Changes)], firewall: &Firewall) -> (Preset, Option<String>) {
    let mut preset = with_changes(given.base.unwrap_or(Base::Standard), modes);
    preset.change(&given.changes);
    let outer = firewall.save_interval.map(|(_, interval)| interval);
    if let Some(interval) = given.save_interval.or(outer) {
        preset.snapshot_every = interval;
    }
    let unused = given.save_interval.is_some();
    (preset, unused.then(|| "[custom] has one of its own".to_owned()))
}

/// `[custom]`.
#[derive(Default)]
struct Custom {
    base: Option<Base>,
    changes: Changes,
    save_interval: Option<Duration>,
}

impl Custom {
    fn read(section: &mut Section<'_>) -> Custom {
        Custom {
            base: section.get("base", units::word("a base", &Base::ALL)),
            changes: Changes::read(section),
            save_interval: save_interval(section).map(|(_, interval)| interval),
        }
    }
}

fn modes(root: &mut Section<'_>) -> Vec<(Base, Changes)> {
    let Some(mut section) = root.section("modes") else {
        return Vec::new();
    };
    let mut read = Vec::new();
    for (word, base) in Base::ALL {
        let Some(mut mode) = section.section(word) else {
            continue;
        };
        read.push((base, Changes::read(&mut mode)));
        mode.finish(home_but("custom"));
    }
    section.finish(|key| (key == "custom").then_some("custom"));
    read
}

fn with_changes(base: Base, modes: &[(Base, Changes)]) -> Preset {
    let mut preset = base.preset();
    for (_, changes) in modes.iter().filter(|(of, _)| *of == base) {
        preset.change(changes);
    }
    preset
}

fn save_interval(section: &mut Section<'_>) -> Option<(usize, Duration)> {
    let interval = section.get(
        "state_save_interval",
        units::seconds(Duration::from_secs(1)..=DAY),
    )?;
    Some((section.line_of("state_save_interval"), interval))
}

fn sleep_interval(value: &DeValue<'_>) -> Read<String> {
    match value {
        DeValue::Integer(_) | DeValue::Float(_) => Ok(shown(value)),
        _ => Err(Fault::kind(value, "leave it out: it has no effect")),
    }
}

/// A name in the state directory, or an absolute path.
fn state_file(value: &DeValue<'_>) -> Read<PathBuf> {
    named_file(value, "the state file", "state.toml")
}

/// A name in the log directory, or an absolute path.
fn log_file(value: &DeValue<'_>) -> Read<PathBuf> {
    named_file(value, "the audit log", "audit.jsonl")
}

fn named_file(value: &DeValue<'_>, what: &str, example: &str) -> Read<PathBuf> {
    let right = format!("write a file name, as in \"{example}\", or an absolute path");
    let path = Path::new(units::string(value, &right)?);
    let wild = |part| matches!(part, Component::ParentDir);
    let plain = !value.as_str().unwrap_or_default().chars().any(char::is_control);
    let named =
        path.file_name().is_some_and(|name| name.len() <= NAME_MAX) && path.as_os_str().len() <= PATH_MAX;
    let one = path.is_absolute() || path.components().count() == 1;
    if plain && named && one && !path.components().any(wild) && !ends_in_slash(path) {
        return Ok(path.to_owned());
    }
    Err(Fault::new(shown(value), format!("cannot name {what}"), right))
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// `[allowed_ports]`: TCP and UDP ports that stay open. `complete`: the whole document could be read.
pub(super) fn allowed_ports(
    root: &mut Section<'_>,
    firewall: &Firewall,
    complete: bool,
) -> (PortSet, PortSet) {
    let report = root.report();
    let mark = report.problems_so_far();
    let mut line = firewall.mode_line;
    let (mut tcp, mut udp, mut allow_none) = (Vec::new(), Vec::new(), false);
    if let Some(mut section) = root.section("allowed_ports") {
        let mut ports = |key| {
            let given = section.list(key, "write a list, as in [22, 80, 443]", units::port);
            given
                .map(|list| list.values)
                .unwrap_or_default()
                .into_iter()
                .map(|(_, port)| port..=port)
                .collect()
        };
        (tcp, udp) = (ports("tcp"), ports("udp"));
        let ranges = section.list("ranges", "write a list, as in [\"6000-6010\"]", units::port_range);
        let ranges = ranges.map(|list| list.values).unwrap_or_default();
        let ranges: Vec<RangeInclusive<u16>> = ranges.into_iter().map(|(_, range)| range).collect();
        tcp.extend(ranges.iter().cloned());
        udp.extend(ranges);
        allow_none = section.get("allow_none", units::boolean).unwrap_or(false);
        line = section.line_of("tcp");
        section.finish(home_but("allowed_ports"));
    }
    let faultless = complete && report.problems_so_far() == mark;
    if faultless && firewall.mode.filters_ports() && tcp.is_empty() && !allow_none {
        let wrong = format!(
            "is empty: in mode \"{}\" every TCP port would be refused",
            firewall.mode
        );
        let right = "list the ports that stay open, as in tcp = [22], or write allow_none = true";
        report.problem(line, "allowed_ports.tcp", Fault::new("", wrong, right));
    }
    (tcp.into_iter().collect(), udp.into_iter().collect())
}

/// `[bans]`.
pub(super) struct Bans {
    pub(super) enforce: bool,
    pub(super) jitter: bool,
    pub(super) forgive_after: Duration,
    pub(super) max_per_minute: u32,
    pub(super) v6_prefix: u8,
    pub(super) unproven_cap: Option<Duration>,
    /// Where the file gives it.
    pub(super) forgive_line: Option<usize>,
    pub(super) cap_line: usize,
}

impl Bans {
    pub(super) fn read(root: &mut Section<'_>) -> Bans {
        let mut bans = Bans {
            enforce: true,
            jitter: true,
            forgive_after: 30 * DAY,
            max_per_minute: 600,
            v6_prefix: 64,
            unproven_cap: None,
            forgive_line: None,
            cap_line: 1,
        };
        let Some(mut section) = root.section("bans") else {
            return bans;
        };
        bans.enforce = section.get("enforce", units::boolean).unwrap_or(bans.enforce);
        bans.jitter = section.get("jitter", units::boolean).unwrap_or(bans.jitter);
        let forgive = section.get("forgive_after", units::duration(HOUR..=3650 * DAY));
        bans.forgive_after = forgive.unwrap_or(bans.forgive_after);
        let most = section.get("max_bans_per_minute", units::whole(1..=1_000_000));
        bans.max_per_minute = most.unwrap_or(bans.max_per_minute);
        bans.v6_prefix = section
            .get("ipv6_prefix", units::whole(48..=128))
            .unwrap_or(bans.v6_prefix);
        let length = units::unless_off(units::duration(ladder::SHORTEST..=ladder::LONGEST));
        bans.unproven_cap = section.get("unproven_cap", length).flatten();
        bans.forgive_line = forgive.map(|_| section.line_of("forgive_after"));
        bans.cap_line = section.line_of("unproven_cap");
        section.finish(home_but("bans"));
        bans
    }
}

/// How many sources are remembered, and where the file says so.
pub(super) struct Most {
    pub(super) sources: usize,
    pub(super) line: Option<usize>,
}

/// `[engine]`, and how many sources are remembered.
pub(super) fn engine(root: &mut Section<'_>) -> (EngineConfig, Most, AuditFailure) {
    let (mut engine, mut most, mut failure) = (
        EngineConfig::default(),
        Most {
            sources: 1_000_000,
            line: None,
        },
        AuditFailure::default(),
    );
    let Some(mut section) = root.section("engine") else {
        return (engine, most, failure);
    };
    engine.workers = section
        .get("workers", units::whole(1..=64))
        .unwrap_or(engine.workers);
    // Two queues and one log group a worker, numbered upwards: the last must still be a number.
    let workers = engine.workers as u16;
    engine.queue_base = section.get("queue_base", units::whole(1..=u16::MAX - 2 * workers + 1));
    engine.log_base = section.get("log_base", units::whole(1..=u16::MAX - workers + 1));
    engine.seed = section.get("seed", units::whole(0..=u32::MAX));
    engine.queue_length = section
        .get("queue_length", units::whole(16..=1_048_576))
        .unwrap_or(engine.queue_length);
    let losses = [("open", OnLoss::Open), ("closed", OnLoss::Closed)];
    engine.on_loss = section
        .get("on_loss", units::word("an answer", &losses))
        .unwrap_or(engine.on_loss);
    failure.answer = section
        .get("on_audit_failure", units::word("an answer", &OnFailure::ALL))
        .unwrap_or_default();
    failure.line = section.line_of("on_audit_failure");
    engine.manage_ruleset = section
        .get("manage_ruleset", units::boolean)
        .unwrap_or(engine.manage_ruleset);
    engine.reconcile_every = section
        .get("reconcile_every", units::duration(SECOND..=HOUR))
        .unwrap_or(engine.reconcile_every);
    engine.own_table = section
        .get("own_table", units::boolean)
        .unwrap_or(engine.own_table);
    engine.allow_lockout = section
        .get("allow_lockout", units::boolean)
        .unwrap_or(engine.allow_lockout);
    engine.confine = section.get("confine", units::boolean).unwrap_or(engine.confine);
    if !engine.confine {
        let text = "confine = false: the engine keeps every right of who starts it, and whoever finds a hole in it gets them";
        section
            .report()
            .note(section.line_of("confine"), "engine.confine", text);
    }
    let right = "write a list, as in [\"docker0\", \"br-*\"]";
    if let Some(list) = section.list("internal_interfaces", right, interface) {
        engine.internal_interfaces = list.values.into_iter().map(|(_, name)| name).collect();
    }
    engine.ban_set_size = section
        .get("ban_set_size", units::whole(1..=1 << 24))
        .unwrap_or(engine.ban_set_size);
    most.sources = section
        .get("max_sources", units::whole(1..=1 << 24))
        .unwrap_or(most.sources);
    most.line = section.has("max_sources").then(|| section.line_of("max_sources"));
    engine.report_every = section
        .get("report_every", units::duration(Duration::ZERO..=31 * DAY))
        .unwrap_or(engine.report_every);
    if engine.own_table && !engine.manage_ruleset {
        let text = "own_table has no effect with manage_ruleset = false: who loads the table may change it";
        section
            .report()
            .note(section.line_of("own_table"), "engine.own_table", text);
    }
    if !engine.manage_ruleset {
        want_numbers(&section);
    }
    section.finish(home_but("engine"));
    (engine, most, failure)
}

/// `engine.on_audit_failure`, and where the file says so.
#[derive(Default)]
pub(super) struct AuditFailure {
    answer: OnFailure,
    line: usize,
}

/// `[audit]`.
pub(super) fn audit(root: &mut Section<'_>, mode: Mode, enforce: bool, failure: AuditFailure) -> AuditConfig {
    let mut audit = AuditConfig {
        enabled: mode == Mode::Corporate,
        on_failure: failure.answer,
        ..AuditConfig::default()
    };
    if let Some(mut section) = root.section("audit") {
        audit.enabled = section.get("enabled", units::boolean).unwrap_or(audit.enabled);
        audit.path = section.get("path", log_file).unwrap_or(audit.path);
        audit.max_bytes = section
            .get("max_bytes", units::whole(1 << 16..=1u64 << 30))
            .unwrap_or(audit.max_bytes);
        audit.keep = section
            .get("keep", units::whole(1..=1000u32))
            .unwrap_or(audit.keep);
        if !audit.enabled && mode == Mode::Corporate {
            let text = "audit.enabled = false: nothing of what corporate mode refuses, bans and is ordered is written down";
            section
                .report()
                .note(section.line_of("enabled"), "audit.enabled", text);
        }
        section.finish(home_but("audit"));
    }
    let unused = match (audit.enabled, enforce) {
        (false, _) => Some("there is no audit log"),
        (true, false) => Some("nothing new is dropped while bans.enforce = false; only orders are refused"),
        (true, true) => None,
    };
    if let Some(why) = unused.filter(|_| failure.answer == OnFailure::Closed) {
        let key = "engine.on_audit_failure";
        let text = format!("{key} = \"closed\" has little effect: {why}");
        root.report().note(failure.line, key, text);
    }
    audit
}

/// A table that the admin loads holds its numbers as text: none may be looked for, or depend on this machine's CPUs.
fn want_numbers(section: &Section<'_>) {
    for (key, example) in [("workers", 2), ("queue_base", 4100), ("log_base", 4100)] {
        if !section.has(key) {
            let wrong = "missing: manage_ruleset = false, and the table that you load holds this number";
            let right =
                format!("write the table's own, as in {key} = {example}; verdictd ruleset prints by it");
            let line = section.line_of("manage_ruleset");
            let fault = Fault::new("", wrong, right);
            section.report().problem(line, section.full(key), fault);
        }
    }
}

fn interface(value: &DeValue<'_>) -> Read<InterfaceName> {
    let right = "write the name of an interface, as in \"docker0\" or \"br-*\"";
    let name = units::string(value, right)?.parse();
    name.map_err(|e: super::InterfaceError| Fault::new(shown(value), e.to_string(), right))
}

/// Where a key that stands in the wrong place belongs, for the `finish` of section `here`.
pub(super) fn home_but(here: &'static str) -> impl Fn(&str) -> Option<&'static str> {
    move |key| {
        let home = HOMES.iter().find(|(_, keys)| keys.contains(&key))?.0;
        (home != here).then_some(home)
    }
}

const HOMES: [(&str, &[&str]); 9] = [
    (
        "firewall",
        &[
            "mode",
            "firewall_mode",
            "state_file",
            "sleep_interval",
            "other_protocols",
            "count_completed",
        ],
    ),
    ("trusted", &["ips", "networks"]),
    ("allowed_ports", &["tcp", "udp", "ranges", "allow_none"]),
    (
        "bans",
        &[
            "enforce",
            "jitter",
            "forgive_after",
            "max_bans_per_minute",
            "ipv6_prefix",
            "unproven_cap",
        ],
    ),
    (
        "distributed",
        &["counting", "baseline_factor", "known_after", "attack_quiet"],
    ),
    (
        "custom",
        &[
            "base",
            "unique_ports_threshold",
            "udp_ports_threshold",
            "stealth_threshold",
            "default_port_threshold",
            "activity_window_hours",
            "block_durations",
            "port_thresholds",
            "state_save_interval",
        ],
    ),
    (
        "engine",
        &[
            "workers",
            "queue_base",
            "log_base",
            "seed",
            "queue_length",
            "on_loss",
            "on_audit_failure",
            "manage_ruleset",
            "reconcile_every",
            "own_table",
            "allow_lockout",
            "confine",
            "internal_interfaces",
            "ban_set_size",
            "max_sources",
            "report_every",
        ],
    ),
    ("audit", &["path", "max_bytes", "keep"]),
    (
        "webhooks",
        &[
            "endpoints",
            "signature_header",
            "timestamp_header",
            "spool_max_age",
            "spool_max_bytes",
        ],
    ),
];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Limits of the kernel (include/uapi/linux/limits.h), the latter with its closing NUL.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;
