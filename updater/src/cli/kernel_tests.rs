use crate::kernel::whole::{Installed, Kexec};
use crate::plan::facts::Unmet;

use super::*;

fn status() -> KernelStatus {
    let release = |text: &str| text.parse().unwrap();
    KernelStatus {
        release: "6.12.107+deb13-amd64".to_owned(),
        build_id: None,
        package: manifests::KernelPackage::of_uname_version("#1 SMP Debian 6.12.107-1 (2026-11-01)"),
        kernels: Kernels {
            command_line: "root=UUID=4d ro quiet".to_owned(),
            installed: vec![
                Installed {
                    release: release("6.12.107+deb13-amd64"),
                    image: "/boot/vmlinuz-6.12.107+deb13-amd64".into(),
                    initrd: Some("/boot/initrd.img-6.12.107+deb13-amd64".into()),
                    modules: true,
                },
                Installed {
                    release: release("6.12.118+deb13-amd64"),
                    image: "/boot/vmlinuz-6.12.118+deb13-amd64".into(),
                    initrd: None,
                    modules: false,
                },
            ],
            loader: Loader::Grub {
                configuration: "/boot/grub/grub.cfg".into(),
                default: Some(release("6.12.118+deb13-amd64")),
                once: None,
            },
            kexec: Kexec::default(),
            cpu: vec!["fxsr".to_owned(), "xsave".to_owned()],
        },
        obstacles: vec![Unmet {
            subject: "kexec".to_owned(),
            expected: "kernel.kexec_load_disabled = 0".to_owned(),
            found: "1, and only a boot sets it back".to_owned(),
        }],
        notes: vec!["6.12.107+deb13-amd64 runs, and a cold boot takes 6.12.118+deb13-amd64".to_owned()],
    }
}

#[test]
fn the_kernels_of_a_host_are_told_with_what_stands_in_the_way() {
    let status = status();
    let trial = Some(Trial { dump_ms: 120, frozen_ms: 40, restore_ms: 210 });
    insta::assert_snapshot!(render(&Report { status: &status, trial }).to_string());
}

#[test]
fn a_host_with_nothing_in_the_way_says_so() {
    let status = KernelStatus { obstacles: Vec::new(), notes: Vec::new(), ..status() };
    let text = render(&Report { status: &status, trial: None }).to_string();
    assert!(text.ends_with("\nnothing stands in the way of another kernel\n"), "{text}");
    assert!(!text.contains("throw-away"), "{text}");
}
