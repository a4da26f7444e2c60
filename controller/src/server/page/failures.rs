//! What went wrong on hosts, by cause.

use askama::Template;
use axum::extract::State;
use fleet::rollout::Outcome;
use manifests::UtcTime;

use super::roster::Lines;
use super::session::Seen;
use super::{Failed, Frame, HostLink, Html, When, made, short};
use crate::authority::{Cause, FailedHost, Wrong, fault};
use crate::server::Shared;
use crate::server::asked::Viewer;

/// So many hosts of a cause are named.
const NAMED: usize = 20;

struct Row {
    fingerprint: Option<String>,
    words: String,
    hosts: usize,
    named: Vec<Host>,
}

struct Host {
    at: When,
    link: HostLink,
    rollout: (String, String),
    transaction: Option<String>,
}

#[derive(Template)]
#[template(path = "failures.html")]
struct Page {
    frame: Frame,
    causes: Vec<Row>,
}

/// What went wrong, in words.
fn words(wrong: Wrong) -> String {
    match wrong {
        Wrong::Hurt(how) => format!("hurt: {}", fault(how)),
        Wrong::Declined(outcome) => match outcome {
            Outcome::NotNeeded => "declined: the fix is there already".to_owned(),
            Outcome::Refused => "declined: a precondition does not hold".to_owned(),
            Outcome::Busy => "declined: busy".to_owned(),
            Outcome::Held => "declined: held back by its operators".to_owned(),
            Outcome::NotAuthentic => "declined: the documents are not believed".to_owned(),
        },
        Wrong::NotBack => "not back".to_owned(),
    }
}

impl Row {
    fn of(cause: Cause, roster: &Lines, now: UtcTime) -> Self {
        let named = cause.failures.iter().take(NAMED).map(|failure| {
            let FailedHost { at, host, rollout, transaction } = failure;
            Host {
                at: When::new(*at, now),
                link: roster.link(*host),
                rollout: (rollout.to_string(), short(rollout)),
                transaction: transaction.as_ref().map(ToString::to_string),
            }
        });
        Self {
            fingerprint: cause.fingerprint.as_ref().map(short),
            words: words(cause.wrong),
            hosts: cause.failures.len(),
            named: named.collect(),
        }
    }

    /// Hosts that are not named.
    fn more(&self) -> usize {
        self.hosts - self.named.len()
    }
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let (roster, now) = (controller.roster()?, controller.now());
        let causes = controller.authority.causes()?.into_iter();
        Ok(Page {
            frame: Frame::new("Failures", "/failures", seen),
            causes: causes.map(|cause| Row::of(cause, &roster, now)).collect(),
        })
    })
    .await
}
