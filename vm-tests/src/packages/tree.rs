//! The files of a package.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::release::Release;
use super::{Package, Workshop, copyright};
use crate::lab::host::{built, program, run};
use crate::product::{files_under, workspace};

/// The shells whose completions are installed, and where each looks for those of a command.
const SHELLS: [(&str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/", ""),
    ("zsh", "usr/share/zsh/vendor-completions/_", ""),
    ("fish", "usr/share/fish/vendor_completions.d/", ".fish"),
];

/// Puts everything that a package installs into a directory.
pub(super) fn assemble(
    workshop: &Workshop<'_>,
    package: &Package,
    release: &Release,
    tree: &Path,
) -> Result<()> {
    let dist = workspace()?.join("dist").join(package.name);
    for (from, below) in files_under(&dist)? {
        put(tree, &below, &fs::read(&from)?)?;
    }
    for program in package.programs {
        let from = workshop.program(program.name)?;
        install(from, &tree.join(program.directory).join(program.name))?;
        if program.directory == "usr/bin" {
            documented(from, program.name, tree)?;
        }
    }
    let doc = format!("usr/share/doc/{}", package.name);
    put(tree, &format!("{doc}/copyright"), copyright::of(workshop, package)?.as_bytes())?;
    put(tree, &format!("{doc}/changelog.gz"), &gzip(&fs::read(workspace()?.join("CHANGELOG.md"))?)?)?;
    put(tree, &format!("{doc}/changelog.Debian.gz"), &gzip(release.changelog.as_bytes())?)
}

/// Without symbols: whoever wants them builds them again, and gets the same.
fn install(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no directory")?)?;
    run(program("strip").arg("-o").arg(to).arg(from))?;
    Ok(())
}

/// Manual pages and completions, by the program itself.
fn documented(from: &Path, name: &str, tree: &Path) -> Result<()> {
    let pages = tempfile::tempdir()?;
    run(built(from).arg("man").arg(pages.path()))?;
    for (page, below) in files_under(pages.path())? {
        put(tree, &format!("usr/share/man/man1/{below}.gz"), &gzip(&fs::read(page)?)?)?;
    }
    for (shell, before, after) in SHELLS {
        let script = run(built(from).args(["completions", shell]))?;
        put(tree, &format!("{before}{name}{after}"), &script)?;
    }
    Ok(())
}

fn put(tree: &Path, below: &str, bytes: &[u8]) -> Result<()> {
    let path = tree.join(below);
    fs::create_dir_all(path.parent().context("no directory")?)?;
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// As `gzip -9n`: without a name or a time.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

/// Gives everything the mode that follows from what it is, and the release's time, whatever the umask and the clock are.
pub(super) fn settle(tree: &Path, release: &Release) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(release.epoch);
    for path in everything(tree)? {
        let mode = if path.is_dir() || is_executable(&path)? { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        File::open(&path)?.set_modified(time)?;
    }
    Ok(())
}

/// Files and directories, what is in a directory before it, and the tree itself at the end.
fn everything(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tree)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(everything(&path)?) } else { found.push(path) }
    }
    found.push(tree.to_owned());
    Ok(found)
}

/// A program or a script.
fn is_executable(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(start.starts_with(b"\x7fELF") || start.starts_with(b"#!"))
}

/// Files that dpkg lets an administrator change: all below `/etc`.
pub(super) fn configuration(tree: &Path) -> Result<Vec<String>> {
    let etc = tree.join("etc");
    let files = if etc.is_dir() { files_under(&etc)? } else { Vec::new() };
    Ok(files.into_iter().map(|(_, below)| format!("/etc/{below}")).collect())
}
