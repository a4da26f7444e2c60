//! The schedule of a rollout document: the fastest clean rollout, as hosts enforce it.
//!
//! The first wave is named host by host, and picked before the document has a digest. Behind it a host's place is its
//! share, which hangs on that digest: how many hosts lie within a part can only be foretold up to chance. So each part
//! has room for four standard deviations more; the last is the whole fleet. A controller that counts hosts exactly then
//! asks nobody too early, and one that was stolen gains a few hosts of one wave.

use manifests::{Part, Schedule, Share, UtcTime};

use crate::assurance::later;
use crate::policy::RolloutPolicy;
use crate::waves::Layout;

/// The schedule for a fleet that is laid out like this, beginning at `start`; nothing if there are no hosts.
pub fn schedule(policy: &RolloutPolicy, layout: &Layout, start: UtcTime) -> Option<Schedule> {
    let first = layout.ends.first().copied()?;
    let hosts = layout.members.len() as f64;
    let bake = i64::from(policy.waves.bake.secs());
    let parts = (1..).zip(&layout.ends[1..]).map(|(wave, end)| {
        let part = *end as f64 / hosts;
        let room = 4.0 * (part * (1.0 - part) / hosts).sqrt();
        let millionths = ((part + room) * f64::from(Share::WHOLE)).ceil().min(f64::from(Share::WHOLE)) as u32;
        // A wave that has no host to wait for takes the bake, and no less.
        Part { millionths, not_before: later(start, bake.saturating_mul(wave)) }
    });
    let mut then: Vec<Part> = Vec::new();
    for part in parts {
        // With chance a part may be the whole fleet before the last wave; the later ones have nothing to add.
        if then.last().is_none_or(|before| before.millionths < part.millionths) {
            then.push(part);
        }
    }
    let first = layout.members[..first].iter().map(|member| member.host.id).collect();
    Some(Schedule { not_before: start, first, then })
}

#[cfg(test)]
mod tests {
    use manifests::Sha256;

    use super::*;
    use crate::sample;

    #[test]
    fn whoever_is_in_a_wave_may_begin_when_the_fastest_rollout_opens_it() {
        let (policy, inventory) = (sample::policy(), sample::inventory(10_000));
        let start = "2026-11-02T00:00:00Z".parse().unwrap();
        let picked = Layout::new(&policy, Sha256::of(b"a seed"), &inventory);
        let schedule = schedule(&policy, &picked, start).unwrap();
        assert_eq!((schedule.first.len(), schedule.then.len()), (60, 6));
        assert_eq!(schedule.then.last().map(|part| part.millionths), Some(Share::WHOLE));
        // The digest of the document, which nobody knew when it was written.
        let digest = Sha256::of(b"the document");
        let layout = Layout::with_first(&policy, digest, &schedule.first, &inventory);
        assert_eq!(layout.ends, picked.ends);
        let mut begin = 0;
        for (wave, end) in (0..).zip(&layout.ends) {
            let opens = later(start, 24 * 3600 * wave);
            for member in &layout.members[begin..*end] {
                let earliest = schedule.earliest(digest, member.host.id).unwrap();
                assert!(earliest <= opens, "wave {wave}");
            }
            begin = *end;
        }
        // And most of the later ones may not begin with the second.
        let second = later(start, 24 * 3600);
        let early = |member: &crate::waves::Member| {
            schedule.earliest(digest, member.host.id).is_some_and(|earliest| earliest <= second)
        };
        assert!(layout.members[300..].iter().filter(|member| early(member)).count() < 200);
    }
}
