//! One record as bytes and back: `docs/state.md` says byte for byte what it looks like.
//!
//! Every number is little-endian and every time is in milliseconds since the file was begun, by the clock of the
//! process that wrote it: a record needs no other one to be placed within its file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::super::decode::{LONGEST_AGE, MOST_BOOT_ID, MOST_NOTE_CHARS, is_plain};
use super::super::{Boot, Moment};
use super::Record;
use crate::core::prefix::Prefix;
use crate::core::verdict::{Asked, Ban, BanReason, Proto};

/// A time within a file: milliseconds since it was begun, negative before.
pub(in super::super) type Millis = i64;

/// A record as it lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Entry {
    /// What the clocks said at that time of the file.
    Clock {
        at: Millis,
        moment: Moment,
    },
    Ban(BanEntry),
    Lift {
        source: Prefix,
        at: Millis,
    },
    Standing {
        source: Prefix,
        real: Option<(u32, Millis)>,
        would_be: Option<(u32, Millis)>,
    },
    Touch {
        source: Prefix,
        what: Asked,
        stealth: u16,
        at: Millis,
    },
    Completed {
        source: Prefix,
        port: u16,
        at: Millis,
    },
    Reset,
}

/// A ban as it lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct BanEntry {
    pub(in super::super) source: Prefix,
    pub(in super::super) reason: BanReason,
    pub(in super::super) step: u32,
    pub(in super::super) offences: u32,
    pub(in super::super) since: Millis,
    pub(in super::super) until: Option<Millis>,
    pub(in super::super) enforced: bool,
    pub(in super::super) note: Option<Box<str>>,
}

/// What the checksums of one file begin with: bytes of another generation are no records of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Salt([u8; 16]);

impl Salt {
    pub(in super::super) fn of(generation: u64) -> Salt {
        let digest = Sha256::digest(fixed(generation));
        let mut salt = [0; 16];
        salt.copy_from_slice(&digest[..16]);
        Salt(salt)
    }

    fn checksum(&self, record: &[u8]) -> [u8; CHECKSUM] {
        let digest = Sha256::new().chain_update(self.0).chain_update(record).finalize();
        let mut sum = [0; CHECKSUM];
        sum.copy_from_slice(&digest[..CHECKSUM]);
        sum
    }
}

/// What a file begins with: which it is, and what the clocks said.
pub(in super::super) fn header(generation: u64, moment: &Moment) -> Vec<u8> {
    let mut header = fixed(generation).to_vec();
    put_moment(&mut header, moment, 0);
    header.resize(HEADER - CHECKSUM, 0);
    let digest = Sha256::digest(&header);
    header.extend_from_slice(&digest[..CHECKSUM]);
    header
}

/// Why the beginning of a file is none.
#[derive(Debug, PartialEq)]
pub(in super::super) enum Beginning {
    Moment(Moment),
    Version(u32),
    Damaged,
}

/// What the first bytes of the file of that generation say.
pub(in super::super) fn beginning(bytes: &[u8], generation: u64) -> Beginning {
    let Some(header) = bytes.get(..HEADER) else {
        return Beginning::Damaged;
    };
    let (body, sum) = header.split_at(HEADER - CHECKSUM);
    if Sha256::digest(body)[..CHECKSUM] != *sum || !body.starts_with(MAGIC) {
        return Beginning::Damaged;
    }
    let mut fields = Fields(&body[MAGIC.len()..]);
    match fields.u32() {
        Some(JOURNAL_VERSION) => {}
        Some(other) => return Beginning::Version(other),
        None => return Beginning::Damaged,
    }
    let moment = (fields.u64() == Some(generation))
        .then(|| fields.moment())
        .flatten();
    moment.map_or(Beginning::Damaged, |(_, moment)| Beginning::Moment(moment))
}

fn fixed(generation: u64) -> [u8; 20] {
    let mut fixed = [0; 20];
    fixed[..8].copy_from_slice(MAGIC);
    fixed[8..12].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
    fixed[12..].copy_from_slice(&generation.to_le_bytes());
    fixed
}

/// Adds records to a buffer.
pub(in super::super) struct Writer<'a> {
    pub(in super::super) out: &'a mut Vec<u8>,
    pub(in super::super) salt: Salt,
    /// When the file was begun.
    pub(in super::super) begun: Instant,
}

impl Writer<'_> {
    pub(in super::super) fn clock(&mut self, moment: &Moment, now: Instant) {
        let at = self.millis(now);
        self.record(CLOCK, |out| put_moment(out, moment, at));
    }

    pub(in super::super) fn put(&mut self, record: &Record) {
        let begun = self.begun;
        let millis = |at: Instant| millis_since(begun, at);
        match record {
            Record::Ban(ban) => self.record(BAN, |out| put_ban(out, ban, millis)),
            Record::Lift { source, at } => self.record(LIFT, |out| {
                put_prefix(out, source);
                out.extend(millis(*at).to_le_bytes());
            }),
            Record::Standing(standing) => self.record(STANDING, |out| {
                put_prefix(out, &standing.source);
                out.push(u8::from(standing.last.is_some()) | u8::from(standing.would_be_last.is_some()) << 1);
                let counts = [
                    (standing.offences, standing.last),
                    (standing.would_be, standing.would_be_last),
                ];
                for (offences, last) in counts {
                    if let Some(last) = last {
                        out.extend(offences.to_le_bytes());
                        out.extend(millis(last).to_le_bytes());
                    }
                }
            }),
            Record::Touch { source, touch } => self.record(TOUCH, |out| {
                put_prefix(out, source);
                let (kind, number) = match touch.what {
                    Asked::Port(Proto::Tcp, port) => (TCP, port),
                    Asked::Port(Proto::Udp, port) => (UDP, port),
                    Asked::Protocol(number) => (PROTOCOL, number.into()),
                };
                out.push(kind);
                out.extend(number.to_le_bytes());
                out.extend(touch.stealth.to_le_bytes());
                out.extend(millis(touch.at).to_le_bytes());
            }),
            Record::Completed { source, port, at } => self.record(COMPLETED, |out| {
                put_prefix(out, source);
                out.extend(port.to_le_bytes());
                out.extend(millis(*at).to_le_bytes());
            }),
            Record::Reset => self.record(RESET, |_| ()),
        }
    }

    fn record(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend([0, 0, kind]);
        body(self.out);
        let length = self.out.len() - start - BEFORE;
        debug_assert!(length <= MOST_BODY);
        // Every body is bounded by its fields, far below 65,536.
        self.out[start..start + 2].copy_from_slice(&(length as u16).to_le_bytes());
        let sum = self.salt.checksum(&self.out[start..]);
        self.out.extend(sum);
    }

    fn millis(&self, at: Instant) -> Millis {
        millis_since(self.begun, at)
    }
}

/// Rounded down, so that no end is later than it was granted.
fn millis_since(begun: Instant, at: Instant) -> Millis {
    match at.checked_duration_since(begun) {
        Some(after) => Millis::try_from(after.as_millis()).unwrap_or(Millis::MAX),
        None => {
            let before = begun.saturating_duration_since(at).as_nanos().div_ceil(1_000_000);
            Millis::try_from(before).map_or(Millis::MIN, |before| -before)
        }
    }
}

fn put_prefix(out: &mut Vec<u8>, prefix: &Prefix) {
    let bytes = usize::from(prefix.len().div_ceil(8));
    match prefix.addr() {
        IpAddr::V4(v4) => {
            out.extend([4, prefix.len()]);
            out.extend(&v4.octets()[..bytes]);
        }
        IpAddr::V6(v6) => {
            out.extend([6, prefix.len()]);
            out.extend(&v6.octets()[..bytes]);
        }
    }
}

fn put_ban(out: &mut Vec<u8>, ban: &Ban, millis: impl Fn(Instant) -> Millis) {
    put_prefix(out, &ban.source);
    let flags = [ban.enforced, ban.until.is_some(), ban.note.is_some()];
    out.push(reason_number(ban.reason));
    out.push(
        flags
            .into_iter()
            .rev()
            .fold(0, |byte, flag| byte << 1 | u8::from(flag)),
    );
    out.extend(ban.step.to_le_bytes());
    out.extend(ban.offences.to_le_bytes());
    out.extend(millis(ban.since).to_le_bytes());
    if let Some(until) = ban.until {
        out.extend(millis(until).to_le_bytes());
    }
    if let Some(note) = &ban.note {
        out.extend(cut(note, MOST_NOTE_CHARS).as_bytes());
    }
}

/// Wall and boot clock; without a boot's clock an empty name, and the process's own.
fn put_moment(out: &mut Vec<u8>, moment: &Moment, at: Millis) {
    let wall = moment.wall.unix_timestamp_nanos().div_euclid(1_000_000);
    let (id, up) = moment.boot.as_ref().map_or(("", 0), |boot| {
        (&*boot.id, u64::try_from(boot.up.as_millis()).unwrap_or(u64::MAX))
    });
    let id = if id.len() <= MOST_BOOT_ID { id } else { "" };
    out.extend(at.to_le_bytes());
    out.extend(i64::try_from(wall).unwrap_or(0).to_le_bytes());
    out.extend(up.to_le_bytes());
    out.push(id.len() as u8); // at most 64
    out.extend(id.as_bytes());
}

fn cut(text: &str, most: usize) -> &str {
    text.char_indices()
        .nth(most)
        .map_or(text, |(end, _)| &text[..end])
}

fn reason_number(reason: BanReason) -> u8 {
    match reason {
        BanReason::PortScanning => 1,
        BanReason::DistributedAttack => 2,
        BanReason::SuspiciousScanning => 3,
        BanReason::Manual => 4,
        BanReason::Prefix => 5,
    }
}

/// What the first bytes of a slice are.
#[derive(Debug, PartialEq)]
pub(in super::super) enum Found {
    /// A record of so many bytes; `None`: whole, but of a kind or with a value that makes no sense here.
    Record(Option<Entry>, usize),
    /// None begins here.
    Nothing,
}

/// Whether a record of that file begins with the first of `bytes`.
pub(in super::super) fn decode(bytes: &[u8], salt: &Salt) -> Found {
    let Some(whole) = candidate(bytes).and_then(|length| bytes.get(..length)) else {
        return Found::Nothing;
    };
    let (record, sum) = whole.split_at(whole.len() - CHECKSUM);
    match salt.checksum(record) == *sum {
        true => Found::Record(entry(record[2], &record[BEFORE..]), whole.len()),
        false => Found::Nothing,
    }
}

/// How long a record that begins here would be, if one can: its checksum is yet to be looked at.
pub(in super::super) fn candidate(bytes: &[u8]) -> Option<usize> {
    let [low, high, kind, ..] = *bytes else {
        return None;
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    (kind != 0 && length <= MOST_BODY).then_some(BEFORE + length + CHECKSUM)
}

fn entry(kind: u8, body: &[u8]) -> Option<Entry> {
    let mut fields = Fields(body);
    let entry = match kind {
        CLOCK => {
            let (at, moment) = fields.moment()?;
            Entry::Clock { at, moment }
        }
        BAN => Entry::Ban(fields.ban()?),
        LIFT => Entry::Lift {
            source: fields.prefix()?,
            at: fields.time()?,
        },
        STANDING => fields.standing()?,
        TOUCH => Entry::Touch {
            source: fields.prefix()?,
            what: fields.asked()?,
            stealth: fields.u16()?,
            at: fields.time()?,
        },
        COMPLETED => Entry::Completed {
            source: fields.prefix()?,
            port: fields.u16()?,
            at: fields.time()?,
        },
        RESET => Entry::Reset,
        _ => return None,
    };
    fields.0.is_empty().then_some(entry)
}

/// Fields of a body, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Not so far away that sums of them could overflow.
    fn time(&mut self) -> Option<Millis> {
        let time = self.array().map(Millis::from_le_bytes)?;
        (time.unsigned_abs() <= MOST_MILLIS).then_some(time)
    }

    fn text(&mut self, length: usize) -> Option<&str> {
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn prefix(&mut self) -> Option<Prefix> {
        let [family, length] = self.array()?;
        let mut octets = [0; 16];
        let (bytes, rest) = self.0.split_at_checked(usize::from(length.div_ceil(8)))?;
        octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.0 = rest;
        let addr: IpAddr = match family {
            4 => Ipv4Addr::from(*octets.first_chunk::<4>()?).into(),
            6 => Ipv6Addr::from(octets).into(),
            _ => return None,
        };
        // One prefix has one form: no host bits, no address of the other family in disguise.
        Prefix::new(addr, length)
            .ok()
            .filter(|prefix| prefix.addr() == addr)
    }

    fn asked(&mut self) -> Option<Asked> {
        let (kind, number) = (self.u8()?, self.u16()?);
        match kind {
            TCP => Some(Asked::Port(Proto::Tcp, number)),
            UDP => Some(Asked::Port(Proto::Udp, number)),
            PROTOCOL => number.try_into().ok().map(Asked::Protocol),
            _ => None,
        }
    }

    fn moment(&mut self) -> Option<(Millis, Moment)> {
        let (at, wall, up) = (self.time()?, self.array().map(i64::from_le_bytes)?, self.u64()?);
        let length = usize::from(self.u8()?);
        let id = self.text(length).filter(|id| id.len() <= MOST_BOOT_ID)?;
        let wall = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall) * 1_000_000).ok()?;
        let boot = (!id.is_empty()).then(|| Boot {
            id: id.into(),
            up: Duration::from_millis(up),
        });
        let plausible = up <= MOST_MILLIS;
        plausible.then_some((at, Moment { wall, boot }))
    }

    fn standing(&mut self) -> Option<Entry> {
        let source = self.prefix()?;
        let has = self.u8().filter(|has| *has < 4)?;
        let mut count = |bit: u8| match has & bit {
            0 => Some(None),
            _ => Some(Some((self.u32()?, self.time()?))),
        };
        let (real, would_be) = (count(1)?, count(2)?);
        Some(Entry::Standing {
            source,
            real,
            would_be,
        })
    }

    fn ban(&mut self) -> Option<BanEntry> {
        let source = self.prefix()?;
        let reason = self.u8()?;
        let flags = self.u8().filter(|flags| *flags < 8)?;
        let (step, offences, since) = (self.u32()?, self.u32()?, self.time()?);
        let until = match flags & 2 {
            0 => None,
            _ => Some(self.time()?),
        };
        let note = match flags & 4 {
            0 => None,
            _ => Some(self.text(self.0.len())?),
        };
        Some(BanEntry {
            source,
            reason: BanReason::ALL
                .into_iter()
                .find(|known| reason_number(*known) == reason)?,
            step,
            offences,
            since,
            until,
            enforced: flags & 1 != 0,
            note: note.filter(|note| is_plain(note)).map(Into::into),
        })
    }
}

pub(in super::super) const MAGIC: &[u8; 8] = b"VDJOURNL";
/// The version of the format that is written, and the only one that is read.
pub(in super::super) const JOURNAL_VERSION: u32 = 1;
/// Magic, version, generation, time, wall and boot clock, boot id and its length, checksum.
pub(in super::super) const HEADER: usize = 8 + 4 + 8 + 8 + 8 + 8 + 1 + MOST_BOOT_ID + 3 + CHECKSUM;
/// Length and kind.
const BEFORE: usize = 3;
/// The first bytes of a SHA-256: a spoiled record passes for a good one in one of 2^64.
pub(in super::super) const CHECKSUM: usize = 8;
/// The longest body: a ban with a note of 200 characters of four bytes has 844.
const MOST_BODY: usize = 1024;
/// The longest record.
pub(in super::super) const MOST_RECORD: usize = BEFORE + MOST_BODY + CHECKSUM;
const MOST_MILLIS: u64 = LONGEST_AGE.as_secs() * 1000;

const CLOCK: u8 = 1;
const BAN: u8 = 2;
const LIFT: u8 = 3;
const STANDING: u8 = 4;
const TOUCH: u8 = 5;
const COMPLETED: u8 = 6;
const RESET: u8 = 7;

const TCP: u8 = 1;
const UDP: u8 = 2;
const PROTOCOL: u8 = 3;
