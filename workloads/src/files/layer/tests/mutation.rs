//! Archives changed at random: never a panic, never a byte outside, never half a layer.

use manifests::LayerFormat;

use crate::files::layer::source::BLOCK;
use crate::files::layer::tests::forge::{Forge, Head, reseal};
use crate::files::layer::tests::{Place, in_memory, zstd};
use crate::files::layer::{LayerError, Layers, Limits};

/// Archives tried.
const ROUNDS: u32 = 2_000;

/// Names that an attacker would splice in.
const WORDS: [&[u8]; 14] = [
    b"../",
    b"/",
    b"..",
    b"../../canary/file",
    b"./",
    b".wh.",
    b".wh..wh..opq",
    b"link/",
    b"link",
    b"\0",
    b"usr/lib/a",
    b"trusted.",
    b"99999999999 ",
    b"\xff\xff\xff\xff",
];

/// Kinds of entries, with those of no meaning.
const FLAGS: &[u8] = b"\x000123456759xgLKSMVX";

/// xorshift64* (Marsaglia; Vigna 2016): the same archives on each run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % sides.max(1)
    }
}

fn seed(canary: &str) -> Vec<u8> {
    Forge::new()
        .dir("./")
        .dir("usr/")
        .dir("usr/lib/")
        .file("usr/lib/a", b"content")
        .hard_link("usr/lib/b", "usr/lib/a")
        .symlink("link", "usr/lib")
        .pax(&[("path", b"usr/lib/pax"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"y")])
        .file("x", &[7; 600])
        .gnu_long(b'L', format!("usr{canary}").as_bytes())
        .file("x", b"evil")
        .gnu_long(b'K', b"usr/lib/a")
        .entry(&Head { name: b"usr/c", flag: b'1', link: b"x", ..Head::default() }, b"")
        .file("usr/.wh.gone", b"")
        .file("etc/.wh..wh..opq", b"")
        .end()
}

/// One or a few changes; most of the time the checksums are made right again.
fn mutate(archive: &mut Vec<u8>, canary: &str, dice: &mut Dice) {
    let reseals = dice.throw(8) > 0;
    for _ in 0..=dice.throw(3) {
        let block = dice.throw(archive.len() / BLOCK) * BLOCK;
        let place = block + dice.throw(BLOCK);
        match dice.throw(8) {
            0 => archive[place] = dice.throw(256) as u8,
            1 => archive[place] ^= 1 << dice.throw(8),
            // The fields where words hurt: name, link name, the start of an extension.
            2 | 3 => {
                let word = WORDS[dice.throw(WORDS.len())];
                let field = block + [0, 157, 345, dice.throw(60)][dice.throw(4)];
                archive[field..field + word.len()].copy_from_slice(word);
            }
            4 => {
                let field = block + [0, 157][dice.throw(2)];
                archive[field..field + canary.len()].copy_from_slice(canary.as_bytes());
            }
            5 => archive[block + 156] = FLAGS[dice.throw(FLAGS.len())],
            // A block again elsewhere.
            6 => {
                let copy = archive[block..block + BLOCK].to_vec();
                let target = dice.throw(archive.len() / BLOCK) * BLOCK;
                archive.splice(target..target, copy);
            }
            _ => match dice.throw(3) {
                0 => archive.truncate(place),
                1 => drop(archive.drain(block..block + BLOCK)),
                _ => archive[block + 124..block + 135].copy_from_slice(b"00000001000"),
            },
        }
        archive.resize(archive.len().max(BLOCK).next_multiple_of(BLOCK), 0);
    }
    if reseals {
        for block in archive.as_chunks_mut::<BLOCK>().0 {
            if &block[257..262] == b"ustar" {
                reseal(block);
            }
        }
    }
}

#[test]
fn two_thousand_changed_archives_end_in_a_whole_layer_or_in_nothing() {
    in_memory("64m", |root| {
        let place = Place::at(root);
        let canary = root.join("canary/file").display().to_string();
        let before = place.outside();
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        let (mut dice, mut taken, mut refused, mut damaged) = (Dice(0x5eed), 0, 0, 0);
        for round in 0..ROUNDS {
            let mut archive = seed(&canary);
            mutate(&mut archive, &canary, &mut dice);
            let (bytes, format) = match round % 4 {
                0 => (zstd(&archive), LayerFormat::TarZstd),
                _ => (archive, LayerFormat::Tar),
            };
            let digest = manifests::Sha256::of(&bytes);
            match place.store().with_limits(limits).unpack(&digest, &place.payload(&bytes), format) {
                Ok(_) => {
                    taken += 1;
                    assert_eq!(place.names_in_layers(), [digest.to_string().as_str()]);
                    std::fs::remove_dir_all(place.layer(&bytes)).unwrap();
                }
                Err(error) => {
                    match error {
                        LayerError::Refused { .. } | LayerError::TooLarge { .. } => refused += 1,
                        LayerError::Damaged { .. } | LayerError::Format { .. } => damaged += 1,
                        other => panic!("round {round}: the system, not a rule, refused: {other:?}"),
                    }
                    assert!(place.names_in_layers().is_empty(), "round {round}");
                }
            }
            assert_eq!(place.outside(), before, "round {round}");
        }
        // The changes reach all the way in, or this test would not test.
        assert!(
            taken > 100 && refused > 300 && damaged > 100,
            "{taken} taken, {refused} refused, {damaged} damaged"
        );
    });
}

#[test]
fn a_changed_zstd_stream_never_panics_and_leaves_nothing() {
    in_memory("64m", |root| {
        let place = Place::at(root);
        let before = place.outside();
        let packed = zstd(&seed("/canary"));
        let mut dice = Dice(0xbeef);
        for _ in 0..500 {
            let mut bytes = packed.clone();
            for _ in 0..=dice.throw(3) {
                let at = dice.throw(bytes.len());
                bytes[at] ^= 1 << dice.throw(8);
            }
            let limits = Limits { bytes: 1 << 20, ..Limits::default() };
            let digest = manifests::Sha256::of(&bytes);
            let store = place.store().with_limits(limits);
            if store.unpack(&digest, &place.payload(&bytes), LayerFormat::TarZstd).is_ok() {
                std::fs::remove_dir_all(place.layer(&bytes)).unwrap();
            }
            assert!(place.names_in_layers().is_empty());
            assert_eq!(place.outside(), before);
        }
    });
}
