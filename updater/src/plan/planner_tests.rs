use std::collections::BTreeMap;
use std::time::Duration;

use manifests::HostKernel;
use workloads::model::CgroupDriver;
use workloads::model::{Container, ContainerStatus, NetworkPlace, Overlay, Pid, Topology};

use super::*;
use crate::plan::facts::{AffectedBy, ReplacedPatch, Settings};

const MANIFEST: &str = r#"
schema: 1
name: demo
version: 3
issued: 2026-11-01T00:00:00Z
expires: 2026-12-01T00:00:00Z
severity: critical
summary: One kernel fix, one library fix
targets:
  arch: [x86_64]
  kernels: [6.1.0-50-amd64]
components:
  - kind: livepatch
    module: livepatch_demo
    payload: {file: livepatch-demo.ko, sha256: "1111111111111111111111111111111111111111111111111111111111111111", size: 10}
    kernel: 6.1.0-50-amd64
    patches:
      - object: vmlinux
        functions: [{name: cmdline_proc_show}]
  - kind: layer
    payload: {file: fix.tar, sha256: "2222222222222222222222222222222222222222222222222222222222222222", size: 10}
    format: tar
    replaces:
      - {path: /usr/lib/libgreet.so.1, build_id: "0011223344556677889900112233445566778899"}
    without_checkpoint: fail
    order: {by: label, name: tier}
    concurrency: 2
    probes:
      - {kind: tcp, port: 7000, timeout: 5s, interval: 100ms, successes: 1}
settle: 1s
"#;

fn manifest() -> Manifest {
    Manifest::parse(MANIFEST.as_bytes()).unwrap()
}

/// The manifest with one text in place of another.
fn changed(from: &str, to: &str) -> Manifest {
    assert!(MANIFEST.contains(from));
    Manifest::parse(MANIFEST.replace(from, to).as_bytes()).unwrap()
}

fn container(id: &str, tier: Option<&str>) -> ContainerFacts {
    let lower = vec![PathBuf::from("/img")];
    ContainerFacts {
        container: Container {
            id: id.parse().unwrap(),
            status: ContainerStatus::Running,
            init: Some(Pid(100)),
            started: None,
            bundle: PathBuf::from(format!("/c/{id}")),
            rootfs: PathBuf::from(format!("/c/{id}/rootfs")),
            annotations: tier
                .map(|tier| ("tier".to_owned(), tier.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            network: NetworkPlace::Host,
            cgroup: Some(PathBuf::from(format!("/{id}"))),
            cgroup_driver: CgroupDriver::Cgroupfs,
        },
        topology: Topology::Overlay(Overlay {
            lower,
            upper: Some(PathBuf::from(format!("/c/{id}/upper"))),
            work: Some(PathBuf::from(format!("/c/{id}/work"))),
            options: Vec::new(),
            flags: Default::default(),
        }),
        affected: vec![AffectedBy {
            component: 1,
            files: vec![PathBuf::from("/usr/lib/libgreet.so.1")],
            unknown: Vec::new(),
        }],
        obstacles: Vec::new(),
        unmet: Vec::new(),
        changes: Vec::new(),
        image: None,
    }
}

fn kernel(release: &str) -> HostKernel {
    HostKernel { release: release.parse().unwrap(), build_id: None, package: None }
}

fn absent() -> LivepatchFacts {
    LivepatchFacts {
        unmet: Vec::new(),
        warnings: Vec::new(),
        presence: Presence::Absent,
        replaces: Vec::new(),
        quarantined: None,
    }
}

fn facts(containers: Vec<ContainerFacts>) -> HostFacts {
    HostFacts {
        arch: "x86_64".to_owned(),
        kernel: kernel("6.1.0-50-amd64"),
        groups: vec!["canary".parse().unwrap()],
        now: "2026-11-02T00:00:00Z".parse().unwrap(),
        livepatches: [(0, absent())].into(),
        packages: None,
        containers,
        images: Vec::new(),
        running: Vec::new(),
        unreadable: Vec::new(),
        settings: Settings { crash_guard: Duration::from_secs(600), store: PathBuf::from("/store") },
    }
}

fn planned(facts: &HostFacts) -> Plan {
    plan(&manifest(), facts, "tx").unwrap()
}

fn titles(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{}.{} {}", step.stage, step.lane, step.action.title())).collect()
}

fn refused(manifest: &Manifest, facts: &HostFacts) -> String {
    plan(manifest, facts, "tx").unwrap_err().to_string()
}

#[test]
fn kernel_first_then_containers_by_label_then_the_commit() {
    let plan =
        planned(&facts(vec![container("z", Some("1")), container("a", Some("2")), container("m", None)]));
    insta::assert_snapshot!(titles(&plan).join("\n"));
}

#[test]
fn containers_of_one_network_namespace_follow_one_another_in_one_lane() {
    let lanes = |paths: [&str; 2]| {
        let containers = ["a", "b"].into_iter().zip(paths).map(|(id, path)| {
            let mut facts = container(id, None);
            facts.container.network = NetworkPlace::Path(PathBuf::from(path));
            facts
        });
        let plan = planned(&facts(containers.collect()));
        let dumps = plan.steps.into_iter().filter(|step| matches!(step.action, Action::Checkpoint { .. }));
        dumps.map(|step| (step.stage, step.lane)).collect::<Vec<_>>()
    };
    let pod = lanes(["/run/netns/pod", "/run/netns/pod"]);
    assert_eq!(pod[0], pod[1]);
    let apart = lanes(["/run/netns/a", "/run/netns/b"]);
    assert_eq!((apart[0].0, apart[0].1 + 1), apart[1], "side by side");
}

#[test]
fn every_step_before_the_commit_has_a_way_back() {
    let plan = planned(&facts(vec![container("web", None)]));
    let commit = plan.steps.iter().position(|step| step.action == Action::Commit).unwrap();
    for (index, step) in plan.steps.iter().enumerate() {
        let impossible = matches!(step.undo, Undo::Impossible { .. });
        assert_eq!(impossible, index >= commit, "{}", step.action.title());
    }
}

#[test]
fn the_trial_stacks_the_fix_over_the_old_upper_directory_and_goes_back_to_the_old_mount() {
    let plan = planned(&facts(vec![container("web", None)]));
    let switch = plan.steps.iter().find(|step| matches!(step.action, Action::SwitchRootfs { .. })).unwrap();
    let Action::SwitchRootfs { to: Topology::Overlay(trial), .. } = &switch.action else {
        panic!("not an overlay")
    };
    let fix = PathBuf::from("/store/layers/2222222222222222222222222222222222222222222222222222222222222222");
    assert_eq!(trial.lower, [fix, PathBuf::from("/c/web/upper"), PathBuf::from("/img")]);
    assert_eq!(trial.upper.as_deref(), Some(Path::new("/c/web/update-tx/upper")));
    let Undo::SwitchBack { to: Topology::Overlay(back), .. } = &switch.undo else { panic!("no way back") };
    assert_eq!(back.upper.as_deref(), Some(Path::new("/c/web/upper")));
    assert_eq!(back.work.as_deref(), Some(Path::new("/c/web/update-tx/back")));
}

#[test]
fn connections_are_released_after_the_restore_on_the_way_back() {
    let plan = planned(&facts(vec![container("web", None)]));
    let at = |wanted: fn(&Undo) -> bool| plan.steps.iter().position(|step| wanted(&step.undo)).unwrap();
    // Undos run from the last step to the first.
    assert!(
        at(|undo| matches!(undo, Undo::LetConnectionsGo { .. }))
            < at(|undo| matches!(undo, Undo::RestoreCheckpoint { .. }))
    );
    assert!(
        at(|undo| matches!(undo, Undo::RestoreCheckpoint { .. }))
            < at(|undo| matches!(undo, Undo::SwitchBack { .. }))
    );
}

#[test]
fn a_container_that_cannot_be_checkpointed_does_what_the_manifest_says() {
    let mut stuck = container("web", None);
    stuck.obstacles = vec!["process 7 uses io_uring".to_owned()];
    let facts = facts(vec![stuck]);
    assert!(refused(&manifest(), &facts).contains("process 7 uses io_uring"));

    let skipping =
        plan(&changed("without_checkpoint: fail", "without_checkpoint: skip"), &facts, "tx").unwrap();
    assert!(matches!(skipping.containers[0].feels, Feels::Skipped { .. }));
    assert!(skipping.steps.iter().all(|step| step.action.container().is_none()));

    let restarting =
        plan(&changed("without_checkpoint: fail", "without_checkpoint: restart"), &facts, "tx").unwrap();
    assert!(matches!(restarting.containers[0].feels, Feels::RestartWithoutCheckpoint { .. }));
    assert!(restarting.steps.iter().any(|step| matches!(step.undo, Undo::StartAgain { .. })));
    assert!(!restarting.steps.iter().any(|step| matches!(step.action, Action::HoldConnections { .. })));
}

#[test]
fn a_container_whose_memory_must_not_be_written_down_counts_as_one_that_cannot_be_checkpointed() {
    let facts = facts(vec![container("web", Some("secret")), container("other", Some("open"))]);
    let never = |way: &str| {
        let selector = "never_checkpoint: [{labels: [{name: tier, value: secret}]}]";
        changed("without_checkpoint: fail", &format!("without_checkpoint: {way}\n    {selector}"))
    };
    assert!(refused(&never("fail"), &facts).contains("the manifest forbids to write its memory down"));
    let plan = plan(&never("restart"), &facts, "tx").unwrap();
    for planned in &plan.containers {
        let forbidden = matches!(planned.feels, Feels::RestartWithoutCheckpoint { .. });
        assert_eq!(forbidden, planned.container.id.id.as_str() == "web");
    }
}

#[test]
fn a_host_of_another_kernel_or_architecture_is_refused_with_both_reasons() {
    let mut facts = facts(Vec::new());
    facts.kernel = kernel("6.1.0-49-amd64");
    facts.arch = "aarch64".to_owned();
    let text = refused(&manifest(), &facts);
    assert!(text.contains("expected 6.1.0-50-amd64, found 6.1.0-49-amd64"), "{text}");
    assert!(text.contains("expected x86_64, found aarch64"), "{text}");
}

#[test]
fn a_host_that_is_in_no_group_that_is_meant_is_refused() {
    let meant =
        |groups: &str| changed("  arch: [x86_64]\n", &format!("  arch: [x86_64]\n  groups: [{groups}]\n"));
    assert!(plan(&meant("web, canary"), &facts(Vec::new()), "tx").is_ok());
    let text = refused(&meant("web, db"), &facts(Vec::new()));
    assert!(text.contains("expected one of web, db, found canary"), "{text}");
}

#[test]
fn a_container_that_goes_back_alone_settles_alone_and_with_its_own_probes() {
    let alone = changed("    format: tar\n", "    format: tar\n    on_failure: workload\n");
    let plan = plan(&alone, &facts(vec![container("a", None), container("b", None)]), "tx").unwrap();
    let settling: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Settle { container, probes, .. } => {
                Some((container.as_ref().map(ToString::to_string), probes.len()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(settling, [(None, 0), (Some("a".to_owned()), 1), (Some("b".to_owned()), 1)]);
    let stages: std::collections::BTreeSet<_> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::Settle { .. }))
        .map(|step| step.stage)
        .collect();
    assert_eq!(stages.len(), 1, "side by side");
}

#[test]
fn stuck_tasks_are_killed_only_in_containers_that_the_first_selecting_rule_permits() {
    let rules = "    kernel: 6.1.0-50-amd64\n    transition: {stuck: [\
                 {containers: {ids: [db]}, action: wait}, \
                 {containers: {labels: [{name: tier, value: front}]}, action: kill}]}\n";
    let permitting = changed("    kernel: 6.1.0-50-amd64\n", rules);
    let mut facts = facts(Vec::new());
    let running = [("web", Some("front")), ("db", Some("front")), ("mail", Some("back")), ("bare", None)];
    facts.running = running.map(|(id, tier)| container(id, tier).container).to_vec();
    let plan = plan(&permitting, &facts, "tx").unwrap();
    let permitted = plan.steps.iter().find_map(|step| match &step.action {
        Action::AwaitTransition { may_kill, .. } => Some(may_kill.clone()),
        _ => None,
    });
    assert_eq!(permitted.unwrap(), ["web".parse().unwrap()].into());
    assert!(plan.notes.iter().any(|note| note.contains("container web that is stuck")), "{:?}", plan.notes);
    assert!(titles(&plan).iter().any(|title| title.ends_with("killing what is stuck for good in web")));
    let silent = planned(&facts);
    assert!(silent.notes.is_empty() && !titles(&silent).iter().any(|title| title.contains("killing")));
}

/// The manifest with a second livepatch for another kernel, and with what the packages have fixed.
fn for_two_kernels() -> Manifest {
    let yaml =
        MANIFEST.replace("kernels: [6.1.0-50-amd64]", "kernels: [6.1.0-50-amd64, 6.12.107+deb13-amd64]");
    let (head, rest) = yaml.split_once("  - kind: layer").unwrap();
    let component = &head[head.find("  - kind: livepatch").unwrap()..];
    let fixed = "    fixed_in: [{distribution: debian, series: '6.12', version: 6.12.110-1}]\n";
    let other = component
        .replace("kernel: 6.1.0-50-amd64", "kernel: 6.12.107+deb13-amd64")
        .replace("    kernel: ", &format!("{fixed}    kernel: "));
    manifests::Manifest::parse(format!("{head}{other}  - kind: layer{rest}").as_bytes()).unwrap()
}

#[test]
fn of_livepatches_for_many_kernels_a_host_takes_its_own_and_names_the_others() {
    let plan = plan(&for_two_kernels(), &facts(Vec::new()), "tx").unwrap();
    let loads = plan.steps.iter().filter(|step| matches!(step.action, Action::LoadLivepatch { .. })).count();
    assert_eq!(loads, 1, "{:?}", titles(&plan));
    assert!(plan.notes.iter().any(|note| note.contains("for another kernel: 6.12.107+deb13-amd64")));
}

#[test]
fn a_kernel_with_the_fix_does_not_need_the_manifest_and_one_without_any_is_refused() {
    let mut facts = facts(Vec::new());
    facts.livepatches.clear();
    facts.kernel = HostKernel {
        package: manifests::KernelPackage::of_uname_version("#1 SMP Debian 6.12.118-1 (2026-11-01)"),
        ..kernel("6.12.118+deb13-amd64")
    };
    let not_needed = plan(&for_two_kernels(), &facts, "tx").unwrap();
    assert!(not_needed.is_empty() && not_needed.not_needed[0].contains("since 6.12.110-1"), "{not_needed:?}");
    facts.kernel = kernel("6.12.100+deb13-amd64");
    let refused = refused(&for_two_kernels(), &facts);
    assert!(refused.contains("expected 6.1.0-50-amd64, 6.12.107+deb13-amd64, found 6.12.100"), "{refused}");
}

#[test]
fn a_rebuilt_kernel_of_the_same_release_is_refused_the_livepatch_of_the_other_build() {
    let build = format!("    kernel: 6.1.0-50-amd64\n    kernel_build_id: {}\n", "ab".repeat(20));
    let manifest = changed("    kernel: 6.1.0-50-amd64\n", &build);
    let mut facts = facts(Vec::new());
    for (found, words) in [(None, "shows no build id"), (Some("cd".repeat(20)), "found build id cdcdcd")] {
        facts.kernel.build_id = found.map(|id| id.parse().unwrap());
        let refused = refused(&manifest, &facts);
        assert!(refused.contains("with build id ababab") && refused.contains(words), "{refused}");
    }
    facts.kernel.build_id = Some("ab".repeat(20).parse().unwrap());
    assert!(plan(&manifest, &facts, "tx").is_ok());
}

#[test]
fn a_livepatch_that_is_live_is_not_loaded_again() {
    let mut facts = facts(Vec::new());
    facts.livepatches.get_mut(&0).unwrap().presence = Presence::Live;
    let plan = planned(&facts);
    assert!(plan.is_empty(), "{:?}", titles(&plan));
}

#[test]
fn a_quarantined_livepatch_is_refused_with_its_story() {
    let mut facts = facts(Vec::new());
    facts.livepatches.get_mut(&0).unwrap().quarantined =
        Some("the host crashed 12 s after it was loaded".to_owned());
    assert!(refused(&manifest(), &facts).contains("crashed 12 s after"));
}

#[test]
fn atomic_replace_is_refused_if_what_it_replaces_could_not_come_back() {
    let replacing = changed("    kernel: 6.1.0-50-amd64\n", "    kernel: 6.1.0-50-amd64\n    replace: all\n");
    let mut facts = facts(Vec::new());
    let old = ReplacedPatch { module: "kpatch_old".parse().unwrap(), payload: None };
    facts.livepatches.get_mut(&0).unwrap().replaces = vec![old.clone()];
    assert!(refused(&replacing, &facts).contains("kpatch_old"));
    facts.livepatches.get_mut(&0).unwrap().replaces =
        vec![ReplacedPatch { payload: Some(manifests::Sha256::of(b"old")), ..old }];
    let plan = plan(&replacing, &facts, "tx").unwrap();
    assert!(
        plan.steps
            .iter()
            .any(|step| matches!(&step.undo, Undo::UnloadLivepatch { reload, .. } if reload.len() == 1))
    );
}

#[test]
fn the_same_inputs_give_the_same_plan_and_it_survives_the_journal() {
    let facts = facts(vec![container("b", None), container("a", None)]);
    let first = planned(&facts);
    assert_eq!(first, planned(&facts));
    let text = serde_json::to_string(&first).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), first);
}
