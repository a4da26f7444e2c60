//! A host's kernels from its files, below a root directory that is `/` except in tests.

use std::fs;
use std::path::{Path, PathBuf};

use manifests::KernelRelease;

use super::grub::Menu;
use super::{Installed, Kernels, Kexec, Loader};

/// GRUB's directory in Debian and its derivatives, and in Fedora's family.
const GRUB: [&str; 2] = ["boot/grub", "boot/grub2"];

/// Where the package `kexec-tools` has its program.
const PROGRAM: [&str; 2] = ["/usr/sbin/kexec", "/sbin/kexec"];

/// Flags of `/proc/cpuinfo` that stand for a part of what XSAVE saves, or change what a frame of a signal or a stack is.
const FEATURES: [&str; 8] = ["fxsr", "xsave", "xsavec", "avx", "avx512f", "pku", "amx_tile", "user_shstk"];

impl Kernels {
    /// Looks. What cannot be read is not there, or not known.
    pub fn look(root: &Path, running: &KernelRelease) -> Self {
        Self {
            command_line: text(root, "proc/cmdline").unwrap_or_default().trim().to_owned(),
            installed: installed(root),
            loader: loader(root),
            kexec: kexec(root, running),
            cpu: cpu(&text(root, "proc/cpuinfo").unwrap_or_default()),
        }
    }

    /// The installed kernel of that release.
    pub fn of(&self, release: &KernelRelease) -> Option<&Installed> {
        self.installed.iter().find(|installed| installed.release == *release)
    }
}

fn text(root: &Path, path: &str) -> Option<String> {
    fs::read(root.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The names in a directory; none of one that is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Those in `/boot`, and those that stay with their modules (packages of 7.x put nothing into `/boot` themselves).
fn installed(root: &Path) -> Vec<Installed> {
    let boot = Path::new("/boot");
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let modules = |release: &str| {
        ["/usr/lib/modules", "/lib/modules"]
            .iter()
            .map(|place| Path::new(place).join(release))
            .find(|place| below(place).is_dir())
    };
    let in_boot = names(&below(boot)).into_iter().filter_map(|name| {
        let release = name.strip_prefix("vmlinuz-")?.to_owned();
        Some((release, boot.join(name)))
    });
    let with_modules = ["/usr/lib/modules", "/lib/modules"].into_iter().flat_map(|place| {
        let releases = names(&below(Path::new(place))).into_iter();
        releases.map(move |release| (release.clone(), Path::new(place).join(release).join("vmlinuz")))
    });
    let mut found: Vec<Installed> = Vec::new();
    for (release, image) in in_boot.chain(with_modules) {
        let initrd = boot.join(format!("initrd.img-{release}"));
        let Ok(known) = release.parse::<KernelRelease>() else { continue };
        if below(&image).is_file() && !found.iter().any(|other| other.release == known) {
            found.push(Installed {
                release: known,
                image,
                initrd: below(&initrd).is_file().then_some(initrd),
                modules: modules(&release).is_some(),
            });
        }
    }
    found.sort_by(|one, two| one.release.cmp(&two.release));
    found
}

fn loader(root: &Path) -> Loader {
    let Some((directory, menu)) =
        GRUB.iter().find_map(|directory| Some((*directory, text(root, &format!("{directory}/grub.cfg"))?)))
    else {
        let why = "no grub.cfg in /boot/grub or /boot/grub2".to_owned();
        return Loader::Unknown { why };
    };
    let menu = Menu::parse(&menu);
    let environment = text(root, &format!("{directory}/grubenv"));
    let kernel = |entry: Option<&super::grub::Entry>| entry.and_then(|entry| entry.kernel.clone());
    Loader::Grub {
        configuration: PathBuf::from("/").join(directory).join("grub.cfg"),
        default: kernel(menu.taken(environment.as_deref())),
        once: kernel(menu.once(environment.as_deref())),
    }
}

fn kexec(root: &Path, running: &KernelRelease) -> Kexec {
    let switch = |path: &str| text(root, path).and_then(|text| text.trim().parse::<i64>().ok());
    let places = [
        format!("boot/config-{running}"),
        format!("usr/lib/modules/{running}/config"),
        format!("lib/modules/{running}/config"),
    ];
    let config = places.iter().find_map(|place| text(root, place));
    Kexec {
        by_descriptor: config.map(|config| config.lines().any(|line| line == "CONFIG_KEXEC_FILE=y")),
        disabled: switch("proc/sys/kernel/kexec_load_disabled").map(|value| value != 0),
        lockdown: text(root, "sys/kernel/security/lockdown").and_then(|text| in_force(&text)),
        loaded: switch("sys/kernel/kexec_loaded").map(|value| value != 0),
        program: PROGRAM
            .into_iter()
            .map(PathBuf::from)
            .find(|path| root.join(path.strip_prefix("/").unwrap_or(path)).exists()),
        systemd: root.join("run/systemd/system").is_dir(),
        panic_s: switch("proc/sys/kernel/panic"),
    }
}

/// The word in brackets: `none [integrity] confidentiality`.
fn in_force(text: &str) -> Option<String> {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    word.map(str::to_owned)
}

/// Of the first processor: a kernel shows the same for each.
fn cpu(text: &str) -> Vec<String> {
    let flags =
        text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':').map(|(_, flags)| flags));
    let known: Vec<&str> = flags.unwrap_or_default().split_whitespace().collect();
    FEATURES.iter().filter(|feature| known.contains(feature)).map(|feature| (*feature).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn look(files: &[(&str, &str)]) -> Kernels {
        Kernels::look(host(files).path(), &"6.12.107+deb13-amd64".parse().unwrap())
    }

    #[test]
    fn kernels_are_found_in_boot_and_beside_their_modules() {
        let found = look(&[
            ("boot/vmlinuz-6.12.107+deb13-amd64", ""),
            ("boot/initrd.img-6.12.107+deb13-amd64", ""),
            ("usr/lib/modules/6.12.107+deb13-amd64/modules.dep", ""),
            ("usr/lib/modules/7.3.4+deb13-amd64/vmlinuz", ""),
            ("usr/lib/modules/6.1.0-50-amd64/modules.dep", ""),
            ("boot/vmlinuz-of somebody", ""),
            ("boot/config-6.12.107+deb13-amd64", "CONFIG_SMP=y\nCONFIG_KEXEC_FILE=y\n"),
        ]);
        let told: Vec<_> = found
            .installed
            .iter()
            .map(|one| (one.release.as_str(), one.image.to_str().unwrap(), one.initrd.is_some(), one.modules))
            .collect();
        assert_eq!(
            told,
            [
                ("6.12.107+deb13-amd64", "/boot/vmlinuz-6.12.107+deb13-amd64", true, true),
                ("7.3.4+deb13-amd64", "/usr/lib/modules/7.3.4+deb13-amd64/vmlinuz", false, true),
            ]
        );
        assert_eq!(found.kexec.by_descriptor, Some(true));
        assert!(matches!(found.loader, Loader::Unknown { .. }));
    }

    #[test]
    fn what_the_kernel_says_of_kexec_is_read_and_what_it_does_not_say_is_not_guessed() {
        let none = look(&[]);
        assert_eq!(none.kexec, Kexec::default());
        let found = look(&[
            ("proc/sys/kernel/kexec_load_disabled", "1\n"),
            ("proc/sys/kernel/panic", "10\n"),
            ("usr/sbin/kexec", ""),
            ("run/systemd/system/a", ""),
            ("sys/kernel/kexec_loaded", "0\n"),
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("boot/config-6.12.107+deb13-amd64", "# CONFIG_KEXEC_FILE is not set\n"),
            ("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu fxsr xsave avx rdrand\n"),
        ]);
        let expected = Kexec {
            by_descriptor: Some(false),
            disabled: Some(true),
            lockdown: Some("integrity".to_owned()),
            loaded: Some(false),
            program: Some("/usr/sbin/kexec".into()),
            systemd: true,
            panic_s: Some(10),
        };
        assert_eq!(found.kexec, expected);
        assert_eq!(found.cpu, ["fxsr", "xsave", "avx"]);
    }

    #[test]
    fn the_loaders_default_is_told_by_its_kernel() {
        let menu = super::super::grub::tests::MENU;
        let found = look(&[("boot/grub/grub.cfg", menu), ("boot/grub/grubenv", "next_entry=1>2\n")]);
        let Loader::Grub { configuration, default, once } = found.loader else { panic!("no GRUB") };
        assert_eq!(configuration, Path::new("/boot/grub/grub.cfg"));
        assert_eq!(default.unwrap().as_str(), "6.12.118+deb13-amd64");
        assert_eq!(once.unwrap().as_str(), "6.12.107+deb13-amd64");
    }
}
