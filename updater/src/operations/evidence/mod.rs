//! Evidence: what runs on this host now, signed by a key that root of this host alone holds.
//!
//! - `key`: that key
//! - `look`: what runs, from the kernel, the runtimes and the journal
//! - `vulnerabilities`: what the vulnerabilities that manifests name are to the kernel that runs
//!
//! The statement itself, and how another host's is checked, is [`manifests::evidence`]. Nothing here changes the host, but
//! for the key, which is made when it is first needed.

mod key;
mod look;
mod vulnerabilities;

use std::path::PathBuf;

use manifests::evidence::{Challenge, Expected, Said, TYPE};
use manifests::statement::{Digests, Statement, Subject};
use manifests::vex::{self, OPENVEX};
use manifests::{DocumentKind, Envelope, HostId, PublicKeyFile};

pub use self::key::EvidenceKeyError;
use crate::operations::{Engine, EngineError};

/// What a statement is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// What runs.
    Everything,
    /// What vulnerabilities are to the kernel, as OpenVEX.
    Vex,
}

/// Who asks, and for what.
#[derive(Debug, Clone)]
pub struct Question {
    /// What it is to say.
    pub what: What,
    /// What it has to answer.
    pub nonce: Option<Challenge>,
    /// Who this host is in its fleet.
    pub fleet: Option<HostId>,
    /// Files of signed manifests that it may know of beside those that it applied.
    pub manifests: Vec<PathBuf>,
}

impl Engine {
    /// The public half of the key that signs this host's evidence; the key is made if there is none.
    ///
    /// # Errors
    /// [`EngineError::EvidenceKey`], [`EngineError::Journal`].
    pub fn evidence_key(&self) -> Result<PublicKeyFile, EngineError> {
        let key = self.secret_evidence_key()?;
        Ok(key::public(&self.host.name, &key))
    }

    /// What this host says of itself now, signed.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::NothingToState`] if there is nothing that a VEX document could say.
    pub fn evidence(&self, question: &Question) -> Result<Envelope, EngineError> {
        let key = self.secret_evidence_key()?;
        let evidence = self.look_for_evidence(question, key.public().id())?;
        let mut subject = vec![Subject::of(format!("host {}", self.host.name), *evidence.host.key.digest())];
        if let Some(build) = &evidence.kernel.build_id {
            let digest = Digests([("gnuBuildId".to_owned(), build.to_string())].into());
            subject.push(Subject { name: format!("linux {}", evidence.kernel.release), digest });
        }
        let ours =
            evidence.livepatches.iter().filter_map(|livepatch| Some((livepatch, livepatch.ours.as_ref()?)));
        subject.extend(
            ours.map(|(livepatch, ours)| Subject::of(format!("{}.ko", livepatch.module), ours.payload)),
        );
        let statement = match question.what {
            What::Everything => {
                let fixes = evidence.workloads.iter().flat_map(|workload| {
                    workload.fixes.iter().map(|fix| Subject::of(format!("fix of {}", workload.id), *fix))
                });
                subject.extend(fixes);
                Statement::new(subject, TYPE, evidence).to_json()
            }
            What::Vex => {
                let document = vulnerabilities::document(&evidence).ok_or(EngineError::NothingToState)?;
                Statement::new(subject, OPENVEX, document).to_json()
            }
        };
        let mut envelope = Envelope::new(DocumentKind::Evidence, statement);
        // One key, one signature: it cannot have signed this envelope.
        let _ = envelope.sign(&key);
        Ok(envelope)
    }
}

/// What is not proven by a statement that was checked, in words: what its reader must not read into it.
pub fn not_proven(said: &Said, expected: &Expected<'_>) -> Vec<String> {
    let mut words = vec![
        "that the host tells the truth: whoever is root there, or runs below its kernel, can have it sign anything"
            .to_owned(),
    ];
    if expected.nonce.is_none() {
        words.push(
            "that it was made for you: no --nonce was asked for, so it may be shown to you a second time"
                .to_owned(),
        );
    }
    if expected.boot.is_none() {
        words.push("that the host has not been started since: no --boot was expected".to_owned());
    }
    match said {
        Said::Evidence(statement) => {
            let evidence = &statement.predicate;
            let functions = || {
                let objects = evidence.livepatches.iter().flat_map(|livepatch| &livepatch.patches);
                objects.flat_map(|object| &object.functions)
            };
            if functions().any(|function| function.redirected.is_none()) {
                words.push("that calls are led to the new functions: ftrace's list cannot be read there".to_owned());
            }
            if evidence.livepatches.iter().any(|livepatch| livepatch.ours.is_none()) {
                words.push("what livepatches change that this program did not load".to_owned());
            }
            if !evidence.unreadable.is_empty() {
                words.push("anything of what it could not read, which it names".to_owned());
            }
            words.push("what the new functions do: for that, those who signed the manifest vouch".to_owned());
        }
        Said::Vex(_) => words.push(
            "anything of this package on another host, in another boot or later: a scanner does not look at that"
                .to_owned(),
        ),
    }
    words
}

/// The VEX document of a statement; none of one that says something else.
pub fn vex_of(said: &Said) -> Option<&vex::Document> {
    match said {
        Said::Vex(statement) => Some(&statement.predicate),
        Said::Evidence(_) => None,
    }
}
