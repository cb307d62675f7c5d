//! The messages of nfnetlink_queue as bytes: binding a queue, reading a held packet, answering it. No socket
//! here, so that every byte can be tested without privilege.

use super::netlink::{Attributes, Builder, be32, nfnl_type};
use crate::core::verdict::Verdict;

/// How one queue is to be bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// The most packets the queue may hold.
    pub(crate) length: u32,
    /// The most bytes of a packet that are copied to us.
    pub(crate) copy_range: u32,
    /// Whether packets pass when the queue is full or its socket does not take them.
    pub(crate) fail_open: bool,
}

/// Appends the message that binds queue `number`, with all its settings at once.
///
/// A queue that is bound but not yet in copy mode drops everything, `bypass` or not, so that command,
/// parameters, length and flags travel together.
pub(crate) fn bind(builder: &mut Builder, seq: u32, number: u16, setup: &Setup) {
    command(builder, seq, number, libc::NFQNL_CFG_CMD_BIND);
    settings(builder, setup);
}

/// Appends the message that gives queue `number`, which the socket holds, other settings.
pub(crate) fn tune(builder: &mut Builder, seq: u32, number: u16, setup: &Setup) {
    config(builder, seq, number);
    settings(builder, setup);
}

fn settings(builder: &mut Builder, setup: &Setup) {
    let mut flags = libc::NFQA_CFG_F_GSO as u32;
    if setup.fail_open {
        flags |= libc::NFQA_CFG_F_FAIL_OPEN as u32;
    }
    let mut params = [0; 5];
    params[..4].copy_from_slice(&setup.copy_range.to_be_bytes());
    params[4] = libc::NFQNL_COPY_PACKET as u8;
    builder
        .put(libc::NFQA_CFG_PARAMS as u16, &params)
        .put_be32(libc::NFQA_CFG_QUEUE_MAXLEN as u16, setup.length)
        .put_be32(libc::NFQA_CFG_FLAGS as u16, flags)
        .put_be32(libc::NFQA_CFG_MASK as u16, FLAGS_WE_SET);
}

/// Appends the message that lets go of queue `number`; what waits in it is dropped.
pub(crate) fn unbind(builder: &mut Builder, seq: u32, number: u16) {
    command(builder, seq, number, libc::NFQNL_CFG_CMD_UNBIND);
}

/// Appends the message of nfqnl_recv_config that does nothing since Linux 3.8 but is refused like any other to
/// those without CAP_NET_ADMIN, and answered EINVAL where nfnetlink_queue does not exist.
pub(crate) fn knock(builder: &mut Builder, seq: u32) {
    command(builder, seq, 0, libc::NFQNL_CFG_CMD_PF_BIND);
}

fn command(builder: &mut Builder, seq: u32, number: u16, command: i32) {
    config(builder, seq, number);
    builder.put(libc::NFQA_CFG_CMD as u16, &[command as u8, 0, 0, 0]);
}

fn config(builder: &mut Builder, seq: u32, number: u16) {
    builder.nfnetlink(
        nfnl_type(libc::NFNL_SUBSYS_QUEUE, libc::NFQNL_MSG_CONFIG),
        libc::NLM_F_REQUEST | libc::NLM_F_ACK,
        seq,
        libc::AF_UNSPEC,
        number,
    );
}

/// One packet that the kernel holds until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held<'a> {
    /// The queue it waits in.
    pub(crate) queue: u16,
    /// The queue's own number for it. Opaque: it wraps, and nothing may be read from its order.
    pub(crate) id: u32,
    /// Index of the interface it came in on.
    pub(crate) in_interface: Option<u32>,
    /// What was copied of it, from the IP header on; `None` if the message carries nothing readable.
    pub(crate) payload: Option<&'a [u8]>,
}

/// Reads the payload of an NFQNL_MSG_PACKET; `None` if there is no id by which it could be answered.
#[inline]
pub(crate) fn held(message: &[u8]) -> Option<Held<'_>> {
    let queue = u16::from_be_bytes([*message.get(2)?, *message.get(3)?]);
    let (mut id, mut in_interface, mut payload) = (None, None, None);
    for (kind, value) in Attributes::after_nfgen(message) {
        match i32::from(kind) {
            libc::NFQA_PACKET_HDR => id = be32(value),
            libc::NFQA_IFINDEX_INDEV => in_interface = be32(value),
            libc::NFQA_PAYLOAD => payload = Some(value),
            _ => {}
        }
    }
    Some(Held {
        queue,
        id: id?,
        in_interface,
        payload,
    })
}

/// The answers of one batch, one message each, in the order of the packets.
///
/// Never a VERDICT_BATCH, which answers every id up to its own whatever was decided about it, and never
/// anything but the verdict header: payload and VLAN attributes have had memory bugs (CVE-2026-43451).
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<u8>);

impl Answers {
    /// Room for `count` answers, so that as many never allocate.
    pub(crate) fn with_capacity(count: usize) -> Answers {
        Answers(Vec::with_capacity(count * ANSWER_BYTES))
    }

    /// Appends the verdict on packet `id` of `queue`.
    #[inline]
    pub(crate) fn push(&mut self, queue: u16, id: u32, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Accept => libc::NF_ACCEPT,
            Verdict::Drop => libc::NF_DROP,
        };
        let mut bytes = TEMPLATE;
        bytes[18..20].copy_from_slice(&queue.to_be_bytes());
        bytes[24..28].copy_from_slice(&(verdict as u32).to_be_bytes());
        bytes[28..32].copy_from_slice(&id.to_be_bytes());
        self.0.extend_from_slice(&bytes);
    }

    /// The answers in pieces of at most `count`, each to be sent at once.
    pub(crate) fn pieces(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.0.chunks(count * ANSWER_BYTES)
    }

    /// Forgets all answers, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How many answers there are in a piece of [`Answers::pieces`].
pub(crate) fn answers_in(piece: &[u8]) -> usize {
    piece.len() / ANSWER_BYTES
}

/// nlmsghdr, nfgenmsg, nlattr and nfqnl_msg_verdict_hdr.
const ANSWER_BYTES: usize = 16 + 4 + 4 + 8;
/// An answer without its queue (18..20), verdict (24..28) and id (28..32).
const TEMPLATE: [u8; ANSWER_BYTES] = {
    let mut bytes = [0; ANSWER_BYTES];
    let length = (ANSWER_BYTES as u32).to_ne_bytes();
    let kind = nfnl_type(libc::NFNL_SUBSYS_QUEUE, libc::NFQNL_MSG_VERDICT).to_ne_bytes();
    let flags = (libc::NLM_F_REQUEST as u16).to_ne_bytes();
    let attribute_length = 12u16.to_ne_bytes();
    let attribute = (libc::NFQA_VERDICT_HDR as u16).to_ne_bytes();
    let mut at = 0;
    while at < 4 {
        bytes[at] = length[at];
        at += 1;
    }
    bytes[4] = kind[0];
    bytes[5] = kind[1];
    bytes[6] = flags[0];
    bytes[7] = flags[1];
    bytes[20] = attribute_length[0];
    bytes[21] = attribute_length[1];
    bytes[22] = attribute[0];
    bytes[23] = attribute[1];
    bytes
};
/// The flags whose value we decide, set or not.
const FLAGS_WE_SET: u32 = (libc::NFQA_CFG_F_GSO | libc::NFQA_CFG_F_FAIL_OPEN) as u32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::Messages;

    const SETUP: Setup = Setup {
        length: 4096,
        copy_range: 256,
        fail_open: true,
    };

    fn packet(queue: u16, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = [0; 7];
        header[..4].copy_from_slice(&id.to_be_bytes());
        header[4..6].copy_from_slice(&0x0800u16.to_be_bytes());
        header[6] = 1;
        let mut builder = Builder::new();
        builder
            .nfnetlink(nfnl_type(3, 0), 0, 0, libc::AF_INET, queue)
            .put(libc::NFQA_PACKET_HDR as u16, &header)
            .put_be32(libc::NFQA_IFINDEX_INDEV as u16, 7)
            .put(libc::NFQA_HWADDR as u16, &[0; 12])
            .put_be32(libc::NFQA_CAP_LEN as u16, 1500)
            .put_be32(libc::NFQA_SKB_INFO as u16, 2)
            .put(libc::NFQA_PAYLOAD as u16, payload);
        builder.bytes().to_vec()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_bind_is_one_message_with_everything() {
        let mut builder = Builder::new();
        bind(&mut builder, 9, 0x1234, &SETUP);
        #[rustfmt::skip]
        let golden = [
            64, 0, 0, 0,  2, 3, 5, 0,  9, 0, 0, 0,  0, 0, 0, 0, // length, CONFIG, REQUEST|ACK, seq, port
            0, 0, 0x12, 0x34,                                   // AF_UNSPEC, version, queue
            8, 0, 1, 0,  1, 0, 0, 0,                            // CMD: bind
            9, 0, 2, 0,  0, 0, 1, 0,  2, 0, 0, 0,               // PARAMS: 256 bytes, copy packet
            8, 0, 3, 0,  0, 0, 16, 0,                           // QUEUE_MAXLEN: 4096
            8, 0, 5, 0,  0, 0, 0, 5,                            // FLAGS: fail open, GSO
            8, 0, 4, 0,  0, 0, 0, 5,                            // MASK: the same two
        ];
        assert_eq!(builder.bytes(), golden);
    }

    #[test]
    fn closed_queues_clear_the_flag_that_a_predecessor_set() {
        let mut builder = Builder::new();
        let closed = Setup {
            fail_open: false,
            ..SETUP
        };
        bind(&mut builder, 1, 1, &closed);
        let message = Messages::new(builder.bytes()).next().unwrap();
        let values: Vec<_> = Attributes::after_nfgen(message.payload)
            .filter(|(kind, _)| [4, 5].contains(kind))
            .map(|(_, value)| be32(value).unwrap())
            .collect();
        assert_eq!(values, [4, 5], "flags: GSO alone; mask: GSO and fail open");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_answer_is_its_header_and_nothing_else() {
        let mut answers = Answers::with_capacity(2);
        answers.push(0x0102, 0xffff_ffff, Verdict::Accept);
        answers.push(0x0102, 0, Verdict::Drop);
        #[rustfmt::skip]
        let golden = [
            32, 0, 0, 0,  1, 3, 1, 0,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 1, 2,
            12, 0, 2, 0,  0, 0, 0, 1,  255, 255, 255, 255,
            32, 0, 0, 0,  1, 3, 1, 0,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 1, 2,
            12, 0, 2, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        ];
        assert_eq!(answers.pieces(64).collect::<Vec<_>>(), [golden]);
        assert_eq!(answers.pieces(1).map(answers_in).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_held_packet_is_read_in_place() {
        let bytes = packet(100, u32::MAX, b"ip packet");
        let message = Messages::new(&bytes).next().unwrap();
        let expected = Held {
            queue: 100,
            id: u32::MAX,
            in_interface: Some(7),
            payload: Some(b"ip packet"),
        };
        assert_eq!(held(message.payload), Some(expected));
    }

    #[test]
    fn cut_at_any_byte_it_is_answered_if_the_id_was_whole() {
        let bytes = packet(100, 5, b"ip packet");
        for length in 0..bytes.len() - 16 {
            let read = held(&bytes[16..16 + length]);
            // nfgenmsg (4), attribute header (4), packet header (7): from there on the id is known.
            assert_eq!(
                read.map(|held| held.id),
                (length >= 15).then_some(5),
                "at {length}"
            );
            assert!(read.is_none_or(|held| held.payload.is_none_or(|payload| payload == b"ip packet")));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = held(&bytes);
            for message in Messages::new(&bytes) {
                let _ = (held(message.payload), message.error());
            }
        }

        #[test]
        fn any_packet_is_read_back(queue: u16, id: u32, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = packet(queue, id, &payload);
            let read = held(Messages::new(&bytes).next().unwrap().payload).unwrap();
            prop_assert_eq!((read.queue, read.id, read.payload), (queue, id, Some(&payload[..])));
        }
    }
}
