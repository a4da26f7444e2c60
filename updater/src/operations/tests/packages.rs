//! Packages of the host, the services that run what they bring, and containers that run on files of the host.

use system::exit::Exit;

use super::*;
use crate::cli::failures;
use crate::operations::resume::Became;
use crate::operations::standing::Standing;
use crate::operations::tests::bench::{Bench, Cut};
use crate::plan::packages::ServiceFeels;
use crate::simulated::packages::{HostTrouble, NEW, OLD};

pub(crate) const PACKAGES: &str = r#"
schema: 1
name: greet
version: 3
issued: 2026-11-01T00:00:00Z
expires: 2026-12-01T00:00:00Z
severity: critical
summary: One library of the host
targets: {arch: [x86_64]}
components:
  - kind: package
    packages:
      - name: libgreet1
        architecture: amd64
        old: {version: 1.0-1, payload: OLD_DEB}
        new: {version: 1.0-2, payload: NEW_DEB}
    replaces: [{path: /usr/lib/x86_64-linux-gnu/libgreet.so.1, sha256: "VULNERABLE"}]
settle: 1s
"#;

const SERVICES: [&str; 2] = ["greet.service", "web.service"];

/// A host with the old package, and services that run it.
pub(crate) fn host() -> Bench {
    with_containers(|none| none)
}

fn with_containers(add: impl FnOnce(FakeContainers) -> FakeContainers) -> Bench {
    let bench = Bench::with(FakeMachine::new(), add);
    bench.host.install_by_others(OLD);
    bench.host.start(&SERVICES);
    bench
}

/// Package and services are all new, or all old.
fn whole(bench: &Bench, outcome: Outcome, context: &str) {
    let expected = match outcome {
        Outcome::Committed => NEW,
        Outcome::RolledBack => OLD,
    };
    assert_eq!(bench.host.installed_version().as_deref(), Some(expected), "{context}: package");
    for service in SERVICES {
        assert_eq!(bench.host.runs(service).as_deref(), Some(expected), "{context}: {service}");
    }
    nothing_left(bench, context);
    assert!(bench.engine().status().unwrap().is_sound(), "{context}: status");
}

fn committed(driven: &Driven) {
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed), "{driven:?}");
}

fn refused(bench: &Bench, text: &str) -> String {
    let failure = failures::engine(bench.apply(text).unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused, "{failure:?}");
    assert!(bench.engine().journal().all().unwrap().is_empty(), "a transaction was begun");
    failure.for_person()
}

#[test]
fn an_undisturbed_apply_installs_the_packages_and_restarts_what_runs_them_once() {
    let bench = host();
    let runs = SERVICES.map(|service| bench.host.run(service));
    committed(&bench.apply(PACKAGES).unwrap());
    whole(&bench, Outcome::Committed, "apply");
    assert_eq!(SERVICES.map(|service| bench.host.run(service)), runs.map(|run| run + 2));
    assert!(bench.plan(PACKAGES).unwrap().is_empty(), "once more is nothing to do");
}

#[test]
fn whatever_fails_before_the_commit_gives_the_old_packages_and_services_back() {
    for (trouble, words) in [
        (HostTrouble::BadFix, "greet.service is failed (exit-code)"),
        (HostTrouble::Crashes, "after 1 restarts by systemd"),
        (HostTrouble::BadScript, "postinst returned error"),
        (HostTrouble::OldCopy, "expected no process to map a file that it replaces"),
    ] {
        let bench = host();
        bench.host.make(trouble);
        let why = rolled_back(&bench.apply(PACKAGES).unwrap());
        assert!(why.contains(words), "{trouble:?}: {why}");
        bench.host.mend();
        whole(&bench, Outcome::RolledBack, words);
    }
}

#[test]
fn a_service_that_was_never_restarted_is_left_alone_on_the_way_back() {
    let bench = host();
    bench.host.make(HostTrouble::BadScript);
    let runs = SERVICES.map(|service| bench.host.run(service));
    rolled_back(&bench.apply(PACKAGES).unwrap());
    assert_eq!(SERVICES.map(|service| bench.host.run(service)), runs);
}

/// What happened to the host between the cut and the resume.
#[derive(Debug, Clone, Copy)]
enum Then {
    SameBoot,
    SoftReboot,
    Reboot,
}

const EVERY_KIND: [Then; 3] = [Then::SameBoot, Then::SoftReboot, Then::Reboot];

fn resumed(bench: &Bench, then: Then, context: &str) {
    match then {
        Then::SameBoot => bench.machine.revive(),
        Then::SoftReboot => bench.soft_reboot(),
        Then::Reboot => bench.reboot(),
    }
    // What failed the new version has no hold on the old one.
    let resumed = bench.resume();
    assert!(!resumed.needs_operator(), "{context}: {resumed:?}");
    let all = bench.engine().journal().all().unwrap();
    let outcome = all.last().map_or(Outcome::RolledBack, |stored| stored.outcome().unwrap());
    whole(bench, outcome, context);
}

#[test]
fn a_kill_or_power_cut_at_any_boundary_resumes_to_all_new_or_all_old() {
    for (trouble, then) in [None, Some(HostTrouble::BadFix), Some(HostTrouble::BadScript)]
        .into_iter()
        .flat_map(|trouble| EVERY_KIND.map(|then| (trouble, then)))
    {
        let mut cuts = 0;
        for boundary in 0.. {
            let bench = host();
            trouble.into_iter().for_each(|trouble| bench.host.make(trouble));
            match bench.apply_until(PACKAGES, &Cut::at(boundary)) {
                Err(EngineError::Stopped { .. }) => cuts += 1,
                Ok(_) => break,
                Err(error) => panic!("boundary {boundary}: {error}"),
            }
            resumed(&bench, then, &format!("boundary {boundary}, {trouble:?}, {then:?}"));
        }
        assert!(cuts > 15, "only {cuts} boundaries");
    }
}

#[test]
fn a_kill_or_power_cut_before_any_request_to_the_host_resumes_to_all_new_or_all_old() {
    for trouble in [None, Some(HostTrouble::BadFix)] {
        let bench = || {
            let bench = host();
            trouble.into_iter().for_each(|trouble| bench.host.make(trouble));
            bench
        };
        let requests = {
            let bench = bench();
            bench.apply(PACKAGES).unwrap();
            bench.machine.requests()
        };
        assert!(requests > 15, "only {requests} requests");
        for (nth, then) in (1..=requests).flat_map(|nth| EVERY_KIND.map(|then| (nth, then))) {
            let bench = bench();
            bench.machine.stop_before(nth);
            assert!(bench.died(|| drop(bench.apply(PACKAGES))), "request {nth} was not made");
            resumed(&bench, then, &format!("request {nth}, {trouble:?}, {then:?}"));
        }
    }
}

#[test]
fn a_second_kill_during_the_resume_changes_nothing() {
    for first in (6..20).step_by(3) {
        for second in 0.. {
            let bench = host();
            bench.host.make(HostTrouble::BadFix);
            if bench.apply_until(PACKAGES, &Cut::at(first)).is_ok()
                || bench.resume_until(&Cut::at(second)).is_ok()
            {
                break;
            }
            resumed(&bench, Then::SameBoot, &format!("{first}, {second}"));
        }
    }
}

#[test]
fn old_packages_that_cannot_be_installed_ask_an_operator_and_no_service_is_restarted_on_what_is_there() {
    let bench = host();
    bench.host.make(HostTrouble::BadFix);
    bench.host.make(HostTrouble::NoWayBack);
    let driven = bench.apply(PACKAGES).unwrap();
    assert!(matches!(driven.reached, Reached::NeedsOperator(_)), "{driven:?}");
    let runs = SERVICES.map(|service| bench.host.run(service));
    assert!(bench.resume().needs_operator());
    assert_eq!(SERVICES.map(|service| bench.host.run(service)), runs, "barred by the packages above");
    bench.host.mend();
    assert!(!bench.resume().needs_operator());
    whole(&bench, Outcome::RolledBack, "mended");
}

#[test]
fn a_package_that_somebody_else_upgrades_during_a_trial_is_left_to_an_operator() {
    let bench = host();
    assert!(bench.apply_until(PACKAGES, &Cut::at(8)).is_err());
    bench.host.install_by_others("1.1-1");
    let resumed = bench.resume();
    assert!(resumed.needs_operator());
    let why = resumed.transactions[0].first_error.clone().unwrap().1;
    assert!(why.contains("expected 1.0-1 or 1.0-2, found 1.1-1"), "{why}");
    assert_eq!(bench.host.installed_version().as_deref(), Some("1.1-1"));
}

#[test]
fn a_rollback_installs_the_old_packages_and_restarts_the_services() {
    let bench = host();
    bench.apply(PACKAGES).unwrap();
    committed(&bench.rollback().unwrap());
    whole(&bench, Outcome::RolledBack, "rollback");
    assert_eq!(bench.engine().status().unwrap().packages[0].version.as_str(), OLD);
}

#[test]
fn a_kill_at_any_boundary_of_a_rollback_resumes_to_all_new_or_all_old() {
    for boundary in 0.. {
        let bench = host();
        bench.apply(PACKAGES).unwrap();
        if bench.rollback_until(&Cut::at(boundary)).is_ok() {
            assert!(boundary > 8, "only {boundary} boundaries");
            break;
        }
        assert!(!bench.resume().needs_operator(), "boundary {boundary}");
        let all = bench.engine().journal().all().unwrap();
        let rolled_back = all.last().unwrap().outcome() == Some(Outcome::Committed) && all.len() == 2;
        let outcome = if rolled_back { Outcome::RolledBack } else { Outcome::Committed };
        whole(&bench, outcome, &format!("boundary {boundary}"));
    }
}

#[test]
fn a_rollback_over_somebody_elses_upgrade_is_refused() {
    let bench = host();
    bench.apply(PACKAGES).unwrap();
    bench.host.install_by_others("1.1-1");
    let failure = failures::engine(bench.rollback().unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(
        failure.for_person().contains("expected 1.0-2, found 1.1-1, which somebody else installed since")
    );
}

#[test]
fn the_old_package_is_kept_for_as_long_as_a_rollback_may_want_it() {
    let bench = host();
    bench.apply(PACKAGES).unwrap();
    bench.machine.step_wall_clock(bench.config().checkpoint_retention * 2);
    bench.engine().collect().unwrap();
    committed(&bench.rollback().unwrap());
    whole(&bench, Outcome::RolledBack, "long after");
}

#[test]
fn hosts_that_have_neither_version_whole_are_refused_by_name() {
    let bench = host();
    bench.host.install_by_others("0.9-1");
    let words = refused(&bench, PACKAGES);
    assert!(
        words.contains("package libgreet1:amd64: expected 1.0-1, or 1.0-2 already, found 0.9-1"),
        "{words}"
    );

    bench.host.install_by_others(OLD);
    bench.host.break_package("half-configured");
    let words = refused(&bench, PACKAGES);
    assert!(words.contains("expected a package that is whole, found half-configured"), "{words}");

    bench.host.install_by_others(OLD);
    bench.host.hold_package();
    let words = refused(&bench, PACKAGES);
    assert!(words.contains("on hold"), "{words}");

    bench.host.install_by_others(OLD);
    bench.write("new.deb", b"libother1 1.0-2 amd64\n");
    let words = refused(&bench, PACKAGES);
    assert!(words.contains("expected 1.0-2 in new.deb, found libother1:amd64 1.0-2"), "{words}");

    bench.host.make(HostTrouble::NoDpkg);
    let words = refused(&bench, PACKAGES);
    assert!(words.contains("expected a host with dpkg"), "{words}");
}

#[test]
fn a_package_manager_that_somebody_else_has_is_busy() {
    let bench = host();
    bench.host.make(HostTrouble::Busy);
    let failure = failures::engine(bench.apply(PACKAGES).unwrap_err());
    assert_eq!(failure.exit(), Exit::Busy);
    assert!(failure.for_person().contains("pid 4711 (apt-get)"), "{failure:?}");
}

#[test]
fn a_host_without_the_package_does_not_need_it() {
    let bench = host();
    bench.host.remove_by_others();
    let plan = bench.plan(PACKAGES).unwrap();
    assert_eq!(plan.not_needed, ["package libgreet1:amd64 is not installed here"]);
    assert!(plan.services.is_empty() && plan.is_empty());
}

#[test]
fn services_that_run_the_old_file_of_a_package_that_is_new_already_are_restarted() {
    let bench = host();
    bench.host.install_by_others(NEW);
    let plan = bench.plan(PACKAGES).unwrap();
    assert!(plan.packages.is_empty() && plan.services.len() == 2);
    committed(&bench.apply(PACKAGES).unwrap());
    whole(&bench, Outcome::Committed, "restarted");
}

#[test]
fn services_that_others_hang_on_are_told_and_not_touched_unless_the_manifest_names_them() {
    let told = ["dbus.service", "getty@tty1.service", "systemd-logind.service"];
    let bench = || {
        let bench = host();
        bench.host.start(&told);
        bench.host.start(&["auditd.service", "down.service"]);
        bench.host.refuse("auditd.service");
        bench.host.log_in();
        bench
    };
    let host = bench();
    let runs = told.map(|service| host.host.run(service));
    let plan = host.plan(PACKAGES).unwrap();
    let left: Vec<_> = plan
        .services
        .iter()
        .filter_map(|planned| match &planned.feels {
            ServiceFeels::Left { why } => Some(format!("{}: {why}", planned.service.name)),
            ServiceFeels::Restart => None,
        })
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left[0].contains("auditd.service") && left[0].contains("RefuseManualStop"), "{left:?}");
    assert!(plan.notes.iter().any(|note| note.contains("in session-3.scope")), "{:?}", plan.notes);
    committed(&host.apply(PACKAGES).unwrap());
    whole(&host, Outcome::Committed, "told");
    assert_eq!(told.map(|service| host.host.run(service)), runs);

    let host = bench();
    let named = PACKAGES.replace(
        "    replaces:",
        "    services: {restart: [dbus.service], leave: [down.service]}\n    replaces:",
    );
    committed(&host.apply(&named).unwrap());
    assert_eq!(host.host.runs("dbus.service").as_deref(), Some(NEW));
    assert_eq!(host.host.runs("down.service").as_deref(), Some(OLD));
    assert_eq!(host.host.runs("getty@tty1.service").as_deref(), Some(OLD));
}

#[test]
fn an_upgrade_by_somebody_else_is_told_and_a_downgrade_is_out_of_order() {
    let bench = host();
    bench.apply(PACKAGES).unwrap();
    bench.host.install_by_others("1.1-1");
    let status = bench.engine().status().unwrap();
    assert!(status.is_sound());
    assert!(
        matches!(&status.packages[0].standing, Standing::Superseded { why } if why.contains("1.1-1 is installed")),
        "{status:?}"
    );
    assert!(bench.resume().baseline.iter().all(|item| matches!(item.became, Became::LeftAlone { .. })));

    bench.host.install_by_others(OLD);
    let status = bench.engine().status().unwrap();
    assert!(!status.is_sound() && matches!(status.packages[0].standing, Standing::Displaced { .. }));
    assert!(bench.resume().needs_operator());

    bench.host.remove_by_others();
    assert!(bench.engine().status().unwrap().is_sound());
}

#[test]
fn containers_on_files_of_the_host_get_the_new_ones_or_their_memory_back() {
    let bench = || with_containers(|all| all.with("web").on_host_files());
    let host = bench();
    committed(&host.apply(PACKAGES).unwrap());
    whole(&host, Outcome::Committed, "container");
    assert_eq!(host.containers.process("web").unwrap().version, Version::Fixed);
    committed(&host.rollback().unwrap());
    whole(&host, Outcome::RolledBack, "container");
    assert_eq!(host.containers.process("web").unwrap().version, Version::Old);

    let host = bench();
    host.host.make(HostTrouble::BadFix);
    rolled_back(&host.apply(PACKAGES).unwrap());
    host.host.mend();
    whole(&host, Outcome::RolledBack, "container");
    let process = host.containers.process("web").unwrap();
    assert_eq!((process.memory, process.version), (MEMORY, Version::Old));
    assert_eq!(host.containers.peers("web"), [Peer::Established]);
}

#[test]
fn a_kill_or_power_cut_at_any_boundary_leaves_no_container_on_the_other_files() {
    for (trouble, then) in [None, Some(HostTrouble::BadFix)]
        .into_iter()
        .flat_map(|trouble| [Then::SameBoot, Then::Reboot].map(|then| (trouble, then)))
    {
        for boundary in 0.. {
            let bench = with_containers(|all| all.with("web").on_host_files());
            trouble.into_iter().for_each(|trouble| bench.host.make(trouble));
            if bench.apply_until(PACKAGES, &Cut::at(boundary)).is_ok() {
                break;
            }
            resumed(&bench, then, &format!("boundary {boundary}, {trouble:?}, {then:?}"));
            let fixed = bench.host.installed_version().as_deref() == Some(NEW);
            let process = bench.containers.process("web");
            let runs_fixed = process.is_none_or(|process| (process.version == Version::Fixed) == fixed);
            assert!(runs_fixed, "boundary {boundary}: {process:?}");
        }
    }
}

#[test]
fn a_container_with_a_copy_of_its_own_is_no_matter_of_the_packages() {
    let bench = with_containers(|all| all.with("web"));
    let plan = bench.plan(PACKAGES).unwrap();
    assert!(plan.containers.is_empty(), "{:?}", plan.containers);
    committed(&bench.apply(PACKAGES).unwrap());
    assert_eq!(bench.containers.process("web").unwrap().memory, MEMORY);
}
