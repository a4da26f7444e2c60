//! The network of a container: its namespace, and packets of connections whose container is on trial.

pub mod hold;
pub(crate) mod netns;

pub use self::hold::{Farewell, HoldError, HoldName, LeftoverLock, NftHold};
pub use self::netns::is_there;
use crate::criu::Connection;
use crate::model::NetworkPlace;

/// Packets of connections whose container is on trial.
pub trait ConnectionHold {
    /// Drops the packets of these connections, in and out, and no others. One atomic change; a hold
    /// of the same name is replaced. Nothing happens for [`NetworkPlace::Own`]: the namespace is gone.
    fn hold(
        &self,
        place: &NetworkPlace,
        name: &HoldName,
        connections: &[Connection],
    ) -> Result<(), HoldError>;

    /// Removes what CRIU leaves after a dump or a restore: its `CRIU` chain in a namespace of the
    /// container, its rules for `connections` in the host's.
    fn clear_checkpoint_lock(
        &self,
        place: &NetworkPlace,
        connections: &[Connection],
    ) -> Result<LeftoverLock, HoldError>;

    /// Lets the packets through again. No such hold is success.
    fn release(&self, place: &NetworkPlace, name: &HoldName) -> Result<(), HoldError>;

    /// Makes the peers learn at once that these connections are no more. Call after `release`, when
    /// the old container will not come back; connections that live again are not harmed.
    fn reset_peers(&self, place: &NetworkPlace, connections: &[Connection]) -> Result<Farewell, HoldError>;
}
