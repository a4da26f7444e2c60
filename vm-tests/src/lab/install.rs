//! Installs packages without ever removing or downgrading one.
//!
//! Every transaction is simulated first. What apt refuses to add to this machine as it is comes back as a
//! [`Conflict`] with apt's own reason; nothing has been changed by then.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::host::{is_root, program, run};
use super::steps::Step;

/// For every call: no removal, no questions, messages that can be read here, and patience with another apt.
const OPTIONS: &[&str] = &[
    "--yes",
    "--no-remove",
    "--no-install-recommends",
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "Dpkg::Use-Pty=0",
];

/// What Debian's packages of PostgreSQL read when they are installed. Without it they make a cluster and start its server;
/// a test starts a server of its own.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/no-main-cluster.conf";

/// What has to happen so that packages are there.
#[derive(Debug, Default)]
pub struct Plan {
    /// They can be installed together.
    pub install: Vec<String>,
    /// They cannot be installed beside what is.
    pub conflicts: Vec<Conflict>,
}

/// A package that does not go with what is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The package that was wanted.
    pub package: String,
    /// Installed packages that would have to go, and apt's reasons.
    reason: Reason,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, reason } = self;
        write!(f, "{package} cannot be installed beside what is installed: {reason}; nothing was changed")
    }
}

/// What apt says when it refuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Reason {
    removed: Vec<String>,
    downgraded: Vec<String>,
    said: Vec<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = [("remove", &self.removed), ("downgrade", &self.downgraded)];
        for (what, packages) in sets.iter().filter(|(_, packages)| !packages.is_empty()) {
            write!(f, "apt would {what} {} (", packages.join(" "))?;
            write!(f, "either {what} it yourself, or install a version that goes with it), ")?;
        }
        write!(f, "apt says: {}", self.said.join(" "))
    }
}

impl Reason {
    /// Reads the output of an `apt-get` that failed (with `LC_ALL=C`).
    fn parse(output: &str) -> Self {
        let mut reason = Self::default();
        let mut list: Option<&mut Vec<String>> = None;
        for line in output.lines() {
            match (line, &mut list) {
                ("The following packages will be REMOVED:", _) => list = Some(&mut reason.removed),
                ("The following packages will be DOWNGRADED:", _) => list = Some(&mut reason.downgraded),
                ("The following packages have unmet dependencies:", _) => list = Some(&mut reason.said),
                (line, Some(list)) if line.starts_with(' ') => {
                    list.extend(line.split_whitespace().map(|word| word.trim_end_matches('*').to_owned()));
                }
                (line, _) => {
                    list = None;
                    reason.said.extend(line.strip_prefix("E: ").map(str::to_owned));
                }
            }
        }
        reason
    }

    /// The version of a package from the same source that is here, where apt wants exactly another one.
    fn siblings_version(&self) -> Option<String> {
        let said = self.said.join(" ");
        let (_, found) = said.split_once(" (= ")?.1.split_once(") but ")?;
        let (version, _) =
            found.split_once(" is to be installed").or_else(|| found.split_once(" is installed"))?;
        Some(version.to_owned())
    }
}

/// Finds out which of `packages` can be installed together, and which cannot at all.
///
/// # Errors
/// When apt does not know one of them, or those that can be installed alone cannot be installed together.
pub fn plan(packages: &[&str]) -> Result<Plan> {
    let owned = |packages: &[&str]| packages.iter().map(|package| (*package).to_owned()).collect();
    if simulate(packages)?.is_none() {
        return Ok(Plan { install: owned(packages), conflicts: Vec::new() });
    }
    let (mut fine, mut conflicts) = (Vec::new(), Vec::new());
    for package in packages {
        let Some(reason) = simulate(&[package])? else {
            fine.push((*package).to_owned());
            continue;
        };
        // The headers of a library that came from elsewhere come from there, too.
        match reason.siblings_version().map(|version| format!("{package}={version}")) {
            Some(sibling) if simulate(&[&sibling]).is_ok_and(|refusal| refusal.is_none()) => {
                fine.push(sibling)
            }
            _ => conflicts.push(Conflict { package: (*package).to_owned(), reason }),
        }
    }
    let together: Vec<&str> = fine.iter().map(String::as_str).collect();
    if let Some(reason) = simulate(&together)? {
        bail!("{} cannot be installed together: {reason}; nothing was changed", fine.join(" "));
    }
    Ok(Plan { install: fine, conflicts })
}

/// Why apt would not install all of these; none when it would.
fn simulate(packages: &[&str]) -> Result<Option<Reason>> {
    if packages.is_empty() {
        return Ok(None);
    }
    let mut command = program("apt-get");
    command.args(OPTIONS).args(["--simulate", "install"]).args(packages).env("LC_ALL", "C");
    let output = command.stdin(Stdio::null()).output().context("starting apt-get")?;
    if output.status.success() {
        return Ok(None);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let reason = Reason::parse(&(text(&output.stdout) + &text(&output.stderr)));
    let unknown = ["Unable to locate package", "has no installation candidate"];
    if let Some(line) = reason.said.iter().find(|line| unknown.iter().any(|words| line.contains(words))) {
        bail!(
            "the package sources of this machine do not have what the lab needs: {line}; it needs those of \
            Debian 12 or later with their lists (`apt-get update`)"
        );
    }
    Ok(Some(reason))
}

/// The command that installs these packages.
pub fn install_line(packages: &[String]) -> Vec<String> {
    let words = ["apt-get"].iter().chain(OPTIONS).chain(&["install"]).map(|word| (*word).to_owned());
    words.chain(packages.iter().cloned()).collect()
}

/// Runs the command of [`install_line`]. Lists that are out of date are fetched once more.
///
/// # Errors
/// When apt fails; its last words are in the message.
pub fn install(line: &[String]) -> Result<()> {
    if line.iter().any(|package| package.starts_with("postgresql")) {
        make_no_cluster(Path::new(NO_CLUSTER))?;
    }
    let command = || {
        let mut command = program(&line[0]);
        command.args(&line[1..]).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    };
    let mut download = command();
    if run(download.arg("--download-only")).is_err() {
        update()?;
    }
    run(&mut command()).context(
        "the packages that the lab needs are not all installed; nothing that was there has been removed",
    )?;
    Ok(())
}

/// Says that no cluster is to be made, unless somebody has said something there already.
fn make_no_cluster(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    let words = "# Written before the packages were installed, for tests that start servers of their own.\n\
                 create_main_cluster = false\n";
    match std::fs::File::create_new(path) {
        Ok(mut file) => {
            file.write_all(words.as_bytes()).with_context(|| format!("writing {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("writing {}", path.display())),
    }
}

/// Fetches the package lists if this machine has none.
pub fn refresh_lists() -> Result<()> {
    let lists = Path::new("/var/lib/apt/lists");
    let have = std::fs::read_dir(lists)
        .map(|entries| entries.flatten().any(|e| e.file_name().to_string_lossy().contains("_Packages")))
        .unwrap_or(false);
    if have { Ok(()) } else { update() }
}

fn update() -> Result<()> {
    ensure!(is_root(), "this machine has no current package lists; run: sudo apt-get update");
    let step = Step::begin("fetching package lists");
    run(program("apt-get").arg("update"))?;
    step.end();
    Ok(())
}

/// A command that downloads one package, and nothing that it depends on, into `archives`.
pub fn download(package: &str, archives: &Path) -> Command {
    let mut command = program("apt-get");
    command.args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(archives);
    command.env("LC_ALL", "C");
    command
}

/// A command that downloads packages with all that they depend on into `archives`, as if nothing was installed.
///
/// `scratch` is for apt's own files.
pub fn download_closure(package: &str, archives: &Path, scratch: &Path) -> Result<Command> {
    let nothing_installed = scratch.join("status");
    std::fs::write(&nothing_installed, "")?;
    std::fs::create_dir_all(archives.join("partial"))?;
    let mut command = program("apt-get");
    command.args(OPTIONS).args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
    command.arg("-o").arg(format!("Dir::State::status={}", nothing_installed.display()));
    command.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
    command.args(["--download-only", "install", package]).env("LC_ALL", "C");
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: &str = "Reading package lists...\nThe following additional packages will be installed:\n  \
        seabios\nThe following packages will be REMOVED:\n  qemu-utils tool*\nThe following NEW packages will be \
        installed:\n  qemu-system-x86\nE: Packages need to be removed but remove is disabled.\n";

    #[test]
    fn a_refusal_names_what_would_be_removed() {
        let reason = Reason::parse(REFUSAL);
        assert_eq!(reason.removed, ["qemu-utils", "tool"]);
        assert_eq!(reason.said, ["Packages need to be removed but remove is disabled."]);
        let conflict = Conflict { package: "qemu-system-x86".to_owned(), reason };
        let said = conflict.to_string();
        for word in ["qemu-system-x86 cannot", "apt would remove qemu-utils tool", "nothing was changed"] {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_refusal_names_dependencies_that_are_not_met() {
        let reason = Reason::parse(
            "The following packages have unmet dependencies:\n a : Depends: b (= 2) but 3 is to be installed\n\
            E: Unable to correct problems, you have held broken packages.\n",
        );
        assert!(reason.to_string().contains("a : Depends: b (= 2) but 3 is to be installed"), "{reason}");
        assert_eq!(reason.siblings_version().as_deref(), Some("3"));
    }

    #[test]
    fn no_cluster_is_made_and_what_somebody_wrote_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postgresql-common/createcluster.d/no-main-cluster.conf");
        make_no_cluster(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\ncreate_main_cluster = false\n"));
        std::fs::write(&path, "theirs").unwrap();
        make_no_cluster(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn no_transaction_may_remove_anything() {
        let line = install_line(&["qemu-utils".to_owned()]);
        assert!(line.contains(&"--no-remove".to_owned()), "{line:?}");
        assert!(!line.iter().any(|word| word.starts_with("--allow")), "{line:?}");
    }
}
