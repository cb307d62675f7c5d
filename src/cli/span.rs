//! Lengths of time as people like to read them: `2h`, `9m58s`. [`crate::config::parse_duration`] reads what they
//! write.

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// The two largest units, of days and smaller: `3d4h`, `9m58s`, `0s`.
pub(super) fn spoken(seconds: u64) -> String {
    let first = UNITS
        .iter()
        .position(|(_, length)| seconds >= *length)
        .unwrap_or(UNITS.len() - 1);
    let (unit, length) = UNITS[first];
    let mut text = format!("{}{unit}", seconds / length);
    match UNITS.get(first + 1) {
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
        }
    }
}
