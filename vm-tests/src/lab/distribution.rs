//! The Debian releases that machines run: their suites, kernels and packages.
//!
//! What differs between them on a host is for `update` to find out by looking; here stands only what a machine is
//! made of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Kernel 6.1, CRIU 3.17.1, runc 1.1.5, systemd 252.
    #[default]
    Debian12,
    /// Kernel 6.12, CRIU 4.1.1, runc 1.1.15, podman 5.4.2, docker 26.1.5, systemd 257.
    Debian13,
}

/// What every machine has.
const PACKAGES: &[&str] = &[
    "apparmor",
    "btrfs-progs",
    "busybox-static",
    "criu",
    "curl",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kexec-tools",
    "kmod",
    "netcat-openbsd",
    "nftables",
    "openssh-server",
    "procps",
    "runc",
    "socat",
    "strace",
    "systemd",
    "systemd-sysv",
    "udev",
    "xfsprogs",
    "zstd",
];

/// podman and what it runs, none of which its package depends on: crun asks systemd for a scope by the bus, and loads
/// CRIU's library when it is to write down a memory.
const PODMAN: &[&str] = &["aardvark-dns", "conmon", "crun", "dbus", "libcriu2", "netavark", "podman"];

/// docker and its command; its daemons are masked until a test wants them.
const DOCKER: &[&str] = &["docker.io", "docker-cli"];

impl Distribution {
    /// The name of the release in an archive.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm",
            Self::Debian13 => "trixie",
        }
    }

    /// The kernel of its machines, unless another is named.
    #[must_use]
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Debian12 => "6.1.0-50-amd64",
            Self::Debian13 => "6.12.107+deb13-amd64",
        }
    }

    /// What is installed in its machines.
    #[must_use]
    pub fn packages(self) -> Vec<&'static str> {
        match self {
            Self::Debian12 => PACKAGES.to_vec(),
            Self::Debian13 => [PACKAGES, PODMAN, DOCKER].concat(),
        }
    }

    /// How many processors its machines have, unless somebody says so. An emulator that runs each processor by a thread
    /// of its own does not keep up with 6.12, which patches its own code all the time (`Oops: int3` now and then).
    #[must_use]
    pub fn cpus(self) -> u32 {
        match self {
            Self::Debian12 => 2,
            Self::Debian13 => 1,
        }
    }

    /// The release that a kernel is of: Debian says it in the name since 6.12 (`6.12.107+deb13-amd64`), and its names
    /// before that are all Debian 12's here.
    #[must_use]
    pub fn of_kernel(release: &str) -> Self {
        match release.contains("+deb13") {
            true => Self::Debian13,
            false => Self::Debian12,
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian12 => "Debian 12",
            Self::Debian13 => "Debian 13",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_of_the_release_whose_machines_boot_it() {
        for distribution in [Distribution::Debian12, Distribution::Debian13] {
            assert_eq!(Distribution::of_kernel(distribution.kernel()), distribution);
        }
        assert_eq!(Distribution::of_kernel("6.12.117+deb12-amd64"), Distribution::Debian12);
    }
}
