//! Grants as documents, signed by the controller's key.

use fleet::rollout::Action;
use jiff::SignedDuration;
use manifests::schema::SchemaVersion;
use manifests::{
    DocumentKind, Envelope, Grant, GrantedAction, HostId, LedgerHead, Nonce, Rollout, SecretKey, Sha256,
    UtcTime,
};

/// A grant could be taken from so long ago until so long from now by wall clocks: together a day, which is all that it may
/// say. Hosts go by the age of their nonce; a clock that is hours ahead or behind, here or there, takes nothing away.
const EITHER_WAY: SignedDuration = SignedDuration::from_hours(12);

/// What a grant says.
pub(super) struct Granting<'g> {
    pub(super) rollout: Sha256,
    pub(super) document: &'g Rollout,
    pub(super) host: HostId,
    pub(super) action: Action,
    pub(super) wave: usize,
    pub(super) epoch: u64,
    pub(super) nonce: Nonce,
    pub(super) at: UtcTime,
    /// The ledger's head whose last entry is this grant's own.
    pub(super) ledger: LedgerHead,
}

impl Granting<'_> {
    /// The envelope, as JSON.
    pub(super) fn sign(&self, key: &SecretKey) -> String {
        let Self { rollout, document, host, action, wave, epoch, nonce, at, ledger } = *self;
        let parts = format!("{rollout} {host} {nonce} {epoch} {}", ledger.size);
        let issued = at.timestamp().saturating_sub(EITHER_WAY).map_or(at, UtcTime::floor);
        let expires = at.timestamp().saturating_add(EITHER_WAY).map_or(at, UtcTime::floor);
        let grant = Grant {
            schema: SchemaVersion,
            id: Sha256::of(parts.as_bytes()),
            rollout,
            host,
            action: match action {
                Action::Apply => GrantedAction::Apply,
                Action::Rollback => GrantedAction::Rollback,
            },
            manifest: document.manifest,
            wave: u32::try_from(wave).unwrap_or(u32::MAX),
            epoch,
            nonce,
            issued,
            expires,
            ledger,
        };
        let mut envelope = Envelope::new(DocumentKind::Grant, super::facts::encode(&grant));
        envelope.sign(key).expect("a new envelope has no signature yet");
        envelope.to_json()
    }
}
