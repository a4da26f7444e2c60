//! Programs that run from a tree of their own, beside what is installed.
//!
//! Where a package conflicts with one that is installed, it is downloaded with everything that it depends on,
//! the C library included, and unpacked into the lab's cache. Its programs are started by that tree's own loader, so
//! no library of one side meets one of the other. What a maintainer's script would do is not done: this is for
//! programs that need no set-up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use super::cache::{Cache, Recipe};
use super::host::{built, program, run};
use super::install;
use super::steps::Step;

const FORMAT: &str = "aside-1";

/// A package whose programs can be set aside.
#[derive(Debug, Clone, Copy)]
pub struct Aside {
    /// The package.
    pub package: &'static str,
    /// Its programs, all in `/usr/bin`.
    pub programs: &'static [&'static str],
    /// Arguments that come first, for the shell; `$tree` is the tree.
    pub arguments: &'static str,
    /// An argument with which each program does nothing and succeeds.
    pub proof: &'static str,
}

/// A package that is only ever unpacked, for one program that the machine's own libraries are enough for.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    /// The package.
    pub package: &'static str,
    /// Its program, below its root.
    pub program: &'static str,
    /// An argument with which it does nothing and succeeds.
    pub proof: &'static str,
}

/// Makes the program of a package available to [`super::host::find_program`], and nothing else of it.
///
/// # Errors
/// When it cannot be downloaded or unpacked, or does not run.
pub fn provide_alone(cache: &Cache, alone: &Alone) -> Result<()> {
    let Alone { package, program: path, proof } = alone;
    let name = path.rsplit('/').next().unwrap_or(path);
    let tree = cache.entry(&format!("alone-{package}"), &Recipe::of([FORMAT, package]), |dir| {
        let step = Step::begin(&format!("unpacking {package}"));
        let archives = tempfile::tempdir_in(dir.parent().unwrap_or(dir))?;
        run(&mut install::download(package, archives.path()))?;
        for deb in fs::read_dir(archives.path())? {
            run(program("dpkg-deb").arg("-x").arg(deb?.path()).arg(dir))?;
        }
        step.end();
        Ok(())
    })?;
    let unpacked = tree.join(path);
    run(built(&unpacked).arg(proof)).with_context(|| format!("{name} does not run from its own tree"))?;
    let new = cache.tools().join(format!(".{name}.new"));
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(&unpacked, &new)?;
    fs::rename(&new, cache.tools().join(name))?;
    Ok(())
}

/// Makes the programs of a package available to [`super::host::find_program`].
///
/// # Errors
/// When it cannot be downloaded or unpacked, or does not run.
pub fn provide(cache: &Cache, aside: &Aside) -> Result<()> {
    let recipe = Recipe::of([FORMAT, aside.package]);
    let tree = cache.entry(&format!("aside-{}", aside.package), &recipe, |dir| unpack(dir, aside.package))?;
    for name in aside.programs {
        let wrapper = cache.tools().join(name);
        let new = cache.tools().join(format!(".{name}.new"));
        fs::write(&new, script(&tree, name, aside.arguments)?)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        run(built(&new).arg(aside.proof))
            .with_context(|| format!("{name} does not run from its own tree"))?;
        fs::rename(&new, &wrapper)?;
        eprintln!("lab: {name} runs from {}", tree.display());
    }
    Ok(())
}

fn unpack(dir: &Path, package: &str) -> Result<()> {
    let step = Step::begin(&format!("unpacking {package} beside what is installed"));
    let scratch = tempfile::tempdir_in(dir.parent().unwrap_or(dir))?;
    let archives = scratch.path().join("archives");
    run(&mut install::download_closure(package, &archives, scratch.path())?)?;
    let mut count = 0;
    for deb in fs::read_dir(&archives)? {
        let deb = deb?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            run(program("dpkg-deb").arg("-x").arg(&deb).arg(dir))?;
            count += 1;
        }
    }
    ensure!(count > 0, "apt-get downloaded no package for {package}");
    step.end();
    Ok(())
}

/// The shell script that starts the program.
fn script(tree: &Path, name: &str, arguments: &str) -> Result<String> {
    // Before Debian 13 packages bring `/lib` as a directory of its own.
    let libraries: Vec<PathBuf> =
        ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| tree.join(dir)).into_iter().collect();
    let loader = libraries
        .iter()
        .map(|dir| dir.join("ld-linux-x86-64.so.2"))
        .find(|loader| loader.exists())
        .ok_or_else(|| anyhow!("there is no loader in {}", tree.display()))?;
    let path: Vec<String> = libraries.iter().map(|dir| dir.display().to_string()).collect();
    Ok(format!(
        "#!/bin/sh\n\
        # Made by the lab: {name} with the libraries of its own tree.\n\
        tree='{tree}'\n\
        export QEMU_MODULE_DIR=\"$tree/usr/lib/x86_64-linux-gnu/qemu\"\n\
        exec '{loader}' --library-path '{path}' --argv0 '{name}' \"$tree/usr/bin/{name}\" {arguments} \"$@\"\n",
        tree = tree.display(),
        loader = loader.display(),
        path = path.join(":"),
    ))
}
