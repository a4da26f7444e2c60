//! Python programs that only PyPI has, each in an environment of its own that the cache keeps.

use std::path::PathBuf;

use anyhow::Result;

use super::cache::{Cache, Recipe};
use super::host::{built, program, run};

/// The interpreter of an environment with these packages, each as `NAME==VERSION`.
///
/// # Errors
/// If they cannot be fetched or installed.
pub fn environment(cache: &Cache, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let environment = cache.entry(name, &Recipe::of(packages), |dir| {
        // It stays where it is made: its programs name their interpreter by its path, and are not used.
        run(program("python3").args(["-m", "venv"]).arg(dir))?;
        run(built(&dir.join("bin/python")).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        Ok(())
    })?;
    Ok(environment.join("bin/python"))
}
