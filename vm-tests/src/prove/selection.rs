//! Which fixes are tried, and in which order.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::sources::is_ours;

/// A part of the kernel, by the directory at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Area {
    /// `kernel/`
    Kernel,
    /// `mm/`
    Mm,
    /// `fs/`
    Fs,
    /// `net/`
    Net,
    /// `block/`
    Block,
    /// `security/`
    Security,
    /// `lib/`
    Lib,
    /// `drivers/`, most of which are modules.
    Drivers,
}

impl Area {
    /// The area of a path, if it is one that is tried.
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path.split('/').next()? {
            "kernel" => Self::Kernel,
            "mm" => Self::Mm,
            "fs" => Self::Fs,
            "net" => Self::Net,
            "block" => Self::Block,
            "security" => Self::Security,
            "lib" => Self::Lib,
            "drivers" => Self::Drivers,
            _ => return None,
        })
    }
}

impl fmt::Display for Area {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Kernel => "kernel",
            Self::Mm => "mm",
            Self::Fs => "fs",
            Self::Net => "net",
            Self::Block => "block",
            Self::Security => "security",
            Self::Lib => "lib",
            Self::Drivers => "drivers",
        })
    }
}

/// One C file that differs between the two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: String,
    pub(super) area: Area,
}

/// The candidates among differing files, areas taking turns, so that any beginning of the list has something of
/// each; within an area by digest, so that the choice is nobody's.
pub(super) fn candidates<'p>(differing: impl IntoIterator<Item = &'p String>) -> Vec<Candidate> {
    let mut areas: BTreeMap<Area, Vec<&String>> = BTreeMap::new();
    for path in differing.into_iter().filter(|path| path.ends_with(".c") && is_ours(path)) {
        if let Some(area) = Area::of(path) {
            areas.entry(area).or_default().push(path);
        }
    }
    let mut turns = Vec::new();
    for (area, mut paths) in areas {
        paths.sort_by_key(|path| Sha256::digest(path.as_bytes()));
        turns.extend(paths.into_iter().enumerate().map(|(turn, path)| (turn, area, path)));
    }
    turns.sort();
    turns.into_iter().map(|(_, area, path)| Candidate { path: path.clone(), area }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_take_turns_and_files_of_the_examination_stay_out() {
        let numbered = |area: &str| (0..40).map(|n| format!("{area}/{n}.c")).collect::<Vec<_>>();
        let all = [numbered("fs"), numbered("mm"), numbered("sound")].concat();
        let chosen = candidates(&all);
        assert_eq!(chosen[0].area, Area::Mm);
        assert_eq!(chosen[1].area, Area::Fs);
        assert_eq!(chosen[2].area, Area::Mm);
        assert!(chosen.iter().all(|candidate| is_ours(&candidate.path)));
        assert!(chosen.len() > 20 && chosen.len() < 80);
    }
}
