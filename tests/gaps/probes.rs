//! A thousand times a second one probe of each kind, and the witnesses of those that got through.
//!
//! A probe carries the number of its tick, and a tick has a time: a leak is known by when it was sent, whenever and
//! wherever it was seen. The witnesses are sockets of the host and of the attacker, so that they see what netfilter let
//! pass, and outlive every ruleset.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SocketType, ipproto, recv, socket, sockopt};

use crate::common::lab::{HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::wire::{Gun, SYN};
use crate::crowd::{NEWEST, NEWEST6, OLDEST};

/// An allowed port: what is banned may not come to it. Below `ip_local_port_range`, like the refused one.
pub(crate) const ALLOWED: u16 = 5000;
/// A port that is never allowed.
pub(crate) const REFUSED: u16 = 5001;
/// Nothing is known of it: it only comes to ports that are refused.
const STRANGER: &str = "10.88.0.3";

/// What is sent in each tick, and what holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// UDP from the source banned last, to an allowed port: the set, or the worker that knows of the ban.
    Newest,
    /// The same over IPv6.
    Newest6,
    /// Its SYNs, which have a chain of their own.
    NewestSyn,
    /// Its pings: no worker is asked about them, only the kernel's set.
    NewestPing,
    /// Pings from the source banned first: the last elements of the set.
    OldestPing,
    /// UDP to a port that is refused: the port filter.
    Refused,
    /// SYNs to it.
    RefusedSyn,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] = [
        Kind::Newest,
        Kind::Newest6,
        Kind::NewestSyn,
        Kind::NewestPing,
        Kind::OldestPing,
        Kind::Refused,
        Kind::RefusedSyn,
    ];
    /// Those that a ban holds, whatever the mode.
    pub(crate) const OF_BANNED: [Kind; 5] = [
        Kind::Newest,
        Kind::Newest6,
        Kind::NewestSyn,
        Kind::NewestPing,
        Kind::OldestPing,
    ];

    fn of(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }
}

/// The probes while they are sent.
pub(crate) struct Probes {
    record: Arc<Record>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A moment between two ticks.
#[derive(Clone, Copy)]
pub(crate) struct Mark(usize);

/// What got through from one moment on: of each kind the ticks it was sent in.
pub(crate) type Leaks = BTreeMap<Kind, BTreeSet<u32>>;

struct Record {
    begin: Instant,
    /// When each tick was, in microseconds since `begin`.
    ticks: Mutex<Vec<u64>>,
    seen: Mutex<Vec<(Kind, u32)>>,
}

impl Probes {
    /// From the attacker's of `lab` to its host, until it is dropped.
    pub(crate) fn start(lab: &Lab) -> Probes {
        let record = Arc::new(Record {
            begin: Instant::now(),
            ticks: Mutex::default(),
            seen: Mutex::default(),
        });
        let stop = Arc::<AtomicBool>::default();
        let mut threads = witnesses(lab, &record, &stop);
        let mut guns = Guns::aim(&lab.attacker);
        let (kept, ended) = (Arc::clone(&record), Arc::clone(&stop));
        threads.push(thread::spawn(move || {
            // They come from another machine, which has a processor of its own.
            let _ = rustix::process::nice(-10);
            while !ended.load(Ordering::Relaxed) {
                guns.fire(kept.tick());
                kept.wait_for_the_next();
            }
        }));
        Probes {
            record,
            stop,
            threads,
        }
    }

    /// Now.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.record.ticks().len())
    }

    /// What was sent since `mark` and got through, as far as it has been seen by now.
    pub(crate) fn leaks(&self, mark: Mark) -> Leaks {
        let mut leaks = Leaks::new();
        for (kind, tick) in self.record.seen().iter() {
            if *tick as usize >= mark.0 {
                leaks.entry(*kind).or_default().insert(*tick);
            }
        }
        leaks
    }

    /// Forgets what was seen; what is sent from now on counts.
    pub(crate) fn forget(&self) -> Mark {
        self.record.seen().clear();
        self.mark()
    }

    /// From the first tick that leaked to the last, and the one that was held again.
    pub(crate) fn length(&self, leaked: &BTreeSet<u32>) -> Duration {
        let ticks = self.record.ticks();
        let at = |tick: u32| ticks.get(tick as usize).or(ticks.last()).copied().unwrap_or(0);
        match (leaked.first(), leaked.last()) {
            (Some(first), Some(last)) => Duration::from_micros(at(last + 1) - at(*first)),
            _ => Duration::ZERO,
        }
    }

    /// Whether each kind has got through since `mark`: nothing holds them, and the witnesses see.
    pub(crate) fn all_pass(&self, mark: Mark) -> bool {
        self.leaks(mark).len() == Kind::ALL.len()
    }

    /// Whether no probe of the last `time` got through, and probes were sent all along.
    pub(crate) fn quiet(&self, time: Duration) -> bool {
        let since = (self.record.now()).saturating_sub(time.as_micros() as u64);
        let (first, count) = {
            let ticks = self.record.ticks();
            let first = ticks.partition_point(|at| *at < since);
            (first, ticks.len() - first)
        };
        let last = self.record.seen().iter().map(|(_, tick)| *tick as usize).max();
        count > time.as_millis() as usize / 4 && last.is_none_or(|last| last < first)
    }

    /// How many ticks there were since `mark`, the mean of them a second, and the longest time between two.
    pub(crate) fn pace(&self, mark: Mark) -> (usize, f64, Duration) {
        let ticks = self.record.ticks();
        let ticks = &ticks[mark.0.min(ticks.len())..];
        let pauses = ticks.windows(2).map(|pair| pair[1] - pair[0]);
        let took = ticks
            .first()
            .zip(ticks.last())
            .map_or(0, |(first, last)| last - first);
        let rate = ticks.len() as f64 / Duration::from_micros(took.max(1)).as_secs_f64();
        (
            ticks.len(),
            rate,
            Duration::from_micros(pauses.max().unwrap_or(0)),
        )
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Record {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    /// Begins one.
    fn tick(&self) -> u32 {
        let mut ticks = self.ticks();
        ticks.push(self.now());
        ticks.len() as u32 - 1
    }

    /// On the full millisecond; ticks that were missed are not made up for, a gap is not measured any better by them.
    fn wait_for_the_next(&self) {
        let left = 1000 - self.now() % 1000;
        thread::sleep(Duration::from_micros(left));
    }

    fn see(&self, kind: u8, tick: u32) {
        if let Some(kind) = Kind::of(kind) {
            self.seen().push((kind, tick));
        }
    }

    fn ticks(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<(Kind, u32)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets that probes leave by.
struct Guns {
    udp: Vec<(Kind, UdpSocket)>,
    newest: Gun,
    oldest: Gun,
    stranger: Gun,
}

impl Guns {
    fn aim(attacker: &Namespace) -> Guns {
        let udp = |kind, from: &str, to: &str, port| {
            let [from, to] = [(from, 0), (to, port)]
                .map(|(addr, port)| SocketAddr::new(addr.parse::<IpAddr>().unwrap(), port));
            let socket = attacker.inside(|| UdpSocket::bind(from)).unwrap();
            socket.connect(to).unwrap();
            socket.set_nonblocking(true).unwrap();
            (kind, socket)
        };
        Guns {
            udp: vec![
                udp(Kind::Newest, NEWEST, HOST, ALLOWED),
                udp(Kind::Newest6, NEWEST6.1, HOST6, ALLOWED),
                udp(Kind::Refused, STRANGER, HOST, REFUSED),
            ],
            newest: Gun::new(attacker, NEWEST, HOST),
            oldest: Gun::new(attacker, OLDEST, HOST),
            stranger: Gun::new(attacker, STRANGER, HOST),
        }
    }

    fn fire(&mut self, tick: u32) {
        for (kind, socket) in &self.udp {
            // Refused by the sending kernel as long as a route is missing, as by any network.
            let _ = socket.send(&payload(*kind, tick));
        }
        self.newest.given(&syn(ALLOWED, tick));
        self.stranger.given(&syn(REFUSED, tick));
        self.newest.ip(ICMP, &ping(Kind::NewestPing, tick));
        self.oldest.ip(ICMP, &ping(Kind::OldestPing, tick));
    }
}

fn payload(kind: Kind, tick: u32) -> [u8; 9] {
    let [a, b, c, d] = tick.to_be_bytes();
    let [m, n, o, p] = WORD;
    [m, n, o, p, kind as u8, a, b, c, d]
}

fn read_payload(payload: &[u8]) -> Option<(u8, u32)> {
    let rest = payload.strip_prefix(&WORD)?;
    let tick = rest.get(1..5)?.try_into().ok()?;
    Some((*rest.first()?, u32::from_be_bytes(tick)))
}

/// Each a flow of its own; its sequence number is the tick, which the answer's acknowledgement gives back.
fn syn(port: u16, tick: u32) -> [u8; 20] {
    let [s, d] = [10_000 + (tick % 20_000) as u16, port].map(u16::to_be_bytes);
    let [a, b, c, e] = tick.to_be_bytes();
    [
        s[0], s[1], d[0], d[1], a, b, c, e, 0, 0, 0, 0, 0x50, SYN, 4, 0, 0, 0, 0, 0,
    ]
}

/// RFC 792: an echo request whose payload comes back.
fn ping(kind: Kind, tick: u32) -> Vec<u8> {
    let mut ping = vec![ECHO_REQUEST, 0, 0, 0, b'v', b'd', 0, 0];
    ping.extend(payload(kind, tick));
    let words = ping
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ping[2..4].copy_from_slice(&sum.to_be_bytes());
    ping
}

/// Sockets that see what arrives: datagrams at the host, answers to SYNs and pings at the attacker's.
fn witnesses(lab: &Lab, record: &Arc<Record>, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    let mut watch = |socket: OwnedFd, read: fn(&[u8]) -> Option<(u8, u32)>| {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LOOK)).unwrap();
        let (record, stop) = (Arc::clone(record), Arc::clone(stop));
        threads.push(thread::spawn(move || {
            let _ = rustix::process::nice(-10);
            let mut packet = [0; 256];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, _)) = recv(socket.as_fd(), &mut packet, RecvFlags::empty())
                    && let Some((kind, tick)) = packet.get(..length).and_then(read)
                {
                    record.see(kind, tick);
                }
            }
        }));
    };
    for port in [ALLOWED, REFUSED] {
        let socket = lab.host.inside(|| UdpSocket::bind(("::", port))).unwrap();
        watch(socket.into(), read_payload);
    }
    let raw = |protocol| {
        let made = || socket(AddressFamily::INET, SocketType::RAW, Some(protocol));
        lab.attacker.inside(made).unwrap()
    };
    watch(raw(ipproto::ICMP), read_echo);
    watch(raw(ipproto::TCP), read_syn_ack);
    threads
}

/// What follows an IPv4 header.
fn behind_ip(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 15) * 4..)
}

fn read_echo(packet: &[u8]) -> Option<(u8, u32)> {
    let icmp = behind_ip(packet)?;
    (*icmp.first()? == ECHO_REPLY).then(|| read_payload(icmp.get(8..)?))?
}

fn read_syn_ack(packet: &[u8]) -> Option<(u8, u32)> {
    let tcp = behind_ip(packet)?;
    let port = u16::from_be_bytes(tcp.get(..2)?.try_into().ok()?);
    let kind = match port {
        ALLOWED => Kind::NewestSyn,
        REFUSED => Kind::RefusedSyn,
        _ => return None,
    };
    // An answer of any kind: RST too, should the listener's queue be full.
    let acknowledged = u32::from_be_bytes(tcp.get(8..12)?.try_into().ok()?);
    Some((kind as u8, acknowledged.wrapping_sub(1)))
}

/// What every probe begins with.
const WORD: [u8; 4] = *b"gap?";
const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// How often a witness looks whether it may go.
const LOOK: Duration = Duration::from_millis(200);
