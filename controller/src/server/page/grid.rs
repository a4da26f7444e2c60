//! The hosts of a wave as squares, by where they stand.
//!
//! A wave of any size has so many squares at most: of a large one each stands for several hosts, and shows the one that somebody
//! has to look at first. Who cannot see squares has the same in the table of states.

use manifests::HostId;

/// So many squares has a wave at most.
const SQUARES: usize = 240;

/// So many stand in a row.
const ROW: usize = 40;

/// From one square to the next, and how large it is.
const STEP: usize = 14;

/// A host's states from the one that somebody has to look at first, each with what it is called.
pub(super) const STATES: [(&str, &str); 13] = [
    ("bad", "hurt"),
    ("stuck", "not back"),
    ("rollback-granted", "told to go back"),
    ("rolled-back", "back"),
    ("granted", "told to begin"),
    ("applied", "watched"),
    ("busy", "busy"),
    ("declined", "declined"),
    ("ready", "ready"),
    ("offered", "offered"),
    ("good", "good"),
    ("withdrawn", "gets nothing here"),
    ("listed", "to come"),
];

/// One square.
pub(super) struct Square {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) state: &'static str,
    /// What it is, for whoever points at it.
    pub(super) words: String,
}

/// A wave as it is drawn.
pub(super) struct Grid {
    pub(super) squares: Vec<Square>,
    /// How many hosts a square stands for.
    pub(super) each: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

fn rank(state: &str) -> usize {
    STATES.iter().position(|(known, _)| *known == state).unwrap_or(STATES.len())
}

/// What a state is called.
pub(super) fn called(state: &str) -> &str {
    STATES.iter().find(|(known, _)| *known == state).map_or(state, |(_, words)| words)
}

impl Grid {
    /// Draws a wave; `name` says how a host is called.
    pub(super) fn of(wave: &[(HostId, &'static str)], name: impl Fn(HostId) -> String) -> Self {
        let each = wave.len().div_ceil(SQUARES).max(1);
        let square = |(number, hosts): (usize, &[(HostId, &'static str)])| {
            let first = hosts.iter().min_by_key(|(_, state)| rank(state)).copied();
            let (host, state) = first.unwrap_or((HostId::new(manifests::Sha256::of(b"")), "listed"));
            let words = match hosts.len() {
                1 => format!("{}: {}", name(host), called(state)),
                several => format!("{} and {} more: {} or better", name(host), several - 1, called(state)),
            };
            Square { x: number % ROW * STEP, y: number / ROW * STEP, state, words }
        };
        let squares: Vec<Square> = wave.chunks(each).enumerate().map(square).collect();
        let rows = squares.len().div_ceil(ROW);
        Self { each, width: ROW * STEP, height: rows * STEP, squares }
    }
}

#[cfg(test)]
mod tests {
    use manifests::Sha256;

    use super::*;

    fn wave(hosts: usize) -> Vec<(HostId, &'static str)> {
        (0..hosts).map(|number| (HostId::new(Sha256::of(&number.to_be_bytes())), "good")).collect()
    }

    #[test]
    fn a_wave_of_any_size_has_few_squares_and_the_hurt_host_shows() {
        let mut large = wave(10_000);
        large[5_000].1 = "bad";
        let grid = Grid::of(&large, |host| host.to_string());
        assert!(grid.squares.len() <= SQUARES && grid.each == 42, "{}", grid.squares.len());
        assert_eq!(grid.squares.iter().filter(|square| square.state == "bad").count(), 1);
        let small = Grid::of(&wave(60), |_| "web".to_owned());
        assert_eq!((small.squares.len(), small.each, small.height), (60, 1, 2 * STEP));
        assert_eq!(small.squares[0].words, "web: good");
        assert!(Grid::of(&[], |_| String::new()).squares.is_empty());
    }
}
