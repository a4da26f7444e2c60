//! Unpacks the compilers of Debian's suites into the cache, for `tests/matrix.rs`.
//!
//! `cargo run -p patch-tools --example fetch-compilers [NAME…]`: all of them take 2 GB. Nothing is installed: the
//! packages of a compiler and the libraries of its own suite are unpacked into a directory, from which it runs
//! with its own dynamic linker. apt fetches and checks them, with lists and settings of its own, so the host's
//! stay as they are. GCC comes as the compiler proper; the assembler is the host's.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use patch_tools::build::cache::Cache;

/// The compiler, the suite that has it, and the package that it comes in.
const COMPILERS: [(&str, &str, &str); 12] = [
    ("gcc-11", "bookworm", "cpp-11"),
    ("gcc-12", "bookworm", "cpp-12"),
    ("gcc-13", "trixie", "cpp-13"),
    ("gcc-14", "trixie", "cpp-14"),
    ("gcc-15", "forky", "cpp-15"),
    ("gcc-16", "sid", "cpp-16"),
    ("clang-14", "bookworm", "clang-14"),
    ("clang-15", "bookworm", "clang-15"),
    ("clang-16", "bookworm", "clang-16"),
    ("clang-17", "trixie", "clang-17"),
    ("clang-18", "trixie", "clang-18"),
    ("clang-19", "trixie", "clang-19"),
];

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let base = Cache::of_user()?.packages();
    let base = base.parent().context("a cache")?.join("compilers");
    for (name, suite, package) in COMPILERS {
        let root = base.join(name);
        if root.is_dir() || !(wanted.is_empty() || wanted.iter().any(|one| one == name)) {
            continue;
        }
        println!("{name} from {suite}");
        let apt = Apt::new(&base.join("apt").join(suite), suite)?;
        unpack(&apt, package, &root).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// Unpacks a package and the libraries that it needs. The directory appears when it is complete.
fn unpack(apt: &Apt, package: &str, root: &Path) -> anyhow::Result<()> {
    let parent = root.parent().context("a directory for compilers")?;
    let partial = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?;
    let debs = tempfile::tempdir()?;
    let needed: Vec<String> = apt.needed(package)?.into_iter().filter(|name| is_run(name)).collect();
    ensure!(!needed.is_empty(), "apt names no packages for {package}");
    run(apt.command("apt-get").arg("download").args(&needed).current_dir(debs.path()))?;
    for deb in fs::read_dir(debs.path())? {
        run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(partial.path()))?;
    }
    let shared = partial.path().join("usr/share");
    if shared.is_dir() {
        fs::remove_dir_all(shared)?;
    }
    fs::rename(partial.keep(), root)?;
    Ok(())
}

/// Whether a package has something that a compiler runs with, rather than what it compiles against.
fn is_run(package: &str) -> bool {
    let of_compiler = ["cpp", "gcc", "clang", "lib"].iter().any(|start| package.starts_with(start));
    of_compiler && !package.ends_with("-dev")
}

/// apt with lists and settings of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(state: &Path, suite: &str) -> anyhow::Result<Self> {
        let (lists, archives) = (state.join("lists"), state.join("cache/archives"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(archives.join("partial"))?;
        let (sources, status) = (state.join("sources.list"), state.join("status"));
        fs::write(&sources, format!("deb [signed-by={KEYRING}] {MIRROR} {suite} main\n"))?;
        // Nothing counts as installed, so all that is needed is named.
        fs::write(&status, "")?;
        let path = |name: &str, path: &PathBuf| format!("{name}={}", path.display());
        let options = vec![
            path("Dir::State", &state.to_owned()),
            path("Dir::State::lists", &lists),
            path("Dir::State::status", &status),
            path("Dir::Cache", &state.join("cache")),
            path("Dir::Etc::sourcelist", &sources),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = Self { options };
        run(apt.command("apt-get").args(["--quiet", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }

    /// Names of a package and of all that it depends on.
    fn needed(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let listed = run(self.command("apt-get").args(["install", "--print-uris", "--yes", package]))?;
        let file = |line: &str| line.starts_with('\'').then(|| line.split(' ').nth(1).map(str::to_owned))?;
        let files = listed.lines().filter_map(file);
        Ok(files.filter_map(|file| file.split_once('_').map(|(name, _)| name.to_owned())).collect())
    }
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let arguments: Vec<&OsStr> = command.get_args().collect();
        bail!("{} {arguments:?}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
