//! Which fleet a store is of: what all controllers on one store must have in common. Hosts believe one certificate authority,
//! and one ledger; a controller with others would be nobody's.

use manifests::Sha256;
use serde::{Deserialize, Serialize};

use crate::authority::facts::{decode, encode};
use crate::authority::{Authority, Denied};
use crate::store::{Expect, Key, Put, Store, StoreError};

/// What controllers of one fleet have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The digest of the certificate of the fleet's authority.
    pub authority: Sha256,
    /// What the ledger calls itself.
    pub ledger: String,
}

fn key() -> Key {
    Key::new("fleet", "identity")
}

impl Identity {
    /// The fleet that a store is of; nothing if nobody has led one on it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        store.record(&key())?.map(|record| decode("the fleet's identity", &record.value)).transpose()
    }

    /// Says it to whoever comes later.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn keep(&self, authority: &Authority) -> Result<(), Denied> {
        authority.settle(|decision| {
            decision.batch.expects.push(Expect { key: key(), revision: 0 });
            decision.batch.puts.push(Put { key: key(), value: encode(self) });
            Ok(())
        })
    }
}
