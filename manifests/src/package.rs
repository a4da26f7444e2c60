//! Versions of distribution packages, and which package a running kernel came from.
//!
//! Versions compare as Debian's do (`deb-version(7)`): `~` comes before everything, even the end, so that
//! a release candidate or a backport is older than the release. Versions of two distributions say nothing
//! about each other.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::names::Distribution;
use crate::scalar::word;

word! {
    /// A version as the package manager shows it: `6.1.176-1`, `1:2.3~rc1-0.1`.
    PackageVersion,
    what: "package version",
    rule: "1 to 128 characters of a Debian version: [EPOCH:]UPSTREAM[-REVISION], UPSTREAM starting with a digit",
    schema: { "pattern": r"^([0-9]{1,9}:)?[0-9][A-Za-z0-9.+~-]{0,127}$", "maxLength": 128 },
    check: |s| {
        let (epoch, rest) = s.split_once(':').unwrap_or(("0", s));
        s.len() <= 128
            && (1..=9).contains(&epoch.len())
            && rest.starts_with(|c: char| c.is_ascii_digit())
            && !rest.contains(':')
            && s.parse::<debversion::Version>().is_ok()
    }
}

impl PackageVersion {
    /// Which of two versions of one package is the later one.
    ///
    /// Not `Ord`: `1.0` and `1.00` are two texts and one version.
    pub fn compare(&self, other: &Self) -> Ordering {
        let parsed = |version: &Self| version.as_str().parse::<debversion::Version>();
        match (parsed(self), parsed(other)) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => unreachable!("every PackageVersion was parsed when it was made"),
        }
    }
}

/// The package that a kernel was built as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPackage {
    /// Whose package it is.
    pub distribution: Distribution,
    /// Its version.
    pub version: PackageVersion,
}

impl KernelPackage {
    /// What a kernel says of itself in `uname -v`: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-11-01)`.
    ///
    /// Nothing for a kernel that does not name its package; Debian's and its derivatives' that keep the form do.
    /// The kernel's own word is taken, not the package database's: another package may be installed than runs.
    pub fn of_uname_version(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, version) = words.windows(2).find_map(|pair| match pair {
            ["Debian", version] => Some(("debian", *version)),
            _ => None,
        })?;
        Some(Self { distribution: name.parse().ok()?, version: version.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> PackageVersion {
        text.parse().unwrap()
    }

    /// The order of `deb-version(7)`, oldest first.
    #[test]
    fn versions_come_in_debians_order() {
        let ordered = [
            "6.1~rc8-1",
            "6.1-1~exp1",
            "6.1-1",
            "6.1.9-1",
            "6.1.76-1~bpo11+1",
            "6.1.76-1",
            "6.1.76-1+b1",
            "6.1.176-1",
            "6.12.6-1",
            "1:1.0-1",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(version(pair[0]).compare(&version(pair[1])), Ordering::Less, "{pair:?}");
            assert_eq!(version(pair[1]).compare(&version(pair[0])), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(version("1.0-1").compare(&version("1.00-01")), Ordering::Equal);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for bad in
            ["", "abc", "1.0_2", "1 2", "1:", ":1", "-1", "99999999999:1", "1.0\n", "é", &"1".repeat(129)]
        {
            assert!(bad.parse::<PackageVersion>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_debian_kernel_names_its_package() {
        let package =
            KernelPackage::of_uname_version("#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-11-01)").unwrap();
        assert_eq!((package.distribution.as_str(), package.version.as_str()), ("debian", "6.1.176-1"));
        for other in
            ["#1 SMP PREEMPT_DYNAMIC Wed Nov 1 2026", "#50-Ubuntu SMP", "Debian", "Debian (2026-11-01)"]
        {
            assert_eq!(KernelPackage::of_uname_version(other), None, "{other}");
        }
    }
}
