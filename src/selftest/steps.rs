//! What is proved, in order. Each step says what it expected, what it saw and where to look.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::knock::{Id, Knocker};
use super::packet::Kind;
use super::ports::Ports;
use super::proof::{Fault, Record};
use super::session::Session;
use crate::control::wire::SelftestPlan;
use crate::core::judge::HOLD;
use crate::core::prefix::Prefix;
use crate::core::verdict::Proto;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::{self, scratch};
use crate::kernel::sets::{BanSets, LiveBan, set_name};
use crate::kernel::sockets;

/// The scanner at work.
pub(super) struct Trial<'a> {
    knocker: &'a mut Knocker,
    session: &'a mut Session,
    record: &'a mut Record,
    plan: SelftestPlan,
    source: Ipv4Addr,
    witness: Ipv4Addr,
    ports: Ports,
}

/// The port that crosses the line, and whether the host answers there.
#[derive(Clone, Copy)]
struct Last {
    port: u16,
    answers: bool,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        knocker: &'a mut Knocker,
        session: &'a mut Session,
        record: &'a mut Record,
    ) -> Trial<'a> {
        let plan = session.plan.clone();
        let ports = Ports::choose(&plan, served());
        Trial {
            source: session.place.source,
            witness: session.place.witness,
            knocker,
            session,
            record,
            plan,
            ports,
        }
    }

    pub(super) fn run(mut self) -> Result<(), Fault> {
        self.can_be_paced()?;
        let last = self.find_answer()?;
        self.touch_what_is_tolerated(last)?;
        if self.plan.enforce {
            self.cross_and_be_banned(last)
        } else {
            self.cross_and_be_recorded(last)?;
            self.try_scratch_set()
        }
    }

    /// Copies of packets come at 20 a second of one source, and the engine waits 30 s.
    fn can_be_paced(&self) -> Result<(), Fault> {
        if self.plan.threshold <= MOST_COPIED || !self.judges_copies() {
            return Ok(());
        }
        Err(Fault::new(
            "ports",
            format!("a threshold of at most {MOST_COPIED} where packets are judged by copies"),
            format!("unique_ports_threshold = {}", self.plan.threshold),
            "the configuration; such a scan cannot be tried within the 30 s that a self-test has",
        )
        .of_the_test())
    }

    fn judges_copies(&self) -> bool {
        self.plan.filters || !self.plan.holds
    }

    /// One SYN, sent only while the engine knows what it is.
    fn knock(&mut self, from: Ipv4Addr, port: u16) -> Result<Id, Fault> {
        self.session.is_under_way()?;
        self.knocker.knock(from, port)
    }

    /// A port that answers the witness: what it does not answer the scanner later, it does not because of the ban.
    fn find_answer(&mut self) -> Result<Last, Fault> {
        for port in self.ports.candidates.clone() {
            let mut knocked = self.knock(self.witness, port)?;
            let mut answer = self.knocker.wait(knocked, AGAIN)?;
            if answer.is_none() {
                knocked = self.knock(self.witness, port)?;
                answer = self.knocker.wait(knocked, AGAIN)?;
            }
            if let Some((kind, took)) = answer {
                let seen = format!("port {port} answers {} ({})", self.witness, word(kind));
                self.record.add("answers", Some(took), seen);
                return Ok(Last { port, answers: true });
            }
        }
        let port = self.ports.silent_last(&self.plan);
        let tried = list(&self.ports.candidates);
        self.record.add(
            "note",
            None,
            format!(
                "no port answers {}, not {tried}: another table of this host drops such packets, or no port is allowed; \
                 that the banned are met with silence cannot be shown here",
                self.witness
            ),
        );
        Ok(Last { port, answers: false })
    }

    /// As many ports as are tolerated, until the engine has counted each.
    fn touch_what_is_tolerated(&mut self, last: Last) -> Result<(), Fault> {
        let tolerated = self.ports.tolerated(&self.plan, last.port);
        let (begun, wanted) = (Instant::now(), self.plan.threshold);
        let mut counted = None;
        for _ in 0..ROUNDS {
            self.touch(&tolerated)?;
            let until = Instant::now() + ROUND;
            while Instant::now() < until {
                let state = self.session.look()?;
                counted = state.counted;
                if counted.is_none() {
                    return Err(self.not_counted(None));
                }
                if state.banned.is_some() {
                    return Err(self.banned_too_soon(tolerated.len()));
                }
                if counted == Some(wanted) {
                    let seen = format!(
                        "{wanted} ports of {} are counted and tolerated: {}",
                        self.source,
                        list(&tolerated)
                    );
                    self.record.add("counted", Some(begun.elapsed()), seen);
                    return Ok(());
                }
                self.knocker.hear(Instant::now() + LOOK_EVERY, |_| false)?;
            }
        }
        Err(self.not_counted(counted))
    }

    fn touch(&mut self, ports: &[u16]) -> Result<(), Fault> {
        for (index, port) in ports.iter().enumerate() {
            if index >= AT_ONCE && self.judges_copies() {
                self.knocker.hear(Instant::now() + COPY_EVERY, |_| false)?;
            } else if index % AT_ONCE == AT_ONCE - 1 {
                // Answers are taken off the device now and then, or it has no room for more.
                self.knocker
                    .hear(Instant::now() + Duration::from_millis(1), |_| false)?;
            }
            self.knock(self.source, *port)?;
        }
        Ok(())
    }

    fn banned_too_soon(&self, tolerated: usize) -> Fault {
        Fault::new(
            "counted",
            format!("{tolerated} ports to be tolerated"),
            format!("{} is banned already", self.source),
            "verdictctl list, unique_ports_threshold in the configuration (was it changed a moment ago?)",
        )
    }

    fn not_counted(&self, counted: Option<u32>) -> Fault {
        let wanted = self.plan.threshold;
        let seen = match counted {
            None => "the worker of this source does not answer".to_owned(),
            Some(counted) => format!("{counted} of {wanted} were counted"),
        };
        Fault::new(
            "counted",
            format!("a knock at each of {wanted} ports to reach the engine and to be counted"),
            seen,
            "verdictctl status (is the table as it should be?), verdictctl stats (queues: dropped), and tables of others \
             that drop what comes from 192.0.2.0/24 and its like before priority -190 (nft list ruleset)",
        )
    }

    /// One port too many: the packet that crosses the line is dropped, the kernel holds the ban within a second, the
    /// next packet is dropped too, and nobody else's.
    fn cross_and_be_banned(&mut self, last: Last) -> Result<(), Fault> {
        let crossing = self.knock(self.source, last.port)?;
        let (ban, took) = self.wait_for_ban(crossing, last)?;
        let left = ban.remaining.unwrap_or_default();
        let seen = format!(
            "{} is in set {} after the knock at port {}, for {:.1} s more",
            self.source,
            set_name(&ban.target),
            last.port,
            left.as_secs_f64()
        );
        self.record.add("banned", Some(took), seen);
        if last.answers {
            self.is_dropped(crossing, last)?;
        }
        self.is_alone(last)
    }

    fn wait_for_ban(&mut self, crossing: Id, last: Last) -> Result<(LiveBan, Duration), Fault> {
        let target = Prefix::host(self.source.into());
        let mut sets = BanSets::open().map_err(|error| kernel("banned", &error))?;
        let begun = self.knocker.sent(crossing);
        let limit = self.limit(last);
        let mut again = begun + AGAIN;
        loop {
            if let Some(ban) = sets.contains(&target).map_err(|error| kernel("banned", &error))? {
                return Ok((ban, begun.elapsed()));
            }
            let now = Instant::now();
            if now >= begun + limit {
                return Err(self.not_banned(limit)?);
            }
            if now >= again {
                self.knock(self.source, last.port)?;
                again = now + AGAIN;
            }
            self.knocker.hear(now + POLL, |_| false)?;
        }
    }

    /// A second; where the port that crosses the line is served, the engine first gives handshakes time.
    fn limit(&self, last: Last) -> Duration {
        match self.ports.is_served(last.port) {
            true => BAN_LIMIT + HOLD,
            false => BAN_LIMIT,
        }
    }

    fn not_banned(&mut self, limit: Duration) -> Result<Fault, Fault> {
        let state = self.session.look()?;
        let (seen, look_at) = match (&state.refused, state.banned) {
            (Some(words), _) => (
                format!("the kernel refuses the ban: {words}"),
                "engine.ban_set_size in the configuration, verdictctl status, nft list set inet verdictd banned4",
            ),
            (None, Some(true)) => (
                "the engine says it is banned, and the kernel's set does not hold it".to_owned(),
                "who else changes table inet verdictd (nft monitor), verdictctl status",
            ),
            (None, Some(false)) => (
                "the engine only recorded it".to_owned(),
                "bans.enforce in the configuration (was it changed a moment ago?)",
            ),
            (None, None) => (
                format!(
                    "the engine did not find it out; {} ports are counted",
                    state.counted.map_or_else(
                        || "an unknown number of".to_owned(),
                        |counted| counted.to_string()
                    )
                ),
                "verdictctl status (are the rules that lead to the queues in place?), verdictctl stats (queues: \
                 dropped), the engine's log",
            ),
        };
        Ok(Fault::new(
            "banned",
            format!(
                "{} in the kernel's set of bans within {} ms",
                self.source,
                limit.as_millis()
            ),
            seen,
            look_at,
        ))
    }

    /// Neither the packet that crossed the line nor the next one is answered.
    fn is_dropped(&mut self, crossing: Id, last: Last) -> Result<(), Fault> {
        let next = self.knock(self.source, last.port)?;
        self.knocker.hear(Instant::now() + SILENCE, |_| false)?;
        let silence = self.knocker.sent(crossing).elapsed();
        for (step, id, what) in [
            ("crossing", crossing, "the packet that crossed the line"),
            ("dropped", next, "the next packet of the banned source"),
        ] {
            match self.knocker.answer(id) {
                // A packet of which only a copy is judged has passed by then.
                Some(_) if step == "crossing" && !self.plan.holds => {
                    let seen = "the packet that crossed the line was judged by its copy, and passed";
                    self.record.add("note", None, seen);
                }
                Some((kind, took)) => return Err(self.answered(step, what, last.port, kind, took)),
                None => {
                    let silent = if step == "crossing" { silence } else { SILENCE };
                    let seen = format!(
                        "{what} was dropped: port {} is silent for {} ms",
                        last.port,
                        silent.as_millis()
                    );
                    self.record.add(step, None, seen);
                }
            }
        }
        Ok(())
    }

    fn answered(&self, step: &'static str, what: &str, port: u16, kind: Kind, took: Duration) -> Fault {
        Fault::new(
            step,
            format!("{what} to be dropped"),
            format!(
                "port {port} answered it after {} ms ({})",
                took.as_millis(),
                word(kind)
            ),
            "verdictctl stats (queues: user_dropped; a full queue lets packets pass unjudged where on_loss = \"open\"), \
             verdictctl status",
        )
    }

    /// The ban hits this source and no other.
    fn is_alone(&mut self, last: Last) -> Result<(), Fault> {
        let mut sets = BanSets::open().map_err(|error| kernel("others", &error))?;
        let witness = Prefix::host(self.witness.into());
        let banned = sets
            .contains(&witness)
            .map_err(|error| kernel("others", &error))?;
        let answer = if last.answers {
            self.ask_witness(last.port)?
        } else {
            None
        };
        match (banned, answer, last.answers) {
            (None, Some((kind, took)), _) => {
                let seen = format!(
                    "{} is not banned, and answered on port {} as before ({})",
                    self.witness,
                    last.port,
                    word(kind)
                );
                self.record.add("others", Some(took), seen);
                Ok(())
            }
            (None, None, false) => {
                let seen = format!("{} is not banned", self.witness);
                self.record.add("others", None, seen);
                Ok(())
            }
            (banned, ..) => Err(Fault::new(
                "others",
                format!("{} to be answered on port {} as before", self.witness, last.port),
                match banned {
                    Some(_) => "it is banned too",
                    None => "no answer",
                },
                "verdictctl list, verdictctl stats (does the engine still judge?), nft list ruleset",
            )),
        }
    }

    fn ask_witness(&mut self, port: u16) -> Result<Option<(Kind, Duration)>, Fault> {
        for _ in 0..ROUNDS {
            let knocked = self.knock(self.witness, port)?;
            if let Some(answer) = self.knocker.wait(knocked, AGAIN)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// One port too many where nobody is banned: it is recorded, and nothing is dropped.
    fn cross_and_be_recorded(&mut self, last: Last) -> Result<(), Fault> {
        let crossing = self.knock(self.source, last.port)?;
        let (begun, limit) = (self.knocker.sent(crossing), self.limit(last));
        let mut again = begun + AGAIN;
        while self.session.look()?.banned != Some(false) {
            let now = Instant::now();
            if now >= begun + limit {
                let fault = self.not_banned(limit)?;
                return Err(Fault {
                    step: "recorded",
                    expected: format!(
                        "{} among the would-be bans within {} ms",
                        self.source,
                        limit.as_millis()
                    ),
                    ..fault
                });
            }
            if now >= again {
                self.knock(self.source, last.port)?;
                again = now + AGAIN;
            }
            self.knocker.hear(now + POLL, |_| false)?;
        }
        let seen = format!(
            "{} is recorded as a would-be ban after the knock at port {}",
            self.source, last.port
        );
        self.record.add("recorded", Some(begun.elapsed()), seen);
        let target = Prefix::host(self.source.into());
        let held = BanSets::open().and_then(|mut sets| sets.contains(&target));
        if held.map_err(|error| kernel("passes", &error))?.is_some() {
            return Err(Fault::new(
                "passes",
                "nothing to be dropped (bans.enforce = false)",
                format!("{} is in set {}", self.source, set_name(&target)),
                "verdictctl list: did an operator ban it?",
            ));
        }
        self.passes(crossing, last)
    }

    fn passes(&mut self, crossing: Id, last: Last) -> Result<(), Fault> {
        if !last.answers {
            return Ok(());
        }
        let crossed = self.knocker.wait(crossing, ANSWER_LIMIT)?;
        let next = self.knock(self.source, last.port)?;
        let next = self.knocker.wait(next, ANSWER_LIMIT)?;
        match (crossed, next) {
            (Some(_), Some((kind, took))) => {
                let seen = format!(
                    "nothing is dropped: port {} answered the packet that crossed the line and the next one ({})",
                    last.port,
                    word(kind)
                );
                self.record.add("passes", Some(took), seen);
                Ok(())
            }
            (crossed, _) => Err(Fault::new(
                "passes",
                "nothing to be dropped (bans.enforce = false)",
                format!(
                    "port {} did not answer {}",
                    last.port,
                    if crossed.is_none() {
                        "the packet that crossed the line"
                    } else {
                        "the next packet"
                    }
                ),
                "verdictctl status, nft list ruleset: who else drops packets here",
            )),
        }
    }

    /// The kernel would take a ban: a set of our table takes, lists and expires an element.
    fn try_scratch_set(&mut self) -> Result<(), Fault> {
        let begun = Instant::now();
        let mut netlink = Netlink::open(mnl::Bus::Netfilter).map_err(|error| kernel("scratch", &error))?;
        let table = ruleset::read(&mut netlink).map_err(|error| kernel("scratch", &error))?;
        if table.is_some_and(|table| table.owner.is_some()) {
            let seen = "not tried: table inet verdictd belongs to the engine alone (own_table = true)";
            self.record.add("scratch", None, seen);
            return Ok(());
        }
        scratch::create(&mut netlink).map_err(|error| kernel("scratch", &error))?;
        let outcome = self.fill(&mut netlink);
        let removed = scratch::remove(&mut netlink);
        outcome?;
        removed.map_err(|error| kernel("scratch", &error))?;
        let seen = "a scratch set in table inet verdictd took, listed and expired an element, and is gone";
        self.record.add("scratch", Some(begun.elapsed()), seen);
        Ok(())
    }

    fn fill(&mut self, netlink: &mut Netlink) -> Result<(), Fault> {
        scratch::add(netlink, self.source, SCRATCH_TIME).map_err(|error| kernel("scratch", &error))?;
        let added = Instant::now();
        let listed = scratch::count(netlink).map_err(|error| kernel("scratch", &error))?;
        let mut left = listed;
        while left > 0 && added.elapsed() < 5 * SCRATCH_TIME {
            self.knocker.hear(Instant::now() + LOOK_EVERY, |_| false)?;
            left = scratch::count(netlink).map_err(|error| kernel("scratch", &error))?;
        }
        match (listed, left) {
            (1, 0) => Ok(()),
            (listed, left) => Err(Fault::new(
                "scratch",
                format!(
                    "one element listed, and gone after {} ms",
                    SCRATCH_TIME.as_millis()
                ),
                format!(
                    "{listed} listed, {left} left after {} ms",
                    added.elapsed().as_millis()
                ),
                "dmesg: the kernel does not do with set elements what it should",
            )),
        }
    }
}

/// After the device is gone: the engine forgets, and the kernel's set holds nothing of it.
pub(super) fn nothing_stays(session: &mut Session, record: &mut Record) -> Result<(), Fault> {
    let begun = Instant::now();
    session.end()?;
    let mut sets = BanSets::open().map_err(|error| kernel("gone", &error))?;
    for addr in [session.place.source, session.place.witness] {
        let target = Prefix::host(addr.into());
        if sets
            .contains(&target)
            .map_err(|error| kernel("gone", &error))?
            .is_some()
        {
            return Err(Fault::new(
                "gone",
                "the ban to be lifted",
                format!("{addr} is still in set {}", set_name(&target)),
                "verdictctl status; it ends by itself within 30 s",
            ));
        }
    }
    let seen = "the ban is lifted, the engine and conntrack have forgotten the source, the device is gone";
    record.add("gone", Some(begun.elapsed()), seen);
    Ok(())
}

/// TCP ports on which somebody listens; if the kernel does not tell, a test takes 0.9 s longer and knocks there.
fn served() -> BTreeSet<u16> {
    let listeners = sockets::listeners().unwrap_or_default().into_iter();
    let tcp = listeners.filter(|listener| listener.proto == Proto::Tcp && !listener.is_loopback());
    tcp.map(|listener| listener.port).collect()
}

fn kernel(step: &'static str, error: &dyn std::error::Error) -> Fault {
    Fault::new(
        step,
        "the kernel to answer about table inet verdictd",
        error.to_string(),
        "verdictctl status: is the table there?",
    )
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Open => "SYN+ACK",
        Kind::Closed => "RST",
    }
}

fn list(ports: &[u16]) -> String {
    let shown: Vec<String> = ports.iter().take(SHOWN).map(u16::to_string).collect();
    let more = ports.len().saturating_sub(SHOWN);
    match more {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

/// The kernel holds a ban so soon after the packet that earned it (issue: within a second).
const BAN_LIMIT: Duration = Duration::from_secs(1);
/// What is dropped is silent for so long; the witness is answered within a few milliseconds.
const SILENCE: Duration = Duration::from_millis(250);
/// A knock that nobody answered is repeated after so long.
const AGAIN: Duration = Duration::from_millis(300);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Every knock is repeated until it is counted: so often, and so long apart. Twenty copies a second are judged.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1000);
/// Knocks at once; copies of more are not taken.
const AT_ONCE: usize = 16;
const COPY_EVERY: Duration = Duration::from_millis(60);
/// At that pace they take 12 s.
const MOST_COPIED: u32 = 200;
const LOOK_EVERY: Duration = Duration::from_millis(10);
const POLL: Duration = Duration::from_millis(1);
const SCRATCH_TIME: Duration = Duration::from_millis(200);
/// Ports named in a line.
const SHOWN: usize = 20;
