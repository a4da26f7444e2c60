//! Rules between fields, and limits that types do not carry.
//!
//! Each rule stands here once and has its own error. What needs a host (is this kernel running,
//! does this container exist) is not asked here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::image::ImageComponent;
use super::layer::{ContainerSelector, FileIdentity, LayerComponent, ReplacedFile};
use super::livepatch::{FixedIn, LivepatchComponent, Replace};
use super::package::{PackageChange, PackageComponent};
use super::payload::Payload;
use super::probe::{Check, Probe};
use super::{Arch, Component, Manifest};
use crate::digest::ImageDigest;
use crate::duration::Span;
use crate::names::{
    Distribution, FileName, KernelRelease, KernelSeries, ModuleName, ObjectName, ServiceName, SymbolName,
};
use crate::package::PackageVersion;
use crate::text::Argument;
use crate::time::UtcTime;

/// The longest time from issue to expiry: a host never trusts a manifest longer than that.
const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(366 * 24);

/// The highest version: what every JSON reader and a signed 64-bit column hold exactly (2^53 - 1).
const MAX_VERSION: u64 = (1 << 53) - 1;

/// Largest payloads. Livepatch modules are some hundred KiB and are read into memory; layers and images stream.
const MAX_LIVEPATCH_BYTES: u64 = 64 << 20;
const MAX_LAYER_BYTES: u64 = 16 << 30;
const MAX_IMAGE_BYTES: u64 = 16 << 30;
const MAX_PACKAGE_BYTES: u64 = 4 << 30;

/// Largest file that `replaces` can give a size for: the largest that Linux has (`MAX_LFS_FILESIZE`).
const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// A manifest that contradicts itself or a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It would expire before it is valid.
    #[error("expires: expected a time after issued ({issued}), found {expires}")]
    ExpiresBeforeIssued {
        /// `issued`.
        issued: UtcTime,
        /// `expires`.
        expires: UtcTime,
    },
    /// It would be valid for too long.
    #[error("expires: expected at most {limit_days} days after issued, found {found_days}")]
    LifetimeTooLong {
        /// The limit in days.
        limit_days: i64,
        /// The days between the two, rounded up.
        found_days: i64,
    },
    /// A list has too few or too many entries.
    #[error("{field}: expected {min} to {max} entries, found {found}")]
    Count {
        /// The list.
        field: String,
        /// The fewest allowed.
        min: usize,
        /// The most allowed.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// A number is outside of its limits.
    #[error("{field}: expected {min} to {max}, found {found}")]
    Number {
        /// The field.
        field: String,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
        /// What it is.
        found: u64,
    },
    /// A duration is outside of its limits.
    #[error("{field}: expected {min} to {max}, found {found}")]
    Duration {
        /// The field.
        field: String,
        /// The shortest allowed.
        min: Span,
        /// The longest allowed.
        max: Span,
        /// What it is.
        found: Span,
    },
    /// An entry stands twice in a list.
    #[error("{field}: expected each entry once, found {entry} twice")]
    Duplicate {
        /// The list.
        field: String,
        /// The entry.
        entry: String,
    },
    /// Two components are the same module for one kernel.
    #[error("components: expected each module once for a kernel, found {module} twice")]
    DuplicateModule {
        /// The module.
        module: ModuleName,
    },
    /// Two entries say when one kernel was fixed.
    #[error("{field}: expected one entry for a kernel, found {distribution} {first} and {second}")]
    FixedTwice {
        /// The list.
        field: String,
        /// The distribution of both.
        distribution: Distribution,
        /// The series of the one.
        first: KernelSeries,
        /// The series of the other.
        second: KernelSeries,
    },
    /// A component says when a series was fixed, and another for a kernel of that series does not: a fixed
    /// kernel could lack the other's fix.
    #[error(
        "components: expected fixed_in of {module} to have {distribution} {series}, as that of another, found nothing"
    )]
    FixedUnsaid {
        /// The module of the component without the entry.
        module: ModuleName,
        /// The distribution.
        distribution: Distribution,
        /// The series.
        series: KernelSeries,
    },
    /// A package is replaced twice.
    #[error("components: expected each package once, found {package} twice")]
    DuplicatePackage {
        /// The package, with its architecture.
        package: String,
    },
    /// A package is replaced by itself.
    #[error("{field}: expected a new version other than the old one, found {version}")]
    SamePackage {
        /// The package.
        field: String,
        /// Both versions.
        version: PackageVersion,
    },
    /// A service is both to be restarted and to be left.
    #[error("{field}: expected each service to be restarted or left, found {service} in both lists")]
    ServiceContradicts {
        /// The field.
        field: String,
        /// The service.
        service: ServiceName,
    },
    /// Two components name one payload file and mean different bytes.
    #[error("components: expected one digest and size for {file}, found two")]
    PayloadConflict {
        /// The file.
        file: FileName,
    },
    /// A livepatch is for a kernel that the manifest is not for.
    #[error("components: expected the kernel of {module} among targets.kernels, found {kernel}")]
    KernelNotTargeted {
        /// The livepatch module.
        module: ModuleName,
        /// Its kernel.
        kernel: KernelRelease,
    },
    /// A livepatch in a manifest for machines other than x86_64.
    #[error("components: expected targets.arch to be x86_64 alone beside livepatch {module}, found {arch}")]
    LivepatchArch {
        /// The livepatch module.
        module: ModuleName,
        /// The other architecture.
        arch: Arch,
    },
    /// A livepatch that replaces all others follows another one, which it would undo.
    #[error("components: expected `replace: all` on a kernel's first livepatch only, found it on {module}")]
    ReplaceNotFirst {
        /// The later livepatch module.
        module: ModuleName,
    },
    /// One symbol is called unique (sympos 0) and one of several.
    #[error("components: expected sympos 0 only when {object} has one {function}, found 0 beside another")]
    SymposContradicts {
        /// The patched object.
        object: ObjectName,
        /// The function.
        function: SymbolName,
    },
    /// An image in place of itself.
    #[error("{field}: expected other images than the new one, found {image}")]
    ImageInsteadOfItself {
        /// The field.
        field: String,
        /// The image.
        image: ImageDigest,
    },
    /// A selector that selects by nothing.
    #[error("{field}: expected ids or labels, found neither")]
    EmptySelector {
        /// The field.
        field: String,
    },
    /// A command without a program.
    #[error("{field}: expected a program as the first word, found an empty one")]
    EmptyProgram {
        /// The field.
        field: String,
    },
    /// A command on the host that would be searched in PATH.
    #[error("{field}: expected an absolute path to a program on the host, found {:?}", program.as_str())]
    RelativeProgram {
        /// The field.
        field: String,
        /// The program.
        program: Argument,
    },
    /// A probe that cannot succeed in its time.
    #[error(
        "{field}: expected {successes} successes {interval} apart to fit into the timeout, found {timeout}"
    )]
    ProbeCannotSucceed {
        /// The probe.
        field: String,
        /// Successes that it needs.
        successes: u32,
        /// Pause between attempts.
        interval: Span,
        /// Time that it has.
        timeout: Span,
    },
}

pub(super) fn manifest(manifest: &Manifest) -> Result<(), RuleError> {
    number("version", manifest.version, 1, MAX_VERSION)?;
    lifetime(manifest.issued, manifest.expires)?;
    count("fixes", manifest.fixes.len(), 0, 256)?;
    distinct("fixes", &manifest.fixes)?;
    count("targets.arch", manifest.targets.arch.len(), 1, 8)?;
    distinct("targets.arch", &manifest.targets.arch)?;
    count("targets.kernels", manifest.targets.kernels.len(), 0, 64)?;
    distinct("targets.kernels", &manifest.targets.kernels)?;
    count("targets.groups", manifest.targets.groups.len(), 0, 64)?;
    distinct("targets.groups", &manifest.targets.groups)?;
    components(manifest)?;
    probes("probes", &manifest.probes, Where::Host)?;
    duration("settle", manifest.settle, Span::from_secs(0), Span::from_secs(3600))
}

fn lifetime(issued: UtcTime, expires: UtcTime) -> Result<(), RuleError> {
    if expires <= issued {
        return Err(RuleError::ExpiresBeforeIssued { issued, expires });
    }
    let lifetime = expires.timestamp().duration_since(issued.timestamp());
    if lifetime > MAX_LIFETIME {
        let day = 24 * 3600;
        return Err(RuleError::LifetimeTooLong {
            limit_days: MAX_LIFETIME.as_secs() / day,
            found_days: (lifetime.as_secs() + day - 1) / day,
        });
    }
    Ok(())
}

fn components(manifest: &Manifest) -> Result<(), RuleError> {
    count("components", manifest.components.len(), 1, 64)?;
    let mut files: BTreeMap<&FileName, &Payload> = BTreeMap::new();
    let mut livepatches: Vec<&LivepatchComponent> = Vec::new();
    let mut packages: BTreeSet<String> = BTreeSet::new();
    for (index, component) in manifest.components.iter().enumerate() {
        let field = format!("components[{index}]");
        for payload in component.payloads() {
            if files.insert(&payload.file, payload).is_some_and(|earlier| earlier != payload) {
                return Err(RuleError::PayloadConflict { file: payload.file.clone() });
            }
        }
        match component {
            Component::Livepatch(livepatch) => {
                beside_others(livepatch, &livepatches)?;
                livepatches.push(livepatch);
                self::livepatch(&field, livepatch, manifest)?;
            }
            Component::Layer(layer) => self::layer(&field, layer)?,
            Component::Image(image) => self::image(&field, image)?,
            Component::Package(component) => {
                for PackageChange { name, architecture, .. } in &component.packages {
                    let package = format!("{name}:{architecture}");
                    if !packages.insert(package.clone()) {
                        return Err(RuleError::DuplicatePackage { package });
                    }
                }
                package(&field, component)?;
            }
        }
    }
    fixed_alike(&livepatches)
}

/// Rules between a livepatch and those before it that one kernel could take together.
fn beside_others(livepatch: &LivepatchComponent, others: &[&LivepatchComponent]) -> Result<(), RuleError> {
    let together = |other: &&&LivepatchComponent| {
        let builds = (&livepatch.kernel_build_id, &other.kernel_build_id);
        other.kernel == livepatch.kernel && !matches!(builds, (Some(one), Some(two)) if one != two)
    };
    let module = || livepatch.module.clone();
    if others.iter().filter(together).any(|other| other.module == livepatch.module) {
        return Err(RuleError::DuplicateModule { module: module() });
    }
    match livepatch.replace == Replace::All && others.iter().any(|other| together(&other)) {
        true => Err(RuleError::ReplaceNotFirst { module: module() }),
        false => Ok(()),
    }
}

/// What one component says of a series, all components for kernels of that series say.
fn fixed_alike(livepatches: &[&LivepatchComponent]) -> Result<(), RuleError> {
    for FixedIn { distribution, series, .. } in livepatches.iter().flat_map(|livepatch| &livepatch.fixed_in) {
        let silent = |livepatch: &&&LivepatchComponent| {
            let mut own = livepatch.fixed_in.iter();
            series.has(&livepatch.kernel)
                && !own
                    .any(|fixed| fixed.distribution == *distribution && fixed.series.has(&livepatch.kernel))
        };
        if let Some(livepatch) = livepatches.iter().find(silent) {
            return Err(RuleError::FixedUnsaid {
                module: livepatch.module.clone(),
                distribution: distribution.clone(),
                series: series.clone(),
            });
        }
    }
    Ok(())
}

/// No kernel may be of the series of two entries.
fn fixed_in(field: &str, entries: &[FixedIn]) -> Result<(), RuleError> {
    count(field, entries.len(), 0, 64)?;
    for (index, second) in entries.iter().enumerate() {
        let overlaps = |first: &&FixedIn| {
            let (a, b) = (first.series.as_str(), second.series.as_str());
            let within =
                |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
            first.distribution == second.distribution && (within(a, b) || within(b, a))
        };
        if let Some(first) = entries[..index].iter().find(overlaps) {
            return Err(RuleError::FixedTwice {
                field: field.to_owned(),
                distribution: first.distribution.clone(),
                first: first.series.clone(),
                second: second.series.clone(),
            });
        }
    }
    Ok(())
}

fn livepatch(field: &str, livepatch: &LivepatchComponent, manifest: &Manifest) -> Result<(), RuleError> {
    let module = || livepatch.module.clone();
    number(&format!("{field}.payload.size"), livepatch.payload.size, 1, MAX_LIVEPATCH_BYTES)?;
    if let Some(&arch) = manifest.targets.arch.iter().find(|arch| **arch != Arch::X86_64) {
        return Err(RuleError::LivepatchArch { module: module(), arch });
    }
    if !manifest.targets.kernels.contains(&livepatch.kernel) {
        return Err(RuleError::KernelNotTargeted { module: module(), kernel: livepatch.kernel.clone() });
    }
    let deadline = livepatch.transition.deadline;
    duration(&format!("{field}.transition.deadline"), deadline, Span::from_secs(1), Span::from_secs(3600))?;
    count(&format!("{field}.transition.stuck"), livepatch.transition.stuck.len(), 0, 16)?;
    for (index, rule) in livepatch.transition.stuck.iter().enumerate() {
        selector(&format!("{field}.transition.stuck[{index}].containers"), &rule.containers)?;
    }
    fixed_in(&format!("{field}.fixed_in"), &livepatch.fixed_in)?;

    count(&format!("{field}.patches"), livepatch.patches.len(), 1, 64)?;
    let objects: Vec<_> = livepatch.patches.iter().map(|patch| &patch.object).collect();
    distinct(&format!("{field}.patches"), &objects)?;
    for patch in &livepatch.patches {
        let field = format!("{field}.patches[{}].functions", patch.object);
        count(&field, patch.functions.len(), 1, 1024)?;
        let mut positions: BTreeMap<&SymbolName, BTreeSet<u32>> = BTreeMap::new();
        for function in &patch.functions {
            let positions = positions.entry(&function.name).or_default();
            if !positions.insert(function.sympos) {
                return Err(RuleError::Duplicate { field, entry: function.name.to_string() });
            }
            if positions.len() > 1 && positions.contains(&0) {
                return Err(RuleError::SymposContradicts {
                    object: patch.object.clone(),
                    function: function.name.clone(),
                });
            }
        }
    }
    Ok(())
}

fn layer(field: &str, layer: &LayerComponent) -> Result<(), RuleError> {
    number(&format!("{field}.payload.size"), layer.payload.size, 1, MAX_LAYER_BYTES)?;
    replaces(&format!("{field}.replaces"), &layer.replaces)?;
    if let Some(containers) = &layer.containers {
        selector(&format!("{field}.containers"), containers)?;
    }
    never_checkpoint(field, &layer.never_checkpoint)?;
    number(&format!("{field}.concurrency"), layer.concurrency.into(), 1, 64)?;
    probes(&format!("{field}.probes"), &layer.probes, Where::Container)
}

fn package(field: &str, component: &PackageComponent) -> Result<(), RuleError> {
    count(&format!("{field}.packages"), component.packages.len(), 1, 32)?;
    for (index, PackageChange { old, new, .. }) in component.packages.iter().enumerate() {
        let field = format!("{field}.packages[{index}]");
        number(&format!("{field}.old.payload.size"), old.payload.size, 1, MAX_PACKAGE_BYTES)?;
        number(&format!("{field}.new.payload.size"), new.payload.size, 1, MAX_PACKAGE_BYTES)?;
        if old.version.compare(&new.version).is_eq() {
            return Err(RuleError::SamePackage { field, version: new.version.clone() });
        }
    }
    replaces(&format!("{field}.replaces"), &component.replaces)?;
    let rules = &component.services;
    for (name, services) in [("restart", &rules.restart), ("leave", &rules.leave)] {
        count(&format!("{field}.services.{name}"), services.len(), 0, 64)?;
        distinct(&format!("{field}.services.{name}"), services)?;
    }
    if let Some(service) = rules.restart.iter().find(|service| rules.leave.contains(service)) {
        let (field, service) = (format!("{field}.services"), service.clone());
        return Err(RuleError::ServiceContradicts { field, service });
    }
    if let Some(containers) = &component.containers {
        selector(&format!("{field}.containers"), containers)?;
    }
    never_checkpoint(field, &component.never_checkpoint)
}

fn replaces(field: &str, files: &[ReplacedFile]) -> Result<(), RuleError> {
    count(field, files.len(), 1, 256)?;
    let mut identities = BTreeSet::new();
    for file in files {
        if !identities.insert(&file.identity) {
            let entry = match &file.identity {
                FileIdentity::BuildId(id) => format!("build_id {id}"),
                FileIdentity::Sha256(digest) => format!("sha256 {digest}"),
            };
            return Err(RuleError::Duplicate { field: field.to_owned(), entry });
        }
    }
    for (index, file) in files.iter().enumerate() {
        if let Some(size) = file.size {
            number(&format!("{field}[{index}].size"), size, 1, MAX_FILE_BYTES)?;
        }
    }
    Ok(())
}

fn image(field: &str, image: &ImageComponent) -> Result<(), RuleError> {
    number(&format!("{field}.payload.size"), image.payload.size, 1, MAX_IMAGE_BYTES)?;
    let instead_of = format!("{field}.instead_of");
    count(&instead_of, image.instead_of.len(), 1, 64)?;
    distinct(&instead_of, &image.instead_of)?;
    if image.instead_of.contains(&image.image) {
        return Err(RuleError::ImageInsteadOfItself { field: instead_of, image: image.image });
    }
    if let Some(containers) = &image.containers {
        selector(&format!("{field}.containers"), containers)?;
    }
    never_checkpoint(field, &image.never_checkpoint)?;
    number(&format!("{field}.concurrency"), image.concurrency.into(), 1, 64)?;
    probes(&format!("{field}.probes"), &image.probes, Where::Container)
}

fn never_checkpoint(field: &str, selectors: &[ContainerSelector]) -> Result<(), RuleError> {
    count(&format!("{field}.never_checkpoint"), selectors.len(), 0, 16)?;
    for (index, containers) in selectors.iter().enumerate() {
        selector(&format!("{field}.never_checkpoint[{index}]"), containers)?;
    }
    Ok(())
}

/// A selector selects by something; leaving it out, where that may be, is how to select everything.
fn selector(field: &str, selector: &ContainerSelector) -> Result<(), RuleError> {
    if selector.ids.is_empty() && selector.labels.is_empty() {
        return Err(RuleError::EmptySelector { field: field.to_owned() });
    }
    count(&format!("{field}.ids"), selector.ids.len(), 0, 256)?;
    distinct(&format!("{field}.ids"), &selector.ids)?;
    count(&format!("{field}.labels"), selector.labels.len(), 0, 64)?;
    // A container has one value per label: two entries of one name could never both match.
    let names: Vec<_> = selector.labels.iter().map(|label| &label.name).collect();
    distinct(&format!("{field}.labels"), &names)
}

/// Where a probe's command runs.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Host,
    Container,
}

fn probes(field: &str, probes: &[Probe], place: Where) -> Result<(), RuleError> {
    count(field, probes.len(), 0, 32)?;
    for (index, probe) in probes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match &probe.check {
            Check::Exec { command } => {
                let field = format!("{field}.command");
                count(&field, command.len(), 1, 64)?;
                let program = &command[0];
                if program.as_str().is_empty() {
                    return Err(RuleError::EmptyProgram { field });
                }
                if place == Where::Host && !program.as_str().starts_with('/') {
                    return Err(RuleError::RelativeProgram { field, program: program.clone() });
                }
            }
            Check::Http { status, .. } => number(&format!("{field}.status"), (*status).into(), 100, 599)?,
            Check::Tcp { .. } => {}
        }
        duration(&format!("{field}.timeout"), probe.timeout, Span::from_millis(100), Span::from_secs(600))?;
        duration(&format!("{field}.interval"), probe.interval, Span::from_millis(10), Span::from_secs(60))?;
        number(&format!("{field}.successes"), probe.successes.into(), 1, 100)?;
        if probe.interval.duration() * (probe.successes - 1) >= probe.timeout.duration() {
            let Probe { successes, interval, timeout, .. } = *probe;
            return Err(RuleError::ProbeCannotSucceed { field, successes, interval, timeout });
        }
    }
    Ok(())
}

fn count(field: &str, found: usize, min: usize, max: usize) -> Result<(), RuleError> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(RuleError::Count { field: field.to_owned(), min, max, found }),
    }
}

fn number(field: &str, found: u64, min: u64, max: u64) -> Result<(), RuleError> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(RuleError::Number { field: field.to_owned(), min, max, found }),
    }
}

fn duration(field: &str, found: Span, min: Span, max: Span) -> Result<(), RuleError> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(RuleError::Duration { field: field.to_owned(), min, max, found }),
    }
}

fn distinct<T: Ord + std::fmt::Display>(field: &str, entries: &[T]) -> Result<(), RuleError> {
    let mut seen = BTreeSet::new();
    match entries.iter().find(|entry| !seen.insert(*entry)) {
        Some(twice) => Err(RuleError::Duplicate { field: field.to_owned(), entry: twice.to_string() }),
        None => Ok(()),
    }
}
