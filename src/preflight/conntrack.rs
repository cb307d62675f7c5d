//! Findings about conntrack: room, announcements, who else listens.

use super::ENGINE;
use super::facts::Facts;
use super::finding::{Code, Finding, listed};
use crate::config::Config;
use crate::engine::room;
use crate::kernel::conntrack::Conntrack;

/// All of them.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let watches_only = config.policy.observes_only();
    let Some(conntrack) = &facts.conntrack else {
        let what =
            "this kernel has no conntrack, without which no port can be filtered and no offender be held";
        let remedy = "modprobe -a nf_conntrack nf_conntrack_netlink, or boot your distribution's own kernel";
        return vec![Finding::act_if(!watches_only, Code::CtRoom, what, remedy)];
    };
    let needs = Needs::of(conntrack, config);
    let mut findings = vec![
        room(conntrack, &needs, watches_only),
        queues(conntrack, &needs, config, watches_only),
        events(facts.events),
    ];
    findings.extend(loose(facts.loose));
    findings.extend(listeners(facts));
    findings
}

/// How large `nf_conntrack_max` had to be, and one number that is enough for all: who follows one finding is not to take
/// away what another asked for.
struct Needs {
    /// For what is in use; `None`: it is enough.
    room: Option<u32>,
    /// For queues of the length that is configured.
    queues: Option<u32>,
}

impl Needs {
    fn of(conntrack: &Conntrack, config: &Config) -> Needs {
        let Conntrack { max, flows, sockets } = *conntrack;
        // Asleep it will follow what sockets there are; awake it is near its end with three quarters of its flows.
        let small = sockets > max / 2 || flows > max / 4 * 3;
        // A quarter is taken then: the arithmetic of the engine's own words.
        let room = small.then(|| power_of_two(sockets.max(flows).saturating_mul(4)));
        let waiting = config.engine.queue_length.saturating_mul(held_by(config));
        let queues = (waiting > max / 8).then(|| power_of_two(waiting.saturating_mul(8)));
        Needs { room, queues }
    }

    /// The commands, now and for good: systemd sets sysctls at boot, of modules that are loaded by then.
    fn remedy(&self) -> String {
        let max = self.room.max(self.queues).unwrap_or_default();
        format!(
            "make room: sysctl -w net.netfilter.nf_conntrack_max={max}, and for good: echo nf_conntrack > \
             /etc/modules-load.d/90-conntrack.conf; echo net.netfilter.nf_conntrack_max={max} > /etc/sysctl.d/90-conntrack.conf"
        )
    }
}

fn power_of_two(wanted: u32) -> u32 {
    wanted.checked_next_power_of_two().unwrap_or(u32::MAX)
}

/// How many queues there will be.
fn held_by(config: &Config) -> u32 {
    2 * config.engine.workers as u32
}

fn room(conntrack: &Conntrack, needs: &Needs, watches_only: bool) -> Finding {
    let Conntrack { max, flows, sockets } = *conntrack;
    if let Some(why) = room::too_small(conntrack) {
        // Its own remedy knows nothing of queues.
        let what = why.rsplit_once(". ").map_or(&*why, |(what, _)| what);
        let remedy = format!("{}; then restart the engine, if it runs", needs.remedy());
        return Finding::act_if(!watches_only, Code::CtRoom, what, remedy);
    }
    if needs.room.is_some() {
        let what = format!(
            "conntrack holds {flows} of at most {max} flows, and {sockets} sockets are in use: when it is full, the kernel \
             drops what is new, with or without the engine"
        );
        return Finding::act(Code::CtRoom, what, needs.remedy());
    }
    let sleeps = if flows == 0 { " and sleeps" } else { "" };
    Finding::fine(
        Code::CtRoom,
        format!("conntrack holds {flows} of at most {max} flows{sleeps}, {sockets} sockets are in use"),
    )
}

fn queues(conntrack: &Conntrack, needs: &Needs, config: &Config, watches_only: bool) -> Finding {
    let (length, queues) = (config.engine.queue_length, held_by(config));
    let each = room::queue_length(length, queues, conntrack);
    if each >= length {
        let all = length.saturating_mul(queues);
        let what =
            format!("{queues} queues of {length} packets hold {all} at most, within an eighth of conntrack");
        return Finding::fine(Code::CtQueues, what);
    }
    let hold = match watches_only {
        true => "would hold, once packets are held,",
        false => "will hold",
    };
    let what = format!(
        "each of {queues} queues {hold} {each} packets instead of engine.queue_length = {length}: what waits may fill an \
         eighth of net.netfilter.nf_conntrack_max = {}",
        conntrack.max
    );
    Finding::note(Code::CtQueues, what, needs.remedy())
}

fn events(mode: Option<u32>) -> Finding {
    match mode {
        Some(0) => Finding::act(
            Code::CtEvents,
            "conntrack's announcements are off (nf_conntrack_events = 0), so who completed a handshake on a published port is \
             not known, and honest visitors there look like failed attempts",
            "sysctl -w net.netfilter.nf_conntrack_events=2, and for good: echo nf_conntrack > \
             /etc/modules-load.d/90-conntrack.conf; echo net.netfilter.nf_conntrack_events=2 > \
             /etc/sysctl.d/90-conntrack-events.conf",
        ),
        Some(_) => Finding::fine(Code::CtEvents, "conntrack announces who completed a handshake"),
        None => Finding::note(
            Code::CtEvents,
            "this kernel does not announce who completed a handshake; the engine asks TCP instead, which knows nothing of \
             published ports",
            "modprobe nf_conntrack_netlink; if it is still so and containers publish ports here, boot your distribution's own \
             kernel",
        ),
    }
}

fn loose(mode: Option<u32>) -> Option<Finding> {
    (mode == Some(0)).then(|| {
        Finding::note(
            Code::CtLoose,
            "nf_conntrack_tcp_loose = 0: connections that are older than conntrack (at the engine's first start, after \
             \"conntrack -F\") are invalid to it, and where they do not end in a socket of this host they are judged",
            "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1, unless you want it so",
        )
    })
}

fn listeners(facts: &Facts) -> Option<Finding> {
    let foreign: Vec<String> = facts
        .held
        .listeners
        .as_ref()?
        .iter()
        .filter(|(_, program)| program.as_ref().is_none_or(|one| one.name != ENGINE))
        .map(|(portid, program)| match program {
            Some(program) => program.to_string(),
            None => format!("a program that cannot be seen (netlink port {portid})"),
        })
        .collect();
    let what = match foreign.is_empty() {
        true => "nobody else listens to conntrack".to_owned(),
        false => format!(
            "others listen to conntrack too ({}); the engine takes nothing away from them",
            listed(foreign, 5)
        ),
    };
    Some(Finding::fine(Code::CtListeners, what))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample;
    use super::*;
    use crate::kernel::facts::held::Program;

    fn found(conntrack: (u32, u32, u32), config: &str, code: Code) -> Finding {
        let mut facts = sample::facts();
        let (max, flows, sockets) = conntrack;
        facts.conntrack = Some(Conntrack { max, flows, sockets });
        sample::one(judge(&facts, &sample::config(config)), code)
    }

    #[test]
    fn a_small_conntrack_comes_with_its_sysctl_line() {
        let few = "[engine]\nworkers = 1\nqueue_length = 64\n";
        let asleep = found((8192, 0, 5000), few, Code::CtRoom);
        assert_eq!(asleep.level, Level::Act);
        assert!(
            asleep.remedy.contains(
                "sysctl -w net.netfilter.nf_conntrack_max=32768, and for good: echo nf_conntrack >"
            ),
            "{asleep:?}"
        );
        assert!(!asleep.what.contains("sysctl"), "{asleep:?}");
        for awake in [(8192, 10, 5000), (8192, 7000, 10)] {
            let finding = found(awake, "", Code::CtRoom);
            assert_eq!(finding.level, Level::Act, "{finding:?}");
            assert!(finding.remedy.contains("sysctl -w"), "{finding:?}");
        }
        for fine in [(8192, 10, 4000), (262_144, 0, 20)] {
            assert_eq!(found(fine, "", Code::CtRoom).level, Level::Fine);
        }
        let watching = found((8192, 0, 5000), "[bans]\nenforce = false\n", Code::CtRoom);
        assert_eq!(watching.level, Level::Note, "nothing is held there");
        assert_eq!(found((0, 0, 0), "", Code::CtRoom).level, Level::Fine);
        assert_eq!(found((1, u32::MAX, u32::MAX), "", Code::CtRoom).level, Level::Act);
    }

    #[test]
    fn queues_that_will_be_shorter_are_told_with_the_room_they_want() {
        let config = "[engine]\nworkers = 4\nqueue_length = 4096\n";
        assert_eq!(found((262_144, 1, 1), config, Code::CtQueues).level, Level::Fine);
        let short = found((65_536, 1, 1), config, Code::CtQueues);
        assert!(short.what.contains("hold 1024 packets instead"), "{short:?}");
        assert!(short.remedy.contains("nf_conntrack_max=262144"), "{short:?}");
        let watching = found(
            (65_536, 1, 1),
            &format!("{config}[bans]\nenforce = false\n"),
            Code::CtQueues,
        );
        assert!(
            watching.what.contains("would hold, once packets are held, 1024"),
            "{watching:?}"
        );
    }

    #[test]
    fn one_number_is_enough_for_flows_and_queues() {
        let config = sample::config("[engine]\nworkers = 8\nqueue_length = 4096\n");
        for (conntrack, wanted) in [((8192, 0, 5000), 524_288), ((262_144, 250_000, 10), 1_048_576)] {
            let (max, flows, sockets) = conntrack;
            let mut facts = sample::facts();
            facts.conntrack = Some(Conntrack { max, flows, sockets });
            let findings = judge(&facts, &config);
            for code in [Code::CtRoom, Code::CtQueues] {
                let finding = sample::one(findings.clone(), code);
                let sets = format!("nf_conntrack_max={wanted}");
                assert_eq!(finding.remedy.matches(&sets).count(), 2, "{finding:?}");
                assert_eq!(
                    finding.remedy.matches("nf_conntrack_max=").count(),
                    2,
                    "{finding:?}"
                );
            }
            // Who did so has nothing more to do.
            facts.conntrack = Some(Conntrack {
                max: wanted,
                flows,
                sockets,
            });
            for code in [Code::CtRoom, Code::CtQueues] {
                assert_eq!(sample::one(judge(&facts, &config), code).level, Level::Fine);
            }
        }
    }

    #[test]
    fn no_conntrack_is_to_act_on_but_for_who_only_watches() {
        let mut facts = sample::facts();
        facts.conntrack = None;
        let level = |config| sample::one(judge(&facts, &sample::config(config)), Code::CtRoom).level;
        assert_eq!(level(""), Level::Act);
        assert_eq!(level("[bans]\nenforce = false\n"), Level::Note);
    }

    #[test]
    fn announcements_that_are_off_are_switched_on_by_one_command() {
        assert_eq!(events(Some(2)).level, Level::Fine);
        assert_eq!(events(Some(1)).level, Level::Fine);
        assert!(
            events(Some(0))
                .remedy
                .starts_with("sysctl -w net.netfilter.nf_conntrack_events=2")
        );
        assert_eq!(events(None).level, Level::Note);
        assert_eq!(loose(Some(1)), None);
        assert_eq!(loose(None), None);
        assert_eq!(loose(Some(0)).map(|one| one.level), Some(Level::Note));
    }

    #[test]
    fn other_listeners_are_named_and_our_own_is_not() {
        let program = |name: &str| {
            Some(Program {
                name: name.into(),
                pid: 7,
            })
        };
        let mut facts = sample::facts();
        facts.held.listeners = Some(vec![(1, program("verdictd"))]);
        assert_eq!(
            listeners(&facts).unwrap().what,
            "nobody else listens to conntrack"
        );
        facts.held.listeners = Some(vec![
            (1, program("conntrackd")),
            (2, program("verdictd")),
            (3, None),
        ]);
        let what = listeners(&facts).unwrap().what;
        assert!(
            what.starts_with(
                "others listen to conntrack too (conntrackd (pid 7) and a program that cannot be seen (netlink port 3));"
            ),
            "{what}"
        );
        facts.held.listeners = None;
        assert_eq!(listeners(&facts), None);
    }
}
