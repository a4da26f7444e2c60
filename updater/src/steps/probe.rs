//! Probes and the settle time.

use std::time::Duration;

use serde_json::{Value, json};
use workloads::model::WorkloadId;

use crate::plan::SitedProbe;
use crate::steps::Performer;
use crate::steps::livepatch::micros;
use crate::transaction::driver::{Place, StepError};

/// Between two rounds of the settle time; a probe has its own interval for getting ready.
const ROUND: Duration = Duration::from_millis(500);

impl Performer<'_> {
    /// Ask until the probe has held as often in a row as the manifest wants.
    pub(super) fn probe(&self, probe: &SitedProbe) -> Result<Value, StepError> {
        let begun = self.clock.elapsed();
        self.prober
            .until_ready(&probe.site, &probe.probe, self.interrupt)
            .map(|asked| json!({ "asked": asked, "took_us": micros(self.clock.elapsed() - begun) }))
            .map_err(StepError::doing("see the probe hold"))
    }

    /// Every probe and every restarted service must hold, once a round, until the time is over; and then nobody may map
    /// what was replaced.
    pub(super) fn settle(
        &self,
        at: &Place<'_>,
        of: Option<&WorkloadId>,
        watch: Duration,
        probes: &[SitedProbe],
    ) -> Result<Value, StepError> {
        let begun = self.clock.elapsed();
        let mut rounds = 0_u64;
        loop {
            for probe in probes {
                self.prober
                    .once(&probe.site, &probe.probe, self.interrupt)
                    .map_err(StepError::doing("see the probe hold during the settle time"))?;
            }
            if of.is_none() {
                self.services_hold(at)?;
            }
            if self.interrupt.asked() {
                return Err(StepError::doing("watch for the settle time")("the operator asked to stop"));
            }
            rounds += 1;
            let left = watch.saturating_sub(self.clock.elapsed() - begun);
            if left.is_zero() {
                self.confirm_effects(at, of)?;
                self.confirm_images(at, of)?;
                if of.is_none() {
                    self.confirm_services_once_more(at)?;
                }
                return Ok(json!({ "rounds": rounds }));
            }
            self.clock.sleep(left.min(ROUND));
        }
    }
}
