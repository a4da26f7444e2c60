//! dpkg: Debian's package manager below apt.
//!
//! Invariants:
//! - A package file is handed over as the descriptor that was hashed, by its link in `/proc`, never by a name that
//!   somebody else could have given to other bytes meanwhile.
//! - Nothing that dpkg starts holds the host's lock: maintainer scripts start daemons, which live on. A dpkg that outlives
//!   this process is told by its own lock ([`Packages::holder`]).
//! - Nobody is asked anything: an operator's configuration files are kept, here and when what was cut short is finished.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use system::command::{CommandError, Finished, Invocation, WhenLate};

use crate::model::Pid;
use crate::packages::{Described, Hold, Installed, PackageError, PackageId, PackageState, Packages};
use crate::processes::procfs;

/// What dpkg and its frontends lock while they work (dpkg(1), `DPKG_FRONTEND_LOCKED`).
const LOCKS: [&str; 2] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"];

/// dpkg writes and syncs every file, and waits for maintainer scripts. It is never killed: half-way is no place to be.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The scripts that a package may bring (Debian Policy 6.1).
const SCRIPTS: [&str; 5] = ["config", "postinst", "postrm", "preinst", "prerm"];

/// The package manager `dpkg`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dpkg;

impl Packages for Dpkg {
    fn installed(&self, package: &PackageId) -> Result<Option<Installed>, PackageError> {
        let doing = || format!("ask dpkg about {package}");
        let format = "--showformat=${db:Status-Want} ${db:Status-Status} ${db:Status-Eflag} ${Version}\n";
        let asked = Invocation::new("dpkg-query").args(["--show", format, "--"]).arg(package.to_string());
        let answer = asked.run().map_err(|source| PackageError::Command { doing: doing(), source })?;
        match answer.status.code() {
            // Its word for a package that it has never heard of.
            Some(1) => Ok(None),
            _ => installed(package, &text(answer.success(), doing)?),
        }
    }

    fn broken(&self) -> Result<Vec<(String, String)>, PackageError> {
        let format = "--showformat=${binary:Package} ${db:Status-Status} ${db:Status-Eflag}\n";
        let answer = Invocation::new("dpkg-query").args(["--show", format]).output();
        Ok(broken(&text(answer, || "ask dpkg which packages are not whole".to_owned())?))
    }

    fn holder(&self) -> Result<Option<String>, PackageError> {
        for path in LOCKS {
            let failed = |source| PackageError::Lock { path, source };
            let file = match OpenOptions::new().read(true).write(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            let mut lock = libc::flock {
                l_type: libc::F_WRLCK as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            fcntl(&file, FcntlArg::F_GETLK(&mut lock)).map_err(|errno| failed(errno.into()))?;
            if lock.l_type != libc::F_UNLCK as libc::c_short {
                let name = u32::try_from(lock.l_pid).ok().and_then(|pid| procfs::comm(Pid(pid)));
                let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
                return Ok(Some(format!("pid {}{name}, by {path}", lock.l_pid)));
            }
        }
        Ok(None)
    }

    fn describe(&self, file: &File) -> Result<Described, PackageError> {
        let doing = || "read what a package says of itself".to_owned();
        let fields = Invocation::new("dpkg-deb")
            .args(["--show", "--showformat=${Package} ${Version} ${Architecture}\n"])
            .arg(link(file))
            .output();
        let fields = text(fields, doing)?;
        let names = Invocation::new("dpkg-deb").arg("--ctrl-tarfile").arg(link(file)).output();
        let names = names.map_err(|source| PackageError::Command { doing: doing(), source })?;
        let scripts = scripts(&names).map_err(|error| unexpected("its control files", &error.to_string()))?;
        let mut words = fields.split_whitespace();
        let mut word = || words.next().unwrap_or_default();
        let (name, version, architecture) = (word(), word(), word());
        match (name.parse(), version.parse(), architecture.parse()) {
            (Ok(name), Ok(version), Ok(architecture)) => {
                Ok(Described { package: PackageId { name, architecture }, version, scripts })
            }
            _ => Err(unexpected("a package file", &fields)),
        }
    }

    fn install(&self, files: &[File]) -> Result<(), PackageError> {
        work(["--install"], files.iter().map(link), "install packages")
    }

    fn configure_pending(&self) -> Result<(), PackageError> {
        work(["--configure", "--pending"], [], "finish what dpkg has begun")
    }
}

/// A run of dpkg that changes the host.
fn work<const N: usize>(
    action: [&str; N],
    files: impl IntoIterator<Item = PathBuf>,
    doing: &str,
) -> Result<(), PackageError> {
    let run = Invocation::new("dpkg")
        .args(["--force-confold"])
        .args(action)
        .args(files)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("HOME", "/root")
        .limit(PATIENCE, WhenLate::Leave)
        .may_leave_daemons()
        .run();
    match run.and_then(Finished::success) {
        Ok(_) => Ok(()),
        // Nothing was begun: another one was quicker.
        Err(CommandError::Failed { stderr_tail, .. })
            if stderr_tail.contains("locked by another process") =>
        {
            Err(PackageError::Busy { holder: stderr_tail })
        }
        Err(source) => Err(PackageError::Command { doing: doing.to_owned(), source }),
    }
}

/// By which dpkg opens the very file that is open here.
fn link(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}

fn text(
    answer: Result<Vec<u8>, CommandError>,
    doing: impl FnOnce() -> String,
) -> Result<String, PackageError> {
    let bytes = answer.map_err(|source| PackageError::Command { doing: doing(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unexpected(about: &str, found: &str) -> PackageError {
    PackageError::Answer { about: about.to_owned(), found: found.trim_end().chars().take(200).collect() }
}

/// `WANT STATUS ERROR VERSION`, in the words of dpkg(1).
fn installed(package: &PackageId, answer: &str) -> Result<Option<Installed>, PackageError> {
    let wrong = || unexpected(&package.to_string(), answer);
    let mut words = answer.split_whitespace();
    let (Some(want), Some(status), Some(error)) = (words.next(), words.next(), words.next()) else {
        return Err(wrong());
    };
    if matches!(status, "not-installed" | "config-files") {
        return Ok(None);
    }
    let version = words.next().and_then(|version| version.parse().ok()).ok_or_else(wrong)?;
    let hold = if want == "hold" { Hold::Held } else { Hold::Free };
    Ok(Some(Installed { version, state: state(status, error), hold }))
}

fn state(status: &str, error: &str) -> PackageState {
    match (status, error) {
        ("installed", "ok") => PackageState::Whole,
        (status, "ok") => PackageState::Broken(status.to_owned()),
        (status, error) => PackageState::Broken(format!("{status}, {error}")),
    }
}

/// The packages of `PACKAGE STATUS ERROR` lines that are neither whole nor gone.
fn broken(answer: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (package, status, error) = (words.next()?, words.next()?, words.next()?);
        match state(status, error) {
            PackageState::Broken(how) if !matches!(status, "not-installed" | "config-files") => {
                Some((package.to_owned(), how))
            }
            _ => None,
        }
    };
    answer.lines().filter_map(parse).collect()
}

/// The maintainer scripts in an archive of control files.
fn scripts(archive: &[u8]) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if SCRIPTS.contains(&name) {
            found.push(name.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PackageId {
        let (name, architecture) = text.split_once(':').unwrap();
        PackageId { name: name.parse().unwrap(), architecture: architecture.parse().unwrap() }
    }

    #[test]
    fn what_dpkg_says_of_a_package_is_read() {
        let read = |answer: &str| installed(&id("libssl3:amd64"), answer).unwrap();
        let whole = read("install installed ok 3.0.17-1~deb12u3\n").unwrap();
        assert_eq!(
            (whole.version.as_str(), whole.state, whole.hold),
            ("3.0.17-1~deb12u3", PackageState::Whole, Hold::Free)
        );
        assert_eq!(read("hold installed ok 3.0.17-1\n").unwrap().hold, Hold::Held);
        for (answer, how) in [
            ("install half-installed reinstreq 1.0-1\n", "half-installed, reinstreq"),
            ("install unpacked ok 1.0-1\n", "unpacked"),
            ("install half-configured ok 1.0-1\n", "half-configured"),
            ("install triggers-pending ok 1.0-1\n", "triggers-pending"),
        ] {
            assert_eq!(read(answer).unwrap().state, PackageState::Broken(how.to_owned()), "{answer}");
        }
        for gone in ["deinstall config-files ok 1.0-1\n", "unknown not-installed ok \n"] {
            assert_eq!(read(gone), None, "{gone}");
        }
        for wrong in ["", "install installed\n", "install installed ok not~a~version\n"] {
            assert!(installed(&id("libssl3:amd64"), wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn packages_that_are_neither_whole_nor_gone_are_told() {
        let answer =
            "adduser installed ok\nold config-files ok\nnew unpacked ok\nbad half-installed reinstreq\n";
        let told: Vec<_> =
            broken(answer).into_iter().map(|(package, how)| format!("{package}: {how}")).collect();
        assert_eq!(told, ["new: unpacked", "bad: half-installed, reinstreq"]);
    }

    #[test]
    fn maintainer_scripts_are_told_and_other_control_files_are_not() {
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["./", "./control", "./md5sums", "./prerm", "./postinst", "./triggers"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_entry_type(if name == "./" {
                tar::EntryType::Directory
            } else {
                tar::EntryType::Regular
            });
            archive.append_data(&mut header, name, io::empty()).unwrap();
        }
        assert_eq!(scripts(&archive.into_inner().unwrap()).unwrap(), ["postinst", "prerm"]);
        assert!(scripts(&[7; 700]).is_err());
    }
}
