//! The readers against damaged input: thousands of modules and kernels with a few bytes changed.
//!
//! Each mutant must be read or refused, without a panic, and a refusal must point into the file. The order is
//! fixed by a seed; `MUTATIONS=100000 cargo test --release --test mutation` is the long run, and a failure
//! prints the mutant's number, which is enough to make it again (`MUTATION=number` runs only that one).

mod support;

use std::time::{Duration, Instant};

use patch_tools::check::{KernelFacts, ObjectFacts, check};
use patch_tools::elf::Malformed;
use patch_tools::image::{ImageError, KernelImage};
use patch_tools::module::Module;
use support::kernel::{Kallsyms, RELEASE, kcore, vmlinux};
use support::{compile, fixtures};

const DEFAULT: u64 = 3000;

/// SplitMix64: enough for choosing bytes, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Changes one to four places. Headers and section tables are hit more often than their share of the file:
/// most of what can go wrong starts there.
fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
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
            1 => data[at] = random.next() as u8,
            2 if random.below(8) == 0 => data.truncate(at.max(1)),
            3 => {
                let (from, length) = (random.below(data.len()), random.below(64));
                let chunk = data[from..data.len().min(from + length)].to_vec();
                let end = data.len().min(at + chunk.len());
                data[at..end].copy_from_slice(&chunk[..end - at]);
            }
            _ => {
                let (value, width) = (random.one_of(&VALUES), random.one_of(&[1, 2, 4, 8]));
                let value = value.wrapping_add(random.below(3) as u64).wrapping_sub(1);
                let start = if random.below(2) == 0 { at & !(width - 1) } else { at };
                let end = data.len().min(start + width);
                data[start..end].copy_from_slice(&value.to_le_bytes()[..end - start]);
            }
        }
    }
    data
}

fn points_into(error: &Malformed, data: &[u8]) {
    assert!(error.offset <= data.len() as u64, "{error} in a file of {:#x} bytes", data.len());
}

fn read_module(data: &[u8], facts: &KernelFacts) -> bool {
    let facts_of_object = ObjectFacts::parse(data);
    match Module::parse(data) {
        Ok(module) => {
            serde_json::to_string(&module).unwrap();
            check(&module, facts);
            true
        }
        Err(error) => {
            points_into(&error, data);
            assert!(facts_of_object.is_err());
            false
        }
    }
}

fn read_kernel(data: &[u8]) -> bool {
    match KernelImage::parse(data) {
        Ok(image) => {
            if let Ok(Some(btf)) = image.btf() {
                btf.structure_names().for_each(|name| drop(btf.structure(name)));
            }
            true
        }
        Err(ImageError::Malformed(error)) => {
            points_into(&error, data);
            false
        }
        Err(_) => false,
    }
}

/// How many mutants to make, or the one to make again.
fn selection() -> std::ops::Range<u64> {
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

/// Runs `read` on mutants of the originals in turn; tells how many were read and how many refused.
fn run(originals: &[Vec<u8>], mut read: impl FnMut(&[u8]) -> bool) -> (u64, u64) {
    let (mut accepted, mut refused) = (0, 0);
    let mut slowest = (Duration::ZERO, 0);
    for number in selection() {
        let mut random = Random(number);
        let data = mutate(&originals[number as usize % originals.len()], &mut random);
        let start = now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&data)));
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

#[test]
fn mutated_modules_are_read_or_refused_with_an_offset_in_the_file() {
    let facts = KernelFacts::from_image(&KernelImage::parse(&vmlinux(Kallsyms::WithSequences)).unwrap());
    let originals: Vec<_> = fixtures().iter().map(|name| compile(name)).collect();
    let (accepted, refused) = run(&originals, |data| read_module(data, &facts));
    // Both have to happen, or the mutator changes too much or too little to test anything.
    if selection().count() > 100 {
        assert!(accepted > 0 && refused > 0, "{accepted} read, {refused} refused");
    }
}

#[test]
fn mutated_kernels_are_read_or_refused_with_an_offset_in_the_file() {
    let originals = [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast].map(vmlinux);
    let (accepted, refused) = run(&originals, read_kernel);
    if selection().count() > 100 {
        assert!(accepted > 0 && refused > 0, "{accepted} read, {refused} refused");
    }
}

#[test]
fn mutated_kernel_memory_is_read_or_left_alone() {
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(host.path().join("proc/sys/kernel")).unwrap();
    std::fs::write(host.path().join("proc/sys/kernel/osrelease"), RELEASE).unwrap();
    std::fs::write(host.path().join("proc/kallsyms"), "").unwrap();
    let module = support::module("one-function");
    let originals = [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast].map(kcore);
    let (accepted, refused) = run(&originals, |data| {
        std::fs::write(host.path().join("proc/kcore"), data).unwrap();
        let facts = KernelFacts::gather(host.path(), &module).unwrap();
        check(&module, &facts);
        facts.exports.is_some()
    });
    if selection().count() > 100 {
        assert!(accepted > 0 && refused > 0, "{accepted} read, {refused} refused");
    }
}
