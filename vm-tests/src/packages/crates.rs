//! Which crates are linked into a program: what Cargo says of this workspace, without what only compiles or tests it.
//!
//! Features of all programs are counted together, as the workspace resolves them: a crate too many may be listed, never one too few.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::lab::host::{cargo, run};
use crate::product::{TARGET, workspace};

/// The crates of this workspace and all that it depends on.
#[derive(Debug)]
pub struct Crates {
    packages: BTreeMap<String, Crate>,
    /// What each links.
    links: BTreeMap<String, Vec<String>>,
    /// SHA-256 of what the registry has, by name and version.
    checksums: BTreeMap<(String, String), String>,
}

/// A crate.
#[derive(Debug, Deserialize)]
pub struct Crate {
    /// Cargo's id of it, unlike any other's.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licences, as an SPDX expression.
    pub license: Option<String>,
    /// Who wrote it, if it says so.
    pub authors: Vec<String>,
    /// Where it comes from; nothing for the workspace's own.
    pub source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// The part of `cargo metadata` that is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Nothing for an ordinary one.
    kind: Option<String>,
}

impl Crate {
    /// Where its source is.
    pub fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("/"))
    }

    /// Whether it runs in the compiler and nowhere else.
    fn is_for_the_compiler(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }

    fn makes(&self, program: &str) -> bool {
        self.targets
            .iter()
            .any(|target| target.name == program && target.kind.iter().any(|kind| kind == "bin"))
    }
}

impl Crates {
    /// Asks Cargo.
    ///
    /// # Errors
    /// If it cannot tell, or the lock file cannot be read.
    pub fn read() -> Result<Self> {
        let mut ask = cargo();
        ask.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]);
        let metadata: Metadata = serde_json::from_slice(&run(ask.current_dir(workspace()?))?)?;
        let packages: BTreeMap<String, Crate> =
            metadata.packages.into_iter().map(|package| (package.id.clone(), package)).collect();
        let is_linked = |dependency: &Dependency| {
            dependency.dep_kinds.iter().any(|kind| kind.kind.is_none())
                && packages.get(&dependency.pkg).is_some_and(|package| !package.is_for_the_compiler())
        };
        let links = metadata.resolve.nodes.into_iter().map(|node| {
            let linked = node.deps.into_iter().filter(is_linked).map(|dependency| dependency.pkg);
            (node.id, linked.collect())
        });
        let links = links.collect();
        Ok(Self { packages, links, checksums: checksums()? })
    }

    /// The crate that makes a program, and all that are linked into it, by name and version.
    ///
    /// # Errors
    /// If no crate makes it.
    pub fn of(&self, program: &str) -> Result<Vec<&Crate>> {
        let root = self.maker(program)?;
        let (mut found, mut pending) = (BTreeSet::new(), vec![root.id.as_str()]);
        while let Some(id) = pending.pop() {
            if found.insert(id) {
                pending.extend(self.linked(id).iter().map(String::as_str));
            }
        }
        let mut crates: Vec<&Crate> = found.into_iter().filter_map(|id| self.packages.get(id)).collect();
        crates.sort_by_key(|one| (&one.name, &one.version));
        ensure!(crates.len() > 20, "only {} crates are linked into {program}", crates.len());
        Ok(crates)
    }

    /// The crate that makes a program.
    ///
    /// # Errors
    /// If none does.
    pub fn maker(&self, program: &str) -> Result<&Crate> {
        let mut packages = self.packages.values();
        packages
            .find(|one| one.source.is_none() && one.makes(program))
            .with_context(|| format!("no crate makes {program}"))
    }

    /// The ids of what a crate links itself.
    pub fn linked(&self, id: &str) -> &[String] {
        self.links.get(id).map_or(&[], Vec::as_slice)
    }

    /// The crate with this id.
    pub fn get(&self, id: &str) -> Option<&Crate> {
        self.packages.get(id)
    }

    /// SHA-256 of the archive that it came in.
    pub fn checksum(&self, one: &Crate) -> Option<&str> {
        self.checksums.get(&(one.name.clone(), one.version.clone())).map(String::as_str)
    }
}

fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let lock = cargo_lock::Lockfile::load(workspace()?.join("Cargo.lock"))?;
    let known = lock.packages.into_iter().filter_map(|package| {
        Some(((package.name.to_string(), package.version.to_string()), package.checksum?.to_string()))
    });
    Ok(known.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_compiles_or_tests_is_not() -> Result<()> {
        let crates = Crates::read()?;
        let names: BTreeSet<&str> = crates.of("update")?.iter().map(|one| one.name.as_str()).collect();
        for linked in ["updater", "libsqlite3-sys", "serde", "zeroize"] {
            assert!(names.contains(linked), "{linked}");
        }
        for other in ["serde_derive", "cc", "insta", "reqwest", "axum"] {
            assert!(!names.contains(other), "{other}");
        }
        assert!(crates.of("cowsay").is_err());
        let serde = crates.of("update")?.into_iter().find(|one| one.name == "serde").context("serde")?;
        assert_eq!(crates.checksum(serde).map(str::len), Some(64));
        Ok(())
    }
}
