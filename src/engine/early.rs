//! Rules and bans in the kernel without an engine: before the network is up, when none runs yet, and when a policy has
//! to go back, though the engine that tried it is dead. It is what an engine's start does up to where it would bind
//! its queues, by the same code; the engine that starts later adopts it.
//!
//! Until then nobody answers in the queues: `on_loss` decides about packets to open ports, as it does whenever the
//! engine is away. What is refused or banned is dropped by the kernel.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::unbounded;

use super::daemon;
use super::enforcer::{Desk, Enforcer, HOTTEST, Mirror, Report};
use super::error::DaemonError;
use super::last_good::{Chosen, LastGood};
use super::open::{self, Ground, put_in_place};
use super::restore::Kept;
use crate::config::Config;
use crate::kernel::ruleset::Ruleset;
use crate::state::Place;
use crate::stats::Stats;

/// What is to be put in force, and from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Where state is kept.
    pub state_dir: PathBuf,
}

/// What is in force now.
#[derive(Debug)]
pub struct Restored {
    /// The configuration.
    pub config: Config,
    /// Bans in the kernel.
    pub bans: usize,
    /// Bans that it did not take, each with the reason.
    pub refused: Vec<String>,
}

/// Puts it in force in the network namespace of the calling thread, and leaves the state as it is. A table that is
/// there is adopted.
///
/// # Errors
/// As an engine's start: nothing was changed then. Also if an engine runs.
pub fn restore(options: &Options) -> Result<Restored, DaemonError> {
    let good = LastGood::beside(&options.state_dir);
    // Whoever is logged in chose this policy before; at boot nobody is.
    let Chosen { config, .. } = good.choose(&options.config, |_| Ok(()))?;
    let _lock = daemon::lock(&options.state_dir)?;
    let place = Place::new(&options.state_dir, config.engine.state_file.as_deref());
    let ground = open::ground(&config, Kept::peek(&place, config.policy.max_sources))?;
    let Ground {
        mut sets,
        backend,
        restored,
        loaded,
        manner,
        seed,
        local_ports,
        ..
    } = ground;
    let kept = loaded
        .as_ref()
        .and_then(|loaded| open::kept_layout(loaded, seed, &config, &manner));
    let layout = match kept {
        Some(layout) => layout,
        None => open::free_layout(&config, &manner, seed)?,
    };
    let spec = open::wanted(&config, layout, backend, local_ports, &manner, &restored);
    let now = Instant::now();
    let wanted = Mirror::of(restored.ledger.bans());
    let ruleset = put_in_place(
        sets.netlink(),
        Ruleset::build(&spec),
        loaded.as_ref(),
        &config.engine,
        &wanted.hottest(HOTTEST, now),
    )?;
    let (_jobs, jobs) = unbounded();
    let (report_sender, reports) = unbounded();
    let (scribe, _written) = unbounded();
    let desk = Desk {
        jobs,
        reports: report_sender,
        scribe,
        stats: Arc::new(Stats::new(0, now)),
    };
    let expected = Arc::new(Mutex::new(Arc::new(ruleset)));
    Enforcer::new(sets, wanted, expected, &config.engine, desk).begin(&restored.changes);
    let refused: Vec<String> = reports.try_iter().filter_map(refusal).collect();
    let enforced = restored.ledger.bans().filter(|ban| ban.enforced).count();
    Ok(Restored {
        config,
        bans: enforced.saturating_sub(refused.len()),
        refused,
    })
}

fn refusal(report: Report) -> Option<String> {
    match report {
        Report::Refused(failure) => Some(format!("{}: {}", failure.target, failure.error)),
        Report::Repaired(_) | Report::Deleted { .. } | Report::Foreign { .. } => None,
    }
}
