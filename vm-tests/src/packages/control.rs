//! `DEBIAN/`: what dpkg has to know of a package (deb-control(5)).
//!
//! `dist/PACKAGE/DEBIAN/control` has what people decide. `${version}` stands for this version, `${libraries}` for the packages of
//! the shared libraries that its programs want: none for those that are linked statically.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::release::Release;
use super::tree::configuration;
use super::{ARCHITECTURE, Package, Workshop};
use crate::lab::host::{program, run};
use crate::product::files_under;

/// Adds what follows from the files that are in the tree.
pub(super) fn complete(
    workshop: &Workshop<'_>,
    package: &Package,
    release: &Release,
    tree: &Path,
) -> Result<()> {
    let directory = tree.join("DEBIAN");
    let mut libraries = BTreeSet::new();
    let mut linked_statically = false;
    for program in package.programs {
        let needed = Needed::of(workshop.program(program.name)?)?;
        linked_statically |= needed.libraries.is_empty();
        libraries.extend(needed.packages()?);
    }
    let installed: Vec<String> = files_under(tree)?
        .into_iter()
        .map(|(_, below)| below)
        .filter(|below| !below.starts_with("DEBIAN/"))
        .collect();
    let mut control = filled(&fs::read_to_string(directory.join("control"))?, release, &libraries);
    control += &format!("Version: {}\nArchitecture: {ARCHITECTURE}\n", release.version);
    control += &format!("Installed-Size: {}\n", kibibytes(tree)?);
    if package.name != "update" {
        control += "Source: update\n";
    }
    if linked_statically {
        control += &format!("Static-Built-Using: {}\n", c_library()?);
    }
    fs::write(directory.join("control"), in_order(&control))?;
    let sums = run(program("md5sum").args(&installed).current_dir(tree))?;
    fs::write(directory.join("md5sums"), sums)?;
    let conffiles = configuration(tree)?;
    if !conffiles.is_empty() {
        fs::write(directory.join("conffiles"), conffiles.join("\n") + "\n")?;
    }
    Ok(())
}

/// The control file with the variables filled in. A relation that is left with nothing is left out.
fn filled(template: &str, release: &Release, libraries: &BTreeSet<String>) -> String {
    let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
    let mut control = String::new();
    for line in template.lines() {
        let Some(relations) = line.strip_prefix("Depends: ") else {
            control += &format!("{line}\n");
            continue;
        };
        let relations =
            relations.replace("${libraries}", &libraries.join(", ")).replace("${version}", &release.version);
        let relations: Vec<&str> =
            relations.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
        if !relations.is_empty() {
            control += &format!("Depends: {}\n", relations.join(", "));
        }
    }
    control
}

/// The description comes last.
fn in_order(control: &str) -> String {
    let (mut fields, mut description, mut in_description) = (String::new(), String::new(), false);
    for line in control.lines() {
        in_description = line.starts_with("Description:") || (in_description && line.starts_with(' '));
        let part = if in_description { &mut description } else { &mut fields };
        *part += &format!("{line}\n");
    }
    fields + &description
}

/// What a tree takes when it is installed, as dpkg-gencontrol(1) counts: files in whole KiB, directories one each.
fn kibibytes(tree: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(tree)? {
        let path = entry?.path();
        sum += match path.is_dir() {
            true if path.ends_with("DEBIAN") => 0,
            true => 1 + kibibytes(&path)?,
            false => fs::metadata(&path)?.size().div_ceil(1024),
        };
    }
    Ok(sum)
}

/// Source package and version of the C library that is linked into static programs here.
pub(super) fn c_library() -> Result<String> {
    let format = "${source:Package} (= ${source:Version})";
    let said = run(program("dpkg-query").args(["--show", "--showformat", format, "libc6-dev"]))?;
    Ok(String::from_utf8(said)?)
}

/// The shared libraries of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needed {
    /// Their names.
    pub(super) libraries: BTreeSet<String>,
    /// The newest version `2.N` of glibc's symbols that is asked for.
    glibc: u32,
}

impl Needed {
    /// Asks readelf.
    pub(super) fn of(executable: &Path) -> Result<Self> {
        let said = run(program("readelf").args(["--wide", "--dynamic", "--version-info"]).arg(executable))?;
        Ok(Self::among(&String::from_utf8_lossy(&said)))
    }

    fn among(said: &str) -> Self {
        let libraries = said.lines().filter(|line| line.contains("(NEEDED)"));
        let libraries = libraries.filter_map(|line| line.split_once('[')?.1.split(']').next());
        let versions = said.split("Name: GLIBC_2.").skip(1);
        let versions =
            versions.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        Self { libraries: libraries.map(str::to_owned).collect(), glibc: versions.max().unwrap_or_default() }
    }

    /// The packages that have them.
    fn packages(&self) -> Result<BTreeSet<String>> {
        let package = |library: &String| match library.as_str() {
            "libc.so.6"
            | "libm.so.6"
            | "libdl.so.2"
            | "libpthread.so.0"
            | "librt.so.1"
            | "ld-linux-x86-64.so.2" => Ok(format!("libc6 (>= 2.{})", self.glibc)),
            "libgcc_s.so.1" => Ok("libgcc-s1".to_owned()),
            other => bail!("a program wants {other}: say in packages/control.rs which package has it"),
        };
        self.libraries.iter().map(package).collect::<Result<_>>().context("the shared libraries of a package")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = " 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
  0x0010:   Name: GCC_3.0  Flags: none  Version: 5
  0x0030:   Name: GLIBC_2.3.4  Flags: none  Version: 4
  0x0040:   Name: GLIBC_2.34  Flags: none  Version: 3
";

    #[test]
    fn libraries_become_the_packages_that_have_them_and_static_programs_want_none() {
        let packages: Vec<String> = Needed::among(SAID).packages().unwrap().into_iter().collect();
        assert_eq!(packages, ["libc6 (>= 2.34)", "libgcc-s1"]);
        assert!(Needed::among("There is no dynamic section in this file.").packages().unwrap().is_empty());
        let strange = Needed::among(" 0x1 (NEEDED) Shared library: [libcurl.so.4]").packages().unwrap_err();
        assert!(format!("{strange:#}").contains("libcurl.so.4"), "{strange:#}");
    }

    #[test]
    fn a_relation_that_is_left_with_nothing_is_left_out_and_the_description_is_last() {
        let release = Release { version: "1-2".to_owned(), epoch: 0, changelog: String::new() };
        let template = "Package: a\nDepends: ${libraries}, b (= ${version})\nDescription: c\n d\n";
        let control = filled(template, &release, &BTreeSet::new()) + "Version: 1-2\n";
        assert_eq!(in_order(&control), "Package: a\nDepends: b (= 1-2)\nVersion: 1-2\nDescription: c\n d\n");
        assert_eq!(filled("Depends: ${libraries}\n", &release, &BTreeSet::new()), "");
    }
}
