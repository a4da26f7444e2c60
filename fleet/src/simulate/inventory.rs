//! A fleet that does not exist, for whoever wants to see a policy play before there is one.

use manifests::{HostId, Sha256};

use super::random::Random;
use crate::host::Host;

/// What a made-up fleet is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// How many hosts.
    pub hosts: u32,
    /// How many of them fail together: a rack.
    pub per_domain: u32,
    /// Kernels, as parts: `[70, 30]` are two of them, seven to three.
    pub kernels: Vec<u32>,
    /// Roles, as parts.
    pub roles: Vec<u32>,
    /// Another fleet for each seed.
    pub seed: u64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { hosts: 10_000, per_domain: 40, kernels: vec![70, 30], roles: vec![60, 25, 15], seed: 0 }
    }
}

impl Synthetic {
    /// The fleet. All hosts are in the group `fleet`; kernel and role are drawn independently.
    pub fn inventory(&self) -> Vec<Host> {
        let mut random = Random::new(self.seed);
        (0..self.hosts).map(|number| self.host(number, &mut random)).collect()
    }

    fn host(&self, number: u32, random: &mut Random) -> Host {
        let key = [&self.seed.to_be_bytes()[..], &number.to_be_bytes()].concat();
        let kernel = draw(&self.kernels, random);
        let role = draw(&self.roles, random);
        // Each of these is within the rule of its word.
        let word = |text: String| text.parse().expect("a label of letters and digits");
        Host {
            kernel_build_id: None,
            id: HostId::new(Sha256::of(&key)),
            groups: vec!["fleet".parse().expect("a group")],
            domain: format!("rack-{}", number / self.per_domain.max(1)).parse().expect("a domain"),
            kernel: format!("6.{}.0", kernel + 1).parse().expect("a release"),
            cpu: word("cpu".to_owned()),
            role: word(format!("role-{role}")),
            services: Vec::new(),
        }
    }
}

/// Which of these parts comes up; 0 if there are none.
fn draw(parts: &[u32], random: &mut Random) -> usize {
    let mut left = random.below(parts.iter().map(|part| u64::from(*part)).sum());
    for (at, part) in parts.iter().enumerate() {
        match left.checked_sub(u64::from(*part)) {
            Some(rest) => left = rest,
            None => return at,
        }
    }
    0
}
