//! TCP flags to the kind of scan: total over every flag byte, without history; and what a kind says about its
//! sender, as three questions that the judge asks.
//!
//! It stands alone because the whole table of flags is small enough to be tested exhaustively.

use std::fmt;
use std::ops::RangeInclusive;

use super::probe::TcpFlags;

/// What a probe looks like, judged by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ScanKind {
    /// SYN without ACK, FIN and RST: a connection attempt (ECE, CWR, PSH and URG change nothing, the host
    /// would answer all of them).
    Syn,
    /// No flag at all.
    Null,
    /// FIN without ACK.
    Fin,
    /// FIN, PSH and URG without ACK; also PSH or URG alone: lights on a tree that no honest stack sends.
    Xmas,
    /// SYN and FIN, with ACK or without.
    SynFin,
    /// SYN and RST without FIN, with ACK or without.
    SynRst,
    /// A first fragment too short for a TCP header: it hides its flags from filters that look at fragments.
    TinyFragment,
    /// FIN and ACK: a Maimon scan, or the late end of an honest connection.
    Maimon,
    /// SYN and ACK: mostly backscatter of somebody's forged flood.
    SynAck,
    /// ACK: an ACK or window scan, or a late segment of an honest connection.
    Ack,
    /// RST, with whatever else but SYN.
    Rst,
    /// A UDP packet that opens a flow.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// Anything else.
    Other,
}

impl ScanKind {
    /// Every kind, in the order of their declaration.
    pub const ALL: [ScanKind; 14] = [
        ScanKind::Syn,
        ScanKind::Null,
        ScanKind::Fin,
        ScanKind::Xmas,
        ScanKind::SynFin,
        ScanKind::SynRst,
        ScanKind::TinyFragment,
        ScanKind::Maimon,
        ScanKind::SynAck,
        ScanKind::Ack,
        ScanKind::Rst,
        ScanKind::Udp,
        ScanKind::Icmp,
        ScanKind::Other,
    ];

    /// The word in events and state, the Python system's where it had one (`SYN_SCAN`, `RST_SCAN`,
    /// `XMAS_SCAN`, `SYN_ACK`). A contract: none is renamed.
    pub fn word(self) -> &'static str {
        match self {
            ScanKind::Syn => "SYN_SCAN",
            ScanKind::Null => "NULL_SCAN",
            ScanKind::Fin => "FIN_SCAN",
            ScanKind::Xmas => "XMAS_SCAN",
            ScanKind::SynFin => "SYN_FIN_SCAN",
            ScanKind::SynRst => "SYN_RST_SCAN",
            ScanKind::TinyFragment => "TINY_FRAGMENT_SCAN",
            ScanKind::Maimon => "MAIMON_SCAN",
            ScanKind::SynAck => "SYN_ACK",
            ScanKind::Ack => "ACK_SCAN",
            ScanKind::Rst => "RST_SCAN",
            ScanKind::Udp => "UDP_SCAN",
            ScanKind::Icmp => "ICMP",
            ScanKind::Other => "OTHER",
        }
    }

    /// Whether a probe of this kind by itself speaks against its source. UDP does so only outside
    /// [`TRACEROUTE_PORTS`].
    ///
    /// SYN+ACK and RST never do: they are the backscatter of floods that somebody forged in this host's name. What
    /// [`is_late`](Self::is_late) needs a look at the port first.
    pub fn is_evidence(self) -> bool {
        self == ScanKind::Syn || self == ScanKind::Udp || self.is_stealth()
    }

    /// Whether no honest stack ever sends this first: flags that mean nothing together (RFC 9293, section 3.10.7),
    /// or a first fragment that cuts its TCP header (RFC 1858, RFC 8200 section 4.5).
    ///
    /// ACK excuses neither SYN+FIN nor SYN+RST: a flood forged in this host's name is answered with SYN+ACK, RST or
    /// RST+ACK. Of the stacks in nmap 7.93's nmap-os-db some 20 (Linux 2.0 and its time) answer with SYN+FIN+ACK, all
    /// of them nothing but a SYN+FIN; and T/TCP, which allowed it, is historic (RFC 6247).
    pub fn is_stealth(self) -> bool {
        use ScanKind::{Fin, Null, SynFin, SynRst, TinyFragment, Xmas};
        matches!(self, Null | Fin | Xmas | SynFin | SynRst | TinyFragment)
    }

    /// Whether honest clients send this too, when conntrack has forgotten their connection: bare ACK and FIN+ACK.
    /// It speaks against its source only toward a port where nothing answers, which the flags do not tell.
    pub fn is_late(self) -> bool {
        matches!(self, ScanKind::Ack | ScanKind::Maimon)
    }
}

impl fmt::Display for ScanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What TCP flags look like as the first packet of a flow.
pub fn classify(flags: TcpFlags) -> ScanKind {
    let has = |flag: TcpFlags| flags.has(flag);
    match (
        has(TcpFlags::SYN),
        has(TcpFlags::FIN),
        has(TcpFlags::RST),
        has(TcpFlags::ACK),
    ) {
        (true, false, false, false) => ScanKind::Syn,
        (true, false, false, true) => ScanKind::SynAck,
        (true, true, ..) => ScanKind::SynFin,
        (true, false, true, _) => ScanKind::SynRst,
        (false, _, true, _) => ScanKind::Rst,
        (false, true, false, true) => ScanKind::Maimon,
        (false, false, false, true) => ScanKind::Ack,
        (false, fin, false, false) => match (fin, has(TcpFlags::PSH), has(TcpFlags::URG)) {
            (_, true, true) | (false, true, false) | (false, false, true) => ScanKind::Xmas,
            (true, ..) => ScanKind::Fin,
            (false, false, false) => ScanKind::Null,
        },
    }
}

/// UDP ports that are never evidence: one `traceroute` walks through 81 ports from 33434 on.
pub const TRACEROUTE_PORTS: RangeInclusive<u16> = 33434..=33534;

#[cfg(test)]
mod tests {
    use super::*;

    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const PSH: u8 = 0x08;
    const ACK: u8 = 0x10;
    const URG: u8 = 0x20;

    fn kind(flags: u8) -> ScanKind {
        classify(TcpFlags(flags))
    }

    #[test]
    fn nmap_scans_are_told_apart() {
        assert_eq!(kind(SYN), ScanKind::Syn); // -sS, -sT
        assert_eq!(kind(0), ScanKind::Null); // -sN
        assert_eq!(kind(FIN), ScanKind::Fin); // -sF
        assert_eq!(kind(FIN | PSH | URG), ScanKind::Xmas); // -sX
        assert_eq!(kind(FIN | ACK), ScanKind::Maimon); // -sM
        assert_eq!(kind(ACK), ScanKind::Ack); // -sA, -sW
        assert_eq!(kind(SYN | FIN), ScanKind::SynFin); // --scanflags SYNFIN
        assert_eq!(kind(SYN | FIN | ACK), ScanKind::SynFin);
        assert_eq!(kind(SYN | FIN | RST | ACK), ScanKind::SynFin);
        assert_eq!(kind(SYN | RST), ScanKind::SynRst);
        assert_eq!(kind(SYN | RST | ACK), ScanKind::SynRst);
        assert_eq!(kind(SYN | PSH), ScanKind::Syn);
        assert_eq!(kind(URG), ScanKind::Xmas);
    }

    #[test]
    fn every_flag_byte_follows_the_rules_of_evidence() {
        for flags in 0..=u8::MAX {
            let (kind, has) = (kind(flags), |bit: u8| flags & bit != 0);
            // Said apart from the code: neither ACK nor RST; or SYN with anything but ACK alone of the others that
            // tell a state.
            let expected = if has(SYN) {
                flags & (FIN | RST | ACK) != ACK
            } else {
                !has(ACK) && !has(RST)
            };
            assert_eq!(kind.is_evidence(), expected, "{flags:#04x} {kind}");
            assert_eq!(
                kind.is_stealth(),
                expected && kind != ScanKind::Syn,
                "{flags:#04x} {kind}"
            );
            assert_eq!(
                kind == ScanKind::Syn,
                flags & (SYN | ACK | FIN | RST) == SYN,
                "{flags:#04x} {kind}"
            );
            // ACK, perhaps with FIN, whatever else but SYN and RST.
            let late = flags & (SYN | ACK | RST) == ACK;
            assert_eq!(kind.is_late(), late, "{flags:#04x} {kind}");
        }
    }

    #[test]
    fn no_kind_is_both_stealthy_and_late() {
        let of =
            |question: fn(ScanKind) -> bool| ScanKind::ALL.into_iter().filter(|kind| question(*kind)).count();
        assert_eq!((of(ScanKind::is_stealth), of(ScanKind::is_late)), (6, 2));
        assert_eq!(of(ScanKind::is_evidence), 8);
        assert_eq!(of(|kind| kind.is_late() && kind.is_evidence()), 0);
    }

    #[test]
    fn congestion_bits_change_nothing() {
        for flags in 0..0x40 {
            for ecn in [0x40, 0x80, 0xc0] {
                assert_eq!(kind(flags), kind(flags | ecn), "{flags:#04x} {ecn:#04x}");
            }
        }
    }

    #[test]
    fn answers_and_late_segments_accuse_nobody() {
        for flags in [
            SYN | ACK,
            RST,
            RST | ACK,
            ACK,
            ACK | PSH,
            FIN | ACK,
            FIN | PSH | ACK,
            RST | FIN | URG,
        ] {
            assert!(!kind(flags).is_evidence(), "{flags:#04x}");
        }
    }

    #[test]
    fn words_are_distinct() {
        let mut words = ScanKind::ALL.map(ScanKind::word).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ScanKind::ALL.len());
    }
}
