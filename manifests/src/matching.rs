//! Seats in roles and the keys that may take them: a largest assignment of one to the other.
//!
//! A key may be eligible for several roles and sits in one. Taking the first that fits could leave
//! a role empty that a better distribution fills, so this is a maximum bipartite matching by
//! augmenting paths (Kuhn). The result is deterministic: earlier roles and keys come first.

/// The seats of one role.
pub(crate) struct Seats {
    /// How many seats there are.
    pub(crate) count: usize,
    /// The keys that may sit, by index.
    pub(crate) eligible: Vec<usize>,
}

/// The keys that sit in each role.
pub(crate) fn assign(roles: &[Seats], keys: usize) -> Vec<Vec<usize>> {
    let mut role_of_key: Vec<Option<usize>> = vec![None; keys];
    for (role, seats) in roles.iter().enumerate() {
        // More seats than eligible keys are never filled; do not try them one by one.
        for _ in 0..seats.count.min(seats.eligible.len()) {
            let mut visited = vec![false; keys];
            if !take_seat(role, roles, &mut role_of_key, &mut visited) {
                break;
            }
        }
    }
    let mut seated = vec![Vec::new(); roles.len()];
    for (key, role) in role_of_key.iter().enumerate() {
        if let Some(role) = role {
            seated[*role].push(key);
        }
    }
    seated
}

/// Gives `role` one more key, moving keys that sit elsewhere where that role finds another.
fn take_seat(role: usize, roles: &[Seats], role_of_key: &mut [Option<usize>], visited: &mut [bool]) -> bool {
    for &key in &roles[role].eligible {
        if role_of_key[key] == Some(role) || std::mem::replace(&mut visited[key], true) {
            continue;
        }
        let free = match role_of_key[key] {
            None => true,
            Some(other) => take_seat(other, roles, role_of_key, visited),
        };
        if free {
            role_of_key[key] = Some(role);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seats(count: usize, eligible: &[usize]) -> Seats {
        Seats { count, eligible: eligible.to_vec() }
    }

    #[test]
    fn a_key_moves_to_the_role_that_only_it_can_fill_elsewhere() {
        // The first role could take either; the second needs key 0.
        assert_eq!(assign(&[seats(1, &[0, 1]), seats(1, &[0])], 2), [vec![1], vec![0]]);
    }

    #[test]
    fn one_key_sits_in_one_role() {
        let seated = assign(&[seats(1, &[0]), seats(1, &[0])], 1);
        assert_eq!(seated.iter().map(Vec::len).sum::<usize>(), 1);
    }

    /// The most seats that can be taken, by trying everything.
    fn best(roles: &[Seats], key: usize, keys: usize, left: &mut [usize]) -> usize {
        if key == keys {
            return 0;
        }
        let mut most = best(roles, key + 1, keys, left);
        for role in 0..roles.len() {
            if left[role] > 0 && roles[role].eligible.contains(&key) {
                left[role] -= 1;
                most = most.max(1 + best(roles, key + 1, keys, left));
                left[role] += 1;
            }
        }
        most
    }

    proptest! {
        #[test]
        fn no_distribution_seats_more(
            raw in prop::collection::vec((1usize..4, prop::collection::btree_set(0usize..6, 0..6)), 1..4)
        ) {
            let roles: Vec<Seats> = raw.iter()
                .map(|(count, eligible)| Seats { count: *count, eligible: eligible.iter().copied().collect() })
                .collect();
            let seated = assign(&roles, 6);
            for (role, keys) in roles.iter().zip(&seated) {
                prop_assert!(keys.len() <= role.count);
                prop_assert!(keys.iter().all(|key| role.eligible.contains(key)));
            }
            let mut left: Vec<usize> = roles.iter().map(|role| role.count).collect();
            prop_assert_eq!(seated.iter().map(Vec::len).sum::<usize>(), best(&roles, 0, 6, &mut left));
        }
    }
}
