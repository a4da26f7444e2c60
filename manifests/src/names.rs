//! Names that a manifest uses, each with its own type and its own alphabet.
//!
//! Invariant: a value of one of these types satisfies its rule, however it was made; serde goes
//! through the same check as `FromStr`. None of them can hold a control character, a space or a
//! quote, so they can be printed as they are; only a label's name may hold a `/`.
//! What a name refers to (whether that module or container exists) is not decided here.

use crate::scalar::word;

/// A string that does not follow the rule of the name it was given for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a {what}: expected {rule}")]
pub struct NameError {
    /// What the string was meant to be.
    pub what: &'static str,
    /// The rule in words.
    pub rule: &'static str,
    /// The string, cut to its first 80 characters.
    pub found: String,
}

impl NameError {
    pub(crate) fn new(what: &'static str, rule: &'static str, found: &str) -> Self {
        Self { what, rule, found: found.chars().take(80).collect() }
    }
}

fn sized(text: &str, max: usize, allowed: fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

fn first(text: &str, allowed: fn(&u8) -> bool) -> bool {
    text.as_bytes().first().is_some_and(allowed)
}

/// Lower case, as in host names and labels of places.
fn is_tag(text: &str) -> bool {
    sized(text, 64, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-'))
        && first(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

word! {
    /// The name of a line of manifests; versions count within it.
    ManifestName,
    what: "manifest name",
    rule: "1 to 64 characters of a-z, 0-9, '.', '-', starting with a letter or digit",
    schema: { "pattern": r"^[a-z0-9][a-z0-9.-]{0,63}$" },
    check: |s| {
        sized(s, 64, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-'))
            && first(s, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
    }
}

word! {
    /// A kernel release as `uname -r` prints it. At most 64 bytes: `struct new_utsname` holds 65 with its NUL.
    KernelRelease,
    what: "kernel release",
    rule: "1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '+', '~', '-', starting with a digit",
    schema: { "pattern": r"^[0-9][A-Za-z0-9._+~-]{0,63}$" },
    check: |s| {
        sized(s, 64, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'+' | b'~' | b'-'))
            && first(s, |c| c.is_ascii_digit())
    }
}

word! {
    /// A series of kernel releases by its first numbers: `6.1` has `6.1.0-50-amd64` and `6.1.176`, not `6.12.1`.
    KernelSeries,
    what: "kernel series",
    rule: "two or three numbers with '.' between them, such as 6.1",
    schema: { "pattern": r"^[0-9]{1,4}(\.[0-9]{1,4}){1,2}$" },
    check: |s| {
        let numbers = s.split('.').filter(|n| (1..=4).contains(&n.len()) && n.bytes().all(|c| c.is_ascii_digit()));
        let parts = s.split('.').count();
        (2..=3).contains(&parts) && numbers.count() == parts
    }
}

impl KernelSeries {
    /// Whether `release` is of this series.
    pub fn has(&self, release: &KernelRelease) -> bool {
        let rest = release.as_str().strip_prefix(self.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

word! {
    /// A distribution by its `ID` in os-release(5), such as `debian`.
    Distribution,
    what: "distribution",
    rule: "1 to 32 characters of a-z, 0-9, '.', '_', '-', starting with a letter",
    schema: { "pattern": r"^[a-z][a-z0-9._-]{0,31}$" },
    check: |s| {
        sized(s, 32, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-'))
            && first(s, |c| c.is_ascii_lowercase())
    }
}

word! {
    /// A module name as the kernel shows it, with underscores.
    /// At most 55 bytes: the kernel's `MODULE_NAME_LEN` is `64 - sizeof(unsigned long)` with the NUL.
    ModuleName,
    what: "module name",
    rule: "1 to 55 characters of A-Z, a-z, 0-9, '_' (the kernel shows '-' as '_')",
    schema: { "pattern": r"^[A-Za-z0-9_]{1,55}$" },
    check: |s| sized(s, 55, |c| c.is_ascii_alphanumeric() || c == b'_')
}

word! {
    /// The object that a livepatch changes: `vmlinux` or a module.
    ObjectName,
    what: "object name",
    rule: "'vmlinux' or a module name with underscores",
    schema: { "pattern": r"^[A-Za-z0-9_]{1,55}$" },
    check: |s| sized(s, 55, |c| c.is_ascii_alphanumeric() || c == b'_')
}

impl ObjectName {
    /// Whether this is the kernel itself and not a module.
    pub fn is_vmlinux(&self) -> bool {
        self.0 == "vmlinux"
    }
}

word! {
    /// A kernel symbol as kallsyms shows it. At most 511 bytes: `KSYM_NAME_LEN` is 512 with the NUL.
    SymbolName,
    what: "kernel symbol",
    rule: "1 to 511 characters of A-Z, a-z, 0-9, '_', '.', '$', not starting with a digit",
    schema: { "pattern": r"^[A-Za-z_.$][A-Za-z0-9_.$]{0,510}$" },
    check: |s| {
        sized(s, 511, |c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'$'))
            && first(s, |c| !c.is_ascii_digit())
    }
}

word! {
    /// A vulnerability's identifier in the CVE list.
    CveId,
    what: "CVE id",
    rule: "CVE-, four digits of a year, '-', four to nineteen digits",
    schema: { "pattern": r"^CVE-[0-9]{4}-[0-9]{4,19}$" },
    check: |s| {
        let Some((year, number)) = s.strip_prefix("CVE-").and_then(|rest| rest.split_once('-')) else { return false };
        year.len() == 4
            && (4..=19).contains(&number.len())
            && year.bytes().chain(number.bytes()).all(|c| c.is_ascii_digit())
    }
}

word! {
    /// The name of a payload file, beside its manifest or in a directory given to the command.
    FileName,
    what: "payload file name",
    rule: "1 to 200 characters of A-Z, a-z, 0-9, '.', '_', '+', '~', '-', starting with a letter, digit or '_'",
    schema: { "pattern": r"^[A-Za-z0-9_][A-Za-z0-9._+~-]{0,199}$" },
    check: |s| {
        sized(s, 200, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'+' | b'~' | b'-'))
            && first(s, |c| c.is_ascii_alphanumeric() || *c == b'_')
    }
}

word! {
    /// A binary package's name (Debian Policy 5.6.1).
    PackageName,
    what: "package name",
    rule: "2 to 128 characters of a-z, 0-9, '+', '-', '.', starting with a letter or digit",
    schema: { "pattern": r"^[a-z0-9][a-z0-9+.-]{1,127}$" },
    check: |s| {
        let allowed = |c: u8| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'+' | b'-' | b'.')
        };
        s.len() >= 2 && sized(s, 128, allowed) && first(s, |c| c.is_ascii_alphanumeric())
    }
}

word! {
    /// A package's architecture as the package manager calls it: `amd64`, `all`.
    PackageArch,
    what: "package architecture",
    rule: "1 to 32 characters of a-z, 0-9, '-', starting with a letter",
    schema: { "pattern": r"^[a-z][a-z0-9-]{0,31}$" },
    check: |s| {
        sized(s, 32, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && first(s, |c| c.is_ascii_lowercase())
    }
}

word! {
    /// A systemd service by its whole name: `nginx.service`, `postgresql@15-main.service`.
    ServiceName,
    what: "service name",
    rule: "at most 255 characters of A-Z, a-z, 0-9, ':', '-', '_', '.', '\\', '@', ending with .service",
    schema: { "pattern": r"^[A-Za-z0-9_\\@][A-Za-z0-9:_.\\@-]*\.service$", "maxLength": 255 },
    check: |s| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b':' | b'-' | b'_' | b'.' | b'\\' | b'@');
        let named = s.strip_suffix(".service").is_some_and(|name| !name.is_empty());
        // One that begins with a dash would pass for an option.
        named && sized(s, 255, allowed) && first(s, |c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'\\' | b'@'))
    }
}

word! {
    /// A container's id; runc allows the same alphabet.
    ContainerId,
    what: "container id",
    rule: "1 to 128 characters of A-Z, a-z, 0-9, '_', '+', '-', '.', not '.' or '..'",
    schema: { "pattern": r"^[A-Za-z0-9_+.-]{1,128}$" },
    check: |s| {
        sized(s, 128, |c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'+' | b'-' | b'.'))
            && s != "."
            && s != ".."
    }
}

word! {
    /// A workload as a manifest names it: a container's id, with its runtime's name and a colon before it unless that
    /// is runc.
    WorkloadName,
    what: "container's name",
    rule: "an id of 1 to 128 characters of A-Z, a-z, 0-9, '_', '+', '-', '.', alone for runc, or after an engine's name and ':'",
    schema: { "pattern": r"^([a-z][a-z0-9-]{0,31}:)?[A-Za-z0-9_+.-]{1,128}$" },
    check: |s| {
        let (runtime, id) = s.split_once(':').unwrap_or(("runc", s));
        sized(runtime, 32, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && first(runtime, |c| c.is_ascii_lowercase())
            && id.parse::<ContainerId>().is_ok()
    }
}

word! {
    /// The name of an OCI annotation (what runc calls a label).
    LabelName,
    what: "label name",
    rule: "1 to 253 characters of A-Z, a-z, 0-9, '.', '_', '-', '/'",
    schema: { "pattern": r"^[A-Za-z0-9._/-]{1,253}$" },
    check: |s| sized(s, 253, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/'))
}

word! {
    /// What people call a signing key in a trust policy.
    KeyName,
    what: "key name",
    rule: "1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '-', '@', starting with a letter or digit",
    schema: { "pattern": r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$" },
    check: |s| {
        sized(s, 64, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'@'))
            && first(s, |c| c.is_ascii_alphanumeric())
    }
}

word! {
    /// A role in a trust policy, such as `build` or `security-review`.
    RoleName,
    what: "role name",
    rule: "1 to 64 characters of a-z, 0-9, '-', starting with a letter",
    schema: { "pattern": r"^[a-z][a-z0-9-]{0,63}$" },
    check: |s| {
        sized(s, 64, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && first(s, |c| c.is_ascii_lowercase())
    }
}

word! {
    /// A group of hosts, such as `canary`; hosts know theirs from their own configuration.
    GroupName,
    what: "group of hosts",
    rule: "1 to 64 characters of a-z, 0-9, '.', '_', '-', starting with a letter or digit",
    schema: { "pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$" },
    check: is_tag
}

word! {
    /// What fails together in a fleet: a rack, a power feed, an availability zone.
    DomainName,
    what: "failure domain",
    rule: "1 to 64 characters of a-z, 0-9, '.', '_', '-', starting with a letter or digit",
    schema: { "pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$" },
    check: is_tag
}

word! {
    /// A time zone by its name in the IANA database, such as `Europe/Berlin`.
    ZoneName,
    what: "time zone",
    rule: "1 to 64 characters of A-Z, a-z, 0-9, '/', '_', '+', '-', starting with a letter",
    schema: { "pattern": r"^[A-Za-z][A-Za-z0-9/_+-]{0,63}$" },
    check: |s| {
        sized(s, 64, |c| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'+' | b'-'))
            && first(s, |c| c.is_ascii_alphabetic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_names_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "../a", "a/b", "/etc/passwd", ".hidden", "-rf", "a\0b", "a b", "ä", "a\n"]
        {
            assert!(bad.parse::<FileName>().is_err(), "{bad:?} was taken");
        }
        for good in ["livepatch-cmdline.ko", "greet-fix.tar.zst", "_a", "a+b~c"] {
            assert!(good.parse::<FileName>().is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_workload_may_be_named_with_its_runtime_and_never_with_half_of_it() {
        for good in ["web", "podman:web", "runc:web-1", "9"] {
            assert!(good.parse::<WorkloadName>().is_ok(), "{good:?} was refused");
        }
        for bad in ["", ":web", "podman:", "Podman:web", "a:b:c", "podman:..", "9p:web", "podman: web"] {
            assert!(bad.parse::<WorkloadName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn module_names_are_as_the_kernel_shows_them() {
        assert!("livepatch_cmdline".parse::<ModuleName>().is_ok());
        assert!("livepatch-cmdline".parse::<ModuleName>().is_err());
        assert!("a".repeat(55).parse::<ModuleName>().is_ok());
        assert!("a".repeat(56).parse::<ModuleName>().is_err());
    }

    #[test]
    fn a_series_has_the_releases_that_go_on_from_its_numbers() {
        let series: KernelSeries = "6.1".parse().unwrap();
        let has = |release: &str| series.has(&release.parse().unwrap());
        assert!(has("6.1.0-50-amd64") && has("6.1.176") && has("6.1") && has("6.1-rc8") && has("6.1+"));
        assert!(!has("6.12.1") && !has("6.10") && !has("5.6.1") && !has("16.1"));
        for bad in ["6", "6.", "6.1.", "6.1.0.1", "6.x", ".1", "6.12345", "6.1-rc1", ""] {
            assert!(bad.parse::<KernelSeries>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn cve_ids_need_all_three_parts() {
        for bad in ["CVE-2026-1", "CVE-26-0001", "cve-2026-0001", "CVE-2026-00a1", "CVE-20260001"] {
            assert!(bad.parse::<CveId>().is_err(), "{bad:?} was taken");
        }
        assert!("CVE-2026-0001".parse::<CveId>().is_ok());
    }

    #[test]
    fn a_long_bad_name_is_cut_in_its_error() {
        let error = "x y".repeat(1000).parse::<ManifestName>().unwrap_err();
        assert_eq!(error.found.chars().count(), 80);
    }
}
