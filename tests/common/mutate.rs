//! Files that went wrong on their way: one to twelve mutations of a good one, the same ones in every run.

/// xorshift64: any sequence does, if it is the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    /// `seed` is any number but 0.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// One of `sides`, from 0 on.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Bytes overwritten, put in, taken out; lines swapped, doubled, dropped; comments opened up.
pub(crate) fn mutated(base: &str, dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = base.lines().map(|line| line.as_bytes().to_vec()).collect();
    for _ in 0..1 + dice.roll(12) {
        let at = dice.roll(lines.len());
        let place = dice.roll(lines[at].len() + 1);
        match dice.roll(8) {
            0 => lines[at].insert(place, MARKS[dice.roll(MARKS.len())]),
            1 if place < lines[at].len() => drop(lines[at].remove(place)),
            2 if place < lines[at].len() => lines[at][place] = dice.roll(256) as u8,
            3 => {
                let other = dice.roll(lines.len());
                lines.swap(at, other);
            }
            4 => lines.insert(at, lines[at].clone()),
            5 if lines.len() > 1 => drop(lines.remove(at)),
            6 if lines[at].first() == Some(&b'#') => drop(lines[at].remove(0)),
            _ => lines[at].truncate(place),
        }
    }
    lines.join(&b'\n')
}

const MARKS: &[u8] = b"[]{}=\"'#.,-0129\\\n\0\xff";
