//! Packages of any Debian suite, without a change to this machine's own package sources.
//!
//! apt gets a configuration of its own in the lab's cache: a sources list that is made of the mirrors which this
//! machine uses already and of the suites' names, lists and state of its own, and an empty record of what is
//! installed. What is fetched is checked against the keys in `debian-archive-keyring`. Nothing is installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::cache::Cache;
use super::host::{self, Step, program, run};

/// The suites that kernels come from, each with where its own later additions are.
const SUITES: &[(&str, &[&str], Option<&str>)] = &[
    ("bookworm", &["bookworm-updates", "bookworm-backports"], Some("bookworm-security")),
    ("trixie", &["trixie-updates", "trixie-backports"], Some("trixie-security")),
    ("forky", &[], None),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists older than this are fetched again when a package is not in them.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// apt with its own configuration.
#[derive(Debug, Clone)]
pub struct Apt {
    root: PathBuf,
}

impl Apt {
    /// The lab's apt, with lists fetched if there are none.
    pub fn open(cache: &Cache) -> Result<Self> {
        let apt = Self { root: cache.directory("apt")? };
        let lock = File::create(cache.lock_file("apt"))?;
        lock.lock().context("waiting for another process that fetches package lists")?;
        if !apt.fetched().is_file() {
            apt.update()?;
        }
        Ok(apt)
    }

    /// The versions of a package in all suites, the newest first; none if no suite has it.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let mut versions = self.listed(package)?;
        if versions.is_empty() && self.is_stale() {
            self.update()?;
            versions = self.listed(package)?;
        }
        Ok(versions)
    }

    /// What a package depends on, without alternatives.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let listed = run(self.program("apt-cache").args(["depends", package]))?;
        let listed = String::from_utf8_lossy(&listed);
        Ok(listed.lines().filter_map(|line| line.strip_prefix("  Depends: ")).map(str::to_owned).collect())
    }

    /// Downloads packages, each a name or `name=version`, and unpacks them into `target`.
    pub fn unpack(&self, packages: &[String], target: &Path) -> Result<()> {
        let debs = tempfile::tempdir_in(target.parent().unwrap_or(target))?;
        self.download(packages, debs.path())?;
        fs::create_dir_all(target)?;
        for deb in fs::read_dir(debs.path())? {
            run(program("dpkg-deb").arg("-x").arg(deb?.path()).arg(target))?;
        }
        Ok(())
    }

    /// Downloads packages, each a name or `name=version`, into a directory.
    pub fn download(&self, packages: &[String], directory: &Path) -> Result<()> {
        run(self.program("apt-get").arg("download").args(packages).current_dir(directory)).with_context(
            || format!("no suite of {} has all of {}", suite_names().join(", "), packages.join(", ")),
        )?;
        Ok(())
    }

    fn listed(&self, package: &str) -> Result<Vec<String>> {
        let listed = run(self.program("apt-cache").args(["madison", package]))?;
        let mut versions: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(&listed).lines() {
            let mut columns = line.split('|').map(str::trim);
            if let (Some(name), Some(version)) = (columns.next(), columns.next())
                && name == package
                && !versions.iter().any(|known| known == version)
            {
                versions.push(version.to_owned());
            }
        }
        Ok(versions)
    }

    fn update(&self) -> Result<()> {
        ensure!(Path::new(KEYRING).is_file(), "the keys of Debian's archive are not here: {KEYRING}");
        let step = Step::begin("fetching the package lists of all suites");
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.root.join(directory))?;
        }
        fs::write(self.root.join("status"), "")?;
        fs::write(self.sources(), sources(&Mirrors::of_this_machine()?))?;
        if let Err(error) = run(self.program("apt-get").arg("update")) {
            // A suite that is not to be had (one that nobody signs any more, say) is missed by those alone who want it.
            ensure!(self.has_lists()?, "{error:#}");
            eprintln!("lab: not all package lists could be fetched: {error:#}");
        }
        File::create(self.fetched())?;
        step.end();
        Ok(())
    }

    fn has_lists(&self) -> Result<bool> {
        let lists = fs::read_dir(self.root.join("state/lists"))?;
        Ok(lists.flatten().any(|list| list.file_name().to_string_lossy().contains("_Packages")))
    }

    fn is_stale(&self) -> bool {
        let fetched = fs::metadata(self.fetched()).and_then(|marker| marker.modified());
        fetched.map_or(true, |time| SystemTime::now().duration_since(time).is_ok_and(|age| age > STALE))
    }

    fn fetched(&self) -> PathBuf {
        self.root.join("fetched")
    }

    fn sources(&self) -> PathBuf {
        self.root.join("sources.list")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = program(name);
        let directory = |name: &str| self.root.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::SourceList", self.sources().display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State", directory("state")),
            ("Dir::State::status", directory("status")),
            ("Dir::Cache", directory("cache")),
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".to_owned()),
            // Descriptions for software centres are larger than the lists.
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }
}

fn suite_names() -> Vec<&'static str> {
    SUITES.iter().map(|(suite, ..)| *suite).collect()
}

/// Where this machine gets Debian's packages.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    archive: String,
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        host::refresh_apt_lists()?;
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let targets = program("apt-get")
            .args(["indextargets", "--format", format, "Created-By: Packages"])
            .output()
            .context("asking apt-get for this machine's mirrors")?;
        Self::among(&String::from_utf8_lossy(&targets.stdout))
    }

    fn among(targets: &str) -> Result<Self> {
        let labelled = |wanted: &str| {
            targets
                .lines()
                .find_map(|line| line.strip_prefix("Debian|")?.strip_prefix(wanted)?.strip_prefix('|'))
        };
        match labelled("Debian") {
            Some(archive) => Ok(Self {
                archive: archive.to_owned(),
                security: labelled("Debian-Security").map(str::to_owned),
            }),
            None => bail!("apt of this machine has no mirror of Debian's archive in its sources"),
        }
    }
}

fn sources(mirrors: &Mirrors) -> String {
    let mut list = String::new();
    let mut add = |mirror: &str, suite: &str| {
        list.push_str(&format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"));
    };
    for (suite, additions, security) in SUITES {
        for name in [suite].into_iter().chain(*additions) {
            add(&mirrors.archive, name);
        }
        if let Some((mirror, suite)) = mirrors.security.as_ref().zip(*security) {
            add(mirror, suite);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirrors_are_debians_and_nobody_elses() {
        let targets = "|Other|https://packages.example/apt/\nDebian|Debian-Security|http://mirror.example/s/\n\
                       Debian|Debian|http://mirror.example/d/\n";
        let mirrors = Mirrors::among(targets).unwrap();
        assert_eq!(mirrors.archive, "http://mirror.example/d/");
        assert_eq!(mirrors.security.as_deref(), Some("http://mirror.example/s/"));
        assert!(Mirrors::among("|Other|https://packages.example/apt/\n").is_err());
    }

    #[test]
    fn every_suite_is_listed_with_debians_keys() {
        let mirrors = Mirrors { archive: "http://mirror.example/d/".to_owned(), security: None };
        let list = sources(&mirrors);
        for suite in ["bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky"] {
            let line = format!("deb [signed-by={KEYRING}] http://mirror.example/d/ {suite} main\n");
            assert!(list.contains(&line), "{suite} is missing in:\n{list}");
        }
        assert!(!list.contains("security"));
    }
}
