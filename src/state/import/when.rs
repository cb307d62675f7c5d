//! Times without a zone, read as the host's clock showed them.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// What a file's times are read by.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// The zone of times that carry none.
    pub zone: TimeZone,
}

/// A moment, and what is to be said about how it was read.
pub(super) struct Reading {
    pub(super) at: Timestamp,
    pub(super) remark: Option<&'static str>,
}

impl Clock {
    /// This host's: its time, and its zone (`TZ`, else `/etc/localtime`; UTC where neither says).
    pub fn host() -> Clock {
        Clock {
            now: Timestamp::now(),
            zone: TimeZone::try_system().unwrap_or(TimeZone::UTC),
        }
    }

    pub(super) fn zone_name(&self) -> String {
        self.zone.iana_name().unwrap_or("local").to_owned()
    }

    /// A time with an offset is what it says, one without is local; `None`: it is no time. What no clock shows is as
    /// far away as can be.
    pub(super) fn read(&self, text: &str) -> Option<Reading> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Some(Reading { at, remark: None });
        }
        let civil: DateTime = text.parse().ok()?;
        let read = self.zone.to_ambiguous_timestamp(civil);
        let remark = match read.offset() {
            AmbiguousOffset::Unambiguous { .. } => None,
            AmbiguousOffset::Fold { .. } => Some(" (that hour came twice: the earlier)"),
            AmbiguousOffset::Gap { .. } => Some(" (that hour never came: before the gap)"),
        };
        let farthest = if civil.year() > 0 {
            Timestamp::MAX
        } else {
            Timestamp::MIN
        };
        Some(Reading {
            at: read.earlier().unwrap_or(farthest),
            remark,
        })
    }
}

/// What lies between; `None`: `to` is not after `from`.
pub(super) fn until(from: Timestamp, to: Timestamp) -> Option<Duration> {
    let span: SignedDuration = to.duration_since(from);
    Duration::try_from(span).ok().filter(|span| !span.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin(text: &str) -> String {
        // The rule itself: the test depends on no zone of the host it runs on.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let read = Clock { now, zone }.read(text);
        read.map_or("none".into(), |read| {
            format!("{:.0}{}", read.at, read.remark.unwrap_or_default())
        })
    }

    #[test]
    fn an_hour_that_came_twice_or_never_is_read_so_that_it_ends_sooner() {
        for (text, expected) in [
            ("2026-11-21T19:49:10.666584", "2026-11-21T18:49:10Z"),
            ("2026-07-01T12:00:00", "2026-07-01T10:00:00Z"),
            (
                "2026-10-25T02:30:00",
                "2026-10-25T00:30:00Z (that hour came twice: the earlier)",
            ),
            (
                "2026-03-29T02:30:00",
                "2026-03-29T00:30:00Z (that hour never came: before the gap)",
            ),
            ("2026-11-21 19:49:10", "2026-11-21T18:49:10Z"),
            ("2026-11-21T19:49:10Z", "2026-11-21T19:49:10Z"),
            ("2026-11-21T19:49:10+05:00", "2026-11-21T14:49:10Z"),
            ("9999-12-31T23:59:59", "9999-12-30T22:00:00Z"),
            ("0001-01-01T00:00:00", "0000-12-31T23:00:00Z"),
            ("yesterday", "none"),
            ("2026-13-01T00:00:00", "none"),
            ("", "none"),
        ] {
            assert_eq!(berlin(text), expected, "{text}");
        }
    }

    #[test]
    fn what_lies_between_is_never_negative() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(until(at(10), at(12)), Some(Duration::from_secs(2)));
        assert_eq!(until(at(12), at(12)), None);
        assert_eq!(until(at(12), at(10)), None);
        assert!(until(Timestamp::MIN, Timestamp::MAX).is_some());
    }
}
