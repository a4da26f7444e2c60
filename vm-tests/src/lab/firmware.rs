//! What starts the kernel: QEMU itself, or UEFI under Secure Boot, by Debian's signed shim and GRUB, as on bought hardware.
//!
//! Under Secure Boot everything is stock: the firmware with Microsoft's keys, `shim-signed`, `grub-efi-amd64-signed` and the
//! packaged, signed `vmlinuz`, which locks itself down. The one thing that is the lab's own is a machine owner's key (MOK) for
//! modules, put into the firmware's variables as `mokutil --import` and the menu at the next boot would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::apt::Apt;
use super::cache::{Cache, Recipe};
use super::host::{Step, built, program, run};
use super::kernel::Kernel;
use super::python;

/// What starts the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// QEMU puts the unpacked kernel into memory.
    #[default]
    Direct,
    /// UEFI, shim and GRUB start the packaged kernel, each having verified the next.
    SecureBoot,
}

impl Firmware {
    /// For serde: the default goes unsaid.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Packages that are unpacked, never installed; Debian 12's, since later ones lay out their files otherwise.
const PACKAGES: [&str; 3] = ["ovmf", "shim-signed", "grub-efi-amd64-signed"];
/// Writes variables into the firmware's store; also Debian's own, from 13 on.
const VARIABLES: &str = "virt-firmware==26.10";
/// Who put the key there; any GUID will do.
const OWNER: &str = "4b1f9c2e-6c55-4b7e-9a3b-0d6f4c1e2a77";
/// The FAT file system that the firmware reads, in MiB: a kernel and the lab's initramfs fit.
const ESP_MIB: u64 = 64;

/// A private key (PKCS#8 PEM) that signs modules, and its certificate (PEM).
#[derive(Debug, Clone)]
pub struct ModuleKey {
    /// The private key.
    pub key: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
}

impl ModuleKey {
    /// Makes one, or finds it in the cache.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn prepare(cache: &Cache, name: &str) -> Result<Self> {
        let dir = cache.entry(&format!("module-key-{name}"), &Recipe::of(["module-key-1"]), |dir| {
            run(program("openssl")
                .args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"])
                .args(["-subj", &format!("/CN={name}")])
                .args(["-addext", "extendedKeyUsage=codeSigning", "-addext", "keyUsage=digitalSignature"])
                .arg("-keyout")
                .arg(dir.join("key.pem"))
                .arg("-out")
                .arg(dir.join("certificate.pem")))?;
            Ok(())
        })?;
        Ok(Self { key: dir.join("key.pem"), certificate: dir.join("certificate.pem") })
    }

    /// That which machines under Secure Boot have enrolled.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn enrolled(cache: &Cache) -> Result<Self> {
        Self::prepare(cache, "lab-mok")
    }
}

/// What a machine boots.
#[derive(Debug)]
pub(crate) struct BootFiles {
    /// The kernel and its modules.
    pub(crate) kernel: Kernel,
    /// Under Secure Boot, what verifies and starts it.
    pub(crate) secure_boot: Option<SecureBoot>,
}

/// The files that a machine under Secure Boot is made from.
#[derive(Debug)]
pub(crate) struct SecureBoot {
    /// Packages, unpacked.
    tree: PathBuf,
    /// The store of variables, with the key in it.
    variables: PathBuf,
}

impl SecureBoot {
    pub(crate) fn prepare(cache: &Cache) -> Result<Self> {
        let recipe = Recipe::of(["secure-boot-2"].iter().chain(&PACKAGES));
        let tree = cache.entry("secure-boot", &recipe, |dir| {
            let step = Step::begin("unpacking firmware, shim and GRUB");
            let apt = Apt::open(cache)?;
            let packages: Vec<String> =
                PACKAGES.iter().map(|package| of_debian_12(&apt, package)).collect::<Result<_>>()?;
            apt.unpack(&packages, dir)?;
            step.end();
            Ok(())
        })?;
        let certificate = ModuleKey::enrolled(cache)?.certificate;
        let recipe =
            Recipe::of(["variables-1", &tree.display().to_string(), &certificate.display().to_string()]);
        let store = cache.entry("firmware-variables", &recipe, |dir| {
            let python = python::environment(cache, "virt-firmware", &[VARIABLES])?;
            run(built(&python)
                .args(["-m", "virt.firmware.vars", "--input"])
                .arg(tree.join("usr/share/OVMF/OVMF_VARS_4M.ms.fd"))
                .arg("--output")
                .arg(dir.join("variables.fd"))
                .args(["--add-mok", OWNER])
                .arg(&certificate))?;
            Ok(())
        })?;
        Ok(Self { tree, variables: store.join("variables.fd") })
    }

    /// The firmware itself.
    pub(crate) fn code(&self) -> PathBuf {
        self.tree.join("usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
    }

    /// Writes what one machine boots from into its directory: its own variables, unless it has them, and the file system with
    /// loader, kernel and command line.
    pub(crate) fn equip(&self, dir: &Path, kernel: &Kernel, command_line: &str) -> Result<()> {
        let variables = dir.join("variables.fd");
        if !variables.exists() {
            fs::copy(&self.variables, &variables)?;
        }
        let esp = dir.join("esp.img");
        File::create(&esp)?.set_len(ESP_MIB << 20)?;
        let configuration = dir.join("grub.cfg");
        fs::write(&configuration, format!("linux /vmlinuz {command_line}\ninitrd /initrd\nboot\n"))?;
        run(program("mformat").arg("-i").arg(&esp).args(["-F", "::"]))?;
        run(program("mmd").arg("-i").arg(&esp).args(["::/EFI", "::/EFI/BOOT", "::/EFI/debian"]))?;
        for (from, to) in [
            (self.tree.join("usr/lib/shim/shimx64.efi.signed"), "EFI/BOOT/BOOTX64.EFI"),
            (self.tree.join("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"), "EFI/BOOT/grubx64.efi"),
            (configuration, "EFI/debian/grub.cfg"),
            (kernel.vmlinuz(), "vmlinuz"),
            (kernel.initramfs(), "initrd"),
        ] {
            run(program("mcopy").arg("-i").arg(&esp).arg(&from).arg(format!("::/{to}")))
                .with_context(|| format!("{} onto the boot disk", from.display()))?;
        }
        Ok(())
    }
}

/// `NAME=VERSION` of a package in Debian 12, whose updates say so in their versions.
fn of_debian_12(apt: &Apt, package: &str) -> Result<String> {
    let versions = apt.versions(package)?;
    let version = versions.iter().find(|version| version.contains("deb12"));
    let version = version.with_context(|| format!("{package} has no version of Debian 12: {versions:?}"))?;
    Ok(format!("{package}={version}"))
}
