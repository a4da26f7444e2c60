//! Which rollout takes whose place, and which comes too late to begin.
//!
//! Two rollouts *contend* if they are of one manifest's name and may mean the same host: of those the later one counts.
//! A staging group that is ahead of the rest contends with nobody. What takes another's place is settled when it is
//! handed in, and happens when its first hosts may begin: until then, and should it never begin, the other goes on.
//!
//! Nothing goes backwards: a host would refuse a version below one that it has accepted, so a rollout of such a one can
//! only fail on every host that is up to date; and whoever kept an old document cannot bring it out again.

use std::cmp::Reverse;

use manifests::{ManifestName, Sha256, UtcTime};

use super::state::Progress;
use crate::policy::Selector;

/// What of a rollout decides whose place it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The digest of its document.
    pub rollout: Sha256,
    /// When that was issued.
    pub issued: UtcTime,
    /// Its manifest's name.
    pub name: ManifestName,
    /// Its manifest's version.
    pub version: u64,
    /// Its manifest's digest.
    pub manifest: Sha256,
    /// Whom it means.
    pub selector: Selector,
    /// Rollouts that it says end when it begins.
    pub supersedes: Vec<Sha256>,
}

impl Claim {
    /// Whether of the two only one may go on.
    fn contends(&self, other: &Self) -> bool {
        self.name == other.name && self.selector.meets(&other.selector)
    }

    /// Why this comes too late beside `other`, which contends with it.
    fn refuse(&self, other: &Self, progress: &Progress) -> Result<(), Outdated> {
        // What was given up and never went through forbids no version.
        if progress.stage().is_live() || progress.is_through() {
            let name = self.name.clone();
            if self.version < other.version {
                let (floor, found, by) = (other.version, self.version, other.rollout);
                return Err(Outdated::Version { name, floor, found, by, through: progress.is_through() });
            }
            if self.version == other.version && self.manifest != other.manifest {
                let (expected, found) = (other.manifest, self.manifest);
                return Err(Outdated::Reused { name, version: self.version, expected, found });
            }
        }
        if self.version <= other.version && self.issued < other.issued {
            let (accepted, found, by) = (other.issued, self.issued, other.rollout);
            return Err(Outdated::Document { accepted, found, by });
        }
        Ok(())
    }
}

/// Why a rollout comes too late.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outdated {
    /// A later version of its manifest is there, or on its way.
    #[error(
        "version {found} of {name} is below {floor}, which rollout {by} {}: hosts that have it refuse {found}; expected at least {floor}",
        if *.through { "has taken through this fleet" } else { "is taking through it" }
    )]
    Version {
        /// The manifest's name.
        name: ManifestName,
        /// The least version that may begin.
        floor: u64,
        /// The version that was handed in.
        found: u64,
        /// Whose version the least is.
        by: Sha256,
        /// Whether that rollout has completed.
        through: bool,
    },
    /// Another manifest has this version.
    #[error(
        "version {version} of {name} is another manifest in this fleet: expected {expected}, found {found}"
    )]
    Reused {
        /// The manifests' name.
        name: ManifestName,
        /// Their version.
        version: u64,
        /// The one that is known.
        expected: Sha256,
        /// The one that was handed in.
        found: Sha256,
    },
    /// A later document was accepted.
    #[error("the document was issued at {found}, before that of rollout {by}: expected {accepted} or later")]
    Document {
        /// When that was issued.
        accepted: UtcTime,
        /// When the one that was handed in was.
        found: UtcTime,
        /// The other rollout.
        by: Sha256,
    },
    /// It says that it supersedes what nobody knows.
    #[error(
        "it supersedes rollout {rollout}, which was never handed in here: expected one of `update rollout status`"
    )]
    Unknown {
        /// Which.
        rollout: Sha256,
    },
}

/// The rollouts that end when `new` begins, of all that were accepted before it.
///
/// # Errors
/// Why `new` comes too late.
pub fn succeed<'k>(
    new: &Claim,
    known: impl Iterator<Item = (&'k Claim, &'k Progress)>,
) -> Result<Vec<Sha256>, Outdated> {
    // The highest floor is the one to tell.
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(claim, _)| Reverse((claim.version, claim.issued)));
    let is_unknown = |wanted: &&Sha256| known.iter().all(|(claim, _)| claim.rollout != **wanted);
    if let Some(rollout) = new.supersedes.iter().find(is_unknown) {
        return Err(Outdated::Unknown { rollout: *rollout });
    }
    let mut ends = Vec::new();
    for (claim, progress) in known {
        let contends = new.contends(claim);
        if contends {
            new.refuse(claim, progress)?;
        }
        if (contends || new.supersedes.contains(&claim.rollout)) && progress.stage().is_live() {
            ends.push(claim.rollout);
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Entry, Event, Plan};
    use crate::sample;

    const DAY: &str = "2026-11-02T00:00:00Z";

    fn claim(version: u64, selector: &str, issued: &str) -> Claim {
        Claim {
            rollout: Sha256::of(format!("{version} {selector} {issued}").as_bytes()),
            issued: issued.parse().unwrap(),
            name: "fix".parse().unwrap(),
            version,
            manifest: Sha256::of(&version.to_be_bytes()),
            selector: serde_json::from_str(selector).unwrap(),
            supersedes: Vec::new(),
        }
    }

    /// A rollout to which these things have happened.
    fn after(events: &[Event]) -> Progress {
        let (start, end) = (DAY.parse().unwrap(), "2027-02-01T00:00:00Z".parse().unwrap());
        let plan = Plan::new(sample::rollout(), sample::policy(), &sample::inventory(1), start, end);
        let entries: Vec<Entry> =
            events.iter().map(|event| Entry { at: start, event: event.clone() }).collect();
        Progress::replay(&plan, &entries).unwrap()
    }

    fn live() -> Progress {
        after(&[Event::Submitted])
    }

    fn completed() -> Progress {
        let host = 0;
        let nonce = manifests::Nonce::from_bytes([1; 16]);
        after(&[
            Event::Submitted,
            Event::CalendarOpened,
            Event::WaveOpened { wave: 0 },
            Event::Ready { host },
            Event::Granted { host, nonce, epoch: 1 },
            Event::Applied { host },
            Event::Matured { host },
            Event::WavePassed { wave: 0 },
            Event::Completed,
        ])
    }

    fn given_up() -> Progress {
        let by =
            crate::rollout::Author { name: "anna".parse().unwrap(), proof: crate::rollout::Proof::Token };
        after(&[Event::Submitted, Event::Aborted { by }])
    }

    fn judge(new: &Claim, known: &[(Claim, Progress)]) -> Result<Vec<Sha256>, Outdated> {
        succeed(new, known.iter().map(|(claim, progress)| (claim, progress)))
    }

    const WEB: &str = r#"{"groups": ["web"]}"#;

    #[test]
    fn a_higher_version_ends_what_may_still_go_on_and_nothing_else() {
        let (one, two) = (claim(1, WEB, DAY), claim(2, WEB, DAY));
        for progress in [live(), completed()] {
            assert_eq!(judge(&two, &[(one.clone(), progress)]), Ok(vec![one.rollout]));
        }
        assert_eq!(judge(&two, &[(one, given_up())]), Ok(vec![]));
    }

    #[test]
    fn rollouts_that_mean_no_host_in_common_do_not_contend() {
        let both = r#"{"groups": ["web", "db"]}"#;
        let here = r#"{"groups": ["web"], "domains": ["rack-1"]}"#;
        let there = r#"{"groups": ["web"], "domains": ["rack-2"]}"#;
        for (one, two, contend) in [
            (WEB, r#"{"groups": ["db"]}"#, false),
            (WEB, both, true),
            (here, there, false),
            (here, WEB, true),
            (here, here, true),
        ] {
            let (old, new) = (claim(1, one, DAY), claim(2, two, DAY));
            let ends = judge(&new, &[(old.clone(), live())]).unwrap();
            assert_eq!(ends.contains(&old.rollout), contend, "{one} and {two}");
            // Nor does the staging group's later version keep an earlier one from the others.
            assert_eq!(judge(&old, &[(new, live())]).is_err(), contend, "{two} and {one}");
        }
    }

    #[test]
    fn a_version_below_what_the_fleet_has_or_gets_is_refused_with_the_arithmetic() {
        let (one, two) = (claim(1, WEB, "2026-11-03T00:00:00Z"), claim(2, WEB, DAY));
        for (progress, words) in [
            (completed(), "version 1 of fix is below 2, which rollout"),
            (live(), "is taking through it: hosts that have it refuse 1; expected at least 2"),
        ] {
            let refused = judge(&one, &[(two.clone(), progress)]).unwrap_err();
            assert!(matches!(refused, Outdated::Version { floor: 2, found: 1, .. }));
            assert!(refused.to_string().contains(words), "{refused}");
        }
        assert_eq!(judge(&one, &[(two.clone(), given_up())]), Ok(vec![]), "it never went through");
        let other = Claim { manifest: Sha256::of(b"another"), ..claim(2, WEB, DAY) };
        assert!(matches!(judge(&other, &[(two, completed())]), Err(Outdated::Reused { version: 2, .. })));
    }

    #[test]
    fn an_older_document_is_refused_and_a_newer_one_of_the_same_manifest_takes_its_place() {
        let (old, new) = (claim(1, WEB, DAY), claim(1, WEB, "2026-11-03T00:00:00Z"));
        assert_eq!(judge(&new, &[(old.clone(), live())]), Ok(vec![old.rollout]));
        for progress in [live(), completed(), given_up()] {
            let refused = judge(&old, &[(new.clone(), progress)]);
            assert!(matches!(refused, Err(Outdated::Document { .. })), "{refused:?}");
        }
        let replayed = claim(1, WEB, DAY);
        let later = claim(2, WEB, "2026-11-03T00:00:00Z");
        assert!(matches!(judge(&replayed, &[(later, given_up())]), Err(Outdated::Document { .. })));
    }

    #[test]
    fn what_a_document_supersedes_has_to_be_there_and_may_be_of_any_name() {
        let old = Claim { name: "another".parse().unwrap(), ..claim(9, WEB, DAY) };
        let mut new = claim(1, WEB, DAY);
        assert_eq!(judge(&new, &[(old.clone(), live())]), Ok(vec![]));
        new.supersedes = vec![old.rollout];
        assert_eq!(judge(&new, &[(old.clone(), live())]), Ok(vec![old.rollout]));
        assert_eq!(judge(&new, &[(old, given_up())]), Ok(vec![]), "it is over already");
        assert!(matches!(judge(&new, &[]), Err(Outdated::Unknown { .. })));
    }
}
