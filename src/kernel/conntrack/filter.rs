//! What the kernel lets through to a listener for completed handshakes: a classic BPF program over the attributes
//! of one conntrack message, so that a flood of half-open flows costs us neither room nor a wake-up.

use super::entry::{
    CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, CTA_STATUS, ESTABLISHED, IPS_ASSURED,
};
use crate::kernel::sys::Instruction;

/// Passes a message whose status says ASSURED and which tells that the TCP state is ESTABLISHED. The kernel puts
/// the state only into the message about the change that made it so, hence one message a handshake.
pub(super) const COMPLETED: [Instruction; REFUSE + 1] = [
    load(ATTRIBUTES_AT),
    load_x(CTA_STATUS),
    find(SKF_AD_NLATTR),
    found_or_refuse(3),
    to_x(),
    value(libc::BPF_W),
    go_on_if(libc::BPF_JSET, IPS_ASSURED, 6),
    load(ATTRIBUTES_AT),
    load_x(CTA_PROTOINFO),
    find(SKF_AD_NLATTR),
    found_or_refuse(10),
    load_x(CTA_PROTOINFO_TCP),
    find(SKF_AD_NLATTR_NEST),
    found_or_refuse(13),
    load_x(CTA_PROTOINFO_TCP_STATE),
    find(SKF_AD_NLATTR_NEST),
    found_or_refuse(16),
    to_x(),
    value(libc::BPF_B),
    go_on_if(libc::BPF_JEQ, ESTABLISHED as u32, 19),
    op(libc::BPF_RET, WHOLE),
    op(libc::BPF_RET, 0),
];

/// Place of the instruction that refuses.
const REFUSE: usize = 21;

const fn op(code: u32, k: u32) -> Instruction {
    Instruction {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn load(k: u32) -> Instruction {
    op(libc::BPF_LD | libc::BPF_IMM, k)
}

const fn load_x(attribute: u16) -> Instruction {
    op(libc::BPF_LDX | libc::BPF_IMM, attribute as u32)
}

const fn to_x() -> Instruction {
    op(libc::BPF_MISC | libc::BPF_TAX, 0)
}

/// The value of the attribute at X; words are in network byte order, as BPF reads them.
const fn value(size: u32) -> Instruction {
    op(libc::BPF_LD | size | libc::BPF_IND, ATTRIBUTE_HEADER)
}

/// The place of attribute X, searched from A on or nested in the attribute at A; 0 if there is none.
const fn find(how: i32) -> Instruction {
    op(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        (libc::SKF_AD_OFF + how) as u32,
    )
}

const fn go_on_if(test: u32, k: u32, at: usize) -> Instruction {
    let mut jump = op(libc::BPF_JMP | test | libc::BPF_K, k);
    jump.jf = (REFUSE - at - 1) as u8;
    jump
}

const fn found_or_refuse(at: usize) -> Instruction {
    let mut jump = op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0);
    jump.jt = (REFUSE - at - 1) as u8;
    jump
}

/// Behind struct nlmsghdr and struct nfgenmsg.
const ATTRIBUTES_AT: u32 = 16 + 4;
/// struct nlattr
const ATTRIBUTE_HEADER: u32 = 4;
/// A length that no message exceeds: none is cut.
const WHOLE: u32 = u32::MAX;
// include/uapi/linux/filter.h
const SKF_AD_NLATTR: i32 = 12;
const SKF_AD_NLATTR_NEST: i32 = 16;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::super::entry::tests::{message, message_without_state};
    use super::*;
    use crate::kernel::sys::attach_filter;

    /// Whether the kernel lets `bytes` through to a socket with the filter.
    fn passes(bytes: &[u8]) -> bool {
        let (near, far) = UnixDatagram::pair().unwrap();
        attach_filter(far.as_fd(), &COMPLETED).unwrap();
        far.set_nonblocking(true).unwrap();
        near.send(bytes).unwrap();
        let mut back = [0; 512];
        match far.recv(&mut back) {
            Ok(length) => {
                assert_eq!(&back[..length], bytes, "cut on its way");
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn one_state_with_one_status_passes() {
        const SEEN_REPLY_AND_CONFIRMED: u32 = 0xa;
        for state in 0..=u8::MAX {
            assert_eq!(
                passes(&message(SEEN_REPLY_AND_CONFIRMED | IPS_ASSURED, state)),
                state == ESTABLISHED
            );
            assert!(!passes(&message(SEEN_REPLY_AND_CONFIRMED, state)));
        }
        assert!(!passes(&message_without_state(IPS_ASSURED)));
    }

    #[test]
    fn cut_messages_do_not_pass() {
        let whole = message(IPS_ASSURED, ESTABLISHED);
        for length in 1..whole.len() {
            // The state stands in an attribute padded to 4 bytes: cut in the padding it is still all there.
            let _whatever = passes(&whole[..length]);
        }
        assert!(!passes(&[0; 64]));
        assert!(!passes(&[0xff; 64]));
    }
}
