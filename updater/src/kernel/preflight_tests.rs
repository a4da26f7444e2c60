//! The manifest's claim against what module and kernel hold.

use manifests::{Component, Manifest};

use super::*;
use crate::kernel::livepatch::{Enabled, LoadedFunction, LoadedObject, ModuleIdentity, PatchState};

const MANIFEST: &str = "\
schema: 1
name: fix
version: 1
issued: 2026-11-01T00:00:00Z
expires: 2026-12-01T00:00:00Z
severity: high
summary: Fix
targets: {arch: [x86_64], kernels: [6.1.0-50-amd64]}
components:
  - kind: livepatch
    module: fix
    payload: {file: fix.ko, sha256: 0000000000000000000000000000000000000000000000000000000000000000, size: 1}
    kernel: 6.1.0-50-amd64
    patches:
      - object: vmlinux
        functions: [{name: cmdline_proc_show}, {name: do_thing, sympos: 2}]
";

fn component() -> LivepatchComponent {
    let manifest = Manifest::parse(MANIFEST.as_bytes()).unwrap();
    match manifest.components.into_iter().next() {
        Some(Component::Livepatch(component)) => component,
        other => panic!("{other:?}"),
    }
}

fn content() -> Content {
    Content {
        name: Some("fix".to_owned()),
        build_id: Some("ab".repeat(20)),
        release: Some("6.1.0-50-amd64".to_owned()),
        patch: Some(Patch {
            functions: places([("vmlinux", "cmdline_proc_show", 0), ("vmlinux", "do_thing", 2)].into_iter()),
            replace: module::Replace::None,
            callbacks: Vec::new(),
            forced: Vec::new(),
        }),
    }
}

/// The content with its patch changed.
fn with_patch(change: impl FnOnce(&mut Patch)) -> Content {
    let mut content = content();
    change(content.patch.as_mut().unwrap());
    content
}

/// Rule, severity and subject of every finding.
fn rules(content: &Content) -> Vec<(&'static str, Severity, String)> {
    let findings = compare_claims(&component(), content);
    findings.into_iter().map(|finding| (finding.rule, finding.severity, finding.subject)).collect()
}

#[test]
fn a_module_that_is_what_the_manifest_says_has_no_findings() {
    assert_eq!(rules(&content()), []);
}

#[test]
fn a_function_that_the_manifest_hides_is_refused() {
    let content =
        with_patch(|patch| patch.functions.extend(places([("vmlinux", "sys_setuid", 0)].into_iter())));
    assert_eq!(rules(&content), [("claim-function", Severity::Refuse, "vmlinux:sys_setuid,0".to_owned())]);
}

#[test]
fn a_function_that_the_module_lacks_is_refused() {
    let content = with_patch(|patch| {
        patch.functions.pop_last();
    });
    assert_eq!(rules(&content), [("claim-function", Severity::Refuse, "vmlinux:do_thing,2".to_owned())]);
}

#[test]
fn the_same_name_in_another_object_or_at_another_position_is_another_function() {
    for other in [("ext4", "do_thing", 2), ("vmlinux", "do_thing", 1)] {
        let content = with_patch(|patch| {
            patch.functions = places([("vmlinux", "cmdline_proc_show", 0), other].into_iter());
        });
        assert_eq!(rules(&content).len(), 2, "{other:?}");
    }
}

#[test]
fn name_kernel_and_replace_must_be_as_claimed() {
    let other = Content { name: Some("fox".to_owned()), ..content() };
    assert_eq!(rules(&other)[0].0, "claim-name");
    let other = Content { release: Some("6.1.0-51-amd64".to_owned()), ..content() };
    assert_eq!(rules(&other)[0].0, "claim-kernel");
    let other = with_patch(|patch| patch.replace = module::Replace::All);
    assert_eq!(rules(&other), [("claim-replace", Severity::Refuse, "module".to_owned())]);
    let unsure = with_patch(|patch| patch.replace = module::Replace::DecidedAtLoad);
    assert_eq!(rules(&unsure), [("claim-replace", Severity::Warn, "module".to_owned())]);
}

#[test]
fn a_module_without_patch_tables_is_refused() {
    assert_eq!(rules(&Content { patch: None, ..content() })[0].1, Severity::Refuse);
}

#[test]
fn callbacks_and_forced_functions_are_shown_to_people() {
    let content = with_patch(|patch| {
        patch.callbacks.push(("post_patch", "setup".to_owned()));
        patch.forced.push("do_thing".to_owned());
    });
    let severities: Vec<Severity> = rules(&content).into_iter().map(|(_, severity, _)| severity).collect();
    assert_eq!(severities, [Severity::Note, Severity::Warn]);
}

fn loaded(functions: &[(&str, u64)]) -> LoadedPatch {
    let function = |&(name, sympos): &(&str, u64)| LoadedFunction { name: name.to_owned(), sympos };
    LoadedPatch {
        module: "fix".parse().unwrap(),
        state: PatchState::Settled(Enabled::Enabled),
        objects: vec![LoadedObject {
            name: "vmlinux".to_owned(),
            functions: functions.iter().map(function).collect(),
        }],
        identity: ModuleIdentity::default(),
    }
}

fn confirmed(loaded: &[LoadedPatch]) -> Result<(), NotConfirmed> {
    confirm(&"fix".parse().unwrap(), &component().patches, loaded)
}

#[test]
fn the_kernel_shows_the_only_symbol_of_a_name_as_the_first() {
    confirmed(&[loaded(&[("cmdline_proc_show", 1), ("do_thing", 2)])]).unwrap();
}

#[test]
fn what_the_kernel_patches_beyond_the_claim_or_short_of_it_is_found() {
    for functions in
        [&[("cmdline_proc_show", 1), ("do_thing", 2), ("sys_setuid", 1)][..], &[("cmdline_proc_show", 1)]]
    {
        let error = confirmed(&[loaded(functions)]).unwrap_err();
        let NotConfirmed::OtherFunctions { findings, .. } = &error else { panic!("{error}") };
        assert_eq!(findings.len(), 1);
        assert!(findings[0].found.contains("by the kernel"), "{error}");
    }
}

#[test]
fn a_livepatch_that_is_gone_or_still_moving_confirms_nothing() {
    assert!(matches!(confirmed(&[]), Err(NotConfirmed::Gone { .. })));
    let mut moving = loaded(&[("cmdline_proc_show", 1), ("do_thing", 2)]);
    for state in [PatchState::InTransition(Enabled::Enabled), PatchState::Settled(Enabled::Disabled)] {
        moving.state = state;
        assert!(
            matches!(confirmed(&[moving.clone()]), Err(NotConfirmed::NotLive { found, .. }) if found == state)
        );
    }
}

fn keeps(states: &[(u64, u32)], unpatch: &[&str], shadow: &[&str]) -> Keeps {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Keeps { states: states.iter().copied().collect(), unpatch: owned(unpatch), shadow: owned(shadow) }
}

/// The subjects of what is refused when `own` replaces `old`.
fn left(own: &Keeps, old: &Keeps) -> Vec<String> {
    let findings = left_behind(own, &[("old".parse().unwrap(), old.clone())]);
    assert!(findings.iter().all(|finding| finding.severity == Severity::Refuse));
    findings.into_iter().map(|finding| format!("{}: {}", finding.rule, finding.subject)).collect()
}

#[test]
fn shadow_variables_that_nobody_frees_are_refused() {
    let leaking = keeps(&[], &[], &["klp_shadow_alloc"]);
    assert_eq!(left_behind(&leaking, &[])[0].subject, "taking it off again");
    assert!(left_behind(&keeps(&[], &["free_all"], &["klp_shadow_alloc"]), &[]).is_empty());
    assert!(left_behind(&Keeps::default(), &[]).is_empty());
}

#[test]
fn a_replacement_has_every_state_of_what_it_replaces_in_no_lower_version() {
    let old = keeps(&[(7, 2)], &["undo"], &[]);
    assert_eq!(left(&keeps(&[], &["undo"], &[]), &old), ["klp-state: replacing old"]);
    assert_eq!(left(&keeps(&[(7, 1)], &["undo"], &[]), &old), ["klp-state: replacing old"]);
    for version in [2, 3] {
        assert!(left(&keeps(&[(7, version)], &["undo"], &[]), &old).is_empty(), "version {version}");
    }
}

#[test]
fn callbacks_and_shadow_variables_without_a_state_cannot_be_taken_over() {
    let new = keeps(&[(7, 1)], &["undo"], &[]);
    assert_eq!(left(&new, &keeps(&[], &["undo"], &[])), ["left-behind: replacing old"]);
    assert_eq!(left(&new, &keeps(&[], &[], &["klp_shadow_get_or_alloc"])), ["left-behind: replacing old"]);
    assert!(left(&new, &Keeps::default()).is_empty());
}

#[test]
fn newer_data_that_nobody_takes_back_is_refused_before_there_is_any() {
    let old = keeps(&[(7, 1)], &["undo"], &[]);
    assert_eq!(left(&keeps(&[(7, 2)], &[], &[]), &old), ["left-behind: going back to old"]);
    assert!(left(&keeps(&[(7, 1)], &[], &[]), &old).is_empty(), "the same data serves both");
}
