//! What the lab, the tests and `.ci/run` execute on this machine, where it comes from, and how it gets there.
//!
//! Invariants: [`super::host::program`] starts nothing that is not declared here; whatever was missing is
//! installed in one transaction which removes nothing ([`super::install`]), or unpacked beside what is installed
//! when that would conflict ([`super::aside`]); afterwards everything is looked for again, so that what is
//! missing is named before any time is spent.

use std::fs::File;

use anyhow::{Context, Result, bail, ensure};

use super::aside::{self, Alone, Aside};
use super::cache::Cache;
use super::host::{find_program, is_root};
use super::{install, steps::Step};

/// A program, or a file that shows that a package is there, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// A program's name, or an absolute path, with `*` for a directory whose name is a version.
    pub probe: &'static str,
    /// The package to install when the probe fails.
    pub package: &'static str,
}

const fn need(probe: &'static str, package: &'static str) -> Need {
    Need { probe, package }
}

/// What building images and fixtures and running machines takes. `gcc-12` is the compiler of Debian 12's
/// kernels, and the kernel's own build tools need `libelf1`.
pub const NEEDS: &[Need] = &[
    // Machines and their images
    need("qemu-system-x86_64", "qemu-system-x86"),
    need("qemu-img", "qemu-utils"),
    need("mmdebstrap", "mmdebstrap"),
    need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    need("mke2fs", "e2fsprogs"),
    need("depmod", "kmod"),
    need("setpriv", "util-linux"),
    need("ssh", "openssh-client"),
    need("ssh-keygen", "openssh-client"),
    need("busybox", "busybox-static"),
    need("zstd", "zstd"),
    // Compilers
    need("gcc", "gcc"),
    need("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    need("gcc-12", "gcc-12"),
    need("/usr/lib/x86_64-linux-gnu/libelf.so.1", "libelf1"),
    need("make", "make"),
    need("as", "binutils"),
    need("ld", "binutils"),
    need("objcopy", "binutils"),
    need("readelf", "binutils"),
    need("strip", "binutils"),
    // What every Debian has, unless somebody took it away
    need("sh", "dash"),
    need("bash", "bash"),
    need("apt-cache", "apt"),
    need("apt-config", "apt"),
    need("apt-get", "apt"),
    need("dpkg-deb", "dpkg"),
    need("dpkg-query", "dpkg"),
    need("cat", "coreutils"),
    need("chmod", "coreutils"),
    need("cp", "coreutils"),
    need("date", "coreutils"),
    need("md5sum", "coreutils"),
    need("dirname", "coreutils"),
    need("install", "coreutils"),
    need("ln", "coreutils"),
    need("mkdir", "coreutils"),
    need("mv", "coreutils"),
    need("rm", "coreutils"),
    need("sleep", "coreutils"),
    need("timeout", "coreutils"),
    need("touch", "coreutils"),
    need("tr", "coreutils"),
    need("true", "coreutils"),
    need("diff", "diffutils"),
    need("find", "findutils"),
    need("getconf", "libc-bin"),
    need("ldd", "libc-bin"),
    need("grep", "grep"),
    need("gzip", "gzip"),
    need("mount", "mount"),
    need("sed", "sed"),
    need("tar", "tar"),
    need("pivot_root", "util-linux"),
    need("unshare", "util-linux"),
];

/// What the tests run besides, and neither machines nor the demo.
pub const NEEDS_OF_TESTS: &[Need] = &[
    // What preparing the tree of a kernel takes that is given as files, and so has no build root.
    need("flex", "flex"),
    need("bison", "bison"),
    need("bc", "bc"),
    need("perl", "perl"),
    need("/usr/include/gelf.h", "libelf-dev"),
    need("/usr/include/openssl/ssl.h", "libssl-dev"),
    // libFuzzer is C++.
    need("g++", "g++"),
    // The disk that firmware boots from
    need("mcopy", "mtools"),
    need("mformat", "mtools"),
    need("mmd", "mtools"),
    // Peers in tests and benchmarks
    need("openssl", "openssl"),
    need("minisign", "minisign"),
    // The tests of repositories fetch the reference implementation from PyPI into an environment of its own.
    need("python3", "python3"),
    need("/usr/share/python-wheels", "python3-venv"),
    // A token in software.
    need("softhsm2-util", "softhsm2"),
    need("/usr/lib/softhsm/libsofthsm2.so", "libsofthsm2"),
    // The server that the controller's tests start: its own, in a directory that goes with the test.
    need("/usr/lib/postgresql/*/bin/initdb", "postgresql"),
    // The server of metrics that they start.
    need("prometheus", "prometheus"),
    // What judges the alerts that come with the controller.
    need("promtool", "prometheus"),
    // What hosts of a fleet in namespaces of their own look for containers with.
    need("runc", "runc"),
    need("nsenter", "util-linux"),
    // What the pages that people follow have them type, and the terminal at which a test does.
    need("cut", "coreutils"),
    need("sha256sum", "coreutils"),
    need("stat", "coreutils"),
    need("stty", "coreutils"),
    need("tail", "coreutils"),
    need("script", "bsdutils"),
    // What the tests of hosts run: packet filters in namespaces of their own, and the judge of units.
    need("nft", "nftables"),
    need("iptables-nft", "iptables"),
    need("iptables-legacy", "iptables"),
    need("systemd-analyze", "systemd"),
];

/// What looking at the controller's page takes.
pub const OF_THE_PAGE: &[Need] = &[
    need("chromium-headless-shell", "chromium-headless-shell"),
    need("curl", "curl"),
    need("openssl", "openssl"),
    need("base64", "coreutils"),
    need("timeout", "coreutils"),
];

/// What building the root image takes besides, when not root.
pub const NEEDS_WITHOUT_ROOT: &[Need] = &[need("fakeroot", "fakeroot"), need("newuidmap", "uidmap")];

/// What is there before the lab is: Rust brings it.
pub const GIVEN: &[&str] = &["cargo", "rustc"];

/// Packages whose programs also run from a tree of their own.
const ASIDES: &[Aside] = &[
    Aside {
        package: "qemu-system-x86",
        programs: &["qemu-system-x86_64"],
        arguments: "-L $tree/usr/share/qemu -L $tree/usr/share/seabios -L $tree/usr/lib/ipxe/qemu",
        proof: "--version",
    },
    Aside { package: "qemu-utils", programs: &["qemu-img"], arguments: "", proof: "--version" },
];

/// Packages that are never installed, since that would make a service of this machine; tests start their programs by themselves.
const ALONE: &[Alone] = &[
    Alone { package: "prometheus", program: "usr/bin/prometheus", proof: "--version" },
    Alone { package: "prometheus", program: "usr/bin/promtool", proof: "--version" },
    Alone { package: "runc", program: "usr/sbin/runc", proof: "--version" },
];

/// True for a program that may be started by name.
pub fn is_declared(name: &str) -> bool {
    GIVEN.contains(&name)
        || NEEDS
            .iter()
            .chain(NEEDS_OF_TESTS)
            .chain(NEEDS_WITHOUT_ROOT)
            .chain(OF_THE_PAGE)
            .any(|need| need.probe == name)
}

/// What this user needs for machines and the demo.
pub fn of_machines() -> Vec<Need> {
    let more = if is_root() { &[] } else { NEEDS_WITHOUT_ROOT };
    [NEEDS, more].concat()
}

/// What building the packages takes: compilers, and what packs.
pub fn of_packages() -> Vec<Need> {
    let used = ["binutils", "coreutils", "dpkg", "gcc", "gzip", "libc6-dev", "tar"];
    NEEDS.iter().filter(|need| used.contains(&need.package)).copied().collect()
}

/// What this user needs for all tests.
pub fn of_tests() -> Vec<Need> {
    [&of_machines(), NEEDS_OF_TESTS].concat()
}

fn missing(needs: &[Need]) -> Vec<Need> {
    needs.iter().filter(|need| find_program(need.probe).is_none()).copied().collect()
}

/// Names of the packages, each once, in order.
fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = Vec::new();
    for need in needs {
        if !packages.contains(&need.package) {
            packages.push(need.package);
        }
    }
    packages
}

/// Sees to it that all of `needs` are there.
///
/// # Errors
/// When something is still missing at the end: because apt cannot install it without removing something, because
/// this is not root, or because the package does not have it. Everything that is missing is named.
pub fn require(cache: &Cache, needs: &[Need]) -> Result<()> {
    if missing(needs).is_empty() {
        return Ok(());
    }
    let lock = File::create(cache.lock_file("needs"))?;
    lock.lock().context("waiting for another process that installs what the lab needs")?;
    let absent = missing(needs);
    if absent.is_empty() {
        return Ok(());
    }
    install::refresh_lists()?;
    let mut wanted = packages(&absent);
    for alone in ALONE.iter().filter(|alone| wanted.contains(&alone.package)) {
        aside::provide_alone(cache, alone)
            .with_context(|| format!("{} could not be unpacked beside what is installed", alone.package))?;
    }
    wanted.retain(|package| ALONE.iter().all(|alone| alone.package != *package));
    let plan = install::plan(&wanted)?;
    for conflict in &plan.conflicts {
        let Some(aside) = ASIDES.iter().find(|aside| aside.package == conflict.package) else {
            bail!("{conflict}");
        };
        eprintln!("lab: {conflict}");
        aside::provide(cache, aside).with_context(|| {
            format!("{} could not be unpacked beside what is installed either", aside.package)
        })?;
    }
    if !plan.install.is_empty() {
        let line = install::install_line(&plan.install);
        ensure!(is_root(), "the lab needs packages that are not installed; run: sudo {}", line.join(" "));
        let step = Step::begin(&format!("installing {}", plan.install.join(" ")));
        install::install(&line)?;
        step.end();
    }
    let still = missing(needs);
    ensure!(still.is_empty(), "{}", complaint(&still));
    Ok(())
}

fn complaint(still: &[Need]) -> String {
    let list: Vec<String> =
        still.iter().map(|need| format!("`{}` of package {}", need.probe, need.package)).collect();
    format!(
        "apt reported success, but this is still missing: {}\n\
        see what `apt-get install --reinstall {}` says; nothing else was done",
        list.join(", "),
        packages(still).join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once_wherever_its_needs_stand_in_the_list() {
        let needs = [need("a", "one"), need("b", "two"), need("c", "one")];
        assert_eq!(packages(&needs), ["one", "two"]);
    }

    #[test]
    fn what_is_still_missing_is_named_with_its_package() {
        let said = complaint(&[need("qemu-img", "qemu-utils"), need("ld", "binutils")]);
        assert!(said.contains("`qemu-img` of package qemu-utils, `ld` of package binutils"), "{said}");
        assert!(said.contains("--reinstall qemu-utils binutils"), "{said}");
    }

    #[test]
    fn what_can_be_set_aside_is_needed() {
        for alone in ALONE {
            let package = NEEDS_OF_TESTS
                .iter()
                .find(|need| alone.program.ends_with(&format!("/{}", need.probe)))
                .map(|need| need.package);
            assert_eq!(package, Some(alone.package));
        }
        for aside in ASIDES {
            for program in aside.programs {
                let package = NEEDS.iter().find(|need| need.probe == *program).map(|need| need.package);
                assert_eq!(package, Some(aside.package));
            }
        }
    }
}
