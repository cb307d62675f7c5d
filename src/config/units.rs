//! Single values: how each is read, and the words for what is wrong with it. Knows no keys.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;
use toml::de::DeValue;

use super::suggest;
use crate::core::attack::HANDSHAKE_LIMIT;
use crate::core::prefix::{Prefix, PrefixError};

/// What a value is not, and what would be right.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) wrong: String,
    pub(super) right: String,
}

impl Fault {
    pub(super) fn new(found: impl Into<String>, wrong: impl Into<String>, right: impl Into<String>) -> Fault {
        Fault {
            found: found.into(),
            wrong: wrong.into(),
            right: right.into(),
        }
    }

    fn of(value: &DeValue<'_>, wrong: impl Into<String>, right: impl Into<String>) -> Fault {
        Fault::new(shown(value), wrong, right)
    }
}

/// What a reader makes of a value.
pub(super) type Read<T> = Result<T, Fault>;

pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    value
        .as_bool()
        .ok_or_else(|| Fault::kind(value, "write true or false, without quotes"))
}

pub(super) fn string<'v>(value: &'v DeValue<'_>, right: &str) -> Read<&'v str> {
    value.as_str().ok_or_else(|| Fault::kind(value, right))
}

/// A whole number within `range`.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Read<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |value| {
        let right = format!("write a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(digits) = value else {
            return Err(Fault::kind(value, &right));
        };
        i64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| Fault::of(value, "is out of range", right))
    }
}

/// A number of a TCP or UDP port.
pub(super) fn port(value: &DeValue<'_>) -> Read<u16> {
    let right = "write a number from 1 to 65535";
    if !value.is_integer() {
        return Err(Fault::kind(value, right));
    }
    whole(1..=u16::MAX)(value).map_err(|_| Fault::of(value, "is not a port", right))
}

/// The key of a table by port, where TOML wants words.
pub(super) fn port_word(key: &str) -> Read<u16> {
    let number = key
        .parse()
        .ok()
        .filter(|port| *port > 0 && key.bytes().all(|b| b.is_ascii_digit()));
    number.ok_or_else(|| {
        Fault::new(
            shown(&DeValue::String(key.into())),
            "is not a port",
            "write a number from 1 to 65535",
        )
    })
}

/// `"6000-6010"`, both ends included.
pub(super) fn port_range(value: &DeValue<'_>) -> Read<RangeInclusive<u16>> {
    let right = "write first and last port in quotes, as in \"6000-6010\"";
    let text = string(value, right)?;
    let ends = text
        .split_once('-')
        .and_then(|(low, high)| Some((port_word(low.trim()).ok()?, port_word(high.trim()).ok()?)));
    let (low, high) = ends.ok_or_else(|| Fault::of(value, "is not a range of ports", right))?;
    if low > high {
        return Err(Fault::of(
            value,
            "runs backwards",
            format!("write \"{high}-{low}\""),
        ));
    }
    Ok(low..=high)
}

/// One of the words of a choice.
pub(super) fn word<T: Copy>(what: &str, choice: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Read<T> {
    let quoted: Vec<String> = choice.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let right = match quoted.split_last() {
        Some((last, [])) => format!("write {last}"),
        Some((last, rest)) => format!("write {} or {last}", rest.join(", ")),
        None => String::new(),
    };
    move |value| {
        let text = string(value, &right)?;
        let found = choice
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, meaning)| *meaning);
        found.ok_or_else(|| {
            let near = suggest::nearest(text, choice.iter().map(|(word, _)| *word));
            let right = near.map_or_else(|| right.clone(), |near| format!("did you mean \"{near}\"?"));
            Fault::of(value, format!("is not {what}"), right)
        })
    }
}

/// What `read` makes of a value, or `None` for `"off"`.
pub(super) fn unless_off<T>(
    read: impl Fn(&DeValue<'_>) -> Read<T>,
) -> impl Fn(&DeValue<'_>) -> Read<Option<T>> {
    move |value| match value.as_str() {
        Some("off") => Ok(None),
        _ => read(value).map(Some).map_err(|fault| Fault {
            right: fault.right.replacen("write ", "write \"off\", or ", 1),
            ..fault
        }),
    }
}

/// An address or network that may be trusted, and whether host bits were masked off.
pub(super) fn network(value: &DeValue<'_>) -> Read<(Prefix, bool)> {
    let right = "write an address or a network in quotes, as in \"192.0.2.7\" or \"192.0.2.0/24\"";
    let text = string(value, right)?;
    let host = text.split('/').next().unwrap_or_default();
    let looks_like_name =
        host.contains(|c: char| c.is_alphabetic() && !c.is_ascii_hexdigit()) && !host.contains(':');
    if looks_like_name {
        return Err(Fault::of(
            value,
            "is a name",
            format!("names are not looked up; {right}"),
        ));
    }
    let (prefix, masked) = Prefix::parse(text).map_err(|error| match error {
        PrefixError::NotAnAddress { .. } => Fault::of(value, "is not an address or network", right),
        PrefixError::NotALength { max, .. } => Fault::of(
            value,
            "has no number after the slash",
            format!("write a length from 1 to {max}"),
        ),
        PrefixError::TooLong { max, .. } => Fault::of(
            value,
            format!("has a prefix longer than {max} bits"),
            format!("write a length from 1 to {max}"),
        ),
        PrefixError::Mapped { v4, .. } => Fault::of(
            value,
            "is an IPv4 address in IPv6 clothes",
            format!("write \"{v4}\""),
        ),
    })?;
    if prefix.len() == 0 {
        return Err(Fault::of(
            value,
            "is every address there is",
            "write the networks that are meant",
        ));
    }
    Ok((prefix, masked))
}

/// A duration within `range`: `"10m"`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    move |value| {
        if let DeValue::Integer(number) = value {
            let right = format!("write it in quotes with s, m, h or d, as in \"{number}s\"");
            return Err(Fault::of(value, "has no unit", right));
        }
        let text = string(value, &format!("write {DURATION}"))?;
        let duration =
            parse_duration(text).map_err(|e| Fault::of(value, e.to_string(), format!("write {DURATION}")))?;
        within(&range, duration).ok_or_else(|| too_far(value, &range))
    }
}

/// A duration, or a bare number of seconds, as the Python system wrote it.
pub(super) fn seconds(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    move |value| {
        let DeValue::Integer(number) = value else {
            return duration(range.clone())(value);
        };
        let seconds = u64::from_str_radix(number.as_str(), number.radix()).ok();
        seconds
            .and_then(|s| within(&range, Duration::from_secs(s)))
            .ok_or_else(|| too_far(value, &range))
    }
}

/// A number of hours, whole or not, in which at least a handshake has room.
pub(super) fn hours(value: &DeValue<'_>) -> Read<Duration> {
    let right = "write a number of hours from 0.003 to 8760, without quotes";
    let number = match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|n| n as f64),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => return Err(Fault::kind(value, right)),
    };
    let number = number.filter(|hours: &f64| (0.0..=8760.0).contains(hours) && *hours > 0.0);
    let hours = number.ok_or_else(|| Fault::of(value, "is out of range", right))?;
    let window = Duration::from_millis((hours * 3_600_000.0).round() as u64);
    if window < HANDSHAKE_LIMIT {
        let limit = duration_text(HANDSHAKE_LIMIT);
        let wrong = format!(
            "is {:.1}s, shorter than a handshake may take ({limit})",
            window.as_secs_f64()
        );
        return Err(Fault::of(value, wrong, right));
    }
    Ok(window)
}

fn within(range: &RangeInclusive<Duration>, duration: Duration) -> Option<Duration> {
    range.contains(&duration).then_some(duration)
}

fn too_far(value: &DeValue<'_>, range: &RangeInclusive<Duration>) -> Fault {
    let right = format!(
        "write a duration from {} to {}",
        duration_text(*range.start()),
        duration_text(*range.end())
    );
    Fault::of(value, "is out of range", right)
}

/// Why a text is not a duration. The text itself is for the caller to quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// There is no number before the unit.
    #[error("does not begin with a number")]
    NoNumber,
    /// It begins with a minus.
    #[error("is negative")]
    Negative,
    /// What follows the number is not one of the units.
    #[error("does not end with s, m, h or d")]
    NoUnit,
    /// More seconds than fit 64 bits.
    #[error("is too long to count")]
    TooLong,
}

/// Reads `30s`, `10m`, `2h`, `1d`: a whole number and its unit, nothing else.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 0 {
        return Err(if text.starts_with('-') {
            DurationError::Negative
        } else {
            DurationError::NoNumber
        });
    }
    let (number, unit) = text.split_at(digits);
    let (_, unit) = UNITS
        .into_iter()
        .find(|(word, _)| *word == unit)
        .ok_or(DurationError::NoUnit)?;
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    seconds.map(Duration::from_secs).ok_or(DurationError::TooLong)
}

/// A duration as [`parse_duration`] reads it, in the greatest unit that divides it; parts of a second are left out.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let fits = |(_, unit): &(&str, u64)| seconds >= *unit && seconds.is_multiple_of(*unit);
    let (word, unit) = UNITS.into_iter().find(fits).unwrap_or(("s", 1));
    format!("{}{word}", seconds / unit)
}

/// A value as it may be printed: like TOML, escaped, and cut to a readable length.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) => format!("\"{}\"", cut(text).escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) if items.len() <= 8 && items.iter().all(|item| !item.get_ref().is_array()) => {
            let items: Vec<String> = items.iter().map(|item| shown(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(table) if table.is_empty() => "{}".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    };
    cut(&text)
}

pub(super) fn type_word(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a section",
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Characters of a value that are shown; a terminal line holds it beside path and key.
const SHOWN: usize = 80;

/// Greatest first; seconds in each.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

const DURATION: &str = "a whole number with s, m, h or d, as in \"30s\", \"10m\", \"2h\", \"1d\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let secs = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(
            ["30s", "10m", "2h", "1d", "0s", " 7d "].map(secs),
            [30, 600, 7_200, 86_400, 0, 604_800].map(Ok)
        );
        for (text, error) in [
            ("", DurationError::NoNumber),
            ("s", DurationError::NoNumber),
            ("+5s", DurationError::NoNumber),
            ("-5m", DurationError::Negative),
            ("5", DurationError::NoUnit),
            ("1.5h", DurationError::NoUnit),
            ("1h30m", DurationError::NoUnit),
            ("5ms", DurationError::NoUnit),
            ("18446744073709551615d", DurationError::TooLong),
            ("99999999999999999999s", DurationError::TooLong),
        ] {
            assert_eq!(secs(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["1s", "90s", "10m", "90m", "1h", "25h", "1d", "365d", "0s"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        assert_eq!(duration_text(Duration::from_millis(7_200_999)), "2h");
    }

    #[test]
    fn values_are_shown_short_and_harmless() {
        let text = shown(&DeValue::String("\u{1b}[2J\u{202e}\n".into()));
        assert_eq!(text, r#""\u{1b}[2J\u{202e}\n""#);
        let long = shown(&DeValue::String("x".repeat(1_000).into()));
        assert_eq!(long.chars().count(), SHOWN + 1);
    }
}
