//! What is not as it should be, by the part that it is about: words for people, numbers of them for those who count.

use std::collections::BTreeMap;

use super::enforcer::RETRY;
use super::handler::{EngineHandler, TableState};

/// One sentence each, in the order in which they are told.
pub(super) type Troubles = Vec<(Area, Vec<String>)>;

/// What a trouble is about. A contract: alerts name the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    /// The table is not what it should be, or gone.
    Table,
    /// What conntrack has no room for, or does not tell.
    Conntrack,
    /// Bans that the kernel does not take.
    Bans,
    /// Another configuration is in force than the file's.
    Config,
    /// What cannot be saved, or was not found.
    State,
    /// The audit log.
    Audit,
    /// What should hold the engine itself and does not.
    Confinement,
    /// Workers and their beats.
    Workers,
    /// A policy on trial that cannot go back, or is not saved.
    Apply,
}

impl Area {
    /// The word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Area::Table => "table",
            Area::Conntrack => "conntrack",
            Area::Bans => "bans",
            Area::Config => "config",
            Area::State => "state",
            Area::Audit => "audit",
            Area::Confinement => "confinement",
            Area::Workers => "workers",
            Area::Apply => "apply",
        }
    }
}

impl EngineHandler {
    /// All there is, with what `table` says.
    pub(super) fn troubles(&self, table: &TableState) -> Troubles {
        let refused = self.stats.bans_refused.get();
        let bans = (refused > 0).then(|| {
            format!(
                "the kernel refuses {refused} changes of its sets of bans, see the log; they are tried again every {} s",
                RETRY.as_secs()
            )
        });
        vec![
            (Area::Table, table.degraded.clone()),
            (Area::Conntrack, table.conntrack.clone()),
            (Area::Bans, bans.into_iter().collect()),
            (Area::Config, self.health.configured().into_iter().collect()),
            (Area::State, self.health.degraded()),
            (Area::Audit, self.audit.state().degraded),
            (Area::Confinement, self.confinement.lost()),
            (Area::Workers, self.vitals.degraded(&self.stats)),
            (Area::Apply, self.trials.degraded().into_iter().collect()),
        ]
    }
}

/// The sentences alone.
pub(super) fn words(troubles: &Troubles) -> Vec<String> {
    troubles.iter().flat_map(|(_, words)| words.clone()).collect()
}

/// How many there are in each area, those without any too.
pub(super) fn by_area(troubles: &Troubles) -> BTreeMap<String, u64> {
    let count = |(area, words): &(Area, Vec<String>)| (area.word().to_owned(), words.len() as u64);
    troubles.iter().map(count).collect()
}
