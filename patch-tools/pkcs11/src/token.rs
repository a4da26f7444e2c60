//! A token and its Ed25519 keys, by PKCS#11 3.0: `CKK_EC_EDWARDS` keys, `CKM_EDDSA` without parameters.

use std::io;
use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use manifests::key::KeyError;
use manifests::{KeyName, PublicKey};
use zeroize::Zeroizing;

/// `id-Ed25519` (RFC 8410) as DER, which is how PKCS#11 names a curve.
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

/// Why a token did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot load {}", path.display())]
    Library { path: PathBuf, source: Pkcs11Error },
    #[error("no token is called {wanted:?}: found {}", listed(found))]
    NoToken { wanted: String, found: Vec<String> },
    #[error("{count} tokens are called {wanted:?}: expected one")]
    Tokens { wanted: String, count: usize },
    #[error("the token does not open with this PIN")]
    Login { source: Pkcs11Error },
    #[error("the token has no Ed25519 key {key}")]
    NoKey { key: KeyName },
    #[error("the token has {count} Ed25519 keys {key}: expected one")]
    Keys { key: KeyName, count: usize },
    #[error("the token has an Ed25519 key {key} already")]
    Exists { key: KeyName },
    #[error("the token gave a signature of {found} bytes: expected 64")]
    Signature { found: usize },
    #[error("the token gave no point of an Ed25519 key: found {found} bytes")]
    Point { found: usize },
    #[error("the token gave a public key that is none")]
    PublicKey { source: KeyError },
    #[error("the token failed when asked to {what}")]
    Token { what: &'static str, source: Pkcs11Error },
    #[error("cannot read the PIN in {}", path.display())]
    PinFile { path: PathBuf, source: io::Error },
    #[error("cannot ask for the PIN")]
    NobodyToAsk { source: io::Error },
    #[error("expected at most {most} bytes to sign, found more")]
    TooLong { most: u64 },
    #[error("cannot read what to sign, or write what was asked for")]
    Pipe(#[source] io::Error),
}

fn listed(labels: &[String]) -> String {
    if labels.is_empty() { "none at all".to_owned() } else { labels.join(", ") }
}

impl TokenError {
    /// What to do about it.
    pub(crate) fn next(&self) -> &'static str {
        match self {
            Self::Library { .. } => {
                "name the library of the token with --module; its vendor's manual says where it is"
            }
            Self::NoToken { .. } | Self::Tokens { .. } => "plug it in, or give its label with --token",
            Self::Login { .. } => "try the right PIN; after some wrong ones a token locks itself",
            Self::NoKey { .. } => "give its label with --key; generate makes a new one",
            Self::Keys { .. } | Self::Exists { .. } => "give each key a label of its own",
            Self::PinFile { .. } | Self::NobodyToAsk { .. } => "give --pin-file, or run it at a terminal",
            Self::TooLong { .. } => "see what was piped into it",
            Self::Token { .. } | Self::Signature { .. } | Self::Point { .. } | Self::PublicKey { .. } => {
                "see whether the token does Ed25519 (CKM_EDDSA of PKCS#11 3.0)"
            }
            Self::Pipe(_) => "see the cause above, and try again",
        }
    }
}

/// A token that is open.
pub(crate) struct Token {
    session: Session,
    // After the session, which needs it.
    _library: Pkcs11,
}

impl Token {
    /// Loads the library, finds the one token with this label, and logs in.
    pub(crate) fn open(
        module: &Path,
        label: &str,
        pin: impl FnOnce(&str) -> Result<Zeroizing<String>, TokenError>,
    ) -> Result<Self, TokenError> {
        let broken = |source| TokenError::Library { path: module.to_owned(), source };
        let library = Pkcs11::new(module).map_err(broken)?;
        library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(broken)?;
        let slot = find(&library, label)?;
        let session = library.open_rw_session(slot).map_err(failed("open a session"))?;
        let pin = AuthPin::new(pin(label)?.as_str().into());
        session.login(UserType::User, Some(&pin)).map_err(|source| TokenError::Login { source })?;
        Ok(Self { session, _library: library })
    }

    /// Signs with the key.
    pub(crate) fn sign(&self, key: &KeyName, message: &[u8]) -> Result<[u8; 64], TokenError> {
        let private = self.one(ObjectClass::PRIVATE_KEY, key)?;
        let scheme = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
        let signature = self.session.sign(&scheme, private, message).map_err(failed("sign"))?;
        signature.try_into().map_err(|found: Vec<u8>| TokenError::Signature { found: found.len() })
    }

    /// The public half of the key.
    pub(crate) fn public(&self, key: &KeyName) -> Result<PublicKey, TokenError> {
        let public = self.one(ObjectClass::PUBLIC_KEY, key)?;
        let attributes = self.session.get_attributes(public, &[AttributeType::EcPoint]);
        let point = attributes.map_err(failed("show a public key"))?.into_iter().find_map(|one| match one {
            Attribute::EcPoint(point) => Some(point),
            _ => None,
        });
        let point = point.unwrap_or_default();
        // An OCTET STRING around the point, as the standard says, or the point alone, as some tokens have it.
        let raw = point.strip_prefix(&[0x04, 0x20]).filter(|raw| raw.len() == 32).unwrap_or(&point);
        let raw = <&[u8; 32]>::try_from(raw).map_err(|_| TokenError::Point { found: point.len() })?;
        PublicKey::from_bytes(raw).map_err(|source| TokenError::PublicKey { source })
    }

    /// Makes a key that cannot leave the token.
    pub(crate) fn generate(&self, key: &KeyName) -> Result<PublicKey, TokenError> {
        if !self.all(ObjectClass::PRIVATE_KEY, key)?.is_empty() {
            return Err(TokenError::Exists { key: key.clone() });
        }
        let label = || Attribute::Label(key.as_str().into());
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(ED25519.to_vec()),
            label(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            label(),
        ];
        let made = self.session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private);
        made.map_err(failed("make a key"))?;
        self.public(key)
    }

    fn one(&self, class: ObjectClass, key: &KeyName) -> Result<ObjectHandle, TokenError> {
        match self.all(class, key)?[..] {
            [one] => Ok(one),
            [] => Err(TokenError::NoKey { key: key.clone() }),
            ref all => Err(TokenError::Keys { key: key.clone(), count: all.len() }),
        }
    }

    fn all(&self, class: ObjectClass, key: &KeyName) -> Result<Vec<ObjectHandle>, TokenError> {
        let wanted = [
            Attribute::Class(class),
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::Label(key.as_str().into()),
        ];
        self.session.find_objects(&wanted).map_err(failed("look for a key"))
    }
}

fn find(library: &Pkcs11, label: &str) -> Result<Slot, TokenError> {
    let (mut slots, mut found) = (Vec::new(), Vec::new());
    for slot in library.get_slots_with_token().map_err(failed("list tokens"))? {
        let token = library.get_token_info(slot).map_err(failed("tell what it is"))?;
        if token.label() == label {
            slots.push(slot);
        }
        // What is not set up has no label.
        if token.token_initialized() {
            found.push(token.label().to_owned());
        }
    }
    match slots[..] {
        [slot] => Ok(slot),
        [] => Err(TokenError::NoToken { wanted: label.to_owned(), found }),
        _ => Err(TokenError::Tokens { wanted: label.to_owned(), count: slots.len() }),
    }
}

fn failed(what: &'static str) -> impl FnOnce(Pkcs11Error) -> TokenError {
    move |source| TokenError::Token { what, source }
}
