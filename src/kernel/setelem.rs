//! Set elements as bytes: which set holds a ban, how an element is written, how one is read back. Nothing is
//! sent here; [`super::sets`] does that.

use std::net::IpAddr;
use std::time::Duration;

use super::netlink::{Attributes, Builder, be64, nfnl_type, string};
use super::ruleset::{Family, TABLE, ban_set_name, parse_ban_set_name};
use crate::core::prefix::Prefix;

/// The set that holds the bans of one family and prefix length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct SetId {
    ipv4: bool,
    len: u8,
}

impl SetId {
    /// Where `target` belongs.
    pub(super) fn of(target: &Prefix) -> SetId {
        SetId {
            ipv4: target.is_ipv4(),
            len: target.len(),
        }
    }

    /// Its name in the table.
    pub(super) fn name(self) -> String {
        let family = if self.ipv4 { Family::V4 } else { Family::V6 };
        ban_set_name(family, self.len)
    }

    /// The set called `name`; `None` if it is not one of those that hold bans.
    pub(super) fn parse(name: &str) -> Option<SetId> {
        let (family, len) = parse_ban_set_name(name)?;
        Some(SetId {
            ipv4: family == Family::V4,
            len,
        })
    }

    /// The prefix that `key` stands for in this set; `None` if no packet could ever match it.
    fn target(self, key: &[u8]) -> Option<Prefix> {
        let addr = match self.ipv4 {
            true => IpAddr::from(<[u8; 4]>::try_from(key).ok()?),
            false => IpAddr::from(<[u8; 16]>::try_from(key).ok()?),
        };
        let target = Prefix::new(addr, self.len).ok()?;
        // Lookups are masked: a key with host bits, added by hand, bans nobody.
        (target.addr() == addr).then_some(target)
    }
}

/// A ban as the kernel holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveBan {
    /// Who is banned.
    pub target: Prefix,
    /// Time left by the kernel's clock; `None`: for ever.
    pub remaining: Option<Duration>,
    /// The length it was given; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// A new element, or the removal of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    /// NFT_MSG_NEWSETELEM; an element that exists already is left as it is.
    New,
    /// NFT_MSG_DELSETELEM; an element that does not exist fails the transaction.
    Delete,
}

/// Writes one message about `elements` of `set`.
pub(super) fn put_message(
    builder: &mut Builder,
    verb: Verb,
    seq: u32,
    set: SetId,
    elements: &[(Prefix, Option<Duration>)],
) {
    let (message, flags) = match verb {
        Verb::New => (libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE),
        Verb::Delete => (libc::NFT_MSG_DELSETELEM, 0),
    };
    begin(builder, message, flags | libc::NLM_F_ACK, seq, &set.name());
    let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    for (target, timeout) in elements {
        put_element(builder, target, *timeout);
    }
    builder.close(list);
}

/// The messages that put these bans, which are all of one set, into it; each of bounded size, none with a number yet.
pub(super) fn messages(bans: &[(Prefix, Option<Duration>)]) -> impl Iterator<Item = Vec<u8>> {
    bans.chunks(ELEMENTS_PER_MESSAGE).map(|chunk| {
        let mut builder = Builder::new();
        put_message(&mut builder, Verb::New, 0, SetId::of(&chunk[0].0), chunk);
        builder.bytes().to_vec()
    })
}

/// Writes the question for every element of `set`.
pub(super) fn put_dump(builder: &mut Builder, seq: u32, set: &str) {
    begin(builder, libc::NFT_MSG_GETSETELEM, libc::NLM_F_DUMP, seq, set);
}

/// Writes the question for one element.
pub(super) fn put_get(builder: &mut Builder, seq: u32, target: &Prefix) {
    put_get_all(builder, seq, SetId::of(target), [*target]);
}

/// Writes the question for these elements of one set. Each is answered by a message of its own, in their order; the
/// first that is not there by an error, and none after it.
pub(super) fn put_get_all(
    builder: &mut Builder,
    seq: u32,
    set: SetId,
    targets: impl IntoIterator<Item = Prefix>,
) {
    begin(
        builder,
        libc::NFT_MSG_GETSETELEM,
        libc::NLM_F_ACK,
        seq,
        &set.name(),
    );
    let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    for target in targets {
        put_element(builder, &target, None);
    }
    builder.close(list);
}

/// Writes the question for the sets of the table.
pub(super) fn put_dump_sets(builder: &mut Builder, seq: u32) {
    builder
        .nfnetlink(
            nfnl_type(libc::NFNL_SUBSYS_NFTABLES, libc::NFT_MSG_GETSET),
            libc::NLM_F_REQUEST | libc::NLM_F_DUMP,
            seq,
            libc::NFPROTO_INET,
            0,
        )
        .put_str(NFTA_SET_TABLE, TABLE);
}

/// The name of a set of our table in an answer to [`put_dump_sets`], if it holds bans.
pub(super) fn read_set(payload: &[u8]) -> Option<SetId> {
    let attribute = |wanted| Attributes::after_nfgen(payload).find(|(kind, _)| *kind == wanted);
    let table = attribute(NFTA_SET_TABLE)?.1;
    if string(table)? != TABLE {
        return None;
    }
    SetId::parse(string(attribute(NFTA_SET_NAME)?.1)?)
}

/// The live bans in an answer about elements of `set`; what has expired and was not collected yet is left out.
pub(super) fn read_elements(set: SetId, payload: &[u8]) -> impl Iterator<Item = LiveBan> {
    Attributes::after_nfgen(payload)
        .filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS)
        .flat_map(|(_, list)| Attributes::new(list))
        .filter_map(move |(_, element)| read_element(set, element))
}

/// The bans that a notice about elements of our table tells of, with their set; none if they are of another set.
pub(super) fn read_notice(payload: &[u8]) -> Option<(SetId, Vec<Prefix>)> {
    let attribute = |wanted| Attributes::after_nfgen(payload).find(|(kind, _)| *kind == wanted);
    let set = SetId::parse(string(attribute(NFTA_SET_ELEM_LIST_SET)?.1)?)?;
    // What has run off by now was an element all the same.
    let elements = Attributes::after_nfgen(payload)
        .filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS)
        .flat_map(|(_, list)| Attributes::new(list));
    let targets = elements.filter_map(|(_, element)| {
        let (_, key) = Attributes::new(element).find(|(kind, _)| *kind == NFTA_SET_ELEM_KEY)?;
        let (_, key) = Attributes::new(key).find(|(kind, _)| *kind == NFTA_DATA_VALUE)?;
        set.target(key)
    });
    Some((set, targets.collect()))
}

fn begin(builder: &mut Builder, message: i32, flags: i32, seq: u32, set: &str) {
    builder
        .nfnetlink(
            nfnl_type(libc::NFNL_SUBSYS_NFTABLES, message),
            libc::NLM_F_REQUEST | flags,
            seq,
            libc::NFPROTO_INET,
            0,
        )
        .put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE)
        .put_str(NFTA_SET_ELEM_LIST_SET, set);
}

fn put_element(builder: &mut Builder, target: &Prefix, timeout: Option<Duration>) {
    let element = builder.open(NFTA_LIST_ELEM);
    let key = builder.open(NFTA_SET_ELEM_KEY);
    match target.addr() {
        IpAddr::V4(addr) => builder.put(NFTA_DATA_VALUE, &addr.octets()),
        IpAddr::V6(addr) => builder.put(NFTA_DATA_VALUE, &addr.octets()),
    };
    builder.close(key);
    if let Some(timeout) = timeout {
        builder.put_be64(NFTA_SET_ELEM_TIMEOUT, milliseconds(timeout));
    }
    builder.close(element);
}

fn read_element(set: SetId, element: &[u8]) -> Option<LiveBan> {
    let (mut target, mut timeout, mut remaining) = (None, None, None);
    for (kind, value) in Attributes::new(element) {
        match kind {
            NFTA_SET_ELEM_KEY => {
                let (_, key) = Attributes::new(value).find(|(kind, _)| *kind == NFTA_DATA_VALUE)?;
                target = set.target(key);
            }
            NFTA_SET_ELEM_TIMEOUT => timeout = be64(value).map(Duration::from_millis),
            NFTA_SET_ELEM_EXPIRATION => remaining = be64(value).map(Duration::from_millis),
            _ => {}
        }
    }
    (remaining != Some(Duration::ZERO)).then_some(LiveBan {
        target: target?,
        remaining,
        timeout,
    })
}

fn milliseconds(timeout: Duration) -> u64 {
    as_held(timeout).as_millis() as u64
}

/// A timeout as the kernel takes it: never 0, which would mean for ever, and never so small or large that the
/// kernel's own arithmetic makes it 0.
pub(super) fn as_held(timeout: Duration) -> Duration {
    timeout.clamp(SHORTEST, LONGEST)
}

/// An IPv6 element with a timeout takes 40 bytes: messages stay under 32 KiB, half of what an attribute holds.
pub(super) const ELEMENTS_PER_MESSAGE: usize = 800;
/// One jiffy at the lowest CONFIG_HZ (100). Kernels before 6.12 turn less than a jiffy into 0 jiffies, which
/// never expire (nf_msecs_to_jiffies64).
const SHORTEST: Duration = Duration::from_millis(10);
/// A hundred years: far from the kernel's ERANGE (2⁶⁴ ns), longer than any host.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

// include/uapi/linux/netfilter/nf_tables.h
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;

#[cfg(test)]
mod tests {
    use super::super::netlink::Messages;
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn set_of(text: &str) -> String {
        SetId::of(&prefix(text)).name()
    }

    #[test]
    fn each_length_has_its_set() {
        assert_eq!(set_of("203.0.113.9"), "banned4");
        assert_eq!(set_of("203.0.113.0/24"), "banned4_24");
        assert_eq!(set_of("0.0.0.0/0"), "banned4_0");
        assert_eq!(set_of("2001:db8::/64"), "banned6");
        assert_eq!(set_of("2001:db8::1"), "banned6_128");
        assert_eq!(set_of("2001:db8::/32"), "banned6_32");
    }

    #[test]
    fn names_are_read_back_and_foreign_ones_are_not() {
        for len in 0..=128 {
            for ipv4 in [true, false] {
                let id = SetId { ipv4, len };
                let expected = (len <= if ipv4 { 32 } else { 128 }).then_some(id);
                assert_eq!(SetId::parse(&id.name()), expected, "{}", id.name());
            }
        }
        for name in [
            "",
            "banned",
            "banned5",
            "banned4_",
            "banned4_32",
            "banned4_33",
            "banned4_024",
            "banned4_+8",
            "banned4_-1",
            "banned6_64",
            "banned6_129",
            "banned6_999",
            "banned46",
            "banned4_8_8",
            "trusted4",
        ] {
            assert_eq!(SetId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn timeouts_are_never_zero_and_never_overflow() {
        assert_eq!(milliseconds(Duration::ZERO), 10);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 10);
        assert_eq!(milliseconds(Duration::from_millis(10_001)), 10_001);
        assert_eq!(milliseconds(Duration::MAX), 36_500 * 86_400_000);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let elements = [
            (prefix("203.0.113.0/24"), Some(Duration::from_secs(3))),
            (prefix("198.51.100.0/24"), None),
        ];
        let set = SetId::of(&elements[0].0);
        let mut builder = Builder::new();
        put_message(&mut builder, Verb::New, 7, set, &elements);
        let message = Messages::new(builder.bytes()).next().unwrap();
        assert_eq!(message.seq, 7);
        let read: Vec<_> = read_elements(set, message.payload)
            .map(|ban| (ban.target, ban.timeout))
            .collect();
        assert_eq!(read, elements);
    }

    #[test]
    fn keys_that_ban_nobody_are_not_bans() {
        let set = SetId::parse("banned4_24").unwrap();
        assert_eq!(set.target(&[203, 0, 113, 9]), None);
        assert_eq!(set.target(&[203, 0, 113]), None);
        assert_eq!(set.target(&[0; 16]), None);
        assert_eq!(set.target(&[203, 0, 113, 0]), Some(prefix("203.0.113.0/24")));
    }

    #[test]
    fn expired_elements_are_left_out() {
        let set = SetId::parse("banned4").unwrap();
        for (expiration, alive) in [(0, false), (1, true)] {
            let mut builder = Builder::new();
            builder.raw(0, 0, 0);
            let key = builder.open(NFTA_SET_ELEM_KEY);
            builder.put(NFTA_DATA_VALUE, &[203, 0, 113, 9]).close(key);
            builder.put_be64(NFTA_SET_ELEM_EXPIRATION, expiration);
            let element = Messages::new(builder.bytes()).next().unwrap().payload;
            assert_eq!(read_element(set, element).is_some(), alive);
        }
    }

    #[test]
    fn cut_answers_are_read_as_far_as_they_go() {
        let elements = [(prefix("2001:db8::/64"), Some(Duration::from_secs(3))); 3];
        let set = SetId::of(&elements[0].0);
        let mut builder = Builder::new();
        put_message(&mut builder, Verb::New, 1, set, &elements);
        let payload = Messages::new(builder.bytes()).next().unwrap().payload;
        for length in 0..payload.len() {
            assert!(read_elements(set, &payload[..length]).count() <= 3);
            assert!(read_set(&payload[..length]).is_none_or(|read| read == set));
        }
    }
}
