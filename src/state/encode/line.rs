//! One line of a state under construction. A million records are some ten million numbers and times: their digits are
//! put down here, past the machinery of `format!` and of a general formatter of times.

use std::fmt::Display;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::EPOCH;
use crate::core::prefix::Prefix;
use crate::core::verdict::{Asked, Proto};

/// A line; its memory is used again for the next one.
#[derive(Default)]
pub(super) struct Line(Vec<u8>);

impl Line {
    pub(super) fn clear(&mut self) -> &mut Line {
        self.0.clear();
        self
    }

    /// A record, which begins with whom it is about.
    pub(super) fn begin(&mut self, source: &Prefix) -> &mut Line {
        self.clear().text("  { source = \"").prefix(source).text("\"")
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Line {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// As it shows itself: for what is rare.
    pub(super) fn shown(&mut self, value: impl Display) -> &mut Line {
        // Memory takes every byte.
        let _ = write!(self.0, "{value}");
        self
    }

    pub(super) fn number(&mut self, value: impl Into<u64>) -> &mut Line {
        let (mut value, mut digits, mut at) = (value.into(), [0; 20], 20);
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
        self
    }

    /// Exactly `count` digits of `value`, zeros before it.
    fn fixed(&mut self, value: u32, count: u32) -> &mut Line {
        let digit = |place| b'0' + (value / 10_u32.pow(place) % 10) as u8;
        self.0.extend((0..count).rev().map(digit));
        self
    }

    /// With milliseconds, as TOML writes a float.
    pub(super) fn seconds(&mut self, time: Duration) -> &mut Line {
        self.number(time.as_secs())
            .text(".")
            .fixed(time.subsec_millis(), 3)
    }

    /// What was touched after the state was begun is as old as the state.
    pub(super) fn age(&mut self, now: Instant, at: Instant) -> &mut Line {
        self.seconds(now.saturating_duration_since(at))
    }

    /// `at` in whole seconds of RFC 3339, for people, when `now` is what the clock on the wall calls `wall`.
    pub(super) fn utc(&mut self, wall: OffsetDateTime, now: Instant, at: Instant) -> &mut Line {
        let at = match at.checked_duration_since(now) {
            Some(ahead) => wall.checked_add(ahead.try_into().unwrap_or(time::Duration::MAX)),
            None => {
                let ago = now.saturating_duration_since(at);
                wall.checked_sub(ago.try_into().unwrap_or(time::Duration::MAX))
            }
        };
        let at = at.unwrap_or(wall);
        let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.to_hms());
        let Some(year) = u32::try_from(year).ok().filter(|year| *year <= 9999) else {
            return self.text(EPOCH); // such a year does not come from a clock, and RFC 3339 has no word for it
        };
        self.fixed(year, 4).text("-").fixed(u8::from(month).into(), 2);
        self.text("-").fixed(day.into(), 2).text("T");
        self.fixed(hour.into(), 2).text(":").fixed(minute.into(), 2);
        self.text(":").fixed(second.into(), 2).text("Z")
    }

    /// In quotes; there is nothing in it that needs an escape.
    pub(super) fn asked(&mut self, what: Asked) -> &mut Line {
        match what {
            Asked::Port(Proto::Tcp, port) => self.text("\"tcp/").number(port),
            Asked::Port(Proto::Udp, port) => self.text("\"udp/").number(port),
            Asked::Protocol(number) => self.text("\"ip/").number(number),
        };
        self.text("\"")
    }

    pub(super) fn list<'a, T: 'a>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = &'a T>,
        mut put: impl for<'l> FnMut(&'l mut Line, &T) -> &'l mut Line,
    ) {
        self.text(name).text("[");
        for (nth, value) in values.into_iter().enumerate() {
            if nth > 0 {
                self.text(", ");
            }
            put(self, value);
        }
        self.text("]");
    }

    fn prefix(&mut self, prefix: &Prefix) -> &mut Line {
        match prefix.addr() {
            IpAddr::V4(addr) => {
                for (nth, octet) in addr.octets().into_iter().enumerate() {
                    self.text(if nth == 0 { "" } else { "." }).number(octet);
                }
            }
            IpAddr::V6(addr) => drop(self.shown(addr)),
        }
        match prefix.is_host() {
            true => self,
            false => self.text("/").number(prefix.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;
    use time::macros::datetime;

    use super::*;

    fn written(put: impl FnOnce(&mut Line) -> &mut Line) -> String {
        let mut line = Line::default();
        put(&mut line);
        String::from_utf8(line.0).unwrap()
    }

    #[test]
    fn numbers_and_prefixes_are_as_their_types_show_them() {
        for number in [0, 7, 10, 65_535, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(written(|line| line.number(number)), number.to_string());
        }
        for text in [
            "0.0.0.0",
            "192.0.2.7",
            "255.255.255.255",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "2001:db8::/64",
            "2001:db8::1",
            "::/0",
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(written(|line| line.prefix(&prefix)), text);
        }
        for what in [
            Asked::Port(Proto::Tcp, 0),
            Asked::Port(Proto::Udp, 65_535),
            Asked::Protocol(255),
        ] {
            assert_eq!(written(|line| line.asked(what)), format!("\"{what}\""));
        }
    }

    #[test]
    fn times_are_as_the_library_writes_them() {
        let now = Instant::now();
        for wall in [
            datetime!(1970-01-01 0:00 UTC),
            datetime!(2024-02-29 23:59:59.999 UTC),
            datetime!(2026-03-01 12:00:00.25 UTC),
            datetime!(9999-12-31 23:59:59 UTC),
        ] {
            for ago in [0, 1, 59, 86_399, 86_400, 40_000_000] {
                let ago = Duration::from_secs(ago);
                let then = (wall - ago).replace_nanosecond(0).unwrap();
                let expected = then.format(&Rfc3339).unwrap();
                assert_eq!(written(|line| line.utc(wall, now, now - ago)), expected);
            }
        }
        let ahead = written(|line| {
            line.utc(
                datetime!(9999-12-31 23:59:59 UTC),
                now,
                now + Duration::from_secs(9),
            )
        });
        assert!(
            ahead == EPOCH || ahead.starts_with("9999-12-31T23:59:59"),
            "{ahead}"
        );
    }

    #[test]
    fn seconds_have_three_digits_behind_the_point() {
        for (milliseconds, expected) in [
            (0, "0.000"),
            (4, "0.004"),
            (12_500, "12.500"),
            (3_600_999, "3600.999"),
        ] {
            assert_eq!(
                written(|line| line.seconds(Duration::from_millis(milliseconds))),
                expected
            );
        }
    }
}
