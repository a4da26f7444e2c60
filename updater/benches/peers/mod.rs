//! Ways to do the same work, measured in turn: a busy machine disturbs all of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// One way to do the work, and its times.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    work: Box<dyn FnMut() -> Result<()> + 'a>,
    times: Vec<Duration>,
}

impl<'a> Peer<'a> {
    pub(crate) fn new(name: &'static str, work: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { name, work: Box::new(work), times: Vec::new() }
    }

    pub(crate) fn fastest(&self) -> Duration {
        self.times.iter().min().copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Runs all of them, one after the other, so many times and once before.
pub(crate) fn measure(peers: &mut [Peer<'_>], rounds: usize) -> Result<()> {
    for round in 0..=rounds {
        for peer in &mut *peers {
            let begun = Instant::now();
            (peer.work)().with_context(|| peer.name)?;
            // The first round fills caches.
            if round > 0 {
                peer.times.push(begun.elapsed());
            }
        }
    }
    Ok(())
}

/// The times of all, and those of the last beside each of the others.
pub(crate) fn show(peers: &[Peer<'_>]) {
    let Some(ours) = peers.last() else { return };
    for peer in peers {
        let ratio = ours.median().as_secs_f64() / peer.median().as_secs_f64();
        println!(
            "  {:<34} median {:>9.3?}  fastest {:>9.3?}  ours / this {ratio:>6.3}",
            peer.name,
            peer.median(),
            peer.fastest()
        );
    }
}
