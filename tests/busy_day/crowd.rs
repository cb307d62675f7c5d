//! Who comes on a busy day, and what they do: a plan of packets, drawn from one seed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use verdictd::core::probe::Transport;

/// Where the host has services: a web and mail server.
pub(crate) const OPEN: [u16; 10] = [22, 25, 80, 110, 143, 443, 465, 587, 993, 995];
const MAIL: [u16; 7] = [25, 110, 143, 465, 587, 993, 995];
/// Typed by mistake, or tried because a service often is there; nobody answers.
const MISTAKEN: [u16; 5] = [8080, 8443, 8000, 81, 8888];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// How a connection attempt goes on, if the host answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The handshake is completed `after` so long; before that so many answers of the host were `lost`.
    Completed { after: Duration, lost: u8 },
    /// Nobody comes, and no RST.
    Abandoned,
    /// The client ends it itself by a RST: a health check, a lost race of two address families.
    Reset,
    /// Sent once, whatever comes: a scanner.
    Once,
}

/// One packet.
pub(crate) struct Act {
    pub(crate) src: IpAddr,
    pub(crate) transport: Transport,
    /// Of a connection attempt.
    pub(crate) fate: Option<Fate>,
}

/// A day's visitors.
pub(crate) struct Crowd {
    /// Everything that is sent, in the order of time.
    pub(crate) plan: Vec<(Instant, Act)>,
    /// Everybody.
    pub(crate) sources: BTreeSet<IpAddr>,
    /// Those who are to be banned.
    pub(crate) scanners: BTreeSet<IpAddr>,
    start: Instant,
    number: u32,
}

impl Crowd {
    /// Some `count` sources.
    pub(crate) fn gather(count: usize, random: &mut Random, start: Instant) -> Crowd {
        let mut crowd = Crowd {
            plan: Vec::new(),
            sources: BTreeSet::new(),
            scanners: BTreeSet::new(),
            start,
            number: 0,
        };
        crowd.scanners(random);
        for n in 0..count as u32 {
            let src = address(n);
            crowd.sources.insert(src);
            match n % 1000 {
                0..=3 => crowd.crawler(src, random),
                4..=5 => crowd.office(src, random),
                6..=25 => crowd.carrier(src, random),
                26..=65 => crowd.mistaken(src, random),
                66..=125 => crowd.datagrams(src, random),
                126 => crowd.one_way(src, random),
                127..=186 => crowd.latecomer(src, random),
                187..=206 => crowd.early_leaver(src, random),
                _ => crowd.visitor(src, random),
            }
        }
        (0..4).for_each(|n| crowd.health_checker(address(0x00f0_0000 + n), random));
        crowd.sources.extend(&crowd.scanners);
        crowd.plan.sort_by_key(|(at, _)| *at);
        crowd
    }

    fn put(&mut self, at: Duration, act: Act) {
        self.plan.push((self.start + at, act));
    }

    fn tcp(&mut self, at: Duration, src: IpAddr, port: u16, flags: u8, fate: Option<Fate>) {
        self.number += 1;
        let act = Act::tcp(src, port, flags, self.number, fate);
        self.put(at, act);
    }

    /// A connection as clients make them: one handshake in a hundred is abandoned, one answer in fifty is lost.
    fn connect(&mut self, at: Duration, src: IpAddr, port: u16, random: &mut Random) {
        let fate = if random.chance(10) {
            Fate::Abandoned
        } else {
            Fate::Completed {
                after: ms(5 + random.below(ROUND_TRIP)),
                lost: u8::from(random.chance(20)),
            }
        };
        self.tcp(at, src, port, SYN, Some(fate));
    }

    /// A browser: the redirect from http, then one or two connections at once; some come back.
    fn visitor(&mut self, src: IpAddr, random: &mut Random) {
        for _ in 0..1 + u32::from(random.chance(200)) {
            let at = random.time_of_day();
            self.connect(at, src, 80, random);
            for n in 0..1 + random.below(2) {
                self.connect(at + ms(50 + 3 * n), src, 443, random);
            }
            if random.chance(50) {
                // Its entry in conntrack is gone when the laptop wakes up.
                let late = at + Duration::from_secs(400 + random.below(7200));
                [FIN | ACK, PSH | ACK, RST]
                    .iter()
                    .for_each(|flags| self.tcp(late, src, 443, *flags, None));
            }
            if random.chance(30) {
                self.put(
                    at,
                    Act {
                        src,
                        transport: Transport::Icmp,
                        fate: None,
                    },
                );
            }
        }
    }

    /// Loses the race of IPv4 against IPv6 now and then, and resets what came second.
    fn early_leaver(&mut self, src: IpAddr, random: &mut Random) {
        let at = random.time_of_day();
        (0..4).for_each(|n| self.tcp(at + ms(n * 40), src, 443, SYN, Some(Fate::Reset)));
        self.connect(at + ms(200), src, 443, random);
    }

    fn crawler(&mut self, src: IpAddr, random: &mut Random) {
        let at = random.time_of_day();
        for n in 0..100 {
            let step = at + Duration::from_secs(n * 7);
            self.connect(step, src, if n % 10 == 0 { 80 } else { 443 }, random);
        }
        for port in [8080, 8443] {
            self.tcp(
                at,
                src,
                port,
                SYN,
                Some(Fate::Completed {
                    after: ms(50),
                    lost: 0,
                }),
            );
        }
    }

    /// An office: web and mail by many users, all nine ports within a moment when the day begins.
    fn office(&mut self, src: IpAddr, random: &mut Random) {
        let morning = Duration::from_secs(7 * 3600 + random.below(7200));
        let mut ports: Vec<u16> = MAIL.into_iter().chain([80, 443]).collect();
        for hour in 0..9 {
            let at = morning + Duration::from_secs(hour * 3600);
            for n in 0..30u64 {
                let port = ports[n as usize % ports.len()];
                let spread = if hour == 0 { n * 4 } else { n * 2000 };
                self.connect(at + ms(spread), src, port, random);
            }
            ports.rotate_left(random.below(9) as usize);
        }
    }

    /// Thirty phones behind one address of a mobile carrier, at every hour; some lose their network in mid-handshake.
    fn carrier(&mut self, src: IpAddr, random: &mut Random) {
        for _ in 0..30 {
            let at = random.time_of_day();
            self.connect(at, src, if random.chance(100) { 80 } else { 443 }, random);
            if random.chance(30) {
                let port = MISTAKEN[random.below(5) as usize];
                self.connect(at, src, port, random);
            }
        }
    }

    /// Tries ports where nothing is, each of them a few times.
    fn mistaken(&mut self, src: IpAddr, random: &mut Random) {
        let at = random.time_of_day();
        for n in 0..=random.below(5) {
            let port = MISTAKEN[n as usize];
            (0..3)
                .for_each(|again| self.connect(at + Duration::from_secs(n * 20 + again), src, port, random));
        }
        self.connect(at + Duration::from_secs(120), src, 443, random);
    }

    /// HTTP/3, names, time: a few UDP ports.
    fn datagrams(&mut self, src: IpAddr, random: &mut Random) {
        let at = random.time_of_day();
        for n in 0..10 {
            let (sport, dport) = (40_000 + n, [443, 53, 123, 3478][usize::from(n % 4)]);
            let transport = Transport::Udp { sport, dport };
            self.put(
                at + ms(n.into()),
                Act {
                    src,
                    transport,
                    fate: None,
                },
            );
        }
        self.connect(at, src, 443, random);
    }

    /// Our answers never reach it: it tries again and again. Nothing tells it from an attacker.
    fn one_way(&mut self, src: IpAddr, random: &mut Random) {
        for _ in 0..2 {
            let at = random.time_of_day();
            (0..4).for_each(|n| {
                self.tcp(
                    at + Duration::from_secs(n * 30),
                    src,
                    443,
                    SYN,
                    Some(Fate::Abandoned),
                );
            });
        }
    }

    /// Segments of connections that everybody else has forgotten, also answers to what was forged in our name.
    fn latecomer(&mut self, src: IpAddr, random: &mut Random) {
        let at = random.time_of_day();
        for flags in [FIN | ACK, ACK, PSH | ACK, FIN | PSH | ACK, RST, RST | ACK] {
            for port in [80, 443, 993] {
                self.tcp(at, src, port, flags, None);
            }
        }
        for n in 0..20 {
            let flags = [SYN | ACK, RST | ACK, RST][n % 3];
            self.tcp(at, src, random.below(65_535) as u16, flags, None);
        }
    }

    /// Every ten seconds a check that ends by a RST, and every minute one of a service that moved away.
    fn health_checker(&mut self, src: IpAddr, random: &mut Random) {
        let first = random.below(10_000);
        for n in 0..8640 {
            let at = ms(first + n * 10_000);
            self.tcp(at, src, 443, SYN, Some(Fate::Reset));
            if n % 6 == 0 {
                self.tcp(at, src, 9100, SYN, Some(Fate::Reset));
            }
        }
        self.connect(ms(first), src, 80, random);
    }

    /// Scanners of every kind, each of whom is to be caught.
    fn scanners(&mut self, random: &mut Random) {
        for n in 0..4 {
            let scanner = |kind: u32| address(0x00e0_0000 + kind * 16 + n);
            let at = random.time_of_day();
            let step = |milliseconds: u64| move |n: u64| at + ms(n * milliseconds);
            let syn = Some(Fate::Once);
            // All at once, over open and closed ports.
            (1..200).for_each(|p| self.scan(step(1)(p), scanner(0), p as u16, SYN, syn));
            // Only ports where somebody answers.
            OPEN.iter()
                .zip(0..)
                .for_each(|(port, p)| self.scan(step(2)(p), scanner(1), *port, SYN, syn));
            // One port every quarter of an hour.
            (1..12).for_each(|p| self.scan(at + ms(p * 900_000), scanner(2), 2000 + p as u16, SYN, syn));
            // What no honest stack sends.
            [FIN, 0, FIN | PSH | 0x20, SYN | FIN]
                .iter()
                .zip(0..)
                .for_each(|(flags, p)| {
                    self.scan(step(10)(p), scanner(3), 443, *flags, None);
                });
            // An ACK scan of closed ports.
            (1..20).for_each(|p| self.scan(step(5)(p), scanner(4), 3000 + p as u16, ACK, None));
            // Connects first, as a guest would, then scans.
            self.tcp(
                at,
                scanner(5),
                443,
                SYN,
                Some(Fate::Completed {
                    after: ms(20),
                    lost: 0,
                }),
            );
            (1..40).for_each(|p| self.scan(step(200)(p), scanner(5), 4000 + p as u16, SYN, syn));
            // UDP.
            for p in 0..40 {
                let transport = Transport::Udp {
                    sport: 5353,
                    dport: 1000 + p,
                };
                self.put(
                    step(20)(p.into()),
                    Act {
                        src: scanner(6),
                        transport,
                        fate: None,
                    },
                );
                self.scanners.insert(scanner(6));
            }
            // From a new address of its network each time.
            for p in 0..20u16 {
                let src = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, n as u16, p, 1, 2, 3).into();
                self.scan(step(30)(p.into()), src, 6000 + p, SYN, syn);
            }
        }
    }

    fn scan(&mut self, at: Duration, src: IpAddr, port: u16, flags: u8, fate: Option<Fate>) {
        self.scanners.insert(src);
        self.tcp(at, src, port, flags, fate);
    }
}

/// One in five speaks IPv6, each from a network of its own.
fn address(n: u32) -> IpAddr {
    if n % 5 == 4 {
        return Ipv6Addr::new(0x2001, 0xdb8, (n >> 16) as u16, n as u16, 0, 0, 0, 1).into();
    }
    Ipv4Addr::from(0x0b00_0000 + n.wrapping_mul(97)).into()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Milliseconds, at most: the other side of the Earth.
const ROUND_TRIP: u64 = 300;

/// SplitMix64: small, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn chance(&mut self, per_thousand: u64) -> bool {
        self.below(1000) < per_thousand
    }

    /// Nine times as many at noon as in the small hours.
    fn time_of_day(&mut self) -> Duration {
        loop {
            let (second, hour_of) = (self.below(86_000), |second: u64| (second / 3600) as usize);
            if self.below(9) < HOURS[hour_of(second)] {
                return ms(second * 1000 + self.below(1000));
            }
        }
    }
}

/// Visitors by the hour.
const HOURS: [u64; 24] = [
    2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 8, 9, 8, 8, 8, 8, 9, 9, 8, 7, 6, 4, 3,
];
