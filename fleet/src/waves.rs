//! Which host goes when: strata, order, and the cuts between waves.
//!
//! The first wave is picked: of each stratum in proportion, at least one where there is room, those with the
//! lowest share. Behind it all hosts follow by their share alone. A share is uniform in every stratum, so that
//! each prefix of the order has nearly the fleet's own mixture; and it is what a host computes by itself, so
//! that the order can be enforced by schedule on the hosts ([`manifests::Share`]).
//!
//! The order never changes. Where a wave ends does: a wave that takes more hosts takes the next ones. Late
//! joiners come behind all others, in the last wave.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{HostId, Sha256, Share};

use crate::host::Host;
use crate::policy::RolloutPolicy;
use crate::test::Test;

/// A stratum: hosts of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stratum {
    /// What they have in common, in words.
    pub name: String,
    /// How many there are.
    pub hosts: u32,
}

/// A host in its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// The host.
    pub host: Host,
    /// Its stratum, by its index.
    pub stratum: usize,
    /// Its share, by which it is ordered.
    pub share: Share,
}

/// The hosts of a rollout in their order, and where each wave ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The strata, by name.
    pub strata: Vec<Stratum>,
    /// The hosts, in order.
    pub members: Vec<Member>,
    /// For each wave, the number of hosts in it and in all before it. Grows; the last is all of them.
    pub ends: Vec<usize>,
}

impl Layout {
    /// Lays out the hosts of `inventory` that the policy selects, each id once, for the rollout with this digest.
    pub fn new(policy: &RolloutPolicy, rollout: Sha256, inventory: &[Host]) -> Self {
        Self::build(policy, rollout, None, inventory)
    }

    /// As [`Layout::new`], with the first wave that a document names: it was picked before the document had a digest.
    /// Of those that are not there any more, the next ones take the place.
    pub fn with_first(policy: &RolloutPolicy, rollout: Sha256, first: &[HostId], inventory: &[Host]) -> Self {
        Self::build(policy, rollout, Some(first.iter().copied().collect()), inventory)
    }

    fn build(
        policy: &RolloutPolicy,
        rollout: Sha256,
        named: Option<BTreeSet<HostId>>,
        inventory: &[Host],
    ) -> Self {
        let mut seen = BTreeSet::new();
        let selected = inventory.iter().filter(|host| policy.selector.selects(host) && seen.insert(host.id));
        let mut members: Vec<Member> = Vec::new();
        let mut strata: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for host in selected {
            strata.entry(host.stratum(&policy.strata)).or_default().push(members.len());
            members.push(Member { host: host.clone(), stratum: 0, share: Share::of(rollout, host.id) });
        }
        for (number, hosts) in strata.values().enumerate() {
            hosts.iter().for_each(|index| members[*index].stratum = number);
        }
        let sizes = sizes(policy, members.len() as u32);
        let wanted = sizes.first().copied().unwrap_or(0) as usize;
        let first = match named {
            Some(named) => (0..members.len()).filter(|at| named.contains(&members[*at].host.id)).collect(),
            None => {
                let mut by_stratum: Vec<Vec<usize>> = strata.values().cloned().collect();
                for hosts in &mut by_stratum {
                    hosts.sort_by_key(|index| order(&members[*index]));
                }
                pick(&by_stratum, wanted)
            }
        };
        members = in_order(members, &first);
        let ends = sizes.iter().scan(0, |end, size| {
            *end += *size as usize;
            Some(*end)
        });
        let ends = ends.collect();
        let hosts_of = |(name, hosts): (String, Vec<usize>)| Stratum { name, hosts: hosts.len() as u32 };
        Self { strata: strata.into_iter().map(hosts_of).collect(), ends, members }
    }

    /// How many waves there are.
    pub fn waves(&self) -> usize {
        self.ends.len()
    }

    /// How many tests are planned: one for each wave and stratum, and one for each wave as a whole, unless the
    /// two are one.
    pub fn tests(&self) -> u32 {
        let strata = self.strata.len().max(1);
        let each = if strata == 1 { 1 } else { strata + 1 };
        (self.waves().max(1) * each) as u32
    }

    /// The test of a rollout that is laid out like this.
    pub fn test(&self, policy: &RolloutPolicy) -> Test {
        Test::new(&policy.test, self.tests())
    }

    /// Strata that have fewer hosts than could pass by themselves: nothing is proven of them but by the others.
    pub fn unproven(&self, test: &Test) -> impl Iterator<Item = &Stratum> {
        let least = test.least();
        self.strata.iter().filter(move |stratum| stratum.hosts < least)
    }
}

fn order(member: &Member) -> (Share, HostId) {
    (member.share, member.host.id)
}

/// The sizes of the waves of a fleet of `hosts`.
///
/// A fleet that can pass the test at all has no wave, but for the last, that could not. A smaller one begins
/// with a tenth of itself: there each single host decides.
pub fn sizes(policy: &RolloutPolicy, hosts: u32) -> Vec<u32> {
    let waves = &policy.waves;
    let least = Test::new(&policy.test, 1).least();
    let (first, floor) = match hosts < least {
        true => (waves.first.min((hosts / 10).max(1)), 1),
        false => (waves.first, least),
    };
    let largest = waves.largest.at_least_one_of(hosts).max(floor);
    let mut sizes = Vec::new();
    let mut done = 0;
    while done < hosts {
        let wanted = if done == 0 { first } else { done.saturating_mul(waves.growth).clamp(floor, largest) };
        let size = wanted.min(hosts - done);
        sizes.push(size);
        done += size;
    }
    sizes
}

/// Of each stratum, its hosts in order, which `wanted` go first: in proportion, by the largest remainder, and
/// before that one of each as long as there is room, largest strata first.
fn pick(strata: &[Vec<usize>], wanted: usize) -> Vec<usize> {
    let all: usize = strata.iter().map(Vec::len).sum();
    let mut seats: Vec<usize> =
        strata.iter().map(|hosts| (hosts.len() * wanted).checked_div(all).unwrap_or(0)).collect();
    let mut left = wanted.min(all) - seats.iter().sum::<usize>();
    let mut by_need: Vec<usize> = (0..strata.len()).collect();
    let remainder = |at: &usize| strata[*at].len() * wanted % all.max(1);
    by_need.sort_by_key(|at| (seats[*at] > 0, std::cmp::Reverse((remainder(at), strata[*at].len()))));
    for at in by_need {
        if left > 0 && seats[at] < strata[at].len() {
            seats[at] += 1;
            left -= 1;
        }
    }
    strata.iter().zip(seats).flat_map(|(hosts, seats)| &hosts[..seats]).copied().collect()
}

/// The picked ones by their share, then the others by theirs.
fn in_order(members: Vec<Member>, first: &[usize]) -> Vec<Member> {
    let first: BTreeSet<usize> = first.iter().copied().collect();
    let mut placed: Vec<(bool, Member)> =
        members.into_iter().enumerate().map(|(at, member)| (!first.contains(&at), member)).collect();
    placed.sort_by_key(|(later, member)| (*later, order(member)));
    placed.into_iter().map(|(_, member)| member).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample;

    #[test]
    fn ten_thousand_hosts_go_in_seven_waves() {
        assert_eq!(sizes(&sample::policy(), 10_000), [60, 240, 1200, 2500, 2500, 2500, 1000]);
    }

    #[test]
    fn no_wave_but_the_last_is_too_small_to_pass() {
        assert_eq!(sizes(&sample::policy(), 200), [60, 60, 60, 20]);
        assert_eq!(sizes(&sample::policy(), 61), [60, 1]);
        assert_eq!(sizes(&sample::policy(), 60), [60]);
    }

    #[test]
    fn a_small_fleet_begins_with_a_tenth_of_itself() {
        let mut policy = sample::policy();
        policy.waves.largest = crate::policy::Amount::Percent(100);
        assert_eq!(sizes(&policy, 3), [1, 2]);
        assert_eq!(sizes(&policy, 50), [5, 20, 25]);
        assert_eq!(sizes(&policy, 0), [0; 0]);
    }

    #[test]
    fn each_kind_of_host_is_in_the_first_wave_and_each_wave_has_the_fleets_mixture() {
        let inventory = sample::inventory(10_000);
        let policy = sample::policy();
        let layout = Layout::new(&policy, sample::rollout(), &inventory);
        assert_eq!(layout.strata.len(), 6);
        assert_eq!(layout.ends, [60, 300, 1500, 4000, 6500, 9000, 10_000]);
        let count = |from: usize, to: usize, stratum: usize| {
            layout.members[from..to].iter().filter(|member| member.stratum == stratum).count()
        };
        for (number, stratum) in layout.strata.iter().enumerate() {
            let part = f64::from(stratum.hosts) / 10_000.0;
            let first = count(0, 60, number);
            assert!(first >= 1 && (first as f64 - 60.0 * part).abs() <= 1.0, "{}: {first}", stratum.name);
            for wave in 1..layout.waves() {
                let (from, to) = (layout.ends[wave - 1], layout.ends[wave]);
                let (found, hosts) = (count(from, to, number) as f64, (to - from) as f64);
                // Four standard deviations of the binomial distribution.
                let slack = 4.0 * (hosts * part * (1.0 - part)).sqrt();
                assert!((found - hosts * part).abs() <= slack, "{} in wave {wave}: {found}", stratum.name);
            }
        }
    }

    #[test]
    fn another_rollout_has_another_first_wave() {
        let inventory = sample::inventory(1000);
        let first = |rollout| -> BTreeSet<HostId> {
            let layout = Layout::new(&sample::policy(), rollout, &inventory);
            layout.members[..60].iter().map(|member| member.host.id).collect()
        };
        let (one, two) = (first(Sha256::of(b"one")), first(Sha256::of(b"two")));
        // By chance 3.6 of 60 are in both.
        assert!(one.intersection(&two).count() < 15);
        assert_eq!(one, first(Sha256::of(b"one")));
    }

    #[test]
    fn a_host_that_is_listed_twice_has_one_place() {
        let mut inventory = sample::inventory(100);
        inventory.extend(inventory.clone());
        assert_eq!(Layout::new(&sample::policy(), sample::rollout(), &inventory).members.len(), 100);
    }

    proptest! {
        #[test]
        fn every_selected_host_has_exactly_one_place(hosts in 0usize..400, first in 1u32..100, growth in 1u32..9) {
            let mut policy = sample::policy();
            (policy.waves.first, policy.waves.growth) = (first, growth);
            let inventory = sample::inventory(hosts);
            let layout = Layout::new(&policy, sample::rollout(), &inventory);
            let ids: BTreeSet<HostId> = layout.members.iter().map(|member| member.host.id).collect();
            prop_assert_eq!(ids, inventory.iter().map(|host| host.id).collect());
            prop_assert_eq!(layout.members.len(), hosts);
            prop_assert_eq!(layout.ends.last().copied().unwrap_or(0), hosts);
            prop_assert!(layout.ends.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
