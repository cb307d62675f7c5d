//! Lengths of time as people write and read them: `2h`, `1h30m`, `9m58s`.

use std::time::Duration;

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Reads `30s 10m 2h 1d 7d`, and what [`spoken`] writes: `1h30m`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    seconds_of(text)
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not a duration, write it as 90s, 10m, 2h or 1d"))
}

/// `None` for anything but numbers, each with its unit, units falling.
fn seconds_of(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut left = UNITS.as_slice();
    let mut seconds = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit = rest[digits..].chars().next()?;
        let place = left.iter().position(|(name, _)| *name == unit)?;
        let part = rest[..digits].parse::<u64>().ok()?.checked_mul(left[place].1)?;
        seconds = seconds.checked_add(part)?;
        left = &left[place + 1..];
        rest = &rest[digits + unit.len_utf8()..];
    }
    Some(seconds)
}

/// The two largest units, of days and smaller: `3d4h`, `9m58s`, `0s`.
pub(super) fn spoken(seconds: u64) -> String {
    let days_on = &UNITS[1..];
    let first = days_on
        .iter()
        .position(|(_, length)| seconds >= *length)
        .unwrap_or(days_on.len() - 1);
    let (unit, length) = days_on[first];
    let mut text = format!("{}{unit}", seconds / length);
    match days_on.get(first + 1) {
        Some((unit, smaller)) if seconds % length >= *smaller => {
            text += &format!("{}{unit}", seconds % length / smaller);
        }
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_config_writes_them() {
        for (text, seconds) in [
            ("30s", 30),
            ("10m", 600),
            ("2h", 7200),
            ("1d", 86_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1h30m", 5400),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_not_a_duration() {
        for text in [
            "",
            "0s",
            "5",
            "h",
            "-1h",
            "1.5h",
            "1m1h",
            "1h1h",
            "2 h",
            "10M",
            "1y",
            "é",
            "9s9é",
            "99999999999999999999s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("{}w", u64::MAX)).is_err());
        assert_eq!(
            parse("soon"),
            Err("\"soon\" is not a duration, write it as 90s, 10m, 2h or 1d".into())
        );
    }

    #[test]
    fn the_two_largest_units_are_spoken() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (598, "9m58s"),
            (3600, "1h"),
            (3661, "1h1m"),
            (3605, "1h"),
            (273_600, "3d4h"),
            (604_800, "7d"),
        ] {
            assert_eq!(spoken(seconds), text);
            assert!(seconds == 0 || parse(text).is_ok());
        }
    }
}
