//! What is believed here, and until when.

use askama::Template;
use axum::extract::State;
use manifests::{DocumentKind, UtcTime};

use super::session::Seen;
use super::{Failed, Frame, Html, When, made};
use crate::certificates::HOST_LIFE;
use crate::server::Shared;
use crate::server::asked::Viewer;

/// Whoever has to sign anew needs that long.
const SOON: i64 = 30 * 24 * 3600;

/// Something that counts until some time.
struct Until {
    what: String,
    at: When,
    /// Over, soon, or well.
    kind: &'static str,
    words: &'static str,
}

/// A key of the policy.
struct Key {
    name: String,
    id: String,
    roles: String,
    until: Option<When>,
    revoked: Option<When>,
}

#[derive(Template)]
#[template(path = "trust.html")]
struct Page {
    frame: Frame,
    expiries: Vec<Until>,
    edition: Option<(u64, When)>,
    policy: bool,
    keys: Vec<Key>,
    /// What nobody could sign now, and roles that lack keys.
    lacking: Vec<String>,
    days: u64,
}

impl Until {
    fn new(what: impl Into<String>, at: UtcTime, now: UtcTime) -> Self {
        let left = at.timestamp().as_second() - now.timestamp().as_second();
        let (kind, words) = match left {
            ..=0 => ("wrong", "over"),
            1..=SOON => ("waits", "soon over"),
            _ => ("well", "counts"),
        };
        Self { what: what.into(), at: When::new(at, now), kind, words }
    }
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let now = controller.now();
        let mut expiries: Vec<(UtcTime, String)> = Vec::new();
        expiries.extend(controller.certificates.until().map(|at| (at, "The fleet's authority".to_owned())));
        let server = controller
            .certified
            .get()
            .map(|at| (*at, "This controller's certificate; a start makes a new one".to_owned()));
        expiries.extend(server);
        let repository =
            controller.settings.repository.as_ref().and_then(|repository| repository.timestamp_until());
        expiries.extend(
            repository.map(|at| (at, "The timestamp of the repository that is served here".to_owned())),
        );
        let live = controller.authority.standings()?.into_iter().filter(|standing| standing.stage.is_live());
        expiries.extend(live.map(|standing| {
            (
                standing.expires,
                format!("The rollout of {} version {}: nobody begins after", standing.name, standing.version),
            )
        }));
        let policy = controller.policy.as_ref();
        let keys = policy.map(|policy| policy.keys()).unwrap_or_default();
        let current = keys.iter().filter(|key| key.revoked.is_none());
        expiries.extend(
            current.filter_map(|key| Some((key.not_after?, format!("The key {} of the policy", key.name)))),
        );
        expiries.sort();
        let key = |key: &manifests::policy::PolicyKey| {
            let roles = policy.map(|policy| policy.roles()).unwrap_or_default().iter();
            let roles = roles.filter(|role| role.keys.contains(&key.name)).map(|role| role.name.to_string());
            Key {
                name: key.name.to_string(),
                id: key.id.to_string(),
                roles: roles.collect::<Vec<_>>().join(", "),
                until: key.not_after.map(|at| When::new(at, now)),
                revoked: key.revoked.map(|at| When::new(at, now)),
            }
        };
        let kinds = [DocumentKind::Manifest, DocumentKind::Rollout, DocumentKind::Order, DocumentKind::Grant];
        let lacking = policy.iter().flat_map(|policy| {
            let nobody = kinds.into_iter().filter(|kind| !policy.fillable_at(*kind, now));
            let nobody = nobody.map(|kind| format!("Nobody could sign a document of the kind {kind} now."));
            let roles = policy.lacking_at(now).into_iter();
            let roles = roles
                .map(|(role, missing)| format!("The role {} lacks {missing} key(s) that count.", role.name));
            nobody.chain(roles).collect::<Vec<_>>()
        });
        Ok(Page {
            frame: Frame::new("Trust", "/trust", seen),
            expiries: expiries.into_iter().map(|(at, what)| Until::new(what, at, now)).collect(),
            edition: policy
                .and_then(|policy| policy.edition())
                .map(|edition| (edition.version, When::new(edition.issued, now))),
            policy: policy.is_some(),
            keys: keys.iter().map(key).collect(),
            lacking: lacking.collect(),
            days: HOST_LIFE.as_secs() / 86_400,
        })
    })
    .await
}
