//! Everything that a start opens, reads and decides before anything in the kernel's policy changes: what fails here
//! leaves the running policy untouched.

use std::collections::BTreeSet;
use std::io::{self};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::{self};
use std::time::{Duration, Instant};

use tracing::warn;

use super::error::DaemonError;
use super::handshakes::Eyes;
use super::keeper::Health;
use super::protect::{Follower, Protection};
use super::restore::{Generations, Kept, Restored};
use super::room::Manner;
use crate::config::{Config, EngineConfig};
use crate::core::judge::Judge;
use crate::core::policy::OnLoss;
use crate::core::verdict::Class;
use crate::kernel::netlink::Netlink;
use crate::kernel::preflight::{self};
use crate::kernel::queue::{COPY_RANGE, Feed, FeedConfig, FeedError, Numbered, free_groups, free_queues};
use crate::kernel::ruleset::{self, Backend, Family, First, Layout, Loaded, Ruleset, RulesetError, Spec};
use crate::kernel::sets::BanSets;

/// What is open before anything in the kernel's policy changes.
pub struct Opened {
    /// What writes the table and its elements, by one socket.
    pub sets: BanSets,
    /// Tells who becomes protected, and who no longer is.
    pub watch: Follower,
    /// Who is never banned.
    pub protection: Protection,
    /// Every worker's queues and log group, bound.
    pub feeds: Vec<Feed>,
    /// How packets are handed over; none: only copies.
    pub backend: Option<Backend>,
    /// The table to be loaded.
    pub spec: Spec,
    /// What state and kernel remember together.
    pub restored: Restored,
    /// A worker's shard each, with what was known of its sources.
    pub judges: Vec<Judge>,
    /// What is not well with the state.
    pub health: Arc<Health>,
    /// The numbers of what was found there.
    pub generations: Generations,
    /// The table that was found.
    pub loaded: Option<Loaded>,
    /// What this host has room for.
    pub manner: Manner,
    /// What follows handshakes; none: this kernel cannot tell of them.
    pub eyes: Option<Eyes>,
}

/// Opens it all in the network namespace of the calling thread; `kept` is what the last engine saved.
pub fn open(config: &Config, kept: Kept) -> Result<Opened, DaemonError> {
    let Ground {
        sets,
        watch,
        protection,
        backend,
        restored,
        troubles,
        generations,
        loaded,
        manner,
        seed,
        local_ports,
    } = ground(config, kept)?;
    let health = Health::new(troubles);
    health.facts.began(restored.start.clone());
    let policy = Arc::new(config.policy.clone());
    let (restored, judges) = restored.judges(&policy, &protection, seed, config.engine.workers);
    let (layout, feeds) = feeds(config, &manner, loaded.as_ref(), seed)?;
    let spec = wanted(config, layout, backend, local_ports, &manner, &restored);
    Ok(Opened {
        sets,
        watch,
        protection,
        feeds,
        backend,
        spec,
        restored,
        judges,
        generations,
        health: Arc::new(health),
        loaded,
        manner,
        eyes: eyes(),
    })
}

/// What is known before the first queue is bound.
pub(super) struct Ground {
    pub(super) sets: BanSets,
    watch: Follower,
    protection: Protection,
    pub(super) backend: Option<Backend>,
    pub(super) restored: Restored,
    troubles: Vec<String>,
    generations: Generations,
    pub(super) loaded: Option<Loaded>,
    pub(super) manner: Manner,
    pub(super) seed: u32,
    pub(super) local_ports: RangeInclusive<u16>,
}

/// Reads host, kernel and `kept`, makes sure that no engine answers, and says whether this configuration can be had.
pub(super) fn ground(config: &Config, mut kept: Kept) -> Result<Ground, DaemonError> {
    let policy = &config.policy;
    let (watch, facts) = Follower::open()?;
    for note in &facts.notes {
        warn!("{note}");
    }
    let protection = Protection::of(facts.protected, &policy.trusted);
    let mut sets = BanSets::open()?;
    let loaded = ruleset::read(sets.netlink())?;
    if let Some(loaded) = &loaded {
        unanswered(loaded)?;
    }
    let awake = loaded.as_ref().is_some_and(|loaded| !loaded.observing);
    let manner = Manner::of(config, awake);
    let backend = match (manner.observing, config.engine.manage_ruleset) {
        (true, _) => None,
        (false, true) => Some(preflight::judge_one_packet()?),
        // Its rules load, so this kernel has what they use; a chain of ours would be one too many.
        (false, false) => loaded.as_ref().and_then(|loaded| loaded.backend),
    };
    if !config.engine.manage_ruleset {
        let loaded = loaded.as_ref().ok_or(DaemonError::NotLoaded)?;
        match misfits(loaded, config, &manner) {
            misfits if misfits.is_empty() => {}
            misfits => return Err(DaemonError::Misfit(misfits)),
        }
    }
    // Everything is remembered before the first queue is bound: what waits in one is judged by all that is known.
    let found = loaded.as_ref().and_then(|loaded| loaded.seed);
    let seed = match config.engine.seed.or(found).or(kept.seed()) {
        Some(seed) => seed,
        None => draw_seed()?,
    };
    let live = if loaded.is_some() {
        sets.dump()?
    } else {
        Vec::new()
    };
    let restored = kept.join(&live, policy, &protection, Instant::now());
    Ok(Ground {
        sets,
        watch,
        protection,
        backend,
        restored,
        troubles: kept.troubles,
        generations: kept.generations,
        loaded,
        manner,
        seed,
        local_ports: facts.local_ports,
    })
}

/// The table that is wanted, with room for what is remembered.
pub(super) fn wanted(
    config: &Config,
    layout: Layout,
    backend: Option<Backend>,
    local_ports: RangeInclusive<u16>,
    manner: &Manner,
    restored: &Restored,
) -> Spec {
    let mut spec = spec(config, layout, backend.unwrap_or(Backend::Native), local_ports);
    manner.shape(&mut spec);
    if config.engine.manage_ruleset {
        restored.make_room(&mut spec);
    }
    spec
}

/// What follows handshakes. Without it everything else works: completed ports count like any other, and attacks of
/// many sources on one port are seen only where every attempt counts.
fn eyes() -> Option<Eyes> {
    Eyes::open()
        .inspect_err(|error| warn!("completed handshakes are not known: {error}"))
        .ok()
}

/// Where an operator's table would send packets past the queues and groups of this configuration, in words. What else
/// differs is told by `status`; this would be a hole or a wall.
fn misfits(loaded: &Loaded, config: &Config, manner: &Manner) -> Vec<String> {
    let engine = &config.engine;
    let mut misfits = Vec::new();
    let mut compare = |what: &str, found: Option<u32>, wanted: Option<u32>| {
        if let Some(wanted) = wanted
            && found != Some(wanted)
        {
            let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
            misfits.push(format!("{what} is {found} there and {wanted} here"));
        }
    };
    compare(
        "workers",
        loaded.workers.map(u32::from),
        u32::try_from(engine.workers).ok(),
    );
    compare(
        "log_base",
        loaded.log_base.map(u32::from),
        engine.log_base.map(u32::from),
    );
    if !manner.observing {
        compare(
            "queue_base",
            loaded.queue_base.map(u32::from),
            engine.queue_base.map(u32::from),
        );
    }
    compare("seed", loaded.seed, engine.seed);
    if loaded.observing != manner.observing {
        misfits.push(match loaded.observing {
            true => "it only observes".to_owned(),
            false => "it holds packets, and the configuration only observes".to_owned(),
        });
    }
    misfits
}

/// Makes sure that no living engine answers for a loaded table: whatever numbers ours would take, loading its
/// rules would leave the other one deaf. A holder that has just died is given a moment.
fn unanswered(loaded: &Loaded) -> Result<(), DaemonError> {
    let until = Instant::now() + DYING;
    loop {
        let queue = loaded
            .queue_base
            .map(|base| (Numbered::Queue, base, free_queues(base, 1)));
        let group = loaded
            .log_base
            .map(|base| (Numbered::LogGroup, base, free_groups(base, 1)));
        let mut taken = None;
        for (kind, base, free) in queue.into_iter().chain(group) {
            match free {
                Ok(free) if free == base => {}
                Ok(_) | Err(FeedError::Exhausted { .. }) => taken = Some(DaemonError::Answered(kind, base)),
                Err(error) => return Err(error.into()),
            }
        }
        match taken {
            None => return Ok(()),
            Some(error) if Instant::now() >= until => return Err(error),
            Some(_) => thread::sleep(DYING / 50),
        }
    }
}

/// Binds every queue and log group, before any rule leads there. The numbers of a loaded table are kept, so that
/// an adopted table needs no moment without a listener.
fn feeds(
    config: &Config,
    manner: &Manner,
    loaded: Option<&Loaded>,
    seed: u32,
) -> Result<(Layout, Vec<Feed>), DaemonError> {
    if let Some(kept) = loaded.and_then(|loaded| kept_layout(loaded, seed, config, manner)) {
        return match bind(config, manner, &kept) {
            Ok(feeds) => Ok((kept, feeds)),
            Err(error @ FeedError::Taken { .. }) => Err(DaemonError::Served(error)),
            Err(error) => Err(error.into()),
        };
    }
    let layout = free_layout(config, manner, seed)?;
    let feeds = bind(config, manner, &layout)?;
    Ok((layout, feeds))
}

/// Numbers that nobody has, where the configuration leaves the choice.
pub(super) fn free_layout(config: &Config, manner: &Manner, seed: u32) -> Result<Layout, FeedError> {
    let workers = config.engine.workers as u16;
    let queue_base = match config.engine.queue_base {
        Some(fixed) => fixed,
        None if manner.observing => FIRST_NUMBER,
        None => free_queues(FIRST_NUMBER, 2 * workers)?,
    };
    let log_base = match config.engine.log_base {
        Some(fixed) => fixed,
        None => free_groups(FIRST_NUMBER, workers)?,
    };
    Ok(Layout {
        queue_base,
        log_base,
        workers,
        seed,
    })
}

/// The numbers of a loaded table, if they are all that this configuration needs and asks for.
pub(super) fn kept_layout(loaded: &Loaded, seed: u32, config: &Config, manner: &Manner) -> Option<Layout> {
    let queue_base = loaded.queue_base.or(manner.observing.then_some(FIRST_NUMBER))?;
    let layout = Layout {
        queue_base,
        log_base: loaded.log_base?,
        workers: loaded.workers?,
        seed,
    };
    let engine = &config.engine;
    let asked = usize::from(layout.workers) == engine.workers
        && engine.queue_base.is_none_or(|base| base == layout.queue_base)
        && engine.log_base.is_none_or(|base| base == layout.log_base);
    asked.then_some(layout)
}

fn bind(config: &Config, manner: &Manner, layout: &Layout) -> Result<Vec<Feed>, FeedError> {
    (0..layout.workers)
        .map(|worker| Feed::open(&feed_config(config, manner, layout, worker)))
        .collect()
}

/// What worker number `worker` listens to.
pub fn feed_config(config: &Config, manner: &Manner, layout: &Layout, worker: u16) -> FeedConfig {
    let observing = manner.observing;
    FeedConfig {
        new_queue: (!observing).then(|| layout.new_queue(worker)),
        odd_queue: (!observing).then(|| layout.odd_queue(worker)),
        log_group: layout.log_group(worker),
        log_class: if observing {
            Class::Observed
        } else {
            Class::Refused
        },
        queue_length: manner.queue_length,
        fail_open: config.engine.on_loss == OnLoss::Open,
        copy_range: COPY_RANGE,
    }
}

/// A seed for the hash that spreads sources over workers, which nobody outside can guess.
pub(super) fn draw_seed() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

/// The table that `config` asks for, with the numbers and the way of handing packets over that were found.
pub fn spec(config: &Config, layout: Layout, backend: Backend, local_ports: RangeInclusive<u16>) -> Spec {
    let policy = &config.policy;
    Spec {
        observing: policy.observes_only(),
        filter_ports: policy.mode.filters_ports(),
        layout,
        backend,
        on_loss: config.engine.on_loss,
        trusted: policy.trusted.clone(),
        tcp_allowed: policy.tcp_allowed.clone(),
        udp_allowed: policy.udp_allowed.clone(),
        other_protocols: policy.other_protocols,
        internal_interfaces: config
            .engine
            .internal_interfaces
            .iter()
            .map(ToString::to_string)
            .collect(),
        v6_prefix: policy.v6_prefix,
        ban_set_size: config.engine.ban_set_size,
        prefix_sets: match config.engine.manage_ruleset {
            true => BTreeSet::new(),
            // Nobody adds a set to an operator's table later: those that an engine needs most are in it.
            false => BTreeSet::from([(Family::V4, 24), (Family::V6, 48), (Family::V6, 128)]),
        },
        ephemeral: local_ports.into_inner(),
    }
}

/// Loads the table, and where there was none the `first` bans with it, or takes the operator's as it is and says how it
/// differs; what is expected of it from now on.
pub fn put_in_place(
    netlink: &mut Netlink,
    ruleset: Ruleset,
    loaded: Option<&Loaded>,
    engine: &EngineConfig,
    first: First<'_>,
) -> Result<Ruleset, RulesetError> {
    if !engine.manage_ruleset {
        for difference in loaded
            .map(|loaded| loaded.differences(&ruleset))
            .unwrap_or_default()
        {
            warn!("the loaded table is not what this configuration would load: {difference}");
        }
        return Ok(ruleset);
    }
    let own = engine.own_table && can_be_owned(netlink, loaded);
    let ruleset = ruleset.owned(own);
    let applied = ruleset::apply_over(netlink, &ruleset, loaded, first)?;
    for kept in applied.kept {
        warn!(
            "set {} keeps its size {:?} instead of {}: making it anew would lose its bans",
            kept.name, kept.size, kept.wanted
        );
    }
    Ok(ruleset.with_ban_sets(&applied.adopted))
}

/// Whether the table can be closed to everybody else; tried, never told by the kernel's version.
fn can_be_owned(netlink: &mut Netlink, loaded: Option<&Loaded>) -> bool {
    match ruleset::probe_owner(netlink) {
        Ok(true) => {
            if loaded.is_some_and(|loaded| !loaded.outlives_its_owner()) {
                warn!(
                    "own_table = true takes effect once the table is made anew, for one that is there cannot be closed to \
                     others: verdictctl stop --remove-rules, then start (until then nothing is refused, and no ban holds)"
                );
            }
            true
        }
        Ok(false) => {
            warn!(
                "own_table = true has no effect: this kernel has no tables with an owner that outlive it (Linux 6.9)"
            );
            false
        }
        Err(error) => {
            warn!("own_table = true has no effect: {error}");
            false
        }
    }
}

/// Queue numbers and log groups are looked for from here on: far from 0, which Suricata and OpenSnitch take.
pub const FIRST_NUMBER: u16 = 4100;
/// How long a number may stay taken after its holder was killed; see `kernel::queue`.
const DYING: Duration = Duration::from_secs(1);
