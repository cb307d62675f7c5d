//! The messages of nfnetlink_log as bytes: binding a log group, reading the copy of a packet that the kernel
//! has already dealt with. Nothing is held and nothing is answered.

use super::netlink::{Attributes, Builder, be32, nfnl_type, string};
use crate::core::verdict::Class;

/// What the kernel did with a packet whose copy we get. The rule that copies says it by its log prefix: copies of
/// both kinds come by one log group, and what a packet looks like does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The port filter dropped it.
    Refused,
    /// It went on its way.
    Passed,
}

impl Fate {
    const ALL: [Fate; 2] = [Fate::Refused, Fate::Passed];

    /// The log prefix.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Fate::Refused => "refused",
            Fate::Passed => "passed",
        }
    }

    /// What the copy is to the judge.
    pub(crate) fn class(self) -> Class {
        match self {
            Fate::Refused => Class::Refused,
            Fate::Passed => Class::Observed,
        }
    }

    fn of(prefix: &[u8]) -> Option<Fate> {
        let prefix = string(prefix)?;
        Fate::ALL.into_iter().find(|fate| fate.word() == prefix)
    }
}

/// Appends the message that binds log group `group`, with all its settings at once.
pub(crate) fn bind(builder: &mut Builder, seq: u32, group: u16, copy_range: u32) {
    let mut mode = [0; 6];
    mode[..4].copy_from_slice(&copy_range.to_be_bytes());
    mode[4] = libc::NFULNL_COPY_PACKET as u8;
    command(builder, seq, group, libc::NFULNL_CFG_CMD_BIND);
    builder
        .put(libc::NFULA_CFG_MODE as u16, &mode)
        .put_be32(libc::NFULA_CFG_NLBUFSIZ as u16, DATAGRAM_BYTES as u32)
        .put_be32(libc::NFULA_CFG_TIMEOUT as u16, FLUSH_AFTER)
        .put_be32(libc::NFULA_CFG_QTHRESH as u16, FLUSH_AT);
}

/// Appends the message that lets go of log group `group`.
pub(crate) fn unbind(builder: &mut Builder, seq: u32, group: u16) {
    command(builder, seq, group, libc::NFULNL_CFG_CMD_UNBIND);
}

fn command(builder: &mut Builder, seq: u32, group: u16, command: i32) {
    builder
        .nfnetlink(
            nfnl_type(libc::NFNL_SUBSYS_ULOG, libc::NFULNL_MSG_CONFIG),
            libc::NLM_F_REQUEST | libc::NLM_F_ACK,
            seq,
            libc::AF_UNSPEC,
            group,
        )
        .put(libc::NFULA_CFG_CMD as u16, &[command as u8]);
}

/// The copy of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied<'a> {
    /// Index of the interface it came in on.
    pub(crate) in_interface: Option<u32>,
    /// What became of it; none if its rule does not say.
    pub(crate) fate: Option<Fate>,
    /// What was copied of it, from the IP header on.
    pub(crate) payload: &'a [u8],
}

/// Reads the payload of an NFULNL_MSG_PACKET; `None` if it carries no packet.
#[inline]
pub(crate) fn copied(message: &[u8]) -> Option<Copied<'_>> {
    let (mut in_interface, mut fate, mut payload) = (None, None, None);
    for (kind, value) in Attributes::after_nfgen(message) {
        match i32::from(kind) {
            libc::NFULA_IFINDEX_INDEV => in_interface = be32(value),
            libc::NFULA_PREFIX => fate = Fate::of(value),
            libc::NFULA_PAYLOAD => payload = Some(value),
            _ => {}
        }
    }
    Some(Copied {
        in_interface,
        fate,
        payload: payload?,
    })
}

/// Copies are gathered in a datagram of this size (NFULA_CFG_NLBUFSIZ): with the skb's own tail (320 bytes) it
/// fills one 8 KiB slab object. Sixteen copies of a SYN take 3 KiB.
pub(crate) const DATAGRAM_BYTES: usize = 7680;
/// Copies wait at most this long for company, in units of 10 ms.
const FLUSH_AFTER: u32 = 1;
/// This many copies are sent without waiting.
const FLUSH_AT: u32 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::Messages;

    fn packet(prefix: Option<&str>, payload: &[u8]) -> Vec<u8> {
        let mut builder = Builder::new();
        builder
            .nfnetlink(nfnl_type(4, 0), 0, 0, libc::AF_INET, 5)
            .put(libc::NFULA_PACKET_HDR as u16, &[8, 0, 0, 0])
            .put_be32(libc::NFULA_IFINDEX_INDEV as u16, 3);
        if let Some(prefix) = prefix {
            builder.put_str(libc::NFULA_PREFIX as u16, prefix);
        }
        builder.put(libc::NFULA_PAYLOAD as u16, payload);
        builder.bytes().to_vec()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_bind_is_one_message_with_everything() {
        let mut builder = Builder::new();
        bind(&mut builder, 9, 5, 256);
        #[rustfmt::skip]
        let golden = [
            64, 0, 0, 0,  1, 4, 5, 0,  9, 0, 0, 0,  0, 0, 0, 0, // length, CONFIG, REQUEST|ACK, seq, port
            0, 0, 0, 5,                                         // AF_UNSPEC, version, group
            5, 0, 1, 0,  1, 0, 0, 0,                            // CMD: bind
            10, 0, 2, 0,  0, 0, 1, 0,  2, 0, 0, 0,              // MODE: 256 bytes, copy packet
            8, 0, 3, 0,  0, 0, 30, 0,                           // NLBUFSIZ: 7680
            8, 0, 4, 0,  0, 0, 0, 1,                            // TIMEOUT: 10 ms
            8, 0, 5, 0,  0, 0, 0, 16,                           // QTHRESH
        ];
        assert_eq!(builder.bytes(), golden);
    }

    #[test]
    fn a_copy_is_read_in_place_and_never_in_part() {
        let bytes = packet(None, b"ip packet");
        let whole = Copied {
            in_interface: Some(3),
            fate: None,
            payload: b"ip packet",
        };
        for length in 0..=bytes.len() - 16 {
            // 4 nfgenmsg, 8 packet header, 8 interface, 4 + 9 payload.
            let expected = (length >= 33).then_some(whole);
            assert_eq!(copied(&bytes[16..16 + length]), expected, "at {length}");
        }
    }

    #[test]
    fn the_prefix_tells_what_became_of_the_packet() {
        for (prefix, fate) in [
            (None, None),
            (Some("refused"), Some(Fate::Refused)),
            (Some("passed"), Some(Fate::Passed)),
            (Some("refused "), None),
            (Some(""), None),
        ] {
            let bytes = packet(prefix, b"ip packet");
            assert_eq!(copied(&bytes[16..]).unwrap().fate, fate, "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = copied(&bytes);
            for message in Messages::new(&bytes) {
                let _ = copied(message.payload);
            }
        }
    }
}
