//! What is in a package, for scanners: a CycloneDX 1.6 document in JSON beside it.
//!
//! The package contains programs; a program depends on the crate that makes it, that on what it links. Rust's standard library and, in static
//! programs, the C library are named too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::control::{Needed, c_library};
use super::crates::Crate;
use super::release::Release;
use super::{ARCHITECTURE, Package, Workshop};
use crate::fixtures::greet::digest_and_size;
use crate::lab::host::{program, run};
use crate::product::workspace;

/// Writes the document of a file that has these packages in it, beside it; its path.
pub(super) fn write(
    workshop: &Workshop<'_>,
    packages: &[&Package],
    release: &Release,
    file: &Path,
) -> Result<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut list = List { release, components: BTreeMap::new(), dependencies: BTreeMap::new() };
    let programs = packages.iter().flat_map(|package| package.programs);
    let programs =
        programs.map(|program| list.program(workshop, program.name)).collect::<Result<Vec<_>>>()?;
    list.dependencies.insert(name.clone(), programs);
    let dependencies = list.dependencies.iter().map(|(from, to)| json!({ "ref": from, "dependsOn": to }));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(release)?,
            "component": described(packages, release, file, &name)?,
        },
        "components": list.components.values().collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    });
    let path = file.with_file_name(format!("{name}.cdx.json"));
    fs::write(&path, serde_json::to_vec_pretty(&document)?)?;
    Ok(path)
}

/// The file itself.
fn described(packages: &[&Package], release: &Release, file: &Path, name: &str) -> Result<Value> {
    let mut component = json!({
        "type": "application",
        "bom-ref": name,
        "name": name,
        "version": release.version,
        "hashes": [sha256(&digest_and_size(file)?.0)],
    });
    if let [package] = packages {
        component["purl"] =
            format!("pkg:deb/{}@{}?arch={ARCHITECTURE}", package.name, escaped(&release.version)).into();
    }
    Ok(component)
}

struct List<'a> {
    release: &'a Release,
    /// By reference.
    components: BTreeMap<String, Value>,
    /// By reference.
    dependencies: BTreeMap<String, Vec<String>>,
}

impl List<'_> {
    /// Lists a program and all that is in it; the reference to it.
    fn program(&mut self, workshop: &Workshop<'_>, name: &str) -> Result<String> {
        let reference = format!("program:{name}");
        let mut parts = vec![reference_of(workshop.crates.maker(name)?), self.rust()?];
        if Needed::of(workshop.program(name)?)?.libraries.is_empty() {
            parts.push(self.c_library()?);
        }
        for one in workshop.crates.of(name)? {
            let linked = workshop.crates.linked(&one.id).iter().filter_map(|id| workshop.crates.get(id));
            self.dependencies.insert(reference_of(one), linked.map(reference_of).collect());
            self.components.insert(reference_of(one), component(one, workshop.crates.checksum(one)));
        }
        let version = self.release.upstream();
        let program =
            json!({ "type": "application", "bom-ref": reference, "name": name, "version": version });
        self.components.insert(reference.clone(), program);
        self.dependencies.insert(reference.clone(), parts);
        Ok(reference)
    }

    /// Rust's standard library.
    fn rust(&mut self) -> Result<String> {
        let version = run(program("rustc").arg("--version").current_dir(workspace()?))?;
        let version = String::from_utf8(version)?;
        let version = version.split_whitespace().nth(1).unwrap_or_default().to_owned();
        Ok(self.library("std", &version, "MIT OR Apache-2.0", format!("pkg:generic/rust-std@{version}")))
    }

    /// The C library of static programs.
    fn c_library(&mut self) -> Result<String> {
        let built_from = c_library()?;
        let version = built_from.split_once("(= ").map_or("", |(_, rest)| rest.trim_end_matches(')'));
        let purl = format!("pkg:deb/debian/glibc@{}?arch=source", escaped(version));
        Ok(self.library("glibc", version, "LGPL-2.1-or-later", purl))
    }

    fn library(&mut self, name: &str, version: &str, licence: &str, purl: String) -> String {
        let library = json!({
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": [{ "expression": licence }],
        });
        self.components.insert(purl.clone(), library);
        purl
    }
}

fn reference_of(one: &Crate) -> String {
    match one.source {
        Some(_) => format!("pkg:cargo/{}@{}", one.name, escaped(&one.version)),
        None => format!("crate:{}", one.name),
    }
}

fn component(one: &Crate, checksum: Option<&str>) -> Value {
    let reference = reference_of(one);
    let mut component =
        json!({ "type": "library", "bom-ref": reference, "name": one.name, "version": one.version });
    if one.source.is_some() {
        component["purl"] = reference.into();
    }
    if let Some(licence) = &one.license {
        // Cargo's old way to write OR.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksum {
        component["hashes"] = json!([sha256(checksum)]);
    }
    component
}

fn sha256(digest: &str) -> Value {
    json!({ "alg": "SHA-256", "content": digest })
}

/// A version in a package URL, where a plus means something else.
fn escaped(version: &str) -> String {
    version.replace('+', "%2B").replace('~', "%7E")
}

/// RFC 3339.
fn timestamp(release: &Release) -> Result<String> {
    let time = format!("@{}", release.epoch);
    let said = run(program("date").args(["-u", "-d", &time, "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(String::from_utf8(said)?.trim().to_owned())
}
