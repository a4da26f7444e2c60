//! Writes the initramfs of a lab machine: one static program and the modules that the root disk needs.
//!
//! Format: cpio "newc", from the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// Modules that must be loaded before the root disk and the control ports exist. What they depend on
/// is read from `modules.dep`.
const EARLY_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "ext4", "virtio_console", "virtio_net", "virtio-rng"];

/// What ext4 asks the kernel's crypto interface for, up to 6.13; later it is a library that ext4 depends on.
const CHECKSUM: &str = "crc32c_generic";

/// Writes an initramfs for the modules in `modules` (the directory with `modules.dep`) to `target`.
pub fn write(init: &Path, modules: &Path, target: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for dir in ["dev", "root"] {
        archive.add(dir, 0o040_755, &[], (0, 0))?;
    }
    archive.add("dev/console", 0o020_600, &[], (5, 1))?;
    archive.add("init", 0o100_755, &fs::read(init)?, (0, 0))?;
    let mut list = String::new();
    let list_of = |name: &str| fs::read_to_string(modules.join(name));
    for path in in_load_order(&list_of("modules.dep")?, &list_of("modules.builtin")?)? {
        let name = path.rsplit('/').next().unwrap_or(&path);
        let name = name.trim_end_matches(".xz");
        archive.add(name, 0o100_644, &plain_module(&modules.join(&path))?, (0, 0))?;
        list.push_str(&format!("/{name}\n"));
    }
    archive.add("modules.list", 0o100_644, list.as_bytes(), (0, 0))?;
    fs::write(target, archive.finish()?).with_context(|| format!("writing {}", target.display()))
}

/// A module's content; newer kernels ship it compressed, which not every kernel can load.
fn plain_module(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if path.extension().is_none_or(|end| end != "xz") {
        return Ok(content);
    }
    let mut plain = Vec::new();
    liblzma::read::XzDecoder::new(&content[..])
        .read_to_end(&mut plain)
        .with_context(|| format!("decompressing {}", path.display()))?;
    Ok(plain)
}

/// Paths of the early modules that are not part of the kernel itself, each after all that it depends on.
fn in_load_order(modules_dep: &str, builtin: &str) -> Result<Vec<String>> {
    let stem = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    };
    let table: BTreeMap<String, (&str, Vec<&str>)> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (stem(path), (path, needs.split_whitespace().collect())))
        .collect();
    let is_builtin = |wanted: &str| builtin.lines().any(|path| stem(path) == wanted);
    let mut order: Vec<String> = Vec::new();
    let checksum = Some(&CHECKSUM).filter(|name| table.contains_key(**name));
    for wanted in checksum.into_iter().chain(EARLY_MODULES) {
        let wanted = wanted.replace('-', "_");
        if is_builtin(&wanted) {
            continue;
        }
        let (path, needs) =
            table.get(&wanted).ok_or_else(|| anyhow!("the kernel package has no module {wanted}"))?;
        // modules.dep lists what is needed in reverse order of loading.
        for next in needs.iter().rev().chain([path]) {
            if !order.iter().any(|have| have == next) {
                order.push((*next).to_owned());
            }
        }
    }
    Ok(order)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8], device: (u32, u32)) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).context("a file of the initramfs is over 4 GiB")?;
        let name_size = u32::try_from(name.len() + 1)?;
        let links = 1;
        self.bytes.extend_from_slice(b"070701");
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            /* check */ 0,
        ];
        for field in fields {
            write!(self.bytes, "{field:08x}")?;
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, &[], (0, 0))?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_everything_it_needs() {
        let dep = "kernel/drivers/virtio/virtio.ko:\n\
            kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
            kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
            a/virtio_blk.ko:\na/crc32c_generic.ko:\na/ext4.ko:\na/virtio_console.ko:\na/virtio_net.ko:\na/virtio-rng.ko:\n";
        let order = in_load_order(dep, "").unwrap();
        assert_eq!(order[0], "a/crc32c_generic.ko");
        assert_eq!(
            order[1..4],
            ["virtio.ko", "virtio_ring.ko", "virtio_pci.ko"].map(|m| format!("kernel/drivers/virtio/{m}"))
        );
        assert_eq!(order.len(), 9);
    }

    #[test]
    fn a_missing_module_is_named() {
        let error = in_load_order("a/ext4.ko:\n", "").unwrap_err();
        assert!(error.to_string().contains("virtio_pci"), "{error}");
        let error = in_load_order("a/ext4.ko:\n", "kernel/a/virtio_pci.ko\n").unwrap_err();
        assert!(error.to_string().contains("virtio_blk"), "what is built in is not missed: {error}");
    }

    #[test]
    fn headers_and_contents_are_aligned_to_four_bytes() {
        let mut archive = Archive::default();
        archive.add("ab", 0o100_644, b"xyz", (0, 0)).unwrap();
        assert_eq!(archive.bytes.len() % 4, 0);
        assert_eq!(&archive.bytes[110..113], b"ab\0");
        assert_eq!(&archive.bytes[116..119], b"xyz");
    }
}
