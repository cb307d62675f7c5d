//! Knocks at this host through the tun device and hears what it answers.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::packet::{self, Kind};
use super::proof::{Fault, Record};
use super::range::LENGTH;
use super::session::Session;
use crate::config::InterfaceName;
use crate::control::selftest_view::LONGEST;
use crate::kernel::conntrack::{Flow, forget};
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::scratch;
use crate::kernel::tun::Tun;

/// The device and what was sent through it; when it is dropped the device is gone, and conntrack has forgotten.
pub(super) struct Knocker {
    tun: Option<Tun>,
    own: Ipv4Addr,
    stop: Arc<AtomicBool>,
    next_port: u16,
    seq: u32,
    knocks: HashMap<SocketAddrV4, Knock>,
    /// Nothing is sent later: the engine may have ended the self-test by then.
    until: Instant,
}

/// One SYN: who sent it, which also tells it from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(SocketAddrV4);

#[derive(Clone, Copy, Debug)]
struct Knock {
    server: SocketAddrV4,
    seq: u32,
    at: Instant,
    answer: Option<(Kind, Duration)>,
}

impl Knocker {
    /// Makes the device.
    pub(super) fn open(
        session: &Session,
        stop: Arc<AtomicBool>,
        record: &mut Record,
    ) -> Result<Knocker, Fault> {
        let (place, begun) = (session.place, Instant::now());
        let internal = session.plan.internal_interfaces.iter();
        let exempt = internal.filter(|name| {
            name.parse()
                .is_ok_and(|name: InterfaceName| name.matches(FIRST_NAME))
        });
        if let Some(name) = exempt.map(String::as_str).next() {
            return Err(Fault::new(
                "device",
                format!("packets that come in on {FIRST_NAME} to be judged"),
                format!("engine.internal_interfaces holds {name:?}"),
                "engine.internal_interfaces in the configuration",
            )
            .of_the_test());
        }
        let tun = Tun::open(NAMES, place.own, LENGTH).map_err(|error| {
            Fault::new(
                "device",
                "a tun device",
                error.to_string(),
                "ls -l /dev/net/tun, lsmod",
            )
            .of_the_test()
        })?;
        record.add(
            "device",
            Some(begun.elapsed()),
            format!(
                "{}: here is {}, {} scans, {} is the witness",
                tun.name(),
                place.own,
                place.source,
                place.witness
            ),
        );
        let mut draw = [0; 6];
        // Predictable numbers are only less kind to whoever runs this twice in two minutes.
        let _ = rustix::rand::getrandom(&mut draw, rustix::rand::GetRandomFlags::NONBLOCK);
        let [a, b, c, d, e, f] = draw;
        Ok(Knocker {
            tun: Some(tun),
            own: place.own,
            stop,
            next_port: FIRST_PORT + u16::from_ne_bytes([a, b]) % PORTS,
            seq: u32::from_ne_bytes([c, d, e, f]),
            knocks: HashMap::new(),
            until: begun + LONGEST - SPARE,
        })
    }

    /// One SYN from `from` to `port` of this host, a flow of its own.
    pub(super) fn knock(&mut self, from: Ipv4Addr, port: u16) -> Result<Id, Fault> {
        if Instant::now() >= self.until {
            return Err(Fault::new(
                "time",
                format!("to be done within {} s", LONGEST.as_secs()),
                "it took longer",
                "how busy this host is",
            )
            .of_the_test());
        }
        self.next_port = FIRST_PORT + (self.next_port - FIRST_PORT + 1) % PORTS;
        self.seq = self.seq.wrapping_add(SEQ_STEP);
        let client = SocketAddrV4::new(from, self.next_port);
        let knock = Knock {
            server: SocketAddrV4::new(self.own, port),
            seq: self.seq,
            at: Instant::now(),
            answer: None,
        };
        self.knocks.insert(client, knock);
        self.send(&packet::syn(client, knock.server, knock.seq))?;
        Ok(Id(client))
    }

    /// What was answered to it so far, and how long after it.
    pub(super) fn answer(&self, id: Id) -> Option<(Kind, Duration)> {
        self.knocks.get(&id.0)?.answer
    }

    /// When it was sent.
    pub(super) fn sent(&self, id: Id) -> Instant {
        self.knocks.get(&id.0).map_or_else(Instant::now, |knock| knock.at)
    }

    /// Takes back every answer until `done` is content or `limit` is over; whether it was.
    pub(super) fn hear(
        &mut self,
        limit: Instant,
        mut done: impl FnMut(&Knocker) -> bool,
    ) -> Result<bool, Fault> {
        let mut buffer = [0; 2048];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Fault::interrupted());
            }
            if done(self) {
                return Ok(true);
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let tun = self
                .tun
                .as_ref()
                .ok_or_else(|| lost(&io::ErrorKind::NotConnected.into()))?;
            let length = tun
                .receive(&mut buffer, left.min(TICK))
                .map_err(|error| lost(&error))?;
            self.note(buffer.get(..length).unwrap_or_default())?;
        }
    }

    /// Waits for the answer to `id` alone.
    pub(super) fn wait(&mut self, id: Id, limit: Duration) -> Result<Option<(Kind, Duration)>, Fault> {
        let until = Instant::now() + limit;
        self.hear(until, |knocker| knocker.answer(id).is_some())?;
        Ok(self.answer(id))
    }

    fn note(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some((client, server, kind)) = packet::read_answer(bytes) else {
            return Ok(());
        };
        let Some(knock) = self
            .knocks
            .get_mut(&client)
            .filter(|knock| knock.server == server)
        else {
            return Ok(());
        };
        let (took, seq) = (knock.at.elapsed(), knock.seq);
        knock.answer.get_or_insert((kind, took));
        match kind {
            // Also to one that is sent again: the first RST may have been lost.
            Kind::Open => self.send(&packet::rst(client, server, seq.wrapping_add(1))),
            Kind::Closed => Ok(()),
        }
    }

    fn send(&self, packet: &[u8]) -> Result<(), Fault> {
        let Some(tun) = &self.tun else { return Ok(()) };
        match tun.send(packet) {
            // As on any network: a packet may be lost, and is sent again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => Ok(()),
            other => other.map_err(|error| lost(&error)),
        }
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        drop(self.tun.take());
        let flows: Vec<Flow> = self
            .knocks
            .iter()
            .map(|(client, knock)| Flow {
                client: (*client.ip()).into(),
                client_port: client.port(),
                server: (*knock.server.ip()).into(),
                port: knock.server.port(),
            })
            .collect();
        // What is refused here goes by itself: flows that were reset, and limits, within ten seconds.
        let _ = forget::forget(&flows);
        if let Ok(mut netlink) = Netlink::open(mnl::Bus::Netfilter) {
            let clients: BTreeSet<Ipv4Addr> = self.knocks.keys().map(|client| *client.ip()).collect();
            for client in clients {
                let _ = scratch::forget_limit(&mut netlink, client);
            }
        }
    }
}

fn lost(error: &io::Error) -> Fault {
    Fault::new(
        "device",
        "the tun device to stay",
        error.to_string(),
        "what else manages network devices here (it must leave vdself* alone)",
    )
    .of_the_test()
}

const NAMES: &str = "vdself%d";
const FIRST_NAME: &str = "vdself0";
/// Source ports: below the usual ephemeral range, so that no rule takes them for the host's own.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;
/// Two knocks of one flow must not look like one sent twice.
const SEQ_STEP: u32 = 1_000_003;
/// Between our end and the engine's.
const SPARE: Duration = Duration::from_secs(3);
/// How long a signal waits at most.
const TICK: Duration = Duration::from_millis(50);
