//! From the text of `verdictd.toml` to a policy that cannot hold a bad value, or to every problem in it.
//!
//! The file of the Python system loads unchanged. A document is walked with the lines of its keys
//! (`document`), each section takes its keys (`sections`, `presets`, `trusted`, `distributed`, `webhooks`), each
//! value has one reader (`units`), and what is fine alone is looked at together (`contradictions`). Nothing stops at the first problem, and nothing reads a clock, a socket or the kernel.

mod contradictions;
mod distributed;
mod document;
mod file;
mod interface;
mod presets;
mod problem;
mod sections;
pub mod suggest;
mod syntax;
mod trusted;
mod units;
mod webhooks;
mod words;

use std::path::Path;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use toml::de::DeTable;

pub use interface::{InterfaceError, InterfaceName};
pub use problem::{ConfigError, Note, Problem};
pub use units::{DurationError, duration_text, parse_duration};
pub use words::{counting_text, thresholds_text};

use self::distributed::Refused;
use self::document::{Report, Section};
use self::sections::{Bans, Firewall, Security};
use crate::audit::AuditConfig;
use crate::audit::chain::Hash;
use crate::core::policy::{OnLoss, Policy};
use crate::webhook::config::WebhookConfig;

/// Everything that a config says.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is judged, and how.
    pub policy: Policy,
    /// How the engine is built: threads, numbers, sizes.
    pub engine: EngineConfig,
    /// Who is told.
    pub webhooks: WebhookConfig,
    /// What is written down.
    pub audit: AuditConfig,
    /// SHA-256 of the text, in hex.
    pub sha256: String,
    /// What is accepted but worth a word, in the order of the file.
    pub notes: Vec<Note>,
}

/// `[engine]`, and where state goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Threads that judge packets, 1 to 64; without a word, one per CPU up to 4.
    pub workers: usize,
    /// The first queue number, of 2 × `workers`; `None`: free ones are probed for.
    pub queue_base: Option<u16>,
    /// The first log group, of `workers`; `None`: free ones are probed for.
    pub log_base: Option<u16>,
    /// The seed of the hash that gives each source its worker; `None`: a loaded table's own, or one that is drawn.
    pub seed: Option<u32>,
    /// Packets that wait in one queue before the kernel acts by `on_loss`.
    pub queue_length: u32,
    /// What packets to allowed ports meet while nobody answers.
    pub on_loss: OnLoss,
    /// Whether the engine loads and repairs its own table.
    pub manage_ruleset: bool,
    /// How often the table and its bans are compared with what they should be, unasked.
    pub reconcile_every: Duration,
    /// Whether the table belongs to the engine alone, so that nobody else can change it.
    pub own_table: bool,
    /// Whether a policy that refuses the port of a live SSH session may be loaded.
    pub allow_lockout: bool,
    /// Whether the engine gives up what it does not need (seccomp, Landlock, capabilities).
    pub confine: bool,
    /// Interfaces of containers and guests: what comes in there is neither filtered nor counted.
    pub internal_interfaces: Vec<InterfaceName>,
    /// Elements that each ban set holds.
    pub ban_set_size: u32,
    /// Name in the state directory (relative) or place (absolute) of the snapshot; `None`: `state.toml`.
    pub state_file: Option<PathBuf>,
    /// How often the snapshot is written.
    pub snapshot_every: Duration,
    /// How often the scan report is logged; zero: never.
    pub report_every: Duration,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        let internal = DEFAULT_INTERNAL
            .iter()
            .map(|name| name.parse().expect("built-in names are names"));
        EngineConfig {
            workers: available_parallelism().map_or(1, |cpus| cpus.get().min(4)),
            queue_base: None,
            log_base: None,
            seed: None,
            queue_length: 4096,
            on_loss: OnLoss::Open,
            manage_ruleset: true,
            reconcile_every: Duration::from_secs(30),
            own_table: false,
            allow_lockout: false,
            confine: true,
            internal_interfaces: internal.collect(),
            ban_set_size: 1 << 20,
            state_file: None,
            snapshot_every: Duration::from_secs(120),
            report_every: Duration::from_secs(3_600),
        }
    }
}

/// Reads and parses the file at `path`.
///
/// # Errors
/// If there is no regular file of at most 1 MiB of UTF-8 text that can be read, or [`parse`] refuses it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(&text(path)?, path)
}

/// The text of the file at `path`.
///
/// # Errors
/// If there is no regular file of at most 1 MiB of UTF-8 text that can be read.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    file::read(path).map_err(|problem| ConfigError {
        path: path.to_owned(),
        problems: vec![problem],
    })
}

/// SHA-256 of `text` in hex, as [`Config::sha256`] holds it.
pub fn digest(text: &str) -> String {
    Hash::of(text.as_bytes()).to_string()
}

/// Parses `text`; `path` is only named in errors.
///
/// # Errors
/// With every problem that the text has, each with its line.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let report = Report::new(text);
    let config = read(Section::root(&report, document.get_ref()), errors.is_empty());
    let syntax = syntax::problems(text, document.get_ref(), &errors, |offset| report.line(offset));
    let (problems, notes) = report.into_parts();
    let problems = syntax::merge(syntax, problems);
    if problems.is_empty() {
        return Ok(Config {
            notes,
            sha256: digest(text),
            ..config
        });
    }
    Err(ConfigError {
        path: path.to_owned(),
        problems,
    })
}

/// Every section in turn. What is faulty is reported and stands at its default, so that the rest is read too.
fn read(mut root: Section<'_>, complete: bool) -> Config {
    let firewall = Firewall::read(&mut root);
    let preset = sections::preset(&mut root, &firewall);
    let trusted = trusted::read(&mut root);
    let (tcp_allowed, udp_allowed) = sections::allowed_ports(&mut root, &firewall, complete);
    let bans = Bans::read(&mut root);
    let refused = Refused::of(&firewall, &tcp_allowed);
    let distributed = distributed::read(&mut root, preset.attempts.clone(), &bans, &refused);
    let (mut engine, most, on_failure) = sections::engine(&mut root);
    let audit = sections::audit(&mut root, firewall.mode, bans.enforce, on_failure);
    let webhooks = webhooks::read(&mut root);
    contradictions::find(root.report(), &preset, &bans, &most);
    root.finish(sections::home_but(""));

    engine.state_file = firewall.state_file;
    engine.snapshot_every = preset.snapshot_every;
    let policy = Policy {
        mode: firewall.mode,
        preset: match firewall.security {
            Security::Preset(word, _) => word.into(),
            Security::Custom => "custom".into(),
        },
        enforce: bans.enforce,
        ports_threshold: preset.ports,
        udp_ports_threshold: preset.udp_ports(),
        stealth_threshold: preset.stealth,
        count_completed: firewall.count_completed,
        window: preset.window,
        ladder: preset.ladder,
        forgive_after: bans.forgive_after,
        jitter: bans.jitter,
        unproven_cap: bans.unproven_cap,
        distributed,
        max_bans_per_minute: bans.max_per_minute,
        tcp_allowed,
        udp_allowed,
        other_protocols: firewall.other_protocols,
        trusted,
        v6_prefix: bans.v6_prefix,
        max_sources: most.sources,
    };
    Config {
        policy,
        engine,
        webhooks,
        audit,
        sha256: String::new(),
        notes: Vec::new(),
    }
}

/// Bridges of the common container and guest managers.
const DEFAULT_INTERNAL: [&str; 7] = [
    "docker0", "br-*", "podman*", "cni*", "virbr*", "lxdbr*", "incusbr*",
];
