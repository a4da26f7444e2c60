//! The Debian packages: the same wherever they are made, sound in the eyes of Debian's own judges, and harmless to a host through
//! their life.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use vm_tests::lab::Lab;
use vm_tests::lab::cache::Cache;
use vm_tests::lab::host::{built, program, run};
use vm_tests::lab::python;
use vm_tests::packages::release::Release;
use vm_tests::packages::{Compression, PACKAGES, Workshop, judges};
use vm_tests::product::{Build, Product};
use vm_tests::publisher::Draft;
use vm_tests::stage::Stage;

fn debs(workshop: &Workshop<'_>, release: &Release, out: &Path) -> Result<Vec<PathBuf>> {
    PACKAGES.iter().map(|package| workshop.deb(package, release, Compression::Quick, out)).collect()
}

/// The programs somewhere else, as old as they are not.
fn elsewhere(product: &Product, directory: &Path) -> Result<Product> {
    let moved = |path: &PathBuf| -> Result<PathBuf> {
        let to = directory.join(path.file_name().context("a program without a name")?);
        fs::copy(path, &to)?;
        fs::File::open(&to)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
        Ok(to)
    };
    Ok(Product {
        update: moved(&product.update)?,
        patch_tools: moved(&product.patch_tools)?,
        transport: moved(&product.transport)?,
        agent: moved(&product.agent)?,
        controller: moved(&product.controller)?,
    })
}

#[test]
fn the_same_programs_make_the_same_packages_bit_for_bit_wherever_and_whenever() -> Result<()> {
    let product = Product::build(Build::Tests)?;
    let release = Release::current()?;
    let (here, there, programs) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
    let made = Workshop::open(&product, Build::Tests)?.all(&release, Compression::Quick, here.path())?;
    ensure!(made.len() == 2 * (PACKAGES.len() + 1) + 1, "{made:?}");

    let moved = elsewhere(&product, programs.path())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let again = Workshop::open(&moved, Build::Tests)?.all(
        &release,
        Compression::Quick,
        &there.path().join("deep/down"),
    )?;
    for (one, other) in made.iter().zip(&again) {
        ensure!(fs::read(one)? == fs::read(other)?, "{} and {} differ", one.display(), other.display());
    }
    run(program("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(here.path()))?;
    Ok(())
}

#[test]
fn lintian_has_nothing_to_say_against_them() -> Result<()> {
    let product = Product::build(Build::Tests)?;
    let out = tempfile::tempdir()?;
    let debs = debs(&Workshop::open(&product, Build::Tests)?, &Release::current()?, out.path())?;
    judges::look(&Cache::open()?, &debs)
}

fn lives(suite: &str) -> Result<()> {
    let product = Product::build(Build::Tests)?;
    let workshop = Workshop::open(&product, Build::Tests)?;
    let release = Release::current()?;
    let (now, later) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (debs, next) =
        (debs(&workshop, &release, now.path())?, debs(&workshop, &release.next()?, later.path())?);
    judges::live(&Cache::open()?, suite, &debs, &next)
}

#[test]
fn a_bare_bookworm_keeps_what_it_has_through_the_life_of_the_packages_and_nothing_after() -> Result<()> {
    lives("bookworm")
}

#[test]
fn a_bare_trixie_keeps_what_it_has_through_the_life_of_the_packages_and_nothing_after() -> Result<()> {
    lives("trixie")
}

#[test]
fn update_stays_while_a_container_runs_on_its_fix_and_goes_without_it_after_a_rollback() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let scene = stage.open(&lab)?;
    let machine = &scene.machine;
    let manifest = stage.publish(machine, &Draft::fix())?;
    machine.sh(&format!("update apply {manifest}"))?;
    let said = machine.sh("dpkg --remove update 2>&1; echo $?")?;
    ensure!(
        said.contains("container web, whose files are a fix of this program") && said.ends_with('1'),
        "{said}"
    );
    machine.sh("update status && systemctl is-active update-guard.service")?;
    machine.sh("update rollback && dpkg --purge update")?;
    let left = machine.sh("find /var/lib/update /etc/update 2>/dev/null || true")?;
    ensure!(left.is_empty(), "left after the purge:\n{left}");
    let answer = scene.client("web", "after")?.ask("hit", Duration::from_secs(30))?;
    ensure!(answer.contains("version=1"), "{answer}");
    Ok(())
}

/// By the library of CycloneDX's own people: each document against the schema of its version.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
for path in sys.argv[1:]:
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(path).read())
    if wrong:
        sys.exit(f'{path}: {wrong}')
";

#[test]
fn what_is_in_them_is_listed_as_cyclonedx_wants_it() -> Result<()> {
    let product = Product::build(Build::Tests)?;
    let out = tempfile::tempdir()?;
    let made =
        Workshop::open(&product, Build::Tests)?.all(&Release::current()?, Compression::Quick, out.path())?;
    let lists: Vec<&PathBuf> =
        made.iter().filter(|path| path.to_string_lossy().ends_with(".cdx.json")).collect();
    ensure!(lists.len() == PACKAGES.len() + 1, "{lists:?}");
    for list in &lists {
        let document: serde_json::Value = serde_json::from_slice(&fs::read(list)?)?;
        let components = document["components"].as_array().context("components")?;
        let references: Vec<&str> = components.iter().filter_map(|one| one["bom-ref"].as_str()).collect();
        ensure!(references.contains(&"crate:manifests") && references.len() > 100, "{}", list.display());
        for dependency in document["dependencies"].as_array().context("dependencies")? {
            for on in dependency["dependsOn"].as_array().context("dependsOn")? {
                ensure!(
                    references.contains(&on.as_str().unwrap_or_default()),
                    "{}: {on} is not listed",
                    list.display()
                );
            }
        }
    }
    let wanted = ["cyclonedx-python-lib[json-validation]==11.6.0"];
    let python = python::environment(&Cache::open()?, "cyclonedx", &wanted)?;
    run(built(&python).args(["-c", VALIDATE]).args(lists))?;
    Ok(())
}
