//! The systemd units of the packages under `dist/` against this command line.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// The packages of a host.
const PACKAGES: [&str; 2] = ["update", "update-agent"];

fn dist(package: &str, below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(package).join("usr/lib").join(below)
}

/// Whichever package has it.
fn path_of(unit: &str) -> PathBuf {
    let places = PACKAGES.map(|package| dist(package, "systemd/system").join(unit));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("no package has {unit}"))
}

fn unit(name: &str) -> String {
    fs::read_to_string(path_of(name)).unwrap()
}

/// The values of one setting.
fn settings<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn every_unit_calls_the_program_as_it_wants_to_be_called() {
    let mut calls = 0;
    let units = PACKAGES.iter().flat_map(|package| fs::read_dir(dist(package, "systemd/system")).unwrap());
    for entry in units {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = unit(&name);
        for line in settings(&text, "ExecStart").into_iter().chain(settings(&text, "ExecStop")) {
            if let Some(arguments) = line.strip_prefix("/usr/bin/update ") {
                let words = std::iter::once("update").chain(arguments.split(' '));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{name}: {error}"));
                calls += 1;
            }
        }
    }
    assert!(calls >= 4, "only {calls}");
}

#[test]
fn every_unit_of_the_preset_is_there_and_can_be_enabled() {
    let preset = |package| dist(package, "systemd/system-preset").join(format!("50-{package}.preset"));
    let presets: String =
        PACKAGES.iter().map(|package| fs::read_to_string(preset(package)).unwrap()).collect();
    let units: Vec<&str> = presets.lines().filter_map(|line| line.strip_prefix("enable ")).collect();
    assert!(units.contains(&"update-guard.service") && units.contains(&"update-agent.service"));
    for name in units {
        assert_eq!(settings(&unit(name), "WantedBy").len(), 1, "{name}");
    }
}

#[test]
fn the_guard_is_active_before_the_first_livepatch_so_that_the_first_orderly_reboot_is_no_crash() {
    // A unit that its condition kept from starting is not stopped at shutdown, and `--stopping` not said.
    // The store is made by the first command, perhaps long after the boot, and may be elsewhere.
    for name in ["update-guard.service", "update-resume.service"] {
        let text = unit(name);
        let conditions: Vec<&str> =
            text.lines().filter(|line| line.starts_with("Condition") || line.starts_with("Assert")).collect();
        assert_eq!(conditions, <[&str; 0]>::default(), "{name}");
    }
    assert_eq!(settings(&unit("update-guard.service"), "ExecStop"), ["/usr/bin/update resume --stopping"]);
}

/// How exposed a unit is, by systemd's own reckoning: 0 is a perfect sandbox, 10 none.
#[expect(clippy::disallowed_methods, reason = "systemd judges its units")]
fn exposure(name: &str) -> f64 {
    let judged = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(path_of(name))
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze (package systemd) has to be installed: {error}"));
    let said = String::from_utf8(judged.stdout).unwrap();
    let words = said.split("Overall exposure level for").nth(1).and_then(|rest| rest.split(": ").nth(1));
    let score = words.and_then(|rest| rest.split(' ').next()).and_then(|score| score.parse().ok());
    let score = score.unwrap_or_else(|| {
        panic!(
            "systemd-analyze tells no exposure of {name}: {said}{}",
            String::from_utf8_lossy(&judged.stderr)
        )
    });
    println!("{name}: exposure {score}");
    score
}

#[test]
fn units_are_as_little_exposed_as_their_work_allows() {
    for (name, most) in [
        ("update-collect.service", 2.0),
        ("update-survived.service", 2.0),
        ("update-guard.service", 2.0),
        ("update-repo-refresh@.service", 2.0),
        ("update-agent.service", 1.5),
        // They mount for the host, load modules, and are the parents of containers, which inherit what restricts them.
        ("update-resume.service", 9.6),
        ("update-resume-docker.service", 9.6),
        ("update-executor.service", 9.6),
    ] {
        let score = exposure(name);
        assert!(score <= most, "{name}: {score}");
    }
}

#[test]
fn what_restricts_containers_is_not_asked_of_the_unit_that_restores_them() {
    for name in ["update-resume.service", "update-resume-docker.service", "update-executor.service"] {
        let text = unit(name);
        for inherited in
            ["NoNewPrivileges", "SystemCall", "RestrictN", "RestrictA", "CapabilityB", "LockP", "MemoryDeny"]
        {
            assert!(!text.lines().any(|line| line.starts_with(inherited)), "{name}: {inherited}");
        }
        for of_mounts in ["Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Root", "Temporary"]
        {
            assert!(!text.lines().any(|line| line.starts_with(of_mounts)), "{name}: {of_mounts}");
        }
    }
}

#[test]
fn the_agent_may_do_nothing_and_asks_over_a_socket_that_is_its_groups_alone() {
    let agent = unit("update-agent.service");
    assert_eq!(settings(&agent, "CapabilityBoundingSet"), [""]);
    assert_eq!(settings(&agent, "User"), ["update-agent"]);
    assert_eq!(settings(&agent, "Type"), ["notify"]);
    // Above twice the longest poll, of 10 minutes.
    assert_eq!(settings(&agent, "WatchdogSec"), ["21min"]);
    let users = fs::read_to_string(dist("update-agent", "sysusers.d/update-agent.conf")).unwrap();
    assert!(users.lines().any(|line| line.starts_with("u update-agent ")));
    let socket = unit("update-executor.socket");
    assert_eq!(settings(&socket, "ListenStream"), [fleet::local::SOCKET]);
    assert_eq!(settings(&socket, "SocketGroup"), ["update-agent"]);
    assert_eq!(settings(&socket, "SocketMode"), ["0660"]);
    // It ends by itself when nobody asks: that is no failure, and ends no dump or restore.
    let executor = unit("update-executor.service");
    assert_eq!(settings(&executor, "KillMode"), ["process"]);
    assert_eq!(settings(&executor, "Restart"), ["on-failure"]);
}
