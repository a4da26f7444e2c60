//! Whether a livepatch that the host may have crashed of is loaded again.
//!
//! A livepatch that brings the kernel down would do so again at every boot if it were simply
//! re-applied. So each load is recorded, and at the next boot the record is judged here:
//!
//! - the host lived through the window after the load (`survived`): load it again;
//! - the host was shut down in order within the window (`stopped`): it did not crash: load it;
//! - neither: the host went down without a word within the window: quarantine.
//!
//! This is a pure function of records that the caller keeps on disk, synced *before* the load. A
//! missing mark counts against the livepatch: an operator can lift a quarantine, nobody can lift a
//! crash loop. It does not tell a kernel crash from a pulled plug, and says so in its reason.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use manifests::{ModuleName, Sha256};
use serde::{Deserialize, Serialize};
use system::boot::{BootId, UserspaceId};
use system::clock::millis;

/// One load of one livepatch in one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// The module.
    pub module: ModuleName,
    /// The digest of its file: a rebuilt module is another livepatch.
    pub digest: Sha256,
    /// The boot it was loaded in.
    pub boot_id: BootId,
    /// When, by the wall clock: for people.
    pub loaded_at: Timestamp,
    /// When, since that boot began: the window is measured by this, since the wall clock may be set meanwhile.
    /// Zero in records of programs that did not keep it.
    #[serde(with = "millis", default)]
    pub uptime: Duration,
    /// How long the host had to live to clear it.
    #[serde(with = "millis")]
    pub window: Duration,
    /// How this load ended, as far as is known.
    pub fate: LoadFate,
    /// The start of userspace that was stopped in order, if that was told: another one in the same boot means that the
    /// kernel went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<UserspaceId>,
}

/// What became of the host after a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fate", content = "at")]
pub enum LoadFate {
    /// Nothing was heard since.
    Unknown,
    /// The window passed with the livepatch loaded.
    Survived(Timestamp),
    /// The host was shut down in order, or the livepatch was taken off, within the window.
    Stopped(Timestamp),
}

impl LoadFate {
    /// The fate of a load that is about to happen: a window of zero means that nothing is blamed on it.
    #[must_use]
    pub fn at_load(window: Duration, now: Timestamp) -> Self {
        if window.is_zero() { Self::Survived(now) } else { Self::Unknown }
    }
}

/// The judgement about one livepatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "decision", content = "why")]
pub enum Decision {
    /// Nothing speaks against it.
    Load,
    /// It is not loaded.
    Quarantine(Suspicion),
}

/// Why a livepatch is not loaded again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspicion {
    /// The livepatch.
    pub module: ModuleName,
    /// The boot that ended without a word.
    pub boot_id: BootId,
    /// When it was loaded there.
    pub loaded_at: Timestamp,
    /// The window that the host is not known to have survived.
    #[serde(with = "millis")]
    pub window: Duration,
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was loaded at {} in boot {}, and that boot ended without an orderly shutdown before the host had run {:?} with it: a crash or a power cut",
            self.module, self.loaded_at, self.boot_id, self.window
        )
    }
}

/// Judges the livepatch `module` with file digest `digest`, to be loaded in boot `current`.
///
/// Records of other modules or digests do not matter, nor do records of the current boot: it has
/// not crashed. Of the earlier boots every one counts, so that surviving once does not excuse a
/// later crash; a quarantine is lifted by removing the record.
#[must_use]
pub fn decide(records: &[LoadRecord], module: &ModuleName, digest: &Sha256, current: &BootId) -> Decision {
    let suspect = records
        .iter()
        .filter(|record| record.module == *module && record.digest == *digest && record.boot_id != *current)
        .filter(|record| record.fate == LoadFate::Unknown)
        .max_by_key(|record| record.loaded_at);
    match suspect {
        None => Decision::Load,
        Some(record) => Decision::Quarantine(Suspicion {
            module: record.module.clone(),
            boot_id: record.boot_id.clone(),
            loaded_at: record.loaded_at,
            window: record.window,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "11111111-1111-1111-1111-111111111111";
    const NOW: &str = "22222222-2222-2222-2222-222222222222";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(boot: &str, fate: LoadFate) -> LoadRecord {
        LoadRecord {
            module: "fix".parse().unwrap(),
            digest: Sha256::of(b"fix.ko"),
            boot_id: boot.parse().unwrap(),
            loaded_at: at(1000),
            uptime: Duration::from_secs(40),
            window: Duration::from_secs(600),
            fate,
            stopped: None,
        }
    }

    fn judge(records: &[LoadRecord]) -> Decision {
        decide(records, &"fix".parse().unwrap(), &Sha256::of(b"fix.ko"), &NOW.parse().unwrap())
    }

    #[test]
    fn a_boot_that_ended_without_a_word_quarantines_what_was_loaded_in_it() {
        let Decision::Quarantine(why) = judge(&[record(THEN, LoadFate::Unknown)]) else {
            panic!("was loaded")
        };
        assert_eq!(why.boot_id, THEN.parse().unwrap());
        assert!(why.to_string().contains("a crash or a power cut"), "{why}");
    }

    #[test]
    fn surviving_the_window_or_an_orderly_shutdown_clears_a_load() {
        for fate in [LoadFate::Survived(at(1600)), LoadFate::Stopped(at(1010))] {
            assert_eq!(judge(&[record(THEN, fate)]), Decision::Load, "{fate:?}");
        }
    }

    #[test]
    fn a_load_of_this_very_boot_has_not_crashed_the_host() {
        assert_eq!(judge(&[record(NOW, LoadFate::Unknown)]), Decision::Load);
    }

    #[test]
    fn having_survived_once_does_not_excuse_a_crash_in_another_boot() {
        let records = [
            record("33333333-3333-3333-3333-333333333333", LoadFate::Survived(at(1600))),
            record(THEN, LoadFate::Unknown),
        ];
        assert!(matches!(judge(&records), Decision::Quarantine(_)));
    }

    #[test]
    fn a_rebuilt_module_is_another_livepatch() {
        let mut other = record(THEN, LoadFate::Unknown);
        other.digest = Sha256::of(b"fix.ko, rebuilt");
        assert_eq!(judge(&[other]), Decision::Load);
    }
}
