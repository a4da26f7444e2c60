//! A container's cgroup knobs: recorded before it is touched, put back and verified afterwards.
//!
//! runc sets what `config.json` says when it starts or restores a container. Whatever was changed
//! since (`runc update`, an operator's echo) would be lost; the record keeps it. Cgroup v2 only: a
//! host still on v1 is refused by the record itself.
//!
//! Invariant: [`CgroupLimits::apply`] returns what still differs after it wrote, read back from the
//! kernel; an empty list is proof, not hope.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Container, WorkloadId};

/// The knobs that limit or weigh a container (kernel `Documentation/admin-guide/cgroup-v2.rst`).
/// `memory.max` stands after `memory.high`, and `cgroup.freeze` is not here: it is state.
const KNOBS: &[&str] = &[
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.uclamp.max",
    "cpu.uclamp.min",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.cpus.partition",
    "cpuset.mems",
    "io.bfq.weight",
    "io.latency",
    "io.max",
    "io.prio.class",
    "io.weight",
    "memory.low",
    "memory.min",
    "memory.high",
    "memory.oom.group",
    "memory.swap.high",
    "memory.max",
    "memory.swap.max",
    "memory.zswap.max",
    "pids.max",
];

/// Size limits of huge pages carry the page size in their name.
fn is_hugetlb_limit(name: &str) -> bool {
    name.starts_with("hugetlb.") && (name.ends_with(".max") || name.ends_with(".rsvd.max"))
}

/// Where cgroup v2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Knob values of one cgroup, as the kernel shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupRecord {
    /// The cgroup under the cgroup root.
    pub path: PathBuf,
    /// Knob name to content.
    pub knobs: BTreeMap<String, String>,
}

/// A knob that is not what the record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnobDifference {
    /// The knob.
    pub knob: String,
    /// What the record says.
    pub expected: String,
    /// What the kernel shows; absent when the knob does not exist.
    pub found: Option<String>,
}

impl std::fmt::Display for KnobDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = self.found.as_deref().unwrap_or("no such knob");
        write!(f, "{}: expected {:?}, found {found:?}", self.knob, self.expected)
    }
}

/// Why knobs could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The container has no cgroup that can be named.
    #[error("container {id} has no cgroup v2 path")]
    NoCgroup {
        /// The container.
        id: WorkloadId,
    },
    /// The host does not use cgroup v2.
    #[error("{ROOT} is not a cgroup v2 hierarchy; limits of containers cannot be kept")]
    NotVersion2,
    /// The cgroup could not be read.
    #[error("could not read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Knobs of cgroup v2.
#[derive(Debug, Clone)]
pub struct CgroupLimits {
    root: PathBuf,
}

impl Default for CgroupLimits {
    fn default() -> Self {
        Self { root: ROOT.into() }
    }
}

impl CgroupLimits {
    fn directory(&self, container: &Container) -> Result<(PathBuf, PathBuf), CgroupError> {
        let path =
            container.cgroup.clone().ok_or_else(|| CgroupError::NoCgroup { id: container.id.clone() })?;
        if !self.root.join("cgroup.controllers").exists() {
            return Err(CgroupError::NotVersion2);
        }
        let directory = self.root.join(path.strip_prefix("/").unwrap_or(&path));
        Ok((directory, path))
    }
}

impl super::Limits for CgroupLimits {
    fn record(&self, container: &Container) -> Result<CgroupRecord, CgroupError> {
        let (directory, path) = self.directory(container)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError::Read { path, source }
        };
        let mut knobs = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(failed(&directory))? {
            let entry = entry.map_err(failed(&directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if KNOBS.contains(&name.as_str()) || is_hugetlb_limit(&name) {
                let content = std::fs::read_to_string(entry.path()).map_err(failed(&entry.path()))?;
                knobs.insert(name, content.trim_end().to_owned());
            }
        }
        Ok(CgroupRecord { path, knobs })
    }

    fn apply(
        &self,
        container: &Container,
        record: &CgroupRecord,
    ) -> Result<Vec<KnobDifference>, CgroupError> {
        let (directory, _) = self.directory(container)?;
        let ordered = KNOBS.iter().filter_map(|knob| record.knobs.get_key_value(*knob));
        let huge = record.knobs.iter().filter(|(knob, _)| is_hugetlb_limit(knob));
        let mut differences = Vec::new();
        for (knob, expected) in ordered.chain(huge) {
            let file = directory.join(knob);
            let shown = || std::fs::read_to_string(&file).ok().map(|text| text.trim_end().to_owned());
            if shown().as_ref() == Some(expected) {
                continue;
            }
            for line in writable(knob, expected, shown().as_deref().unwrap_or("")) {
                // What the kernel refuses shows in the reading below.
                let _ = std::fs::write(&file, line);
            }
            let found = shown();
            if found.as_ref() != Some(expected) {
                differences.push(KnobDifference { knob: knob.clone(), expected: expected.clone(), found });
            }
        }
        Ok(differences)
    }
}

/// What to write, one `write` per element, so that the knob shows `expected`.
///
/// Most knobs take back what they show. The per-device ones take one line per write and forget a
/// device only by a line that sets it to the default; an empty cpuset is written as a newline.
fn writable(knob: &str, expected: &str, current: &str) -> Vec<String> {
    match knob {
        "io.max" | "io.latency" => {
            let reset = if knob == "io.max" { "rbps=max wbps=max riops=max wiops=max" } else { "target=0" };
            let device = |line: &str| line.split(' ').next().unwrap_or("").to_owned();
            let kept: Vec<String> = expected.lines().map(device).collect();
            let gone = current.lines().map(device).filter(|one| !one.is_empty() && !kept.contains(one));
            gone.map(|one| format!("{one} {reset}")).chain(expected.lines().map(str::to_owned)).collect()
        }
        "io.weight" | "io.bfq.weight" => expected.lines().map(str::to_owned).collect(),
        _ if expected.is_empty() => vec!["\n".to_owned()],
        _ => vec![expected.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::model::{CgroupDriver, ContainerStatus, NetworkPlace};

    fn container(cgroup: &str) -> Container {
        Container {
            id: "web-1".parse().unwrap(),
            status: ContainerStatus::Running,
            init: None,
            started: None,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            annotations: BTreeMap::new(),
            cgroup: Some(cgroup.into()),
            cgroup_driver: CgroupDriver::Cgroupfs,
            network: NetworkPlace::Host,
        }
    }

    fn tree(knobs: &[(&str, &str)]) -> (tempfile::TempDir, CgroupLimits) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), "memory").unwrap();
        std::fs::create_dir_all(root.path().join("slice/web-1")).unwrap();
        for (knob, content) in knobs {
            std::fs::write(root.path().join("slice/web-1").join(knob), content).unwrap();
        }
        let limits = CgroupLimits { root: root.path().to_owned() };
        (root, limits)
    }

    #[test]
    fn limits_are_recorded_and_accounting_is_not() {
        let (_root, limits) =
            tree(&[("memory.max", "1048576\n"), ("memory.current", "5\n"), ("hugetlb.2MB.max", "max\n")]);
        let record = limits.record(&container("/slice/web-1")).unwrap();
        let knobs: Vec<_> = record.knobs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(knobs, [("hugetlb.2MB.max", "max"), ("memory.max", "1048576")]);
    }

    #[test]
    fn a_changed_limit_is_put_back_and_a_missing_one_is_reported() {
        let (root, limits) = tree(&[("memory.max", "5\n"), ("pids.max", "7\n")]);
        let record = limits.record(&container("/slice/web-1")).unwrap();
        std::fs::write(root.path().join("slice/web-1/memory.max"), "max\n").unwrap();
        std::fs::remove_file(root.path().join("slice/web-1/pids.max")).unwrap();
        std::fs::create_dir(root.path().join("slice/web-1/pids.max")).unwrap();
        let left = limits.apply(&container("/slice/web-1"), &record).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("slice/web-1/memory.max")).unwrap(), "5");
        assert_eq!(left, [KnobDifference { knob: "pids.max".into(), expected: "7".into(), found: None }]);
    }

    #[test]
    fn per_device_limits_are_written_line_by_line_and_new_devices_reset() {
        let lines = writable("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max", "8:16 rbps=2");
        assert_eq!(
            lines,
            ["8:16 rbps=max wbps=max riops=max wiops=max", "8:0 rbps=1 wbps=max riops=max wiops=max"]
        );
        assert_eq!(writable("cpuset.cpus", "", "0-1"), ["\n"]);
    }
}
