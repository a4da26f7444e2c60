//! A model that is looked through from its beginning to its end.

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker as _, HasDiscoveries, Model};

/// In every world that can be reached the model's properties hold.
pub(crate) fn holds<M>(model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{} states, of which {} are different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.is_done());
}

/// Looks for a world in which `property` does not hold, and for nothing else after that.
pub(crate) fn found<M>(model: M, mutant: impl Debug, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property);
    assert!(path.is_some(), "{mutant:?} was not caught in {} states", checker.unique_state_count());
    let steps = path.unwrap().into_actions().len();
    println!("{mutant:?}: {} states, caught in {steps} steps", checker.unique_state_count());
}
