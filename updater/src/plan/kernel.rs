//! What stands in the way of another kernel under running containers. Pure.
//!
//! The containers are written to disk, the running kernel hands over to the other one by kexec, and they come back there. If the
//! other kernel does not come up, a cold boot has to lead to the one that runs now. Everything that this needs of a host is
//! looked at before anything is touched.

use manifests::KernelRelease;

use crate::kernel::whole::{Kernels, Kexec, Loader};
use crate::plan::facts::Unmet;

/// Everything that does not hold on this host, whichever the other kernel is. `lost` says what the checkpoints' place is, if they
/// would be gone after a cold boot.
pub fn obstacles(kernels: &Kernels, running: &KernelRelease, lost: Option<&str>) -> Vec<Unmet> {
    let mut unmet = kexec(&kernels.kexec);
    let mut miss = |subject: &str, expected: String, found: String| {
        unmet.push(Unmet { subject: subject.to_owned(), expected, found });
    };
    match &kernels.loader {
        Loader::Grub { default: Some(_), .. } => {}
        Loader::Grub { configuration, default: None, .. } => miss(
            "the boot loader",
            "a default entry of the menu that boots a kernel of this host".to_owned(),
            format!("none in {} that can be told", configuration.display()),
        ),
        Loader::Unknown { why } => miss("the boot loader", "GRUB".to_owned(), why.clone()),
    }
    match kernels.of(running) {
        Some(installed) if !installed.modules => miss(
            "the running kernel",
            format!("{running} installed, for the way back"),
            "its image without its modules".to_owned(),
        ),
        Some(_) => {}
        None => miss(
            "the running kernel",
            format!("{running} installed, for the way back"),
            "no image of that release".to_owned(),
        ),
    }
    if let Some(place) = lost {
        miss(
            "the place of checkpoints",
            "a disk, since a cold boot loses memory".to_owned(),
            place.to_owned(),
        );
    }
    unmet
}

fn kexec(kexec: &Kexec) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    let mut miss = |expected: &str, found: String| {
        unmet.push(Unmet { subject: "kexec".to_owned(), expected: expected.to_owned(), found });
    };
    if kexec.by_descriptor == Some(false) {
        miss(
            "a kernel that takes an image by descriptor (CONFIG_KEXEC_FILE)",
            "one built without".to_owned(),
        );
    }
    if kexec.disabled == Some(true) {
        miss("kernel.kexec_load_disabled = 0", "1, and only a boot sets it back".to_owned());
    }
    if let Some(lockdown) = kexec.lockdown.as_ref().filter(|lockdown| *lockdown != "none") {
        miss(
            "a kernel that is not locked down",
            format!(
                "lockdown {lockdown}, as under Secure Boot: it hands over to no image that it cannot verify"
            ),
        );
    }
    if !kexec.systemd {
        miss("systemd, which ends services in order before", "another init".to_owned());
    }
    if kexec.program.is_none() {
        miss("the program kexec, by which systemd hands over", "none (package kexec-tools)".to_owned());
    }
    if kexec.loaded == Some(true) {
        miss("no image loaded", "one that somebody else has loaded (kexec -u unloads it)".to_owned());
    }
    unmet
}

/// What is worth knowing and forbids nothing.
pub fn notes(kernels: &Kernels, running: &KernelRelease) -> Vec<String> {
    let mut notes = Vec::new();
    let unknown = [
        ("whether it takes an image by descriptor", kernels.kexec.by_descriptor.is_none()),
        ("whether kexec is switched off", kernels.kexec.disabled.is_none()),
        ("whether an image is loaded", kernels.kexec.loaded.is_none()),
    ];
    notes.extend(
        unknown
            .iter()
            .filter(|(_, unknown)| *unknown)
            .map(|(what, _)| format!("it cannot be told of the running kernel {what}")),
    );
    if let Loader::Grub { default, once, .. } = &kernels.loader {
        if let Some(default) = default.as_ref().filter(|default| *default != running) {
            notes.push(format!("{running} runs, and a cold boot takes {default}"));
        }
        if let Some(once) = once {
            notes.push(format!("the next boot takes {once}, once"));
        }
    }
    if kernels.kexec.panic_s == Some(0) {
        notes.push(
            "the running kernel stays where it is when it panics (kernel.panic = 0): somebody has to switch the host off and on"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
