//! The thread that tells log and audit log what a port filter refused (corporate mode): fed by the workers, who never wait for it.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::info;

use crate::audit::log::Audit;
use crate::audit::record::What;
use crate::core::verdict::Proto;
use crate::notify::log::SAID;
use crate::notify::refusals::{Line, Refusal, Refusals, Share, Target};
use crate::stats::Stats;

/// Refusals on their way from the workers. The kernel hands on some 20 a second of one source; what does not fit is
/// counted, and the log says how many.
pub const CHANNEL: usize = 4096;

/// Logs what comes until every worker is gone.
pub fn follow(facts: &Receiver<Refusal>, stats: &Stats, audit: &Audit) {
    let mut refusals = Refusals::default();
    let mut lost = Lost { told: 0, stats };
    while let Some(first) = next(facts, &refusals) {
        if let Some(first) = first {
            // While this thread sleeps, a worker's fact costs it no system call to wake anybody.
            thread::sleep(GATHER);
            let now = Instant::now();
            let gathered = std::iter::once(first).chain(facts.try_iter().take(CHANNEL));
            gathered
                .filter_map(|fact| refusals.note(fact, now))
                .for_each(|line| {
                    write_down(&line, audit);
                    tell(line);
                });
        }
        if refusals.closes_at().is_some_and(|at| at <= Instant::now()) {
            close(&mut refusals, &mut lost, audit);
        }
    }
    close(&mut refusals, &mut lost, audit);
}

/// The next fact; `Some(None)` when the minute is over, `None` when no worker is left.
fn next(facts: &Receiver<Refusal>, refusals: &Refusals) -> Option<Option<Refusal>> {
    let received = match refusals.closes_at() {
        Some(at) => facts.recv_deadline(at),
        // Nothing was refused: for as long as that stays so.
        None => facts.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match received {
        Ok(fact) => Some(Some(fact)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// The log gets what a person reads, the audit log every packet: of the same facts.
fn close(refusals: &mut Refusals, lost: &mut Lost<'_>, audit: &Audit) {
    for share in refusals.shares() {
        audit.note(|| What::refusal(&share));
    }
    refusals.close(Instant::now()).into_iter().for_each(tell);
    if let Some(line) = lost.since_told().map(Line::Lost) {
        write_down(&line, audit);
        tell(line);
    }
}

/// What is in the shares of the minute is not told twice.
fn write_down(line: &Line, audit: &Audit) {
    match line {
        Line::Refused(refusal) => audit.note(|| {
            What::refusal(&Share {
                source: Some(refusal.source),
                target: Some(refusal.target),
                packets: 1,
                ..Share::default()
            })
        }),
        Line::Lost(packets) => audit.note(|| What::unseen(*packets)),
        Line::More { .. } | Line::Others { .. } => {}
    }
}

struct Lost<'a> {
    told: u64,
    stats: &'a Stats,
}

impl Lost<'_> {
    fn since_told(&mut self) -> Option<u64> {
        let all: u64 = self
            .stats
            .workers
            .iter()
            .map(|worker| worker.refusals_lost.get())
            .sum();
        let since = all - std::mem::replace(&mut self.told, all);
        (since > 0).then_some(since)
    }
}

fn tell(line: Line) {
    match line {
        Line::Refused(Refusal { source, target }) => {
            let (proto, port) = match target {
                Target::Port(proto, port) => (Some(word(proto)), Some(port)),
                Target::Protocol(_) => (None, None),
            };
            let protocol = match target {
                Target::Port(..) => None,
                Target::Protocol(number) => Some(number),
            };
            info!(target: SAID, event = "refused", %source, proto, port, protocol, "{line}");
        }
        Line::More {
            source,
            packets,
            targets,
        } => info!(target: SAID, event = "refused_more", %source, packets, targets, "{line}"),
        Line::Others { packets, sources } => {
            info!(target: SAID, event = "refused_others", packets, sources, "{line}");
        }
        Line::Lost(packets) => info!(target: SAID, event = "refused_unseen", packets, "{line}"),
    }
}

fn word(proto: Proto) -> &'static str {
    match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
    }
}

/// How long facts are gathered: soon enough for a person, few enough wake-ups.
const GATHER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    #[test]
    fn what_workers_could_not_tell_is_told_once() {
        let stats = Stats::new(2, Instant::now());
        let mut lost = Lost {
            told: 0,
            stats: &stats,
        };
        assert_eq!(lost.since_told(), None);
        stats.workers[0].refusals_lost.add(3);
        stats.workers[1].refusals_lost.add(4);
        assert_eq!((lost.since_told(), lost.since_told()), (Some(7), None));
    }

    #[test]
    fn it_ends_with_the_last_worker() {
        let (worker, facts) = bounded(CHANNEL);
        let stats = Stats::new(1, Instant::now());
        let fact = Refusal {
            source: [203, 0, 113, 9].into(),
            target: Target::Port(Proto::Tcp, 23),
        };
        for _ in 0..10 {
            worker.send(fact).unwrap();
        }
        drop(worker);
        follow(&facts, &stats, &Audit::default());
        assert!(facts.is_empty());
    }
}
