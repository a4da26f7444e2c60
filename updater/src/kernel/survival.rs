//! Asks systemd to look, a while after a livepatch was loaded, whether the host still lives, and to tell us
//! when it shuts down in order.
//!
//! The look itself is `update resume --survived`; the units are `update-survived.timer` and
//! `.service`. The shutdown is told by the stop of `update-guard.service`: without it every orderly reboot
//! would look like a crash, so it is started here too, in case nobody has enabled it. A host without systemd is told apart, so that the caller can say who has to run the
//! command then; nothing is scheduled in silence.

use std::path::Path;

use system::command::{CommandError, Invocation};

const TIMER: &str = "update-survived.timer";
const GUARD: &str = "update-guard.service";

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

/// Whether this boot has loaded a livepatch whose window is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It has.
    Runs,
    /// It has none.
    Over,
}

/// While a trial runs, starts the timer and the guard; what runs already goes on. After it, stops the timer.
///
/// # Errors
/// [`CommandError`] if systemd lacks one of the units or does not answer.
pub fn watch(trial: Trial) -> Result<Scheduled, CommandError> {
    match trial {
        Trial::Runs => control("start", &[TIMER, GUARD]),
        Trial::Over => control("stop", &[TIMER]),
    }
}

fn control(verb: &str, units: &[&str]) -> Result<Scheduled, CommandError> {
    if !Path::new(BOOTED).is_dir() {
        return Ok(Scheduled::ByNobody);
    }
    // Without waiting: at boot and from the timer's own service the job queue may hold what we are
    // part of.
    Invocation::new("systemctl").args(["--no-block", verb]).args(units).output()?;
    Ok(Scheduled::BySystemd)
}
