//! What is already there: other livepatches, and probes on the functions to be patched.

use super::facts::{Origin, ProbeKind, Transition};
use super::{Findings, Scene, in_object};
use crate::module::{Livepatch, Replace};

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(livepatch) = &scene.module.livepatch else { return };
    livepatches(scene, livepatch, findings);
    if scene.facts.origin == Origin::Running {
        probes(scene, livepatch, findings);
    }
}

fn livepatches(scene: &Scene<'_>, livepatch: &Livepatch, findings: &mut Findings) {
    for loaded in &scene.facts.livepatches {
        if loaded.transition == Transition::InProgress {
            let found = format!("{} is still switching tasks", loaded.name);
            findings.refuse("transition", &loaded.name, "no livepatch in transition", found);
        }
        if livepatch.replace == Replace::All {
            findings.note("replace", &loaded.name, "replaced by this module", "loaded");
            continue;
        }
        for object in &livepatch.objects {
            let Some(functions) = loaded.functions.get(&object.name) else { continue };
            for function in &object.functions {
                // The position is 0 or 1 for a name that is unique; the name decides.
                if functions.iter().any(|(name, _)| *name == function.old_name) {
                    let subject = in_object(&object.name, &function.old_name, function.sympos);
                    let found = format!("patched by {}: this module goes on top", loaded.name);
                    findings.note("stacking", subject, "a function that nothing patches yet", found);
                }
            }
        }
    }
}

fn probes(scene: &Scene<'_>, livepatch: &Livepatch, findings: &mut Findings) {
    let Some(probes) = &scene.facts.probes else {
        let found = "not readable: neither kprobes/list nor enabled_functions";
        return findings.note("probe", "kernel", "lists of probes", found);
    };
    for object in &livepatch.objects {
        for function in &object.functions {
            let subject = in_object(&object.name, &function.old_name, function.sympos);
            let here = probes.iter().filter(|probe| probe.object == object.name);
            for probe in here.filter(|probe| probe.function == function.old_name) {
                match probe.kind {
                    ProbeKind::Kprobe { offset } => {
                        let found =
                            format!("a kprobe at +{offset:#x}, which sees the original function only");
                        findings.warn("probe", &subject, "no probe in the function", found);
                    }
                    ProbeKind::IpModify if patched(scene, object, function) => {}
                    ProbeKind::IpModify => {
                        let found = "one that redirects it (IPMODIFY): the kernel allows one";
                        findings.refuse("probe", &subject, "no other user of ftrace redirects it", found);
                    }
                }
            }
        }
    }
}

/// Whether a loaded livepatch is the one that redirects the function: those stack.
fn patched(
    scene: &Scene<'_>,
    object: &crate::module::PatchedObject,
    function: &crate::module::PatchedFunction,
) -> bool {
    scene.facts.livepatches.iter().any(|loaded| {
        let functions = loaded.functions.get(&object.name);
        functions.is_some_and(|list| list.iter().any(|(name, _)| *name == function.old_name))
    })
}
