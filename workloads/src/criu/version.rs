//! Which CRIU this host has: what it can dump differs by version.

use system::command::Invocation;

/// Major and minor version of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32);

impl Version {
    /// Dumps descriptors of processes that are in the dump themselves, or ended.
    pub(crate) const DUMPS_PIDFDS: Self = Self(4, 1);

    /// That of the installed program; `None` if there is none, or it does not say.
    pub(crate) fn installed() -> Option<Self> {
        let said = Invocation::new("criu").arg("--version").output().ok()?;
        Self::parse(&String::from_utf8_lossy(&said))
    }

    fn parse(said: &str) -> Option<Self> {
        let version = said.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
        let mut numbers = version.split(['.', '-', ' ']).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_criu_says() {
        assert_eq!(Version::parse("Version: 4.1.1\nGitID: v4.1.1\n"), Some(Version(4, 1)));
        assert_eq!(Version::parse("Version: 3.17.1\n"), Some(Version(3, 17)));
        assert_eq!(Version::parse("Version: 4.2-rc1\n"), Some(Version(4, 2)));
        assert_eq!(Version::parse("criu 4"), None);
        assert!(Version(3, 17) < Version::DUMPS_PIDFDS && Version(4, 1) >= Version::DUMPS_PIDFDS);
    }
}
