//! Lines letter by letter as the encoder writes them, read without a TOML parser: a million bans are a million lines,
//! and the parser takes some microseconds for each.
//!
//! Whatever differs, by a space or by an escape, is nothing to this reader: the parser has the last word on it. What
//! is read here, the parser reads the same way (a property test asserts it).

use std::time::Duration;

use time::{Date, Month, Time};

use super::{
    LONGEST_AGE, LONGEST_REMAINDER, MOST_COMPLETED, SavedBan, SavedSource, SavedStanding, asked, ban_reason,
    in_window_order, is_plain, prefix,
};
use crate::core::verdict::Asked;

/// The source of a line without its comma.
pub(super) fn source(line: &str) -> Option<SavedSource> {
    let mut line = Line(line);
    let source = line.key("{ source = ")?.string().and_then(prefix)?;
    line.key(", first_seen = ")?.datetime()?;
    line.key(", last_seen = ")?.datetime()?;
    let age = line.key(", age = ")?.seconds()?;
    let idle = line.key(", idle = ")?.seconds()?;
    let completed = match line.eat(", completed = ") {
        Some(()) => Some(line.list(|line| line.number())?),
        None => None,
    };
    let ports: Vec<Asked> = line
        .key(", ports = ")?
        .list(|line| line.string().and_then(asked))?;
    let ages: Vec<Duration> = line.key(", ages = ")?.list(Line::seconds)?;
    let stealth: Vec<u16> = match line.eat(", stealth = ") {
        Some(()) => line.list(|line| line.number())?,
        None => vec![0; ports.len()],
    };
    line.end()?;
    if ages.len() != ports.len() || stealth.len() != ports.len() {
        return None;
    }
    let touches = ports.into_iter().zip(stealth).zip(ages);
    let touches = touches.map(|((what, stealth), age)| (what, stealth, age));
    Some(SavedSource {
        source,
        age,
        idle,
        completed: completed.filter(|ports| ports.len() <= MOST_COMPLETED),
        touches: in_window_order(touches.collect()),
    })
}

/// The ladder position of a line without its comma.
pub(super) fn standing(line: &str) -> Option<SavedStanding> {
    let mut line = Line(line);
    let source = line.key("{ source = ")?.string().and_then(prefix)?;
    let real = line.offences(", offences = ", ", last_offence = ", ", age = ")?;
    let would_be = line.offences(", would_be = ", ", last_would_be = ", ", would_be_age = ")?;
    line.end()?;
    let standing = SavedStanding {
        source,
        real,
        would_be,
    };
    (real.is_some() || would_be.is_some()).then_some(standing)
}

/// The ban of a line without its comma.
pub(super) fn ban(line: &str) -> Option<SavedBan> {
    let mut line = Line(line);
    let source = line.key("{ source = ")?.string().and_then(prefix)?;
    let reason = line.key(", reason = ")?.string().and_then(ban_reason)?;
    let step = line.key(", step = ")?.number()?;
    let offences = line.key(", offences = ")?.number()?;
    line.key(", since = ")?.datetime()?;
    let age = line.key(", age = ")?.seconds()?;
    let remaining = match line.eat(", until = ") {
        Some(()) => {
            line.datetime()?;
            let left = line.key(", remaining_seconds = ")?.seconds()?;
            Some(left.min(LONGEST_REMAINDER))
        }
        None => None,
    };
    let enforced = line.key(", enforced = ")?.yes_or_no()?;
    let note = match line.eat(", note = ") {
        Some(()) => Some(line.string().filter(|note| is_plain(note))?.into()),
        None => None,
    };
    line.end()?;
    Some(SavedBan {
        source,
        reason,
        step,
        offences,
        age,
        remaining,
        enforced,
        note,
    })
}

/// What is still to be read of a line.
struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    fn eat(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn key(&mut self, text: &str) -> Option<&mut Line<'a>> {
        self.eat(text)?;
        Some(self)
    }

    fn end(&mut self) -> Option<()> {
        self.eat(" }")?;
        self.0.is_empty().then_some(())
    }

    /// Up to ten digits, none in vain.
    fn digits(&mut self) -> Option<u64> {
        let bytes = self.0.as_bytes();
        let count = bytes
            .iter()
            .take(11)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=10).contains(&count) || (count > 1 && bytes[0] == b'0') {
            return None;
        }
        self.fixed(count)
    }

    /// Exactly `count` digits.
    fn fixed(&mut self, count: usize) -> Option<u64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let mut value = 0;
        for byte in digits.bytes() {
            value = value * 10 + u64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        self.0 = rest;
        Some(value)
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.digits()?).ok()
    }

    fn seconds(&mut self) -> Option<Duration> {
        let whole = self.digits()?;
        self.eat(".")?;
        let time = Duration::from_millis(whole * 1000 + self.fixed(3)?);
        (time <= LONGEST_AGE).then_some(time)
    }

    /// In quotes, without an escape. What may not stand in quotes is for those to refuse who take the text.
    fn string(&mut self) -> Option<&'a str> {
        self.eat("\"")?;
        let length = self.0.bytes().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        self.eat("\"")?;
        Some(text)
    }

    /// Absolute times are for people; here it only has to be one.
    fn datetime(&mut self) -> Option<()> {
        let mut part = |count, then: &str| {
            let value = self.fixed(count)?;
            self.eat(then)?;
            u8::try_from(value % 100).ok().map(|low| (value, low))
        };
        let (year, _) = part(4, "-")?;
        let [month, day, hour, minute, second] = [
            part(2, "-")?.1,
            part(2, "T")?.1,
            part(2, ":")?.1,
            part(2, ":")?.1,
            part(2, "Z")?.1,
        ];
        let month = Month::try_from(month).ok()?;
        Date::from_calendar_date(i32::try_from(year).ok()?, month, day).ok()?;
        Time::from_hms(hour, minute, second).ok()?;
        Some(())
    }

    fn yes_or_no(&mut self) -> Option<bool> {
        match self.eat("true") {
            Some(()) => Some(true),
            None => self.eat("false").map(|()| false),
        }
    }

    fn list<T>(&mut self, mut value: impl FnMut(&mut Line<'a>) -> Option<T>) -> Option<Vec<T>> {
        self.eat("[")?;
        let mut values = Vec::new();
        if self.eat("]").is_some() {
            return Some(values);
        }
        loop {
            values.push(value(self)?);
            if self.eat("]").is_some() {
                return Some(values);
            }
            self.eat(", ")?;
        }
    }

    /// How many, and how long ago the last one was: all three keys or none.
    fn offences(&mut self, count: &str, last: &str, age: &str) -> Option<Option<(u32, Duration)>> {
        if self.eat(count).is_none() {
            return Some(None);
        }
        let count = self.number()?;
        self.key(last)?.datetime()?;
        Some(Some((count, self.key(age)?.seconds()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::time::Instant;

    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::super::{Record, parsed};
    use super::*;
    use crate::core::judge::Memory;
    use crate::core::ledger::Standing;
    use crate::core::prefix::Prefix;
    use crate::core::source::Touch;
    use crate::core::verdict::{Ban, BanReason, Proto};
    use crate::state::{Encoder, Moment};

    /// The lines that the encoder makes of what `put` hands it.
    fn lines(put: impl FnOnce(&mut Encoder<Vec<u8>>, Instant)) -> Vec<String> {
        let now = Instant::now();
        let moment = Moment {
            wall: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            boot: None,
        };
        let mut encoder = Encoder::new(Vec::new(), &moment, now, 1).unwrap();
        put(&mut encoder, now);
        let text = String::from_utf8(encoder.finish().unwrap().0).unwrap();
        let records = text.lines().filter(|line| line.starts_with("  {"));
        records
            .map(|line| line.trim().strip_suffix(',').unwrap().to_owned())
            .collect()
    }

    /// Whatever is read at all is what the parser reads; whether it was read.
    fn agrees<T: Record + Debug + PartialEq>(line: &str) -> bool {
        let Some(record) = T::written(line) else {
            return false;
        };
        assert_eq!(Some(record), parsed(line), "{line}");
        true
    }

    fn agrees_in_any_array(line: &str) -> bool {
        let read = [
            agrees::<SavedSource>(line),
            agrees::<SavedStanding>(line),
            agrees::<SavedBan>(line),
        ];
        read.contains(&true)
    }

    fn sources() -> impl Strategy<Value = Prefix> {
        let v4 = (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| Prefix::new(std::net::Ipv4Addr::from(bits).into(), len).unwrap());
        let v6 = (any::<u128>(), 0..=128_u8).prop_filter_map("mapped", |(bits, len)| {
            Prefix::new(std::net::Ipv6Addr::from(bits).into(), len).ok()
        });
        prop_oneof![v4, v6]
    }

    fn ages() -> impl Strategy<Value = Duration> {
        (0..=3_153_600_000_000_u64, 0..43_u32)
            .prop_map(|(milliseconds, shift)| Duration::from_millis(milliseconds >> shift))
    }

    fn what() -> impl Strategy<Value = Asked> {
        prop_oneof![
            any::<u16>().prop_map(|port| Asked::Port(Proto::Tcp, port)),
            any::<u16>().prop_map(|port| Asked::Port(Proto::Udp, port)),
            any::<u8>().prop_map(Asked::Protocol),
        ]
    }

    /// A line of any array, as it is written.
    fn written_lines() -> impl Strategy<Value = String> {
        let one = |mut lines: Vec<String>| lines.pop().unwrap();
        let before = |now: Instant, age: Duration| now.checked_sub(age).unwrap_or(now);
        let touches = prop::collection::vec((what(), 0..3_u16, ages()), 0..9);
        let completed = prop::option::of(prop::collection::vec(any::<u16>(), 0..18));
        let memory = (sources(), ages(), ages(), completed, touches);
        let memory = memory.prop_map(move |(source, first, last, completed, touches)| {
            one(lines(|encoder, now| {
                let touches = touches.into_iter();
                let touches = touches.map(|(what, stealth, age)| Touch {
                    what,
                    stealth,
                    at: before(now, age),
                });
                let memory = Memory {
                    source,
                    first_seen: before(now, first),
                    last_seen: before(now, last),
                    completed,
                    touches: touches.collect(),
                };
                encoder.source(&memory).unwrap();
            }))
        });
        let offences = || prop::option::of((any::<u32>(), ages()));
        let standing = (sources(), offences(), offences()).prop_map(move |(source, real, would_be)| {
            one(lines(|encoder, now| {
                let standing = Standing {
                    source,
                    offences: real.map_or(0, |(count, _)| count),
                    last: real.map(|(_, age)| before(now, age)),
                    would_be: would_be.map_or(0, |(count, _)| count),
                    would_be_last: would_be.map(|(_, age)| before(now, age)),
                };
                encoder.standing(&standing).unwrap();
            }))
        });
        let ban = (
            sources(),
            0..5_usize,
            any::<[u32; 2]>(),
            ages(),
            prop::option::of(ages()),
            any::<bool>(),
            prop::option::of(".{0,220}"),
        );
        let ban = ban.prop_map(
            move |(source, reason, [step, offences], age, left, enforced, note)| {
                one(lines(|encoder, now| {
                    let ban = Ban {
                        source,
                        reason: BanReason::ALL[reason],
                        step,
                        offences,
                        since: before(now, age),
                        until: left.map(|left| now + left),
                        enforced,
                        note: note.map(Into::into),
                    };
                    encoder.ban(&ban).unwrap();
                }))
            },
        );
        prop_oneof![memory, standing, ban]
    }

    /// Something else in the place of some characters, as a clumsy or cunning hand would leave it.
    fn spoiled() -> impl Strategy<Value = String> {
        let edits = prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                0..3_usize,
                r#"[0-9.,:"\\{}\[\] +_eTZ=#a-z\u{7f}\u{1F600}-]{0,3}"#,
            ),
            1..4,
        );
        (written_lines(), edits).prop_map(|(line, edits)| {
            let mut characters: Vec<char> = line.chars().collect();
            for (at, cut, new) in edits {
                let at = at.index(characters.len());
                let end = (at + cut).min(characters.len());
                characters.splice(at..end, new.chars());
            }
            characters.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn written_lines_are_read_as_the_parser_reads_them(line in written_lines()) {
            let read = agrees_in_any_array(&line);
            // What needs the parser: a note with escapes or too long, an age that nobody can have, a position without
            // an offence.
            let rare = line.contains('\\') || line.chars().count() > 200;
            prop_assert!(read || rare || parses_nowhere(&line), "{line}");
        }

        #[test]
        fn spoiled_lines_are_read_as_the_parser_reads_them_or_not_at_all(line in spoiled()) {
            let _ = agrees_in_any_array(&line);
        }
    }

    fn parses_nowhere(line: &str) -> bool {
        parsed::<SavedSource>(line).is_none()
            && parsed::<SavedStanding>(line).is_none()
            && parsed::<SavedBan>(line).is_none()
    }
}
