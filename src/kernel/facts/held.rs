//! Who else works with netfilter's numbers here: queues, log groups, and conntrack's announcements; with the names of the
//! programs behind their sockets, as far as this process may see them.

use std::collections::BTreeSet;

pub use crate::kernel::queue_proc::Program;
use crate::kernel::queue_proc::{Numbered, netlink_sockets, numbers_held, programs};

/// A number that some socket holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The number of the queue or log group.
    pub number: u16,
    /// The holding socket's netlink port.
    pub portid: u32,
    /// Who has it open, if that can be seen.
    pub program: Option<Program>,
}

/// Who holds what in the calling thread's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Verdict queues; `None`: the kernel tells only root.
    pub queues: Option<Vec<Holding>>,
    /// Log groups; `None` as above.
    pub groups: Option<Vec<Holding>>,
    /// Who listens to conntrack's announcements: netlink port and program; `None`: not to be read.
    pub listeners: Option<Vec<(u32, Option<Program>)>>,
}

impl Held {
    /// Looks.
    pub fn look() -> Held {
        let sockets = netlink_sockets().ok();
        let known = sockets.as_deref().unwrap_or_default();
        let hearing: BTreeSet<u32> = known
            .iter()
            .filter(|one| one.hears_conntrack())
            .map(|one| one.portid)
            .collect();
        let numbers = [Numbered::Queue, Numbered::LogGroup].map(|kind| numbers_held(kind).ok());
        let mut wanted = hearing.clone();
        wanted.extend(numbers.iter().flatten().flatten().map(|(_, portid)| *portid));
        let programs = programs(known, &wanted);
        let [queues, groups] = numbers.map(|held| {
            let holding = |(number, portid)| Holding {
                number,
                portid,
                program: programs.get(&portid).cloned(),
            };
            Some(held?.into_iter().map(holding).collect())
        });
        let named = |portid: &u32| (*portid, programs.get(portid).cloned());
        Held {
            queues,
            groups,
            listeners: sockets.is_some().then(|| hearing.iter().map(named).collect()),
        }
    }

    /// The holdings of one kind.
    pub fn of(&self, kind: Numbered) -> Option<&[Holding]> {
        match kind {
            Numbered::Queue => self.queues.as_deref(),
            Numbered::LogGroup => self.groups.as_deref(),
        }
    }
}
