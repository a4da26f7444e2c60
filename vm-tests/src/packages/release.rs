//! Which version is packed, and when it was released: what the first entry of `dist/changelog` says (deb-changelog(5)).
//!
//! Everything in a package is as old as that.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::lab::host::{program, run};
use crate::product::workspace;

/// A version that is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// In Debian's form: the workspace's version, a dash, and the revision of the packages.
    pub version: String,
    /// Its time, in seconds since 1970.
    pub epoch: u64,
    /// The whole changelog.
    pub changelog: String,
}

impl Release {
    /// That of this workspace.
    ///
    /// # Errors
    /// If its changelog cannot be read, or is about another version of the workspace.
    pub fn current() -> Result<Self> {
        let path = workspace()?.join("dist/changelog");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let release = Self::parse(&text)?;
        let ours = env!("CARGO_PKG_VERSION");
        ensure!(
            release.upstream() == ours,
            "dist/changelog begins with version {}, and the workspace is {ours}: add an entry",
            release.version
        );
        Ok(release)
    }

    /// Reads a changelog.
    ///
    /// # Errors
    /// If its first entry has no version with a revision, or no date.
    pub fn parse(changelog: &str) -> Result<Self> {
        let first = changelog.lines().next().unwrap_or_default();
        let version = first.strip_prefix("update (").and_then(|rest| rest.split_once(") "));
        let (version, _) =
            version.with_context(|| format!("expected `update (VERSION-REVISION) …`, found `{first}`"))?;
        ensure!(version.contains('-'), "{version} has no revision");
        let trailer = changelog.lines().find_map(|line| line.strip_prefix(" -- "));
        let (_, date) = trailer
            .and_then(|line| line.split_once(">  "))
            .context("the first entry has no ` -- NAME <ADDRESS>  DATE`")?;
        let epoch = run(program("date").args(["-u", "+%s", "-d", date]))?;
        let epoch = String::from_utf8(epoch)?.trim().parse()?;
        Ok(Self { version: version.to_owned(), epoch, changelog: changelog.to_owned() })
    }

    /// The next revision of the same version, an hour later, for tests of upgrades.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn next(&self) -> Result<Self> {
        let date = run(program("date").args(["-u", "-R", "-d", &format!("@{}", self.epoch + 3600)]))?;
        let entry = format!(
            "update ({}+next) unstable; urgency=medium\n\n  * Packed again.\n\n -- update maintainers <maintainers@update.example>  {}\n\n",
            self.version,
            String::from_utf8(date)?.trim()
        );
        Self::parse(&(entry + &self.changelog))
    }

    /// The workspace's version.
    pub fn upstream(&self) -> &str {
        self.version.split('-').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_time_are_those_of_the_first_entry() -> Result<()> {
        let current = Release::current()?;
        let next = current.next()?;
        assert_eq!(
            (next.version.as_str(), next.epoch),
            (format!("{}+next", current.version).as_str(), current.epoch + 3600)
        );
        assert_eq!(next.upstream(), current.upstream());
        for wrong in ["", "update (1.0) unstable; urgency=low\n", "other (1.0-1) unstable; urgency=low\n"] {
            assert!(Release::parse(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
