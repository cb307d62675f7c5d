//! The known word that a mistyped one was probably meant to be.

/// The known word nearest to `typed`, if it is near enough to be a slip: two edits, or a third of its length.
pub fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if typed.len() > LONGEST {
        return None;
    }
    let typed = typed.to_lowercase().replace('-', "_");
    let near = |word: &&str| typed.len().abs_diff(word.len()) <= slip(word);
    let (distance, word) = known.filter(near).map(|word| (edits(&typed, word), word)).min()?;
    (distance <= slip(word)).then_some(word)
}

/// How many edits of `word` are still a slip.
fn slip(word: &str) -> usize {
    (word.len() / 3).clamp(1, 3)
}

/// How many letters must be put in, left out, changed or swapped with their neighbour (optimal string alignment).
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let change = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

/// No known word comes near this length; bounds the quadratic work on hostile input.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, n) in [
            ("", "abc", 3),
            ("tcp", "tcp", 0),
            ("tpc", "tcp", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(from, to), n, "{from} {to}");
        }
    }

    #[test]
    fn slips_find_their_word_and_strangers_do_not() {
        let known = ["mode", "firewall_mode", "state_file", "tcp", "udp"];
        let near = |typed| nearest(typed, known.into_iter());
        assert_eq!(near("firewal_mode"), Some("firewall_mode"));
        assert_eq!(near("Firewall-Mode"), Some("firewall_mode"));
        assert_eq!(near("tpc"), Some("tcp"));
        assert_eq!(near("zebra"), None);
        assert_eq!(near(&"mode".repeat(1000)), None);
    }
}
