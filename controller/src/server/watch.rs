//! Whether the ledger in the store still is what this controller wrote.
//!
//! Whoever owns the database can edit it while the controller runs. So all of the ledger is held against the head that is in
//! memory, again and again, but at most a hundredth of the time: a long one costs no more than a short one. What was found
//! once stays found: people are told instead of what they ask, no host begins until they have looked, and the controller
//! does not start on such a ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

use super::answer::Refusal;
use super::{Controller, TICK};
use crate::authority::Denied;
use crate::ledger::{Finding, audit};

/// After a look nobody looks again for so many times as long as it took.
const REST: u32 = 100;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Option<Finding>>);

impl Controller {
    /// Refuses if the ledger was found edited.
    pub(super) fn unedited(&self) -> Result<(), Refusal> {
        match &*self.watch.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(found) => Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format_args!("the ledger was edited in the store, and no host begins: {found}"),
            )),
        }
    }

    /// Looks at all of it now; refuses if it was edited.
    pub(super) fn unedited_now(&self) -> Result<(), Refusal> {
        self.look()?;
        self.unedited()
    }

    fn look(&self) -> Result<(), Denied> {
        let head = self.authority.head()?;
        let Err(found) = audit(&**self.authority.store(), &[head])? else { return Ok(()) };
        let mut first = self.watch.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            tracing::error!(%found, "the ledger was edited in the store: no host begins");
            self.counters.edited.set(1);
            *first = Some(found);
        }
        Ok(())
    }

    /// Looks until it is over.
    pub(super) fn keep_looking(&self, over: &AtomicBool) {
        let mut again = self.clock.elapsed();
        while !over.load(Ordering::Relaxed) {
            let begun = self.clock.elapsed();
            if begun >= again {
                // Without the lease somebody else looks; a store that cannot be read has other ways to say so.
                let _ = self.look();
                let took = self.clock.elapsed().saturating_sub(begun);
                again = begun + took.max(Duration::from_millis(1)) * REST;
            }
            self.clock.sleep(TICK);
        }
    }
}
