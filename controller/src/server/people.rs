//! What people ask, with a token: look, hand in what others signed, slow down; admins also who is in the fleet.
//!
//! Whatever makes hosts begin or go on is a signed document: a rollout, or an order. Its signatures are held against the
//! controller's copy of the hosts' policy; hosts hold them against their own once more.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use fleet::rollout::{Author, Proof};
use futures_util::StreamExt as _;
use manifests::{
    CveId, Document, Envelope, HostId, KeyName, Manifest, Ordered, Rollout, RolloutOrder, Sha256, TrustFloor,
    Verified, VerifyAt,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{Refusal, blocking, json, value};
use super::{Controller, Shared};
use crate::access::{self, Person, Role};
use crate::authority::facts::Departure;
use crate::authority::{Accepted, Move, Order, Portrait};
use crate::content::MAX_DOCUMENT;
use crate::enrolment::{self, Terms};

/// A rollout that is handed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Word {
    /// By their token: this can only slow it down.
    Token(Ordered),
    /// The envelope of an [`RolloutOrder`].
    Signed(String),
}

/// What becomes of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HostChange {
    /// It is moved.
    Move(Move),
    /// It leaves.
    Leave(Departure),
}

/// A payload that a manifest needs and that nobody has handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its digest.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// Who asks, if they may.
async fn person(controller: &Shared, headers: &HeaderMap, role: Role) -> Result<Person, Refusal> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(str::to_owned)
        .ok_or_else(|| Refusal::who("expected a token of this controller, found none"))?;
    let controller = controller.clone();
    let person = blocking(move || {
        access::who(&controller.authority, &token)
            .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))
    });
    let person =
        person.await?.ok_or_else(|| Refusal::who("expected a token of this controller, found another"))?;
    if person.role < role {
        return Err(Refusal::forbidden(format_args!(
            "{} is {}: expected at least {role}",
            person.name, person.role
        )));
    }
    Ok(person)
}

/// Refuses whoever may not look.
pub(super) async fn may_look(controller: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    person(controller, headers, Role::Viewer).await.map(drop)
}

fn digest(text: &str) -> Result<Sha256, Refusal> {
    text.parse().map_err(Refusal::bad)
}

fn host_id(text: &str) -> Result<HostId, Refusal> {
    text.parse().map_err(Refusal::bad)
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
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    let standings = blocking(move || Ok(controller.authority.standings()?));
    Ok(json(&standings.await?))
}

pub(super) async fn rollout(
    State(controller): State<Shared>,
    Path(rollout): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    let rollout = digest(&rollout)?;
    let standing = blocking(move || {
        let all = controller.authority.standings()?;
        all.into_iter()
            .find(|standing| standing.rollout == rollout)
            .ok_or_else(|| crate::authority::Denied::NoSuchRollout { rollout }.into())
    });
    Ok(json(&standing.await?))
}

pub(super) async fn submit(
    State(controller): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let by = person(&controller, &headers, Role::Operator).await?;
    let submission: Submission = value(body, 3 * MAX_DOCUMENT).await?;
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
        let missing: Vec<Missing> = manifest
            .payloads()
            .filter(|payload| !controller.content.has(payload.sha256))
            .map(|payload| Missing { sha256: payload.sha256, size: payload.size })
            .collect();
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|one| one.sha256.to_string()).collect();
            return Err(Refusal::new(
                StatusCode::FAILED_DEPENDENCY,
                format_args!("hosts could not fetch payloads that nobody handed in: {}", names.join(", ")),
            ));
        }
        controller.content.keep_document(&manifest_envelope)?;
        controller.content.keep_document(&envelope)?;
        let Accepted { assurance, supersedes } =
            controller.authority.submit(&envelope, &document, &policy, manifest.version)?;
        tracing::info!(rollout = %document.digest(), by = %by.name, "a rollout was handed in");
        Ok(json!({ "rollout": document.digest(), "assurance": assurance, "supersedes": supersedes }))
    });
    Ok(json(&accepted.await?))
}

pub(super) async fn order(
    State(controller): State<Shared>,
    Path(rollout): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let by = person(&controller, &headers, Role::Operator).await?;
    let rollout = digest(&rollout)?;
    let word: Word = value(body, MAX_DOCUMENT).await?;
    let done = blocking(move || {
        match word {
            Word::Token(order) => {
                let author = Author { name: by.name.clone(), proof: Proof::Token };
                controller.authority.order(rollout, &Order::of(order, &[]), &author)?;
            }
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
        Ok(json!({ "rollout": rollout }))
    });
    Ok(json(&done.await?))
}

/// Everybody who signed.
fn authors(order: &Verified<RolloutOrder>) -> Vec<Author> {
    let names: std::collections::BTreeSet<KeyName> =
        order.signers().roles.iter().flat_map(|role| role.signed.iter().cloned()).collect();
    names.into_iter().map(|name| Author { name, proof: Proof::Signature }).collect()
}

pub(super) async fn explain(
    State(controller): State<Shared>,
    Path((rollout, host)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    let (rollout, host) = (digest(&rollout)?, host_id(&host)?);
    let told = blocking(move || {
        let explanation = controller.authority.explain(rollout, host)?;
        let state = controller.authority.host_state(rollout, host)?;
        let last = controller.presence.last(host);
        let came_back = controller.authority.came_back(rollout, host)?;
        Ok(json!({
            "host": host, "standing": state, "came_back": came_back, "last_seen": last, "explanation": explanation,
        }))
    });
    Ok(json(&told.await?))
}

pub(super) async fn hosts(State(controller): State<Shared>, headers: HeaderMap) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    let hosts = blocking(move || {
        let hosts = controller.authority.hosts()?;
        let seen = |host: HostId| json!({ "last_seen": controller.presence.last(host), "cloned": controller.presence.is_cloned(host) });
        let all: Vec<serde_json::Value> = hosts
            .into_iter()
            .map(|known| {
                let mut value = serde_json::to_value(&known).unwrap_or_default();
                let id = known.host.id;
                if let (Some(value), serde_json::Value::Object(more)) = (value.as_object_mut(), seen(id)) {
                    value.extend(more);
                }
                value
            })
            .collect();
        Ok(all)
    });
    Ok(json(&hosts.await?))
}

/// A host with all that it says of itself.
pub(super) async fn host(
    State(controller): State<Shared>,
    Path(host): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    let host = host_id(&host)?;
    let told = blocking(move || {
        let Portrait { host: known, facts, exposed_hours, rollouts } = controller.authority.portrait(host)?;
        Ok(json!({
            "host": known, "facts": facts, "exposed_hours": exposed_hours, "rollouts": rollouts,
            "last_seen": controller.presence.last(host), "cloned": controller.presence.is_cloned(host),
        }))
    });
    Ok(json(&told.await?))
}

/// How the fleet stands to every vulnerability that a host has named.
pub(super) async fn exposures(
    State(controller): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    Ok(json(&blocking(move || Ok(controller.authority.exposures(None)?)).await?))
}

/// How the fleet stands to one.
pub(super) async fn exposure(
    State(controller): State<Shared>,
    Path(cve): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    let cve: CveId = cve.parse().map_err(Refusal::bad)?;
    let found = blocking(move || {
        let unknown = || {
            let words = "no host has named {cve}: expected one that a manifest of a rollout fixes";
            Refusal::new(StatusCode::NOT_FOUND, words.replace("{cve}", cve.as_ref()))
        };
        controller.authority.exposures(Some(&cve))?.pop().ok_or_else(unknown)
    });
    Ok(json(&found.await?))
}

pub(super) async fn change_host(
    State(controller): State<Shared>,
    Path(host): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let by = person(&controller, &headers, Role::Admin).await?;
    let host = host_id(&host)?;
    let change: HostChange = value(body, 64 << 10).await?;
    let done = blocking(move || {
        match change {
            HostChange::Move(to) => controller.authority.relabel(host, &to, &by.name)?,
            HostChange::Leave(how) => controller.authority.dismiss(host, how, &by.name)?,
        }
        Ok(json!({ "host": host }))
    });
    Ok(json(&done.await?))
}

pub(super) async fn token(
    State(controller): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let by = person(&controller, &headers, Role::Admin).await?;
    let terms: Terms = value(body, 64 << 10).await?;
    let made = blocking(move || {
        let token = enrolment::make(&controller.authority, &terms, &by.name)?;
        let fingerprint = controller.certificates.fingerprint();
        Ok(json!({ "token": token, "ca_fingerprint": fingerprint, "expires": terms.expires }))
    });
    Ok(json(&made.await?))
}

pub(super) async fn admit(
    State(controller): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let by = person(&controller, &headers, Role::Admin).await?;
    let newcomer: Person = value(body, 64 << 10).await?;
    let made = blocking(move || {
        let token = access::admit(&controller.authority, &newcomer, Some(&by.name))?;
        Ok(json!({ "name": newcomer.name, "role": newcomer.role, "token": token }))
    });
    Ok(json(&made.await?))
}

/// A payload that a manifest names.
pub(super) async fn keep(
    State(controller): State<Shared>,
    Path(payload): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    person(&controller, &headers, Role::Operator).await?;
    let digest = digest(&payload)?;
    if controller.content.has(digest) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let content = controller.content.clone();
    let mut arriving = blocking(move || Ok(content.begin(digest)?)).await?;
    let mut chunks = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(super::SILENCE, chunks.next()).await;
        let Some(chunk) =
            next.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the payload stopped coming"))?
        else {
            break;
        };
        let chunk = chunk.map_err(Refusal::bad)?;
        arriving = blocking(move || {
            arriving.more(&chunk)?;
            Ok(arriving)
        })
        .await?;
    }
    blocking(move || Ok(arriving.end()?)).await?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn checkpoint(
    State(controller): State<Shared>,
    headers: HeaderMap,
) -> Result<String, Refusal> {
    person(&controller, &headers, Role::Viewer).await?;
    blocking(move || Ok(controller.authority.checkpoint()?)).await
}
