//! What a role may vouch for.
//!
//! A signature counts for a role only when the document lies within the role's scope. Each limit stands for
//! itself, and all of them must hold; a limit that is left out does not limit. One is there without being
//! asked for: programs that run on the host as root are refused unless the role is allowed them.
//!
//! Hosts decide by what a manifest *says* it is for, and act upon nothing else: a manifest that selects by a
//! label reaches only containers with that label, and one that names groups only hosts of these groups.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{GroupName, ManifestName};
use crate::schema::layer::{ContainerSelector, Label};
use crate::schema::livepatch::StuckAction;
use crate::schema::probe::Check;
use crate::schema::{Component, Manifest, Severity};

/// The limits of a role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Beginnings of manifest names, in whole words: `greet` is for `greet` and `greet-2026`, not `greeting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub manifests: Option<Vec<ManifestName>>,
    /// Kinds of components.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub components: Option<Vec<ComponentKind>>,
    /// Severities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub severities: Option<Vec<Severity>>,
    /// Groups of hosts: a manifest must name groups, and only these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups: Option<Vec<GroupName>>,
    /// Labels of containers: whatever a manifest does to containers, it must ask for one of these labels.
    /// Livepatches change the kernel under all of them, so they are out unless `components` names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub containers: Option<Vec<Label>>,
    /// Probes that run a program on the host.
    #[serde(default)]
    pub host_exec: HostExec,
}

/// Whether a manifest may run programs on the host as probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostExec {
    /// It may not.
    #[default]
    Refused,
    /// It may.
    Allowed,
}

/// A kind of component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// A fix to kernel functions.
    Livepatch,
    /// A fix to files in containers.
    Layer,
    /// Another image for containers.
    Image,
    /// A fix to files of the host, as packages.
    Package,
}

impl ComponentKind {
    fn of(component: &Component) -> Self {
        match component {
            Component::Livepatch(_) => Self::Livepatch,
            Component::Layer(_) => Self::Layer,
            Component::Image(_) => Self::Image,
            Component::Package(_) => Self::Package,
        }
    }
}

const LIVEPATCH: ComponentKind = ComponentKind::Livepatch;

/// How a document goes beyond a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The limit that it passes, as policies write it.
    pub limit: &'static str,
    /// What the scope has there.
    pub allowed: String,
    /// What the document has.
    pub found: String,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, where the role may vouch for {}", self.limit, self.found, self.allowed)
    }
}

impl Scope {
    /// No limit at all; what every role of schema 1 has.
    pub fn everything() -> Self {
        Self { host_exec: HostExec::Allowed, ..Self::default() }
    }

    pub(super) fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    /// Whether something is limited besides what always is.
    pub(super) fn is_limited(&self) -> bool {
        self.lengths().next().is_some()
    }

    /// The lists that limit, and how long they are.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let Self { manifests, components, severities, groups, containers, host_exec: _ } = self;
        let lists = [
            ("manifests", manifests.as_ref().map(Vec::len)),
            ("components", components.as_ref().map(Vec::len)),
            ("severities", severities.as_ref().map(Vec::len)),
            ("groups", groups.as_ref().map(Vec::len)),
            ("containers", containers.as_ref().map(Vec::len)),
        ];
        lists.into_iter().filter_map(|(field, length)| Some((field, length?)))
    }

    /// How a rollout of the manifest `name` to `named` groups goes beyond this scope, if it does.
    pub(crate) fn excess_of_rollout(&self, name: &ManifestName, named: &[GroupName]) -> Option<Excess> {
        let excess = |limit, allowed, found| Some(Excess { limit, allowed, found });
        if let Some(names) = self.manifests.as_ref().filter(|names| !names.iter().any(|n| begins(name, n))) {
            return excess("manifests", list(names, ManifestName::to_string), name.to_string());
        }
        let allowed = self.groups.as_ref()?;
        match named.iter().all(|group| allowed.contains(group)) {
            true => None,
            false => excess("groups", list(allowed, GroupName::to_string), list(named, GroupName::to_string)),
        }
    }

    /// How `manifest` goes beyond this scope, if it does.
    pub fn excess(&self, manifest: &Manifest) -> Option<Excess> {
        let Self { manifests, components, severities, groups, containers, host_exec } = self;
        let excess = |limit, allowed, found| Some(Excess { limit, allowed, found });
        if let Some(names) =
            manifests.as_ref().filter(|names| !names.iter().any(|n| begins(&manifest.name, n)))
        {
            return excess("manifests", list(names, ManifestName::to_string), manifest.name.to_string());
        }
        if let Some(kinds) = components {
            let outside = |component: &&Component| !kinds.contains(&ComponentKind::of(component));
            if let Some(component) = manifest.components.iter().find(outside) {
                let allowed = list(kinds, |kind| format!("{kind:?}").to_lowercase());
                return excess("components", allowed, component.kind().to_owned());
            }
        }
        if let Some(severities) = severities.as_ref().filter(|allowed| !allowed.contains(&manifest.severity))
        {
            return excess(
                "severities",
                list(severities, Severity::to_string),
                manifest.severity.to_string(),
            );
        }
        if let Some(allowed) = groups {
            let named = &manifest.targets.groups;
            if named.is_empty() || !named.iter().all(|group| allowed.contains(group)) {
                let found = match named.is_empty() {
                    true => "every host".to_owned(),
                    false => list(named, GroupName::to_string),
                };
                return excess("groups", list(allowed, GroupName::to_string), found);
            }
        }
        if let Some(labels) = containers {
            // Only who is allowed livepatches in so many words may change the kernel under all containers.
            let kernel =
                manifest.components.iter().any(|component| ComponentKind::of(component) == LIVEPATCH);
            if kernel && !components.as_ref().is_some_and(|kinds| kinds.contains(&LIVEPATCH)) {
                let allowed = list(labels, |label| format!("{}={}", label.name, label.value));
                return excess("containers", allowed, "the kernel under all of them".to_owned());
            }
            let within =
                |selector: &ContainerSelector| selector.labels.iter().any(|own| labels.contains(own));
            if !reached(manifest).into_iter().all(|selector| selector.is_some_and(within)) {
                let allowed = list(labels, |label| format!("{}={}", label.name, label.value));
                return excess("containers", allowed, "others, too".to_owned());
            }
        }
        let program = manifest.probes.iter().find_map(|probe| match &probe.check {
            Check::Exec { command } => command.first(),
            _ => None,
        });
        match program.filter(|_| *host_exec == HostExec::Refused) {
            Some(program) => excess("host_exec", "none".to_owned(), format!("{:?}", program.as_str())),
            None => None,
        }
    }
}

/// Whether `name` is `beginning`, or goes on after it with a new word.
fn begins(name: &ManifestName, beginning: &ManifestName) -> bool {
    let rest = name.as_str().strip_prefix(beginning.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
}

/// Every selection of containers that a manifest does something to; nothing for all of them.
fn reached(manifest: &Manifest) -> Vec<Option<&ContainerSelector>> {
    let mut selectors = Vec::new();
    for component in &manifest.components {
        match component {
            Component::Layer(layer) => selectors.push(layer.containers.as_ref()),
            Component::Image(image) => selectors.push(image.containers.as_ref()),
            // It changes the host under all of them, whichever it restarts.
            Component::Package(_) => selectors.push(None),
            Component::Livepatch(livepatch) => {
                let killed =
                    livepatch.transition.stuck.iter().filter(|rule| rule.action == StuckAction::Kill);
                selectors.extend(killed.map(|rule| Some(&rule.containers)));
            }
        }
    }
    selectors
}

fn list<T>(items: &[T], word: impl Fn(&T) -> String) -> String {
    items.iter().map(word).collect::<Vec<_>>().join(", ")
}
