//! Which kernel runs: release, build and package.
//!
//! The release alone does not tell builds apart: whoever rebuilds a kernel keeps its name, and a livepatch made for
//! the one build crashes the other. The build id is that of `/sys/kernel/notes` (ELF notes of vmlinux, since 2.6.23).

use std::path::Path;

use manifests::{HostKernel, KernelPackage, KernelRelease};

/// The running kernel. `version` is the text of `uname -v`; a build id that cannot be read is none, and then
/// livepatches for a certain build are refused.
pub fn of_running(root: &Path, release: KernelRelease, version: &str) -> HostKernel {
    let notes = std::fs::read(root.join("sys/kernel/notes")).unwrap_or_default();
    let build_id = patch_tools::module::build_id_of_notes(&notes).and_then(|id| id.parse().ok());
    HostKernel { release, build_id, package: KernelPackage::of_uname_version(version) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_that_of_the_notes_and_the_package_that_of_uname() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
        let release: KernelRelease = "6.1.0-50-amd64".parse().unwrap();
        let version = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-05-01)";
        let without = of_running(root.path(), release.clone(), version);
        assert_eq!(without.build_id, None);
        assert_eq!(without.package.unwrap().version.as_str(), "6.1.176-1");
        // Another note first: the kernel has several.
        let note = |name: &[u8; 4], kind: u32, description: &[u8]| {
            let words = [4, description.len() as u32, kind].map(u32::to_ne_bytes).concat();
            [&words[..], name, description].concat()
        };
        let notes = [note(b"Xen\0", 6, b"linu"), note(b"GNU\0", 3, &[0xab; 20])].concat();
        std::fs::write(root.path().join("sys/kernel/notes"), notes).unwrap();
        let with = of_running(root.path(), release, "#1 SMP somebody's own");
        assert_eq!(with.build_id.unwrap().to_string(), "ab".repeat(20));
        assert!(with.package.is_none());
    }
}
