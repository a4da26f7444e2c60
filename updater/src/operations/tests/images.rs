//! Containers that are made anew from another image: there, back, and cut at every moment.

use manifests::{ImageDigest, Sha256};
use serde_json::json;

use super::*;
use crate::operations::tests::bench::{Bench, Cut};
use crate::plan::Action;
use crate::transaction::state::StepStatus;

/// The image that containers are made from.
fn old() -> ImageDigest {
    Sha256::of(b"an image at fault").into()
}

/// A file of a plain archive.
fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    [&header[..], bytes, &vec![0; bytes.len().next_multiple_of(512) - bytes.len()]].concat()
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    member(&format!("blobs/sha256/{}", Sha256::of(bytes)), bytes)
}

/// An image of one layer in an OCI archive, and its id.
pub(crate) fn image(architecture: &str) -> (Vec<u8>, ImageDigest) {
    let layer = b"its files";
    let digest = |bytes: &[u8]| ImageDigest::from(Sha256::of(bytes));
    let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len() });
    let configuration = json!({
        "architecture": architecture,
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    let configuration = configuration.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "config": described("config.v1+json", &configuration),
        "layers": [described("layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [described("manifest.v1+json", &manifest)] });
    let parts = [
        member("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#),
        member("index.json", index.to_string().as_bytes()),
        blob(&configuration),
        blob(&manifest),
        blob(layer),
        vec![0; 1024],
    ];
    (parts.concat(), digest(&configuration))
}

/// A manifest for the image that is written as a payload here.
fn manifest(bench: &Bench, architecture: &str) -> (String, ImageDigest) {
    let (bytes, id) = image(architecture);
    bench.write("greet.oci.tar", &bytes);
    let payload =
        format!("{{file: greet.oci.tar, sha256: \"{}\", size: {}}}", Sha256::of(&bytes), bytes.len());
    let text = format!(
        "schema: 1
name: greet
version: 3
issued: 2026-11-01T00:00:00Z
expires: 2026-12-01T00:00:00Z
severity: critical
summary: Another image
targets: {{arch: [x86_64]}}
components:
  - kind: image
    payload: {payload}
    image: \"{id}\"
    instead_of: [\"{}\"]
    without_checkpoint: fail
    probes: [{{kind: tcp, port: 7000, timeout: 5s, interval: 100ms, successes: 1}}]
settle: 1s
",
        old()
    );
    (text, id)
}

/// A host with the container `web`, made from the image at fault.
fn host() -> Bench {
    Bench::with(FakeMachine::new(), |all| all.with("web").made_from(old()))
}

/// For what is said about it elsewhere.
pub(crate) fn host_and_manifest() -> (Bench, String) {
    let bench = host();
    let text = text(&bench);
    (bench, text)
}

fn text(bench: &Bench) -> String {
    manifest(bench, "amd64").0
}

/// The host is all new or all old: one container, which runs, with its restart policy, and nothing beside it.
fn whole(bench: &Bench, outcome: Outcome, context: &str) {
    assert_eq!(bench.containers.names(), [("web".to_owned(), true)], "{context}");
    let process = bench.containers.process("web").unwrap();
    let (image, policy) = bench.containers.recipe("web");
    assert_eq!(policy, "always", "{context}");
    match outcome {
        Outcome::Committed => {
            assert_eq!((process.memory, process.version), (0, Version::Fixed), "{context}");
            assert_ne!(image, Some(old()), "{context}");
            assert_eq!(bench.containers.left_behind(), [Peer::Reset], "{context}");
        }
        Outcome::RolledBack => {
            assert_eq!((process.memory, process.version), (MEMORY, Version::Old), "{context}");
            assert_eq!(image, Some(old()), "{context}");
            assert_eq!(bench.containers.peers("web"), [Peer::Established], "{context}");
        }
    }
    nothing_left(bench, context);
    assert!(bench.engine().status().unwrap().is_sound(), "{context}: status");
}

#[test]
fn a_container_is_made_anew_from_the_signed_image_and_its_peers_are_told() {
    let bench = host();
    let (text, id) = manifest(&bench, "amd64");
    let plan = bench.plan(&text).unwrap();
    let titles: Vec<String> = plan.steps.iter().map(|step| step.action.title()).collect();
    let aside =
        titles.iter().find_map(|title| title.strip_prefix("remove web-update-")?.split_once("-old")).unwrap();
    insta::assert_snapshot!(titles.join("\n").replace(aside.0, "TX"));
    assert_eq!(bench.apply(&text).unwrap().reached, Reached::Ended(Outcome::Committed));
    whole(&bench, Outcome::Committed, "apply");
    assert_eq!(bench.containers.recipe("web").0, Some(id));
    assert!(bench.plan(&text).unwrap().is_empty(), "once is enough");
    let status = bench.engine().status().unwrap();
    let [image] = &status.images[..] else { panic!("{status:?}") };
    assert_eq!((image.image, &image.standing, image.running), (id, &standing::Standing::InForce, true));
    bench.containers.remake("web", old());
    let status = bench.engine().status().unwrap();
    assert!(
        matches!(&status.images[0].standing, standing::Standing::Gone { why } if why.contains("made anew since"))
    );
    assert!(status.is_sound(), "whoever makes a container anew knows why");
}

#[test]
fn what_fails_before_the_commit_gives_the_old_container_back_with_its_memory() {
    for (trouble, words) in
        [(Trouble::BadFix, "the greeting is wrong"), (Trouble::NoStart, "start container web")]
    {
        let bench = host();
        bench.containers.make(trouble);
        let why = rolled_back(&bench.apply(&text(&bench)).unwrap());
        assert!(why.contains(words), "{trouble:?}: {why}");
        whole(&bench, Outcome::RolledBack, words);
    }
}

#[test]
fn what_stands_in_the_way_is_refused_before_anything_is_touched() {
    let refused = |bench: &Bench, text: &str| {
        let Err(EngineError::Refused(refusal)) = bench.plan(text) else { panic!("it was planned") };
        refusal.to_string()
    };
    let bench = host();
    let foreign = manifest(&bench, "arm64").0;
    let refusal = refused(&bench, &foreign);
    assert!(refusal.contains("expected an image for Linux on x86_64, found linux/arm64"), "{refusal}");
    bench.containers.make(Trouble::NoRecipe);
    let refusal = refused(&bench, &text(&bench));
    assert!(refusal.contains("a container that its engine can make anew, found no recipe"), "{refusal}");
    whole(&bench, Outcome::RolledBack, "refused");

    let bench = Bench::with(FakeMachine::new(), |all| {
        all.with("web").made_from(old()).with_obstacle(ObstacleKind::IoUring, "descriptor 7")
    });
    let refusal = refused(&bench, &text(&bench));
    assert!(refusal.contains("a container that can be checkpointed"), "{refusal}");
    let restart = text(&bench).replace("checkpoint: fail", "checkpoint: restart");
    assert_eq!(bench.apply(&restart).unwrap().reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.containers.process("web").unwrap().version, Version::Fixed);
    nothing_left(&bench, "restart");
}

#[test]
fn one_that_was_stopped_and_set_aside_when_the_power_failed_is_started_again_by_its_policy() {
    let host = || {
        Bench::with(FakeMachine::new(), |all| {
            all.with("web").made_from(old()).with_obstacle(ObstacleKind::NoCheckpoints, "docker")
        })
    };
    let mut after_the_commit = 0;
    for boundary in 0.. {
        let bench = host();
        let text = text(&bench).replace("checkpoint: fail", "checkpoint: restart");
        if bench.apply_until(&text, &Cut::at(boundary)).is_ok() {
            break;
        }
        let aside = bench.containers.names().iter().any(|(name, _)| name.ends_with("-old"));
        bench.reboot();
        let context = format!("boundary {boundary}");
        never_two(&bench, &context);
        assert!(!bench.resume().needs_operator(), "{context}");
        let names = bench.containers.names();
        let [(name, runs)] = &names[..] else { panic!("{context}: {names:?}") };
        assert_eq!(
            (name.as_str(), bench.containers.recipe("web").1.as_str()),
            ("web", "always"),
            "{context}"
        );
        let is_old = bench.containers.recipe("web").0 == Some(old());
        assert!(!aside || !is_old || *runs, "{context}: nobody starts it");
        after_the_commit += u32::from(!is_old);
    }
    assert!(after_the_commit > 2);
}

#[test]
fn a_payload_that_is_not_the_image_that_was_meant_is_refused() {
    let bench = host();
    let (text, id) = manifest(&bench, "amd64");
    let other = ImageDigest::from(Sha256::of(b"another"));
    let text = text.replace(&id.to_string(), &other.to_string());
    let error = bench.plan(&text).unwrap_err();
    assert!(matches!(&error, EngineError::Image { .. }), "{error}");
    assert!(system::error::with_causes(&error).contains(&id.to_string()), "{error:?}");
    whole(&bench, Outcome::RolledBack, "refused");
}

#[test]
fn containers_of_other_images_and_other_names_are_left_alone() {
    let bench = Bench::with(FakeMachine::new(), |all| all.with("web").made_from(old()).with("other"));
    let selected =
        text(&bench).replace("    without_checkpoint", "    containers: {ids: [db]}\n    without_checkpoint");
    assert!(bench.plan(&selected).unwrap().is_empty());
    let affected: Vec<String> = bench
        .plan(&text(&bench))
        .unwrap()
        .containers
        .iter()
        .map(|one| one.container.id.to_string())
        .collect();
    assert_eq!(affected, ["web"]);
}

#[test]
fn a_layer_and_an_image_for_one_container_are_too_much() {
    let bench = host();
    let image = text(&bench);
    let image = image.split_once("components:\n").unwrap().1.split_once("settle:").unwrap().0;
    let both = MANIFEST.replace("settle:", &format!("{image}settle:"));
    let Err(EngineError::Refused(refusal)) = bench.plan(&both) else { panic!("both were planned") };
    assert!(refusal.to_string().contains("one component that changes it"), "{refusal}");
}

/// What happened to the host between the cut and the resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    SameBoot,
    SoftReboot,
    Reboot,
}

impl Then {
    fn happens(self, bench: &Bench) {
        match self {
            Self::SameBoot => bench.machine.revive(),
            Self::SoftReboot => bench.soft_reboot(),
            Self::Reboot => bench.reboot(),
        }
    }
}

/// At no moment may two of them run, or be started by their policy.
fn never_two(bench: &Bench, context: &str) {
    let names = bench.containers.names();
    let policies = names.iter().filter(|(name, _)| bench.containers.recipe(name).1 != "no").count();
    let running = names.iter().filter(|(_, runs)| *runs).count();
    assert!(policies <= 1 && running <= 1, "{context}: {names:?}");
}

fn is_only_a_checkpoint(bench: &Bench) -> bool {
    let all = bench.engine().journal().all().unwrap();
    let Some(stored) = all.last() else { return false };
    let steps = &stored.progress.plan().steps;
    let checkpoint = steps.iter().position(|step| matches!(step.action, Action::Checkpoint { .. }));
    let status = checkpoint.and_then(|step| stored.progress.status(step));
    matches!(status, Some(StepStatus::Done(_))) && !stored.progress.committed()
}

fn resumed(bench: &Bench, then: Then, context: &str) -> Outcome {
    never_two(bench, context);
    let only_a_checkpoint = is_only_a_checkpoint(bench);
    let resumed = bench.resume();
    assert!(!resumed.needs_operator(), "{context}: {resumed:?}");
    let all = bench.engine().journal().all().unwrap();
    let outcome = all.last().map_or(Outcome::RolledBack, |stored| stored.outcome().unwrap());
    if then == Then::SameBoot {
        whole(bench, outcome, context);
        return outcome;
    }
    nothing_left(bench, context);
    let names = bench.containers.names();
    let [(name, runs)] = &names[..] else { panic!("{context}: {names:?}") };
    assert_eq!(name, "web", "{context}");
    let (image, policy) = bench.containers.recipe("web");
    assert_eq!(policy, "always", "{context}: its engine starts it at boot");
    assert_eq!(image == Some(old()), outcome == Outcome::RolledBack, "{context}");
    assert!(
        *runs || !only_a_checkpoint || outcome == Outcome::Committed,
        "{context}: its memory did not come back"
    );
    if let Some(back) = bench.containers.process("web") {
        assert_eq!((back.memory, back.version), (MEMORY, Version::Old), "{context}");
    }
    outcome
}

#[test]
fn a_cut_at_any_boundary_resumes_to_the_old_container_or_the_new_one_and_never_two() {
    for then in [Then::SameBoot, Then::SoftReboot, Then::Reboot] {
        for trouble in [None, Some(Trouble::BadFix)] {
            let (mut cuts, mut committed) = (0, 0);
            for boundary in 0.. {
                let bench = host();
                trouble.into_iter().for_each(|trouble| bench.containers.make(trouble));
                match bench.apply_until(&text(&bench), &Cut::at(boundary)) {
                    Err(EngineError::Stopped { .. }) => cuts += 1,
                    Ok(_) => break,
                    Err(error) => panic!("boundary {boundary}: {error}"),
                }
                then.happens(&bench);
                let outcome = resumed(&bench, then, &format!("boundary {boundary}, {trouble:?}, {then:?}"));
                committed += u32::from(outcome == Outcome::Committed);
            }
            assert!(cuts >= 40, "only {cuts} boundaries");
            assert_eq!(committed > 2, trouble.is_none(), "{committed} after the commit");
        }
    }
}

#[test]
fn a_kill_before_any_request_to_the_host_resumes_to_the_old_container_or_the_new_one() {
    for trouble in [None, Some(Trouble::BadFix)] {
        let bench = || {
            let bench = host();
            trouble.into_iter().for_each(|trouble| bench.containers.make(trouble));
            bench
        };
        let requests = {
            let bench = bench();
            bench.apply(&text(&bench)).unwrap();
            bench.machine.requests()
        };
        assert!(requests > 30, "only {requests} requests");
        for (nth, then) in
            (1..=requests).flat_map(|nth| [Then::SameBoot, Then::Reboot].map(|then| (nth, then)))
        {
            let bench = bench();
            let text = text(&bench);
            bench.machine.stop_before(nth);
            assert!(bench.died(|| drop(bench.apply(&text))), "request {nth} was not made");
            then.happens(&bench);
            resumed(&bench, then, &format!("request {nth}, {trouble:?}, {then:?}"));
        }
    }
}

#[test]
fn a_second_cut_during_the_resume_changes_nothing() {
    for first in (8..48).step_by(9) {
        for second in 0.. {
            let bench = host();
            bench.containers.make(Trouble::BadFix);
            assert!(bench.apply_until(&text(&bench), &Cut::at(first)).is_err());
            if bench.resume_until(&Cut::at(second)).is_ok() {
                break;
            }
            resumed(&bench, Then::SameBoot, &format!("{first}, {second}"));
        }
    }
}

#[test]
fn a_rollback_makes_the_container_anew_from_its_old_image() {
    let bench = host();
    bench.apply(&text(&bench)).unwrap();
    assert_eq!(bench.rollback().unwrap().reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.containers.names(), [("web".to_owned(), true)]);
    let process = bench.containers.process("web").unwrap();
    assert_eq!((process.memory, process.version), (0, Version::Old));
    assert_eq!(bench.containers.recipe("web"), (Some(old()), "always".to_owned()));
    nothing_left(&bench, "rollback");
    assert!(bench.engine().status().unwrap().images.is_empty());
}

#[test]
fn a_cut_at_any_boundary_of_a_rollback_resumes_to_one_container() {
    let mut cuts = 0;
    for boundary in 0.. {
        let bench = host();
        bench.apply(&text(&bench)).unwrap();
        if bench.rollback_until(&Cut::at(boundary)).is_ok() {
            break;
        }
        cuts += 1;
        let context = format!("boundary {boundary}");
        never_two(&bench, &context);
        assert!(!bench.resume().needs_operator(), "{context}");
        assert_eq!(bench.containers.names(), [("web".to_owned(), true)], "{context}");
        assert_eq!(bench.containers.recipe("web").1, "always", "{context}");
        nothing_left(&bench, &context);
    }
    assert!(cuts > 20, "only {cuts} boundaries");
}

#[test]
fn a_rollback_needs_the_old_image_and_leaves_what_somebody_else_has_made() {
    let bench = host();
    bench.apply(&text(&bench)).unwrap();
    bench.containers.remove_image(&old());
    let Err(EngineError::Refused(refusal)) = bench.rollback() else { panic!("it was rolled back") };
    assert!(refusal.to_string().contains("expected the image that it had before"), "{refusal}");

    bench.containers.remake("web", ImageDigest::from(Sha256::of(b"a newer one")));
    let of = bench.engine().rollback_target(None).unwrap();
    let plan = bench.engine().plan_rollback(&of, rollback::Back::Files).unwrap();
    assert!(plan.containers.is_empty() && plan.notes[0].contains("it is left alone"), "{:?}", plan.notes);
}

#[test]
fn no_checkpoint_brings_a_removed_container_back() {
    let bench = host();
    bench.apply(&text(&bench)).unwrap();
    let of = bench.engine().rollback_target(None).unwrap();
    let error = bench.engine().plan_rollback(&of, rollback::Back::Checkpoint).unwrap_err();
    assert!(error.to_string().contains("the old one removed at the commit"), "{error}");
}

#[test]
fn a_trial_that_its_engine_started_at_boot_ends_and_the_old_one_comes_back() {
    // Cut when the new one is in place and has not passed its probe.
    let started =
        |bench: &Bench| bench.containers.process("web").is_some_and(|one| one.version == Version::Fixed);
    let mut boundary = 0;
    let bench = loop {
        let bench = host();
        bench.containers.make(Trouble::BadFix);
        assert!(bench.apply_until(&text(&bench), &Cut::at(boundary)).is_err());
        if started(&bench) {
            break bench;
        }
        boundary += 1;
    };
    bench.reboot();
    bench.containers.start_by_others("web", None);
    never_two(&bench, "at boot");
    assert!(!bench.resume().needs_operator());
    assert_eq!(bench.containers.names(), [("web".to_owned(), true)]);
    assert_eq!(bench.containers.process("web").unwrap().memory, MEMORY, "its memory came back");
}
