//! The Debian packages, a tarball of the same files, and what is in each of them (CycloneDX).
//!
//! `dist/PACKAGE` is the tree of a package as `dpkg-deb` wants it, without what is made here: programs, their manual pages and
//! completions, changelogs, copyright, checksums and the control fields that follow from them. Nothing of when or where they were
//! built is in them: the same programs make the same packages, bit for bit.
//!
//! | module | what |
//! |---|---|
//! | [`release`] | version and date, from `dist/changelog` |
//! | [`tree`] | a package's files |
//! | [`control`] | what dpkg has to know of them |
//! | [`crates`] | which crates are linked into a program |
//! | [`copyright`] | their licences |
//! | [`sbom`] | the list of them that scanners read |
//! | [`judges`] | bare Debian systems that the packages are looked at and installed in |

pub mod control;
pub mod copyright;
pub mod crates;
pub mod judges;
pub mod release;
pub mod sbom;
pub mod tree;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::fixtures::greet::digest_and_size;
use crate::lab::host::{Step, program, run};
use crate::packages::crates::Crates;
use crate::packages::release::Release;
use crate::product::{Build, Product, workspace};

/// The architecture, in Debian's words.
pub const ARCHITECTURE: &str = "amd64";

/// A program of a package.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Where it is installed, below the root.
    pub directory: &'static str,
}

/// A package.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Its name; what it has beside programs is in the directory of that name in `dist`.
    pub name: &'static str,
    /// Its programs.
    pub programs: &'static [Program],
}

const fn command(name: &'static str) -> Program {
    Program { name, directory: "usr/bin" }
}

/// All of them.
pub const PACKAGES: &[Package] = &[
    Package {
        name: "update",
        // Nobody but update calls the transport.
        programs: &[command("update"), Program { name: "update-transport", directory: "usr/libexec/update" }],
    },
    Package { name: "update-agent", programs: &[command("update-agent")] },
    Package { name: "update-controller", programs: &[command("update-controller")] },
    Package { name: "patch-tools", programs: &[command("patch-tools")] },
    Package { name: "update-sign-pkcs11", programs: &[command("update-sign-pkcs11")] },
];

/// How packages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As users get them.
    Small,
    /// As tests want them.
    Quick,
}

impl Compression {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Small => &["-Zxz"],
            Self::Quick => &["-Zgzip", "-z1"],
        }
    }
}

/// What packages are made from.
#[derive(Debug)]
pub struct Workshop<'a> {
    product: &'a Product,
    build: Build,
    /// `update-sign-pkcs11`, built when it is wanted.
    signer: OnceCell<PathBuf>,
    crates: Crates,
}

impl<'a> Workshop<'a> {
    /// One for programs that were built this way.
    ///
    /// # Errors
    /// If Cargo cannot tell what is linked into them.
    pub fn open(product: &'a Product, build: Build) -> Result<Self> {
        Ok(Self { product, build, signer: OnceCell::new(), crates: Crates::read()? })
    }

    fn signer(&self) -> Result<&Path> {
        if self.signer.get().is_none() {
            let _ = self.signer.set(Product::signer(self.build)?);
        }
        self.signer.get().map(PathBuf::as_path).context("no signer was built")
    }

    fn program(&self, name: &str) -> Result<&Path> {
        let product = self.product;
        match name {
            "update" => Ok(&product.update),
            "update-transport" => Ok(&product.transport),
            "update-agent" => Ok(&product.agent),
            "update-controller" => Ok(&product.controller),
            "patch-tools" => Ok(&product.patch_tools),
            "update-sign-pkcs11" => self.signer(),
            other => bail!("no program {other} is built"),
        }
    }

    /// Makes one package in a directory; its path.
    ///
    /// # Errors
    /// If something of it is missing, or a tool fails.
    pub fn deb(
        &self,
        package: &Package,
        release: &Release,
        compression: Compression,
        out: &Path,
    ) -> Result<PathBuf> {
        let room = tempfile::tempdir()?;
        let tree = room.path().join(package.name);
        tree::assemble(self, package, release, &tree)?;
        control::complete(self, package, release, &tree)?;
        tree::settle(&tree, release)?;
        let deb = out.join(format!("{}_{}_{ARCHITECTURE}.deb", package.name, release.version));
        let mut build = program("dpkg-deb");
        build.args(["--root-owner-group"]).args(compression.options()).arg("--build").arg(&tree).arg(&deb);
        run(build.env("SOURCE_DATE_EPOCH", release.epoch.to_string()))?;
        Ok(deb)
    }

    /// Makes all packages, the tarball, the lists of what is in them and their checksums in a directory; their paths.
    ///
    /// # Errors
    /// As [`Self::deb`].
    pub fn all(&self, release: &Release, compression: Compression, out: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(out)?;
        let mut made = Vec::new();
        for package in PACKAGES {
            let step = Step::begin(&format!("packing {}", package.name));
            let deb = self.deb(package, release, compression, out)?;
            made.push(sbom::write(self, &[package], release, &deb)?);
            made.push(deb);
            step.end();
        }
        let tarball = self.tarball(release, out)?;
        made.push(sbom::write(self, &PACKAGES.iter().collect::<Vec<_>>(), release, &tarball)?);
        made.push(tarball);
        made.sort();
        made.push(checksums(&made, out)?);
        Ok(made)
    }

    /// The files of all packages in one archive, for other distributions: unpacked over `/`, they are where they belong.
    fn tarball(&self, release: &Release, out: &Path) -> Result<PathBuf> {
        let room = tempfile::tempdir()?;
        let name = format!("update-{}-x86_64", release.upstream());
        let tree = room.path().join(&name);
        for package in PACKAGES {
            tree::assemble(self, package, release, &tree)?;
        }
        fs::remove_dir_all(tree.join("DEBIAN"))?;
        tree::settle(&tree, release)?;
        let tarball = out.join(format!("{name}.tar.gz"));
        let mut tar = program("tar");
        tar.args([
            "--sort=name",
            "--format=gnu",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--gzip",
            "--create",
        ]);
        run(tar.arg("--file").arg(&tarball).arg("--directory").arg(room.path()).arg(&name))?;
        Ok(tarball)
    }
}

/// As `sha256sum --check` wants them.
fn checksums(files: &[PathBuf], out: &Path) -> Result<PathBuf> {
    let mut text = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        text += &format!("{}  {name}\n", digest_and_size(file)?.0);
    }
    let path = out.join("SHA256SUMS");
    fs::write(&path, text)?;
    Ok(path)
}

/// Builds the programs for users and packs them; what was made.
///
/// # Errors
/// If a program cannot be built or a package not be made.
pub fn run_for_users(out: Option<PathBuf>) -> Result<Vec<PathBuf>> {
    let out = match out {
        Some(out) => out,
        None => workspace()?.join("target/packages"),
    };
    let product = Product::build(Build::Release)?;
    Workshop::open(&product, Build::Release)?.all(&Release::current()?, Compression::Small, &out)
}
