//! Asks systemd to look, a while after a livepatch was loaded, whether the host still lives.
//!
//! The look itself is `update resume --survived`; the units are `update-survived.timer` and
//! `.service`. A host without systemd is told apart, so that the caller can say who has to run the
//! command then; nothing is scheduled in silence.

use std::path::Path;

use crate::runtime::command::{CommandError, Invocation};

const TIMER: &str = "update-survived.timer";

/// The directory whose presence says that systemd is the running init (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// Whether somebody will look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// systemd will.
    BySystemd,
    /// Nobody will: this host does not run systemd.
    ByNobody,
}

/// Starts the timer; one that runs already goes on.
///
/// # Errors
/// [`CommandError`] if systemd has no such unit or does not answer.
pub fn schedule() -> Result<Scheduled, CommandError> {
    control("start")
}

/// Stops the timer: no livepatch is on trial any more.
///
/// # Errors
/// Those of [`schedule`].
pub fn cancel() -> Result<Scheduled, CommandError> {
    control("stop")
}

fn control(verb: &str) -> Result<Scheduled, CommandError> {
    if !Path::new(BOOTED).is_dir() {
        return Ok(Scheduled::ByNobody);
    }
    // Without waiting: at boot and from the timer's own service the job queue may hold what we are
    // part of.
    Invocation::new("systemctl").args(["--no-block", verb, TIMER]).output()?;
    Ok(Scheduled::BySystemd)
}
