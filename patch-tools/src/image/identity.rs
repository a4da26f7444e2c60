//! Which kernel this is: release, banner, vermagic, and the configuration if it is inside.

use std::io::Read;

use memchr::memmem;

use super::config::Config;
use crate::elf::{Elf, Malformed, Rule};

/// A configuration has about 260 KB.
const MAX_CONFIG: u64 = 16 << 20;

/// Who the kernel says it is.
pub(super) struct Identity {
    pub(super) release: String,
    pub(super) banner: String,
    pub(super) vermagic: Option<String>,
}

/// Finds `linux_banner` and the vermagic in read-only data.
pub(super) fn read(elf: &Elf<'_>) -> Result<Identity, Malformed> {
    const BANNER: &[u8] = b"Linux version ";
    let section = elf
        .section(".rodata")
        .ok_or_else(|| Malformed::new(0, Rule::ImageIdentity, "no section .rodata".to_owned()))?;
    let none = || Malformed::new(section.offset, Rule::ImageIdentity, "no banner in .rodata".to_owned());
    // "Linux version %s (…": the format strings have a percent sign where the release stands in the banner.
    let start = memmem::find_iter(section.data, BANNER)
        .find(|start| section.data.get(start + BANNER.len()).is_some_and(u8::is_ascii_digit))
        .ok_or_else(none)?;
    let banner = text(&section.data[start..]).ok_or_else(none)?.trim_end();
    let release = banner[BANNER.len()..].split(' ').next().unwrap_or_default();
    Ok(Identity {
        release: release.to_owned(),
        banner: banner.to_owned(),
        vermagic: vermagic(section.data, release),
    })
}

/// The string that starts with the release and goes on with words that only a vermagic has.
fn vermagic(data: &[u8], release: &str) -> Option<String> {
    const WORDS: [&str; 5] = ["SMP", "preempt", "preempt_rt", "mod_unload", "modversions"];
    memmem::find_iter(data, format!("{release} ").as_bytes())
        .filter_map(|start| text(&data[start..]))
        .find(|candidate| {
            let mut words = candidate.split(' ').skip(1).filter(|word| !word.is_empty());
            words.next().is_some_and(|word| WORDS.contains(&word))
        })
        .map(str::to_owned)
}

/// The text up to the next zero byte.
fn text(data: &[u8]) -> Option<&str> {
    let window = &data[..data.len().min(1024)];
    std::str::from_utf8(&window[..memchr::memchr(0, window)?]).ok()
}

/// The gzip data between the marks `IKCFG_ST` and `IKCFG_ED` (`kernel/configs.c`).
pub(super) fn embedded_config(elf: &Elf<'_>) -> Result<Option<Config>, Malformed> {
    let Some(section) = elf.section(".rodata") else { return Ok(None) };
    let Some(start) = memmem::find(section.data, b"IKCFG_ST\x1f\x8b") else { return Ok(None) };
    let packed = &section.data[start + 8..];
    let mut config = String::new();
    match flate2::bufread::GzDecoder::new(packed).take(MAX_CONFIG).read_to_string(&mut config) {
        Ok(_) => Ok(Some(Config::parse(&config))),
        Err(error) => {
            let offset = section.offset + start as u64 + 8;
            Err(Malformed::new(
                offset,
                Rule::ImageIdentity,
                format!("a configuration that is broken: {error}"),
            ))
        }
    }
}
