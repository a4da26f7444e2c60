//! What somebody may tell a rollout by their token: asked on a page that says what it comes to and for how many hosts, then given.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use fleet::rollout::Stage;
use manifests::{Ordered, Sha256};

use super::session::{Seen, Sent};
use super::{Failed, Frame, Html, made};
use crate::authority::Reach;
use crate::server::Shared;
use crate::server::answer::{Refusal, blocking};
use crate::server::asked::{At, Both, Operator};
use crate::server::people::by_token;

/// How an order is called in a path, as in the API.
pub(super) fn name(order: Ordered) -> &'static str {
    match order {
        Ordered::Approve => "approve",
        Ordered::Pause => "pause",
        Ordered::Resume => "resume",
        Ordered::Abort => "abort",
        Ordered::RollBack => "roll-back",
        Ordered::Retry => "retry",
    }
}

/// And on a button.
pub(super) fn button(order: Ordered) -> &'static str {
    match order {
        Ordered::Approve => "Approve",
        Ordered::Pause => "Pause",
        Ordered::Resume => "Resume",
        Ordered::Abort => "Give up",
        Ordered::RollBack => "Roll back",
        Ordered::Retry => "Retry",
    }
}

/// Whether a rollout that stands there may be told this by a token. `fleet` has the last word.
pub(super) fn is_open(order: Ordered, stage: &Stage, resumes_by_token: Option<bool>) -> bool {
    match order {
        Ordered::Pause => matches!(stage, Stage::Waiting | Stage::Running | Stage::Completed),
        Ordered::Resume => resumes_by_token == Some(true),
        Ordered::Abort => stage.is_live(),
        Ordered::RollBack => {
            let ended = matches!(
                stage,
                Stage::Halted(_) | Stage::Aborted | Stage::Expired | Stage::Superseded(_) | Stage::Stuck
            );
            stage.is_live() || ended
        }
        Ordered::Approve | Ordered::Retry => false,
    }
}

/// What an order comes to, a sentence each.
fn comes_to(order: Ordered, reach: Reach) -> Vec<String> {
    let Reach { waits, under_way, watched, changed, too_late } = reach;
    let of = |hosts: u32, one: &str, more: &str| match hosts {
        1 => format!("1 host {one}"),
        hosts => format!("{hosts} hosts {more}"),
    };
    let finishes = of(
        under_way,
        "was told to begin: it ends what it does, and is watched.",
        "were told to begin: they end what they do, and are watched.",
    );
    let waiting =
        |then: &str| of(waits, &format!("that has not begun {then}"), &format!("that have not begun {then}"));
    match order {
        Ordered::Pause => vec![
            waiting("may not begin until somebody resumes it."),
            finishes,
            of(
                watched,
                "goes on being watched; nothing is undone.",
                "go on being watched; nothing is undone.",
            ),
        ],
        Ordered::Resume => vec![waiting("may begin again, wave by wave, as its policy says.")],
        Ordered::Abort => vec![
            waiting("may never begin: a rollout that was given up does not go on."),
            finishes,
            of(changed + too_late, "keeps the change.", "keep the change."),
        ],
        Ordered::RollBack => vec![
            of(changed, "with the change is told to go back.", "with the change are told to go back."),
            of(under_way, "that was told to begin turns back.", "that were told to begin turn back."),
            waiting("may never begin: a rollout that goes back does not go on."),
            of(
                too_late,
                "keeps the change: it has had it for longer than a way back is allowed.",
                "keep the change: they have had it for longer than a way back is allowed.",
            ),
        ],
        Ordered::Approve | Ordered::Retry => Vec::new(),
    }
}

#[derive(Template)]
#[template(path = "order.html")]
struct Page {
    frame: Frame,
    id: String,
    rollout: String,
    stage: String,
    order: &'static str,
    button: &'static str,
    comes_to: Vec<String>,
}

/// Only orders that a token can give have a page.
fn known(order: Ordered) -> Result<(), Refusal> {
    match order {
        Ordered::Approve | Ordered::Retry => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format_args!("expected a signature: update rollout {} ROLLOUT --key KEY", name(order)),
        )),
        _ => Ok(()),
    }
}

pub(super) async fn ask(
    State(controller): State<Shared>,
    seen: Seen<Operator>,
    place: Result<At<Both<Sha256, Ordered>>, Refusal>,
) -> Result<Html, Failed> {
    let At(Both(rollout, order)) = place?;
    made(move || {
        controller.unedited()?;
        known(order)?;
        let view = controller.authority.view(rollout)?;
        let standing = &view.standing;
        if !is_open(order, &standing.stage, view.resumes_by_token) {
            let (words, order) = (&standing.words, name(order));
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                format_args!(
                    "the rollout is {words}: by a token it cannot be told to {order}; nothing was changed"
                ),
            ));
        }
        Ok(Page {
            frame: Frame::new(
                format!("{}: {} version {}", button(order), standing.name, standing.version),
                "",
                seen,
            ),
            id: rollout.to_string(),
            rollout: format!("{} version {}", standing.name, standing.version),
            stage: standing.words.clone(),
            order: name(order),
            button: button(order),
            comes_to: comes_to(order, view.reach),
        })
    })
    .await
}

pub(super) async fn give(
    State(controller): State<Shared>,
    place: Result<At<Both<Sha256, Ordered>>, Refusal>,
    Sent { by }: Sent<Operator>,
) -> Result<Response, Failed> {
    let At(Both(rollout, order)) = place?;
    let done = blocking(move || {
        known(order)?;
        by_token(&controller, rollout, order, &by.person)?;
        tracing::info!(%rollout, order = name(order), by = %by.person.name, "somebody gave an order on the page");
        Ok(Redirect::to(&format!("/rollouts/{rollout}")))
    });
    Ok(done.await?.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_called_as_in_the_api() {
        for order in [
            Ordered::Approve,
            Ordered::Pause,
            Ordered::Resume,
            Ordered::Abort,
            Ordered::RollBack,
            Ordered::Retry,
        ] {
            assert_eq!(serde_json::to_value(order).unwrap(), name(order));
        }
    }

    #[test]
    fn what_an_order_comes_to_names_the_hosts() {
        let reach = Reach { waits: 40, under_way: 1, watched: 5, changed: 19, too_late: 2 };
        let words = |order| comes_to(order, reach).join(" ");
        let paused = words(Ordered::Pause);
        assert!(paused.contains("40 hosts that have not begun may not begin"), "{paused}");
        assert!(paused.contains("1 host was told to begin: it ends"), "{paused}");
        let back = words(Ordered::RollBack);
        assert!(back.contains("19 hosts with the change are told to go back"), "{back}");
        assert!(back.contains("2 hosts keep the change"), "{back}");
        assert!(words(Ordered::Abort).contains("21 hosts keep the change"));
    }
}
