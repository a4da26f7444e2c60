//! What is known of Debian's releases and of how they package kernels: the one place for it.
//!
//! | fact | source |
//! |---|---|
//! | suites of a release, their order | <https://wiki.debian.org/DebianReleases> |
//! | `+debN` in a kernel's release | `debian/changelog` of `linux`, 6.12.38-1: "Include the Debian release in the ABI name" |
//! | kernels without it | `linux` in those releases: `6.1.0-N` is Debian 12's |
//! | one package for image and modules, or several | `debian/control` of `linux`: `linux-binary-*` and `linux-modules-*` from 6.19 on |
//!
//! What belongs to a kernel rather than to a distribution (layouts, versions of structures, compression) is read
//! from the kernel at hand and is not here.

use manifests::KernelRelease;

/// A Debian release that kernels come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Release {
    /// 12 of Debian 12, as in `+deb12`.
    pub(super) number: u32,
    /// The suite.
    pub(super) suite: &'static str,
    /// Suites of later additions in the same archive.
    pub(super) additions: &'static [&'static str],
    /// The suite in the archive of security updates.
    pub(super) security: Option<&'static str>,
    /// Kernel series that are of this release although their names do not say so.
    unnamed: &'static [&'static str],
}

const RELEASES: [Release; 3] = [
    Release {
        number: 12,
        suite: "bookworm",
        additions: &["bookworm-updates", "bookworm-backports"],
        security: Some("bookworm-security"),
        unnamed: &["6.1.0-"],
    },
    Release {
        number: 13,
        suite: "trixie",
        additions: &["trixie-updates", "trixie-backports"],
        security: Some("trixie-security"),
        unnamed: &[],
    },
    Release { number: 14, suite: "forky", additions: &[], security: None, unnamed: &[] },
];

/// A kernel whose packages are not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{release} is not the name of a kernel of Debian 12, 13 or 14 (like 6.1.0-50-amd64 or 6.12.107+deb13-amd64); \
     give any other kernel as --source, --config and --image"
)]
pub struct UnknownKernel {
    release: KernelRelease,
}

impl Release {
    /// The release that a kernel is of.
    pub(super) fn of_kernel(release: &KernelRelease) -> Result<&'static Self, UnknownKernel> {
        let name = release.as_str();
        let number = name.split_once("+deb").and_then(|(_, rest)| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest[..digits].parse::<u32>().ok()
        });
        let found = RELEASES.iter().find(|known| match number {
            Some(number) => known.number == number,
            None => known.unnamed.iter().any(|series| name.starts_with(series)),
        });
        found.ok_or_else(|| UnknownKernel { release: release.clone() })
    }
}

/// What the build of a kernel needs beside its compiler: `Build-Depends` of `linux`, without what only makes
/// documentation and packages.
pub(super) const BUILD_PACKAGES: [&str; 23] = [
    "bash",
    "bc",
    "binutils",
    "bison",
    "bzip2",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "flex",
    "grep",
    "gzip",
    "hostname",
    "libelf-dev",
    "libssl-dev",
    "libxxhash-dev",
    "make",
    "mawk",
    "openssl",
    "perl",
    "python3",
    "sed",
    "zlib1g-dev",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_name_tells_its_debian_release() {
        for (name, number) in [
            ("6.1.0-50-amd64", 12),
            ("6.12.117+deb12-amd64", 12),
            ("6.12.115+deb13.1-amd64", 13),
            ("7.3.4+deb13-cloud-amd64", 13),
            ("7.2.12+deb14-amd64", 14),
        ] {
            assert_eq!(Release::of_kernel(&name.parse().unwrap()).unwrap().number, number, "{name}");
        }
    }

    #[test]
    fn other_peoples_kernels_are_refused_with_the_way_to_give_them() {
        for name in ["6.8.0-45-generic", "5.14.0-427.el9.x86_64", "6.12.1+deb11-amd64"] {
            let error = Release::of_kernel(&name.parse().unwrap()).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("--source"), "{error}");
        }
    }
}
