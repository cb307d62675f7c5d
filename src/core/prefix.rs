//! Prefixes and sets of prefixes: what a source, a trusted network and a ban are made of.
//!
//! It stands alone because every layer names addresses this way, and because the set is looked up once per
//! packet: it is built once, never changes, and answers by binary search.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// An address with a prefix length; host bits are always zero. Never holds an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why something is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// The part before the slash is no address.
    #[error(
        "\"{text}\" is not an address or a prefix, write \"203.0.113.9\", \"10.0.0.0/8\" or \"2001:db8::/64\""
    )]
    NotAnAddress {
        /// As given.
        text: String,
    },
    /// The part after the slash is no number.
    #[error("prefix length \"{len}\" in \"{text}\" is not a number, write 0 to {max}")]
    NotALength {
        /// As given.
        text: String,
        /// The part after the slash.
        len: String,
        /// The longest prefix of this family.
        max: u8,
    },
    /// More bits than an address of this family has.
    #[error("prefix length {len} in \"{text}\" is more than {max}")]
    TooLong {
        /// As given.
        text: String,
        /// The part after the slash.
        len: String,
        /// The longest prefix of this family.
        max: u8,
    },
    /// `::ffff:a.b.c.d`: the same host under a second name would escape its ban.
    #[error("\"{text}\" is an IPv4-mapped IPv6 address, write it as IPv4: \"{v4}\"")]
    Mapped {
        /// As given.
        text: String,
        /// The IPv4 address inside it.
        v4: Ipv4Addr,
    },
}

impl Prefix {
    /// The prefix of length `len` that `addr` is in; host bits are masked.
    ///
    /// # Errors
    /// If `len` is longer than the address, or `addr` is IPv4-mapped.
    pub fn new(addr: IpAddr, len: u8) -> Result<Prefix, PrefixError> {
        Prefix::checked(addr, len, || format!("{addr}/{len}"))
    }

    /// One address: a /32 or a /128. An IPv4-mapped address is taken as the IPv4 address it means.
    pub fn host(addr: IpAddr) -> Prefix {
        let addr = addr.to_canonical();
        Prefix {
            addr,
            len: width(addr),
        }
    }

    /// What counts as one source: the address itself for IPv4, its prefix of length `v6_len` for IPv6.
    pub fn source_of(addr: IpAddr, v6_len: u8) -> Prefix {
        match addr.to_canonical() {
            v4 @ IpAddr::V4(_) => Prefix { addr: v4, len: 32 },
            v6 @ IpAddr::V6(_) => Prefix {
                addr: mask(v6, v6_len.min(128)),
                len: v6_len.min(128),
            },
        }
    }

    /// Reads `10.0.0.0/8`, `203.0.113.9`, `2001:db8::/64`. The flag tells that host bits were set and are gone.
    ///
    /// # Errors
    /// If the text is no address or prefix; the message says what would be right.
    pub fn parse(text: &str) -> Result<(Prefix, bool), PrefixError> {
        let (addr_text, len_text) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr_text.parse().map_err(|_| PrefixError::NotAnAddress {
            text: text.to_owned(),
        })?;
        let len = len_text.map_or(Ok(width(addr)), |len| parse_len(text, len, width(addr)))?;
        let prefix = Prefix::checked(addr, len, || text.to_owned())?;
        Ok((prefix, prefix.addr != addr))
    }

    /// The first address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The length in bits.
    #[allow(clippy::len_without_is_empty)] // a length in bits, not a count
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether this is one single address.
    pub fn is_host(&self) -> bool {
        self.len == width(self.addr)
    }

    /// Whether this is IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether `addr` is inside.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.is_ipv4() && mask(addr, self.len) == self.addr
    }

    /// Whether any address is in both: of two prefixes that is so only if one holds the other.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }

    /// Whether every address of `other` is inside.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    fn checked(addr: IpAddr, len: u8, text: impl Fn() -> String) -> Result<Prefix, PrefixError> {
        if let IpAddr::V6(v6) = addr
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(PrefixError::Mapped { text: text(), v4 });
        }
        let max = width(addr);
        if len > max {
            return Err(PrefixError::TooLong {
                text: text(),
                len: len.to_string(),
                max,
            });
        }
        Ok(Prefix {
            addr: mask(addr, len),
            len,
        })
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        Prefix::parse(text).map(|(prefix, _)| prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            write!(f, "{}", self.addr)
        } else {
            write!(f, "{}/{}", self.addr, self.len)
        }
    }
}

/// An immutable set of prefixes, looked up once per packet: two binary-searched arrays, no allocation.
///
/// A prefix inside another one of the set is dropped when the set is built, so what is left is disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Box<[Span]>,
    v6: Box<[Span]>,
}

/// First and last address of a prefix as numbers (IPv4 in the low 32 bits), and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u128,
    last: u128,
    len: u8,
}

impl PrefixSet {
    /// Whether a prefix of the set holds `addr`.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.matching(addr).is_some()
    }

    /// The prefix of the set that holds `addr`; the widest, if several were given.
    pub fn matching(&self, addr: IpAddr) -> Option<Prefix> {
        let addr = addr.to_canonical();
        let spans = self.family(addr.is_ipv4());
        let bits = bits(addr);
        let after = spans.partition_point(|span| span.first <= bits);
        let span = spans[..after].last().filter(|span| bits <= span.last)?;
        Some(span.prefix(addr.is_ipv4()))
    }

    /// Whether any address is both in `prefix` and in the set.
    pub fn overlaps(&self, prefix: &Prefix) -> bool {
        let wanted = Span::of(prefix);
        let spans = self.family(prefix.is_ipv4());
        let after = spans.partition_point(|span| span.first <= wanted.last);
        spans[..after]
            .last()
            .is_some_and(|span| wanted.first <= span.last)
    }

    /// The prefixes, IPv4 first, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + '_ {
        let v4 = self.v4.iter().map(|span| span.prefix(true));
        v4.chain(self.v6.iter().map(|span| span.prefix(false)))
    }

    /// How many disjoint prefixes there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn family(&self, ipv4: bool) -> &[Span] {
        if ipv4 { &self.v4 } else { &self.v6 }
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> PrefixSet {
        let (v4, v6): (Vec<Prefix>, Vec<Prefix>) = prefixes.into_iter().partition(Prefix::is_ipv4);
        PrefixSet {
            v4: disjoint(&v4),
            v6: disjoint(&v6),
        }
    }
}

impl Span {
    fn of(prefix: &Prefix) -> Span {
        let first = bits(prefix.addr);
        let free = u32::from(width(prefix.addr) - prefix.len);
        Span {
            first,
            last: first | low_ones(free),
            len: prefix.len,
        }
    }

    fn prefix(&self, ipv4: bool) -> Prefix {
        Prefix {
            addr: from_bits(self.first, ipv4),
            len: self.len,
        }
    }
}

/// Sorted by address, each inside none of the others. The prefixes are all of one family.
fn disjoint(prefixes: &[Prefix]) -> Box<[Span]> {
    let mut spans: Vec<Span> = prefixes.iter().map(Span::of).collect();
    spans.sort_unstable_by_key(|span| (span.first, span.len));
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        if kept.last().is_none_or(|last| last.last < span.first) {
            kept.push(span);
        }
    }
    kept.into_boxed_slice()
}

fn parse_len(text: &str, len: &str, max: u8) -> Result<u8, PrefixError> {
    if len.is_empty() || !len.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PrefixError::NotALength {
            text: text.to_owned(),
            len: len.to_owned(),
            max,
        });
    }
    let too_long = || PrefixError::TooLong {
        text: text.to_owned(),
        len: len.to_owned(),
        max,
    };
    len.parse().ok().filter(|len| *len <= max).ok_or_else(too_long)
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn mask(addr: IpAddr, len: u8) -> IpAddr {
    let free = u32::from(width(addr).saturating_sub(len));
    from_bits(bits(addr) & !low_ones(free), addr.is_ipv4())
}

fn low_ones(count: u32) -> u128 {
    1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1)
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(bits: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        let [.., a, b, c, d] = bits.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn set(texts: &[&str]) -> PrefixSet {
        texts.iter().map(|text| prefix(text)).collect()
    }

    #[test]
    fn host_bits_are_masked_and_told() {
        assert_eq!(Prefix::parse("10.1.2.3/8").unwrap(), (prefix("10.0.0.0/8"), true));
        assert_eq!(
            Prefix::parse("10.0.0.0/8").unwrap(),
            (prefix("10.0.0.0/8"), false)
        );
        assert_eq!(
            Prefix::parse("2001:db8::1/64").unwrap(),
            (prefix("2001:db8::/64"), true)
        );
        assert_eq!(Prefix::parse("0.0.0.1/0").unwrap(), (prefix("0.0.0.0/0"), true));
        assert_eq!(Prefix::parse("::1/0").unwrap(), (prefix("::/0"), true));
    }

    #[test]
    fn a_host_is_shown_without_its_length() {
        assert_eq!(prefix("203.0.113.9/32").to_string(), "203.0.113.9");
        assert_eq!(prefix("2001:db8::/64").to_string(), "2001:db8::/64");
        assert_eq!(prefix("2001:db8::1").to_string(), "2001:db8::1");
    }

    #[test]
    fn errors_quote_the_text_and_say_what_is_right() {
        let message = |text: &str| Prefix::parse(text).unwrap_err().to_string();
        assert_eq!(
            message("10.0.0.0/33"),
            "prefix length 33 in \"10.0.0.0/33\" is more than 32"
        );
        assert_eq!(
            message("10.0.0.0/999999"),
            "prefix length 999999 in \"10.0.0.0/999999\" is more than 32"
        );
        assert_eq!(
            message("::/129"),
            "prefix length 129 in \"::/129\" is more than 128"
        );
        assert_eq!(
            message("::/+4"),
            "prefix length \"+4\" in \"::/+4\" is not a number, write 0 to 128"
        );
        assert_eq!(
            message("10.0.0.0/"),
            "prefix length \"\" in \"10.0.0.0/\" is not a number, write 0 to 32"
        );
        assert!(message("example.org").starts_with("\"example.org\" is not an address or a prefix"));
        assert!(message("fe80::1%eth0").contains("fe80::1%eth0"));
        assert_eq!(
            message("::ffff:10.0.0.1"),
            "\"::ffff:10.0.0.1\" is an IPv4-mapped IPv6 address, write it as IPv4: \"10.0.0.1\""
        );
        let new = Prefix::new(ip("10.0.0.0"), 40).unwrap_err().to_string();
        assert_eq!(new, "prefix length 40 in \"10.0.0.0/40\" is more than 32");
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_prefix() {
        assert_eq!(Prefix::source_of(ip("192.0.2.7"), 64), prefix("192.0.2.7"));
        assert_eq!(
            Prefix::source_of(ip("2001:db8:1:2:3::4"), 64),
            prefix("2001:db8:1:2::/64")
        );
        assert_eq!(Prefix::source_of(ip("2001:db8::4"), 128), prefix("2001:db8::4"));
        assert_eq!(Prefix::source_of(ip("::ffff:192.0.2.7"), 64), prefix("192.0.2.7"));
        assert_eq!(Prefix::host(ip("::ffff:192.0.2.7")), prefix("192.0.2.7"));
    }

    #[test]
    fn containing_and_overlapping_mind_the_family() {
        assert!(prefix("10.0.0.0/8").contains(ip("10.255.255.255")));
        assert!(!prefix("10.0.0.0/8").contains(ip("11.0.0.0")));
        assert!(!prefix("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(!prefix("::/0").contains(ip("10.0.0.1")));
        assert!(prefix("10.0.0.0/8").overlaps(&prefix("10.1.0.0/16")));
        assert!(prefix("10.1.0.0/16").overlaps(&prefix("10.0.0.0/8")));
        assert!(!prefix("10.1.0.0/16").overlaps(&prefix("10.2.0.0/16")));
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.1.0.0/16")));
        assert!(!prefix("10.1.0.0/16").covers(&prefix("10.0.0.0/8")));
    }

    #[test]
    fn a_set_finds_what_holds_an_address() {
        let set = set(&["10.0.0.0/8", "192.0.2.4/30", "2001:db8::/32", "203.0.113.9"]);
        assert_eq!(set.matching(ip("10.9.8.7")), Some(prefix("10.0.0.0/8")));
        assert_eq!(
            set.matching(ip("2001:db8:ffff::1")),
            Some(prefix("2001:db8::/32"))
        );
        assert!(
            set.contains(ip("192.0.2.7")) && !set.contains(ip("192.0.2.8")) && !set.contains(ip("192.0.2.3"))
        );
        assert!(set.contains(ip("203.0.113.9")) && !set.contains(ip("203.0.113.10")));
        assert!(set.contains(ip("::ffff:10.0.0.1")));
        assert!(!set.contains(ip("::1")) && !set.contains(ip("255.255.255.255")));
        assert!(set.overlaps(&prefix("192.0.2.0/24")) && set.overlaps(&prefix("0.0.0.0/0")));
        assert!(!set.overlaps(&prefix("192.0.3.0/24")));
    }

    #[test]
    fn a_set_drops_what_another_prefix_holds_and_does_not_depend_on_order() {
        let one = set(&["10.0.0.0/8", "10.1.0.0/16", "10.255.0.0/16", "11.0.0.0/8"]);
        let other = set(&["11.0.0.0/8", "10.255.0.0/16", "10.0.0.0/8", "10.0.0.0/8"]);
        assert_eq!(one, other);
        assert_eq!(
            one.iter().collect::<Vec<_>>(),
            [prefix("10.0.0.0/8"), prefix("11.0.0.0/8")]
        );
        assert_eq!(set(&["0.0.0.0/0", "::/0"]).len(), 2);
        assert!(PrefixSet::default().is_empty() && !PrefixSet::default().contains(ip("10.0.0.1")));
    }
}
