//! Containers of engines, in machines with the engine that Debian has.

pub mod docker;
pub mod images;
pub mod podman;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::lab::cache::Recipe;
use crate::lab::distribution::Distribution;
use crate::lab::machine::Machine;
use crate::product::Build;
use crate::scene;
use crate::stage::Stage;

/// What the containers are made of.
const IMAGE: &str = include_str!("../../guest/image.sh");

/// Every command of an engine takes seconds in an emulated guest.
const PATIENCE: Duration = Duration::from_secs(600);

/// A host with a container `web` of an engine's, which `script` makes.
fn stage(lab: &Lab, engine: &'static str, script: &str) -> Result<Stage> {
    let stage = Stage::of(lab, Build::Tests, &scene::spec_on(Distribution::Debian13), Vec::new())?;
    stage.after(lab, engine, Recipe::of([IMAGE, script]), |machine| {
        let path = format!("/root/{engine}.sh");
        machine.guest().write_file(&path, [IMAGE, script].concat().as_bytes(), 0o755)?;
        machine.command(["sh", "-e", &path]).timeout(PATIENCE).check().map(drop)
    })
}

/// The engine looks after the container: its log, and its restart policy.
fn expect_supervised(machine: &Machine, engine: &str) -> Result<()> {
    shell(
        machine,
        &format!(
            "{engine} exec web sh -c 'echo heard >/proc/1/fd/1'; sleep 1; {engine} logs web | grep -q heard"
        ),
    )
    .context("its log")?;
    let init = shell(machine, &format!("{engine} inspect -f '{{{{.State.Pid}}}}' web"))?;
    shell(
        machine,
        &format!(
            "kill -9 {init}; for i in $(seq 60); do
                now=$({engine} inspect -f '{{{{.State.Pid}}}}' web); [ $now != 0 ] && [ $now != {init} ] && exit 0
                sleep 1
            done; {engine} ps --all; exit 1"
        ),
    )
    .context("its restart policy")
    .map(drop)
}

fn shell(machine: &Machine, script: &str) -> Result<String> {
    Ok(machine.guest().script(script).timeout(PATIENCE).check()?.trim().to_owned())
}

/// Runs `update` to its end.
fn update(machine: &Machine, words: &[&str], code: i32) -> Result<String> {
    let run = machine.command([&["update"], words].concat()).timeout(PATIENCE).output()?;
    let said = run.text() + &run.complaint();
    println!("update {}\n{said}", words.join(" "));
    ensure!(run.status == code, "expected exit code {code}, found {}", run.status);
    Ok(said)
}

/// Everything that an engine says of `web`, by the path to it.
fn view(machine: &Machine, engine: &str) -> Result<BTreeMap<String, Value>> {
    fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    flatten(&format!("{path}.{name}"), field, into);
                }
            }
            leaf => drop(into.insert(path.trim_start_matches('.').to_owned(), leaf.clone())),
        }
    }
    let json: Value = serde_json::from_str(&shell(machine, &format!("{engine} container inspect web"))?)?;
    let mut view = BTreeMap::new();
    flatten("", &json[0], &mut view);
    Ok(view)
}

/// The engine's view differs in nothing but these.
fn expect_same(
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
    allowed: &[&[&str]],
) -> Result<()> {
    let allowed = |path: &str| allowed.concat().iter().any(|prefix| path.starts_with(prefix));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing: Vec<String> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path) && !allowed(path))
        .map(|path| format!("{path}: {:?} became {:?}", before.get(path), after.get(path)))
        .collect();
    ensure!(differing.is_empty(), "the engine says otherwise now:\n{}", differing.join("\n"));
    Ok(())
}

/// Filters that were forgotten.
fn expect_nothing_left(machine: &Machine) -> Result<()> {
    let left =
        shell(machine, "nft list tables | grep update || true; ip address show lo | grep 10.88 || true")?;
    ensure!(left.is_empty(), "left: {left}");
    let splats = machine.splats()?;
    ensure!(splats.is_empty(), "the kernel complained: {}", splats.join("\n"));
    Ok(())
}
