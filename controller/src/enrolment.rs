//! Enrolment tokens: how a host comes into the fleet, into which groups, and with what it fails together.
//!
//! A token is 128 bits from the operating system. It is shown once, to whoever makes it; the store keeps its SHA-256
//! hash, which is enough to know it and not enough to use it (128 random bits need no slow hash). Groups, failure
//! domain and role are the token's, so that no host chooses its own. A token lets in as many hosts as it says, until it expires;
//! the same host twice with the same token is once.

use fleet::host::Host;
use manifests::{DomainName, GroupName, HostId, KeyName, LabelValue, Nonce, Sha256, UtcTime};
use serde::{Deserialize, Serialize};

use crate::authority::facts::{Departure, Fact, decode, encode, of_hosts};
use crate::authority::{Authority, Denied};
use crate::store::{Expect, Key, Put, Record, StoreError};

/// Why a token lets nobody in. Deliberately the same words for one that never was and one that was used up: whoever
/// guesses learns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Unknown, used up, or withdrawn.
    #[error("the token lets nobody in: expected one that was made here and is not used up")]
    Unknown,
    /// Too late.
    #[error("the token expired at {expires}")]
    Expired {
        /// When.
        expires: UtcTime,
    },
    /// The host is in the fleet, by another token.
    #[error("the host is in the fleet already")]
    Enrolled,
    /// The host left the fleet; whoever comes back comes with a new key.
    #[error("the host left the fleet: expected a key that was made anew (update enrol --new-key)")]
    Retired,
    /// A token for nobody, or one that has expired when it is made.
    #[error("expected a token for at least one host, with a time to come")]
    Useless,
    /// There are no random numbers.
    #[error("the operating system gives no random numbers")]
    NoRandomNumbers,
}

/// What a token is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The groups that it puts a host into.
    pub groups: Vec<GroupName>,
    /// What the host fails together with.
    pub domain: DomainName,
    /// What the host is there for.
    pub role: LabelValue,
    /// How many hosts it lets in.
    pub hosts: u32,
    /// From when on it lets nobody in.
    pub expires: UtcTime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord {
    terms: Terms,
    by: KeyName,
    used_by: Vec<HostId>,
}

/// A token that was made, without what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStanding {
    /// What it is worth.
    pub terms: Terms,
    /// Who made it.
    pub by: KeyName,
    /// How many hosts came in by it.
    pub used: usize,
}

/// Every token that was ever made, the one that counts longest first.
///
/// # Errors
/// [`StoreError`].
pub fn tokens(authority: &Authority) -> Result<Vec<TokenStanding>, StoreError> {
    let read = |(_, record): (Key, Record)| {
        let TokenRecord { terms, by, used_by } = decode("a token", &record.value)?;
        Ok(TokenStanding { terms, by, used: used_by.len() })
    };
    let all = authority.store().room("token")?.into_iter().map(read);
    let mut all = all.collect::<Result<Vec<_>, StoreError>>()?;
    all.sort_by_key(|token| std::cmp::Reverse(token.terms.expires));
    Ok(all)
}

/// What a host says of itself when it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// Its key's digest, from a request that its key has signed.
    pub id: HostId,
    /// The running kernel.
    pub kernel: manifests::KernelRelease,
    /// The build id of that kernel, if it has one.
    pub kernel_build_id: Option<manifests::BuildId>,
    /// The CPU's model.
    pub cpu: LabelValue,
    /// The services that run on it.
    pub services: Vec<manifests::Label>,
}

/// The hash by which a token is known.
pub fn hash(token: &Nonce) -> Sha256 {
    // Of its one spelling.
    Sha256::of(token.to_string().as_bytes())
}

/// Makes a token. It is in the answer and nowhere else.
///
/// # Errors
/// [`Denied`].
pub fn make(authority: &Authority, terms: &Terms, by: &KeyName) -> Result<Nonce, Denied> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Denied::Token(TokenError::NoRandomNumbers))?;
    let token = Nonce::from_bytes(bytes);
    let (key, token_hash) = (Key::new("token", hash(&token)), hash(&token));
    authority.settle(|decision| {
        if terms.hosts == 0 || terms.expires <= decision.now {
            return Err(Denied::Token(TokenError::Useless));
        }
        let record = TokenRecord { terms: terms.clone(), by: by.clone(), used_by: Vec::new() };
        decision.batch.expects.push(Expect { key: key.clone(), revision: 0 });
        decision.batch.puts.push(Put { key: key.clone(), value: encode(&record) });
        let Terms { groups, domain, role, hosts, expires } = terms.clone();
        let (at, token, by) = (decision.now, token_hash, by.clone());
        let fact = Fact::TokenMade { at, token, by, groups, domain, role, hosts, expires };
        decision.say(&fact, of_hosts());
        Ok(token)
    })?;
    Ok(token)
}

/// Lets a host in.
///
/// # Errors
/// [`Denied::Token`] if the token lets it in no more.
pub fn enrol(authority: &Authority, token: &Nonce, newcomer: &Newcomer) -> Result<Host, Denied> {
    let token = hash(token);
    let key = Key::new("token", token);
    let host_key = Key::new("host", newcomer.id);
    authority.settle(|decision| {
        let found = authority.store().record(&key)?.ok_or(Denied::Token(TokenError::Unknown))?;
        let mut record: TokenRecord = decode("a token", &found.value)?;
        let left_key = Key::new("left", newcomer.id);
        if let Some(left) = authority.store().record(&left_key)? {
            let how: Departure = decode("how a host left", &left.value)?;
            // A retired host may come back with a key of its own; this one is done with.
            return Err(match how {
                Departure::Revoked => Denied::Revoked { host: newcomer.id },
                Departure::Retired => Denied::Token(TokenError::Retired),
            });
        }
        if let Some(host) = authority.store().record(&host_key)? {
            if record.used_by.contains(&newcomer.id) {
                // It did not hear the answer the first time.
                return Ok(decode("a host", &host.value)?);
            }
            return Err(Denied::Token(TokenError::Enrolled));
        }
        let expires = record.terms.expires;
        if decision.now >= expires {
            return Err(Denied::Token(TokenError::Expired { expires }));
        }
        if record.used_by.len() >= record.terms.hosts as usize {
            return Err(Denied::Token(TokenError::Unknown));
        }
        record.used_by.push(newcomer.id);
        let Newcomer { id, kernel, kernel_build_id, cpu, services } = newcomer.clone();
        let Terms { groups, domain, role, .. } = record.terms.clone();
        let host = Host { id, groups, domain, kernel, kernel_build_id, cpu, role, services };
        decision.batch.expects.push(Expect { key: key.clone(), revision: found.revision });
        decision.batch.expects.push(Expect { key: host_key.clone(), revision: 0 });
        decision.batch.puts.push(Put { key: key.clone(), value: encode(&record) });
        decision.batch.puts.push(Put { key: host_key.clone(), value: encode(&host) });
        decision.say(&Fact::Enrolled { at: decision.now, host: id, token }, of_hosts());
        decision.seat(host.clone());
        Ok(host)
    })
}
