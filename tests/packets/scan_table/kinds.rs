//! The kinds of scans, and what must come of each.

use super::FASTER;
use super::measure::Shot;

/// One kind of scan.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) how: How,
    /// In detection_only, firewall and observing.
    pub(super) speaks: [Speaks; 3],
}

/// How it is done.
pub(super) enum How {
    /// By nmap, over the usual ports of its protocol.
    Nmap(&'static str),
    /// By nmap over IPv6.
    Nmap6(&'static str),
    /// By packets of our own with these flags, one port after the other; so pause this many milliseconds.
    Shots(Shot),
}

/// What must come of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaks {
    /// Nobody is banned.
    No,
    /// The ban comes with this probe at the latest, for this reason, and no more ports than these answer.
    Within {
        probes: u64,
        answers: u64,
        reason: &'static str,
    },
}

const fn within(probes: u64, answers: u64, reason: &'static str) -> Speaks {
    Speaks::Within {
        probes,
        answers,
        reason,
    }
}

const SCAN: &str = "port_scanning";
const SUSPICIOUS: &str = "suspicious_scanning";
const ALL: u64 = u64::MAX;
const NO: Speaks = Speaks::No;

/// One more than the 7 ports that the standard preset tolerates. Of a port that refuses nmap asks twice before it goes
/// on, and only the three that are allowed answer. Observed, everything answers.
const PORTS: [Speaks; 3] = [within(8, 7, SCAN), within(16, 3, SCAN), within(8, ALL, SCAN)];
/// As before, and a port on which a handshake completed does not count: five of those that are asked are open.
const CONNECT: [Speaks; 3] = [within(13, 12, SCAN), within(21, 3, SCAN), within(8, ALL, SCAN)];
/// Nor does one that has a listener speak against who sends it an ACK or FIN+ACK. Observed, these are not seen.
const ACKS: [Speaks; 3] = [within(8, 12, SCAN), within(16, 3, SCAN), NO];
/// One more than 28 UDP ports.
const UDP: [Speaks; 3] = [within(29, 28, SCAN), within(29, 0, SCAN), NO];
/// One more than 3 stealth probes.
const STEALTH: [Speaks; 3] = [
    within(4, 3, SUSPICIOUS),
    within(4, 3, SUSPICIOUS),
    within(4, ALL, SUSPICIOUS),
];
/// Only copies of them come to the engine: some pass before the ban.
const SWEEP: [Speaks; 3] = [within(4, ALL, SUSPICIOUS); 3];
/// Three of its packets are stealthy; it sends them again where nothing answers, and plain SYNs to one port between.
const FINGERPRINT: [Speaks; 3] = [within(40, 8, SUSPICIOUS); 3];
const FRAGMENTS: [Speaks; 3] = [PORTS[0], PORTS[1], STEALTH[2]];

const fn nmap(name: &'static str, args: &'static str, speaks: [Speaks; 3]) -> Kind {
    Kind {
        name,
        how: How::Nmap(args),
        speaks,
    }
}

const fn nmap6(name: &'static str, args: &'static str, speaks: [Speaks; 3]) -> Kind {
    Kind {
        name,
        how: How::Nmap6(args),
        speaks,
    }
}

const fn shots(name: &'static str, flags: u8, told: &'static str, pause: u64, speaks: [Speaks; 3]) -> Kind {
    Kind {
        name,
        how: How::Shots(Shot { flags, told, pause }),
        speaks,
    }
}

/// Those that count from the first packet on.
pub(super) const PROMPT: &[Kind] = &[
    nmap("SYN", "-sS -T5", PORTS),
    nmap("SYN", "-sS -T4", PORTS),
    nmap("SYN", "-sS -T3", PORTS),
    nmap("SYN", "-sS -T2", PORTS),
    nmap("connect", "-sT -T5", CONNECT),
    nmap("SYN in fragments", "-sS -T5 -f", FRAGMENTS),
    nmap("SYN in fragments", "-sS -T5 --mtu 8", FRAGMENTS),
    nmap("SYN in fragments", "-sS -T5 --mtu 24", PORTS),
    nmap("SYN, wrong checksum", "-sS -T5 --badsum", PORTS),
    nmap("SYN from port 53", "-sS -T5 -g 53", PORTS),
    nmap("SYN with payload", "-sS -T5 --data-length 64", PORTS),
    nmap("SYN, two decoys", "-sS -T5 -D 10.88.201.1,10.88.202.1,ME", PORTS),
    nmap("SYN, odd companions", "-sS -T5 --scanflags SYNPSHURG", PORTS),
    nmap("SYN, odd companions", "-sS -T5 --scanflags SYNECECWR", PORTS),
    nmap("NULL", "-sN -T5", STEALTH),
    nmap("NULL in fragments", "-sN -T5 -f", STEALTH),
    nmap("FIN", "-sF -T5", STEALTH),
    nmap("XMAS", "-sX -T5", STEALTH),
    nmap("URG+PSH", "-sF -T5 --scanflags URGPSH", STEALTH),
    nmap("SYN+FIN", "-sS -T5 --scanflags SYNFIN", STEALTH),
    nmap("SYN+RST", "-sS -T5 --scanflags SYNRST", STEALTH),
    nmap("SYN+FIN+ACK", "-sS -T5 --scanflags SYNACKFIN", STEALTH),
    nmap("SYN+RST+ACK", "-sS -T5 --scanflags SYNACKRST", STEALTH),
    shots("ECE alone", 0x40, "as `hping3 -X`", 5, STEALTH),
    shots("CWR alone", 0x80, "as `hping3 -Y`", 5, STEALTH),
    nmap("UDP", "-sU -T5 --max-retries 0 --max-rate 30", UDP),
    nmap(
        "UDP from port 53",
        "-sU -T5 --max-retries 0 --max-rate 30 -g 53",
        UDP,
    ),
    nmap("IP protocols", "-sO -T5 --max-retries 0", SWEEP),
    nmap("OS detection", "-O -T5", FINGERPRINT),
    nmap("SCTP INIT", "-sY -T5 --max-retries 0", [NO; 3]),
    nmap("SYN+ACK", "-sS -T5 --scanflags SYNACK", [NO; 3]),
    nmap("RST", "-sS -T5 --max-retries 0 --scanflags RST", [NO; 3]),
    nmap6("SYN, IPv6", "-sS -T5", PORTS),
    nmap6("connect, IPv6", "-sT -T5", CONNECT),
    nmap6("FIN, IPv6", "-sF -T5", STEALTH),
    nmap6("SYN+FIN, IPv6", "-sS -T5 --scanflags SYNFIN", STEALTH),
    nmap6("UDP, IPv6", "-sU -T5 --max-retries 0 --max-rate 30", UDP),
];

/// Those that honest clients send too, and that count only 60 s after the start and where nothing answers.
pub(super) const LATE: &[Kind] = &[
    nmap("ACK", "-sA -T5", ACKS),
    nmap("window", "-sW -T5", ACKS),
    nmap("Maimon", "-sM -T5", ACKS),
    nmap("ACK+PSH", "-sA -T5 --scanflags ACKPSH", ACKS),
    nmap6("ACK, IPv6", "-sA -T5", ACKS),
];

const SYN: u8 = 2;
const FIN: u8 = 1;
/// Slow ones, in compressed time: 1 h is 5.4 s.
pub(super) const SLOW: &[Kind] = &[
    shots("a SYN each 15 s", SYN, "as `nmap -T1`", 22, PORTS),
    shots("a SYN each 5 min", SYN, "as `nmap -T0`", 450, PORTS),
    shots("a SYN each 15 min", SYN, "by hand", 1350, PORTS),
    shots("a SYN each 18 min", SYN, "by hand", 1620, [NO; 3]),
    shots("a FIN each 30 min", FIN, "by hand", 2700, STEALTH),
    shots("a FIN each 45 min", FIN, "by hand", 4050, [NO; 3]),
];

impl Kind {
    /// The command, as a reader would type it.
    pub(super) fn told(&self) -> String {
        match &self.how {
            How::Nmap(args) => format!("`{args}`"),
            How::Nmap6(args) => format!("`-6 {args}`"),
            How::Shots(shot) if shot.pause > 10 => format!("{}, time {FASTER} × faster", shot.told),
            How::Shots(shot) => shot.told.to_owned(),
        }
    }

    /// How many ports (or protocols) it asks for.
    pub(super) fn ports(&self) -> usize {
        let (open, closed) = self.targets();
        open.len() + closed.len()
    }

    /// The open ports it asks for, and the others.
    pub(super) fn targets(&self) -> (Vec<u16>, Vec<u16>) {
        match &self.how {
            How::Nmap(args) if args.contains("-sO") => (vec![], (140..164).collect()),
            How::Nmap(args) | How::Nmap6(args) if args.contains("-sU") => (vec![53], (1001..=1039).collect()),
            How::Nmap(args) if args.contains("-O") => (vec![80], vec![5000]),
            // Waiting for the next one is what takes the time.
            How::Shots(shot) if shot.pause > 2000 => (vec![], (5000..5005).collect()),
            How::Shots(shot) if shot.pause > 100 => (vec![], (5000..5009).collect()),
            _ => (super::measure::OPEN.into(), (5000..5019).collect()),
        }
    }
}
