//! What people ask, with a token: look, hand in what others signed, slow down; admins also who is in the fleet.
//!
//! Whatever makes hosts begin or go on is a signed document: a rollout, or an order. Its signatures are held against the
//! controller's copy of the hosts' policy; hosts hold them against their own once more.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fleet::assurance::Assurance;
use fleet::facts::FleetExposure;
use fleet::policy::RolloutPolicy;
use fleet::rollout::{Author, Explanation, HostState, Proof};
use futures_util::StreamExt as _;
use manifests::{
    CveId, Document, Envelope, GroupName, HostId, KeyName, Manifest, Nonce, Ordered, Rollout, RolloutOrder,
    Sha256, TrustFloor, UtcTime, Verified, VerifyAt,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::answer::{Answer, Refusal, blocking};
use super::api::{Gives, Page};
use super::asked::{Admin, Asked, At, Both, By, Operator, Question, Viewer};
use super::health::{Latest, nobody_to_ask};
use super::limits::Limits;
use super::{Controller, Shared};
use crate::access::{self, Person, Role};
use crate::authority::facts::Departure;
use crate::authority::{Accepted, KnownHost, Move, Order, Portrait, Standing};
use crate::content::MAX_DOCUMENT;
use crate::enrolment::{self, Terms};

/// A rollout that is handed in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The envelope of the rollout document.
    pub rollout: String,
    /// The text of the rollout policy that it names.
    pub policy: String,
    /// The envelope of the manifest that it names.
    pub manifest: String,
}

/// What somebody wants of a rollout: by their token alone, or signed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Word {
    /// By their token: this can only slow it down.
    Token(Ordered),
    /// The envelope of an [`RolloutOrder`].
    Signed(String),
}

/// What becomes of a host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HostChange {
    /// It is moved.
    Move(Move),
    /// It leaves.
    Leave(Departure),
}

macro_rules! question {
    ($name:ident, $max:expr) => {
        impl Question for $name {
            const MAX_BYTES: usize = $max;

            fn read(bytes: &[u8]) -> Result<Self, Refusal> {
                serde_json::from_slice(bytes).map_err(Refusal::bad)
            }
        }
    };
}

question!(Submission, 3 * MAX_DOCUMENT);
question!(Word, MAX_DOCUMENT);
question!(HostChange, 64 << 10);
question!(Terms, 64 << 10);
question!(Person, 64 << 10);

/// A rollout was accepted.
#[derive(Serialize, JsonSchema)]
pub(super) struct RolloutTaken {
    /// Its document's digest.
    rollout: Sha256,
    /// What a rollout of this size can promise.
    assurance: Assurance,
    /// Rollouts that end when it begins.
    supersedes: Vec<Sha256>,
}

/// An order was taken.
#[derive(Serialize, JsonSchema)]
pub(super) struct OrderTaken {
    /// The rollout.
    rollout: Sha256,
}

/// A rollout, and what its health queries say at this moment.
#[derive(Serialize, JsonSchema)]
pub(super) struct RolloutShown {
    /// As it is written down.
    #[serde(flatten)]
    standing: Standing,
    /// What came out of its health queries the last time that they were asked; nothing of one that is not asked now.
    latest_health: BTreeMap<GroupName, Latest>,
}

impl RolloutShown {
    fn of(controller: &Controller, standing: Standing) -> Self {
        let latest =
            |query: &GroupName| Some((query.clone(), controller.health.latest(standing.rollout, query)?));
        let latest_health = standing.health.iter().filter_map(|health| latest(&health.query)).collect();
        Self { standing, latest_health }
    }
}

/// Why a host got something, or did not.
#[derive(Serialize, JsonSchema)]
pub(super) struct HostExplained {
    /// Which.
    host: HostId,
    /// Where it stands in the rollout; nothing if it is not in it.
    standing: Option<HostState>,
    /// Whether it came back from the manifest, and is not to have it again until people say so.
    came_back: bool,
    /// When it was last heard of.
    last_seen: Option<UtcTime>,
    /// What happened.
    explanation: Explanation,
}

/// A host of the fleet.
#[derive(Serialize, JsonSchema)]
pub(super) struct Member {
    /// What is known of it.
    #[serde(flatten)]
    known: KnownHost,
    /// When it was last heard of.
    last_seen: Option<UtcTime>,
    /// Whether two machines have its key.
    cloned: bool,
}

/// A host with all that is known of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct HostShown {
    /// What it says of itself, and where it stands.
    #[serde(flatten)]
    portrait: Portrait,
    /// When it was last heard of.
    last_seen: Option<UtcTime>,
    /// Whether two machines have its key.
    cloned: bool,
}

/// A host was moved, or has left.
#[derive(Serialize, JsonSchema)]
pub(super) struct HostChanged {
    /// Which.
    host: HostId,
}

/// A token that lets hosts in. It is shown this once.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenMade {
    /// The token.
    token: Nonce,
    /// By which hosts know whom to believe: the digest of the authority's certificate.
    ca_fingerprint: Sha256,
    /// From when on it lets nobody in.
    expires: UtcTime,
}

/// Somebody may ask. Their token is shown this once.
#[derive(Serialize, JsonSchema)]
pub(super) struct Admitted {
    /// What they are called.
    name: KeyName,
    /// What they may do.
    role: Role,
    /// What shows who they are.
    token: String,
}

/// A payload that was handed in.
pub(super) enum Kept {
    /// It is there now.
    Now,
    /// It was there before; what came was not looked at.
    Before,
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        match self {
            Self::Now => StatusCode::CREATED,
            Self::Before => StatusCode::NO_CONTENT,
        }
        .into_response()
    }
}

impl Gives for Kept {
    fn tell(page: &mut Page<'_>) {
        page.empty("201", "It is there now");
        page.empty("204", "It was there before");
    }
}

fn verify<T: Document>(controller: &Controller, text: &str) -> Result<(Envelope, Verified<T>), Refusal> {
    let refuse =
        |error: &(dyn std::error::Error + 'static)| Refusal::forbidden(system::error::with_causes(error));
    let policy = controller.policy.as_ref().ok_or_else(|| {
        Refusal::forbidden("this controller knows no policy: serve it with --policy, the one that hosts have")
    })?;
    let envelope =
        Envelope::parse(text.as_bytes()).map_err(|error| Refusal::bad(system::error::with_causes(&error)))?;
    let at = VerifyAt { now: controller.clock.now(), floor: &TrustFloor::default() };
    let document = policy.verify::<T>(&envelope, at).map_err(|error| refuse(&error))?;
    Ok((envelope, document))
}

pub(super) async fn rollouts(
    State(controller): State<Shared>,
    _: By<Viewer>,
) -> Result<Answer<Vec<RolloutShown>>, Refusal> {
    let standings = blocking(move || {
        controller.unedited()?;
        let all = controller.authority.standings()?;
        Ok(all.into_iter().map(|standing| RolloutShown::of(&controller, standing)).collect())
    });
    standings.await.map(Answer)
}

pub(super) async fn rollout(
    State(controller): State<Shared>,
    _: By<Viewer>,
    At(rollout): At<Sha256>,
) -> Result<Answer<RolloutShown>, Refusal> {
    let standing = blocking(move || {
        controller.unedited()?;
        Ok(RolloutShown::of(&controller, controller.authority.shown(rollout)?))
    });
    standing.await.map(Answer)
}

pub(super) async fn submit(
    State(controller): State<Shared>,
    By { person: by, .. }: By<Operator>,
    Asked(submission): Asked<Submission>,
) -> Result<Answer<RolloutTaken>, Refusal> {
    let accepted = blocking(move || {
        let Submission { rollout, policy, manifest } = submission;
        let (envelope, document) = verify::<Rollout>(&controller, &rollout)?;
        let (manifest_envelope, manifest) = verify::<Manifest>(&controller, &manifest)?;
        let (expected, found) = (document.manifest, manifest.digest());
        if expected != found {
            return Err(Refusal::bad(format_args!(
                "the manifest is not the rollout's: expected {expected}, found {found}"
            )));
        }
        let mut missing = Vec::new();
        for payload in manifest.payloads() {
            if !controller.content.has(payload.sha256)? {
                missing.push(payload.sha256.to_string());
            }
        }
        if !missing.is_empty() {
            return Err(Refusal::new(
                StatusCode::FAILED_DEPENDENCY,
                format_args!("hosts could not fetch payloads that nobody handed in: {}", missing.join(", ")),
            ));
        }
        if let Some(query) = needs(&controller, &policy) {
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, nobody_to_ask(&query)));
        }
        controller.content.keep_document(&manifest_envelope)?;
        controller.content.keep_document(&envelope)?;
        let Accepted { assurance, supersedes } =
            controller.authority.submit(&envelope, &document, &policy, manifest.version)?;
        tracing::info!(rollout = %document.digest(), by = %by.name, "a rollout was handed in");
        Ok(RolloutTaken { rollout: document.digest(), assurance, supersedes })
    });
    accepted.await.map(Answer)
}

/// A health query of a policy that this controller has nobody to ask. Whether it is a policy, is said elsewhere.
fn needs(controller: &Controller, policy: &str) -> Option<GroupName> {
    let policy =
        RolloutPolicy::parse(policy.as_bytes()).ok().filter(|_| controller.settings.prometheus.is_none())?;
    policy.health.into_iter().next().map(|query| query.name)
}

pub(super) async fn order(
    State(controller): State<Shared>,
    By { person: by, .. }: By<Operator>,
    At(rollout): At<Sha256>,
    Asked(word): Asked<Word>,
) -> Result<Answer<OrderTaken>, Refusal> {
    let done = blocking(move || {
        match word {
            Word::Token(order) => by_token(&controller, rollout, order, &by)?,
            Word::Signed(envelope) => {
                let (_, document) = verify::<RolloutOrder>(&controller, &envelope)?;
                if document.rollout != rollout {
                    return Err(Refusal::bad(format_args!(
                        "the order is for another rollout: expected {rollout}, found {}",
                        document.rollout
                    )));
                }
                let order = Order::of(document.order, &document.hosts);
                for author in authors(&document) {
                    controller.authority.order(rollout, &order, &author)?;
                    if document.order != Ordered::Approve {
                        break;
                    }
                }
            }
        }
        tracing::info!(%rollout, by = %by.name, "people said something");
        Ok(OrderTaken { rollout })
    });
    done.await.map(Answer)
}

/// Tells a rollout what somebody wants, with nothing to show but who they are: whether that is enough, `fleet` says.
pub(super) fn by_token(
    controller: &Controller,
    rollout: Sha256,
    order: Ordered,
    by: &Person,
) -> Result<(), Refusal> {
    let author = Author { name: by.name.clone(), proof: Proof::Token };
    Ok(controller.authority.order(rollout, &Order::of(order, &[]), &author)?)
}

/// Everybody who signed.
fn authors(order: &Verified<RolloutOrder>) -> Vec<Author> {
    let names: std::collections::BTreeSet<KeyName> =
        order.signers().roles.iter().flat_map(|role| role.signed.iter().cloned()).collect();
    names.into_iter().map(|name| Author { name, proof: Proof::Signature }).collect()
}

pub(super) async fn explain(
    State(controller): State<Shared>,
    _: By<Viewer>,
    At(Both(rollout, host)): At<Both<Sha256, HostId>>,
) -> Result<Answer<HostExplained>, Refusal> {
    let told = blocking(move || {
        controller.unedited_now()?;
        let explanation = controller.authority.explain(rollout, host)?;
        let standing = controller.authority.host_state(rollout, host)?;
        let came_back = controller.authority.came_back(rollout, host)?;
        let last_seen = controller.presence.last(host);
        Ok(HostExplained { host, standing, came_back, last_seen, explanation })
    });
    told.await.map(Answer)
}

pub(super) async fn hosts(
    State(controller): State<Shared>,
    _: By<Viewer>,
) -> Result<Answer<Vec<Member>>, Refusal> {
    let hosts = blocking(move || {
        controller.unedited()?;
        let presence = &controller.presence;
        let member = |known: KnownHost| {
            let id = known.host.id;
            Member { known, last_seen: presence.last(id), cloned: presence.is_cloned(id) }
        };
        Ok(controller.authority.hosts()?.into_iter().map(member).collect())
    });
    hosts.await.map(Answer)
}

pub(super) async fn host(
    State(controller): State<Shared>,
    _: By<Viewer>,
    At(host): At<HostId>,
) -> Result<Answer<HostShown>, Refusal> {
    let told = blocking(move || {
        controller.unedited()?;
        let portrait = controller.authority.portrait(host)?;
        let (last_seen, cloned) = (controller.presence.last(host), controller.presence.is_cloned(host));
        Ok(HostShown { portrait, last_seen, cloned })
    });
    told.await.map(Answer)
}

pub(super) async fn exposures(
    State(controller): State<Shared>,
    _: By<Viewer>,
) -> Result<Answer<Vec<FleetExposure>>, Refusal> {
    let found = blocking(move || {
        controller.unedited()?;
        Ok(controller.authority.exposures(None)?)
    });
    found.await.map(Answer)
}

pub(super) async fn exposure(
    State(controller): State<Shared>,
    _: By<Viewer>,
    At(cve): At<CveId>,
) -> Result<Answer<FleetExposure>, Refusal> {
    let found = blocking(move || {
        controller.unedited()?;
        let unknown = || {
            let expected = "expected one that a manifest of a rollout fixes";
            Refusal::new(StatusCode::NOT_FOUND, format_args!("no host has named {cve}: {expected}"))
        };
        controller.authority.exposures(Some(&cve))?.pop().ok_or_else(unknown)
    });
    found.await.map(Answer)
}

pub(super) async fn change_host(
    State(controller): State<Shared>,
    By { person: by, .. }: By<Admin>,
    At(host): At<HostId>,
    Asked(change): Asked<HostChange>,
) -> Result<Answer<HostChanged>, Refusal> {
    let done = blocking(move || {
        match change {
            HostChange::Move(to) => controller.authority.relabel(host, &to, &by.name)?,
            HostChange::Leave(how) => controller.authority.dismiss(host, how, &by.name)?,
        }
        tracing::info!(%host, by = %by.name, "a host was moved or has left");
        Ok(HostChanged { host })
    });
    done.await.map(Answer)
}

pub(super) async fn token(
    State(controller): State<Shared>,
    By { person: by, .. }: By<Admin>,
    Asked(terms): Asked<Terms>,
) -> Result<Answer<TokenMade>, Refusal> {
    let made = blocking(move || {
        let token = enrolment::make(&controller.authority, &terms, &by.name)?;
        tracing::info!(by = %by.name, hosts = terms.hosts, expires = %terms.expires, "a token was made");
        let ca_fingerprint = controller.certificates.fingerprint();
        Ok(TokenMade { token, ca_fingerprint, expires: terms.expires })
    });
    made.await.map(Answer)
}

pub(super) async fn admit(
    State(controller): State<Shared>,
    By { person: by, .. }: By<Admin>,
    Asked(newcomer): Asked<Person>,
) -> Result<Answer<Admitted>, Refusal> {
    let made = blocking(move || {
        let token = access::admit(&controller.authority, &newcomer, Some(&by.name))?;
        let Person { name, role } = newcomer;
        tracing::info!(%name, %role, by = %by.name, "somebody may ask");
        Ok(Admitted { name, role, token })
    });
    made.await.map(Answer)
}

/// A payload that a manifest names.
pub(super) async fn keep(
    State(controller): State<Shared>,
    _: By<Operator>,
    At(digest): At<Sha256>,
    body: Body,
) -> Result<Kept, Refusal> {
    let content = controller.content.clone();
    if blocking(move || Ok(content.has(digest)?)).await? {
        return Ok(Kept::Before);
    }
    let Limits { silence, pace, .. } = controller.gate.limits;
    let (begun, mut have) = (Instant::now(), 0);
    let content = controller.content.clone();
    let mut arriving = blocking(move || Ok(content.begin(digest)?)).await?;
    let mut chunks = body.into_data_stream();
    loop {
        // Neither may it stop, nor come so slowly that it never ends.
        let latest = begun + silence + Duration::from_secs(have / pace.max(1));
        let next = tokio::time::timeout_at(latest.min(Instant::now() + silence), chunks.next()).await;
        let Some(chunk) =
            next.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the payload came too slowly"))?
        else {
            break;
        };
        let chunk = chunk.map_err(Refusal::bad)?;
        have += chunk.len() as u64;
        arriving = blocking(move || {
            arriving.more(&chunk)?;
            Ok(arriving)
        })
        .await?;
    }
    blocking(move || Ok(arriving.end()?)).await?;
    Ok(Kept::Now)
}

pub(super) async fn checkpoint(State(controller): State<Shared>, _: By<Viewer>) -> Result<String, Refusal> {
    let checkpoint = blocking(move || {
        controller.unedited_now()?;
        Ok(controller.authority.checkpoint()?)
    });
    checkpoint.await
}
