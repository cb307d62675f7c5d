//! Reload: another configuration goes into force as a whole, or not at all. No base chain is deleted, no queue let
//! go of, no ban or evidence lost; whatever fails before the new rules are loaded leaves everything as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use thiserror::Error;
use tracing::error;

use super::analyst::Command;
use super::enforcer::Job;
use super::handler::{Running, Shared, on_loss};
use super::keeper::Errand;
use super::lockout::{self, Lockout};
use super::open::{self, feed_config, spec};
use super::room::Manner;
use super::worker::{Handle, Order};
use crate::config::{self, Config, ConfigError, counting_text, duration_text, thresholds_text};
use crate::core::policy::OtherProtocols;
use crate::kernel::host::{self, HostError};
use crate::kernel::preflight::{self, PreflightError};
use crate::kernel::queue::FeedError;
use crate::kernel::ruleset::{Backend, Layout, RulesetError};
use crate::state::DEFAULT_NAME;

/// Why everything stays as it was.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy would lock somebody out.
    #[error(transparent)]
    Lockout(#[from] Lockout),
    /// What enforcing needs and observing did not.
    #[error("preflight: {0}")]
    Preflight(#[from] PreflightError),
    /// Queues.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Rules.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    /// Addresses and ports of this host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Watching and enforcing are different tables, and the table is the operator's.
    #[error(
        "engine.manage_ruleset = false: going from watching to enforcing or back needs another table; load the one that \"verdictd \
         ruleset\" prints, then restart the engine"
    )]
    OtherTable,
    /// Somebody wrote to the candidate.
    #[error("{0:?} is not what was looked through, it was changed meanwhile: apply again")]
    Another(PathBuf),
    /// A thread is gone.
    #[error("the engine is stopping")]
    Stopping,
}

/// The threads that a reload speaks to.
pub struct Reloader<'a> {
    /// What runs now, and what it is replaced in.
    pub running: &'a Shared,
    /// The numbers in use.
    pub layout: Layout,
    /// To every worker.
    pub workers: &'a [Handle],
    /// To the enforcer.
    pub jobs: &'a Sender<Job>,
    /// To the analyst.
    pub commands: &'a Sender<Command>,
    /// To the snapshot thread.
    pub keeper: &'a Sender<Errand>,
}

impl Reloader<'_> {
    /// Reads the file again and puts it into force; what changed, in words.
    pub fn reload(&self) -> Result<Vec<String>, ReloadError> {
        let old = self.running.get();
        let new = config::load(&old.path)?;
        lockout::spare_sessions(&new, Some(&old.config))?;
        self.put(new)
    }

    /// Puts the file at `path` into force, if it is still the one whose sum is `sha256`; with `force` whoever it locks out.
    pub fn try_out(&self, path: &Path, sha256: &str, force: bool) -> Result<Vec<String>, ReloadError> {
        let new = config::load(path)?;
        if new.sha256 != sha256 {
            return Err(ReloadError::Another(path.to_owned()));
        }
        if !force {
            lockout::spare_sessions(&new, Some(&self.running.get().config))?;
        }
        self.put(new)
    }

    /// Puts `new` into force; what changed, in words.
    pub fn put(&self, mut new: Config) -> Result<Vec<String>, ReloadError> {
        let old = self.running.get();
        let mut told = changes(&old.config, &new);
        keep_fixed(&old.config, &mut new);
        let manner = Manner::of(&new, old.backend.is_some());
        told.extend(manner.stateless.clone());
        if !new.engine.manage_ruleset {
            if manner.observing != old.backend.is_none() {
                return Err(ReloadError::OtherTable);
            }
            told.push(
                "rules are not loaded (engine.manage_ruleset = false): what changes them needs \"verdictd ruleset\" \
                 and a load of your own"
                    .to_owned(),
            );
        }
        // Queues before rules: a rule that leads to a queue nobody reads is a hole or a wall.
        let backend = match (manner.observing, old.backend) {
            (true, _) => None,
            (false, Some(backend)) => Some(backend),
            (false, None) => Some(preflight::judge_one_packet()?),
        };
        if let Err(error) = self.load(&new, &manner, backend) {
            // What the queues were told is taken back; the rules are still the old ones.
            if let Err(again) = self.retune(&old.config, &old.manner) {
                error!("queues keep settings of the refused configuration: {again}");
            }
            return Err(error);
        }
        let policy = Arc::new(new.policy.clone());
        self.commands
            .send(Command::Policy(policy))
            .map_err(|_| ReloadError::Stopping)?;
        // A keeper that is gone ends the engine by itself.
        let _ = self.keeper.try_send(Errand::Every(new.engine.snapshot_every));
        self.running.set(Running {
            config: new,
            backend,
            manner,
            path: old.path.clone(),
        });
        Ok(told)
    }

    /// Queues and rules.
    fn load(&self, new: &Config, manner: &Manner, backend: Option<Backend>) -> Result<(), ReloadError> {
        self.retune(new, manner)?;
        let mut spec = spec(
            new,
            self.layout,
            backend.unwrap_or(Backend::Native),
            host::gather()?.local_ports,
        );
        manner.shape(&mut spec);
        let (done, loaded) = bounded(1);
        self.jobs
            .send(Job::Load(Box::new(spec), done))
            .map_err(|_| ReloadError::Stopping)?;
        loaded.recv().map_err(|_| ReloadError::Stopping)??;
        Ok(())
    }

    fn retune(&self, config: &Config, manner: &Manner) -> Result<(), ReloadError> {
        let (reply, outcomes) = bounded(self.workers.len());
        for (worker, index) in self.workers.iter().zip(0..) {
            worker.order(Order::Retune(
                feed_config(config, manner, &self.layout, index),
                reply.clone(),
            ));
        }
        drop(reply);
        for outcome in outcomes.iter() {
            outcome?;
        }
        Ok(())
    }
}

/// What a running engine cannot change: it stays as it was until the next start.
fn keep_fixed(old: &Config, new: &mut Config) {
    let kept = old.engine.clone();
    new.engine.workers = kept.workers;
    new.engine.queue_base = kept.queue_base;
    new.engine.log_base = kept.log_base;
    new.engine.seed = kept.seed;
    new.engine.queue_length = kept.queue_length;
    new.engine.ban_set_size = kept.ban_set_size;
    new.engine.manage_ruleset = kept.manage_ruleset;
    new.engine.reconcile_every = kept.reconcile_every;
    new.engine.own_table = kept.own_table;
    new.engine.confine = kept.confine;
    new.engine.state_file = kept.state_file;
    new.audit.path.clone_from(&old.audit.path);
    new.policy.v6_prefix = old.policy.v6_prefix;
    new.policy.max_sources = old.policy.max_sources;
}

/// What differs between two configurations, in words.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let differ = |(name, text, when): &Setting| {
        let (before, after) = (text(old), text(new));
        let later = match when {
            When::Now => "",
            When::AtStart => " (at the next start)",
        };
        (before != after).then(|| format!("{name}: {before} → {after}{later}"))
    };
    SETTINGS.iter().filter_map(differ).collect()
}

enum When {
    Now,
    AtStart,
}

/// The key, how its value is told, and when a change takes effect.
type Setting = (&'static str, fn(&Config) -> String, When);

const SETTINGS: &[Setting] = &[
    ("firewall.firewall_mode", |c| c.policy.mode.to_string(), When::Now),
    ("bans.enforce", |c| c.policy.enforce.to_string(), When::Now),
    ("firewall.mode", |c| c.policy.preset.to_string(), When::Now),
    (
        "allowed_ports.tcp",
        |c| c.policy.tcp_allowed.to_string(),
        When::Now,
    ),
    (
        "allowed_ports.udp",
        |c| c.policy.udp_allowed.to_string(),
        When::Now,
    ),
    ("trusted", |c| join(c.policy.trusted.iter()), When::Now),
    (
        "ports tolerated",
        |c| c.policy.ports_threshold.to_string(),
        When::Now,
    ),
    (
        "udp ports tolerated",
        |c| c.policy.udp_ports_threshold.to_string(),
        When::Now,
    ),
    (
        "stealth probes tolerated",
        |c| c.policy.stealth_threshold.to_string(),
        When::Now,
    ),
    (
        "firewall.count_completed",
        |c| c.policy.count_completed.to_string(),
        When::Now,
    ),
    (
        "attempts tolerated",
        |c| thresholds_text(&c.policy.distributed.thresholds),
        When::Now,
    ),
    (
        "distributed.counting",
        |c| counting_text(&c.policy.distributed),
        When::Now,
    ),
    (
        "distributed.baseline_factor",
        |c| c.policy.distributed.baseline_factor.to_string(),
        When::Now,
    ),
    (
        "distributed.known_after",
        |c| duration_text(c.policy.distributed.known_after),
        When::Now,
    ),
    (
        "distributed.attack_quiet",
        |c| duration_text(c.policy.distributed.attack_quiet),
        When::Now,
    ),
    ("window", |c| duration_text(c.policy.window), When::Now),
    (
        "ban lengths",
        |c| join(c.policy.ladder.steps().iter().map(|step| duration_text(*step))),
        When::Now,
    ),
    (
        "bans.forgive_after",
        |c| duration_text(c.policy.forgive_after),
        When::Now,
    ),
    (
        "bans.unproven_cap",
        |c| c.policy.unproven_cap.map_or_else(|| "off".into(), duration_text),
        When::Now,
    ),
    ("bans.jitter", |c| c.policy.jitter.to_string(), When::Now),
    (
        "bans.max_bans_per_minute",
        |c| c.policy.max_bans_per_minute.to_string(),
        When::Now,
    ),
    (
        "snapshot interval",
        |c| duration_text(c.engine.snapshot_every),
        When::Now,
    ),
    (
        "firewall.other_protocols",
        |c| other_protocols(c.policy.other_protocols),
        When::Now,
    ),
    (
        "engine.on_loss",
        |c| on_loss(c.engine.on_loss).to_owned(),
        When::Now,
    ),
    (
        "engine.internal_interfaces",
        |c| join(c.engine.internal_interfaces.iter()),
        When::Now,
    ),
    (
        "engine.report_every",
        |c| duration_text(c.engine.report_every),
        When::Now,
    ),
    (
        "engine.allow_lockout",
        |c| c.engine.allow_lockout.to_string(),
        When::Now,
    ),
    (
        "engine.on_audit_failure",
        |c| c.audit.on_failure.word().to_owned(),
        When::Now,
    ),
    ("audit.enabled", |c| c.audit.enabled.to_string(), When::Now),
    ("audit.max_bytes", |c| c.audit.max_bytes.to_string(), When::Now),
    ("audit.keep", |c| c.audit.keep.to_string(), When::Now),
    (
        "audit.path",
        |c| c.audit.path.display().to_string(),
        When::AtStart,
    ),
    ("webhooks.enabled", |c| c.webhooks.enabled.to_string(), When::Now),
    (
        "webhooks.endpoints",
        |c| join(c.webhooks.endpoints.iter().map(|endpoint| &endpoint.name)),
        When::Now,
    ),
    ("firewall.state_file", state_file, When::AtStart),
    ("engine.workers", |c| c.engine.workers.to_string(), When::AtStart),
    (
        "engine.queue_base",
        |c| optional(c.engine.queue_base),
        When::AtStart,
    ),
    ("engine.log_base", |c| optional(c.engine.log_base), When::AtStart),
    (
        "engine.seed",
        |c| {
            c.engine
                .seed
                .map_or_else(|| "the table's own".into(), |seed| format!("{seed:#x}"))
        },
        When::AtStart,
    ),
    (
        "engine.queue_length",
        |c| c.engine.queue_length.to_string(),
        When::AtStart,
    ),
    (
        "engine.ban_set_size",
        |c| c.engine.ban_set_size.to_string(),
        When::AtStart,
    ),
    (
        "engine.max_sources",
        |c| c.policy.max_sources.to_string(),
        When::AtStart,
    ),
    (
        "engine.manage_ruleset",
        |c| c.engine.manage_ruleset.to_string(),
        When::AtStart,
    ),
    (
        "engine.reconcile_every",
        |c| duration_text(c.engine.reconcile_every),
        When::AtStart,
    ),
    (
        "engine.own_table",
        |c| c.engine.own_table.to_string(),
        When::AtStart,
    ),
    ("engine.confine", |c| c.engine.confine.to_string(), When::AtStart),
    (
        "bans.ipv6_prefix",
        |c| c.policy.v6_prefix.to_string(),
        When::AtStart,
    ),
];

fn state_file(config: &Config) -> String {
    let file = config.engine.state_file.as_deref();
    file.map_or_else(|| DEFAULT_NAME.into(), |file| file.display().to_string())
}

fn or_none(ports: &impl ToString) -> String {
    Some(ports.to_string())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "none".into())
}

fn join(items: impl Iterator<Item = impl ToString>) -> String {
    or_none(&items.map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
}

fn optional(number: Option<u16>) -> String {
    number.map_or_else(
        || format!("probed from {}", open::FIRST_NUMBER),
        |number| number.to_string(),
    )
}

fn other_protocols(meet: OtherProtocols) -> String {
    match meet {
        OtherProtocols::Pass => "pass".into(),
        OtherProtocols::Drop => "drop".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        config::parse(text, "test.toml".as_ref()).expect("a good configuration")
    }

    #[test]
    fn what_changed_is_said_in_words_and_what_did_not_is_not() {
        let old = parse("[firewall]\nmode = \"standard\"\n[engine]\nworkers = 2\n");
        let new = parse(
            "[firewall]\nmode = \"aggressive\"\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]\n\
             [bans]\nunproven_cap = \"1h\"\n[distributed.ports]\n22 = \"new_sources\"\n[engine]\nworkers = 3\n",
        );
        assert!(changes(&old, &old).is_empty());
        let told = changes(&old, &new);
        for line in [
            "firewall.firewall_mode: detection_only → firewall",
            "firewall.mode: standard → aggressive",
            "allowed_ports.tcp: none → 22",
            "ports tolerated: 7 → 3",
            "window: 2h → 1h",
            "ban lengths: 10m, 2h, 1d, 7d → 5m, 1h, 12h, 3d",
            "attempts tolerated: 80, 443: 2; 22: 3; 3306, 5432: 5; any other: 10 → 80, 443: 1; 22, 3306, 5432: 2; 8000, \
             8080: 3; any other: 5",
            "distributed.counting: incomplete → 22: new_sources; any other: incomplete",
            "bans.unproven_cap: off → 1h",
            "engine.workers: 2 → 3 (at the next start)",
        ] {
            assert!(
                told.iter().any(|told| told == line),
                "{line} is missing in {told:?}"
            );
        }
    }

    #[test]
    fn what_a_running_engine_cannot_change_stays() {
        let old = parse("[engine]\nworkers = 2\n");
        let mut new = parse("[engine]\nworkers = 3\n[bans]\nipv6_prefix = 56\nforgive_after = \"1d\"\n");
        keep_fixed(&old, &mut new);
        assert_eq!((new.engine.workers, new.policy.v6_prefix), (2, 64));
        assert_eq!(new.policy.forgive_after.as_secs(), 86_400);
    }
}
