use std::path::PathBuf;

use super::*;
use crate::kernel::whole::Installed;

fn running() -> KernelRelease {
    "6.12.107+deb13-amd64".parse().unwrap()
}

/// A host on which nothing stands in the way.
fn kernels() -> Kernels {
    Kernels {
        command_line: "root=UUID=4d ro quiet".to_owned(),
        installed: vec![Installed {
            release: running(),
            image: PathBuf::from("/boot/vmlinuz-6.12.107+deb13-amd64"),
            initrd: Some(PathBuf::from("/boot/initrd.img-6.12.107+deb13-amd64")),
            modules: true,
        }],
        loader: Loader::Grub {
            configuration: PathBuf::from("/boot/grub/grub.cfg"),
            default: Some(running()),
            once: None,
        },
        kexec: Kexec {
            by_descriptor: Some(true),
            disabled: Some(false),
            lockdown: Some("none".to_owned()),
            loaded: Some(false),
            program: Some(PathBuf::from("/usr/sbin/kexec")),
            systemd: true,
            panic_s: Some(10),
        },
        cpu: Vec::new(),
    }
}

fn told(change: impl FnOnce(&mut Kernels)) -> String {
    let mut kernels = kernels();
    change(&mut kernels);
    let unmet = obstacles(&kernels, &running(), None);
    assert_eq!(unmet.len(), 1, "{unmet:?}");
    unmet[0].to_string()
}

#[test]
fn a_host_with_everything_has_nothing_in_the_way_and_nothing_to_note() {
    assert_eq!(obstacles(&kernels(), &running(), None), []);
    assert_eq!(notes(&kernels(), &running()), <[String; 0]>::default());
}

#[test]
fn each_thing_in_the_way_is_named_with_what_was_expected() {
    assert!(told(|kernels| kernels.kexec.disabled = Some(true)).contains("kexec_load_disabled = 0, found 1"));
    assert!(told(|kernels| kernels.kexec.by_descriptor = Some(false)).contains("CONFIG_KEXEC_FILE"));
    assert!(told(|kernels| kernels.kexec.loaded = Some(true)).contains("kexec -u"));
    assert!(told(|kernels| kernels.kexec.program = None).contains("package kexec-tools"));
    assert!(told(|kernels| kernels.kexec.systemd = false).contains("another init"));
    let locked = told(|kernels| kernels.kexec.lockdown = Some("integrity".to_owned()));
    assert!(locked.contains("lockdown integrity, as under Secure Boot"), "{locked}");
    assert!(told(|kernels| kernels.installed.clear()).contains("no image of that release"));
    assert!(told(|kernels| kernels.installed[0].modules = false).contains("without its modules"));
    let unknown = Loader::Unknown { why: "no grub.cfg in /boot/grub or /boot/grub2".to_owned() };
    assert!(told(|kernels| kernels.loader = unknown).contains("expected GRUB, found no grub.cfg"));
    let without = |kernels: &mut Kernels| {
        if let Loader::Grub { default, .. } = &mut kernels.loader {
            *default = None;
        }
    };
    assert!(told(without).contains("none in /boot/grub/grub.cfg that can be told"));
    let lost = obstacles(&kernels(), &running(), Some("memory"));
    assert!(lost[0].to_string().contains("a cold boot loses memory, found memory"), "{lost:?}");
}

#[test]
fn what_cannot_be_told_is_noted_and_forbids_nothing() {
    let mut kernels = kernels();
    let (program, systemd) = (kernels.kexec.program.clone(), true);
    kernels.kexec = Kexec { program, systemd, panic_s: Some(0), ..Kexec::default() };
    let newer: KernelRelease = "6.12.118+deb13-amd64".parse().unwrap();
    if let Loader::Grub { default, once, .. } = &mut kernels.loader {
        (*default, *once) = (Some(newer.clone()), Some(newer));
    }
    assert_eq!(obstacles(&kernels, &running(), None), []);
    let notes = notes(&kernels, &running());
    assert_eq!(notes.len(), 6, "{notes:?}");
    assert!(notes.iter().any(|note| note.ends_with("a cold boot takes 6.12.118+deb13-amd64")), "{notes:?}");
}
