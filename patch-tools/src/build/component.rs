//! The manifest fragment for a module: what a manifest's author pastes.

use manifests::{
    Arch, Component, CveId, FileName, FixedIn, KernelRelease, LivepatchComponent, ModuleName, NameError,
    ObjectName, PatchedFunction, PatchedObject, Payload, Sha256, SymbolName, Transition,
};
use serde::Serialize;

use super::link::Plan;

/// What a module contributes to a manifest, in the manifest's own words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fragment {
    /// CVE ids that the patch, or who built it, says it fixes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<CveId>,
    /// Where the module fits.
    pub targets: FragmentTargets,
    /// The one component.
    pub components: Vec<Component>,
}

/// The part of a manifest's targets that a module decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FragmentTargets {
    /// Always x86-64.
    pub arch: Vec<Arch>,
    /// The release that it was built for.
    pub kernels: Vec<KernelRelease>,
}

/// A fragment that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// A name in the module is none that a manifest can hold.
    #[error("the module holds a name that a manifest cannot")]
    Name(#[from] NameError),
    /// YAML cannot be written.
    #[error("cannot write the manifest component")]
    Yaml(#[from] serde_yaml::Error),
}

/// What the fragment is about.
pub(super) struct Described<'a> {
    pub(super) module: &'a ModuleName,
    pub(super) file: FileName,
    pub(super) content: &'a [u8],
    pub(super) kernel: &'a KernelRelease,
    /// Of the kernel's image, in hex.
    pub(super) kernel_build_id: Option<&'a str>,
    pub(super) fixed_in: &'a [FixedIn],
    pub(super) plan: &'a Plan,
    pub(super) fixes: &'a [CveId],
}

impl Fragment {
    /// Describes a module.
    pub(super) fn of(described: &Described<'_>) -> Result<Self, FragmentError> {
        let patches = described.plan.objects.iter().map(|object| {
            let functions = object.functions.iter().map(|function| {
                let name: SymbolName = function.name.parse()?;
                Ok(PatchedFunction { name, sympos: function.sympos })
            });
            let name: ObjectName = object.name.as_str().parse()?;
            Ok(PatchedObject { object: name, functions: functions.collect::<Result<_, NameError>>()? })
        });
        let component = LivepatchComponent {
            module: described.module.clone(),
            payload: Payload {
                file: described.file.clone(),
                sha256: Sha256::of(described.content),
                size: described.content.len() as u64,
            },
            kernel: described.kernel.clone(),
            kernel_build_id: described.kernel_build_id.map(str::parse).transpose()?,
            fixed_in: described.fixed_in.to_vec(),
            patches: patches.collect::<Result<_, NameError>>()?,
            replace: described.plan.replace,
            transition: Transition::default(),
        };
        Ok(Self {
            fixes: described.fixes.to_vec(),
            targets: FragmentTargets { arch: vec![Arch::X86_64], kernels: vec![described.kernel.clone()] },
            components: vec![Component::Livepatch(component)],
        })
    }

    /// The fragment as YAML.
    pub fn to_yaml(&self) -> Result<String, FragmentError> {
        let body = serde_yaml::to_string(self)?;
        Ok(format!(
            "# Made by patch-tools build. Paste into a manifest; name, version, dates and summary are yours.\n{body}"
        ))
    }
}
