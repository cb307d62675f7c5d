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
