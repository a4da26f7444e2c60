//! Damaged copies of a file, the same on every machine, and the run through them.

use std::time::{Duration, Instant};

const DEFAULT: u64 = 3000;

#[path = "../../../fuzz/src/random.rs"]
#[expect(unreachable_pub, reason = "it is public where it lives")]
mod random;

use random::Random;

fn one_of<T: Copy>(choices: &[T], random: &mut Random) -> T {
    choices[random.below(choices.len())]
}

/// Changes one to four places. Headers and section tables are hit more often than their share of the file:
/// most of what can go wrong starts there.
pub(crate) fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
    const VALUES: [u64; 12] = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        u64::MAX >> 1,
        u64::MAX,
    ];
    let mut data = original.to_vec();
    for _ in 0..=random.below(4) {
        let table = data.get(40..48).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let table = usize::try_from(table).unwrap_or(0).min(data.len());
        let at = match random.below(4) {
            0 => random.below(64.min(data.len())),
            1 => table + random.below(data.len() - table),
            _ => random.below(data.len()),
        }
        .min(data.len() - 1);
        match random.below(8) {
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.number() as u8,
            2 if random.below(8) == 0 => data.truncate(at.max(1)),
            3 => {
                let (from, length) = (random.below(data.len()), random.below(64));
                let chunk = data[from..data.len().min(from + length)].to_vec();
                let end = data.len().min(at + chunk.len());
                data[at..end].copy_from_slice(&chunk[..end - at]);
            }
            _ => {
                let (value, width) = (one_of(&VALUES, random), one_of(&[1, 2, 4, 8], random));
                let value = value.wrapping_add(random.below(3) as u64).wrapping_sub(1);
                let start = if random.below(2) == 0 { at & !(width - 1) } else { at };
                let end = data.len().min(start + width);
                data[start..end].copy_from_slice(&value.to_le_bytes()[..end - start]);
            }
        }
    }
    data
}

/// How many mutants to make, or the one to make again.
pub(crate) fn selection() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("MUTATION") {
        Some(only) => only..only + 1,
        None => 0..number("MUTATIONS").unwrap_or(DEFAULT),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a mutant takes is part of the test")]
fn now() -> Instant {
    Instant::now()
}

/// Runs `read` on mutants of the originals in turn, with the original's index; tells how many were read and how many refused.
pub(crate) fn run(originals: &[Vec<u8>], mut read: impl FnMut(usize, &[u8]) -> bool) -> (u64, u64) {
    let (mut accepted, mut refused) = (0, 0);
    let mut slowest = (Duration::ZERO, 0);
    for number in selection() {
        let mut random = Random::from_seed(number);
        let original = number as usize % originals.len();
        let data = mutate(&originals[original], &mut random);
        let start = now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(original, &data)));
        match outcome {
            Ok(true) => accepted += 1,
            Ok(false) => refused += 1,
            Err(_) => panic!("mutant {number}: see the panic above"),
        }
        slowest = slowest.max((start.elapsed(), number));
    }
    println!("{accepted} read, {refused} refused; slowest mutant {} took {:?}", slowest.1, slowest.0);
    // A reader whose work grows faster than its input shows here, even on a machine that is busy otherwise: a
    // mutant takes about a millisecond.
    assert!(slowest.0 < Duration::from_secs(60), "mutant {} took {:?}", slowest.1, slowest.0);
    (accepted, refused)
}
