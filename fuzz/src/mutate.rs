//! Blind changes of inputs, decided by a number alone.

use std::ops::Range;

use crate::random::Random;

fn part_of(bytes: &[u8], random: &mut Random) -> Range<usize> {
    let start = random.below(bytes.len() + 1);
    start..start + random.below((bytes.len() - start).min(64) + 1)
}

/// Numbers at which lengths and offsets go wrong.
const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Changes one to four places of `input`; pieces come from `other`, which is an input too.
pub fn mutant(input: &[u8], other: &[u8], longest: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let part = part_of(&bytes, random);
        match random.below(7) {
            0 if !part.is_empty() => bytes[part.start] ^= 1 << random.below(8),
            1 => drop(bytes.drain(part)),
            2 => {
                let again = bytes[part.clone()].to_vec();
                bytes.splice(part.end..part.end, again);
            }
            3 => drop(bytes.splice(part, other[part_of(other, random)].iter().copied())),
            4 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - part.start);
                bytes[part.start..part.start + width].copy_from_slice(&number[..width]);
            }
            5 => {
                let digits = NUMBERS[random.below(NUMBERS.len())].to_string();
                drop(bytes.splice(part, digits.bytes()));
            }
            _ => bytes.insert(part.start, random.number() as u8),
        }
    }
    bytes.truncate(longest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_makes_the_same_mutants_and_another_makes_others() {
        let series = |seed| {
            let mut random = Random::from_seed(seed);
            let mutants: Vec<_> =
                (0..50).map(|_| mutant(b"begin: [1, 2]", b"other", 100, &mut random)).collect();
            mutants
        };
        assert_eq!(series(7), series(7));
        assert_ne!(series(7), series(8));
        assert!(series(7).iter().filter(|one| *one != b"begin: [1, 2]").count() > 40);
    }

    #[test]
    fn nothing_is_too_short_to_be_changed_and_nothing_gets_longer_than_it_may() {
        for seed in 0..2000 {
            let mutant = mutant(b"", b"", 3, &mut Random::from_seed(seed));
            assert!(mutant.len() <= 3);
        }
    }
}
