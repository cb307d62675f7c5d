//! What conntrack leaves room for: whether it may be woken, and how much our queues may hold. The arithmetic is
//! pure, so that it is tested where the limit, which all namespaces share, must not be touched.

use tracing::info;

use crate::config::Config;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::ruleset::Spec;

/// How packets are watched, after a look at what this host has room for.
#[derive(Clone, Debug)]
pub struct Manner {
    /// By copies: nothing is held, and conntrack sleeps on.
    pub observing: bool,
    /// Why so, if the configuration asks for more.
    pub stateless: Option<String>,
    /// The most packets that each queue holds.
    pub queue_length: u32,
}

impl Manner {
    /// Looks in the network namespace of the calling thread. `awake`: rules of ours woke conntrack long ago.
    pub fn of(config: &Config, awake: bool) -> Manner {
        let mut manner = Manner {
            observing: config.policy.observes_only(),
            stateless: None,
            queue_length: config.engine.queue_length,
        };
        if manner.observing {
            return manner;
        }
        // Where conntrack cannot be asked, the rules that need it are refused with the kernel's own words.
        let Some(conntrack) = Conntrack::look() else {
            return manner;
        };
        if !awake && let Some(why) = too_small(&conntrack) {
            manner.observing = true;
            manner.stateless = Some(why);
            return manner;
        }
        let queues = 2 * config.engine.workers as u32;
        manner.queue_length = queue_length(config.engine.queue_length, queues, &conntrack);
        if manner.queue_length < config.engine.queue_length {
            info!(
                "each of {queues} queues holds {} packets instead of engine.queue_length = {}: what waits may fill \
                 an eighth of net.netfilter.nf_conntrack_max = {}",
                manner.queue_length, config.engine.queue_length, conntrack.max
            );
        }
        manner
    }

    /// Makes the table of a configuration that of this manner.
    pub fn shape(&self, spec: &mut Spec) {
        if self.observing {
            (spec.observing, spec.filter_ports) = (true, false);
        }
    }
}

/// Why conntrack must not be woken here, and what to do about it; `None` if it is awake or has room.
///
/// The first `ct` rule of a namespace makes conntrack follow every open connection at its next packet. Where the
/// table is too small, new flows are dropped by the kernel, and with them connections that were fine. Half of the
/// table is left to what begins later.
pub fn too_small(conntrack: &Conntrack) -> Option<String> {
    let Conntrack { max, flows, sockets } = *conntrack;
    if flows > 0 || sockets <= max / 2 {
        return None;
    }
    Some(format!(
        "conntrack sleeps, holds {max} flows at most, and {sockets} sockets are in use: waking it could cut open \
         connections, so packets are only copied to the engine, no port is refused and none is held; bans hold. \
         Make room, then restart: sysctl -w net.netfilter.nf_conntrack_max={}",
        sockets
            .saturating_mul(4)
            .checked_next_power_of_two()
            .unwrap_or(u32::MAX)
    ))
}

/// How long each of `queues` may be, of the `configured` length: a packet that waits holds a conntrack entry, and
/// all that wait together may hold an eighth of what there are.
pub fn queue_length(configured: u32, queues: u32, conntrack: &Conntrack) -> u32 {
    configured.min((conntrack.max / 8 / queues.max(1)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conntrack(max: u32, flows: u32, sockets: u32) -> Conntrack {
        Conntrack { max, flows, sockets }
    }

    #[test]
    fn conntrack_is_woken_only_where_half_of_it_stays_free() {
        for (max, flows, sockets, wakes) in [
            (200, 0, 100, true),
            (200, 0, 101, false),
            (200, 1, 400, true), // awake already: whatever is open is in it
            (262_144, 0, 20, true),
            (0, 0, 1, false),
            (u32::MAX, 0, u32::MAX, false),
        ] {
            let verdict = too_small(&conntrack(max, flows, sockets));
            assert_eq!(verdict.is_none(), wakes, "{max} {flows} {sockets}: {verdict:?}");
        }
    }

    #[test]
    fn the_words_hold_the_figures_and_a_limit_that_will_do() {
        let words = too_small(&conntrack(200, 0, 400)).unwrap();
        assert!(
            words.contains("200 flows") && words.contains("400 sockets"),
            "{words}"
        );
        assert!(
            words.ends_with("sysctl -w net.netfilter.nf_conntrack_max=2048"),
            "{words}"
        );
        assert_eq!(too_small(&conntrack(2048, 0, 400)), None);
        let words = too_small(&conntrack(1, 0, u32::MAX)).unwrap();
        assert!(words.ends_with("=4294967295"), "{words}");
    }

    #[test]
    fn all_queues_together_hold_an_eighth_of_conntrack_at_most() {
        assert_eq!(queue_length(4096, 8, &conntrack(262_144, 0, 0)), 4096);
        assert_eq!(queue_length(4096, 8, &conntrack(262_143, 0, 0)), 4095);
        assert_eq!(queue_length(4096, 2, &conntrack(8192, 0, 0)), 512);
        assert_eq!(queue_length(16, 2, &conntrack(8192, 0, 0)), 16);
        // A queue of length 0 would hold nothing at all.
        assert_eq!(queue_length(4096, 128, &conntrack(200, 0, 0)), 1);
        assert_eq!(queue_length(4096, 0, &conntrack(0, 0, 0)), 1);
    }
}
