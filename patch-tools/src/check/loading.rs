//! What the module loader asks before it looks at symbols.

use super::facts::{KernelKeys, Lockdown, Origin, SignaturePolicy};
use super::{Findings, Scene};
use crate::module::{EntryTarget, Signature, SignerIdentity};

/// Licences with which the loader gives access to GPL-only symbols (`include/linux/license.h`).
const GPL_COMPATIBLE: [&str; 6] =
    ["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"];

/// Bits of the taint mask that mean that the kernel has met an error: died, warned, soft lockup.
const TROUBLE: [(u32, &str); 4] = [(5, "bad page"), (7, "oops"), (9, "warning"), (14, "soft lockup")];

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    kind(scene, findings);
    vermagic(scene, findings);
    config(scene, findings);
    signature(scene, findings);
    licence(scene, findings);
    name(scene, findings);
    entries(scene, findings);
    taints(scene, findings);
}

fn kind(scene: &Scene<'_>, findings: &mut Findings) {
    if !scene.module.is_livepatch() {
        let expected = "modinfo with the key livepatch";
        findings.refuse("livepatch", "module", expected, "an ordinary module");
    } else if scene.module.livepatch.is_none() {
        let expected = "a struct klp_patch passed to klp_enable_patch";
        findings.refuse("livepatch", "module", expected, "no such structure");
    }
}

/// The loader passes over the release when there are CRCs. A livepatch replaces code of one build, so that
/// here the release has to be the same.
fn vermagic(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(vermagic) = scene.module.vermagic() else {
        let expected = format!("a vermagic for {}", scene.facts.release);
        return findings.refuse("vermagic", "module", expected, "none");
    };
    let (release, flags) = vermagic.split_once(' ').unwrap_or((vermagic, ""));
    if release != scene.facts.release {
        return findings.refuse("vermagic", "release", scene.facts.release.as_str(), release);
    }
    match scene.facts.vermagic.as_deref().map(|own| own.split_once(' ').unwrap_or((own, "")).1) {
        Some(own) if own.trim_end() != flags.trim_end() => {
            findings.refuse("vermagic", "flags", own.trim_end(), flags.trim_end());
        }
        Some(_) => {}
        None => findings.note(
            "vermagic",
            "flags",
            "the kernel's vermagic",
            "not known: only the release was compared",
        ),
    }
}

fn config(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(config) = &scene.facts.config else {
        return findings.note(
            "config",
            "kernel",
            "the kernel's configuration",
            "not found: options not checked",
        );
    };
    for option in ["CONFIG_MODULES", "CONFIG_LIVEPATCH"] {
        if !config.is_set(option) {
            findings.refuse("config", option, "y", config.get(option).unwrap_or("not set"));
        }
    }
    let option = "CONFIG_HAVE_RELIABLE_STACKTRACE";
    if !config.is_set(option) {
        let found = "not set: a transition needs every task to leave the kernel by itself";
        findings.refuse("config", option, "y", found);
    }
}

fn signature(scene: &Scene<'_>, findings: &mut Findings) {
    let facts = scene.facts;
    let by_config = facts.config.as_ref().is_some_and(|config| config.is_set("CONFIG_MODULE_SIG_FORCE"));
    let wanted = match (facts.signatures, facts.lockdown) {
        (Some(SignaturePolicy::Enforced), _) => Some("the kernel enforces module signatures"),
        (_, Some(Lockdown::Integrity | Lockdown::Confidentiality)) => Some("the kernel is locked down"),
        _ if by_config => Some("CONFIG_MODULE_SIG_FORCE is set"),
        _ => None,
    };
    match (&scene.module.signature, wanted) {
        (Some(signature), Some(wanted)) => signer(signature, wanted, facts.keys.as_ref(), findings),
        (None, Some(wanted)) => {
            let found = format!("none, and {wanted}");
            findings.refuse("signature", "module", "an appended signature", found);
        }
        (None, None) if facts.origin == Origin::Image => {
            let found = "none: refused under lockdown or with module.sig_enforce=1";
            findings.note("signature", "module", "an appended signature", found);
        }
        (_, None) => {}
    }
}

/// A kernel that wants signatures takes them of keys in its keyrings. A signer that is named by a certificate's serial number
/// cannot be looked for there.
fn signer(signature: &Signature, wanted: &str, keys: Option<&KernelKeys>, findings: &mut Findings) {
    let expected = "one of a key that the kernel trusts";
    let Some(keys) = keys else {
        return findings.note(
            "signature",
            "signer",
            expected,
            "the kernel's keys cannot be seen: not checked",
        );
    };
    for signer in &signature.signers {
        match &signer.identity {
            SignerIdentity::Key { key_id } if keys.have(key_id) => {}
            SignerIdentity::Key { .. } => {
                let known: Vec<&str> = keys.subjects().collect();
                let found =
                    format!("that of {}, {wanted}, and its keys are {}", signer.identity, known.join("; "));
                findings.refuse("signature", "signer", expected, found);
            }
            SignerIdentity::Certificate { .. } => {
                let found =
                    format!("that of {}, which /proc/keys does not name: not checked", signer.identity);
                findings.note("signature", "signer", expected, found);
            }
        }
    }
}

/// `klp_enable_patch` is exported to GPL-compatible modules only.
fn licence(scene: &Scene<'_>, findings: &mut Findings) {
    let licence = scene.module.modinfo.get("license").unwrap_or("none");
    if !GPL_COMPATIBLE.contains(&licence) {
        findings.refuse("licence", "module", "one that is compatible with the GPL", licence);
    }
}

fn name(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(name) = scene.module.name.as_deref() else {
        let expected = "a name in .gnu.linkonce.this_module";
        return findings.refuse("name", "module", expected, "none");
    };
    if let Some(said) = scene.module.modinfo.get("name").filter(|said| *said != name) {
        findings.warn("name", "module", format!("{name} in modinfo as in struct module"), said);
    }
    if let Some(loaded) = &scene.facts.loaded
        && loaded.loaded.contains(name)
    {
        findings.refuse("name", name, "no module of that name is loaded", "one is");
    }
}

/// The loader calls `init` and `exit` of `struct module` wherever they lead.
fn entries(scene: &Scene<'_>, findings: &mut Findings) {
    for entry in &scene.module.entries {
        if let EntryTarget::Elsewhere(found) = &entry.target {
            let subject = format!("struct module+{:#x}", entry.offset);
            findings.refuse("entry", subject, "the first byte of a function of the module", found.as_str());
        }
    }
}

fn taints(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(taints) = scene.facts.taints else { return };
    let trouble: Vec<&str> =
        TROUBLE.iter().filter(|(bit, _)| taints & (1 << bit) != 0).map(|(_, name)| *name).collect();
    if !trouble.is_empty() {
        let found = format!("{} (taint mask {taints})", trouble.join(", "));
        findings.warn("taint", "kernel", "a kernel that has met no error since boot", found);
    }
}
